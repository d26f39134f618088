"""Stations over time: the busiest links, cores and pods, and a heat map of all links."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from simnet.analysis.result import Result
from simnet.plotting.style import COLOURS, figure_style, legend_below, new_axes, plain, point_text, sweep_point
from simnet.units import PS_PER_S

MEASURES = {
    "utilisation": "share of time busy",
    "queue_mean": "packets waiting, mean",
    "queue_max": "packets waiting, most",
    "arrivals": "packets",
    "drops": "packets dropped",
}


def stations_over_time(
    result: Result,
    variant: str,
    measure: str = "utilisation",
    *,
    count: int = 5,
    at: Mapping[str, object] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a measure of the stations that have most of it over time, mean over repeats."""
    point = sweep_point(result, at)
    table = _table(result, variant, measure, point)
    table = table.loc[table.mean(axis=1).sort_values(ascending=False, kind="stable").index[:count]]
    with figure_style():
        ax = new_axes() if ax is None else ax
        for (name, values), colour in zip(table.iterrows(), COLOURS, strict=False):
            ax.plot(table.columns.to_numpy(dtype=float) / PS_PER_S, values.to_numpy(), color=colour, label=plain(name))
        ax.set_ylim(0, 1.02 if measure == "utilisation" else None)
        ax.set_xlabel("time (s)")
        ax.set_ylabel(MEASURES[measure])
        ax.set_title("\n".join(t for t in (f"Busiest stations: {plain(variant)}", point_text(point)) if t), loc="left")
        legend_below(ax, 2)
    return ax


def link_heat_map(
    result: Result,
    variant: str,
    measure: str = "utilisation",
    *,
    most: int = 30,
    at: Mapping[str, object] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw each link direction's measure over time as colour, the busiest first; mean over repeats."""
    point = sweep_point(result, at)
    table = _table(result, variant, measure, point, kind="link")
    table = table.loc[table.mean(axis=1).sort_values(ascending=False, kind="stable").index[:most]]
    with figure_style():
        ax = new_axes(height=0.8 + 0.2 * max(len(table), 6)) if ax is None else ax
        starts = table.columns.to_numpy(dtype=float)
        end = (starts[-1] + starts[1] - starts[0]) / PS_PER_S
        top = 1.0 if measure == "utilisation" else None
        image = ax.imshow(
            table.to_numpy(), aspect="auto", cmap="viridis", vmin=0, vmax=top, extent=(0, end, len(table) - 0.5, -0.5)
        )
        ax.set_yticks(range(len(table)), [plain(name) for name in table.index])
        ax.grid(visible=False)
        ax.set_xlabel("time (s)")
        ax.set_title("\n".join(t for t in (f"Links: {plain(variant)}", point_text(point)) if t), loc="left")
        ax.figure.colorbar(image, ax=ax, label=MEASURES[measure])
    return ax


def _table(
    result: Result, variant: str, measure: str, point: Mapping[str, object], kind: str | None = None
) -> pd.DataFrame:
    """A row a station, a column a bin (start in ps): mean over the repeats of a sweep point."""
    if measure not in MEASURES:
        raise ValueError(f"no measure {measure!r} of stations; there are {', '.join(MEASURES)}")
    frame = result.stations
    chosen = frame["variant"] == variant
    for name, value in point.items():
        chosen &= frame[name] == value
    if kind is not None:
        chosen &= frame["kind"] == kind
    mine = frame[chosen]
    return mine.pivot_table(index="station", columns="start_ps", values=measure, aggfunc="mean", observed=True)
