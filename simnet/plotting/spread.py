"""How a load is spread over pods, nodes or entry nodes, beside what is expected and what chance allows."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from simnet.analysis.result import Result
from simnet.plotting.style import (
    COLUMN_WIDTH,
    figure_style,
    legend_below,
    looks,
    new_axes,
    plain,
    point_text,
    sweep_point,
)

_TITLES = {"pod": "pods", "serving_node": "serving nodes", "entry_node": "entry nodes"}
_LABELLED = 60  # names; beyond that only every k-th is written


def load_spread(
    result: Result, by: str = "pod", *, at: Mapping[str, object] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw each name's share of the connections per variant, with its 95 % interval over repeats.

    `by`: pod, serving_node or entry_node. `at`: the sweep point (default: the first). A black line is the
    expected share, the grey box around it the range that chance alone fills in 95 of 100 experiments of this
    size.
    """
    if by not in _TITLES:
        raise ValueError(f"by is one of {', '.join(_TITLES)}, not {by!r}")
    point = sweep_point(result, at)
    shares = at_point(result.shares(by), point)
    variants = [v for v in result.variants if v in set(shares["variant"].astype(str))]
    names = sorted(dict.fromkeys(shares["name"].astype(str)), key=natural)
    with figure_style():
        if ax is None:
            ax = new_axes(width=min(8.5, max(COLUMN_WIDTH, 1.0 + 0.075 * len(names) * max(len(variants), 1))))
        style = looks(result.variants)
        slot = 0.8 / max(len(variants), 1)
        for number, variant in enumerate(variants):
            rows = shares[shares["variant"].astype(str) == variant].set_index("name")
            rows.index = rows.index.astype(str)
            rows = rows.reindex(names)
            x = np.arange(len(names), dtype=np.float64) + (number - (len(variants) - 1) / 2) * slot
            _draw_expected(ax, x, rows, 0.45 * slot, label=number == 0)
            y, low, high = (100 * rows[c].to_numpy(dtype=float) for c in ("share", "share_low", "share_high"))
            error = np.nan_to_num(np.vstack([y - low, high - y]), nan=0.0)
            look = style[variant]
            ax.errorbar(
                x, y, yerror_or_none(error), fmt=look.marker, color=look.colour, label=plain(variant),
                markersize=6 if len(names) <= 12 else 3, zorder=3,
            )  # fmt: skip
        _label_names(ax, names, by)
        ax.set_ylabel("share of connections (%)")
        top = np.nanmax(np.r_[100 * shares["share"], 100 * shares["share_high"], 1e-9])
        ax.set_ylim(-0.04 * top, 1.12 * top)
        ax.grid(visible=False, axis="x")
        repeats = int(result.summary["repeats"].min())
        note = "95 % interval over repeats" if repeats > 1 else "one repeat, no interval"
        ax.set_title(f"Load of {_TITLES[by]} ({note}){_newline(point_text(point))}", loc="left")
        legend_below(ax)
    return ax


def yerror_or_none(error: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return error bars, or None where there is none to draw."""
    return error if np.any(error > 0) else None


def _draw_expected(ax: Axes, x: NDArray[np.float64], rows: pd.DataFrame, half: float, *, label: bool) -> None:
    p, n = rows["expected_share"].to_numpy(dtype=float), rows["n"].to_numpy(dtype=float)
    known = ~np.isnan(p) & (n > 0)
    if not known.any():
        return
    x, p, n = x[known], p[known], n[known]
    band = 100 * 1.96 * np.sqrt(p * (1 - p) / n)
    ax.bar(
        x, 2 * band, 2 * half, bottom=100 * p - band, color="#bbbbbb", alpha=0.7, zorder=1, linewidth=0,
        label="range of chance (95 %)" if label else "_nolegend_",
    )  # fmt: skip
    ax.hlines(
        100 * p, x - half, x + half, color="black", linewidth=1.0, zorder=2, label="expected" if label else "_nolegend_"
    )


def _label_names(ax: Axes, names: list[str], by: str) -> None:
    shown, axis = list(names), {"pod": "pod", "serving_node": "serving node", "entry_node": "entry node"}[by]
    namespaces = {name.partition("/")[0] for name in names}
    if by == "pod" and len(namespaces) == 1 and all("/" in name for name in names):
        shown = [name.partition("/")[2] for name in names]
        axis = f"pod, in namespace {next(iter(namespaces))}"
    step = -(-len(names) // _LABELLED)
    longest = max((len(name) for name in shown), default=0)
    width = ax.get_window_extent().width / ax.figure.dpi  # inches
    crowded = longest * len(names) / step > 11 * width
    size = 8 if len(names) / step * 0.17 < width else 6.5
    ax.set_xticks(
        range(0, len(names), step),
        [plain(name) for name in shown[::step]],
        rotation=90 if crowded else 0,
        fontsize=size,
    )
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_xlabel(plain(axis))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts p2 before p10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def at_point(frame: pd.DataFrame, point: Mapping[str, object]) -> pd.DataFrame:
    """Return the rows of one sweep point."""
    for name, value in point.items():
        frame = frame[frame[name] == (value if not isinstance(value, list | dict) else str(value))]
    return frame


def _newline(text: str) -> str:
    return f"\n{text}" if text else ""
