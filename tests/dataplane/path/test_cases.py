"""The six ways through a cluster that facts on Calico's host datapath describe: TTL and rewrites, there and back."""

from __future__ import annotations

import pytest
from engine.scenarios import cluster, nodes, plain, pod, scenario, scenarios, service
from hypothesis import HealthCheck, given, settings

from simnet.engine.simulate import prepare, simulate
from simnet.engine.trace import Tracer
from simnet.errors import InputError
from simnet.model.calico import FabricMode, FabricSettings, Wiring
from simnet.model.kubernetes import Pod
from simnet.model.scenario import Entry
from simnet.model.workload import ClientOrigin, ClientPopulation, EntryChoice, EntryChoiceKind

OUTSIDE = ClientPopulation(1, addresses=("198.51.100.10",))
A, B = "10.0.0.11", "10.0.0.12"
VIP = "203.0.113.80"
S_WIRINGS = (Wiring.S1, Wiring.S2, Wiring.S3, Wiring.S4, Wiring.S5)  # those of the cases
WIRED = [(wiring, mode) for mode in FabricMode for wiring in S_WIRINGS]
LOOPS = (Wiring.S3, FabricMode.ROUTED)  # the switch sends some packets for a block to the other node: they die


def x(wiring, mode, *, to_pod=True):
    """1 if S routes between A and B: for a node's address on the segment it never does, for a block under S1."""
    return int(mode is FabricMode.ROUTED or (to_pod and wiring is Wiring.S1))


def seen(entry, clients, target=None, *, wiring, mode, policy="Cluster", external_ip=A):
    """By pod reached: the set of (TTL at the pod, TTL at the client, source seen, SNAT) of flows that were answered."""
    web = service(type="NodePort", external_ips=(external_ip,), external_traffic_policy=policy)
    caller = Pod("d", "caller", node_name="n1")
    pods = [pod("a", "n1"), pod("b", "n2"), caller]
    advertised = {"service_external_ips": ("203.0.113.0/24",)} if external_ip == VIP else {}
    spec = cluster(nodes(2), pods, [web], wiring=wiring, fabric=FabricSettings(mode=mode), calico=advertised)
    choice = EntryChoice(EntryChoiceKind.FIXED, target) if target else EntryChoice()
    table = simulate(scenario(spec, entry, clients=clients, choice=choice, flows=200), seed=1).tables["flows"]
    found: dict[str, set] = {}
    names = ("answered", "pod", "l3_hops", "reply_l3_hops", "source_seen", "snat")
    rows = list(zip(*(plain(table[name]) for name in names), strict=True))
    assert (wiring, mode) == LOOPS or all(row[0] for row in rows)
    for answered, name, there, back, source, snat in rows:
        if answered:
            found.setdefault(name, set()).add((64 - there, 64 - back, source, snat))
    return found


@pytest.mark.parametrize(("wiring", "mode"), WIRED)
def test_a_b_from_outside_to_an_external_ip(wiring, mode):
    """The answer goes to A's own address, which no wiring hides."""
    there, back = x(wiring, mode), x(wiring, mode, to_pod=False)
    found = seen(Entry.EXTERNAL_IP, OUTSIDE, A, wiring=wiring, mode=mode)
    assert found == {"d/a": {(62, 62, A, True)}, "d/b": {(61 - there, 61 - back, A, True)}}


@pytest.mark.parametrize(("wiring", "mode"), WIRED)
def test_a_from_outside_to_an_advertised_address_of_a_local_service(wiring, mode):
    """V enters at either node, reaches the pod there and keeps the client's address."""
    found = seen(Entry.EXTERNAL_IP, OUTSIDE, VIP, wiring=wiring, mode=mode, policy="Local", external_ip=VIP)
    assert found == {name: {(62, 62, "198.51.100.10", False)} for name in ("d/a", "d/b")}


@pytest.mark.parametrize(("wiring", "mode"), WIRED)
def test_c_from_outside_to_a_node_port(wiring, mode):
    there, back = x(wiring, mode), x(wiring, mode, to_pod=False)
    found = seen(Entry.NODE_PORT, OUTSIDE, "n1", wiring=wiring, mode=mode)
    assert found == {"d/a": {(62, 62, A, True)}, "d/b": {(61 - there, 61 - back, A, True)}}
    local = seen(Entry.NODE_PORT, OUTSIDE, "n1", policy="Local", wiring=wiring, mode=mode)
    assert local == {"d/a": {(62, 62, "198.51.100.10", False)}}


@pytest.mark.parametrize(("wiring", "mode"), WIRED)
def test_d_e_from_a_pod_to_a_cluster_ip_and_back_to_itself(wiring, mode):
    between = x(wiring, mode)
    callers = ClientPopulation(1, ClientOrigin.PODS, ("d/caller",))
    other = seen(Entry.CLUSTER_IP, callers, wiring=wiring, mode=mode)
    (at_b,) = other["d/b"]
    assert at_b[:2] == (62 - between, 62 - between)
    assert at_b[2].startswith("192.168.")
    assert not at_b[3]
    itself = seen(Entry.CLUSTER_IP, ClientPopulation(1, ClientOrigin.PODS, ("d/a",)), wiring=wiring, mode=mode)
    assert itself["d/a"] == {(63, 63, A, True)}


@pytest.mark.parametrize(("wiring", "mode"), WIRED)
def test_f_from_a_process_of_a_node_to_a_cluster_ip(wiring, mode):
    there, back = x(wiring, mode), x(wiring, mode, to_pod=False)
    found = seen(Entry.CLUSTER_IP, ClientPopulation(1, ClientOrigin.NODES, ("n1",)), wiring=wiring, mode=mode)
    assert found == {"d/a": {(64, 64, A, True)}, "d/b": {(63 - there, 63 - back, A, True)}}


REWRITES = {  # by case: entry, sender, destination, then (box's rewrite) of the request and of the reply, pod on B
    "b": ("198.51.100.10", f"{A}:80", [("n1", "destination"), ("n1", "source")]),
    "c": ("198.51.100.10", f"{A}:30080", [("n1", "destination"), ("n1", "source")]),
    "d": ("pod:d/caller", "10.96.0.80:80", [("n1", "destination")]),
    "f": ("node:n1", "10.96.0.80:80", [("n1", "destination")]),  # masqueraded as itself
}


@pytest.mark.parametrize("case", REWRITES)
@pytest.mark.parametrize(("wiring", "mode"), [each for each in WIRED if each != LOOPS])
def test_each_rewrite_is_made_at_the_first_node_and_undone_there(case, wiring, mode):
    sender, called, expected = REWRITES[case]
    ports = {"cluster_ip": "10.96.0.80", "cluster_ips": ("10.96.0.80",)}
    web = service(type="NodePort", external_ips=(A,), **ports)
    spec = cluster(nodes(2), [pod("b", "n2"), Pod("d", "caller", node_name="n1")], [web], wiring=wiring,
                   fabric=FabricSettings(mode=mode))  # fmt: skip
    made = scenario(spec, Entry.EXTERNAL_IP, clients=OUTSIDE)
    compiled = prepare(made, seed=1)
    if case == "c":
        port = next(each.node_port for each in compiled.cluster.services[0].ports if each.protocol == "TCP")
        called = f"{A}:{port}"
    (outcome,) = Tracer(compiled.cluster, spec).trace(sender, called).outcomes
    assert outcome.verdict == "delivered"
    assert outcome.reply_hops is not None
    rewrites = {"request": [], "reply": []}
    for step in outcome.steps:
        if step.action in ("rewrite", "conntrack") and step.before != step.after:
            (from_was, to_was), (from_is, to_is) = (text.split(" > ") for text in (step.before, step.after))
            what = [w for w, was, now in (("source", from_was, from_is), ("destination", to_was, to_is)) if was != now]
            rewrites[step.direction] += [(step.box, each) for each in what]
    assert rewrites["request"] == expected
    # what was the destination's rewrite is undone on the answer's source, and the other way round
    undone = {("n1", "source" if what == "destination" else "destination") for _, what in expected}
    assert set(rewrites["reply"]) == undone
    steps = [step for step in outcome.steps if step.direction == "reply"]
    assert steps[0].after.split(" > ")[0].endswith(":8080")


@given(scenarios())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_the_ttl_of_what_is_delivered_is_64_less_the_boxes_that_forwarded(made):
    """In any scenario, tunnels and loops included: hops counted box by box against the TTL that the pod sees."""
    from simnet.dataplane.path import walk
    from simnet.dataplane.path.hop_by_hop import DELIVERED

    ways = []
    send, answer = walk.send_request, walk.send_reply

    def noted(function):
        def call(*arguments, **named):
            given_back = function(*arguments, **named)
            ways.append(given_back[0] if isinstance(given_back, tuple) else given_back)
            return given_back

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "send_request", noted(send))
        patch.setattr(walk, "send_reply", noted(answer))
        try:
            simulate(made, seed=3)
        except InputError:
            return
    for way in ways:
        delivered = way.verdict == DELIVERED
        assert (way.ttl[delivered] == 64 - way.l3_hops[delivered]).all()
        assert (way.ttl[delivered] > 0).all()
