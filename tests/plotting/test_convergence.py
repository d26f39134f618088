"""The convergence timeline: marks stand where and when tables changed, rows in the order in which boxes learned."""

from __future__ import annotations

import numpy as np
import pytest
from analysis.test_events import MS, S, run

from simnet.analysis.result import Result
from simnet.errors import ResultError
from simnet.plotting import convergence_figure, convergence_timeline
from simnet.plotting.convergence import MARKS


def change(time_ps, box, what, prefix="10.0.0.0/26", event=0):
    return {"time_ps": time_ps, "event": event, "box": box, "prefix": prefix, "change": what, "next_hops": 1}


CHANGES = [
    change(10 * S + 900 * MS, "tor", "next hops", "10.1.0.0/26"),
    change(10 * S + 900 * MS, "tor", "lost"),
    change(10 * S + 950 * MS, "n1", "lost"),
    change(25 * S + 200 * MS, "n1", "learned"),
    change(25 * S + 100 * MS, "tor", "learned"),
    change(25 * S + 100 * MS, "tor", "next hops", "10.1.0.0/26"),
    change(30 * S, "n9", "lost", event=1),
]


def marks(ax):
    """{(change, row name): [time]}"""
    names = [label.get_text() for label in ax.get_yticklabels()]
    found = {}
    for line in ax.lines:
        if line.get_linestyle() == "None" and len(line.get_xdata()):
            for at, row in zip(line.get_xdata(), line.get_ydata(), strict=True):
                found.setdefault((str(line.get_label()), names[round(row)]), []).append(float(at))
    return found


def result(changes=CHANGES):
    return Result.from_recordings(
        [run(0, [{}, {"start_ps": 29 * S, "end_ps": 50 * S, "name": "other"}], changes=changes)]
    )


def test_a_row_a_route_and_a_mark_at_each_change_since_the_event_began_or_ended():
    begun = convergence_timeline(result())
    assert marks(begun) == {
        ("lost", "tor   10.0.0.0/26"): [900], ("lost", "n1   10.0.0.0/26"): [950],
        ("other next hops", "tor   10.1.0.0/26"): [900],
    }  # fmt: skip
    assert begun.get_xlabel() == "ms after it began (at 10 s)"
    undone = convergence_timeline(result(), "cut", since="end")
    assert marks(undone)["learned", "n1   10.0.0.0/26"] == [200]
    assert undone.get_xlabel() == "ms after it was undone (at 25 s)"
    rows = [label.get_text().split()[0] for label in begun.get_yticklabels()]
    assert rows == ["tor", "tor", "n1"]  # who changes first stands at the top


def test_every_kind_of_change_has_a_colour_and_a_shape_of_its_own():
    colours, shapes, _ = zip(*MARKS.values(), strict=True)
    assert len(set(colours)) == len(set(shapes)) == len(MARKS)


def test_many_boxes_have_a_row_each_and_a_long_tail_a_logarithmic_axis():
    many = [change(10 * S + MS * (1 + n**2), f"n{n}", "lost", f"10.{n}.{k}.0/26") for n in range(60) for k in range(2)]
    ax = convergence_timeline(result(many))
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"n{n}" for n in range(60)]
    (line,) = (line for line in ax.lines if line.get_label() == "lost")
    np.testing.assert_allclose(sorted(line.get_xdata()), [(1 + n**2) / 1000 for n in range(60)])


def test_both_halves_share_their_rows_and_one_is_enough_where_nothing_changed_after_the_end():
    assert len(convergence_figure(result()).axes) == 2
    assert len(convergence_figure(result(), "other").axes) == 1


def test_what_is_not_there_is_said():
    with pytest.raises(ResultError, match="no event 'fire' in this run; there are: cut, other"):
        convergence_timeline(result(), "fire")
    with pytest.raises(ResultError, match="no table changed because of other"):
        convergence_timeline(result(CHANGES[:-1]), "other")
    with pytest.raises(ResultError, match="repeat 7"):
        convergence_timeline(result(), repeat=7)
    with pytest.raises(ResultError, match="no table changed after the end of other"):
        convergence_timeline(result(), "other", since="end")
