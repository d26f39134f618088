"""How evenly a load is spread, and how much unevenness chance alone would make.

Plain arrays in, plain numbers out. Count connections, never packets or requests: those of one connection are
not independent, and every test below would call the most even load uneven. Sources:
docs/models/statistics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

MIN_EXPECTED = 5.0  # connections a cell; below it the chi-square distribution does not describe X^2


def coefficient_of_variation(load: ArrayLike) -> float:
    """Return sigma / mu with the population's sigma; 0: even. NaN where there is no load."""
    x = np.asarray(load, dtype=np.float64)
    mean = x.mean() if len(x) else 0.0
    return float(x.std() / mean) if mean > 0 else float("nan")


def noise_floor(endpoints: int, connections: float) -> float:
    """Return the CoV to expect of equal shares by chance alone, sqrt((E - 1) / N)."""
    return float(np.sqrt((endpoints - 1) / connections)) if endpoints and connections > 0 else float("nan")


def expected_cov(shares: ArrayLike, connections: float) -> float:
    """Return the CoV to expect of these shares after N independent connections: structure and chance
    together.

    Root of the mean of Var(x_i) + (N p_i - mu)^2 over mu^2; for equal shares that is the noise floor.
    """
    p = np.asarray(shares, dtype=np.float64)
    if not len(p) or connections <= 0:
        return float("nan")
    mean = connections / len(p)
    spread = connections * p * (1 - p) + (connections * p - mean) ** 2
    return float(np.sqrt(spread.mean()) / mean)


def jain(load: ArrayLike) -> float:
    """Return Jain's index (sum x)^2 / (E sum x^2): 1 even, 1/E one takes all; equals 1 / (1 + CoV^2)."""
    x = np.asarray(load, dtype=np.float64)
    squares = float(np.square(x).sum())
    return float(x.sum()) ** 2 / (len(x) * squares) if squares > 0 else float("nan")


def max_over_mean(load: ArrayLike) -> float:
    """Return the hottest endpoint's load over the mean: capacity is lost to it."""
    x = np.asarray(load, dtype=np.float64)
    return float(x.max() / x.mean()) if len(x) and x.sum() > 0 else float("nan")


def min_over_mean(load: ArrayLike) -> float:
    """Return the coolest endpoint's load over the mean."""
    x = np.asarray(load, dtype=np.float64)
    return float(x.min() / x.mean()) if len(x) and x.sum() > 0 else float("nan")


def total_variation(load: ArrayLike, shares: ArrayLike) -> float:
    """Return the share of the load that sits on the wrong endpoint, half of sum |x_i / N - p_i|."""
    x = np.asarray(load, dtype=np.float64)
    total = x.sum()
    if not total > 0:
        return float("nan")
    return float(np.abs(x / total - np.asarray(shares, dtype=np.float64)).sum() / 2)


@dataclass(frozen=True, slots=True)
class Fit:
    """Pearson's chi-square of observed connections against expected shares."""

    chi2: float  # X^2; infinite where a connection reached an endpoint with an expected share of 0
    df: int  # endpoints with a share, less 1
    valid: bool  # every expected count is at least 5, so the p-value means something

    @property
    def dispersion(self) -> float:
        """X^2 / df: about 1 chance, much more structure (affinity, NAT, keep-alive), much less round
        robin.
        """
        return self.chi2 / self.df if self.df > 0 else float("nan")

    @property
    def p(self) -> float:
        """Chance of so large an X^2 if the shares hold; NaN where an expected count is below 5."""
        return chi_square_p(self.chi2, self.df) if self.valid else float("nan")


def chi_square_fit(connections: ArrayLike, shares: ArrayLike) -> Fit:
    """Return Pearson's statistic; shares that are NaN (no closed form) give a Fit of NaN."""
    x = np.asarray(connections, dtype=np.float64)
    p = np.asarray(shares, dtype=np.float64)
    total = float(x.sum())
    if not len(x) or total <= 0 or np.isnan(p).any():
        return Fit(float("nan"), 0, False)
    reached = p > 0
    expected = total * p[reached]
    if x[~reached].sum() > 0:
        return Fit(float("inf"), max(int(reached.sum()) - 1, 1), bool((expected >= MIN_EXPECTED).all()))
    chi2 = float((np.square(x[reached] - expected) / expected).sum())
    return Fit(chi2, int(reached.sum()) - 1, bool((expected >= MIN_EXPECTED).all()))


def chi_square_p(chi2: float, df: float) -> float:
    """Return P(X^2 >= chi2) with df degrees of freedom; NaN without any."""
    if not df > 0 or np.isnan(chi2):
        return float("nan")
    return 0.0 if np.isinf(chi2) else float(special.chdtrc(df, chi2))


def equal_shares(endpoints: int) -> NDArray[np.float64]:
    """Return 1/E for each endpoint."""
    return np.full(endpoints, 1.0 / endpoints if endpoints else 0.0)
