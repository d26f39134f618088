"""What the network is told to be: Calico's settings, the fabric's, and which service addresses are advertised.

Field names that Calico has keep Calico's meaning: IPPool, BGPConfiguration and IPAMConfig of projectcalico.org/v3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from simnet.units import PS_PER_US


class Wiring(Enum):
    """Who peers with whom over BGP, and what is filtered."""

    S1 = "S1"  # nodes: eBGP to their switch, no mesh
    S2 = "S2"  # as S1 and a full mesh of nodes; what a node learned from the mesh is not told to the switch
    S3 = "S3"  # as S2 without that filter: every node tells the switch every block
    S4 = "S4"  # nodes: iBGP to their switch, which reflects
    S5 = "S5"  # as S1 with an AS of its own for every node


class FabricMode(Enum):
    """How a switch connects its nodes."""

    ROUTED = "routed"  # every node on a routed link of its own; both ends are each other's /32 peer
    BRIDGED = "bridged"  # one subnet; the switch bridges it and has an address in it


@dataclass(frozen=True, slots=True)
class CalicoSettings:
    """IP pools and BGP of a cluster without encapsulation."""

    ip_pools: tuple[str, ...] = ("192.168.0.0/16",)
    block_size: int = 26  # prefix length of an IPv4 block
    block_size_ipv6: int = 122
    as_number: int = 64512  # of nodes that say nothing else
    wiring: Wiring = Wiring.S2
    nat_outgoing: bool = True
    strict_affinity: bool = False  # True: never borrow an address from another node's block
    max_blocks_per_host: int = 20  # a node; reached: the allocation fails, it does not borrow
    service_cluster_ips: tuple[str, ...] = ()  # BGPConfiguration.serviceClusterIPs: CIDRs
    service_external_ips: tuple[str, ...] = ()
    service_load_balancer_ips: tuple[str, ...] = ()
    service_load_balancer_aggregation: bool = True  # False: each load balancer address is advertised by itself
    num_allowed_local_as_numbers: int = 0  # BGPPeer.numAllowedLocalASNumbers: own AS in a path accepted so often
    version: tuple[int, int, int] = (3, 32, 2)

    @property
    def has_route_metrics(self) -> bool:
        """Pod and BGP routes carry a kernel metric (since v3.32.0)."""
        return self.version >= (3, 32, 0)

    @property
    def advertises_unready_local_endpoints(self) -> bool:
        """A Local service's address is told by nodes whose endpoints are not ready: v3.31.0-6 and v3.32.0-1."""
        return (3, 31, 0) <= self.version < (3, 31, 7) or (3, 32, 0) <= self.version < (3, 32, 2)


@dataclass(frozen=True, slots=True)
class FabricSettings:
    """The wires between nodes, switches and outside clients. `leaves` 0: one switch, else leaf-spine."""

    mode: FabricMode = FabricMode.ROUTED
    leaves: int = 0
    spines: int = 0
    border_leaf: bool = True  # leaf-spine: clients sit on a leaf without nodes; False: on the first leaf
    leaf_modes: tuple[FabricMode, ...] = ()  # one a leaf; empty: `mode` for all
    leaf_label: str | None = None  # node label whose values name the leaf; None: nodes in turn
    switch_name: str = "tor"  # of the one switch
    node_networks: tuple[str, ...] = ()  # subnets of the nodes; empty: the /24 (/64) around each address
    client_networks: tuple[str, ...] = ()  # subnets of outside clients; likewise
    router_addresses: tuple[str, ...] = ()  # of the switch (one a family), or of each leaf; empty: first free ones
    switch_as_number: int = 65001  # leaves count up from here, then spines
    link_rate_bps: int = 10 * 10**9
    link_delay_ps: int = 5 * PS_PER_US
    client_link_rate_bps: int = 10 * 10**9
    client_link_delay_ps: int = 5 * PS_PER_US
    spine_link_rate_bps: int = 40 * 10**9
    spine_link_delay_ps: int = 5 * PS_PER_US
    veth_rate_bps: int = 40 * 10**9  # assumed: memory copy, not a wire
    veth_delay_ps: int = 1 * PS_PER_US  # assumed; must be positive (a cycle without delay has no order of events)
    ecmp_hash: str = "l4"  # of switches: "l3", "l4", "symmetric"
    ecmp_width: int = 16
    ecmp_choice: str = "modulo"  # of switches: "modulo", "hash-threshold" (RFC 2992)
    third_party_next_hop: bool = True  # an eBGP switch passes on a next hop in the shared subnet (RFC 4271, 5.1.3)
    multipath_relax: bool = True  # ECMP over paths of equal length whose ASes differ


@dataclass(frozen=True, slots=True)
class AdvertisedService:
    """What route advertisement needs to know of a Service."""

    name: str  # namespace/name
    cluster_ips: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    is_local: bool = False  # externalTrafficPolicy: Local
    ready_nodes: frozenset[str] = frozenset()  # nodes with a ready endpoint
    endpoint_nodes: frozenset[str] = frozenset()  # nodes with any endpoint
