"""Small random clusters for tests of routes: hypothesis strategies."""

import ipaddress
from dataclasses import dataclass

from hypothesis import strategies as st

from simnet.controlplane.bgp.steady import steady_fibs
from simnet.controlplane.calico.ipam import AddressRequest, assign_blocks
from simnet.controlplane.fabric import build_fabric
from simnet.model.calico import AdvertisedService, CalicoSettings, FabricMode, FabricSettings, Wiring
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
def routed_clusters(draw, *, wirings=tuple(Wiring), dual_stack=None, most_nodes=5):
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
    own_as = draw(st.booleans())
    nodes = []
    for i in range(draw(st.integers(1, most_nodes))):
        subnet = i % leaves if leaves else 0  # one a leaf, so that bridged leaves are possible
        addresses = (
            f"10.0.{subnet}.{i + 11}",
            *((str(ipaddress.ip_address(f"fd00:0:0:{subnet}::{i + 11:x}")),) if dual else ()),
        )
        nodes.append(ClusterNode(f"n{i}", addresses, {}, as_number=64512 + (i if own_as else 0)))
    calico = CalicoSettings(
        ip_pools=("192.168.0.0/24", *(("fd10::/118",) if dual else ())),
        block_size=draw(st.sampled_from([26, 29, 30])),
        block_size_ipv6=124,
        max_blocks_per_host=draw(st.integers(2, 3)),
        wiring=draw(st.sampled_from(wirings)),
        service_external_ips=("203.0.113.0/24", "203.0.114.7/32"),
        num_allowed_local_as_numbers=draw(st.integers(0, 1)),
    )
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
