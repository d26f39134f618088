"""How every figure looks: a style context (no global settings), colours that colour-blind readers tell apart,
and markers.

Figures are made with matplotlib's object interface, so no window system and no pyplot state is touched; any
Axes is accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simnet.errors import ResultError
from simnet.results.recorded_runs import RecordedRuns

# M. Okabe, K. Ito, "Color universal design", 2008; the order keeps neighbours apart in grey as well.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
COLUMN_WIDTH = 5.2  # inches: at a column's width the smallest text is still 7 points

RC: dict[str, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "errorbar.capsize": 2.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "simnet",
}

TITLE_CHARACTERS = 58  # of a title's line in a figure of the usual width


@contextmanager
def figure_style() -> Iterator[None]:
    """Apply simnet's style inside a `with` block and leave the user's settings as they were."""
    with matplotlib.rc_context(cast(Any, RC)):
        yield


def new_axes(width: float = COLUMN_WIDTH, height: float = 3.2) -> Axes:
    """Return the Axes of a new figure; `ax.figure` shows or saves it."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


@dataclass(frozen=True, slots=True)
class Look:
    """How one variant is drawn in every figure of a result."""

    colour: str
    marker: str
    hatch: str


def looks(variants: Sequence[str]) -> dict[str, Look]:
    """Return the look of each variant by its place in the experiment."""
    return {
        v: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], HATCHES[i % len(HATCHES)])
        for i, v in enumerate(variants)
    }


def are_quantities(values: Iterable[object]) -> bool:
    """Whether swept values are numbers or quantities (`1000/s`), between which a line means something."""
    return all(isinstance(v, int | float | np.number) or (isinstance(v, str) and v[:1].isdigit()) for v in values)


def plain(text: object) -> str:
    """Return text that matplotlib shows as it is: a dollar sign does not begin a formula."""
    return str(text).replace("$", r"\$")


def sweep_point(result: RecordedRuns, at: Mapping[str, object] | None, *, free: Sequence[str] = ()) -> dict[str, Any]:
    """Return the sweep point to draw: the values of `at`, else those of the first run; not for variables in
    `free`.

    ResultError where no run is there, or `at` names a variable that is not swept.
    """
    wanted = dict(at or {})
    if unknown := set(wanted) - set(result.sweep):
        raise ResultError(f"{sorted(unknown)[0]} is not swept; swept are: {', '.join(result.sweep) or 'none'}")
    for manifest in result.manifests:
        point = {name: manifest["sweep"].get(name) for name in result.sweep}
        if all(point[name] == value for name, value in wanted.items()):
            return {name: value for name, value in point.items() if name not in free}
    described = ", ".join(f"{name} = {value}" for name, value in wanted.items())
    raise ResultError(f"no run has {described}")


def point_text(point: Mapping[str, object]) -> str:
    """Return a sweep point as a title shows it, in lines that a figure has room for."""
    lines: list[str] = []
    for pair in (f"{name} = {value}" for name, value in point.items()):
        if lines and len(lines[-1]) + len(pair) < TITLE_CHARACTERS:
            lines[-1] += f", {pair}"
        else:
            lines.append(pair)
    return plain(",\n".join(lines))


def legend_below(ax: Axes, columns: int = 3) -> None:
    """Put the legend under a figure of our own, where it hides nothing; in another's figure, where there is
    room.
    """
    handles, labels = ax.get_legend_handles_labels()
    figure = ax.figure
    if isinstance(figure, Figure) and len(figure.axes) == 1 and figure.get_layout_engine() is not None:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), columns))
    else:
        ax.legend(handles, labels, loc="best")
