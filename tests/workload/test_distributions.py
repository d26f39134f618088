"""Packets, bytes and gaps: the means asked for, the laws asked for, and whole numbers inside their range."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from simnet import random_streams
from simnet.model.workload import Constant, Empirical, Exponential, Lognormal, Pareto, Uniform
from simnet.workload.distributions import law, quantile, rounded_at_random, rounded_to_nearest

P_VALUE_AT_FOUR_SIGMA = 6.3e-5
DRAWS = 300_000


def survival(law_made, t):
    """P(X > t) before clamping, by scipy and closed forms; only the solved scale is simnet's."""
    t = np.asarray(t, float)
    match law_made.distribution:
        case Exponential():
            return stats.expon.sf(t, scale=law_made.scale)
        case Lognormal(_, sigma):
            return stats.lognorm.sf(t, sigma, scale=law_made.scale)
        case Pareto(_, alpha, None):
            return stats.pareto.sf(t, alpha, scale=law_made.scale)
        case Pareto(_, alpha, maximum):
            return stats.truncpareto.sf(t, alpha, maximum / law_made.scale, scale=law_made.scale)


def share_of_at_least(law_made, k):
    """P(N >= k) of the whole numbers N = floor(X + V).

    The survival function's integral from k - 1 to k, clamped.
    """
    k = np.asarray(k)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    pieces = 8  # the survival function has a corner at the scale: many short pieces
    total = np.zeros(k.shape)
    corners = np.sort(np.clip(law_made.scale, k - 1, k))
    for low, high in ((k - 1, corners), (corners, k)):
        for piece in range(pieces):
            width = (high - low) / pieces
            middle = low + (piece + 0.5) * width
            at = middle[:, None] + 0.5 * width[:, None] * nodes
            total += 0.5 * width * (survival(law_made, at) @ weights)
    total = np.where(k > law_made.upper, 0.0, total)
    return np.where(k <= law_made.lower, 1.0, total)


HEAVY = [
    (Pareto(12.0, 1.5), 1, 100_000),
    (Pareto(2.0, 1.2), 1, 100_000),
    (Pareto(12.0, 1.5, 400), 1, 100_000),
    (Pareto(30.0, 0.7, 5_000), 1, 100_000),
    (Pareto(30.0, 1.0, 5_000), 1, 100_000),
    (Lognormal(12.0, 2.0), 1, 100_000),
    (Lognormal(1.1, 0.5), 1, 100_000),
    (Exponential(1.5), 1, 100_000),
    (Exponential(900.0), 20, 9_000),
    (Lognormal(800.0, 1.0), 20, 9_000),
]


@pytest.mark.parametrize("distribution, lower, upper", HEAVY, ids=str)
def test_the_mean_of_the_whole_numbers_is_the_mean_that_was_given(distribution, lower, upper):
    # The analytic mean of the discretised law, E[N] = sum over k of P(N >= k): no sample, since with alpha
    # 1.5 the
    # variance is infinite and a sample mean proves nothing.
    made = law(distribution, lower, upper)
    k = np.arange(1, upper + 1)
    assert share_of_at_least(made, k).sum() == pytest.approx(distribution.mean, rel=1e-7)


@pytest.mark.parametrize("distribution, lower, upper", HEAVY, ids=str)
def test_whole_numbers_follow_the_law_they_are_said_to_follow(distribution, lower, upper):
    made = law(distribution, lower, upper)
    flow = np.arange(DRAWS, dtype=np.uint64)
    value = quantile(made, random_streams.open_unit_interval(random_streams.bits(11, "test", flow)))
    number = rounded_at_random(value, random_streams.uniform(11, "test/rounding", flow))
    assert lower <= number.min()
    assert number.max() <= upper
    edges = np.unique(np.geomspace(lower, number.max(), 40).astype(np.int64))
    shares = -np.diff(np.append(share_of_at_least(made, edges), 0.0))  # of edges[i] <= N < edges[i + 1]
    seen = np.bincount(np.searchsorted(edges, number, side="right") - 1, minlength=edges.size)
    cells = np.array(joined(shares * DRAWS, seen, at_least=10.0))
    statistic = ((cells[:, 1] - cells[:, 0]) ** 2 / cells[:, 0]).sum()
    assert len(cells) > 3
    assert stats.chi2.sf(statistic, len(cells) - 1) > P_VALUE_AT_FOUR_SIGMA


def joined(expected, seen, at_least):
    """Neighbouring cells joined until each expects enough; what is left over goes to the last."""
    cells = [[0.0, 0]]
    for cell_expected, cell_seen in zip(expected, seen, strict=True):
        if cells[-1][0] >= at_least:
            cells.append([0.0, 0])
        cells[-1][0] += cell_expected
        cells[-1][1] += cell_seen
    if cells[-1][0] < at_least:
        few_expected, few_seen = cells.pop()
        cells[-1][0] += few_expected
        cells[-1][1] += few_seen
    return cells


CONTINUOUS = [
    (Exponential(1e9), 0, 10**13),
    (Lognormal(1e9, 1.5), 0, 10**15),
    (Pareto(1e9, 1.5, 10**13), 0, 10**14),
    (Pareto(1e9, 1.5), 0, 3 * 10**15),
]


@pytest.mark.parametrize("distribution, lower, upper", CONTINUOUS, ids=str)
def test_gaps_follow_the_continuous_law(distribution, lower, upper):
    made = law(distribution, lower, upper)
    bits = random_streams.bits(17, "test", np.arange(DRAWS, dtype=np.uint64))
    gap = rounded_to_nearest(quantile(made, random_streams.open_unit_interval(bits)))
    assert stats.kstest(gap, lambda t: 1.0 - survival(made, t)).pvalue > P_VALUE_AT_FOUR_SIGMA


def test_scales_without_effective_limits_are_the_textbook_ones():
    assert law(Exponential(1e9), 0, 10**13).scale == pytest.approx(1e9, rel=1e-15)
    assert law(Lognormal(1e9, 1.5), 0, 10**15).scale == pytest.approx(1e9 * np.exp(-(1.5**2) / 2), rel=1e-6)
    # A Pareto law with a far limit: mean = scale * alpha / (alpha - 1).
    assert law(Pareto(12.0, 3.0), 1, 10**6).scale == pytest.approx(8.0, rel=1e-9)


@given(
    st.floats(1.05, 5_000.0),
    st.floats(0.2, 6.0),
    st.sampled_from(["exponential", "lognormal", "pareto", "bounded pareto"]),
)
@example(1.05, 6.0, "lognormal")
@example(4_999.0, 1.5, "pareto")
def test_any_mean_inside_the_range_is_met(mean, shape, kind):
    distribution = {
        "exponential": Exponential(mean),
        "lognormal": Lognormal(mean, min(shape, 3.0)),
        "pareto": Pareto(mean, 1.01 + shape),
        "bounded pareto": Pareto(mean, shape, 6_000),
    }[kind]
    made = law(distribution, 1, 10_000)
    corner = min(max(made.scale, 1.0), 10_000.0)
    points = np.unique([1.0, *np.geomspace(1.0, 10_000.0, 60), corner])
    if kind == "bounded pareto":
        points = np.unique(np.append(points[points < 6_000.0], 6_000.0))
    excess = sum(
        integrate.fixed_quad(lambda t: survival(made, t), low, high, n=20)[0]
        for low, high in itertools.pairwise(points)
    )
    assert 1.0 + excess == pytest.approx(mean, rel=1e-6)


@given(st.floats(0.0, 1e6), st.floats(0.0, 1.0, exclude_max=True))
@example(65_535.0, 1.0 - 2.0**-53)
@example(64.5, 0.5)
def test_rounding_at_random_gives_a_neighbour_and_a_whole_number_itself(value, uniform):
    number = int(rounded_at_random(np.array([value]), np.array([uniform]))[0])
    assert number in (np.floor(value), np.ceil(value))


def test_rounding_at_random_keeps_the_mean():
    grid = (np.arange(4096) + 0.5) / 4096
    for value in (1.0, 1.25, 7.5, 1499.984375):  # multiples of 1/64: the grid gives their mean exactly
        assert rounded_at_random(np.full(4096, value), grid).mean() == value


def test_uniform_takes_each_whole_number_equally_often_ends_included():
    grid = (np.arange(7_000) + 0.5) / 7_000
    number = quantile(law(Uniform(64, 70), 20, 65_535), grid)
    assert np.unique(number, return_counts=True)[1].tolist() == [1_000] * 7
    assert (number.min(), number.max()) == (64.0, 70.0)


def test_empirical_takes_values_by_weight_and_none_of_weight_zero():
    made = law(Empirical((1500, 40, 576, 99), (1.0, 0.0, 3.0, 0.0)), 20, 65_535)
    grid = (np.arange(4_000) + 0.5) / 4_000
    values, counts = np.unique(quantile(made, grid), return_counts=True)
    assert dict(zip(values, counts, strict=True)) == {1500.0: 1_000, 576.0: 3_000}
    assert quantile(made, np.array([0.0, 1.0 - 2.0**-53])).tolist() == [1500.0, 576.0]


@pytest.mark.parametrize(
    "distribution",
    [Exponential(50.0), Lognormal(50.0, 3.0), Pareto(50.0, 1.1), Pareto(50.0, 0.5, 900), Uniform(1, 999)],
    ids=str,
)
def test_the_extreme_random_numbers_stay_inside_the_range(distribution):
    made = law(distribution, 1, 1_000)
    ends = random_streams.open_unit_interval(np.array([0, 2**64 - 1], np.uint64))
    value = quantile(made, ends)
    assert 1.0 <= value[0] < value[1] <= 1_000.0
    top = random_streams.unit_interval(np.array([2**64 - 1], np.uint64))
    assert rounded_at_random(value[1:], top)[0] <= 1_000


REFUSED = [
    (Constant(0), 1, 10, "value is 0, expected from 1 to 10"),
    (Uniform(0, 5), 1, 10, "low is 0, expected from 1 to 10"),
    (Uniform(3, 11), 1, 10, "high is 11, expected from 1 to 10"),
    (Empirical((2, 12), (1.0, 1.0)), 1, 10, "values is 12, expected from 1 to 10"),
    (Exponential(1.0), 1, 10, "mean is 1, expected above 1 and below 10"),
    (Lognormal(10.0, 1.0), 1, 10, "mean is 10, expected above 1 and below 10"),
    (Pareto(5.0, 1.5, 11), 1, 10, "maximum is 11, expected above the mean, at most 10"),
]


@pytest.mark.parametrize("distribution, lower, upper, message", REFUSED, ids=str)
def test_what_cannot_be_had_is_refused_in_words(distribution, lower, upper, message):
    with pytest.raises(ValueError) as refusal:
        law(distribution, lower, upper)
    assert str(refusal.value) == message


def test_the_normal_integral_behind_the_lognormal_agrees_with_scipy():
    from simnet.workload.distributions import _normal_share_below

    z = np.linspace(-9.0, 9.0, 2_001)
    found = np.array([_normal_share_below(float(at)) for at in z])
    assert np.abs(found - special.ndtr(z)).max() < 1e-15
