"""IPIP and VXLAN: hops, sources, bytes on the wires and times worked out by hand, and what is too large."""

from __future__ import annotations

import pytest
from engine.scenarios import cluster, nodes, plain, pod, scenario, service
from engine.test_agreement import assert_agreement

from simnet.controlplane.route_lines import route_lines
from simnet.engine.simulate import prepare, simulate
from simnet.engine.trace import Tracer
from simnet.model.calico import Encapsulation, FabricMode, FabricSettings, Mode, Wiring
from simnet.model.kubernetes import Pod
from simnet.model.scenario import Entry
from simnet.model.workload import ClientOrigin, ClientPopulation, Constant, FlowShape

OUTSIDE = ClientPopulation(1, addresses=("198.51.100.10",))
A, TUNNEL_A, POD_A = "10.0.0.11", "192.168.0.0", "192.168.0.1"
EXTRA = {"ipip": 20, "vxlan": 50}


def made(
    kind,
    entry,
    clients,
    *,
    mode=Mode.ALWAYS,
    wiring=Wiring.S2,
    size=1000,
    reply=100,
    fabric=FabricSettings(),
    at=("n2",),
):
    web = service(type="NodePort", external_ips=(A,))
    pods = [Pod("d", "caller", node_name="n1"), *(pod(f"b{i}", node) for i, node in enumerate(at))]
    calico = {"encapsulations": (Encapsulation("192.168.0.0/16", kind, mode),)}
    spec = cluster(nodes(2), pods, [web], wiring=wiring, fabric=fabric, calico=calico)
    shape = FlowShape(Constant(2), Constant(size), Constant(10**9), Constant(reply))
    return scenario(spec, entry, clients=clients, shape=shape, flows=20)


def flows_of(given):
    table = simulate(given, seed=1).tables["flows"]
    return {name: set(plain(column)) for name, column in table.items()}


@pytest.mark.parametrize("kind", ["ipip", "vxlan"])
def test_case_b_the_switch_between_the_nodes_touches_the_outer_header_only(kind):
    """C to V at A, pod on B: S 63, A 62, (S the outer one), B 61; A makes its tunnel's address the source."""
    given = made(kind, Entry.EXTERNAL_IP, OUTSIDE)
    found = flows_of(given)
    assert (found["l3_hops"], found["reply_l3_hops"], found["links"]) == ({3}, {3}, {5})
    assert found["source_seen"] == {TUNNEL_A}
    assert found["answered"] == {True}
    assert_agreement(given)


@pytest.mark.parametrize("kind", ["ipip", "vxlan"])
def test_case_d_from_a_pod_and_f_from_a_process_of_the_node(kind):
    of_pod = made(kind, Entry.CLUSTER_IP, ClientPopulation(1, ClientOrigin.PODS, ("d/caller",)))
    found = flows_of(of_pod)
    assert (found["l3_hops"], found["reply_l3_hops"], found["source_seen"]) == ({2}, {2}, {POD_A})
    of_node = made(kind, Entry.CLUSTER_IP, ClientPopulation(1, ClientOrigin.NODES, ("n1",)))
    found = flows_of(of_node)
    assert (found["l3_hops"], found["reply_l3_hops"], found["source_seen"]) == ({1}, {1}, {TUNNEL_A})
    to_pod = made(kind, Entry.POD, ClientPopulation(1, ClientOrigin.NODES, ("n1",)))
    found = flows_of(to_pod)  # no rule rewrites: the process itself takes the tunnel's address
    assert (found["source_seen"], found["nat_hops"], found["snat"]) == ({TUNNEL_A}, {0}, {False})
    for given in (of_pod, of_node, to_pod):
        assert_agreement(given)


@pytest.mark.parametrize("kind", ["ipip", "vxlan"])
def test_outer_headers_count_on_the_wires_between_the_nodes_and_nowhere_else(kind):
    """20 flows of 2 packets of 1,000 bytes, answered by 100: veth bytes as sent, link bytes with the outer header."""
    given = made(kind, Entry.CLUSTER_IP, ClientPopulation(1, ClientOrigin.PODS, ("d/caller",)))
    recording = simulate(given, seed=1)
    load = recording.tables["load"]
    rows = zip(plain(load["where"]), plain(load["name"]), plain(load["packets"]), plain(load["bytes"]), strict=True)
    wire = {name: (packets, size) for where, name, packets, size in rows if where == "link" and packets}
    count = recording.totals["sent"]
    extra = EXTRA[kind]
    assert wire["d/caller->n1"] == wire["n2->d/b0"] == (count, 1000 * count)
    assert wire["n1->tor"] == wire["tor->n2"] == (count, (1000 + extra) * count)
    assert wire["n2->tor"] == wire["tor->n1"] == (count, (100 + extra) * count)
    # 2 veths of 40 Gbit/s and 1 us, 2 links of 10 Gbit/s and 5 us
    delay = 2 * (1000 * 8 * 25 + 10**6) + 2 * ((1000 + extra) * 8 * 100 + 5 * 10**6)
    assert set(plain(recording.tables["flows"]["delay_ps"])) == {delay}


@pytest.mark.parametrize(("kind", "largest"), [("ipip", 1480), ("vxlan", 1450)])
def test_a_packet_that_the_tunnel_does_not_take_whole_is_dropped_at_the_node_that_would_wrap_it(kind, largest):
    fits = made(kind, Entry.EXTERNAL_IP, OUTSIDE, size=largest)
    assert flows_of(fits)["verdict"] == {"delivered"}
    large = made(kind, Entry.EXTERNAL_IP, OUTSIDE, size=largest + 1)
    found = flows_of(large)
    assert (found["verdict"], found["reason"], found["l3_hops"]) == ({"dropped"}, {"fragmentation needed"}, {1})
    answer = made(kind, Entry.EXTERNAL_IP, OUTSIDE, reply=largest + 1)  # a pod's own interface is as narrow
    found = flows_of(answer)
    assert (found["answered"], found["reply_reason"]) == ({False}, {"fragmentation needed"})
    jumbo = made(kind, Entry.EXTERNAL_IP, OUTSIDE, size=largest + 1, fabric=FabricSettings(mtu=9000))
    assert flows_of(jumbo)["verdict"] == {"delivered"}
    for given in (fits, large, answer, jumbo):
        assert_agreement(given)


def test_without_tunnels_the_links_mtu_bounds_packets():
    given = made("ipip", Entry.EXTERNAL_IP, OUTSIDE, mode=Mode.NEVER, size=1501)
    found = flows_of(given)
    assert (found["reason"], found["l3_hops"]) == ({"fragmentation needed"}, {0})
    assert flows_of(made("ipip", Entry.EXTERNAL_IP, OUTSIDE, mode=Mode.NEVER, size=1500))["verdict"] == {"delivered"}


@pytest.mark.parametrize(
    ("kind", "mode", "route"),
    [
        ("ipip", Mode.ALWAYS, "192.168.46.64/26 via 10.0.0.12 dev tunl0 proto bird metric 1024 onlink"),
        ("ipip", Mode.CROSS_SUBNET, "192.168.46.64/26 via 10.0.0.12 dev eth0 proto bird metric 1024"),
        ("vxlan", Mode.ALWAYS, "192.168.46.64/26 via 192.168.46.64 dev vxlan.calico proto 80 onlink"),
        ("vxlan", Mode.CROSS_SUBNET, "192.168.46.64/26 via 10.0.0.12 dev eth0 proto 80"),
    ],
)
def test_a_nodes_table_holds_the_routes_that_bird_and_felix_write(kind, mode, route):
    given = made(kind, Entry.POD, OUTSIDE, mode=mode, fabric=FabricSettings(mode=FabricMode.BRIDGED))
    fib = prepare(given, seed=1).cluster.fibs["n1"]
    lines = route_lines(fib)
    assert route in lines
    assert f"blackhole 192.168.0.0/26 proto {'bird' if kind == 'ipip' else '80'}" in lines
    device = {"ipip": "tunl0", "vxlan": "vxlan.calico"}[kind]
    assert f"local {TUNNEL_A} dev {device} proto kernel scope host src {TUNNEL_A}" in route_lines(fib, local=True)


@pytest.mark.parametrize(
    ("kind", "wiring", "there"),
    [
        ("vxlan", Wiring.S1, "dev vxlan.calico"),  # Felix asks no BGP
        ("ipip", Wiring.S1, None),  # own AS in the path: no route, and so no tunnel
        ("ipip", Wiring.S4, "via 10.0.0.12 dev tunl0"),
        ("ipip", Wiring.S5, "via 10.0.0.1 dev tunl0"),  # BIRD wraps toward the BGP next hop, here the switch
    ],
)
def test_where_the_tunnel_leads_depends_on_who_writes_the_route(kind, wiring, there):
    given = made(kind, Entry.POD, OUTSIDE, wiring=wiring)
    lines = [
        line for line in route_lines(prepare(given, seed=1).cluster.fibs["n1"]) if line.startswith("192.168.46.64")
    ]
    assert bool(lines) == (there is not None)
    assert all(there in line for line in lines)


def test_ipip_toward_a_switch_ends_there():
    """S5 with IPIP and a switch that puts itself in as next hop: it is no tunnel's end."""
    given = made("ipip", Entry.CLUSTER_IP, ClientPopulation(1, ClientOrigin.PODS, ("d/caller",)), wiring=Wiring.S5)
    found = flows_of(given)
    assert (found["verdict"], found["reason"]) == ({"rejected"}, {"port closed"})
    assert_agreement(given)


def test_vxlan_spreads_over_spines_and_ipip_does_not():
    """Switches hash the outer header: of VXLAN it has a port a flow, of IPIP two addresses."""
    spines = FabricSettings(leaves=2, spines=4, border_leaf=False)
    used = {}
    for kind in ("ipip", "vxlan"):
        given = made(kind, Entry.POD, ClientPopulation(1, ClientOrigin.PODS, ("d/caller",)), fabric=spines)
        load = simulate(given, seed=1).tables["load"]
        rows = zip(plain(load["where"]), plain(load["name"]), plain(load["connections"]), strict=True)
        used[kind] = sum(1 for where, name, n in rows if where == "link" and n and name.startswith("leaf1->spine"))
        assert_agreement(given)
    assert used["ipip"] == 1
    assert used["vxlan"] == 4


@pytest.mark.parametrize("kind", ["ipip", "vxlan"])
def test_the_trace_goes_the_same_way(kind):
    given = made(kind, Entry.EXTERNAL_IP, OUTSIDE)
    compiled = prepare(given, seed=1)
    outcome = Tracer(compiled.cluster, given.cluster).trace("198.51.100.10", f"{A}:80").outcomes[0]
    assert (outcome.verdict, outcome.source_seen, outcome.ttl) == ("delivered", TUNNEL_A, 61)
    assert (outcome.hops.l3, outcome.hops.links, outcome.reply_hops.l3) == (3, 5, 3)
    assert [step.action for step in outcome.steps if step.action in ("wrap", "unwrap")] == ["wrap", "unwrap"] * 2
