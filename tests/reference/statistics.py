"""The figures of a run, computed flow by flow: slow and obviously right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def share(flows: Sequence[Mapping[str, Any]], has: str, among: str | None = None) -> float:
    """Share of flows that have a property, among those delivered, or all."""
    asked = [f for f in flows if not f["warmup"] and (among is None or f["verdict"] == among)]
    return sum(bool(f[has]) for f in asked) / len(asked)


def mean(flows: Sequence[Mapping[str, Any]], of: str, *, where: str) -> float:
    """Mean over flows that are `delivered` or `answered`."""
    asked = [f for f in flows if not f["warmup"] and (f["answered"] if where == "answered" else f["verdict"] == where)]
    return sum(f[of] for f in asked) / len(asked)


def failures(flows: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """How many flows failed for which reason."""
    return Counter(f["reason"] for f in flows if not f["warmup"] and f["reason"])


def cov(load: Sequence[float]) -> float:
    """Coefficient of variation by its definition."""
    mu = sum(load) / len(load)
    return math.sqrt(sum((x - mu) ** 2 for x in load) / len(load)) / mu


def chi2(load: Sequence[float], shares: Sequence[float]) -> float:
    """Pearson's X^2 by its definition."""
    n = sum(load)
    return sum((x - n * p) ** 2 / (n * p) for x, p in zip(load, shares, strict=True))


def hash_threshold_moved(n: int, gone: int, points: int = 400_000) -> float:
    """Share of hash values that change hop when hop `gone` of n equal regions goes away, counted point by point."""
    rest = [hop for hop in range(n) if hop != gone]
    moved = 0
    for i in range(points):
        h = (i + 0.5) / points
        moved += int(h * n) != rest[int(h * (n - 1))]
    return moved / points


def mser_cut(series: Sequence[float], batch: int = 5) -> int:
    """MSER by its definition; the cut in batches, among those that leave more than five."""
    m = len(series) // batch
    z = [sum(series[i * batch : (i + 1) * batch]) / batch for i in range(m)]

    def score(d: int) -> float:
        rest = z[d:]
        mu = sum(rest) / len(rest)
        return sum((x - mu) ** 2 for x in rest) / len(rest) ** 2

    return min(range(m - batch), key=score)
