"""Is one variant better than another? Paired differences of repeats that met the same clients, arrivals and
sizes.

D_r = A_r - B_r for repeat r; Student's interval and test on D, p-values adjusted by Holm over all pairs and
sweep points of a measure, and the variance ratio (Var A + Var B) / Var D as the proof that common random
numbers helped. "No difference at this n" is a result; an interval is not adjusted, the verdict is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from simnet.analysis.intervals import PairedDifference, holm, paired_difference
from simnet.analysis.measures import MEASURES

COMPARED = (
    "l3_hops_mean",
    "links_mean",
    "reply_l3_hops_mean",
    "reply_links_mean",
    "cross_node_share",
    "snat_share",
    "source_hidden_share",
    "answered_share",
    "pod_cov",
    "serving_node_cov",
    "entry_node_cov",
    "rules_scanned_mean",
    "delay_mean_us",
    "delay_p50_us",
    "delay_p99_us",
)
SIGNIFICANCE = 0.05


def paired_differences(
    measures: pd.DataFrame,
    sweep: Sequence[str] = (),
    *,
    compared: Sequence[str] = COMPARED,
    pair: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Return the differences between variants, a row a sweep point, pair and measure.

    Columns: swept variables, measure, unit, a, b, mean_a, mean_b, difference (a - b), low, high (95 %), p,
    p_holm, variance_ratio, repeats, verdict. All pairs of variants, or the one named.
    """
    variants = list(dict.fromkeys(measures["variant"].astype(str)))
    pairs = [pair] if pair is not None else list(combinations(variants, 2))
    if unknown := {name for names in pairs for name in names} - set(variants):
        raise ValueError(f"no variant {sorted(unknown)[0]!r}; there are {', '.join(variants)}")
    units = {column.name: column.unit for column in MEASURES}
    plain = measures.assign(variant=measures["variant"].astype(str))
    points = plain.groupby(list(sweep), sort=False, observed=True) if sweep else [((), plain)]
    rows = []
    for point, group in points:
        by_variant = {v: part.set_index("repeat") for v, part in group.groupby("variant", sort=False)}
        for a, b in pairs:
            if a not in by_variant or b not in by_variant:
                continue
            both = by_variant[a].index.intersection(by_variant[b].index)
            for name in compared:
                x = by_variant[a].loc[both, name].to_numpy(dtype=np.float64)
                y = by_variant[b].loc[both, name].to_numpy(dtype=np.float64)
                d = paired_difference(x, y)
                means = [float(np.mean(v)) if len(v) else float("nan") for v in (x, y)]
                figures = (d.mean, d.low, d.high, d.p, d.variance_ratio, d.repeats)
                rows.append([*point, name, units.get(name, ""), a, b, *means, *figures])
    names = [*sweep, "measure", "unit", "a", "b", "mean_a", "mean_b", "difference", "low", "high", "p"]
    frame = pd.DataFrame(rows, columns=[*names, "variance_ratio", "repeats"])
    adjusted = np.full(len(frame), np.nan)
    for positions in frame.groupby("measure", sort=False).indices.values():
        adjusted[positions] = holm(frame["p"].to_numpy()[positions])
    frame.insert(list(frame.columns).index("p") + 1, "p_holm", adjusted)
    frame["verdict"] = [
        verdict(a, PairedDifference(float(d), float(low), float(high), float(p), float(ratio), int(n)), unit)
        for a, unit, d, low, high, p, ratio, n in frame[
            ["a", "unit", "difference", "low", "high", "p_holm", "variance_ratio", "repeats"]
        ].itertuples(index=False, name=None)
    ]
    return frame


def verdict(a: str, difference: PairedDifference, unit: str = "", significance: float = SIGNIFICANCE) -> str:
    """Return what a difference a - b allows to say, in words; `difference.p` is the adjusted p-value."""
    if difference.repeats == 0:
        return "not comparable: no repeat in which both have a value"
    if difference.repeats == 1:
        return "one repeat: no interval, so no verdict"
    if not difference.p < significance:
        return f"no difference at this n ({difference.repeats} repeats)"
    direction = "lower" if difference.mean < 0 else "higher"
    low, high = sorted((abs(difference.low), abs(difference.high)))
    space = f" {unit}" if unit else ""
    return f"{a} {direction} by {number(abs(difference.mean))}{space} (95 % CI {number(low)} to {number(high)})"


def number(value: float) -> str:
    """Return a figure with three significant digits, without an exponent between 0.0001 and a million."""
    if value == 0 or not np.isfinite(value):
        return "0" if value == 0 else str(value)
    if 1e-4 <= abs(value) < 1e6:
        digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
        text = f"{value:.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.3g}"
