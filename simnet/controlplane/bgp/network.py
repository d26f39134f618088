"""The speakers and sessions that a wiring makes of a fabric, and their exchange of paths until nothing changes.

`converge` passes every path over every session, in rounds: the plain statement of what `steady.py` computes by role,
used to check it and, later, fed with messages one by one by the engine.
Source: RFC 4271, 9; docs/models/routing.md for the wirings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simnet.controlplane.bgp.decision import select_paths
from simnet.controlplane.bgp.path import Path, Peering, Speaker, Withheld
from simnet.controlplane.bgp.policy import export_path, import_path, refused, withheld
from simnet.controlplane.bgp.steady import speaker_as_numbers
from simnet.controlplane.bgp.topology import Topology
from simnet.errors import ModelError
from simnet.model.calico import CalicoSettings, FabricSettings, Wiring
from simnet.model.cluster import ClusterNode
from simnet.model.fabric import DeviceKind, Fabric
from simnet.model.iptables.ruleset import IPNetwork

_MOST_ROUNDS = 64
UNRESOLVED_METRIC = 0x80000000  # BIRD: the next hop is reached through a gateway


@dataclass(frozen=True, slots=True)
class BgpNetwork:
    """Speakers by name, and both ends of every session."""

    speakers: Mapping[str, Speaker]
    peerings: tuple[Peering, ...]
    topology: Topology
    family: int

    def igp_metric(self, speaker: str, next_hop: str) -> int | None:
        """0: on a connected segment; UNRESOLVED_METRIC: through the default route; None: unreachable."""
        if self.topology.reaches_directly(speaker, next_hop):
            return 0
        return UNRESOLVED_METRIC if self.topology.gateway(speaker, self.family) is not None else None


def bgp_network(
    fabric: Fabric, nodes: Sequence[ClusterNode], calico: CalicoSettings, settings: FabricSettings, family: int = 4
) -> BgpNetwork:
    """Return who peers with whom: nodes with their switch, nodes with each other (S2, S3), switches over wires."""
    topology, wiring = Topology(fabric), calico.wiring
    numbers = speaker_as_numbers(nodes, fabric, wiring)
    speakers: dict[str, Speaker] = {}
    for device in fabric.devices:
        if device.kind is DeviceKind.SWITCH:
            cluster = topology.router_id(device.name, family) if wiring is Wiring.S4 else None
            speakers[device.name] = Speaker(
                device.name, device.as_number or 0, topology.router_id(device.name, family), cluster,
                settings.ecmp_width, settings.multipath_relax,
            )  # fmt: skip
    for node in nodes:
        speakers[node.name] = Speaker(node.name, numbers[node.name], topology.router_id(node.name, family))
    peerings: list[Peering] = []
    addresses = {node.name: next((a for a in node.addresses if _family(a) == family), None) for node in nodes}
    for node in nodes:
        own, gateway, switch = addresses[node.name], topology.gateway(node.name, family), topology.switch_of(node.name)
        if own is None or gateway is None or gateway.gateway is None:
            continue
        internal = numbers[node.name] == speakers[switch].as_number
        shared = topology.addresses_beside(node.name)
        peerings.append(
            Peering(
                node.name, switch, own, gateway.gateway, speakers[switch].as_number, internal,
                exports_learned=wiring is not Wiring.S2, allowed_own_as=calico.num_allowed_local_as_numbers,
            )
        )  # fmt: skip
        peerings.append(
            Peering(
                switch, node.name, gateway.gateway, own, numbers[node.name], internal, remote_is_client=internal,
                keeps_third_party=settings.third_party_next_hop, shared=shared, is_single_hop=True,
            )
        )  # fmt: skip
        if wiring in (Wiring.S2, Wiring.S3):
            for other in nodes:
                theirs = addresses[other.name]
                if other.name != node.name and theirs is not None:
                    same = numbers[other.name] == numbers[node.name]
                    passive = own < theirs  # Calico: the smaller as a string waits
                    peerings.append(
                        Peering(node.name, other.name, own, theirs, numbers[other.name], same, is_passive=passive)
                    )
    for here, there, local, remote in topology.switch_links(family):
        peerings.append(Peering(here, there, local, remote, speakers[there].as_number, False, is_single_hop=True))
    return BgpNetwork(speakers, tuple(peerings), topology, family)


def converge(
    network: BgpNetwork, originated: Mapping[str, Sequence[IPNetwork]]
) -> dict[str, dict[IPNetwork, tuple[Path, ...]]]:
    """Return each speaker's Loc-RIB: by prefix, the best path and those merged with it.

    `originated`: the prefixes that each speaker tells of by itself. Raises ModelError if the exchange does not settle.
    """
    own = {name: {prefix: Path() for prefix in originated.get(name, ())} for name in network.speakers}
    reverse = {(peering.local, peering.remote): peering for peering in network.peerings}
    adj_rib_in: dict[str, dict[IPNetwork, dict[str, Path]]] = {name: {} for name in network.speakers}
    loc_rib: dict[str, dict[IPNetwork, tuple[Path, ...]]] = {}
    for _ in range(_MOST_ROUNDS):
        chosen = {name: _decide(network, name, own[name], adj_rib_in[name]) for name in network.speakers}
        if chosen == loc_rib:
            return chosen
        loc_rib = chosen
        adj_rib_in = {name: {} for name in network.speakers}
        for peering in network.peerings:
            sender, receiver = network.speakers[peering.local], network.speakers[peering.remote]
            far_end = reverse[peering.remote, peering.local]
            for prefix, paths in loc_rib[sender.name].items():
                told = withheld(peering, prefix, paths[0]) or export_path(sender, peering, paths[0])
                if isinstance(told, Withheld) or refused(far_end, prefix):
                    continue
                taken = import_path(receiver, far_end, sender, told)
                if isinstance(taken, Path):
                    adj_rib_in[receiver.name].setdefault(prefix, {})[sender.name] = taken
    raise ModelError(f"BGP did not settle in {_MOST_ROUNDS} rounds")


def _decide(
    network: BgpNetwork, name: str, own: Mapping[IPNetwork, Path], learned: Mapping[IPNetwork, Mapping[str, Path]]
) -> dict[IPNetwork, tuple[Path, ...]]:
    rib = {}
    for prefix in {**own, **learned}:
        paths = [own[prefix]] if prefix in own else list(learned[prefix].values())
        selected = select_paths(network.speakers[name], paths, lambda hop: network.igp_metric(name, hop))
        if selected:
            rib[prefix] = selected
    return rib


def _family(address: str) -> int:
    return ipaddress.ip_address(address).version
