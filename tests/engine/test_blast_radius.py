"""What events broke, moved and lost: the engine against a plain count of the event-by-event simulation, and laws."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from engine.scenarios import S, plain, scenarios
from engine.test_agreement import SEED, reference_run
from engine.test_changes import histories, run_with, with_pauses
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from reference.blast_radius import BlastRadius

from simnet.engine.event_recorder import BINS
from simnet.engine.network import compile_cluster
from simnet.engine.simulate import prepare, simulate
from simnet.engine.table_changes import Windows
from simnet.errors import InputError
from simnet.model.events import Event, EventKind
from simnet.model.history import NO_EVENT, DeviceChange, FibChange, TableHistory
from simnet.model.recording import EVENT_TABLES, EVENTS
from simnet.model.workload import TCP, UDP


@st.composite
def histories_with_events(draw, cluster, duration_ps):
    """Changes of tables, each with one of the events that have begun by then as its cause, or none."""
    history = draw(histories(cluster, duration_ps + S // 2))
    changes = [*history.fibs, *history.rules, *history.links, *history.devices, *history.pods]
    instants = st.sampled_from([change.time_ps for change in changes]) if changes else st.integers(0, duration_ps)
    times = st.one_of(st.integers(0, duration_ps), instants)  # also at the very instant of a change
    events = []
    for at_ps in sorted(draw(st.lists(times, min_size=1, max_size=4))):
        until_ps = draw(st.none() | times.map(lambda time_ps, at_ps=at_ps: max(time_ps, at_ps + 1)))
        kind = draw(st.sampled_from([EventKind.LINK_DOWN, EventKind.NODE_DIES, EventKind.BGP_RESTARTS]))
        name = draw(st.sampled_from(["", "broken"]))
        events.append(Event(at_ps, kind, ("n1",), until_ps, name, at_random=draw(st.booleans())))

    def with_causes(changes):
        for change in changes:
            begun = sum(event.at_ps <= change.time_ps for event in events)
            cause = draw(st.integers(NO_EVENT, begun - 1))
            yield change._replace(event=cause) if isinstance(change, FibChange) else replace(change, event=cause)

    lists = {name: tuple(with_causes(getattr(history, name))) for name in ("fibs", "rules", "links", "devices", "pods")}
    return replace(history, events=tuple(events), **lists)


def rows_of(table):
    return [dict(zip(table, row, strict=True)) for row in zip(*map(plain, table.values()), strict=True)]


def agree(data, scenario):
    scenario = with_pauses(scenario)
    try:
        cluster = prepare(scenario, seed=SEED).cluster
        history = data.draw(histories_with_events(cluster, scenario.run.duration_ps))
        mode = scenario.run.statistic_mode
        compiled = compile_cluster(cluster, scenario.cluster, seed=SEED, statistic_mode=mode, history=history)
        recording = simulate(scenario, seed=SEED, compiled=compiled)
    except InputError:  # nothing to call
        assume(False)
    has_replies = scenario.workload.shape.reply_size_bytes is not None
    plainly = BlastRadius(
        reference_run(scenario, compiled, SEED, history),
        history, cluster.rulesets, scenario.run.duration_ps, has_replies,
    )  # fmt: skip
    names = [column.name for column in EVENTS]
    for found, wanted in zip(rows_of(recording.tables["events"]), plainly.event_rows(), strict=True):
        differing = {name: (found[name], wanted[name]) for name in names if found[name] != wanted[name]}
        assert not differing, f"event {wanted['event']}, (engine, reference): {differing}"
    effects = rows_of(recording.tables["event_effects"])
    labels = ["", *(event.label for event in history.events)]
    assert {row["name"] for row in effects} <= set(labels)
    keys = ("event", "effect", "verdict", "reason")
    assert {tuple(row[key] for key in keys): row["count"] for row in effects} == dict(plainly.effects)
    bin_ps = -(-scenario.run.duration_ps // BINS)
    over_time = Counter()
    for (effect, reason, time_ps), count in plainly.all_losses.items():
        over_time[min(time_ps // bin_ps, BINS) * bin_ps, effect, reason] += count
    found = rows_of(recording.tables["losses_over_time"])
    last_ps = BINS * bin_ps
    assert all(row["end_ps"] == (row["start_ps"] + bin_ps if row["start_ps"] < last_ps else -1) for row in found)
    assert {(row["start_ps"], row["effect"], row["reason"]): row["count"] for row in found} == over_time
    assert_conserved(recording, has_replies)
    short = replace(scenario, run=replace(scenario.run, window_flows=40))
    again = simulate(short, seed=SEED, compiled=compiled)
    for name in EVENT_TABLES:
        assert rows_of(again.tables[name]) == rows_of(recording.tables[name])


def assert_conserved(recording, has_replies):
    """What events lost and what no event did is what the run lost, reason by reason; each flow has one end."""
    lost, flows = Counter(), Counter()
    for row in rows_of(recording.tables["event_effects"]):
        if row["effect"] == "packets":
            lost[f"{row['verdict']}: {row['reason']}"] += row["count"]
        flows[row["effect"]] += row["count"]
    assert lost == {name: count for name, count in recording.totals.items() if ": " in name}
    table = recording.tables["flows"]
    if has_replies:
        assert flows["answers"] == recording.totals["delivered"] - table["reply_packets"].sum()
        never = table["reply_packets"] == 0
    else:
        assert "answers" not in flows
        never = table["packets_delivered"] == 0
    assert flows["flows failed"] == never.sum()
    assert flows["flows broken"] <= (~never).sum()


@given(st.data(), scenarios())
@settings(max_examples=20, suppress_health_check=[HealthCheck.filter_too_much])
def test_every_event_has_the_blast_radius_that_a_plain_count_gives(data, scenario):
    agree(data, scenario)


@pytest.mark.slow
@given(st.data(), scenarios())
@settings(max_examples=1500, suppress_health_check=list(HealthCheck), deadline=None)
def test_every_event_has_the_blast_radius_that_a_plain_count_gives_in_many_scenarios(data, scenario):
    agree(data, scenario)


def without_power(until_ps, *, protocol):
    """n1 has no power from 0.5 s on: clients of a VIP send every 50 ms for a second each."""

    def history(cluster):
        devices = [DeviceChange(S // 2, "n1", False, 0)]
        if until_ps is not None:
            devices.append(DeviceChange(until_ps, "n1", True, 0))
        event = Event(S // 2, EventKind.NODE_DIES, ("n1",), until_ps, "no power")
        return TableHistory(dict(cluster.fibs), devices=tuple(devices), events=(event,))

    recording = run_with(protocol, history)
    (row,) = rows_of(recording.tables["events"])
    return row, recording


def test_a_reset_that_comes_to_light_after_the_window_is_the_events_and_so_is_all_that_follows():
    row, recording = without_power(S * 7 // 10, protocol=TCP)
    assert row["window_end_ps"] == S * 7 // 10
    assert row["packets_rejected"] == recording.totals["rejected: connection reset"] > 0
    assert row["packets_lost"] == recording.totals["lost: device down"] > 0
    assert row["flows_broken"] > 0
    assert row["last_loss_ps"] > row["window_end_ps"]


def test_a_udp_flow_is_interrupted_and_not_broken():
    row, recording = without_power(S * 7 // 10, protocol=UDP)
    assert row["flows_interrupted"] > 0
    assert row["packets_rejected"] == 0
    assert row["packets_lost"] == recording.totals["lost: device down"] > 0
    assert S // 2 <= row["first_loss_ps"] <= row["last_loss_ps"] < S * 7 // 10
    assert row["time_to_repair_ps"] == 0  # no table had to change
    assert (row["time_to_withdraw_ps"], row["routes_changed"]) == (-1, 0)


def test_an_event_without_an_end_has_a_window_without_one():
    row, recording = without_power(None, protocol=UDP)
    assert (row["end_ps"], row["window_end_ps"], row["time_to_repair_ps"]) == (-1, -1, -1)
    assert row["packets_lost"] == recording.totals["lost: device down"]
    assert row["flows_interrupted"] == 0
    assert row["flows_broken"] > 0


def test_without_events_there_are_no_such_tables():
    recording = run_with(UDP, lambda cluster: TableHistory(dict(cluster.fibs)))
    assert not set(EVENT_TABLES) & set(recording.tables)


spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=8)


@given(spans, st.lists(st.integers(-2, 50), min_size=1))
def test_an_instant_belongs_to_the_latest_begun_window_that_covers_it(spans, times):
    spans = sorted((begin, begin + length) for begin, length in spans)
    found = Windows(*zip(*spans, strict=True)).at(np.array(times))
    covering = [[n for n, (begin, end) in enumerate(spans) if begin <= time < end] for time in times]
    assert found.tolist() == [numbers[-1] if numbers else NO_EVENT for numbers in covering]
