"""Latency of runs with queues: its tail, its growth with load, what it is made of, where the warm-up ends."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from simnet.analysis.latency import latency_summary, pooled_distribution, warmup_of
from simnet.analysis.result import Result
from simnet.analysis.warmup import BATCH
from simnet.model.recording import PARTS
from simnet.plotting.style import (
    COLOURS,
    are_quantities,
    figure_style,
    legend_below,
    looks,
    new_axes,
    plain,
    point_text,
    sweep_point,
)
from simnet.units import PS_PER_S

_PART_NAMES = {
    "propagation_ps": "propagation",
    "transmission_ps": "transmission",
    "link_queue_ps": "link queues",
    "cpu_queue_ps": "CPU queues",
    "cpu_ps": "CPU, rules apart",
    "rule_scan_ps": "rule scan",
    "pod_queue_ps": "pod queue",
    "service_ps": "service",
}
_QUANTILE_NAMES = {"mean": "mean", "p50": "median", "p90": "90 %", "p95": "95 %", "p99": "99 %", "p999": "99.9 %"}


def latency_ccdf(
    result: Result, *, of: str = "response", at: Mapping[str, object] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the share of packets that took longer than t, all repeats together, both axes logarithmic."""
    point = sweep_point(result, at)
    pooled = pooled_distribution(result.latency_distribution, result.sweep)
    pooled = _at(pooled[pooled["of"] == of], point)
    with figure_style():
        ax = new_axes() if ax is None else ax
        smallest = 1.0
        for number, variant in enumerate(result.variants):
            mine = pooled[pooled["variant"] == variant]
            if mine.empty:
                continue
            smallest = min(smallest, 1 / mine["packets"].sum())
            look, line = looks(result.variants)[variant], ("-", "--", "-.", ":")[number % 4]
            ax.step(
                mine["at_most_us"], mine["above"], where="post", linestyle=line, color=look.colour, label=plain(variant)
            )
        ax.set_xscale("log")
        ax.set_yscale("log", nonpositive="mask")
        ax.set_ylim(smallest, 1.5)
        ax.set_xlabel(f"{of}, t (us)")
        ax.set_ylabel("share of packets slower than t")
        ax.set_title("\n".join(t for t in ("Tail of the latency", point_text(point)) if t), loc="left")
        legend_below(ax)
    return ax


def latency_over_load(
    result: Result,
    x: str,
    *,
    figure: str = "p99",
    of: str = "response",
    at: Mapping[str, object] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a percentile (or the mean) of the latency over a swept variable, with 95 % intervals over repeats.

    Values that are no quantities have no line between them.
    """
    point = sweep_point(result, at, free=[x])
    summary = latency_summary(result.latency, result.sweep)
    summary = _at(summary[(summary["of"] == of) & (summary["part"] == "total")], point)
    places = {value: number for number, value in enumerate(dict.fromkeys(result.index[x]))}
    with figure_style():
        ax = new_axes() if ax is None else ax
        for variant in result.variants:
            mine = summary[summary["variant"] == variant]
            look, name = looks(result.variants)[variant], f"{figure}_us"
            low, high = (abs(mine[name] - mine[f"{name}_{bound}"]).fillna(0) for bound in ("low", "high"))
            ax.errorbar(
                [places[value] for value in mine[x]], mine[name], [low, high], color=look.colour, marker=look.marker,
                markersize=4, label=plain(variant), linestyle="-" if are_quantities(places) else "none",
            )  # fmt: skip
        ax.set_xticks(list(places.values()), [plain(_short(value)) for value in places])
        ax.set_yscale("log")
        ax.set_xlabel(plain(x))
        ax.set_ylabel(f"{of}, {_QUANTILE_NAMES[figure]} (us)")
        ax.set_title("\n".join(t for t in (f"Latency over {plain(x)}", point_text(point)) if t), loc="left")
        legend_below(ax)
    return ax


def latency_parts(result: Result, *, at: Mapping[str, object] | None = None, ax: Axes | None = None) -> Axes:
    """Draw where the time of a mean response goes, a bar a variant; parts that take no time anywhere are left out."""
    point = sweep_point(result, at)
    summary = _at(latency_summary(result.latency, result.sweep), point)
    with figure_style():
        ax = new_axes() if ax is None else ax
        place = np.arange(len(result.variants))
        base = np.zeros(len(place))
        means = summary.pivot_table(index="variant", columns="part", values="mean_us", observed=True)
        for part, colour in zip(PARTS, COLOURS, strict=True):
            spent = means[part].reindex(result.variants).fillna(0).to_numpy()
            if spent.any():
                ax.bar(place, spent, 0.6, base, color=colour, label=_PART_NAMES[part], edgecolor="white", linewidth=0.5)
                base += spent
        ax.set_xticks(place, [plain(variant) for variant in result.variants])
        ax.tick_params(axis="x", rotation=15 if len(place) > 3 else 0)
        ax.grid(visible=False, axis="x")
        ax.set_ylabel("mean response (us)")
        ax.set_title("\n".join(t for t in ("Where the time goes", point_text(point)) if t), loc="left")
        legend_below(ax, 4)
    return ax


def latency_over_time(
    result: Result, variant: str, *, at: Mapping[str, object] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw mean latency by time of sending, mean over repeats, with MSER-5's cut: where the warm-up ends."""
    point = sweep_point(result, at)
    frame = result.latency_over_time
    series, cut = warmup_of(_at(frame[frame["variant"] == variant], point))
    with figure_style():
        ax = new_axes() if ax is None else ax
        time_s = series.index.to_numpy() / PS_PER_S
        ax.plot(time_s, series.to_numpy(), color=looks(result.variants)[variant].colour, label=plain(variant))
        batches = len(series) // BATCH
        batch = slice(0, batches * BATCH)
        mean = series.to_numpy()[batch].reshape(batches, BATCH).mean(axis=1)
        ax.step(time_s[batch][::BATCH], mean, where="post", color="black", linewidth=0.9, label="means of five")
        if cut.observations < len(time_s):
            said = "MSER-5 cuts here" if cut.trusted else "MSER-5 (not settled)"
            ax.axvline(time_s[cut.observations], color="black", linestyle=":", label=said)
        ax.set_ylim(0, None)
        ax.set_xlabel("time of sending (s)")
        ax.set_ylabel("mean response (us)")
        ax.set_title("\n".join(t for t in ("Does it settle?", point_text(point)) if t), loc="left")
        legend_below(ax)
    return ax


def _at(frame: pd.DataFrame, point: Mapping[str, object]) -> pd.DataFrame:
    """The rows of a sweep point."""
    for name, value in point.items():
        frame = frame[frame[name] == value]
    return frame


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"...{text[-13:]}"
