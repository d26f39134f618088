"""Variants side by side: hop counts, efficiency over a sweep, and the tail of the path delay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simnet.analysis.measures import MEASURES
from simnet.analysis.result import Result
from simnet.plotting.spread import at_point, yerror_or_none
from simnet.plotting.style import (
    are_quantities,
    figure_style,
    legend_below,
    looks,
    new_axes,
    plain,
    point_text,
    sweep_point,
)
from simnet.units import PS_PER_US

# measure -> label of its axis; shares are drawn in percent
AXES = {
    "l3_hops_mean": "router hops of a request",
    "links_mean": "wires a request crosses",
    "cross_node_share": "cross-node flows (%)",
    "snat_share": "flows with SNAT (%)",
    "answered_share": "flows answered (%)",
    "pod_cov": "spread over pods (CoV)",
    "pod_packets_cov": "spread of requests over pods (CoV)",
    "pod_packets_max_over_mean": "requests of the busiest pod / mean",
    "entry_node_cov": "spread over entry nodes (CoV)",
    "serving_node_cov": "spread over serving nodes (CoV)",
    "rules_scanned_mean": "rules scanned per connection",
    "delay_mean_us": "mean path delay (us)",
    "delay_p50_us": "median path delay (us)",
    "delay_p99_us": "99th percentile of path delay (us)",
}
SHOWN = ("l3_hops_mean", "cross_node_share", "snat_share", "pod_cov", "entry_node_cov", "rules_scanned_mean")


# where it is swept how long connections live
SHOWN_OF_REQUESTS = ("pod_packets_cov", "pod_packets_max_over_mean", "pod_cov")


def hop_counts(
    result: Result,
    measure: str = "l3_hops",
    *,
    direction: str = "request",
    at: Mapping[str, object] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the share of flows per number of hops, a bar a variant, with 95 % intervals over repeats.

    `measure`: l3_hops (boxes that forward) or links (wires). `direction`: request or reply.
    """
    point = sweep_point(result, at)
    shares = at_point(result.hop_shares, point)
    shares = shares[(shares["measure"] == measure) & (shares["direction"].astype(str) == direction)]
    counts = sorted(set(shares["count"]))
    with figure_style():
        ax = new_axes() if ax is None else ax
        variants = result.variants
        slot = 0.8 / len(variants)
        for number, variant in enumerate(variants):
            rows = shares[shares["variant"].astype(str) == variant].set_index("count").reindex(counts)
            y, low, high = (100 * rows[c].fillna(0).to_numpy(dtype=float) for c in ("share", "share_low", "share_high"))
            has_interval = rows["share_low"].notna().to_numpy()
            error = np.where(has_interval, np.vstack([y - low, high - y]), 0.0)
            look = looks(variants)[variant]
            x = np.arange(len(counts)) + (number - (len(variants) - 1) / 2) * slot
            ax.bar(
                x, y, 0.92 * slot, yerr=yerror_or_none(np.maximum(error, 0)), color=look.colour, hatch=look.hatch,
                edgecolor="white", linewidth=0.5, label=plain(variant), error_kw={"linewidth": 1.0},
            )  # fmt: skip
            for place, share in zip(x, y, strict=True):
                if share == 0:  # say that it is none, where a bar of no height would look forgotten
                    ax.text(place, 1, "0", ha="center", va="bottom", fontsize=7, color=look.colour)
        ax.set_xticks(range(len(counts)), [str(count) for count in counts])
        what = {"l3_hops": "router hops", "links": "wires crossed"}[measure]
        ax.set_xlabel(f"{what} of a {direction}")
        ax.set_ylabel("share of flows (%)")
        ax.set_ylim(0, 108)
        ax.grid(visible=False, axis="x")
        ax.set_title("\n".join(t for t in (f"How many {what}", point_text(point)) if t), loc="left")
        legend_below(ax)
    return ax


def efficiency(
    result: Result,
    x: str | None = None,
    measure: str = "l3_hops_mean",
    *,
    at: Mapping[str, object] | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw one measure of the summary over a swept variable, a line a variant, with 95 % intervals over
    repeats; values that are no numbers have no line between them.

    `x` defaults to the first swept variable; without a sweep the variants themselves stand on the axis. Other
    swept variables stay at the values of `at`, else at those of the first run.
    """
    x = x if x is not None else next(iter(result.sweep), None)
    point = sweep_point(result, at, free=[x] if x else [])
    rows = at_point(result.summary, point)
    scale = 100.0 if measure.endswith("_share") else 1.0
    with figure_style():
        ax = new_axes() if ax is None else ax
        values = list(dict.fromkeys(rows[x])) if x else []
        numeric = bool(x) and are_quantities(values)
        for number, variant in enumerate(result.variants):
            mine = rows[rows["variant"].astype(str) == variant]
            if x is None:
                place = np.array([float(number)] * len(mine))
            else:
                place = np.array([values.index(v) for v in mine[x]], dtype=float)
                place += 0.05 * (number - (len(result.variants) - 1) / 2)  # so that equal points stay visible
            _line(ax, result, variant, mine, place, measure, scale, joined=numeric)
        if x is None:
            ax.set_xticks(range(len(result.variants)), [plain(v) for v in result.variants])
            ax.set_xlim(-0.5, len(result.variants) - 0.5)
        else:
            ax.set_xticks(range(len(values)), [plain(v) for v in values])
            ax.set_xlim(-0.4, len(values) - 0.6)
            ax.set_xlabel(plain(x))
            ax.margins(x=0.05)
        ax.set_ylabel(AXES.get(measure, measure), wrap=True)
        _from_zero(ax, numeric=numeric)
        if measure.endswith("_share"):
            ax.set_ylim(-4, 108)
        if legend:
            ax.set_title(point_text(point), loc="left")
            legend_below(ax, 4)
    return ax


def _line(
    ax: Axes,
    result: Result,
    variant: str,
    rows: pd.DataFrame,
    place: NDArray[np.float64],
    measure: str,
    scale: float,
    *,
    joined: bool,
) -> None:
    look = looks(result.variants)[variant]
    y, low, high = (scale * rows[f"{measure}{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
    error = np.nan_to_num(np.vstack([y - low, high - y]), nan=0.0)
    ax.errorbar(
        place, y, yerror_or_none(np.maximum(error, 0)), fmt=f"{'-' if joined else ''}{look.marker}", color=look.colour,
        markersize=5, label=plain(variant),
    )  # fmt: skip
    floor = measure.replace("_packets", "").replace("_cov", "_noise_floor")  # requests share their connection's fate
    if measure.endswith("_cov") and floor in rows:
        if joined and len(rows) > 1:
            ax.plot(place, rows[floor], linestyle=":", linewidth=1.0, color="black", zorder=1)
        else:
            ax.hlines(rows[floor], place - 0.3, place + 0.3, linestyles=":", linewidth=1.0, colors="black", zorder=1)


def _from_zero(ax: Axes, *, numeric: bool) -> None:
    ax.set_ylim(0, 1.1 * max(ax.get_ylim()[1], 1e-9))
    ax.grid(visible=numeric, axis="x")


def efficiency_figure(
    result: Result,
    x: str | None = None,
    measures: Sequence[str] = SHOWN,
    *,
    at: Mapping[str, object] | None = None,
) -> Figure:
    """Draw several measures over a swept variable as small multiples; dotted: the CoV that chance alone
    makes.
    """
    if unknown := set(measures) - {column.name for column in MEASURES}:
        raise ValueError(f"no measure {sorted(unknown)[0]!r}")
    with figure_style():
        columns = min(3, len(measures))
        rows = -(-len(measures) // columns)
        figure = Figure(figsize=(2.9 * columns, 2.4 * rows + 0.6), layout="constrained")
        axes = [figure.add_subplot(rows, columns, number + 1) for number in range(len(measures))]
        for ax, measure in zip(axes, measures, strict=True):
            efficiency(result, x, measure, at=at, ax=ax, legend=False)
            if not result.sweep:
                ax.tick_params(axis="x", rotation=20)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        free = x if x is not None else next(iter(result.sweep), None)
        point = sweep_point(result, at, free=[free] if free else [])
        repeats = int(result.summary["repeats"].min())
        note = f"95 % interval over {repeats} repeats" if repeats > 1 else "one repeat, no interval"
        figure.suptitle("; ".join(t for t in (point_text(point), note, "dotted: chance alone") if t), fontsize=9)
    return figure


def delay_ccdf(result: Result, *, at: Mapping[str, object] | None = None, ax: Axes | None = None) -> Axes:
    """Draw the share of delivered flows whose first packet took longer than t, all repeats together, to see
    the tail.
    """
    point = sweep_point(result, at)
    with figure_style():
        ax = new_axes() if ax is None else ax
        smallest = 1.0
        for number, variant in enumerate(result.variants):
            sample = _delays_us(result, variant, point)
            if not len(sample):
                continue
            rank = np.unique(np.linspace(0, len(sample) - 1, 1500).astype(int))
            above = 1 - (rank + 1) / len(sample)
            smallest = min(smallest, 1 / len(sample))
            look = looks(result.variants)[variant]
            line = ("-", "--", "-.", ":")[number % 4]
            ax.step(sample[rank], above, where="post", linestyle=line, color=look.colour, label=plain(variant))
        ax.set_yscale("log", nonpositive="mask")
        ax.set_ylim(smallest, 1.5)
        ax.set_xlabel("path delay of the first packet, t (us)")
        ax.set_ylabel("share of flows slower than t")
        ax.set_title("\n".join(t for t in ("Tail of the path delay", point_text(point)) if t), loc="left")
        legend_below(ax)
    return ax


def _delays_us(result: Result, variant: str, point: Mapping[str, object]) -> NDArray[np.float64]:
    samples = [np.zeros(0)]
    for manifest in result.manifests:
        if manifest["variant"] == variant and all(manifest["sweep"].get(k) == v for k, v in point.items()):
            flows = result.run_table(manifest, "flows")
            delay, warmup = flows.column("delay_ps").to_numpy(), flows.column("warmup").to_numpy()
            samples.append(delay[(delay >= 0) & ~warmup] / PS_PER_US)
    return np.sort(np.concatenate(samples), kind="stable")
