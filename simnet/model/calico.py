"""What the network is told to be: Calico's settings, the fabric's, and which service addresses are advertised.

Field names that Calico has keep Calico's meaning: IPPool, BGPConfiguration and IPAMConfig of projectcalico.org/v3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from simnet.model.fabric import NODE_ECMP, Ecmp
from simnet.model.queues import LinkQueue
from simnet.units import PS_PER_MS, PS_PER_S, PS_PER_US


class Wiring(Enum):
    """Who peers with whom over BGP, and what is filtered; in S2, S3 and mesh reflectors take the mesh's place."""

    S1 = "S1"  # nodes: eBGP to their switch, no mesh
    S2 = "S2"  # as S1 and a full mesh of nodes; what a node learned from the mesh is not told to the switch
    S3 = "S3"  # as S2 without that filter: every node tells the switch every block
    S4 = "S4"  # nodes: iBGP to their switch, which reflects
    S5 = "S5"  # as S1 with an AS of its own for every node
    MESH = "mesh"  # nodes among each other only: no switch speaks BGP with them
    PEERS = "peers"  # what BGPConfiguration, BGPPeers, BGPFilters and the nodes' own settings say


class FabricMode(Enum):
    """How a switch connects its nodes."""

    ROUTED = "routed"  # every node on a routed link of its own; both ends are each other's /32 peer
    BRIDGED = "bridged"  # one subnet; the switch bridges it and has an address in it


class Mode(Enum):
    """When packets between nodes are wrapped: IPPool.ipipMode and vxlanMode."""

    NEVER = "Never"
    ALWAYS = "Always"
    CROSS_SUBNET = "CrossSubnet"


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """How packets to a pool's addresses travel between nodes."""

    pool: str  # CIDR
    kind: str  # "ipip", "vxlan"
    mode: Mode


@dataclass(frozen=True, slots=True)
class BgpTimers:
    """How long a BGP speaker waits; BIRD's names and defaults. Each wait is drawn from [0.75, 1] of its value.

    Source: projectcalico/bird, proto/bgp/config.Y and bgp.c; confd's bird.cfg template (connect and error times).
    """

    hold_ps: int = 240 * PS_PER_S  # offered; the smaller of both ends counts
    keepalive_ps: int | None = None  # BGPPeer.keepaliveTime; None: a third of the negotiated hold time
    connect_delay_ps: int = 2 * PS_PER_S
    connect_retry_ps: int = 5 * PS_PER_S  # where nobody answers
    error_wait_ps: tuple[int, int] = (5 * PS_PER_S, 30 * PS_PER_S)  # first, doubling up to the second
    error_forget_ps: int = 300 * PS_PER_S
    restart_ps: int | None = 120 * PS_PER_S  # offered graceful restart time (RFC 4724); None: not offered
    is_helper: bool = True  # keeps the paths of a peer that restarts gracefully
    bfd_interval_ps: int | None = None  # None: no BFD; it runs where both ends have it (RFC 5880)
    bfd_multiplier: int = 3
    processing_ps: int = PS_PER_MS // 2  # assumed: from a message to the choice and the answer
    fib_write_ps: int = PS_PER_MS // 2  # assumed; with it a closed session is withdrawn after 1 ms, measured 1-2 ms
    # An expired hold timer is acted on up to so much later, the end of a recovery up to twice that: BIRD 2 waits for
    # its loop (measured 1.3 s)
    loop_ps: int = 0
    carrier_ps: int = 50 * PS_PER_MS  # assumed: from a carrier's loss or return until it is noticed; a veth 6 ms


SWITCH_TIMERS = BgpTimers(hold_ps=180 * PS_PER_S, restart_ps=None, is_helper=False)  # assumed usual of switches


@dataclass(frozen=True, slots=True)
class CalicoSettings:
    """IP pools and BGP of a cluster."""

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
    route_reflectors: tuple[str, ...] = ()  # nodes that every node has a session with, in the mesh's place
    route_reflector_cluster_id: str = "244.0.0.1"  # of those
    has_mesh: bool = True  # BGPConfiguration.nodeToNodeMeshEnabled; counts under wiring PEERS
    peers: tuple[BGPPeer, ...] = ()  # as resources give them; count under wiring PEERS, and for events
    filters: tuple[BGPFilter, ...] = ()
    mesh_restart_ps: int | None = None  # BGPConfiguration.nodeMeshMaxRestartTime
    version: tuple[int, int, int] = (3, 32, 2)
    # What IPPools say apart from one another; empty: every pool as the fields above.
    pool_block_sizes: tuple[tuple[str, int], ...] = ()  # (pool, prefix length of its blocks)
    nat_outgoing_pools: tuple[str, ...] | None = None  # None: all of them, where nat_outgoing is on
    unexported_pools: tuple[str, ...] = ()  # disableBGPExport
    bgp: BgpTimers = BgpTimers()
    encapsulations: tuple[Encapsulation, ...] = ()  # of pools whose ipipMode or vxlanMode is not Never

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
    switch_as_numbers: tuple[tuple[str, int], ...] = ()  # (switch, its AS) of those that do not count up
    switch_addresses: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (switch, its own), before `router_addresses`
    takes_as_of_peers: bool = False  # a switch is of the AS that BGPPeers name beside its address
    node_switches: tuple[tuple[str, str], ...] = ()  # (node, the leaf it hangs on) of those that are told which
    link_rate_bps: int = 10 * 10**9
    link_delay_ps: int = 5 * PS_PER_US
    client_link_rate_bps: int = 10 * 10**9
    client_link_delay_ps: int = 5 * PS_PER_US
    spine_link_rate_bps: int = 40 * 10**9
    spine_link_delay_ps: int = 5 * PS_PER_US
    veth_rate_bps: int = 40 * 10**9  # assumed: memory copy, not a wire
    veth_delay_ps: int = 1 * PS_PER_US  # assumed; must be positive (a cycle without delay has no order of events)
    # Queues before the wires; None: not asked for (a run without any queue setting has no queues at all).
    link_queue: LinkQueue | None = None
    client_link_queue: LinkQueue | None = None
    spine_link_queue: LinkQueue | None = None
    veth_queue: LinkQueue | None = None
    mtu: int = 1500  # of every link; what a tunnel adds is taken off on nodes and pods
    ecmp_hash: str = "l4"  # of switches: "l3", "l4", "symmetric"
    ecmp_width: int = 16
    ecmp_choice: str = "modulo"  # of switches: "modulo", "hash-threshold" (RFC 2992), "resilient", "hrw"
    ecmp_has_shared_seed: bool = False  # of switches
    ecmp_buckets: int = 128  # of a resilient group of a switch
    node_ecmp: Ecmp = NODE_ECMP
    bgp: BgpTimers = SWITCH_TIMERS
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


@dataclass(frozen=True, slots=True)
class IPPool:
    """Addresses for pods; IPPool of projectcalico.org/v3."""

    name: str
    cidr: str
    block_size: int  # prefix length of a block
    ipip_mode: Mode = Mode.NEVER
    vxlan_mode: Mode = Mode.NEVER
    nat_outgoing: bool = False
    disabled: bool = False  # no new addresses; its routes are not exported either
    disable_bgp_export: bool = False
    node_selector: str = "all()"
    allowed_uses: tuple[str, ...] = ("Workload", "Tunnel")

    @property
    def is_for_pods(self) -> bool:
        """Whether pods take addresses from it."""
        return not self.disabled and "Workload" in self.allowed_uses


@dataclass(frozen=True, slots=True)
class BGPConfiguration:
    """What all speakers have in common; only the one called `default` is global. None: not said."""

    name: str
    as_number: int | None = None
    node_to_node_mesh_enabled: bool = True
    service_cluster_ips: tuple[str, ...] = ()
    service_external_ips: tuple[str, ...] = ()
    service_load_balancer_ips: tuple[str, ...] = ()
    service_load_balancer_aggregation: bool = True
    is_mesh_told: bool = False  # whether nodeToNodeMeshEnabled is written out
    mesh_restart_ps: int | None = None  # nodeMeshMaxRestartTime


@dataclass(frozen=True, slots=True)
class BGPPeer:
    """Whom nodes speak BGP with: `peer_ip`, or the nodes that `peer_selector` chooses."""

    name: str
    peer_ip: str = ""  # without its port
    as_number: int | None = None
    node: str = ""  # the one node that it is for; with node_selector empty too: all
    node_selector: str = ""
    peer_selector: str = ""
    next_hop_mode: str = "Auto"  # Auto, Self, Keep
    keep_original_next_hop: bool = False
    filters: tuple[str, ...] = ()
    num_allowed_local_as_numbers: int = 0
    is_reversed: bool = True  # reversePeering Auto: the nodes that it names peer back
    restart_ps: int | None = None  # maxRestartTime: offered graceful restart time
    keepalive_ps: int | None = None  # keepaliveTime

    @property
    def is_global(self) -> bool:
        """Whether every node has it."""
        return not self.node and self.node_selector in ("", "all()")


@dataclass(frozen=True, slots=True)
class BGPFilterRule:
    """A rule of a BGPFilter; empty fields match everything."""

    action: str  # Accept, Reject
    cidr: str = ""
    match_operator: str = ""  # Equal, NotEqual, In, NotIn
    source: str = ""  # RemotePeers
    prefix_length: tuple[int, int] | None = None  # shortest and longest that match; None: those of the CIDR
    peer_type: str = ""  # eBGP, iBGP
    as_path_prefix: tuple[int, ...] = ()  # the path begins with these


@dataclass(frozen=True, slots=True)
class BGPFilter:
    """Rules that a BGPPeer names; the first match decides, none: accept."""

    name: str
    export_v4: tuple[BGPFilterRule, ...] = ()
    import_v4: tuple[BGPFilterRule, ...] = ()
    export_v6: tuple[BGPFilterRule, ...] = ()
    import_v6: tuple[BGPFilterRule, ...] = ()

    def rules(self, *, exports: bool, family: int) -> tuple[BGPFilterRule, ...]:
        """The rules of one direction and family."""
        if exports:
            return self.export_v4 if family == 4 else self.export_v6
        return self.import_v4 if family == 4 else self.import_v6

    def withholds_learned_only(self, family: int) -> bool:
        """Whether all that it does is to reject, on export, what came from other peers: wiring S2."""
        rules = self.rules(exports=True, family=family)
        plain = all(rule == BGPFilterRule("Reject", source="RemotePeers") for rule in rules)
        return bool(rules) and plain and not self.rules(exports=False, family=family)


@dataclass(frozen=True, slots=True)
class BlockAffinity:
    """A block and the node that holds it; only confirmed ones are told of."""

    name: str
    cidr: str
    node: str
    state: str = "confirmed"
    is_of_host: bool = True  # False: `virtual`, for addresses of load balancers
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class IPAMBlock:
    """A block's allocations: the addresses that are used, and by which node's pods where the block says so."""

    name: str
    cidr: str
    node: str = ""  # of affinity `host:NODE`; empty: nobody's
    used: tuple[tuple[str, str], ...] = ()  # (address, node of its owner, empty: not said)
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class CalicoNode:
    """A node as Calico sees it: Node of projectcalico.org, or the annotations of a v1 Node."""

    name: str
    addresses: tuple[str, ...] = ()  # bgp.ipv4Address, bgp.ipv6Address, without length
    networks: tuple[str, ...] = ()  # the subnets that their lengths tell
    as_number: int | None = None
    route_reflector_cluster_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()


CalicoValue = IPPool | BGPConfiguration | BGPPeer | BGPFilter | BlockAffinity | IPAMBlock | CalicoNode
