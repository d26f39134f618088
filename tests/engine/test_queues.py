"""Queues in whole runs: the engine against the event-by-event simulation, and laws that hold without one."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from engine.scenarios import MS, NS, US, cluster, nodes, plain, pod, scenario, scenarios, service
from engine.test_agreement import assert_agreement, engine_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.queues import Station

from simnet.dataplane.queueing.stations import Stations, Visits
from simnet.engine import queued_traffic
from simnet.engine.queue_recorder import bucket_of, top_of
from simnet.engine.simulate import prepare, simulate
from simnet.engine.station_recorder import StationRecorder
from simnet.errors import InputError
from simnet.model.calico import FabricSettings
from simnet.model.queues import CpuCosts, LinkQueue, RuleBackend
from simnet.model.recording import PACKETS, PARTS
from simnet.model.scenario import Entry
from simnet.model.workload import (
    ClientPopulation,
    Constant,
    Deterministic,
    Exponential,
    FlowShape,
    Lognormal,
    OnOff,
    Pareto,
    PeriodKind,
    PodService,
    Poisson,
    Uniform,
)

BURST = OnOff(40_000.0, 10 * MS, 10**15, PeriodKind.CONSTANT)
SERVICE_TIMES = (Constant(0), Constant(20 * MS), Exponential(5e9), Lognormal(8e9, 1.0), Pareto(6e9, 1.5))


@st.composite
def queued_scenarios(draw):
    """Any small scenario with queues: slow links, slow cores, slow pods, small buffers.

    No rules that remember: the engine asks those in the order in which connections begin (docs/models/latency.md).
    """
    made = draw(scenarios())
    objects = made.cluster.objects
    forgetful = tuple(replace(each, session_affinity="None") for each in objects.services)
    made = replace(
        made,
        cluster=replace(made.cluster, objects=replace(objects, services=forgetful)),
        run=replace(made.run, statistic_mode="random"),
    )
    queues = st.none() | st.builds(
        LinkQueue,
        st.none() | st.integers(0, 4),
        st.none() | st.sampled_from([1000, 5000, 100_000]),
        st.sampled_from([0, 18, 38]),
    )
    fabric = replace(
        made.cluster.fabric,
        link_queue=draw(queues),
        client_link_queue=draw(queues),
        veth_queue=draw(queues),
        link_rate_bps=draw(st.sampled_from([10**9, 7_777_777, 400_000])),
        client_link_rate_bps=draw(st.sampled_from([10**9, 600_000])),
        link_delay_ps=draw(st.integers(1, 9 * US)),
        client_link_delay_ps=draw(st.integers(1, 9 * US)),
    )
    cpu = draw(
        st.none()
        | st.builds(
            CpuCosts,
            established_ps=st.sampled_from([2_900 * NS, 3 * MS]),
            new_ps=st.sampled_from([3_500 * NS, 4 * MS]),
            per_rule_ps=st.sampled_from([18_300, MS]),
            cores=st.none() | st.integers(1, 3),
        )
    )
    service = draw(
        st.none()
        | st.builds(PodService, st.sampled_from(SERVICE_TIMES), st.integers(1, 3), st.none() | st.integers(0, 3))
    )
    shape = made.workload.shape
    if draw(st.booleans()):  # close together, so that they meet in queues
        shape = replace(
            shape, packet_count=Uniform(1, 8), gap_ps=draw(st.sampled_from([Constant(0), Exponential(1e9)]))
        )
    spec = replace(made.cluster, fabric=fabric, cpu=cpu, queues=True)
    return replace(made, cluster=spec, workload=replace(made.workload, service=service, shape=shape))


@given(queued_scenarios())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_engine_and_event_by_event_simulation_agree_on_every_packet_in_queues(scenario):
    assert_agreement(scenario)


@pytest.mark.slow
@given(queued_scenarios())
@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow])
def test_engine_and_event_by_event_simulation_agree_on_every_packet_in_queues_of_many_scenarios(scenario):
    assert_agreement(scenario)


@given(queued_scenarios(), st.sampled_from([1, 3, 50]))
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_where_windows_are_cut_makes_no_difference_to_any_packet_or_table(scenario, window_flows):
    found = []
    for flows, some in ((window_flows, 5), (65536, 1 << 16)):
        cut = replace(scenario, run=replace(scenario.run, window_flows=flows))
        try:
            compiled = prepare(cut, seed=3)
            with patch.object(queued_traffic, "_SLICE", some), patch.object(queued_traffic, "_FEW", some):
                recording, packets = engine_run(cut, compiled, 3)
        except InputError:
            return
        tables = {t: {name: plain(column) for name, column in c.items()} for t, c in recording.tables.items()}
        found.append((repr(tables), sorted(packets), recording.totals))
    assert found[0] == found[1]


@given(queued_scenarios())
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
def test_which_solver_runs_makes_no_difference_to_any_packet_or_table(scenario):
    found = []
    for solver in ("windows", "events"):
        try:
            with patch.dict("os.environ", {"SIMNET_QUEUES": solver}):
                recording, packets = engine_run(scenario, prepare(scenario, seed=3), 3)
        except InputError:
            return
        tables = {t: {name: plain(column) for name, column in c.items()} for t, c in recording.tables.items()}
        found.append((repr(tables), packets, recording.totals))
    assert found[0] == found[1]


def busy_scenario(**fields):
    """Two pods on two nodes called through one node's external address."""
    web = service(external_ips=("203.0.113.80",))
    fabric = fields.pop("fabric", FabricSettings(link_rate_bps=10**9))
    spec = cluster(nodes(2), [pod("p1", "n1"), pod("p2", "n2")], [web], fabric=fabric, **fields)
    spec = replace(spec, calico=replace(spec.calico, service_external_ips=("203.0.113.0/24",)))
    shape = FlowShape(Constant(4), Constant(1000), Exponential(2e8), Constant(1500))
    made = scenario(
        spec, Entry.EXTERNAL_IP, flows=300, shape=shape, arrivals=Poisson(4000.0), duration_ps=50 * MS,
        clients=ClientPopulation(20, addresses=("198.51.100.0/24",)),
    )  # fmt: skip
    return replace(made, workload=replace(made.workload, service=PodService(Exponential(1.5e8))))


def test_the_parts_of_every_packet_sum_to_its_round_trip():
    made = replace(busy_scenario(cpu=CpuCosts.of(RuleBackend.LEGACY)), record="packets")
    _, rows = engine_run(made, prepare(made, seed=1), 1)
    names = [column.name for column in PACKETS]
    packets = [dict(zip(names, row, strict=True)) for row in rows]
    assert len(packets) > 500
    assert all(sum(p[part] for part in PARTS) == p["round_trip_ps"] for p in packets)
    assert sum(p["rule_scan_ps"] > 0 for p in packets) == len({p["flow_id"] for p in packets})
    assert any(p["pod_queue_ps"] for p in packets)


def test_without_waiting_a_run_with_queues_has_the_times_of_one_without():
    shape = FlowShape(Constant(3), Constant(1000), Constant(7 * MS), Constant(500))
    spec = cluster(nodes(2), [pod("p1", "n1"), pod("p2", "n2")], [service(type="NodePort")])
    made = scenario(spec, Entry.NODE_PORT, shape=shape, arrivals=Deterministic(40.0), duration_ps=1000 * MS)
    plain_run = simulate(made, seed=1)
    queued = simulate(replace(made, cluster=replace(spec, queues=True)), seed=1)
    for table in plain_run.tables:
        for name, column in plain_run.tables[table].items():
            assert plain(column) == pytest.approx(plain(queued.tables[table][name]), nan_ok=True), (table, name)


def test_stations_say_the_same_of_their_time_as_the_packets_do():
    made = replace(busy_scenario(cpu=CpuCosts()), record="packets")
    made = replace(made, run=replace(made.run, duration_ps=1000 * MS), workload=replace(made.workload, arrivals=BURST))
    recording, rows = engine_run(made, prepare(made, seed=1), 1)
    names = [column.name for column in PACKETS]
    packets = [dict(zip(names, row, strict=True)) for row in rows]
    assert all(p["sent_ps"] + p["round_trip_ps"] < 1000 * MS for p in packets)
    stations = {name: plain(column) for name, column in recording.tables["stations"].items()}
    width = 1000 * MS // 100
    spent = {
        "link": ("link_queue_ps", ("transmission_ps",)), "cpu": ("cpu_queue_ps", ("cpu_ps", "rule_scan_ps")),
        "pod": ("pod_queue_ps", ("service_ps",)),
    }  # fmt: skip
    for kind, (queue, busy) in spent.items():
        rows = [i for i, each in enumerate(stations["kind"]) if each == kind]
        waited = sum(stations["queue_mean"][i] for i in rows) * width
        served = sum(stations["utilisation"][i] for i in rows) * width
        assert waited == pytest.approx(sum(p[queue] for p in packets), rel=1e-9)  # Little's law, over a whole run
        assert served == pytest.approx(sum(p[part] for p in packets for part in busy), rel=1e-9)
    arrivals = [n for n, kind in zip(stations["arrivals"], stations["kind"], strict=True) if kind == "pod"]
    assert sum(arrivals) == len(packets)


@given(st.data(), st.integers(1, 3), st.integers(0, 3))
def test_stations_over_time_agree_with_counting_visit_by_visit(data, servers, cuts):
    """A queue, an arrival after the other, told in several parts; the bins are counted instant by instant."""
    duration = 200
    arrivals = sorted(data.draw(st.lists(st.integers(0, 260), min_size=1, max_size=30)))
    station = Station(servers, limit_packets=data.draw(st.sampled_from([None, 0, 2])))
    visits = []
    for now in arrivals:
        service_ps = data.draw(st.integers(1, 40))
        start = station.arrive(now, service_ps, 0)
        visits.append((now, -1, -1) if start is None else (now, start, start + service_ps))
    one = np.array([1], np.int64)
    network = Stations(one.astype(np.uint8), np.array([servers], np.int32), one, one, one, one)
    recorder = StationRecorder(network, ("it",), duration_ps=duration)
    edges = sorted(data.draw(st.integers(0, len(visits))) for _ in range(cuts))
    for begin, end in zip([0, *edges], [*edges, len(visits)], strict=True):
        column = np.array(visits[begin:end], np.int64).reshape(-1, 3).T
        zeros = np.zeros(end - begin, np.int32)
        recorder.observe(Visits(zeros, column[0], column[1], column[2], zeros.astype(np.int64)))
    table = recorder.table()
    if not any(now < duration for now, _, _ in visits):
        return
    for number, begin in enumerate(plain(table["start_ps"])):
        instants = range(begin, begin + 2)  # a bin is 2 ps wide
        busy = sum(start <= t < end for t in instants for _, start, end in visits if start >= 0)
        waiting = sum(now <= t < start for t in instants for now, start, _ in visits)
        longest = [
            sum(a <= now < s for a, s, _ in visits[: k + 1])
            for k, (now, start, _) in enumerate(visits) if now in instants and start > now
        ]  # fmt: skip
        assert plain(table["utilisation"])[number] == pytest.approx(busy / 2 / servers)
        assert plain(table["queue_mean"])[number] == pytest.approx(waiting / 2)
        assert plain(table["queue_max"])[number] == max(longest, default=0)
        assert plain(table["arrivals"])[number] == sum(now in instants for now, _, _ in visits)
        assert plain(table["drops"])[number] == sum(now in instants for now, start, _ in visits if start < 0)


@given(st.lists(st.integers(0, 2**52), min_size=1))
def test_steps_of_the_distribution_hold_their_times_within_a_thousandth(values):
    times = np.array(values, np.int64)
    buckets = bucket_of(times)
    tops = top_of(buckets)
    assert (bucket_of(tops) == buckets).all()
    assert (bucket_of(tops + 1) > buckets).all()
    assert (times <= tops).all()
    assert (tops - times <= times / 1000 + 1).all()


def test_a_full_queue_drops_and_nothing_is_lost_from_the_books():
    fabric = FabricSettings(link_rate_bps=20_000_000, link_queue=LinkQueue(limit_packets=3))
    made = replace(busy_scenario(fabric=fabric), record="packets")
    made = replace(made, run=replace(made.run, duration_ps=1000 * MS), workload=replace(made.workload, arrivals=BURST))
    recording, rows = engine_run(made, prepare(made, seed=1), 1)
    names = [column.name for column in PACKETS]
    packets = [dict(zip(names, row, strict=True)) for row in rows]
    totals = recording.totals
    assert totals["dropped: queue full"] > 0
    assert totals["sent"] == totals["delivered"] + totals["dropped"] == len(packets)
    dropped = [p for p in packets if p["dropped_at"]]
    stations = recording.tables["stations"]
    assert sum(plain(stations["drops"])) == len(dropped)
    assert max(plain(stations["queue_max"])) == 3
