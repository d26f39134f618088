"""Endpoints that follow nodes and pods: when they leave the rules, what the rules are then, and that all comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine.scenarios import MS, S, cluster, nodes, plain, pod, scenario, scenarios, service
from engine.test_agreement import assert_agreement
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from reference.node_lifecycle import transitions

from simnet.controlplane.kube_proxy.generator import RuleGenerator
from simnet.controlplane.kube_proxy.node import ProxiedNode
from simnet.engine.bgp_events import schedule_events
from simnet.engine.bgp_processes import ControlPlane, run_control_plane
from simnet.engine.materialise import materialise
from simnet.engine.network import compile_cluster
from simnet.engine.replacements import with_replacements
from simnet.engine.simulate import cluster_of, prepare, simulate
from simnet.errors import InputError
from simnet.model.calico import BgpTimers
from simnet.model.events import Event, EventKind
from simnet.model.kubernetes import EndpointConditions
from simnet.model.node_lifecycle import NodeLifecycle
from simnet.model.recording import PACKETS
from simnet.model.scenario import Entry
from simnet.model.workload import TCP, UDP, ClientOrigin, ClientPopulation, Constant, Deterministic, FlowShape

VIP = "203.0.113.80"
LIFECYCLE = NodeLifecycle()


def web_on(*where, count=3, lifecycle=LIFECYCLE, **fields):
    """A service of one pod on each of the nodes named, called at an external address that every node tells of."""
    pods = [pod(f"p{number}", node) for number, node in enumerate(where)]
    web = service(external_ips=(VIP,), **fields)
    return cluster(
        nodes(count), pods, [web], node_lifecycle=lifecycle, calico={"service_external_ips": ("203.0.113.0/24",)}
    )


def history_of(spec, *events, until_ps=200 * S, seed=1):
    made = materialise(spec, seed=seed)
    return made, run_control_plane(made, spec, events, until_ps=until_ps, seed=seed)


def rules_at(made, history, time_ps):
    return {**made.rulesets, **history.at(time_ps).rulesets}


def rules_without(made, gone):
    """What kube-proxy writes where the slices lack those pods."""
    slices = [
        replace(each, endpoints=tuple(e for e in each.endpoints if e.target_ref.name not in gone))
        for each in made.endpoint_slices
    ]
    families = [ruleset.family for ruleset in made.rulesets[made.nodes[0].name]]
    generators = [RuleGenerator(made.services, slices, made.kube_proxy, family) for family in families]
    return {
        node.name: tuple(
            each.for_node(ProxiedNode(node.name, node.addresses[0], node.labels, node.addresses, node.pod_cidrs))
            for each in generators
        )
        for node in made.nodes
    }


# --- a node that dies


@pytest.mark.parametrize("grace_s", [40, 50])
def test_endpoints_of_a_dead_node_leave_after_the_grace_period(grace_s):
    """The last renewal is up to 10 s old, the controller sees it up to 5 s later: from 10 s sooner to 5 s later."""
    lifecycle = replace(LIFECYCLE, node_monitor_grace_period_ps=grace_s * S)
    spec = web_on("n1", "n2", lifecycle=lifecycle)
    left = []
    for seed in range(60):
        made, history = history_of(spec, Event(20 * S, EventKind.NODE_DIES, ("n2",)), until_ps=100 * S, seed=seed)
        assert {change.node for change in history.rules} == {"n1", "n3"}  # a dead one writes no rules
        left.append((history.rules[0].time_ps / S) - 20)
        assert rules_at(made, history, 100 * S)["n1"] == rules_without(made, {"p1"})["n1"]
    assert grace_s - 10 + 0.1 < min(left) < grace_s - 7  # two watches of 50 to 150 ms after that
    assert grace_s + 2 < max(left) < grace_s + 5 + 0.3
    mean = sum(left) / len(left)
    assert abs(mean - (grace_s - 5 + 2.5 + 0.2)) < 4 * ((100 + 25) / 12 / len(left)) ** 0.5


def test_a_node_that_is_back_before_the_grace_period_keeps_its_endpoints():
    _, history = history_of(web_on("n1", "n2"), Event(20 * S, EventKind.NODE_DIES, ("n2",), 55 * S))
    assert not history.rules


def test_a_node_that_is_back_is_ready_at_its_kubelets_next_report():
    for seed in range(20):
        made, history = history_of(web_on("n1", "n2"), Event(20 * S, EventKind.NODE_DIES, ("n2",), 90 * S), seed=seed)
        back = [change for change in history.rules if change.node == "n1"][-1]
        assert 0 < back.time_ps / S - 90 < 10 + 0.3
        assert rules_at(made, history, 200 * S) == dict(made.rulesets)
        assert back.rulesets is made.rulesets["n1"]


def test_a_node_behind_a_silent_link_is_as_good_as_dead():
    event = Event(20 * S, EventKind.LINK_SILENT, ("tor", "n2"), 90 * S)
    made, history = history_of(web_on("n1", "n2"), event)
    at_80 = rules_at(made, history, 80 * S)
    assert at_80["n1"] == at_80["n3"] == rules_without(made, {"p1"})["n1"]
    assert at_80["n2"] == made.rulesets["n2"]  # nobody tells it
    assert rules_at(made, history, 200 * S) == dict(made.rulesets)


@given(
    st.lists(st.tuples(st.integers(0, 150 * S), st.integers(1, 80 * S)), min_size=1, max_size=4),
    st.sampled_from([12, 20, 50]), st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_node_is_unreachable_when_the_controller_that_looks_every_time_says_so(spans, grace_s, seed):
    lifecycle = replace(LIFECYCLE, node_monitor_grace_period_ps=grace_s * S)
    spec = web_on("n1", "n2", lifecycle=lifecycle)
    made = materialise(spec, seed=1)
    silent = [(begin, begin + length) for begin, length in spans]
    events = sorted((Event(a, EventKind.LINK_SILENT, ("tor", "n2"), b) for a, b in silent), key=lambda e: e.at_ps)
    plane = ControlPlane(made, spec, seed, is_cold=False)
    endpoints, told = plane.endpoints, []
    changed = endpoints.changed
    endpoints.changed = lambda: (told.append((plane.now, "n2" in endpoints.unreachable)), changed())
    schedule_events(plane, events)
    plane.run(300 * S)
    phases = {
        "lease": endpoints.lease_phase_ps["n2"], "monitor": endpoints.monitor_phase_ps,
        "status": endpoints._phase("status", "n2", lifecycle.node_status_update_frequency_ps),
    }  # fmt: skip
    assert told == transitions(lifecycle, phases, silent, 300 * S)


def test_the_share_of_calls_lost_is_that_of_the_dead_pods_until_the_rules_are_without_them():
    """k = 1 of n = 4 pods dies; the caller's node is another, and BGP's hold time is longer than the run."""
    spec, caller = web_on("n1", "n2", "n3", "n3"), replace(pod("caller", "n1"), labels=())
    spec = replace(spec, objects=replace(spec.objects, pods=(*spec.objects.pods, caller)))
    chosen = scenario(
        spec, Entry.CLUSTER_IP, arrivals=Deterministic(200.0), duration_ps=100 * S,
        shape=FlowShape(Constant(1), Constant(200), Constant(0), Constant(200)),
        clients=callers("d/caller"),
    )  # fmt: skip
    chosen = replace(chosen, events=(Event(20 * S, EventKind.NODE_DIES, ("n2",)),))
    compiled = prepare(chosen, seed=3)
    sync_ps = next(change.time_ps for change in compiled.history.rules if change.node == "n1")
    flows = simulate(chosen, seed=3, compiled=compiled).tables["flows"]
    lost = ~flows["answered"]
    during = (flows["start_ps"] >= 20 * S) & (flows["start_ps"] < sync_ps)
    assert not lost[~during].any()
    n = int(during.sum())
    assert abs(n - 200 * (sync_ps / S - 20)) <= 1
    assert abs(lost[during].mean() - 1 / 4) < 4 * (3 / 16 / n) ** 0.5


def callers(*names):
    return ClientPopulation(len(names), ClientOrigin.PODS, names)


# --- drains and single pods


@pytest.mark.parametrize("kind, subject", [(EventKind.NODE_DRAINED, "n2"), (EventKind.POD_DELETED, "d/p1")])
def test_a_deleted_pod_leaves_the_rules_at_once_and_ends_after_its_grace_period(kind, subject):
    made, history = history_of(web_on("n1", "n2"), Event(20 * S, kind, (subject,)))
    for node in ("n1", "n2", "n3"):
        left, gone = [change for change in history.rules if change.node == node]
        assert 20.1 * S < left.time_ps < 20.3 * S  # two watches of 50 to 150 ms
        assert left.rulesets == gone.rulesets == rules_without(made, {"p1"})[node]
        assert left.kept - gone.kept == {(address_of(made, "p1"), 8080)}  # UDP entries go with the pod, not before
        assert 50.1 * S < gone.time_ps < 50.3 * S
    (ended,) = history.pods
    assert (ended.time_ps, ended.pod, ended.runs) == (50 * S, "d/p1", False)
    prefix = f"{address_of(made, 'p1')}/32"
    for time_ps, is_there in ((49 * S, True), (51 * S, False)):
        assert any(str(route.prefix) == prefix for route in history.fibs_at(time_ps)["n2"].routes) is is_there


def address_of(made, name):
    return next(pod.addresses[0] for pod in made.pods if pod.name == name)


def test_a_terminating_pod_goes_on_serving_where_there_is_no_other():
    made, history = history_of(web_on("n2"), Event(20 * S, EventKind.NODE_DRAINED, ("n2",)))
    assert rules_at(made, history, 49 * S) == dict(made.rulesets)
    assert rules_at(made, history, 51 * S) == rules_without(made, {"p0"})


def test_a_deleted_pods_replacement_joins_elsewhere_once_it_is_ready():
    spec = web_on("n1", "n2", "n2")
    drain = Event(20 * S, EventKind.NODE_DRAINED, ("n2",), 90 * S, replacement_ps=5 * S)
    chosen = replace(scenario(spec, Entry.EXTERNAL_IP), events=(drain, Event(100 * S, EventKind.NODE_DRAINED, ("n3",))))
    made = cluster_of(chosen, seed=1)
    history = run_control_plane(made, chosen.cluster, chosen.events, until_ps=200 * S, seed=1)
    new = {"p1-replacement", "p2-replacement"}
    assert {pod.node for pod in made.pods if pod.name in new} == {"n1"}  # the other two are drained
    assert {pod.name for pod in made.pods if not pod.ready} == new
    whole = replace(made, endpoint_slices=all_ready(made.endpoint_slices))
    for time_ps, gone in (
        (19 * S, new), (21 * S, {"p1", "p2", *new}), (26 * S, {"p1", "p2"}), (89 * S, {"p1", "p2"}), (91 * S, new)
    ):  # fmt: skip
        assert rules_at(made, history, time_ps) == rules_without(whole, gone)


def all_ready(slices):
    conditions = EndpointConditions(True, True, False)
    return tuple(
        replace(each, endpoints=tuple(replace(end, conditions=conditions) for end in each.endpoints)) for each in slices
    )


def test_a_drained_node_tells_no_more_of_addresses_with_policy_local():
    spec = web_on("n1", "n2", external_traffic_policy="Local")
    made, history = history_of(spec, Event(20 * S, EventKind.NODE_DRAINED, ("n2",), 90 * S))

    def next_hops(time_ps):
        routes = history.fibs_at(time_ps)["tor"].routes
        return {hop.gateway for route in routes if str(route.prefix) == f"{VIP}/32" for hop in route.next_hops}

    assert next_hops(20 * S) == {"10.0.0.11", "10.0.0.12"} == next_hops(95 * S)
    assert next_hops(20 * S + 310 * MS) == {"10.0.0.11"}
    assert history.fibs_at(200 * S) == dict(made.fibs)


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_flows_to_a_drained_pod_last_until_it_ends(protocol):
    """40 s of packets each second; drained at 2 s with a grace period of 18 s."""
    spec = web_on("n1", "n2")
    shape = FlowShape(Constant(40), Constant(200), Constant(S), Constant(200))
    chosen = scenario(
        spec, Entry.EXTERNAL_IP, protocol=protocol, shape=shape, arrivals=Deterministic(40.0), duration_ps=5 * S
    )
    event = Event(2 * S, EventKind.NODE_DRAINED, ("n2",), grace_period_ps=18 * S)
    made = materialise(chosen.cluster, clients=chosen.workload.clients, seed=1)
    history = run_control_plane(made, chosen.cluster, (event,), until_ps=60 * S, seed=1)
    rows = packets_of(chosen, made, history)
    drained = {row["flow_id"] for row in rows if row["pod"] == "d/p1" and row["sent_ps"] < 2 * S}
    assert len(drained) > 20
    late = {row["pod"] for row in rows if 3 * S < row["sent_ps"] < 5 * S and row["packet"] == 0}
    assert late == {"d/p0"}  # new ones go elsewhere
    mine = [row for row in rows if row["flow_id"] in drained]
    assert {row["pod"] for row in mine if row["sent_ps"] < 20 * S - MS} == {"d/p1"}
    after = {(row["pod"], row["verdict"]) for row in mine if row["sent_ps"] > 20 * S + 400 * MS}
    assert after == ({("", "rejected")} if protocol == TCP else {("d/p0", "delivered")})


def test_clients_with_affinity_keep_their_pods_when_another_one_leaves():
    """60 clients call again and again; a third of them must find another pod, and all others keep theirs."""
    spec = web_on("n1", "n2", "n3", session_affinity="ClientIP")
    clients = ClientPopulation(60, addresses=("198.51.100.0/24",))
    chosen = scenario(spec, Entry.EXTERNAL_IP, arrivals=Deterministic(300.0), duration_ps=10 * S, clients=clients)
    chosen = replace(chosen, events=(Event(5 * S, EventKind.POD_UNREADY, ("d/p1",)),))
    flows = simulate(chosen, seed=1).tables["flows"]
    entry, pod_of, client = (plain(flows[name]) for name in ("entry_node", "pod", "client"))
    first: dict = {}
    moved = 0
    for start_ps, key, served in zip(plain(flows["start_ps"]), zip(client, entry, strict=True), pod_of, strict=True):
        if start_ps < 5 * S:
            assert first.setdefault(key, served) == served
        elif start_ps > 5 * S + 300 * MS:
            assert served != "d/p1"
            moved += key in first and first[key] == "d/p1"
            assert first.get(key) in (served, "d/p1", None)
    assert moved > 0


def packets_of(chosen, made, history):
    rows = []
    names = [column.name for column in PACKETS]
    simulate(
        chosen, seed=1, compiled=compile_cluster(made, chosen.cluster, seed=1, history=history),
        sink=lambda columns: rows.extend(
            dict(zip(names, row, strict=True)) for row in zip(*(plain(columns[name]) for name in names), strict=True)
        ),
    )  # fmt: skip
    return rows


def test_a_pod_that_becomes_ready_joins_and_one_that_is_not_leaves():
    spec = web_on("n1", "n2", "n3")
    first = replace(spec.objects.pods[0], ready=False)
    spec = replace(spec, objects=replace(spec.objects, pods=(first, *spec.objects.pods[1:])))
    events = (
        Event(20 * S, EventKind.POD_READY, ("d/p0",), 100 * S),
        Event(40 * S, EventKind.POD_UNREADY, ("d/p1",), 60 * S),
    )
    made, history = history_of(spec, *events)
    for time_ps, gone in ((19 * S, {"p0"}), (21 * S, set()), (41 * S, {"p1"}), (61 * S, set()), (101 * S, {"p0"})):
        ready = replace(
            spec, objects=replace(spec.objects, pods=tuple(replace(p, ready=True) for p in spec.objects.pods))
        )
        assert rules_at(made, history, time_ps) == rules_without(materialise(ready, seed=1), gone)


def test_a_pod_whose_node_is_dead_ends_when_its_kubelet_hears_of_it():
    events = (
        Event(10 * S, EventKind.NODE_DIES, ("n2",), 100 * S),
        Event(20 * S, EventKind.NODE_DRAINED, ("n2",)),
    )
    _, history = history_of(web_on("n1", "n2"), *events)
    (ended,) = history.pods
    assert ended.time_ps == 100 * S


# --- laws

QUICK = NodeLifecycle(
    node_lease_duration_ps=200 * MS, node_status_update_frequency_ps=50 * MS, node_monitor_period_ps=25 * MS,
    node_monitor_grace_period_ps=200 * MS, watch_latency_ps=3 * MS,
)  # fmt: skip
BGP = BgpTimers(hold_ps=3 * S, connect_delay_ps=S, connect_retry_ps=S, error_wait_ps=(S, 2 * S), restart_ps=None)


def hurried(chosen):
    """The same scenario with a control plane that reacts while it runs."""
    spec = chosen.cluster
    kube_proxy = replace(spec.kube_proxy, iptables=replace(spec.kube_proxy.iptables, min_sync_period_ps=40 * MS))
    spec = replace(
        spec, node_lifecycle=QUICK, kube_proxy=kube_proxy,
        calico=replace(spec.calico, bgp=BGP), fabric=replace(spec.fabric, bgp=BGP),
    )  # fmt: skip
    return replace(chosen, cluster=spec)


@st.composite
def events_of(draw, made, duration_ps, *, undone):
    """What happens to nodes, pods and links, one event over another."""
    names = [node.name for node in made.nodes]
    pods = [each.key for each in made.pods if each.is_evictable]
    wires = [(link.a, link.b) for link in made.fabric.links if link.a in names or link.b in names]
    wires = [pair for pair in wires if all(end in made.fibs for end in pair)]
    kinds = [EventKind.NODE_DIES, EventKind.NODE_DRAINED, EventKind.LINK_SILENT]
    kinds += [EventKind.POD_DELETED, EventKind.POD_UNREADY, EventKind.POD_READY] if pods else []
    found = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(kinds))
        start_ps = draw(st.integers(0, duration_ps))
        subject = (draw(st.sampled_from(names if kind in kinds[:2] else pods or names)),)
        if kind is EventKind.LINK_SILENT:
            subject = draw(st.sampled_from(wires))
        until_ps = start_ps + draw(st.integers(1, duration_ps)) if undone or draw(st.booleans()) else None
        grace_ps, new_ps = draw(st.sampled_from([0, 30 * MS, 300 * MS])), draw(st.sampled_from([None, 0, 50 * MS]))
        if kind not in (EventKind.NODE_DRAINED, EventKind.POD_DELETED):
            new_ps = None
        found.append(Event(start_ps, kind, subject, until_ps, grace_period_ps=grace_ps, replacement_ps=new_ps))
    return tuple(sorted(found, key=lambda event: event.at_ps))


@given(st.data(), scenarios(), st.integers(0, 2**32))
@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much], deadline=None)
def test_events_that_are_undone_leave_the_rules_and_routes_of_the_start(data, chosen, seed):
    chosen = hurried(chosen)
    made = materialise(chosen.cluster, clients=chosen.workload.clients, seed=seed)
    events = data.draw(events_of(made, S, undone=True))
    made = cluster_of(replace(chosen, events=events), seed=seed)
    end_ps = 60 * S
    history = run_control_plane(made, chosen.cluster, events, until_ps=end_ps, seed=seed)
    assert rules_at(made, history, end_ps) == dict(made.rulesets)
    assert history.fibs_at(end_ps) == dict(made.fibs)
    assert not history.at(end_ps).ended_pods
    assert all(a.time_ps <= b.time_ps for a, b in zip(history.rules, history.rules[1:], strict=False))


def agree(data, chosen):
    run = chosen.run
    assume(run.statistic_mode == "random")
    assume(all(each.session_affinity == "None" for each in chosen.cluster.objects.services))
    assume(chosen.cluster.fabric.ecmp_choice != "resilient")
    assume(not chosen.has_queues)
    chosen = hurried(chosen)
    if chosen.workload.shape.gap_ps == Constant(0):  # packets would overtake each other where a way changes
        shape = replace(chosen.workload.shape, gap_ps=Constant(60 * MS))
        chosen = replace(chosen, workload=replace(chosen.workload, shape=shape))

    try:
        made = materialise(chosen.cluster, clients=chosen.workload.clients, seed=7)
    except InputError:
        return
    events = data.draw(events_of(made, run.duration_ps, undone=False))
    chosen = replace(chosen, cluster=with_replacements(replace(chosen, events=events), seed=7))
    assert_agreement(
        chosen,
        make_history=lambda made: run_control_plane(made, chosen.cluster, events, until_ps=2 * run.duration_ps, seed=7),
    )


@given(st.data(), scenarios())
@settings(max_examples=30, suppress_health_check=[HealthCheck.filter_too_much], deadline=None)
def test_both_simulations_agree_on_every_packet_while_endpoints_follow_events(data, chosen):
    agree(data, chosen)


@pytest.mark.slow
@given(st.data(), scenarios())
@settings(max_examples=1000, suppress_health_check=list(HealthCheck), deadline=None)
def test_both_simulations_agree_on_every_packet_of_many_scenarios_with_events(data, chosen):
    agree(data, chosen)
