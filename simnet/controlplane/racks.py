"""Which switch each node hangs on, and the address and AS by which BGPPeers know that switch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simnet.model.calico import BGPPeer, CalicoSettings, FabricSettings, Wiring
from simnet.model.cluster import ClusterNode
from simnet.model.selectors import selector


def nodes_by_switch(nodes: Sequence[ClusterNode], settings: FabricSettings) -> dict[str, list[ClusterNode]]:
    """Return the nodes of the one switch, or of every leaf: where they are told to hang, by a label, or in turn."""
    if not settings.leaves:
        return {settings.switch_name: list(nodes)}
    names = [f"leaf{i + 1}" for i in range(settings.leaves)]
    homes: dict[str, list[ClusterNode]] = {name: [] for name in names}
    told = dict(settings.node_switches)
    values: dict[str, int] = {}
    for i, node in enumerate(nodes):
        position = i
        if settings.leaf_label is not None:
            position = values.setdefault(node.labels.get(settings.leaf_label, ""), len(values))
        homes[told.get(node.name) or names[position % len(names)]].append(node)
    return homes


def known_by_peers(settings: FabricSettings, nodes: Sequence[ClusterNode], calico: CalicoSettings) -> FabricSettings:
    """Return the settings with each switch's addresses and AS as the BGPPeers of its nodes name them.

    Of several addresses of one family the first counts: a node hangs on one switch. Only under wiring `peers`; what
    the settings say already stays.
    """
    if calico.wiring is not Wiring.PEERS:
        return settings
    own = {address for node in nodes for address in node.addresses}
    outward = [peer for peer in calico.peers if peer.peer_ip and peer.peer_ip not in own]
    addresses, numbers = dict(settings.switch_addresses), dict(settings.switch_as_numbers)
    taken: set[str] = {address for held in addresses.values() for address in held}
    for switch, members in nodes_by_switch(nodes, settings).items():
        for peer in outward:
            if not any(_has(node, peer) for node in members):
                continue
            held = addresses.get(switch, ())
            has_one = any((":" in address) == (":" in peer.peer_ip) for address in held)
            if not has_one and peer.peer_ip not in taken and not settings.router_addresses:
                addresses[switch] = (*held, peer.peer_ip)
                taken.add(peer.peer_ip)
            if settings.takes_as_of_peers and peer.as_number and peer.peer_ip in addresses.get(switch, (peer.peer_ip,)):
                numbers.setdefault(switch, peer.as_number)
    return replace(
        settings, switch_addresses=tuple(addresses.items()), switch_as_numbers=tuple(numbers.items())
    )  # fmt: skip


def _has(node: ClusterNode, peer: BGPPeer) -> bool:
    return node.name == peer.node if peer.node else selector(peer.node_selector)(node.labels)
