"""Which packets between nodes travel in a tunnel, and the tunnels' devices.

Modelled: IPPool's ipipMode and vxlanMode, Always and CrossSubnet; a tunnel address for each node, the first of its
first block; BIRD's tunl0 routes (next hop the BGP next hop) and Felix's vxlan.calico routes (next hop the other node's
tunnel address), MTUs. Left out: WireGuard, VXLAN over IPv6, IPIP routes by Felix (v3.33), `natOutgoing` of tunnels.
Source: projectcalico/calico confd template bird_ipam.cfg, felix/dataplane/linux/{vxlan_mgr,route_mgr,int_dataplane}.go.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from simnet.model.calico import CalicoSettings, Encapsulation, FabricSettings, Mode
from simnet.model.cluster import ClusterNode
from simnet.model.fabric import TUNNEL_BYTES, TUNNEL_INTERFACES, Tunnel
from simnet.model.iptables.ruleset import IPNetwork


def tunnel_kinds(calico: CalicoSettings) -> tuple[str, ...]:
    """Return the kinds of tunnel that nodes have, `ipip` before `vxlan`; none without encapsulation."""
    used = {each.kind for each in calico.encapsulations if each.mode is not Mode.NEVER}
    return tuple(kind for kind in TUNNEL_INTERFACES if kind in used)


def tunnels_of(node: ClusterNode, calico: CalicoSettings) -> tuple[Tunnel, ...]:
    """Return a node's tunnel devices; a node without an IPv4 address or a tunnel address has none."""
    own = next((address for address in node.addresses if ":" not in address), None)
    if own is None or not node.tunnel_addresses:
        return ()
    kinds = tunnel_kinds(calico)
    return tuple(
        Tunnel(kind, TUNNEL_INTERFACES[kind], address, own, TUNNEL_BYTES[kind])
        for kind, address in zip(kinds, node.tunnel_addresses, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Wrapping:
    """Answers for one cluster which prefixes a node reaches through which tunnel."""

    encapsulations: tuple[Encapsulation, ...]
    subnets: tuple[IPNetwork, ...]  # of nodes, as their Node resources say; else the /24 around each address

    @classmethod
    def of(cls, calico: CalicoSettings, settings: FabricSettings) -> Wrapping:
        """Return the answers that the settings give."""
        return cls(calico.encapsulations, tuple(ipaddress.ip_network(text) for text in settings.node_networks))

    def kind(self, prefix: IPNetwork) -> Encapsulation | None:
        """The encapsulation of the pool that a prefix lies in; None: packets travel as they are."""
        for each in self.encapsulations:
            pool = ipaddress.ip_network(each.pool)
            if each.mode is not Mode.NEVER and pool.version == prefix.version == 4 and prefix.subnet_of(pool):
                return each
        return None

    def applies(self, each: Encapsulation, own: str, next_hop: str) -> bool:
        """Whether a node of this address wraps what it sends to `next_hop`: always, or outside its own subnet."""
        if each.mode is Mode.ALWAYS:
            return True
        address = ipaddress.ip_address(own)
        near = next((network for network in self.subnets if address in network), None)
        return ipaddress.ip_address(next_hop) not in (near or ipaddress.ip_network(f"{own}/24", strict=False))
