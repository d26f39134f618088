"""The converged tables against the specification, a real kernel, and BGP spoken message by message."""

import ipaddress
import json

import pytest
from hypothesis import given, settings
from reference.clusters import routed_clusters
from reference.forwarding import l3_hops, walk

from simnet.controlplane.bgp.network import bgp_network, converge
from simnet.controlplane.bgp.steady import origins_of, steady_fibs
from simnet.controlplane.bgp.topology import Topology
from simnet.controlplane.calico.advertisement import service_advertisements
from simnet.controlplane.fabric import build_fabric
from simnet.controlplane.route_lines import route_lines
from simnet.model.calico import (
    AdvertisedService,
    CalicoSettings,
    Encapsulation,
    FabricMode,
    FabricSettings,
    Mode,
    Wiring,
)
from simnet.model.cluster import Block, ClusterNode, ClusterPod
from simnet.model.fabric import DeviceKind
from simnet.model.fib import NextHop, RouteKind

NODES = (ClusterNode("A", ("10.0.0.11",), {}), ClusterNode("B", ("10.0.0.12",), {}))
PODS = (
    ClusterPod("default", "nginx", "A", ("192.168.10.5",), False, True),  # cali names: Calico's own vectors
    ClusterPod("default", "web-0", "B", ("192.168.20.70",), False, True),
)
BLOCKS = (Block("192.168.10.0/26", "A"), Block("192.168.20.64/26", "B"))
LOCAL_ON_B = AdvertisedService("d/v", external_ips=("203.0.113.80",), is_local=True, ready_nodes=frozenset({"B"}))
BRIDGED, ROUTED = FabricMode.BRIDGED, FabricMode.ROUTED


def make(wiring, mode, *, nodes=NODES, pods=PODS, blocks=BLOCKS, services=(LOCAL_ON_B,), fabric=None, **calico):
    settings = fabric or FabricSettings(mode=mode, switch_name="S")
    options = CalicoSettings(wiring=wiring, service_external_ips=("203.0.113.0/24",), **calico)
    wires = build_fabric(nodes, pods, ["198.51.100.10"], settings)
    return wires, steady_fibs(wires, nodes, pods, blocks, services, options, settings)


def lines(fibs, device):
    return [" ".join(line.split()) for line in route_lines(fibs[device])]


def test_s2_bridged_has_the_tables_of_the_specification():
    _, fibs = make(Wiring.S2, BRIDGED)
    assert lines(fibs, "S") == [
        "10.0.0.0/24 dev br0 proto kernel scope link src 10.0.0.1",
        "192.168.10.0/26 via 10.0.0.11 dev br0 proto bird",
        "192.168.20.64/26 via 10.0.0.12 dev br0 proto bird",
        "198.51.100.0/24 dev p-clients proto kernel scope link src 198.51.100.1",
        "203.0.113.0/24 proto bird",
        "nexthop via 10.0.0.11 dev br0 weight 1",
        "nexthop via 10.0.0.12 dev br0 weight 1",
        "203.0.113.80 via 10.0.0.12 dev br0 proto bird",
    ]
    assert lines(fibs, "A") == [
        "default via 10.0.0.1 dev eth0",
        "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.11",
        "blackhole 192.168.10.0/26 proto bird",
        "192.168.10.5 dev calic440f455693 scope link metric 1024",
        "192.168.20.64/26 via 10.0.0.12 dev eth0 proto bird metric 1024",
    ]
    assert lines(fibs, "B") == [
        "default via 10.0.0.1 dev eth0",
        "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.12",
        "192.168.10.0/26 via 10.0.0.11 dev eth0 proto bird metric 1024",
        "blackhole 192.168.20.64/26 proto bird",
        "192.168.20.70 dev cali0d7763386da scope link metric 1024",
    ]
    assert route_lines(fibs["A"], local=True) == ["local 10.0.0.11 dev eth0 proto kernel scope host src 10.0.0.11"]


CONNECTED = {  # by mode: S's routes to its nodes, a node's to the others (N: its last number)
    BRIDGED: (
        ["10.0.0.0/24 dev br0 proto kernel scope link src 10.0.0.1"],
        "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.N",
    ),
    ROUTED: (
        [
            "10.0.0.11 dev p-A proto kernel scope link src 10.0.0.1",
            "10.0.0.12 dev p-B proto kernel scope link src 10.0.0.1",
        ],
        "10.0.0.1 dev eth0 proto kernel scope link src 10.0.0.N",
    ),
}


@pytest.mark.parametrize("mode", FabricMode)
@pytest.mark.parametrize("wiring", Wiring)
def test_every_table_of_every_wiring_is_written_out(wiring, mode):
    """Facts 7.2 and 7.3: what S2 has, and what the others have in its place; PEERS without any is the mesh alone."""
    _, fibs = make(wiring, mode, service_cluster_ips=("10.96.0.0/12",))
    on_s, on_node = CONNECTED[mode]
    out_to = {"A": "br0" if mode is BRIDGED else "p-A", "B": "br0" if mode is BRIDGED else "p-B"}

    def over_both(prefix):
        if wiring in (Wiring.MESH, Wiring.PEERS):
            return []  # nobody tells the switch
        return [
            f"{prefix} proto bird",
            f"nexthop via 10.0.0.11 dev {out_to['A']} weight 1",
            f"nexthop via 10.0.0.12 dev {out_to['B']} weight 1",
        ]

    def block_at_s(prefix, owner, address):
        if wiring in (Wiring.S3, Wiring.MESH, Wiring.PEERS):
            return over_both(prefix)
        return [f"{prefix} via {address} dev {out_to[owner]} proto bird"]

    def block_at_node(prefix, owner_address):
        if wiring is Wiring.S1:
            return []  # own AS in AS_PATH
        gateway = owner_address if mode is BRIDGED else "10.0.0.1"
        return [f"{prefix} via {gateway} dev eth0 proto bird metric {2147483547 if wiring is Wiring.S5 else 1024}"]

    assert lines(fibs, "S") == [
        *on_s,
        *over_both("10.96.0.0/12"),
        *block_at_s("192.168.10.0/26", "A", "10.0.0.11"),
        *block_at_s("192.168.20.64/26", "B", "10.0.0.12"),
        "198.51.100.0/24 dev p-clients proto kernel scope link src 198.51.100.1",
        *over_both("203.0.113.0/24"),
        *block_at_s("203.0.113.80", "B", "10.0.0.12"),  # S3: A tells of B's Local address too (consequence A)
    ]
    assert lines(fibs, "A") == [
        "default via 10.0.0.1 dev eth0",
        on_node.replace("N", "11"),
        "blackhole 192.168.10.0/26 proto bird",
        "192.168.10.5 dev calic440f455693 scope link metric 1024",
        *block_at_node("192.168.20.64/26", "10.0.0.12"),
    ]
    assert lines(fibs, "B") == [
        "default via 10.0.0.1 dev eth0",
        on_node.replace("N", "12"),
        *block_at_node("192.168.10.0/26", "10.0.0.11"),
        "blackhole 192.168.20.64/26 proto bird",
        "192.168.20.70 dev cali0d7763386da scope link metric 1024",
    ]


OWN_AS = tuple(ClusterNode(node.name, node.addresses, {}, as_number=64512 + i) for i, node in enumerate(NODES))


@pytest.mark.parametrize(
    "wiring, mode, at_switch, at_a",
    [
        (Wiring.S1, BRIDGED, {"10.0.0.12"}, None),
        (Wiring.S2, BRIDGED, {"10.0.0.12"}, {"10.0.0.12"}),
        (Wiring.S3, BRIDGED, {"10.0.0.11", "10.0.0.12"}, {"10.0.0.12"}),
        (Wiring.S4, BRIDGED, {"10.0.0.12"}, {"10.0.0.12"}),
        (Wiring.S5, BRIDGED, {"10.0.0.12"}, {"10.0.0.12"}),  # the switch leaves the third-party next hop
        (Wiring.S1, ROUTED, {"10.0.0.12"}, None),
        (Wiring.S2, ROUTED, {"10.0.0.12"}, {"10.0.0.1"}),  # next hop B, resolved over the default route
        (Wiring.S3, ROUTED, {"10.0.0.11", "10.0.0.12"}, {"10.0.0.1"}),
        (Wiring.S4, ROUTED, {"10.0.0.12"}, {"10.0.0.1"}),
        (Wiring.S5, ROUTED, {"10.0.0.12"}, {"10.0.0.1"}),
    ],
)
def test_the_wiring_decides_who_reaches_bs_block_over_whom(wiring, mode, at_switch, at_a):
    _, fibs = make(wiring, mode)

    def gateways(device):
        found = [r for r in fibs[device].routes if str(r.prefix) == "192.168.20.64/26"]
        return {hop.gateway for hop in found[0].next_hops} if found else None

    assert gateways("S") == at_switch
    assert gateways("A") == at_a


def test_an_as_number_per_node_or_an_allowed_own_as_makes_s1_take_the_blocks_of_others():
    for fibs in (make(Wiring.S1, ROUTED, nodes=OWN_AS)[1], make(Wiring.S1, ROUTED, num_allowed_local_as_numbers=1)[1]):
        assert "192.168.20.64/26 via 10.0.0.1 dev eth0 proto bird metric 2147483547" in lines(fibs, "A")


def test_a_borrowed_address_is_reached_through_its_holder_by_everyone_its_owner_included():
    pods = (*PODS, ClusterPod("default", "guest", "B", ("192.168.10.9",), False, True))
    blocks = (Block("192.168.10.0/26", "A", (("192.168.10.9", "B"),)), BLOCKS[1])
    _, fibs = make(Wiring.S2, BRIDGED, pods=pods, blocks=blocks)
    assert "192.168.10.9 via 10.0.0.12 dev br0 proto bird" in lines(fibs, "S")
    assert "192.168.10.9 via 10.0.0.12 dev eth0 proto bird metric 1024" in lines(fibs, "A")
    assert any(line.startswith("192.168.10.9 dev cali") for line in lines(fibs, "B"))
    assert "blackhole 192.168.10.0/26 proto bird" not in lines(fibs, "B")


def test_before_3_32_routes_carry_no_metric():
    _, fibs = make(Wiring.S2, BRIDGED, version=(3, 31, 7))
    assert not any("metric" in line for line in lines(fibs, "A"))


def test_the_ecmp_width_bounds_the_next_hops_lowest_address_first():
    nodes = tuple(ClusterNode(f"n{i}", (f"10.0.0.{20 - i}",), {}) for i in range(6))
    settings = FabricSettings(mode=BRIDGED, switch_name="S", ecmp_width=3)
    _, fibs = make(Wiring.S2, BRIDGED, nodes=nodes, pods=(), blocks=(), services=(), fabric=settings)
    group = next(r for r in fibs["S"].routes if str(r.prefix) == "203.0.113.0/24")
    assert [hop.gateway for hop in group.next_hops] == ["10.0.0.15", "10.0.0.16", "10.0.0.17"]


def test_ipv6_routes_follow_the_same_rules():
    nodes = tuple(ClusterNode(n, (f"10.0.0.{i}", f"fd00::{i}"), {}) for n, i in (("A", 11), ("B", 12)))
    pods = (ClusterPod("default", "nginx", "A", ("192.168.10.5", "fd10::5"), False, True),)
    blocks = (Block("192.168.10.0/26", "A"), Block("fd10::/122", "A"))
    pools = ("192.168.0.0/16", "fd10::/64")
    _, fibs = make(Wiring.S2, BRIDGED, nodes=nodes, pods=pods, blocks=blocks, ip_pools=pools)
    assert route_lines(fibs["A"], family=6) == [
        "fd00::/64 dev eth0 proto kernel metric 256 pref medium",
        "fd10::5 dev calic440f455693 metric 1024 pref medium",
        "blackhole fd10::/122 proto bird metric 1024 pref medium",
        "default via fd00::1 dev eth0 metric 1024 pref medium",
    ]
    assert "fd10::/122 via fd00::b dev eth0" not in "\n".join(route_lines(fibs["B"], family=6))
    assert "fd10::/122 via fd00::11 dev eth0 proto bird metric 1024 pref medium" in route_lines(fibs["B"], family=6)


# --- a real kernel --------------------------------------------------------------------------------


def lab(shared_cases, name):
    """The lab's cluster as simnet's values: (fabric, fibs, its scenario)."""
    folder = shared_cases.parent / "lab" / "scenarios" / f"{name}.json"
    spec = json.loads(folder.read_text())
    nodes = [ClusterNode(w["name"], (w["ip"],), {}, as_number=w["asn"]) for w in spec["workers"]]
    pods = [ClusterPod("default", p["name"], p["node"], (p["ip"],), False, True) for p in spec["pods"]]
    blocks = [Block(w["pod_block"], w["name"]) for w in spec["workers"]]
    settings = FabricSettings(
        mode=FabricMode(spec["fabric"]), router_addresses=(spec["switches"][0]["ip"],),
        client_networks=tuple(str(ipaddress.ip_interface(c["ip"]).network) for c in spec["clients"]),
    )  # fmt: skip
    clients = [c["ip"].split("/")[0] for c in spec["clients"]]
    calico = CalicoSettings(
        ip_pools=(spec["cluster_cidr"],), wiring=Wiring.S1, num_allowed_local_as_numbers=2, version=(3, 31, 7)
    )
    fabric = build_fabric(nodes, pods, clients, settings)
    return fabric, steady_fibs(fabric, nodes, pods, blocks, (), calico, settings)


@pytest.mark.parametrize("case", ["seed", "hairpin"])
def test_every_box_holds_the_routes_that_the_kernel_showed(shared_cases, case):
    recorded = json.loads((shared_cases / "kernel" / case / "routes.json").read_text())
    _, fibs = lab(shared_cases, case)
    compared = 0
    for box, shown in recorded.items():
        if box.startswith("pod-"):
            continue  # a pod's own two routes are not a device's table
        name = "clients" if box == "client" else box
        kernel = [line.strip().replace(" metric 32", "") for line in shown["ip_route"]]  # 32: BIRD 2's own default
        assert lines(fibs, name) == [line.replace("p-client ", "p-clients ") for line in kernel]
        compared += len(kernel)
    assert compared >= 15


def test_direct_flows_take_the_kernels_paths(shared_cases):
    """Flows that no rule rewrites: outside clients, pods and nodes to a pod's own address."""
    checked = 0
    for case in ("seed", "hairpin"):
        fabric, fibs = lab(shared_cases, case)
        rename = {"client": "clients"}
        pods = {f"pod-{pod.pod.split('/')[1]}": pod for pod in fabric.pods}
        for entry in json.loads((shared_cases / "kernel" / case / "paths.json").read_text()):
            if not entry["entry"].startswith("pod:"):
                continue
            for path in entry["paths"]:
                names = [pods[n].pod if n in pods else rename.get(n, n) for n in path["forward_ns"]]
                if names[0] == names[-1]:
                    continue  # a pod that calls itself does not leave its namespace
                packet = path["forward"]
                source = packet[0]["addr_out"].split(":")[0].split(">")[0]
                destination = packet[-1]["addr_in"].split(">")[1].split(":")[0]
                places, _, end = walk(fabric, fibs, names[0], source, destination)
                assert (places, end) == (names, "local")
                assert l3_hops(fabric, places) == 64 - packet[-1]["ttl_in"]
                checked += 1
    assert checked >= 9


# --- hop counts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode, direct, between", [(ROUTED, 2, 2 + 1), (BRIDGED, 2, 2)])
def test_hops_to_a_pod_from_outside_and_between_pods(mode, direct, between):
    fabric, fibs = make(Wiring.S2, mode)
    places, _, end = walk(fabric, fibs, "clients", "198.51.100.10", "192.168.20.70")
    assert (l3_hops(fabric, places), end) == (direct, "local")
    places, _, end = walk(fabric, fibs, "default/nginx", "192.168.10.5", "192.168.20.70")
    assert (l3_hops(fabric, places), end) == (between, "local")


def test_a_client_inside_the_bridged_subnet_reaches_a_node_over_two_wires_and_no_router():
    settings = FabricSettings(mode=BRIDGED, switch_name="S")
    fabric = build_fabric(NODES, PODS, ["10.0.0.200"], settings)
    fibs = steady_fibs(fabric, NODES, PODS, BLOCKS, (), CalicoSettings(), settings)
    places, wires, end = walk(fabric, fibs, "clients", "10.0.0.200", "10.0.0.11")
    assert (places, len(wires), end) == (["clients", "A"], 2, "local")


def test_leaf_spine_with_an_anycast_address_takes_4_6_or_8_hops():
    nodes = tuple(ClusterNode(f"n{i}", (f"10.0.{i % 2}.{i + 11}",), {}) for i in range(4))
    pods = tuple(ClusterPod("d", f"p{i}", f"n{i}", (f"192.168.{i}.5",), False, True) for i in range(4))
    blocks = tuple(Block(f"192.168.{i}.0/26", f"n{i}") for i in range(4))
    settings = FabricSettings(leaves=2, spines=2)
    fabric, fibs = make(Wiring.S2, ROUTED, nodes=nodes, pods=pods, blocks=blocks, services=(), fabric=settings)
    seen = {}
    for port in range(200):
        # no rules here: what happens after the entry node is not looked at
        way, _, _ = walk(fabric, fibs, "clients", "198.51.100.10", "203.0.113.80", ports=(port, 80))
        entry = next(place for place in way if place.startswith("n"))
        before = way.index(entry)  # boxes passed up to the entry node, which forwards too
        for pod in fabric.pods:
            onward, _, reached = walk(fabric, fibs, entry, "198.51.100.10", pod.addresses[0], ports=(port, 80))
            assert reached == "local"
            seen.setdefault(entry, {})[pod.node] = before - 1 + len(onward) - 1
    assert len(seen) == 4  # ECMP reaches every node
    for entry, hops in seen.items():
        for node, count in hops.items():
            same_leaf = int(entry[1]) % 2 == int(node[1]) % 2
            assert count == (4 if node == entry else 6 if same_leaf else 8)


def test_a_reflecting_leaf_makes_its_spine_the_far_end_of_tunnels_to_other_leaves():
    """S4: an iBGP speaker leaves the next hop of what eBGP told it (RFC 4271, 5.1.3), and IPIP goes to the next hop."""
    nodes = tuple(ClusterNode(f"n{i}", (f"10.0.{i % 2}.{11 + i}",), {}) for i in range(4))
    blocks = tuple(Block(f"192.168.{i}.0/26", f"n{i}") for i in range(4))
    wires = FabricSettings(leaves=2, spines=2)
    ipip = (Encapsulation("192.168.0.0/16", "ipip", Mode.ALWAYS),)
    fabric, fibs = make(Wiring.S4, ROUTED, nodes=nodes, pods=(), blocks=blocks, services=(), fabric=wires,
                        encapsulations=ipip)  # fmt: skip
    far = {
        str(route.prefix): route.next_hops[0]
        for route in fibs["n0"].routes
        if route.protocol == "bird" and route.next_hops
    }
    spine1 = next(device for device in fabric.devices if device.name == "spine1")
    assert far["192.168.2.0/26"] == NextHop("tunl0", "10.0.0.13")  # on the same leaf: its owner
    assert far["192.168.1.0/26"].interface == "tunl0"
    assert far["192.168.1.0/26"].gateway in spine1.addresses


# --- laws -----------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(routed_clusters())
def test_the_tables_are_those_that_bgp_speakers_arrive_at(cluster):
    """Every BGP route of every box, next hops in order, against an exchange of paths session by session."""
    told = service_advertisements(cluster.services, cluster.nodes, cluster.calico)
    origins = origins_of(cluster.nodes, cluster.blocks, told, cluster.calico)
    service_prefixes = {each.prefix for each in told}
    topology = Topology(cluster.fabric)
    for family in {ipaddress.ip_address(a).version for node in cluster.nodes for a in node.addresses}:
        network = bgp_network(cluster.fabric, cluster.nodes, cluster.calico, cluster.settings, family, cluster.blocks)
        originated = {}
        for origin in origins:
            if origin.prefix.version == family:
                for node in origin.nodes:
                    originated.setdefault(node, []).append(origin.prefix)
        loc_rib = converge(network, originated)
        for device in cluster.fabric.devices:
            if device.kind is DeviceKind.CLIENTS:
                continue
            expected, metrics = {}, {}
            for prefix, paths in loc_rib[device.name].items():
                if device.kind is DeviceKind.NODE and (prefix in service_prefixes or not paths[0].peer):
                    continue  # kept out of the kernel; or the node's own
                hops = []
                for path in paths:
                    direct = topology.reaches_directly(device.name, path.next_hop)
                    hops.append(path.next_hop if direct else topology.gateway(device.name, family).gateway)
                expected[prefix] = tuple(dict.fromkeys(hops))  # reflectors tell of one next hop each
                metrics[prefix] = 2147483647 - paths[0].local_pref  # Calico 3.32, SetMetricForBGPRoutes
            underlay = {prefix for _, prefix in topology.underlay()}
            found = {
                route.prefix: tuple(hop.gateway for hop in route.next_hops)
                for route in cluster.fibs[device.name].routes
                if route.kind is RouteKind.VIA and route.protocol == "bird"
                and route.prefix.version == family and route.prefix not in underlay
            }  # fmt: skip
            assert found == expected, device.name
            if device.kind is DeviceKind.NODE:
                learned = [r for r in cluster.fibs[device.name].routes if r.prefix in expected]
                assert {route.prefix: route.metric for route in learned} == metrics


@settings(max_examples=100)
@given(routed_clusters())
def test_no_blackhole_shadows_a_live_pod_on_its_own_node(cluster):
    for pod in cluster.fabric.pods:
        for address in pod.addresses:
            places, _, end = walk(cluster.fabric, cluster.fibs, pod.node, cluster.nodes[0].addresses[0], address)
            assert (places, end) == ([pod.node, pod.pod], "local")


@settings(max_examples=100)
@given(routed_clusters(wirings=(Wiring.S1, Wiring.S2, Wiring.S4, Wiring.S5), dual_stack=False))
def test_every_pod_is_reached_from_outside_straight_at_its_node(cluster):
    """No switch sends a packet to a node that holds neither the block nor the address; only S3 does."""
    for pod in cluster.fabric.pods:
        places, _, end = walk(cluster.fabric, cluster.fibs, "clients", "198.51.100.10", pod.addresses[0])
        assert end == "local"
        assert places[-2:] == [pod.node, pod.pod]
        assert sum(place in {node.name for node in cluster.nodes} for place in places) == 1


@settings(max_examples=60)
@given(routed_clusters())
def test_a_table_has_at_most_one_route_a_prefix_and_every_route_says_why(cluster):
    for fib in cluster.fibs.values():
        prefixes = [route.prefix for route in fib.routes]
        assert len(prefixes) == len(set(prefixes))
        assert all(route.why for route in fib.routes)


def test_s3_on_routed_links_loops_where_the_switch_picks_a_node_that_only_sends_back():
    """True to the wiring: the node's next hop resolves to the switch, which picks the same node again."""
    fabric, fibs = make(Wiring.S3, ROUTED)
    ends = {walk(fabric, fibs, "clients", "198.51.100.10", "192.168.20.70", ports=(port, 80))[2] for port in range(50)}
    assert ends == {"local", "ttl exceeded"}
