"""What a speaker holds, in the words of RFC 4271, and the same as the tables by role."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from reference.clusters import routed_clusters

from simnet.controlplane.bgp import rib as rib_module
from simnet.controlplane.bgp.decision import deciding_clause, select_paths
from simnet.controlplane.bgp.network import bgp_network
from simnet.controlplane.bgp.origins import origins_of
from simnet.controlplane.bgp.path import Learned, Path, Speaker
from simnet.controlplane.bgp.rib import rib_of
from simnet.controlplane.calico.advertisement import service_advertisements
from simnet.controlplane.fabric import build_fabric
from simnet.model.calico import CalicoSettings, FabricMode, FabricSettings, Wiring
from simnet.model.cluster import Block, ClusterNode
from simnet.model.fabric import DeviceKind
from simnet.model.fib import RouteKind

PREFIX = ipaddress.ip_network("192.168.20.64/26")
NODES = (ClusterNode("A", ("10.0.0.11",), {}), ClusterNode("B", ("10.0.0.12",), {}))
BLOCKS = (Block("192.168.10.0/26", "A"), Block("192.168.20.64/26", "B"))


def _rib(name, wiring, *, nodes=NODES, blocks=BLOCKS, **calico):
    settings = FabricSettings(mode=FabricMode.BRIDGED, switch_name="S")
    options = CalicoSettings(wiring=wiring, service_external_ips=("203.0.113.0/24",), **calico)
    fabric = build_fabric(nodes, (), (), settings)
    told = service_advertisements((), nodes, options)
    originated = {}
    for origin in origins_of(nodes, blocks, told, options):
        for node in origin.nodes:
            originated.setdefault(node, []).append(origin.prefix)
    return rib_of(bgp_network(fabric, nodes, options, settings), originated, name)


def _paths(rib, prefix=PREFIX):
    return next((entry.paths for entry in rib.entries if entry.prefix == prefix), ())


def test_s1_refuses_the_block_of_a_node_of_the_same_as_and_says_by_which_clause():
    (refused,) = _paths(_rib("A", Wiring.S1))
    assert not refused.is_valid
    assert (refused.peer, refused.why) == ("S", "own AS 64512 in AS_PATH (RFC 4271, 9.1.2)")


def test_s2_takes_it_from_the_mesh_and_withholds_it_from_the_switch():
    rib = _rib("A", Wiring.S2)
    best, refused = _paths(rib)
    assert (best.peer, best.is_best, best.why) == ("B", True, "the only path, told by B")
    assert (refused.peer, refused.is_valid) == ("S", False)
    (withheld,) = [each for each in rib.untold if each.prefix == PREFIX and each.sender == "A"]
    assert (withheld.receiver, withheld.rule) == ("S", "export filter: learned from a BGP peer")


def test_s3_lets_the_switch_merge_the_owner_and_the_others_by_router_id():
    best, merged = _paths(_rib("S", Wiring.S3))
    assert (best.peer, best.is_best, best.is_multipath) == ("A", True, True)
    assert best.why == "the best, told by A; the next has: higher router id (RFC 4271, 9.1.2.2 f)"
    assert (merged.peer, merged.is_best, merged.is_multipath) == ("B", False, True)


def test_s4_reflects_with_the_next_hop_kept():
    (best,) = [path for path in _paths(_rib("A", Wiring.S4)) if path.is_valid]
    assert (best.path.next_hop, best.path.learned, best.path.cluster_list) == (
        "10.0.0.12", Learned.INTERNAL, (int(ipaddress.ip_address("10.0.0.1")),),
    )  # fmt: skip


def test_a_mesh_told_apart_by_local_pref_beats_the_switchs_copy():
    nodes = NODES
    best, other = _paths(_rib("A", Wiring.S2, nodes=nodes, num_allowed_local_as_numbers=1))
    assert (best.peer, other.peer) == ("B", "S")
    assert other.why == "lower LOCAL_PREF, 100 against 2147482623 (RFC 4271, 9.1.2)"


def test_a_node_prefers_its_own_service_route_to_anothers():
    own, other = _paths(_rib("A", Wiring.S2), ipaddress.ip_network("203.0.113.0/24"))[:2]
    assert (own.peer, own.is_best) == ("", True)
    assert other.why == "a route of its own (preference 200) beats one that BGP brought (100)"


EXTERNAL = Path("10.0.0.2", (65001,), local_pref=100, learned=Learned.EXTERNAL, peer_router_id=2, peer_address=2)


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({"next_hop": "10.9.9.9"}, "next hop 10.9.9.9 cannot be resolved (RFC 4271, 9.1.2.1)"),
        ({"local_pref": 50}, "lower LOCAL_PREF, 50 against 100 (RFC 4271, 9.1.2)"),
        ({"as_path": (65001, 1)}, "longer AS_PATH, 2 against 1 (RFC 4271, 9.1.2.2 a)"),
        ({"origin": 2}, "higher ORIGIN, 2 against 0 (RFC 4271, 9.1.2.2 b)"),
        ({"med": 7}, "higher MED, 7 against 0 (RFC 4271, 9.1.2.2 c)"),
        ({"learned": Learned.INTERNAL}, "iBGP, where the best is eBGP (RFC 4271, 9.1.2.2 d)"),
        ({"next_hop": "10.0.0.3"}, "higher metric to the next hop (RFC 4271, 9.1.2.2 e)"),
        ({"peer_router_id": 3}, "higher router id (RFC 4271, 9.1.2.2 f)"),
        ({"cluster_list": (9,)}, "longer CLUSTER_LIST (RFC 4456, 9)"),
        ({"peer_address": 3}, "higher address of the peer (RFC 4271, 9.1.2.2 g)"),
    ],
)
def test_each_step_of_the_decision_is_named_by_the_step_that_decided(change, clause):
    from dataclasses import replace

    def metric(hop):
        return {"10.0.0.2": 0, "10.0.0.3": 5}.get(hop)

    worse = replace(EXTERNAL, **change)
    chosen = select_paths(Speaker("x", 1, 1, ecmp_width=1), [worse, EXTERNAL], metric)
    assert chosen == (EXTERNAL,)
    assert deciding_clause(EXTERNAL, worse, metric) == clause


@settings(max_examples=60)
@given(routed_clusters(most_nodes=4))
def test_the_best_and_merged_paths_are_the_next_hops_of_the_table_by_role(cluster):
    told = service_advertisements(cluster.services, cluster.nodes, cluster.calico)
    services = {each.prefix for each in told}
    originated = {}
    for origin in origins_of(cluster.nodes, cluster.blocks, told, cluster.calico):
        if origin.prefix.version == 4:
            for node in origin.nodes:
                originated.setdefault(node, []).append(origin.prefix)
    network = bgp_network(cluster.fabric, cluster.nodes, cluster.calico, cluster.settings, 4, cluster.blocks)
    for device in cluster.fabric.devices:
        if device.kind is DeviceKind.CLIENTS:
            continue
        rib = rib_of(network, originated, device.name)
        routes = {route.prefix: route for route in cluster.fibs[device.name].routes}
        for entry in rib.entries:
            used = [path for path in entry.paths if path.is_best or path.is_multipath]
            assert all(path.why for path in entry.paths)
            if device.kind is DeviceKind.NODE and entry.prefix in services:
                continue
            if not used:
                assert entry.prefix not in routes or routes[entry.prefix].kind is not RouteKind.VIA
            elif used[0].peer:
                topology, name = network.topology, device.name
                gateways = [
                    path.path.next_hop
                    if topology.reaches_directly(name, path.path.next_hop)
                    else topology.gateway(name, 4).gateway
                    for path in used
                ]
                assert [hop.gateway for hop in routes[entry.prefix].next_hops] == list(dict.fromkeys(gateways))


def test_a_large_mesh_is_looked_at_by_its_ends_only_with_the_same_paths(monkeypatch):
    nodes = tuple(ClusterNode(f"n{i}", (f"10.0.0.{i + 11}",), {}) for i in range(5))
    blocks = tuple(Block(f"192.168.{i}.0/26", f"n{i}") for i in range(5))
    whole = {name: _rib(name, Wiring.S2, nodes=nodes, blocks=blocks) for name in ("n0", "S")}
    monkeypatch.setattr(rib_module, "_LARGE_MESH", 0)
    for name, rib in whole.items():
        part = _rib(name, Wiring.S2, nodes=nodes, blocks=blocks)
        assert part.entries == rib.entries
        assert set(part.untold) <= set(rib.untold)
