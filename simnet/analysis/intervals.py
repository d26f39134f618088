"""Confidence intervals and tests: over repeated runs, of proportions, of quantiles, of differences.

Runs are the sample, flows and packets are not: those of one run share its clients and its queues.
Hand-written on scipy.special, which imports in a third of the time of scipy.stats; tests hold them to
scipy.stats. Sources: docs/models/statistics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

CONFIDENCE = 0.95
_ROUNDING = 1e-12  # relative: differences below it are the sums' rounding, not an effect


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its bounds; the bounds are NaN where there is no honest interval."""

    mean: float
    low: float
    high: float


def t_interval(sample: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean over runs and Student's interval; with fewer than two runs the bounds are NaN."""
    x = np.asarray(sample, dtype=np.float64)
    x = x[~np.isnan(x)]
    if not len(x):
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(x.mean())
    if len(x) < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = _t_quantile(len(x) - 1, confidence) * float(x.std(ddof=1)) / float(np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half)


def _t_quantile(df: int, confidence: float) -> float:
    return float(special.stdtrit(df, 0.5 + confidence / 2))


def wilson(successes: float, trials: float, confidence: float = CONFIDENCE) -> Interval:
    """Return a proportion and Wilson's score interval; it stays inside [0, 1] and is never empty at 0 or
    1.
    """
    if trials <= 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    z = float(special.ndtri(0.5 + confidence / 2))
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * float(np.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))) / (1 + z * z / trials)
    low = 0.0 if successes <= 0 else max(0.0, centre - half)
    high = 1.0 if successes >= trials else min(1.0, centre + half)
    return Interval(p, low, high)


def quantile_ranks(n: int, p: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Return ranks j < k (from 1) such that the order statistics x_(j), x_(k) enclose the p-quantile.

    P(x_(j) <= q_p < x_(k)) = P(j <= B < k) with B binomial(n, p): at least `confidence`, each tail at most
    half the rest. None where n is too small for it: at 95 % the 99th percentile needs 368 samples, the 99.9th
    3,688.
    """
    tail = (1 - confidence) / 2
    ranks = np.arange(n + 1, dtype=np.float64)
    below = special.bdtr(ranks, n, p)  # P(B <= rank), non-decreasing
    j = int(np.searchsorted(below, tail, side="right"))  # the largest j with P(B <= j - 1) <= tail
    k = int(np.searchsorted(below, 1 - tail, side="left")) + 1  # the smallest k with P(B <= k - 1) >= 1 - tail
    return (j, k) if 1 <= j < k <= n else None


def quantile_interval(sample: ArrayLike, p: float, confidence: float = CONFIDENCE) -> Interval:
    """Return the p-quantile of independent samples and its interval by order statistics; NaN bounds where n
    is too small.
    """
    x = np.sort(np.asarray(sample, dtype=np.float64), kind="stable")
    if not len(x):
        return Interval(float("nan"), float("nan"), float("nan"))
    estimate = float(np.quantile(x, p))
    ranks = quantile_ranks(len(x), p, confidence)
    if ranks is None:
        return Interval(estimate, float("nan"), float("nan"))
    return Interval(estimate, float(x[ranks[0] - 1]), float(x[ranks[1] - 1]))


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A - B over repeats that met the same clients, arrivals and sizes."""

    mean: float
    low: float
    high: float
    p: float  # paired t-test, two-sided; NaN with one repeat
    variance_ratio: float  # (Var A + Var B) / Var(A - B): what common random numbers gained; NaN where nothing varies
    repeats: int


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE) -> PairedDifference:
    """Return the mean of A_r - B_r with Student's interval and test; element r of both is repeat r.

    Where every repeat gives the same difference, the interval is a point, p is 0 (or 1 if that difference is
    0) and the ratio infinite. Repeats in which either is NaN are left out.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    there = ~(np.isnan(x) | np.isnan(y))
    x, y = x[there], y[there]
    if not len(x):
        nan = float("nan")
        return PairedDifference(nan, nan, nan, nan, nan, 0)
    d = x - y
    d = np.where(np.abs(d) <= _ROUNDING * np.maximum(np.abs(x), np.abs(y)), 0.0, d)
    interval = t_interval(d, confidence)
    if len(d) < 2:
        return PairedDifference(interval.mean, interval.low, interval.high, float("nan"), float("nan"), len(d))
    if np.ptp(d) <= _ROUNDING * float(np.abs(d).max()):  # no difference between the differences
        mean = float(d[0])
        varies = bool(x.var() > 0)
        return PairedDifference(
            mean, mean, mean, 0.0 if mean else 1.0, float("inf") if varies else float("nan"), len(d)
        )
    variance = float(d.var(ddof=1))
    t = interval.mean / float(np.sqrt(variance / len(d)))
    p = float(2 * special.stdtr(len(d) - 1, -abs(t)))
    ratio = float((x.var(ddof=1) + y.var(ddof=1)) / variance)
    return PairedDifference(interval.mean, interval.low, interval.high, p, ratio, len(d))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted by Holm's step-down method for the number of tests; NaN stays NaN and does not
    count.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors)) if len(order) else p[order]
    return adjusted
