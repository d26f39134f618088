"""Tables that change while packets are under way: the engine against the event-by-event simulation, exactly."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
from engine.scenarios import MS, S, cluster, nodes, plain, pod, same_bytes, scenario, scenarios, service
from engine.test_agreement import assert_agreement, engine_run
from engine.test_queues import queued_scenarios
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from simnet.engine import changing, queued_traffic
from simnet.engine.network import compile_cluster
from simnet.engine.simulate import prepare, simulate
from simnet.errors import InputError
from simnet.model.fabric import DeviceKind
from simnet.model.fib import Fib, RouteKind
from simnet.model.history import DeviceChange, FibChange, LinkChange, PodChange, RulesChange, TableHistory
from simnet.model.recording import VERDICTS
from simnet.model.scenario import Entry
from simnet.model.workload import TCP, UDP, Constant, Deterministic, FlowShape


@st.composite
def histories(draw, cluster, duration_ps):
    """FIBs that lose and regain routes and next hops, endpoints that come and go, links and devices that fail."""
    # in flight at a change: arrivals are multiples of a known gap in half the scenarios
    times = st.one_of(
        st.integers(0, duration_ps),
        st.integers(0, 40).map(lambda k: k * S * 10 // 373 + 1000 * k),
        st.tuples(st.integers(0, 20), st.integers(0, 9 * MS)).map(lambda pair: pair[0] * 50 * MS + pair[1]),
    )
    fibs, rules, links, devices = [], [], [], []
    names = list(cluster.fibs)
    now = dict(cluster.fibs)
    for time_ps in sorted(draw(st.lists(times, max_size=6, unique=True))):
        device = draw(st.sampled_from(names))
        kind = draw(st.sampled_from(["loses", "fewer", "back", "other"]))
        routes = list(now[device].routes)
        if kind == "loses" and routes:
            routes.pop(draw(st.integers(0, len(routes) - 1)))
        elif kind == "fewer":
            routes = [
                replace(route, next_hops=route.next_hops[:-1]) if len(route.next_hops) > 1 else route
                for route in routes
            ]
        elif kind == "other":
            routes = [
                replace(route, kind=RouteKind.BLACKHOLE, next_hops=())
                if route.kind is RouteKind.VIA and draw(st.booleans())
                else route
                for route in routes
            ]
        now[device] = cluster.fibs[device] if kind == "back" else Fib(device, tuple(routes))
        fibs.append(FibChange(time_ps, device, now[device]))
    node_names = [device.name for device in cluster.fabric.devices if device.kind is DeviceKind.NODE]
    for time_ps in sorted(draw(st.lists(times, max_size=3, unique=True))):
        node = draw(st.sampled_from(node_names))
        kept = frozenset((pod.addresses[0], 8080) for pod in cluster.pods if draw(st.integers(0, 3)) == 0)
        rules.append(RulesChange(time_ps, node, draw(st.sampled_from(list(cluster.rulesets.values()))), kept=kept))
    for time_ps in sorted(draw(st.lists(times, max_size=4, unique=True))):
        link = draw(st.integers(0, len(cluster.fabric.links) - 1))
        links.append(LinkChange(time_ps, link, draw(st.booleans())))
    for time_ps in sorted(draw(st.lists(times, max_size=4, unique=True))):
        device = draw(st.sampled_from([device.name for device in cluster.fabric.devices]))
        devices.append(DeviceChange(time_ps, device, draw(st.booleans())))
    keys = [pod.key for pod in cluster.pods]
    times_of_pods = sorted(draw(st.lists(times, max_size=3 if keys else 0, unique=True)))
    pods = [PodChange(time_ps, draw(st.sampled_from(keys)), draw(st.booleans())) for time_ps in times_of_pods]
    return TableHistory(dict(cluster.fibs), tuple(fibs), tuple(rules), tuple(links), tuple(devices), tuple(pods))


def with_pauses(scenario):
    """A scenario that may go with changing tables; packets of a flow that would overtake each other keep a distance."""
    assume(scenario.run.statistic_mode == "random")
    assume(all(each.session_affinity == "None" for each in scenario.cluster.objects.services))
    assume(scenario.cluster.fabric.ecmp_choice != "resilient")
    if scenario.has_queues:  # a packet is to be there before the next is sent: at most 2 ms a wire
        fabric = scenario.cluster.fabric
        rates = {name: max(getattr(fabric, name), 7_777_777) for name in ("link_rate_bps", "client_link_rate_bps")}
        scenario = replace(scenario, cluster=replace(scenario.cluster, fabric=replace(fabric, **rates)))
    if scenario.has_queues or scenario.workload.shape.gap_ps == Constant(0):
        # Packets would overtake each other where a way changes.
        shape = replace(scenario.workload.shape, gap_ps=Constant(60 * MS))
        scenario = replace(scenario, workload=replace(scenario.workload, shape=shape))
    return scenario


def agree(data, scenario):
    scenario = with_pauses(scenario)
    until_ps = scenario.run.duration_ps + S // 2
    assert_agreement(scenario, make_history=lambda cluster: data.draw(histories(cluster, until_ps)))


@given(st.data(), scenarios())
@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
def test_both_simulations_agree_on_every_packet_while_tables_change(data, scenario):
    agree(data, scenario)


@given(st.data(), queued_scenarios())
@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_both_simulations_agree_on_every_packet_in_queues_while_tables_change(data, scenario):
    agree(data, scenario)


@given(st.data(), queued_scenarios(), st.sampled_from([1, 3]))
@settings(max_examples=10, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_where_windows_are_cut_makes_no_difference_in_queues_while_tables_change(data, scenario, window_flows):
    scenario = with_pauses(scenario)
    try:
        made = prepare(scenario, seed=3).cluster
        history = data.draw(histories(made, scenario.run.duration_ps))
        compiled = compile_cluster(made, scenario.cluster, seed=3, history=history)
        found = []
        for flows, some in ((window_flows, 5), (65536, 1 << 16)):
            cut = replace(scenario, run=replace(scenario.run, window_flows=flows))
            with patch.object(queued_traffic, "_SLICE", some), patch.object(changing, "PACKETS_TO_WAIT", some):
                recording, packets = engine_run(cut, compiled, 3)
            tables = {t: {name: plain(column) for name, column in c.items()} for t, c in recording.tables.items()}
            found.append((repr(tables), sorted(packets), recording.totals))
    except InputError:
        return
    assert found[0] == found[1]


@pytest.mark.slow
@given(st.data(), scenarios() | queued_scenarios())
@settings(max_examples=1500, suppress_health_check=list(HealthCheck), deadline=None)
def test_both_simulations_agree_on_every_packet_of_many_scenarios_that_change(data, scenario):
    agree(data, scenario)


def steady(protocol):
    """An outside client calls a VIP that two nodes announce; packets every 50 ms for a second."""
    web = service(external_ips=("203.0.113.80",))
    spec = cluster(
        nodes(2), [pod("p1", "n1"), pod("p2", "n2")], [web],
        calico={"service_external_ips": ("203.0.113.0/24",)},
    )  # fmt: skip
    shape = FlowShape(Constant(20), Constant(200), Constant(50 * MS), Constant(200))
    return scenario(spec, Entry.EXTERNAL_IP, protocol=protocol, shape=shape, arrivals=Deterministic(50), duration_ps=S)


def run_with(protocol, make_history):
    chosen = steady(protocol)
    made = prepare(chosen, seed=1).cluster
    compiled = compile_cluster(made, chosen.cluster, seed=1, history=make_history(made))
    recording = simulate(chosen, seed=1, compiled=compiled)
    assert recording.totals["sent"] == sum(recording.totals[verdict] for verdict in VERDICTS)
    return recording


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_history_without_changes_changes_nothing(protocol):
    made = run_with(protocol, lambda cluster: TableHistory(dict(cluster.fibs)))
    assert same_bytes(made, simulate(steady(protocol), seed=1))


def test_a_node_without_power_for_a_while_loses_what_comes_and_resets_what_was_connected():
    def history(cluster):
        return TableHistory(
            dict(cluster.fibs), devices=(DeviceChange(S // 2, "n1", False), DeviceChange(S * 7 // 10, "n1", True))
        )

    tcp, udp = run_with(TCP, history).totals, run_with(UDP, history).totals
    assert tcp["lost: device down"] > 0
    assert tcp["rejected: connection reset"] > 0
    assert udp["lost: device down"] > 0
    assert "rejected: connection reset" not in udp
