"""The answer in sentences: which entry point is better at what, by how much, and where not.

Every figure is a mean over repeats with its 95 % interval; every comparison is paired and adjusted
(differences.py). There is one sentence a measure: the variants from the lowest mean to the highest, and what may be
said of each and the next; over a sweep it counts the points at which a difference holds and gives the range. All pairs
are in `Result.differences`, and `simnet compare` prints them.
"""

from __future__ import annotations

from itertools import pairwise

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
    "delay_mean_us": ("mean path delay", "us"),
    "delay_p99_us": ("99th percentile of the path delay", "us"),
    "answered_share": ("share of flows answered", "%"),
}
# What is asked as well where packets wait in queues.
RESPONSE = {
    "round_trip_mean_us": ("mean response time, with waiting and service", "us"),
    "round_trip_p99_us": ("99th percentile of the response time", "us"),
}
NOT_MODELLED = (
    "races in the kernel's connection tracking, NAPI and interrupt placement",
    "path MTU discovery: a packet too large for a link is dropped; a flow shares the fate of its first packet",
    "TCP's congestion control and retransmission: a lost packet stays lost",
)
WITHOUT_QUEUES = (
    "waiting, receive-side scaling, time in the pod: delays are those of the path",
    "the CPU time that a rule costs: rules scanned are counted, not turned into delay",
)


def conclusions(summary: pd.DataFrame, differences: pd.DataFrame, *, has_queues: bool = False) -> list[str]:
    """Return sentences that answer which entry point is more efficient, in order of `QUESTIONS`.

    `summary` from `summarise`, `differences` from `paired_differences`; `has_queues`: packets waited. With one repeat,
    or one variant, it says so.
    """
    repeats = int(summary["repeats"].min())
    sentences = _checks(summary)
    if summary["variant"].nunique() < 2:
        return [*sentences, "There is one variant, so nothing to compare."]
    if repeats < 2:
        sentences.append("There is one repeat: the figures have no interval, so no difference can be claimed.")
    for measure, (name, unit) in (QUESTIONS | (RESPONSE if has_queues else {})).items():
        if measure in summary:
            of_measure = differences[differences["measure"] == measure]
            sentences.append(_sentence(name, unit, summary[["variant", measure]], of_measure))
    return sentences


def _checks(summary: pd.DataFrame) -> list[str]:
    """Say first what would make every comparison worthless: flows that were not answered."""
    sentences = []
    for variant, rows in summary.groupby("variant", sort=False, observed=True):
        missing = 1 - rows["answered_share"]
        if (missing > 0).any():
            points = f" at {int((missing > 0).sum())} of {len(rows)} sweep points" if len(rows) > 1 else ""
            most = f"{'up to ' if len(rows) > 1 else ''}{_figure(float(missing.max()), '%')}"
            sentences.append(
                f"{variant}: {most} of the flows got no answer{points}; "
                "the figures on hops, nodes, SNAT and delay are those of the flows that were delivered."
            )
    return sentences


def _sentence(name: str, unit: str, summary: pd.DataFrame, differences: pd.DataFrame) -> str:
    """One measure, the last column: every variant's mean, the lowest first, then each against the next one up."""
    measure = summary.columns[-1]
    means = {str(variant): rows for variant, rows in summary.groupby("variant", sort=False, observed=True)[measure]}
    order = sorted(means, key=lambda variant: float(np.nan_to_num(means[variant].mean(), nan=np.inf)))
    figures = ", ".join(f"{variant} {_range(means[variant], unit)}" for variant in order)
    title = f"{name[0].upper()}{name[1:]}: {figures}"
    if differences["p_holm"].isna().all() and not (differences["difference"] == 0).all():
        return f"{title}."
    pairs = [_pair(lower, upper, differences, unit) for lower, upper in pairwise(order)]
    return f"{title} - {'; '.join(pair for pair in pairs if pair)}."


def _pair(lower: str, upper: str, differences: pd.DataFrame, unit: str) -> str:
    """What may be said of two neighbours: at how many sweep points they differ, and by how much."""
    rows = differences[
        ((differences["a"] == lower) & (differences["b"] == upper))
        | ((differences["a"] == upper) & (differences["b"] == lower))
    ]
    known = rows[rows["repeats"] > 1]
    points = len(rows)
    if not len(known):
        return f"{lower} and {upper} cannot be compared"
    turned = np.where(known["a"] == lower, 1.0, -1.0)
    difference = known["difference"].to_numpy() * turned
    significant = (known["p_holm"] < SIGNIFICANCE).to_numpy()
    if (difference == 0).all() and (known["low"] == known["high"]).all():
        return f"{lower} and {upper} are equal in every repeat"
    if not significant.any():
        widest = float(np.abs(known[["low", "high"]].to_numpy()).max())
        where = "" if points == 1 else f" at any of {points} sweep points"
        return f"no difference between {lower} and {upper}{where} (one beyond {_figure(widest, unit)} would show)"
    parts = []
    for chosen, one, other in (
        (significant & (difference < 0), lower, upper),
        (significant & (difference > 0), upper, lower),
    ):
        if chosen.any():
            ends = np.abs(known.loc[chosen, ["low", "high"]].to_numpy())
            where = "" if points == 1 else f" at {int(chosen.sum())} of {points} sweep points"
            by = _range(pd.Series(np.abs(difference[chosen])), unit)
            low, high = _figure(float(ends.min()), unit), _figure(float(ends.max()), unit)
            parts.append(f"{one} is lower than {other} by {by}{where} (95 % CI {low} to {high})")
    return ", ".join(parts)


def _figure(value: float, unit: str) -> str:
    if not np.isfinite(value):
        return "no figure"
    if unit == "%":
        return f"{number(value * 100)} %"
    return f"{number(value)} {unit}".strip()


def _range(values: pd.Series, unit: str) -> str:
    low, high = _figure(float(values.min()), unit), _figure(float(values.max()), unit)
    return low if low == high else f"{low} to {high}"
