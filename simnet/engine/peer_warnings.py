"""BGPPeers that get no session, and topologies whose packets find no way: told once, with the line of the resource."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from simnet.controlplane.bgp.network import bgp_network
from simnet.controlplane.bgp.origins import originated_by, origins_of
from simnet.controlplane.bgp.settled import depends_on_order
from simnet.controlplane.calico.advertisement import service_advertisements
from simnet.errors import Position, Problem
from simnet.model.calico import AdvertisedService, FabricSettings, Wiring
from simnet.model.cluster import Block, ClusterNode
from simnet.model.fabric import Fabric
from simnet.model.scenario import ClusterSpec

_MOST_SESSION_ENDS = 2_000  # beyond, orders of messages are not tried: each costs a whole exchange


def choices_by_order(
    spec: ClusterSpec, fabric: Fabric, nodes: Sequence[ClusterNode], blocks: Sequence[Block],
    services: Sequence[AdvertisedService], settings: FabricSettings,
) -> Iterator[Problem]:  # fmt: skip
    """Yield a warning where the converged tables depend on which BGP messages come first; of BGPPeers' wirings only.

    In the wirings in short every speaker ranks paths alike, so there is one outcome.
    """
    if spec.calico.wiring is not Wiring.PEERS:
        return
    origins = origins_of(nodes, blocks, service_advertisements(services, nodes, spec.calico), spec.calico)
    for family in (4, 6):
        network = bgp_network(fabric, nodes, spec.calico, settings, family, blocks)
        if len(network.peerings) > _MOST_SESSION_ENDS:
            continue
        found = depends_on_order(network, originated_by(origins, network.topology, family))
        if found:
            few = ", ".join(list(found)[:4]) + (f" and {len(found) - 4} others" if len(found) > 4 else "")
            prefixes = sorted({str(prefix) for each in found.values() for prefix in each})
            told = ", ".join(prefixes[:4]) + (f" and {len(prefixes) - 4} others" if len(prefixes) > 4 else "")
            yield Problem(
                Position(""), "BGPPeers", f"the choice of {few} for {told} depends on which message comes first",
                "one outcome whatever the timing",
                "peer reflectors with all clients, or with clients on their own segment; runs differ by seed",
            )  # fmt: skip


def unanswered_peers(
    spec: ClusterSpec, fabric: Fabric, nodes: Sequence[ClusterNode], settings: FabricSettings
) -> Iterator[Problem]:
    """Yield a warning for every neighbour of a BGPPeer with which no session can stand; nodes alike in one."""
    if spec.calico.wiring is not Wiring.PEERS:
        return
    positions = {each.name: each.position for each in spec.objects.calico if each.kind == "BGPPeer"}
    known = {node.name for node in nodes}
    for peer in spec.calico.peers:
        if peer.node and peer.node not in known:
            where = positions.get(peer.name, Position(""))
            few = ", ".join(sorted(known)[:8])
            yield Problem(where, f"BGPPeer {peer.name}: spec.node", peer.node, f"a node: {few}", "correct the name")
    for family in (4, 6):
        if not any((6 if ":" in address else 4) == family for node in nodes for address in node.addresses):
            continue
        alike: dict[tuple[str, str, str], list[str]] = {}
        for each in bgp_network(fabric, nodes, spec.calico, settings, family).unanswered:
            alike.setdefault((each.peer, each.address, each.why), []).append(each.node)
        for (name, address, why), names in alike.items():
            whose = ", ".join(names[:4]) + (f" and {len(names) - 4} others" if len(names) > 4 else "")
            yield Problem(
                positions.get(name, Position("")), f"BGPPeer {name}", f"{address}, neighbour of {whose}",
                "a node of this cluster, or the switch that the node hangs on, of that AS",
                f"{why}; there is no such session",
            )  # fmt: skip
