"""Intervals and tests, held to scipy.stats and to their promise: to cover the truth as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simnet.analysis.intervals import (
    holm,
    paired_difference,
    quantile_interval,
    quantile_ranks,
    t_interval,
    wilson,
)

samples = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40).filter(lambda x: np.ptp(x) > 1e-3)


@given(samples)
def test_the_t_interval_is_that_of_scipy(sample):
    interval = t_interval(sample)
    low, high = stats.t.interval(0.95, len(sample) - 1, np.mean(sample), stats.sem(sample))
    np.testing.assert_allclose([interval.low, interval.high], [low, high], rtol=1e-9, atol=1e-9)


def test_one_run_has_a_mean_and_no_interval():
    interval = t_interval([3.0])
    assert interval.mean == 3.0
    assert np.isnan([interval.low, interval.high]).all()


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_that_of_scipy(counts):
    successes, trials = counts
    interval = wilson(successes, trials)
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose([interval.low, interval.high], expected, rtol=1e-9, atol=1e-12)


def test_no_loss_in_n_flows_leaves_room_for_about_three_or_four_in_n():
    assert 3 / 1000 < wilson(0, 1000).high < 4 / 1000


@pytest.mark.parametrize("p, smallest", [(0.99, 368), (0.999, 3688)])
def test_a_quantile_has_an_interval_only_from_that_many_samples_on(p, smallest):
    assert quantile_ranks(smallest - 1, p) is None
    assert quantile_ranks(smallest, p) is not None


@given(st.integers(10, 3000), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantile_ranks_cover_by_the_binomial_distribution_and_no_closer_pair_would(n, p):
    ranks = quantile_ranks(n, p)
    if ranks is None:
        return
    j, k = ranks
    assert stats.binom.cdf(k - 1, n, p) - stats.binom.cdf(j - 1, n, p) >= 0.95
    assert stats.binom.cdf(j, n, p) > 0.025  # j + 1 would leave too much below
    assert stats.binom.cdf(k - 2, n, p) < 0.975  # k - 1 would leave too much above


def test_the_interval_of_a_median_covers_it_in_at_least_95_of_100_samples():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(4000):
        interval = quantile_interval(rng.exponential(size=101), 0.5)
        covered += interval.low <= np.log(2) <= interval.high
    assert covered / 4000 >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 4000)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=30))
def test_paired_differences_are_those_of_scipys_paired_t_test(pairs):
    a, b = np.array(pairs).T
    if np.ptp(a - b) < 1e-6 or (np.abs(a - b) < 1e-9).any():
        return
    difference, expected = paired_difference(a, b), stats.ttest_rel(a, b)
    np.testing.assert_allclose(difference.p, expected.pvalue, rtol=1e-7, atol=1e-300)
    ends = expected.confidence_interval(0.95)
    np.testing.assert_allclose([difference.low, difference.high], ends, rtol=1e-7, atol=1e-7)


def test_common_random_numbers_show_in_the_variance_ratio():
    rng = np.random.default_rng(3)
    shared, noise = rng.normal(size=200), rng.normal(size=(2, 200))
    assert paired_difference(shared + 0.1 * noise[0], shared + 0.1 * noise[1]).variance_ratio > 50
    assert 0.7 < paired_difference(noise[0], noise[1]).variance_ratio < 1.4


def test_a_difference_that_never_varies_is_certain_and_none_at_all_is_none():
    always = paired_difference([1.5, 2.5, 3.5], [1.0, 2.0, 3.0])
    assert (always.low, always.high, always.p) == (0.5, 0.5, 0.0)
    never = paired_difference([1.0, 2.0], [1.0, 2.0])
    assert (never.mean, never.p) == (0.0, 1.0)


def test_rounding_is_no_difference():
    assert paired_difference([0.1 + 0.2, 0.7], [0.3, 0.7 + 1e-16]).p == 1.0


def test_one_repeat_has_no_p_value():
    difference = paired_difference([2.0], [1.0])
    assert difference.mean == 1.0
    assert np.isnan([difference.low, difference.high, difference.p, difference.variance_ratio]).all()


def test_holms_method_on_its_textbook_example():
    # sorted 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1 raised to the one before
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_out_what_was_not_tested():
    np.testing.assert_allclose(holm([0.01, np.nan, 0.5]), [0.02, np.nan, 0.5])


@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_never_lowers_a_p_value_and_leaves_the_smallest_to_bonferroni(p):
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    if p:
        assert adjusted.min() == min(1.0, min(p) * len(p))


def test_an_interval_covers_the_mean_in_95_of_100_experiments():
    rng = np.random.default_rng(11)
    covered = sum((lambda i: i.low <= 5 <= i.high)(t_interval(rng.normal(5, 2, size=10))) for _ in range(4000))
    assert abs(covered / 4000 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)
