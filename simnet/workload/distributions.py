"""Whole numbers (packets, bytes, picoseconds) from a distribution, with exactly the mean that was asked for.

A law is made once: the scale of the continuous distribution is solved such that the mean *after* clamping to
the allowed range is the mean that was given. Two ways to whole numbers: `rounded_at_random` goes up with the
probability of the fraction, which keeps the mean; `rounded_to_nearest` is for picoseconds, where half a unit
does not matter.
Modelled: independent numbers. Left out: correlation of sizes and gaps within a flow.
Source: inverse transform throughout; E[min(X, c)] of each law by integration of its tail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simnet import exact_math
from simnet.model.workload import (
    Constant,
    Distribution,
    Empirical,
    Exponential,
    Lognormal,
    Pareto,
    Uniform,
)

_BISECTIONS = 200


@dataclass(frozen=True, slots=True)
class Law:
    """A distribution ready to draw from, made by `law`.

    `scale` is the solved parameter: the exponential's mean, the Pareto's smallest value, the lognormal's
    median.
    """

    distribution: Distribution
    lower: int
    upper: int
    scale: float

    @property
    def is_whole(self) -> bool:
        """Whether the quantile is a whole number already, so that no rounding is needed."""
        return isinstance(self.distribution, Constant | Uniform | Empirical)


@lru_cache(maxsize=256)
def law(distribution: Distribution, lower: int, upper: int) -> Law:
    """Return the law of `distribution` on [lower, upper] whose mean, after clamping, is the given one.

    Raises ValueError, in words for a user, where values or mean do not fit the range.
    """
    match distribution:
        case Constant(value):
            _require_inside("value", value, value, lower, upper)
            return Law(distribution, lower, upper, float(value))
        case Uniform(low, high):
            _require_inside("low", low, low, lower, upper)
            _require_inside("high", high, high, lower, upper)
            return Law(distribution, lower, upper, float(low))
        case Empirical(values, _):
            _require_inside("values", min(values), max(values), lower, upper)
            return Law(distribution, lower, upper, 0.0)
    if not lower < distribution.mean < upper:
        raise ValueError(f"mean is {distribution.mean:g}, expected above {lower} and below {upper}")
    capped = _capped_mean(distribution)
    highest = float(upper)
    if isinstance(distribution, Pareto) and distribution.maximum is not None:
        if not distribution.mean < distribution.maximum <= upper:
            raise ValueError(f"maximum is {distribution.maximum}, expected above the mean, at most {upper}")
        highest = float(distribution.maximum)

    def mean_of_clamped(scale: float) -> float:
        return lower + capped(scale, highest) - (capped(scale, float(lower)) if lower > 0 else 0.0)

    bounded = isinstance(distribution, Pareto) and distribution.maximum is not None
    scale = _solve(mean_of_clamped, distribution.mean, highest if bounded else None)
    return Law(distribution, lower, upper, scale)


def quantile(law: Law, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the value below which a share `uniform` of the law lies, clamped to its range; float64[n] in
    and out.

    `uniform` lies in [0, 1), and in (0, 1) for a lognormal. What is returned for a continuous law is not
    rounded.
    """
    match law.distribution:
        case Constant(value):
            return np.full(uniform.shape, float(value))
        case Uniform(low, high):
            whole: NDArray[np.float64] = low + np.floor(uniform * float(high - low + 1))
            return whole
        case Empirical(values, weights):
            total = np.cumsum(np.array(weights, np.float64))
            row = np.searchsorted(total, uniform * total[-1], side="right")
            # A product that rounds up to the total stays with the last value that has any weight.
            last = int(np.flatnonzero(np.array(weights) > 0.0)[-1])
            chosen: NDArray[np.float64] = np.array(values, np.float64)[np.minimum(row, last)]
            return chosen
        case Exponential(_):
            number = exact_math.log(1.0 - uniform)
            number *= -law.scale
        case Lognormal(_, sigma):
            standard = exact_math.normal_quantile(uniform)
            number = exact_math.exp(standard * sigma)
            number *= law.scale
        case Pareto(_, alpha, maximum):
            tail = 1.0 - uniform
            if maximum is not None:
                beyond = exact_math.power(law.scale / maximum, alpha)
                tail = 1.0 - uniform * (1.0 - beyond)
            number = exact_math.power(tail, -1.0 / alpha)
            number *= law.scale
            if maximum is not None:
                np.minimum(number, float(maximum), out=number)
    np.clip(number, float(law.lower), float(law.upper), out=number)
    return number


def mean_of(distribution: Distribution) -> float:
    """Return the mean of a distribution."""
    if isinstance(distribution, Constant):
        return float(distribution.value)
    if isinstance(distribution, Uniform):
        return (distribution.low + distribution.high) / 2
    if isinstance(distribution, Empirical):
        weighted = sum(v * w for v, w in zip(distribution.values, distribution.weights, strict=True))
        return float(weighted / sum(distribution.weights))
    return distribution.mean


def rounded_at_random(value: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the whole number below the value, or the one above with the value's fraction as probability.

    Its mean, over `uniform` in [0, 1), is the value; a whole number stays itself.
    """
    whole = np.floor(value)
    fraction = value - whole  # exact, where floor(value + uniform) would round up next to a whole number
    whole += uniform < fraction
    return whole.astype(np.int64)


def rounded_to_nearest(value: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the nearest whole number, ties to even."""
    return np.rint(value).astype(np.int64)


def _require_inside(field: str, low: float, high: float, lower: int, upper: int) -> None:
    if low < lower or high > upper:
        raise ValueError(f"{field} is {low if low < lower else high}, expected from {lower} to {upper}")


def _capped_mean(distribution: Exponential | Lognormal | Pareto) -> Callable[[float, float], float]:
    """Return E[min(X, cap)] as a function of (scale, cap), cap > 0.

    The integral of P(X > t) from 0 to cap.
    """
    match distribution:
        case Exponential():
            return lambda scale, cap: scale * (1.0 - _exp(-cap / scale))
        case Lognormal(_, sigma):
            return lambda scale, cap: _lognormal_capped_mean(scale, sigma, cap)
        case Pareto(_, alpha, maximum):
            return lambda scale, cap: _pareto_capped_mean(scale, alpha, maximum, cap)


def _lognormal_capped_mean(median: float, sigma: float, cap: float) -> float:
    z = _log(cap / median) / sigma
    mean = median * _exp(0.5 * sigma * sigma)
    return mean * _normal_share_below(z - sigma) + cap * _normal_share_below(-z)


def _pareto_capped_mean(scale: float, alpha: float, maximum: int | None, cap: float) -> float:
    if cap <= scale:
        return cap
    if abs(alpha - 1.0) < 1e-9:
        integral = scale * _log(cap / scale)
    else:
        integral = scale * (_exp((1.0 - alpha) * _log(cap / scale)) - 1.0) / (1.0 - alpha)
    if maximum is None:
        return scale + integral
    beyond = _exp(alpha * _log(scale / maximum))
    return scale + (integral - beyond * (cap - scale)) / (1.0 - beyond)


def _solve(mean_of: Callable[[float], float], mean: float, below: float | None) -> float:
    """Return the scale at which an increasing function reaches the mean, by bisection to the last bit."""
    low, high = mean, mean
    while low > 1e-290 and mean_of(low) > mean:
        low *= 0.5
    if below is not None:
        high = below
    else:
        while high < 1e290 and mean_of(high) < mean:
            high *= 2.0
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if mean_of(middle) < mean:
            low = middle
        else:
            high = middle
    return low


def _exp(value: float) -> float:
    return float(exact_math.exp(value))


def _log(value: float) -> float:
    return float(exact_math.log(value))


def _normal_share_below(z: float) -> float:
    """P(Z <= z) for a standard normal Z, to about 1e-16.

    Source: G. Marsaglia, "Evaluating the normal distribution", Journal of Statistical Software 11 (2004):
    the series 1/2 + density(z) * (z + z^3/3 + z^5/(3 * 5) + ...). math.erf is not used, as it differs
    between C libraries.
    """
    if abs(z) > 8.5:  # beyond: 1e-17
        return 0.0 if z < 0.0 else 1.0
    term = total = z
    divisor = 1.0
    while abs(term) > 1e-18 * abs(total):
        divisor += 2.0
        term *= z * z / divisor
        total += term
    return 0.5 + total * _exp(-0.5 * z * z) * 0.3989422804014327  # 1 / sqrt(2 pi)
