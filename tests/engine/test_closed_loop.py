"""Clients that wait for answers, in whole runs: against the event-by-event simulation, laws, and a closed form."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from engine.scenarios import MS, NS, US, cluster, fingerprint, nodes, plain, pod, scenario, service
from engine.test_agreement import assert_agreement, engine_run
from engine.test_queues import queued_scenarios
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simnet.engine import closed_loop, closed_recorder
from simnet.engine.simulate import prepare, simulate
from simnet.errors import InputError
from simnet.model.calico import FabricSettings
from simnet.model.queues import LinkQueue
from simnet.model.recording import PACKETS
from simnet.model.scenario import Entry
from simnet.model.workload import (
    TCP,
    ClientOrigin,
    ClientPopulation,
    ClosedLoop,
    Constant,
    Exponential,
    FlowShape,
    PodService,
    Uniform,
)

THINK = (Constant(3 * MS), Exponential(2e9), Uniform(1, 4 * MS))


@st.composite
def closed_scenarios(draw):
    """Any small scenario of clients that wait: slow links and pods, small buffers, short time-outs, little patience."""
    made = draw(queued_scenarios())
    think = draw(st.sampled_from(THINK))
    duration_ps = draw(st.sampled_from([10 * MS, 40 * MS]))
    loop = ClosedLoop(
        connections_per_client=draw(st.integers(1, 3)),
        until_ps=duration_ps,
        requests_per_connection=draw(st.sampled_from([1, 2, 5, 10**6])),
        max_age_ps=draw(st.sampled_from([None, None, 1, 2 * MS, 9 * MS])),
        timeout_ps=draw(st.sampled_from([None, 300 * US, 3 * MS, 20 * MS])),
        retries=draw(st.integers(0, 3)),
        backoff_ps=draw(st.sampled_from([Constant(0), Constant(MS), Exponential(1e9)])),
    )
    shape = made.workload.shape
    sizes = draw(st.booleans()) and made.cluster.fabric.mtu == 65535
    shape = FlowShape(
        Constant(1),
        Uniform(60, 1500) if sizes else Constant(777),
        think,
        Uniform(60, 1500) if sizes else Constant(1500),
    )
    if draw(st.booleans()):  # one of the links that are so slow that nothing else is seen
        fabric = replace(made.cluster.fabric, link_rate_bps=10**9, client_link_rate_bps=10**9)
        made = replace(made, cluster=replace(made.cluster, fabric=fabric))
    workload = replace(made.workload, arrivals=loop, shape=shape, protocol=TCP)
    run = replace(made.run, duration_ps=duration_ps, warmup_ps=draw(st.sampled_from([0, 4 * MS])))
    return replace(made, workload=workload, run=run)


@given(closed_scenarios())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_engine_and_event_by_event_simulation_agree_on_every_call(scenario):
    assert_agreement(scenario)


@pytest.mark.slow
@given(closed_scenarios())
@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow])
def test_engine_and_event_by_event_simulation_agree_on_every_call_of_many_scenarios(scenario):
    assert_agreement(scenario)


@given(closed_scenarios(), st.sampled_from([1, 30, 3000]))
@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
def test_how_long_rounds_and_batches_are_makes_no_difference(scenario, worth):
    found = []
    for of_rounds, batch in ((10_000, 1 << 16), (worth, 20)):
        with patch.object(closed_loop, "_WORTH", of_rounds), patch.object(closed_recorder, "BATCH", batch):
            try:
                recording, packets = engine_run(scenario, prepare(scenario, seed=3), 3)
            except InputError:
                return
        tables = {t: {name: plain(column) for name, column in c.items()} for t, c in recording.tables.items()}
        found.append((repr(tables), sorted(packets), recording.totals))
    assert found[0] == found[1]


def busy_scenario(loop, *, service_time=Exponential(1.5e8), queue_limit=None, clients=20, **fields):
    """Two pods on two nodes called at a cluster address by clients in pods."""
    spec = cluster(nodes(2), [pod("p1", "n1"), pod("p2", "n2")], [service()], fabric=FabricSettings(), **fields)
    shape = FlowShape(Constant(1), Constant(300), Exponential(1e9), Constant(1500))
    made = scenario(
        spec, Entry.CLUSTER_IP, shape=shape, arrivals=loop, duration_ps=loop.until_ps,
        clients=ClientPopulation(clients, ClientOrigin.PODS),
    )  # fmt: skip
    return replace(made, workload=replace(made.workload, service=PodService(service_time, queue_limit=queue_limit)))


def test_calls_are_answered_given_up_refused_or_unfinished_and_nothing_is_lost():
    loop = ClosedLoop(2, 30 * MS, 7, None, MS, 2, Exponential(5e8))
    made = busy_scenario(loop, queue_limit=10)
    recording, rows = engine_run(made, prepare(made, seed=2), 2)
    totals = recording.totals
    ends = [totals[f"calls {name}"] for name in ("answered", "timed out", "refused", "unfinished")]
    assert all(n > 0 for n in (ends[0], ends[1], ends[3], totals["dropped: queue full"], totals["answered late"]))
    assert sum(ends) == totals["calls"] == len(recording.tables["calls"]["call"])
    assert totals["sent"] == totals["calls"] + totals["retries"] == len(rows)
    assert totals["sent"] == totals["delivered"] + totals["dropped"]
    assert sum(plain(recording.tables["flows"]["packets_sent"])) == len(rows)
    assert sum(plain(recording.tables["calls"]["tries"])) == len(rows)


def test_a_slot_has_one_call_under_way_at_a_time_and_thinks_in_between():
    made = busy_scenario(ClosedLoop(2, 20 * MS, 5, 4 * MS))
    calls = {name: plain(column) for name, column in simulate(made, seed=1).tables["calls"].items()}
    ends: dict[tuple[str, int], int] = {}
    for client, connection, start, end in zip(
        calls["client"], calls["connection"], calls["start_ps"], calls["end_ps"], strict=True
    ):
        assert start > ends.get((client, connection), -1)
        ends[client, connection] = end
    assert len(ends) == 40


def test_connections_carry_no_more_than_they_may_and_are_not_older():
    made = busy_scenario(ClosedLoop(1, 40 * MS, 6, 5 * MS))
    _, rows = engine_run(made, prepare(made, seed=1), 1)
    names = [column.name for column in PACKETS]
    packets = [dict(zip(names, row, strict=True)) for row in rows]
    opened = {p["flow_id"]: p["sent_ps"] for p in packets if p["packet"] == 0}
    assert max(p["packet"] for p in packets) == 5
    assert all(p["sent_ps"] - opened[p["flow_id"]] < 5 * MS for p in packets)


def test_the_same_scenario_and_seed_give_the_same_recording_twice():
    made = busy_scenario(ClosedLoop(1, 20 * MS, 5, None, 2 * MS, 1))
    assert fingerprint(simulate(made, seed=4)) == fingerprint(simulate(made, seed=4))


def test_rules_that_remember_callers_are_refused():
    made = busy_scenario(ClosedLoop(1, 10 * MS))
    made = replace(made, run=replace(made.run, statistic_mode="nth"))
    with pytest.raises(InputError) as refused:
        simulate(made, seed=1)
    (problem,) = refused.value.problems
    assert problem.field == "workload.requests.closedLoop"


def test_nobody_listens_so_every_call_is_refused_or_never_answered():
    """Clients at nodes without endpoints: rejected by the first node's rules, before any wire."""
    loop = ClosedLoop(1, 10 * MS, timeout_ps=2 * MS, retries=1, backoff_ps=Constant(MS))
    made = busy_scenario(loop)
    spec = replace(made.cluster, objects=replace(made.cluster.objects, pods=()))
    for origin in (ClientOrigin.NODES, ClientOrigin.OUTSIDE):
        clients = ClientPopulation(3, origin, () if origin is ClientOrigin.NODES else ("198.51.100.0/24",))
        assert_agreement(replace(made, cluster=spec, workload=replace(made.workload, clients=clients)))
    refused = replace(
        made, cluster=spec, workload=replace(made.workload, clients=ClientPopulation(3, ClientOrigin.NODES))
    )
    totals = simulate(refused, seed=1).totals
    assert totals["rejected"] == totals["sent"] > 3
    assert totals["calls refused"] > 0


REPEATS = 16


def machine_repairman(clients: int, think: float, service_time: float) -> tuple[float, float]:
    """Throughput and mean response of M/M/1//N: a server, N clients that think exponentially in between.

    Source: the finite-source queue, P(n) proportional to N! / (N - n)! (service / think)^n (Kleinrock 1975, 3.8).
    """
    weight, weights = 1.0, [1.0]
    for n in range(clients):
        weight *= (clients - n) * service_time / think
        weights.append(weight)
    throughput = (1 - weights[0] / sum(weights)) / service_time
    return throughput, clients / throughput - think  # the interactive response time law


@pytest.mark.parametrize("clients", [3, 12])
def test_throughput_and_response_are_those_of_the_machine_repairman(clients):
    """One pod, everything else a thousand times faster: throughput and response against the closed form, 4 sigma."""
    spec = cluster(
        nodes(1), [pod("p1", "n1")], [service()],
        fabric=FabricSettings(link_rate_bps=10**12, client_link_rate_bps=10**12, link_delay_ps=NS,
                              client_link_delay_ps=NS, veth_queue=LinkQueue()),
    )  # fmt: skip
    duration_ps = 1500 * MS
    shape = FlowShape(Constant(1), Constant(100), Exponential(4e9), Constant(100))
    made = scenario(
        spec, Entry.POD, shape=shape, arrivals=ClosedLoop(1, duration_ps), duration_ps=duration_ps,
        warmup_ps=100 * MS, clients=ClientPopulation(clients, addresses=("198.51.100.0/24",)),
    )  # fmt: skip
    made = replace(made, workload=replace(made.workload, service=PodService(Exponential(5e8))))
    compiled = prepare(made, seed=1)
    throughputs, responses = [], []
    for seed in range(REPEATS):
        calls = simulate(made, seed=seed, compiled=compiled).tables["calls"]
        measured = ~calls["warmup"] & (calls["latency_ps"] >= 0)
        throughputs.append(np.count_nonzero(~calls["warmup"]) / (1400e9))
        responses.append(float(calls["latency_ps"][measured].mean()))
    wires_ps = 100_000  # there and back, at most: 1e-4 of what is measured
    throughput, response = machine_repairman(clients, 4e9, 5e8)
    for found, expected in ((throughputs, throughput), (responses, response)):
        error = np.std(found, ddof=1) / np.sqrt(REPEATS)
        slack = wires_ps / response * expected
        assert abs(np.mean(found) - expected) < 4 * error + slack
        assert error < 0.03 * expected
