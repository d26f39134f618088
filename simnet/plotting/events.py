"""Runs in which something happens: what is lost and who takes the load over time, the events' spans shaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from simnet.analysis import over_time
from simnet.analysis.result import Result
from simnet.errors import ResultError
from simnet.plotting.style import (
    COLOURS,
    HATCHES,
    figure_style,
    legend_below,
    looks,
    new_axes,
    plain,
    point_text,
    sweep_point,
)
from simnet.units import PS_PER_S

LINES = ("-", "--", "-.", ":")
HEADROOM = 1.08  # for the events' names
LASTS, NOT_YET_AS_BEFORE = "#e4e4e4", "#f3f3f3"
LABEL_SHARE = 0.15  # of the axis, for a name
_PLACES = {"serving_node": "serving node", "entry_node": "entry node", "pod": "pod"}


def has_events(result: Result) -> bool:
    """Whether anything happened in any run while its traffic ran."""
    return any(manifest["manifest"].get("events") for manifest in result.manifests)


def losses_over_time(
    result: Result, *, at: Mapping[str, object] | None = None, bin_s: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the share of flows without an answer by when they began, with 95 % intervals over repeats.

    `bin_s`: width of a bin in seconds. ResultError where the runs kept no flows.
    """
    point = sweep_point(result, at)
    flows = _flows(result, point)
    edges_s = over_time.bins_s(flows, bin_s)
    table = over_time.losses_over_time(flows, edges_s)
    with figure_style():
        ax = new_axes() if ax is None else ax
        _shade(ax, result, point, float(edges_s[-1]))
        for number, variant in enumerate(result.variants):
            mine = table[table["variant"] == variant]
            if mine.empty:
                continue
            _band(
                ax, mine, edges_s, "lost_share", 100, looks(result.variants)[variant].colour, LINES[number % 4], variant
            )
        ax.set_ylim(0, HEADROOM * min(100, max(1.0, ax.get_ylim()[1])))
        ax.set_ylabel("flows without an answer (%)")
        ax.set_title("\n".join(t for t in ("What is lost, and when", point_text(point)) if t), loc="left")
        legend_below(ax, 2)
    return ax


def packets_lost_over_time(
    result: Result, variant: str, *, at: Mapping[str, object] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw request packets lost a second by reason, stacked: means over repeats.

    Unlike `losses_over_time` it counts all packets of a flow; what a client cannot send after a reset is lost when it
    would have been sent.

    ResultError of runs without events, or where no packet was lost.
    """
    point = sweep_point(result, at)
    losses, ids = result.losses_over_time, set()
    for manifest in result.manifests:
        fits = all(manifest["sweep"].get(name) == value for name, value in point.items())
        if fits and manifest["variant"] == variant:
            ids.add(manifest["id"])
    table = over_time.packets_lost_over_time(losses[losses["run"].isin(ids)], len(ids))
    if table.empty:
        raise ResultError(f"no packet of {variant} was lost while a run with events lasted")
    width_s = float(table["end_s"].iloc[0] - table["start_s"].iloc[0])
    bins = round(_latest_s(result) / width_s)
    edges_s = width_s * np.arange(bins + 1)
    with figure_style():
        ax = new_axes() if ax is None else ax
        _shade(ax, result, point, float(edges_s[-1]))
        below = np.zeros(bins)
        for number, reason in enumerate(table["reason"].cat.categories):
            mine = table[table["reason"] == reason]
            top = below.copy()
            top[np.rint(mine["start_s"] / width_s).astype(int)] += mine["packets_per_s"].to_numpy()
            ax.stairs(
                top, edges_s, baseline=below, fill=True, facecolor=COLOURS[number % len(COLOURS)],
                hatch=HATCHES[number % len(HATCHES)], edgecolor="white", linewidth=0, label=plain(reason),
            )  # fmt: skip
            below = top
        ax.set_ylim(0, HEADROOM * float(below.max()))
        ax.set_ylabel("packets lost a second")
        title = f"Packets lost, and why: {plain(variant)}"
        ax.set_title("\n".join(t for t in (title, point_text(point)) if t), loc="left")
        legend_below(ax, 3)
    return ax


def _latest_s(result: Result) -> float:
    """About when the runs end, as far as their tables say: the last flow's start, or the last loss or event."""
    ends_ps = [result.losses_over_time["end_ps"].max(), result.events["start_ps"].max()]
    ends_ps += [result.events["window_end_ps"].max()]
    if len(result.flows):
        ends_ps.append(result.flows["start_ps"].max())
    return float(max(ends_ps)) / PS_PER_S


def load_over_time(
    result: Result,
    variant: str,
    by: str = "serving_node",
    *,
    at: Mapping[str, object] | None = None,
    bin_s: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw connections a second of each node (or `entry_node`, `pod`) over time, with 95 % intervals over repeats.

    Where there are more than eight, those whose load changes most. ResultError where the runs kept no flows.
    """
    if by not in _PLACES:
        raise ValueError(f"no load by {by!r} over time; there are {', '.join(_PLACES)}")
    point = sweep_point(result, at)
    flows = _flows(result, point)
    edges_s = over_time.bins_s(flows, bin_s)
    flows = flows[flows["variant"] == variant]
    names = sorted(set(flows[by].astype(str)) - {""}, key=_natural)
    table = over_time.load_over_time(flows, by, edges_s, names)
    if len(names) > len(COLOURS):
        spread = table.groupby(by)["connections_per_s"].std()
        names = sorted(spread.sort_values(ascending=False, kind="stable").index[: len(COLOURS)], key=_natural)
    with figure_style():
        ax = new_axes() if ax is None else ax
        _shade(ax, result, point, float(edges_s[-1]))
        for number, name in enumerate(names):
            _band(
                ax, table[table[by] == name], edges_s, "connections_per_s", 1, COLOURS[number], LINES[number % 4], name
            )
        ax.set_ylim(0, HEADROOM * ax.get_ylim()[1])
        ax.set_ylabel("connections a second")
        title = f"Load by {_PLACES[by]}: {plain(variant)}"
        ax.set_title("\n".join(t for t in (title, point_text(point)) if t), loc="left")
        legend_below(ax, 4)
    return ax


def _flows(result: Result, point: Mapping[str, object]) -> pd.DataFrame:
    flows = result.flows
    for name, value in point.items():
        flows = flows[flows[name] == value]
    if flows.empty:
        raise ResultError("the runs kept no flows; let the experiment say `record: flows`")
    return flows


def _band(
    ax: Axes,
    table: pd.DataFrame,
    edges_s: NDArray[np.float64],
    name: str,
    scale: float,
    colour: str,
    line: str,
    label: str,
) -> None:
    mean, low, high = (scale * table[f"{name}{end}"].to_numpy() for end in ("", "_low", "_high"))
    ax.stairs(mean, edges_s, baseline=None, color=colour, linestyle=line, linewidth=1.4, label=plain(label))
    if not np.isnan(low).all():
        ax.stairs(high, edges_s, baseline=low, color=colour, alpha=0.2, fill=True, linewidth=0)


def _shade(ax: Axes, result: Result, point: Mapping[str, object], end_s: float) -> None:
    """Shade the events that all runs of a sweep point share; those at random differ from run to run.

    Grey: while it lasts. Lighter: to the end of its longest window, when tables are as before. Dotted: when tables had
    followed, from the first run to the last.
    """
    happened = [
        manifest["manifest"].get("events", [])
        for manifest in result.manifests
        if all(manifest["sweep"].get(name) == value for name, value in point.items())
    ]
    shared: list[dict[str, Any]] = [event for event in happened[0] if all(event in other for other in happened[1:])]
    spans = result.events
    for name, value in point.items():
        spans = spans[spans[name] == value]
    ax.set_xlabel("time (s)")
    ax.set_xlim(0, end_s)
    named_s = -np.inf
    for event in shared:
        begin_s = event["at_ps"] / PS_PER_S
        mine = spans[(spans["start_ps"] == event["at_ps"]) & (spans["name"].astype(str) == event["name"])]
        _shade_one(ax, event, mine, end_s)
        if begin_s - named_s > LABEL_SHARE * end_s:  # else it would stand on the one before
            named_s = begin_s
            ax.text(
                begin_s, 0.995, plain(event["name"]), transform=ax.get_xaxis_transform(), fontsize=7, va="top",
                color="#444444",
            )  # fmt: skip


def _shade_one(ax: Axes, event: Mapping[str, Any], spans: pd.DataFrame, end_s: float) -> None:
    begin_s, until_ps = event["at_ps"] / PS_PER_S, event["until_ps"]
    if until_ps is None:
        ax.axvline(begin_s, color="#777777", linewidth=0.9)
    else:
        ax.axvspan(begin_s, until_ps / PS_PER_S, color=LASTS, linewidth=0, zorder=0)
    if spans.empty:  # a run of an older version
        return
    is_over = (spans["window_end_ps"] >= 0).all()
    over_s = float(spans["window_end_ps"].max()) / PS_PER_S if is_over else end_s
    if until_ps is not None and over_s > until_ps / PS_PER_S:
        ax.axvspan(until_ps / PS_PER_S, over_s, color=NOT_YET_AS_BEFORE, linewidth=0, zorder=0)
    followed = spans.loc[spans["time_to_withdraw_ps"] >= 0, "time_to_withdraw_ps"].to_numpy(dtype=np.float64)
    for instant_s in sorted(
        {begin_s + edge / PS_PER_S for edge in (followed.min(), followed.max())} if len(followed) else ()
    ):
        ax.axvline(instant_s, color="#777777", linewidth=0.8, linestyle=":", zorder=0.5)


def _natural(name: str) -> tuple[str, int, str]:
    head, _, number = name.rpartition("-")
    return (head, int(number), "") if number.isdigit() else (name, 0, "")
