"""Where the warm-up ends: MSER-5, the cut that makes the rest of the series most precise.

Source: K. P. White, M. J. Cobb, S. C. Spratt, "A comparison of five steady-state truncation heuristics", WSC
2000. It can fail (Wang and Glynn, TOMACS 2016), so draw the series beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

BATCH = 5


@dataclass(frozen=True, slots=True)
class WarmupCut:
    """How many observations to drop; `trusted` is False where the series is too short or still moving."""

    observations: int
    trusted: bool


def mser5(series: ArrayLike) -> WarmupCut:
    """Return the cut d* that minimises sum_(j>d) (Z_j - mean)^2 / (m - d)^2 over batch means Z of five
    observations.

    A cut beyond half of the series means that it had not settled: `trusted` is False. The last observations
    that fill no batch are not looked at.
    """
    x = np.asarray(series, dtype=np.float64)
    batches = len(x) // BATCH
    if batches < 10:
        return WarmupCut(0, False)
    z = x[: batches * BATCH].reshape(batches, BATCH).mean(axis=1)
    z = z - z.mean()  # keeps the difference of sums below exact enough
    left = np.arange(batches, 0, -1)  # m - d
    sums, squares = np.cumsum(z[::-1])[::-1], np.cumsum((z * z)[::-1])[::-1]
    scores = np.maximum(squares - sums * sums / left, 0.0) / left.astype(np.float64) ** 2
    cut = int(np.argmin(scores[: batches - BATCH]))  # the last few batches are too few to judge by
    return WarmupCut(cut * BATCH, cut <= batches // 2)
