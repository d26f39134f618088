"""Blast radii over repeats: means and intervals by hand, whole sentences."""

from __future__ import annotations

import numpy as np
import pytest
from results.synthetic import table

from simnet.analysis.intervals import t_interval
from simnet.analysis.result import Result
from simnet.model.recording import EVENT_EFFECTS, EVENTS, TABLE_CHANGES, Recording
from simnet.results.store import RunDescription

S, MS = 10**12, 10**9
QUIET = {
    "event": 0, "name": "cut", "kind": "link silent", "target": "tor n1", "at_random": False, "start_ps": 10 * S,
    "end_ps": 25 * S, "time_to_notice_ps": -1, "time_to_withdraw_ps": -1, "time_to_repair_ps": 0,
    "window_end_ps": 25 * S, "boxes_changed": 0, "routes_changed": 0, "rules_changed": 0, "not_restored": 0,
    "first_loss_ps": -1, "last_loss_ps": -1,
    **dict.fromkeys((
        "packets_dropped", "packets_rejected", "packets_lost", "answers_lost", "flows_failed", "flows_broken",
        "flows_interrupted", "flows_moved_pod", "flows_moved_way",
    ), 0),
}  # fmt: skip


def run(repeat, events, *, variant="vip", changes=(), sweep=None):
    """A run in which these events happened; what an event leaves out is as in QUIET."""
    rows = [QUIET | {"event": number} | event for number, event in enumerate(events)]
    happened = [{"at_ps": row["start_ps"], "until_ps": row["end_ps"], "name": row["name"]} for row in rows]
    tables = {
        "events": table(EVENTS, rows),
        "event_effects": table(EVENT_EFFECTS, []),
        "table_changes": table(TABLE_CHANGES, changes),
    }
    manifest = {"events": happened}
    return RunDescription(f"{variant}{repeat}{sweep}", variant, repeat, repeat, sweep or {}, manifest), Recording(
        tables
    )


def test_means_and_intervals_over_repeats_and_times_that_never_were_count_in_none():
    runs = [
        run(0, [{"packets_lost": 4, "packets_rejected": 1, "time_to_withdraw_ps": 6 * S}]),
        run(1, [{"packets_lost": 8, "time_to_withdraw_ps": 8 * S}]),
        run(2, [{"packets_lost": 9, "time_to_withdraw_ps": -1, "time_to_repair_ps": -1}]),
    ]
    (row,) = Result.from_recordings(runs).event_summary.to_dict("records")
    wanted = t_interval([5, 8, 9])
    found = row["packets"], row["packets_low"], row["packets_high"]
    assert found == pytest.approx((wanted.mean, max(0, wanted.low), wanted.high))
    assert (row["time_to_withdraw_s"], row["time_to_withdraw_events"]) == (7, 2)
    assert (row["time_to_repair_s"], row["time_to_repair_events"]) == (0, 2)
    assert (row["events"], row["start_s"], row["end_s"]) == (1, 10, 25)


def test_events_at_random_are_pooled_by_kind_and_quiet_runs_count_in_how_many_there_were():
    drawn = {"at_random": True, "name": "link silent: tor n1"}
    runs = [
        run(0, [drawn | {"packets_lost": 2}, drawn | {"packets_lost": 4, "start_ps": 12 * S, "target": "tor n2"}]),
        run(1, [drawn | {"packets_lost": 9, "start_ps": 7 * S, "end_ps": -1}]),
        run(2, []),
    ]
    result = Result.from_recordings(runs)
    (row,) = result.event_summary.to_dict("records")
    assert (row["name"], row["events"], row["packets"]) == ("link silent (at random)", 1, 6)
    assert np.isnan(row["start_s"])
    (sentence,) = result.event_sentences
    assert sentence.startswith("link silent (at random), 1 a run, each on average: no table changed before its end; ")


def test_a_sentence_says_when_tables_followed_and_what_was_lost_by_variant():
    def each(repeat, variant, lost, broken):
        times = {"time_to_withdraw_ps": (6 + repeat) * S, "time_to_repair_ps": 2 * MS + repeat * MS}
        return run(repeat, [times | {"packets_lost": lost, "flows_broken": broken}], variant=variant)

    runs = [each(0, "vip", 4, 0), each(1, "vip", 6, 0), each(0, "pod", 7, 2), each(1, "pod", 7, 4)]
    assert Result.from_recordings(runs).event_sentences == [
        "cut (link silent: tor n1, from 10 to 25 s): tables had followed after 6.5 s (95 % CI 0.147 to 12.9), and were "
        "as before 2.5 ms (95 % CI 0 to 8.85) after its end; request packets lost: vip 5 (95 % CI 0 to 17.7), pod 7; "
        "flows broken off: vip 0, pod 3 (95 % CI 0 to 15.7)."
    ]


def test_a_sentence_over_a_sweep_gives_ranges_and_one_without_losses_says_so():
    runs = [
        run(0, [{"time_to_withdraw_ps": seconds * S, "end_ps": -1, "time_to_repair_ps": -1}], sweep={"bfd": seconds})
        for seconds in (1, 7)
    ]
    assert Result.from_recordings(runs).event_sentences == [
        "cut (link silent: tor n1, at 10 s): tables had followed after 1 to 7 s; nothing was lost."
    ]


def test_without_events_there_is_nothing_to_say():
    result = Result.from_recordings([(RunDescription("a", "vip", 0, 0, {}, {}), Recording({}))])
    assert result.event_summary.empty
    assert result.event_sentences == []
