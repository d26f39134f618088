"""The answer in sentences: which entry point is better at what, by how much, and where there is no
difference.

Every figure is a mean over repeats with its 95 % interval; every comparison is paired and adjusted
(differences.py). A sentence is made for each measure and pair of variants; over a sweep it counts the sweep
points at which the difference holds and gives the range.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from simnet.analysis.differences import SIGNIFICANCE, number

# measure -> what it is called in a sentence, and its unit
QUESTIONS: dict[str, tuple[str, str]] = {
    "l3_hops_mean": ("router hops of a request", ""),
    "reply_l3_hops_mean": ("router hops of a reply", ""),
    "links_mean": ("wires that a request crosses", ""),
    "cross_node_share": ("share of flows served on another node than they entered", "%"),
    "pod_cov": ("load spread over pods (CoV)", ""),
    "serving_node_cov": ("load spread over serving nodes (CoV)", ""),
    "entry_node_cov": ("load spread over entry nodes (CoV)", ""),
    "snat_share": ("share of flows with the source rewritten (SNAT)", "%"),
    "source_hidden_share": ("share of flows whose client the pod cannot see", "%"),
    "rules_scanned_mean": ("iptables rules scanned for a new connection", ""),
    "delay_p50_us": ("median path delay", "us"),
    "delay_p99_us": ("99th percentile of the path delay", "us"),
    "answered_share": ("share of flows answered", "%"),
}
NOT_MODELLED = (
    "races in the kernel's connection tracking, receive-side scaling, NAPI and interrupt placement",
    "the CPU time that a rule costs: rules scanned are counted, not turned into delay",
    "TCP's congestion control and retransmission: a lost packet stays lost",
    "time in the pod: delays are those of the path",
)


def conclusions(summary: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """Return sentences that answer which entry point is more efficient, in order of `QUESTIONS`.

    `summary` from `summarise`, `differences` from `paired_differences`. With one repeat, or one variant, it
    says so.
    """
    repeats = int(summary["repeats"].min())
    sentences = _checks(summary)
    if summary["variant"].nunique() < 2:
        return [*sentences, "There is one variant, so nothing to compare."]
    if repeats < 2:
        sentences.append("There is one repeat: the figures have no interval, so no difference can be claimed.")
    for measure in QUESTIONS:
        of_measure = differences[differences["measure"] == measure]
        for (a, b), pair in of_measure.groupby(["a", "b"], sort=False, observed=True):
            sentences.append(_sentence(measure, str(a), str(b), pair))
    return sentences


def _checks(summary: pd.DataFrame) -> list[str]:
    """Say first what would make every comparison worthless: flows that were not answered."""
    sentences = []
    for variant, rows in summary.groupby("variant", sort=False, observed=True):
        missing = 1 - rows["answered_share"]
        if (missing > 0).any():
            points = f" at {int((missing > 0).sum())} of {len(rows)} sweep points" if len(rows) > 1 else ""
            sentences.append(
                f"{variant}: up to {_figure(float(missing.max()), '%')} of the flows got no answer{points}; "
                "the figures on hops, nodes, SNAT and delay are those of the flows that were delivered."
            )
    return sentences


def _sentence(measure: str, a: str, b: str, pair: pd.DataFrame) -> str:
    name, unit = QUESTIONS[measure]
    title = name[0].upper() + name[1:]
    if len(pair) == 1:
        return f"{title}: {_one_point(a, b, pair.iloc[0], unit)}."
    known = pair[pair["repeats"] > 0]
    significant = known["p_holm"] < SIGNIFICANCE
    lower, higher = known[significant & (known["difference"] < 0)], known[significant & (known["difference"] > 0)]
    points = len(pair)
    if not len(known):
        return f"{title}: {a} and {b} cannot be compared, no sweep point has a figure for both."
    if known["p_holm"].isna().all():
        spans = ", ".join(f"{v} {_range(known[c], unit)}" for v, c in ((a, "mean_a"), (b, "mean_b")))
        return f"{title}: {spans} over {points} sweep points; one repeat, so no verdict."
    if (known["difference"] == 0).all() and (known["low"] == known["high"]).all():
        return f"{title}: {a} and {b} are the same in every repeat ({_range(known['mean_a'], unit)})."
    if not len(lower) and not len(higher):
        widest = float(np.nanmax(np.abs(known[["low", "high"]].to_numpy())))
        return (
            f"{title}: no difference between {a} and {b} at any of {points} sweep points "
            f"(a difference beyond {_figure(widest, unit)} would lie outside every 95 % CI)."
        )
    parts = []
    for rows, word in ((lower, "lower"), (higher, "higher")):
        if len(rows):
            ends = np.abs(rows[["low", "high"]].to_numpy())
            parts.append(
                f"{a} is {word} than {b} at {len(rows)} of {points} sweep points, by "
                f"{_range(rows['difference'].abs(), unit)} (95 % CIs within "
                f"{_figure(float(ends.min()), unit)} to {_figure(float(ends.max()), unit)})"
            )
    if rest := points - len(lower) - len(higher):
        parts.append(f"no difference at this n at {rest}")
    return f"{title}: {'; '.join(parts)}."


def _one_point(a: str, b: str, row: pd.Series, unit: str) -> str:
    means = f"{a} {_figure(row['mean_a'], unit)}, {b} {_figure(row['mean_b'], unit)}"
    if row["repeats"] == 0:
        return f"{a} and {b} cannot be compared, one of them has no figure"
    if row["repeats"] == 1:
        return f"{means}; one repeat, so no verdict"
    ends = f"95 % CI of the difference {_figure(row['low'], unit)} to {_figure(row['high'], unit)}"
    if row["difference"] == 0 and row["low"] == row["high"]:
        return f"{a} and {b} are the same in every repeat ({_figure(row['mean_a'], unit)})"
    if not row["p_holm"] < SIGNIFICANCE:
        return f"no difference at this n between {a} and {b} ({means}; {ends}, {int(row['repeats'])} repeats)"
    word = "lower" if row["difference"] < 0 else "higher"
    by = _figure(abs(row["difference"]), unit)
    return f"{a} is {word} than {b} by {by} ({means}; {ends}, {int(row['repeats'])} repeats)"


def _figure(value: float, unit: str) -> str:
    if not np.isfinite(value):
        return "no figure"
    if unit == "%":
        return f"{number(value * 100)} %"
    return f"{number(value)} {unit}".strip()


def _range(values: pd.Series, unit: str) -> str:
    low, high = _figure(float(values.min()), unit), _figure(float(values.max()), unit)
    return low if low == high else f"{low} to {high}"
