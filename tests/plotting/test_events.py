"""Figures of runs in which something happens: what is drawn is what the flows say, spans and names included."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from analysis.test_events import QUIET, S
from results.synthetic import flows_table, table

from simnet.analysis import over_time
from simnet.analysis.result import Result
from simnet.errors import ResultError
from simnet.model.recording import EVENTS, LOSSES_OVER_TIME, Recording
from simnet.plotting.events import has_events, load_over_time, losses_over_time, packets_lost_over_time
from simnet.results.store import RunDescription

SPAN = {"at_ps": 4 * 10**12, "until_ps": 6 * 10**12, "name": "broken"}
RATE = 10  # flows a second and run, for 10 s


def run(repeat: int, *, lost: int, event: dict[str, object] = SPAN):
    """Ten flows a second; from 4 to 6 s the first `lost` of each second are lost, and the others go to B."""
    rows = []
    for i in range(10 * RATE):
        broken = 4 <= i // RATE < 6
        rows.append(
            {
                "start_ps": i * 10**12 // RATE,
                "answered": not (broken and i % RATE < lost),
                "serving_node": "B" if broken or i % 2 else "A",
            }
        )
    manifest = {"events": [event]} if event else {}
    return RunDescription(str(repeat), "pod", repeat, repeat, {}, manifest), Recording({"flows": flows_table(rows)})


def drawn(ax):
    return [step.get_data() for step in ax.patches if hasattr(step, "get_data") and not step.get_fill()]


def test_the_share_lost_in_each_bin_is_the_mean_over_repeats_and_the_span_is_shaded():
    ax = losses_over_time(Result.from_recordings([run(0, lost=2), run(1, lost=4)]), bin_s=1)
    ((values, edges, _),) = drawn(ax)
    np.testing.assert_allclose(values, [0, 0, 0, 0, 30, 30, 0, 0, 0, 0], atol=1e-12)
    np.testing.assert_array_equal(edges, np.arange(11))
    assert [text.get_text() for text in ax.texts] == ["broken"]
    assert "%" in ax.get_ylabel()
    assert "(s)" in ax.get_xlabel()
    shaded = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches if hasattr(patch, "get_x")]
    assert shaded == [(4, 6)]


def test_load_moves_to_the_node_that_is_left():
    ax = load_over_time(Result.from_recordings([run(0, lost=0), run(1, lost=0)]), "pod", bin_s=1)
    (a, _, _), (b, _, _) = drawn(ax)
    np.testing.assert_allclose(a, [5, 5, 5, 5, 0, 0, 5, 5, 5, 5])
    np.testing.assert_allclose(a + b, RATE)


def test_one_bin_may_hold_all():
    result = Result.from_recordings([run(0, lost=5)])
    ((values, _, _),) = drawn(losses_over_time(result, bin_s=15))
    np.testing.assert_allclose(values, [10])
    assert len(drawn(load_over_time(result, "pod", bin_s=15))) == 2


def test_an_event_that_only_one_repeat_met_is_not_shaded():
    other = SPAN | {"at_ps": 10**12}
    ax = losses_over_time(Result.from_recordings([run(0, lost=1), run(1, lost=1, event=other)]), bin_s=1)
    assert not ax.texts


def test_without_events_or_flows_there_is_nothing_to_draw():
    assert not has_events(Result.from_recordings([run(0, lost=0, event={})]))
    nothing = SimpleNamespace(flows=pd.DataFrame({"start_ps": []}), sweep=[], manifests=[{"sweep": {}}])
    with pytest.raises(ResultError, match="record: flows"):
        losses_over_time(nothing)


@pytest.mark.parametrize(("end_s", "width_s"), [(10, 0.2), (60, 1.0), (99.9, 1.0), (250, 5.0), (0.3, 0.005)])
def test_bins_are_of_a_round_width_and_at_least_fifty(end_s, width_s):
    edges = over_time.bins_s(pd.DataFrame({"start_ps": [0, int(end_s * 10**12)]}))
    assert edges[1] == pytest.approx(width_s)
    assert len(edges) - 1 >= 50


def test_an_events_window_is_shaded_to_where_tables_are_as_before_and_dotted_where_they_had_followed():
    def run_with_table(repeat):
        description, recording = run(repeat, lost=1)
        times = {"start_ps": 4 * S, "end_ps": 6 * S, "window_end_ps": (7 + repeat) * S, "name": "broken"}
        event = QUIET | times | {"time_to_withdraw_ps": S // 2 + repeat * S // 4}
        return description, Recording({**recording.tables, "events": table(EVENTS, [event])})

    ax = losses_over_time(Result.from_recordings([run_with_table(0), run_with_table(1)]), bin_s=1)
    shaded = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches if hasattr(patch, "get_x")]
    assert shaded == [(4, 6), (6, 8)]
    dotted = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert dotted == [4.5, 4.75]


def test_packets_lost_are_stacked_by_reason_at_the_time_of_their_loss():
    def run_with_losses(repeat):
        description, recording = run(repeat, lost=1)
        lost = [
            {"start_ps": at * S, "end_ps": (at + 1) * S, "effect": effect, "reason": reason, "count": count}
            for at, effect, reason, count in [
                (4, "packets", "no route", 6 + 2 * repeat), (5, "packets", "link down", 3),
                (4, "packets", "link down", 1), (4, "answers", "no route", 100),
            ]
        ]  # fmt: skip
        lost.append({"start_ps": 10 * S, "end_ps": -1, "effect": "packets", "reason": "no route", "count": 50})
        event = QUIET | {"start_ps": 4 * S, "end_ps": 6 * S, "window_end_ps": 6 * S, "name": "broken"}
        tables = {"events": table(EVENTS, [event]), "losses_over_time": table(LOSSES_OVER_TIME, lost)}
        return description, Recording({**recording.tables, **tables})

    ax = packets_lost_over_time(Result.from_recordings([run_with_losses(0), run_with_losses(1)]), "pod")
    steps = {step.get_label(): step.get_data() for step in ax.patches if hasattr(step, "get_data")}
    assert list(steps) == ["no route", "link down"]  # the commonest first
    np.testing.assert_allclose(steps["no route"].values, [0, 0, 0, 0, 7, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(steps["link down"].values - steps["link down"].baseline, [0, 0, 0, 0, 1, 3, 0, 0, 0, 0])
    np.testing.assert_array_equal(steps["no route"].edges, np.arange(11))
    with pytest.raises(ResultError, match="no packet of pod was lost"):
        packets_lost_over_time(Result.from_recordings([run(0, lost=0)]), "pod")
