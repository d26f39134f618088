"""How the tables of a run follow an event: which box lost, learned or changed which route when.

One run at a time: a mean of timelines is none. A row is a route of a box while there are few, else a box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from simnet.analysis.result import Result
from simnet.errors import ResultError
from simnet.plotting.style import COLUMN_WIDTH, figure_style, legend_below, new_axes, plain, point_text, sweep_point
from simnet.units import PS_PER_MS, PS_PER_S, PS_PER_US

# What changed -> colour, marker, place in its row; Okabe and Ito's colours, and shapes that need none.
MARKS = {
    "lost": ("#D55E00", "X", -0.24),
    "next hops": ("#0072B2", "o", 0.0),
    "learned": ("#009E73", "^", 0.24),
    "rules": ("#000000", "s", 0.0),
}
HALVES = ("start", "end")
MOST_ROUTES = 24  # that have a row each
MOST_LABELS = 64  # rows with a name; of more, every so many
LONG_TAIL = 50  # latest over earliest, from where on the axis is logarithmic
UNITS = ((PS_PER_S, "s"), (PS_PER_MS, "ms"), (PS_PER_US, "us"))
ROW_INCHES, LEAST_INCHES, MOST_INCHES = 0.165, 2.4, 11.0


@dataclass(frozen=True)
class Story:
    """The changes of one run that follow from one event, and the rows that they are drawn in."""

    event: pd.Series
    changes: pd.DataFrame  # of table_changes, with `row`
    rows: list[str]  # names, the row that changes first at the top
    by_route: bool
    title: str

    @property
    def end_ps(self) -> int | None:
        """When it was undone, where anything changed after that."""
        end_ps = int(self.event["end_ps"])
        return end_ps if end_ps >= 0 and (self.changes["time_ps"] >= end_ps).any() else None

    def of(self, since: str) -> pd.DataFrame:
        """The changes of one half."""
        is_later = self.changes["time_ps"] >= (np.inf if self.end_ps is None else self.end_ps)
        return self.changes[is_later if since == "end" else ~is_later]

    @property
    def height(self) -> float:
        """Inches that the rows need."""
        return float(np.clip(1.7 + ROW_INCHES * len(self.rows), LEAST_INCHES, MOST_INCHES))


def convergence_timeline(
    result: Result,
    event: int | str = 0,
    *,
    variant: str | None = None,
    at: Mapping[str, object] | None = None,
    repeat: int = 0,
    since: str = "start",
    ax: Axes | None = None,
) -> Axes:
    """Draw which box lost, learned or changed which route, by the time since an event began or ended, in one run.

    Parameters
    ----------
    event : its number in the run, or its name (the first of that name)
    variant, at, repeat : which run; default: the first variant, the first sweep point, repeat 0
    since : "start": changes before its end; "end": those after it was undone

    Raises ResultError where there is no such run or event, or no table changed because of it.
    """
    if since not in HALVES:
        raise ValueError(f"since is {since!r}, not start or end")
    story = _story(result, event, variant, at, repeat)
    with figure_style():
        ax = new_axes(height=story.height) if ax is None else ax
        _draw(ax, story, since)
        ax.set_title(story.title, loc="left")
        legend_below(ax, 4)
    return ax


def convergence_figure(
    result: Result,
    event: int | str = 0,
    *,
    variant: str | None = None,
    at: Mapping[str, object] | None = None,
    repeat: int = 0,
) -> Figure:
    """Draw both halves of an event side by side: after its start and, where tables changed then too, after its end.

    Arguments and errors as of `convergence_timeline`.
    """
    story = _story(result, event, variant, at, repeat)
    with figure_style():
        halves = [since for since in HALVES if len(story.of(since))]
        figure = Figure(figsize=(COLUMN_WIDTH * (1.0 if len(halves) == 1 else 1.5), story.height), layout="constrained")
        axes = figure.subplots(1, len(halves), sharey=True, squeeze=False)[0]
        for ax, since in zip(axes, halves, strict=True):
            _draw(ax, story, since)
        figure.suptitle(story.title, x=0.01, ha="left", fontsize=9.5)
        found: dict[str, Artist] = {}
        for ax in axes:
            handles, labels = ax.get_legend_handles_labels()
            found |= dict(zip(labels, handles, strict=True))
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=5)
    return figure


def _story(
    result: Result, event: int | str, variant: str | None, at: Mapping[str, object] | None, repeat: int
) -> Story:
    point = sweep_point(result, at)
    variant = result.variants[0] if variant is None else variant
    run = next(
        (
            manifest["id"]
            for manifest in result.manifests
            if (manifest["variant"], manifest["repeat"]) == (variant, repeat)
            and all(manifest["sweep"].get(name) == value for name, value in point.items())
        ),
        None,
    )
    if run is None:
        raise ResultError(f"no run of {variant} has repeat {repeat} at this sweep point")
    events = result.events[result.events["run"] == run]
    chosen = events[events["event" if isinstance(event, int) else "name"] == event]
    if chosen.empty:
        known = ", ".join(dict.fromkeys(events["name"].astype(str))) or "none"
        raise ResultError(f"no event {event!r} in this run; there are: {known}")
    row = chosen.iloc[0]
    mine = result.table_changes
    mine = mine[(mine["run"] == run) & (mine["event"] == row["event"])].copy()
    if mine.empty:
        raise ResultError(f"no table changed because of {row['name']}")
    box, prefix = mine["box"].astype(str), mine["prefix"].astype(str).replace("", "rules")
    both = box + "   " + prefix
    by_route = both.nunique() <= MOST_ROUTES
    name = both if by_route else box
    order = mine.assign(name=name).groupby("name", sort=False)["time_ps"].min()
    rows = sorted(order.index, key=lambda each: (order[each], _natural(each)))
    mine["row"] = name.map({each: number for number, each in enumerate(rows)}).astype(int)
    which = f"{plain(variant)}, repeat {repeat}" if len(result.variants) > 1 else f"repeat {repeat}"
    title = "\n".join(
        text for text in (f"When tables followed: {plain(row['name'])}", which, point_text(point)) if text
    )
    return Story(row, mine, rows, by_route, title)


def _draw(ax: Axes, story: Story, since: str) -> None:
    zero_ps, shown = int(story.event[f"{since}_ps"]), story.of(since)
    if shown.empty:
        raise ResultError(f"no table changed after the {since} of {story.event['name']}")
    delay_ps = (shown["time_ps"] - zero_ps).to_numpy(dtype=np.float64)
    latest = float(delay_ps.max(initial=1.0))
    scale, unit = next(((scale, unit) for scale, unit in UNITS if latest >= scale), UNITS[-1])
    delay = delay_ps / scale
    later = delay[delay > 0]
    has_tail = later.size > 0 and later.max() > LONG_TAIL * later.min()
    least = float(later.min()) / 2 if has_tail else 0.0
    most = 1.12 * latest / scale
    if has_tail:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        most = 1.5 * latest / scale
    ax.set_xlim(least, most)
    if story.by_route:
        _draw_known(ax, story, shown, zero_ps, scale, since)
    _draw_marks(ax, shown.assign(delay=np.maximum(delay, least)), counts=len(story.rows) <= MOST_ROUTES)
    step = -(-len(story.rows) // MOST_LABELS)
    ax.set_yticks(range(0, len(story.rows), step), [plain(name) for name in story.rows[::step]], fontsize=7)
    ax.set_ylim(len(story.rows) - 0.4, -0.6)
    ax.grid(axis="y", visible=len(story.rows) <= MOST_LABELS)
    began = "began" if since == "start" else "was undone"
    ax.set_xlabel(f"{unit} after it {began} (at {zero_ps / PS_PER_S:g} s)")


def _draw_known(ax: Axes, story: Story, shown: pd.DataFrame, zero_ps: int, scale: int, since: str) -> None:
    """A bar while the box has the route."""
    left, right = ax.get_xlim()
    for row in range(len(story.rows)):
        mine = story.changes[story.changes["row"] == row]
        if (mine["change"] == "rules").any():
            continue
        edge, known = left, str(mine["change"].iloc[0]) != "learned"
        if since == "end":
            past = mine[mine["time_ps"] < zero_ps]
            known = known if past.empty else str(past["change"].iloc[-1]) != "lost"
        for time_ps, change in shown.loc[shown["row"] == row, ["time_ps", "change"]].itertuples(index=False):
            at = max(left, (time_ps - zero_ps) / scale)
            if known:
                ax.plot([edge, at], [row, row], color="#d5d5d5", linewidth=4, solid_capstyle="butt", zorder=1)
            edge, known = at, str(change) != "lost"
        if known:
            ax.plot([edge, right], [row, row], color="#d5d5d5", linewidth=4, solid_capstyle="butt", zorder=1)
    if not any(line.get_label() == "route there" for line in ax.lines):
        ax.plot([], [], color="#d5d5d5", linewidth=4, label="route there")


def _draw_marks(ax: Axes, shown: pd.DataFrame, *, counts: bool) -> None:
    marks = shown.groupby(["row", "delay", "change"], observed=True, sort=True).size().rename("routes").reset_index()
    crowded = not counts
    for change, (colour, marker, offset) in MARKS.items():
        mine = marks[marks["change"] == change]
        if mine.empty:
            continue
        y = mine["row"] + (offset if crowded else 0.0)
        ax.plot(
            mine["delay"], y, linestyle="none", marker=marker, color=colour, markersize=4 if crowded else 6,
            markeredgewidth=0, label={"next hops": "other next hops", "rules": "rules written"}.get(change, change),
            zorder=3,
        )  # fmt: skip
        for at, row, routes in zip(mine["delay"], y, mine["routes"], strict=True):
            if counts and routes > 1:
                ax.annotate(f"{routes}", (at, row), (4, 2), textcoords="offset points", fontsize=6.5)


def _natural(name: str) -> tuple[object, ...]:
    head = name.split("   ")[0].rstrip("0123456789")
    digits = name.split("   ")[0][len(head) :]
    return head, int(digits or 0), name
