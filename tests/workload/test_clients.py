"""Clients, their ports, and the entry targets they choose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simnet.model.workload import ClientPopulation, EntryChoice, EntryChoiceKind, Zipf
from simnet.workload.clients import cumulative_demand, pick_clients, pick_targets, source_ports

P_VALUE_AT_FOUR_SIGMA = 6.3e-5
FLOWS = np.arange(200_000, dtype=np.uint64)


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.1, 2.0])
def test_clients_call_as_often_as_zipf_says(exponent):
    population = ClientPopulation(100, skew=Zipf(exponent))
    client = pick_clients(cumulative_demand(population), 100, 5, FLOWS)
    weight = np.arange(1, 101) ** -exponent
    expected = weight / weight.sum() * FLOWS.size
    assert stats.chisquare(np.bincount(client, minlength=100), expected).pvalue > P_VALUE_AT_FOUR_SIGMA


@pytest.mark.parametrize("count", [1, 7, 500])
def test_clients_without_skew_call_equally_often(count):
    client = pick_clients(cumulative_demand(ClientPopulation(count)), count, 5, FLOWS)
    seen = np.bincount(client, minlength=count)
    assert seen.size == count
    assert count == 1 or stats.chisquare(seen).pvalue > P_VALUE_AT_FOUR_SIGMA


def test_a_client_uses_no_port_twice_in_28232_flows_and_each_of_them_in_turn():
    client = np.zeros(28_232 + 3, np.int32)
    port, started = source_ports(client, np.zeros(1, np.int64), 1)
    assert np.unique(port[:28_232]).size == 28_232
    assert (port.min(), port.max()) == (32_768, 60_999)
    np.testing.assert_array_equal(port[28_232:], port[:3])
    assert started.tolist() == [28_235]


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(0, 60))
def test_ports_do_not_depend_on_where_the_flows_are_cut(clients, cut):
    client = np.array(clients, np.int32)
    before = np.array([0, 10**6, 28_231, 0, 5, 7], np.int64)
    kept = before.copy()
    whole, started = source_ports(client, before, 3)
    first, between = source_ports(client[:cut], before, 3)
    rest, after = source_ports(client[cut:], between, 3)
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)
    np.testing.assert_array_equal(after, started)
    np.testing.assert_array_equal(before, kept)
    np.testing.assert_array_equal(started, before + np.bincount(client, minlength=6))


def test_clients_begin_at_ports_of_their_own():
    port, _ = source_ports(np.arange(20_000, dtype=np.int32), np.zeros(20_000, np.int64), 1)
    assert stats.kstest(port, "uniform", args=(32_768, 28_232)).pvalue > P_VALUE_AT_FOUR_SIGMA


def test_random_targets_are_even_and_independent_of_the_client():
    client = pick_clients(None, 10, 5, FLOWS)
    target = pick_targets(EntryChoice(), 8, 5, FLOWS, client)
    table = np.bincount(client * 8 + target, minlength=80).reshape(10, 8)
    assert stats.chisquare(table.sum(axis=0)).pvalue > P_VALUE_AT_FOUR_SIGMA
    assert stats.chi2_contingency(table).pvalue > P_VALUE_AT_FOUR_SIGMA


def test_round_robin_serves_targets_in_turn_over_all_clients():
    flow = np.arange(7, 14, dtype=np.uint64)
    target = pick_targets(EntryChoice(EntryChoiceKind.ROUND_ROBIN), 3, 1, flow, np.zeros(7, np.int32))
    assert target.tolist() == [1, 2, 0, 1, 2, 0, 1]


def test_per_client_a_client_keeps_its_target():
    client = pick_clients(None, 3_000, 5, FLOWS)
    target = pick_targets(EntryChoice(EntryChoiceKind.PER_CLIENT), 8, 5, FLOWS, client)
    pairs = np.unique(np.stack([client, target]), axis=1)
    assert pairs.shape[1] == 3_000
    assert stats.chisquare(np.bincount(pairs[1], minlength=8)).pvalue > P_VALUE_AT_FOUR_SIGMA


def test_fixed_all_take_the_named_target():
    fixed = EntryChoice(EntryChoiceKind.FIXED, "worker-3")
    target = pick_targets(fixed, 4, 1, FLOWS[:5], np.zeros(5, np.int32), fixed_target=2)
    assert target.tolist() == [2] * 5


@pytest.mark.parametrize("fixed_target", [None, -1, 4])
def test_fixed_needs_a_target_that_exists(fixed_target):
    fixed = EntryChoice(EntryChoiceKind.FIXED, "worker-3")
    with pytest.raises(ValueError, match="fixed_target"):
        pick_targets(fixed, 4, 1, FLOWS[:5], np.zeros(5, np.int32), fixed_target=fixed_target)


def test_no_target_is_refused():
    with pytest.raises(ValueError, match="target_count is 0"):
        pick_targets(EntryChoice(), 0, 1, FLOWS[:5], np.zeros(5, np.int32))
