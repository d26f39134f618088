"""Tables that change while packets are under way: the engine against the event-by-event simulation, exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine.scenarios import MS, S, scenarios
from engine.test_agreement import assert_agreement
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from simnet.model.fabric import DeviceKind
from simnet.model.fib import Fib, RouteKind
from simnet.model.history import DeviceChange, FibChange, LinkChange, RulesChange, TableHistory
from simnet.model.workload import Constant


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
        rules.append(RulesChange(time_ps, node, draw(st.sampled_from(list(cluster.rulesets.values())))))
    for time_ps in sorted(draw(st.lists(times, max_size=4, unique=True))):
        link = draw(st.integers(0, len(cluster.fabric.links) - 1))
        links.append(LinkChange(time_ps, link, draw(st.booleans())))
    for time_ps in sorted(draw(st.lists(times, max_size=4, unique=True))):
        device = draw(st.sampled_from([device.name for device in cluster.fabric.devices]))
        devices.append(DeviceChange(time_ps, device, draw(st.booleans())))
    return TableHistory(dict(cluster.fibs), tuple(fibs), tuple(rules), tuple(links), tuple(devices))


def agree(data, scenario):
    run = scenario.run
    assume(run.statistic_mode == "random")
    assume(all(each.session_affinity == "None" for each in scenario.cluster.objects.services))
    assume(scenario.cluster.fabric.ecmp_choice != "resilient")
    assume(not scenario.has_queues)
    if scenario.workload.shape.gap_ps == Constant(0):  # packets would overtake each other where a way changes
        scenario = replace(
            scenario,
            workload=replace(scenario.workload, shape=replace(scenario.workload.shape, gap_ps=Constant(60 * MS))),
        )
    assert_agreement(scenario, make_history=lambda cluster: data.draw(histories(cluster, run.duration_ps + S // 2)))


@given(st.data(), scenarios())
@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
def test_both_simulations_agree_on_every_packet_while_tables_change(data, scenario):
    agree(data, scenario)


@pytest.mark.slow
@given(st.data(), scenarios())
@settings(max_examples=1500, suppress_health_check=list(HealthCheck), deadline=None)
def test_both_simulations_agree_on_every_packet_of_many_scenarios_that_change(data, scenario):
    agree(data, scenario)
