"""Spread figures by hand, by definition, by their identities, and by drawing from the distribution they describe."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import statistics as reference
from scipy import stats

from simnet.analysis import closed_forms, spread
from simnet.analysis.warmup import mser5

loads = st.lists(st.integers(0, 10_000), min_size=2, max_size=60).filter(lambda x: sum(x) > 0)


@given(loads)
def test_the_coefficient_of_variation_is_its_definition(load):
    np.testing.assert_allclose(spread.coefficient_of_variation(load), reference.cov(load), rtol=1e-12, atol=1e-12)


@given(loads)
def test_jains_index_is_one_over_one_plus_cov_squared(load):
    cov = spread.coefficient_of_variation(load)
    np.testing.assert_allclose(spread.jain(load), 1 / (1 + cov**2), rtol=1e-9)


@given(loads)
def test_for_equal_shares_chi_square_is_n_times_cov_squared(load):
    fit = spread.chi_square_fit(load, spread.equal_shares(len(load)))
    expected = sum(load) * spread.coefficient_of_variation(load) ** 2
    np.testing.assert_allclose(fit.chi2, expected, rtol=1e-9, atol=1e-9)


def test_a_load_that_one_pod_takes_is_the_worst_there_is():
    load = [0, 0, 40, 0]
    assert spread.jain(load) == 0.25
    assert spread.max_over_mean(load) == 4.0
    assert spread.min_over_mean(load) == 0.0
    assert spread.total_variation(load, [0.25] * 4) == 0.75


def test_chi_square_and_its_p_value_are_those_of_scipy():
    load, shares = [30, 45, 25], [0.25, 0.5, 0.25]
    fit, expected = spread.chi_square_fit(load, shares), stats.chisquare(load, 100 * np.array(shares))
    np.testing.assert_allclose([fit.chi2, fit.p], [expected.statistic, expected.pvalue], rtol=1e-12)
    assert fit.dispersion == fit.chi2 / 2
    np.testing.assert_allclose(fit.chi2, reference.chi2(load, shares))


def test_few_connections_give_no_p_value():
    assert np.isnan(spread.chi_square_fit([1, 3], [0.5, 0.5]).p)


def test_a_connection_where_none_can_be_is_impossible_by_chance():
    fit = spread.chi_square_fit([99, 100, 1], [0.5, 0.5, 0.0])
    assert fit.chi2 == np.inf
    assert fit.p == 0.0


def test_without_a_closed_form_there_is_no_test():
    assert np.isnan(spread.chi_square_fit([5, 5], [np.nan, np.nan]).chi2)


@pytest.mark.parametrize("endpoints, connections", [(10, 1000), (100, 10_000)])
def test_the_noise_floor_is_what_chance_makes(endpoints, connections):
    rng = np.random.default_rng(5)
    drawn = rng.multinomial(connections, spread.equal_shares(endpoints), size=4000)
    squared = (drawn.std(axis=1) / drawn.mean(axis=1)) ** 2  # the floor's square is exact in the mean
    error = squared.std() / np.sqrt(len(squared))
    assert abs(squared.mean() - spread.noise_floor(endpoints, connections) ** 2) < 4 * error


def test_the_cov_expected_of_unequal_shares_is_what_drawing_makes():
    shares, n = np.array([0.5, 0.3, 0.2]), 500
    drawn = np.random.default_rng(6).multinomial(n, shares, size=20_000)
    squared = (drawn.std(axis=1) / drawn.mean(axis=1)) ** 2
    error = squared.std() / np.sqrt(len(squared))
    assert abs(squared.mean() - spread.expected_cov(shares, n) ** 2) < 4 * error
    assert spread.expected_cov([0.25] * 4, 100) == pytest.approx(spread.noise_floor(4, 100))


# ---- closed forms


@given(st.lists(st.integers(0, 20), min_size=1, max_size=20).filter(lambda e: sum(e) > 0))
def test_uniform_entry_crosses_nodes_with_one_less_one_over_n_whatever_the_placement(endpoints):
    n = len(endpoints)
    assert closed_forms.cluster_cross_node_share(np.full(n, 1 / n), endpoints) == pytest.approx(1 - 1 / n)


def test_a_fixed_node_serves_only_its_own_share_itself():
    assert closed_forms.cluster_cross_node_share([1, 0, 0], [2, 3, 5]) == pytest.approx(0.8)


def test_local_with_two_pods_and_one_gives_25_25_50():
    shares = closed_forms.local_pod_shares([0.5, 0.5], [2, 1])
    np.testing.assert_allclose(shares, [0.25, 0.5])
    assert closed_forms.local_lost_share([0.25] * 4, [2, 1, 0, 0]) == 0.5


@pytest.mark.parametrize("n", [2, 3, 8])
def test_hash_threshold_moves_what_counting_hash_values_says(n):
    counted = [reference.hash_threshold_moved(n, k, 20_000) for k in range(n)]
    low, mean, high = closed_forms.moved_flow_bounds(n, "hash-threshold")
    np.testing.assert_allclose([min(counted), np.mean(counted), max(counted)], [low, mean, high], atol=n / 20_000)


def test_a_next_hop_removed_moves_the_shares_of_the_fact_sheet():
    assert closed_forms.moved_flow_bounds(8, "modulo")[1] == 0.875
    low, mean, high = closed_forms.moved_flow_bounds(8, "hash-threshold")
    assert (round(low, 3), round(mean, 3), round(high, 3)) == (0.286, 0.375, 0.5)
    assert closed_forms.moved_flow_bounds(8, "resilient")[1] == 0.125
    assert round(closed_forms.moved_flow_bounds(64, "hash-threshold")[1], 3) == 0.339


def test_the_expected_maximum_is_what_drawing_makes():
    drawn = np.random.default_rng(8).multinomial(10_000, spread.equal_shares(10), size=4000).max(axis=1) / 1000
    error = drawn.std() / np.sqrt(len(drawn))
    # besides the sampling error, the normal approximation leaves out terms of order 1/mu (skewness)
    assert abs(drawn.mean() - closed_forms.expected_max_over_mean(10, 10_000)) < 4 * error + 1 / 1000


def test_the_largest_of_two_and_three_normals_has_its_known_mean():
    assert closed_forms.expected_max_normal(1) == pytest.approx(0, abs=1e-9)
    assert closed_forms.expected_max_normal(2) == pytest.approx(1 / np.sqrt(np.pi), abs=1e-6)
    assert closed_forms.expected_max_normal(3) == pytest.approx(1.5 / np.sqrt(np.pi), abs=1e-6)


def test_the_cascade_is_fair_to_four_in_ten_million_at_a_thousand_endpoints():
    shares = closed_forms.cascade_shares(1000)
    assert shares.sum() == pytest.approx(1)
    assert np.abs(1000 * shares - 1).max() < 5e-7


# ---- warm-up


@given(st.lists(st.integers(0, 1000), min_size=60, max_size=200))
def test_mser5_cuts_where_its_definition_does(series):
    z = np.array(series[: len(series) // 5 * 5], float).reshape(-1, 5).mean(axis=1)
    scores = np.array([np.square(z[d:] - z[d:].mean()).sum() / (len(z) - d) ** 2 for d in range(len(z) - 5)])
    cut = mser5(series).observations // 5
    assert scores[cut] <= scores.min() + 1e-9 * max(scores.max(), 1)


def test_mser5_drops_a_start_that_is_unlike_the_rest():
    rng = np.random.default_rng(9)
    series = np.r_[np.full(40, 50.0), rng.normal(10, 1, 400)]
    cut = mser5(series)
    assert cut.trusted
    assert 40 <= cut.observations <= 60
    assert reference.mser_cut(list(series)) == cut.observations // 5


def test_mser5_does_not_trust_a_series_that_never_settles():
    assert not mser5(np.arange(200.0) ** 2).trusted
