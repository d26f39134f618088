"""Small random clusters for tests of routes: hypothesis strategies."""

import ipaddress
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from simnet.controlplane.bgp.sessions import MESHED
from simnet.controlplane.bgp.steady import steady_fibs
from simnet.controlplane.calico.ipam import AddressRequest, assign_blocks
from simnet.controlplane.fabric import build_fabric
from simnet.controlplane.racks import known_by_peers
from simnet.model.calico import (
    AdvertisedService,
    BGPFilter,
    BGPFilterRule,
    BGPPeer,
    CalicoSettings,
    FabricMode,
    FabricSettings,
    Wiring,
)
from simnet.model.cluster import ClusterNode, ClusterPod


@dataclass
class Routed:
    """A cluster with its fabric and tables."""

    nodes: tuple
    pods: tuple
    blocks: tuple
    services: tuple
    calico: CalicoSettings
    settings: FabricSettings
    fabric: object
    fibs: dict


@st.composite
def filters_of(draw, name):
    """A BGPFilter of a few rules that match some of the prefixes that clusters here tell of."""

    def rules():
        cidr = draw(st.sampled_from(["", "192.168.0.0/24", "192.168.0.64/26", "203.0.113.0/24", "10.0.0.0/8"]))
        lengths = draw(st.sampled_from([None, None, (24, 29), (30, 32)])) if cidr else None
        return BGPFilterRule(
            draw(st.sampled_from(["Accept", "Reject"])), cidr,
            draw(st.sampled_from(["Equal", "NotEqual", "In", "NotIn"])) if cidr else "",
            draw(st.sampled_from(["", "RemotePeers"])), lengths, draw(st.sampled_from(["", "", "eBGP", "iBGP"])),
            draw(st.sampled_from([(), (), (65001,), (64512,)])),
        )  # fmt: skip

    exports, imports = ([rules() for _ in range(draw(st.integers(0, 2)))] for _ in range(2))
    return BGPFilter(name, tuple(exports), tuple(imports))


@st.composite
def peers_and_filters(draw, nodes, racks):
    """BGPPeers as people write them: nodes of a rack with its switch, clients with reflectors, node with node."""
    filters = tuple(draw(filters_of(f"f{i}")) for i in range(draw(st.integers(0, 2))))
    names = [each.name for each in filters]
    is_internal = draw(st.booleans())
    peers = []
    for rack in range(racks):
        if draw(st.booleans()):
            members = [node for node in nodes if node.labels["rack"] == f"r{rack}"]
            number = members[0].as_number if is_internal and members else 65001 + rack
            peers.append(BGPPeer(f"rack{rack}", f"10.0.{rack}.1", number, node_selector=f"rack == 'r{rack}'"))
    if draw(st.booleans()):
        peers.append(BGPPeer("clients", node_selector="!has(reflects)", peer_selector="has(reflects)"))
    if draw(st.booleans()):
        peers.append(BGPPeer("reflectors", node_selector="has(reflects)", peer_selector="has(reflects)"))
    if draw(st.booleans()):
        one, other = draw(st.sampled_from(nodes)), draw(st.sampled_from(nodes))
        peers.append(BGPPeer("pair", other.addresses[0], other.as_number, node=one.name))
    return tuple(
        replace(
            peer,
            next_hop_mode=draw(st.sampled_from(["Auto", "Auto", "Self", "Keep"])),
            num_allowed_local_as_numbers=draw(st.integers(0, 1)),
            filters=tuple(draw(st.lists(st.sampled_from(names), max_size=2, unique=True))) if names else (),
            is_reversed=draw(st.sampled_from([True, True, True, False])),
        )
        for peer in peers
    ), filters


@st.composite
def routed_clusters(draw, *, wirings=tuple(Wiring), dual_stack=None, most_nodes=5, reflects=True):
    """A cluster of up to `most_nodes` nodes in any wiring, mode and shape, some with a borrowed address."""
    leaves = draw(st.integers(0, 3))
    modes = tuple(draw(st.sampled_from(FabricMode)) for _ in range(leaves))
    dual = draw(st.booleans()) if dual_stack is None else dual_stack
    settings = FabricSettings(
        mode=draw(st.sampled_from(FabricMode)),
        leaves=leaves,
        spines=draw(st.integers(1, 3)) if leaves else 0,
        border_leaf=draw(st.booleans()),
        leaf_modes=modes,
        ecmp_width=draw(st.integers(1, 4)),
        ecmp_hash=draw(st.sampled_from(["l3", "l4", "symmetric"])),
        ecmp_choice=draw(st.sampled_from(["modulo", "hash-threshold", "resilient", "hrw"])),
        ecmp_has_shared_seed=draw(st.booleans()),
        ecmp_buckets=draw(st.integers(5, 40)),
        third_party_next_hop=draw(st.booleans()),
    )
    numbering = draw(st.sampled_from(["one", "own", "rack"]))
    wiring = draw(st.sampled_from(wirings))
    reflecting = draw(st.sampled_from([0, 0, 1, 2])) if reflects and wiring in (*MESHED, Wiring.PEERS) else 0
    nodes = []
    for i in range(draw(st.integers(1, most_nodes))):
        subnet = i % leaves if leaves else 0  # one a leaf, so that bridged leaves are possible
        addresses = (
            f"10.0.{subnet}.{i + 11}",
            *((str(ipaddress.ip_address(f"fd00:0:0:{subnet}::{i + 11:x}")),) if dual else ()),
        )
        offset = {"one": 0, "own": i, "rack": subnet}[numbering]
        cluster_id = draw(st.sampled_from(["244.0.0.1", "244.0.0.2"])) if i < reflecting else ""
        labels = {"rack": f"r{subnet}", **({"reflects": "yes"} if cluster_id else {})}
        nodes.append(
            ClusterNode(
                f"n{i}", addresses, labels, as_number=64512 + offset, route_reflector_cluster_id=cluster_id
            )
        )  # fmt: skip
    calico = CalicoSettings(
        ip_pools=("192.168.0.0/24", *(("fd10::/118",) if dual else ())),
        block_size=draw(st.sampled_from([26, 29, 30])),
        block_size_ipv6=124,
        max_blocks_per_host=draw(st.integers(2, 3)),
        wiring=wiring,
        service_external_ips=("203.0.113.0/24", "203.0.114.7/32"),
        num_allowed_local_as_numbers=draw(st.integers(0, 1)),
    )
    if wiring is Wiring.PEERS:
        peers, filters = draw(peers_and_filters(nodes, max(leaves, 1)))
        calico = replace(calico, has_mesh=draw(st.booleans()), peers=peers, filters=filters)
        settings = known_by_peers(replace(settings, takes_as_of_peers=True), nodes, calico)
    on_node = draw(st.lists(st.integers(0, len(nodes) - 1), max_size=6))
    requests = [
        AddressRequest(f"d/p{i}", nodes[at].name, families=(4, 6) if dual else (4,)) for i, at in enumerate(on_node)
    ]
    # one pod that holds an address out of the first pod's block: borrowed, if it is on another node
    assignment = assign_blocks(requests, calico)
    if requests and draw(st.booleans()):
        taken = {address for held in assignment.addresses.values() for address in held}
        base = assignment.addresses["d/p0"][0].rsplit(".", 1)
        free = next(a for k in range(1, 4) if (a := f"{base[0]}.{int(base[1]) ^ k}") not in taken or k == 3)
        if free not in taken:
            kept = [AddressRequest(r.pod, r.node, assignment.addresses[r.pod], r.families) for r in requests]
            extra = AddressRequest("d/borrower", nodes[-1].name, (free,), (4,))
            assignment = assign_blocks([*kept, extra], calico, assignment.blocks)
            requests = [*requests, extra]
    pods = tuple(
        ClusterPod("d", r.pod.split("/")[1], r.node, tuple(assignment.addresses[r.pod]), False, True) for r in requests
    )
    ready = frozenset(pod.node for pod in pods)
    services = (
        AdvertisedService(
            "d/local", external_ips=("203.0.113.9",), is_local=True, ready_nodes=ready, endpoint_nodes=ready
        ),
        AdvertisedService("d/single", external_ips=("203.0.114.7",), ready_nodes=ready, endpoint_nodes=ready),
    )
    clients = ("198.51.100.10", "198.51.100.11", *(("2001:db8::10",) if dual else ()))
    if not leaves and draw(st.booleans()):
        clients = (*clients, "10.0.0.200")  # inside the nodes' subnet
    fabric = build_fabric(nodes, pods, clients, settings)
    fibs = steady_fibs(fabric, nodes, pods, assignment.blocks, services, calico, settings)
    return Routed(tuple(nodes), pods, assignment.blocks, services, calico, settings, fabric, fibs)
