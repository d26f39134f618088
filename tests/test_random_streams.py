"""Random streams: pure in (seed, purpose, flow, draw), uniform, and independent between neighbours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simnet import random_streams

MASK = 2**64 - 1
words = st.integers(0, MASK)
P_VALUE_AT_FOUR_SIGMA = 6.3e-5


def mixed_one_by_one(value: int) -> int:
    """One round of the splitmix64 finaliser in Python's integers, as its paper writes it."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_the_finaliser_gives_the_numbers_that_splitmix64_is_known_for():
    # java.util.SplittableRandom and the reference C code, started at 0 and at 1234567, begin with these.
    state = np.array([0x9E3779B97F4A7C15, (1234567 + 0x9E3779B97F4A7C15) & MASK], np.uint64)
    random_streams.mix_in_place(state)
    assert state.tolist() == [0xE220A8397B1DCDAF, 6457827717110365317]


@given(st.integers(), st.text(), st.lists(st.tuples(words, words), min_size=1, max_size=50))
def test_bits_agree_with_integers_mixed_one_by_one(seed, purpose, pairs):
    flow, draw = (np.array(column, np.uint64) for column in zip(*pairs, strict=True))
    key = int(random_streams.stream_key(seed, purpose))
    expected = [mixed_one_by_one((mixed_one_by_one(key ^ f) + d * 0x9E3779B97F4A7C15) & MASK) for f, d in pairs]
    assert random_streams.bits(seed, purpose, flow, draw).tolist() == expected
    keys = random_streams.flow_keys(seed, purpose, flow)
    assert random_streams.bits_of_keys(keys, draw).tolist() == expected


def test_a_number_does_not_depend_on_the_batch_it_is_asked_in():
    flow = np.arange(200_000, dtype=np.uint64)
    draw = flow[::-1].copy()
    whole = random_streams.bits(7, "test", flow, draw)
    some = slice(99_990, 170_001, 7)
    np.testing.assert_array_equal(random_streams.bits(7, "test", flow[some], draw[some]), whole[some])
    assert random_streams.bits(7, "test", flow[5:6], int(draw[5]))[0] == whole[5]


def test_keys_of_streams_are_fixed_for_ever():
    # Changing them changes every published number; the changelog must then say so.
    assert int(random_streams.stream_key(1, "workload/arrivals")) == KEY_OF_ARRIVALS
    assert random_streams.uniform(1, "workload/arrivals", np.array([0, 1], np.uint64)).tolist() == FIRST_TWO


KEY_OF_ARRIVALS = 0xA2A287E5ACA9EEFB
FIRST_TWO = [0.685096557719364, 0.1588299836496423]


@given(words)
def test_uniform_numbers_are_at_least_zero_and_below_one(word):
    at = np.array([word], np.uint64)
    assert 0.0 <= random_streams.unit_interval(at)[0] < 1.0
    assert 0.0 < random_streams.open_unit_interval(at)[0] < 1.0


@pytest.mark.parametrize("word", [0, MASK])
def test_the_open_interval_leaves_out_both_ends(word):
    at = np.array([word], np.uint64)
    assert random_streams.open_unit_interval(at)[0] in (2.0**-53, 1.0 - 2.0**-53)


DRAWS = 400_000
STREAMS = {
    "flows one after another": lambda n: (np.arange(n, dtype=np.uint64), 0),
    "draws of one flow": lambda n: (np.zeros(n, np.uint64), np.arange(n, dtype=np.uint64)),
    "a grid of flows and draws": lambda n: (
        np.arange(n, dtype=np.uint64) // np.uint64(20),
        np.arange(n, dtype=np.uint64) % np.uint64(20),
    ),
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_numbers_are_uniform_and_no_bit_leans(stream):
    flow, draw = stream(DRAWS)
    words_drawn = random_streams.bits(3, "test/uniform", flow, draw)
    assert stats.kstest(random_streams.unit_interval(words_drawn), "uniform").pvalue > P_VALUE_AT_FOUR_SIGMA
    cells = np.bincount((words_drawn >> np.uint64(54)).astype(np.int64), minlength=1024)
    assert stats.chisquare(cells).pvalue > P_VALUE_AT_FOUR_SIGMA
    ones = np.array([np.count_nonzero(words_drawn >> np.uint64(bit) & np.uint64(1)) for bit in range(64)])
    sigmas = (ones - DRAWS / 2) / np.sqrt(DRAWS / 4)
    assert np.abs(sigmas).max() < 5.0  # 64 bits at once: 4 sigma for the worst of them


@pytest.mark.parametrize("lag", [1, 2, 20])
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_neighbours_are_uncorrelated(stream, lag):
    numbers = random_streams.uniform(5, "test/neighbours", *stream(DRAWS))
    correlation = np.corrcoef(numbers[:-lag], numbers[lag:])[0, 1]
    assert abs(correlation) * np.sqrt(DRAWS) < 4.0


def test_other_purposes_and_other_seeds_give_unrelated_numbers():
    flow = np.arange(DRAWS, dtype=np.uint64)
    first = random_streams.uniform(1, "a", flow)
    for other in (random_streams.uniform(1, "b", flow), random_streams.uniform(2, "a", flow)):
        assert abs(np.corrcoef(first, other)[0, 1]) * np.sqrt(DRAWS) < 4.0


def test_different_pairs_of_flow_and_draw_do_not_meet():
    # One round of mixing over flow * A + draw * B would let lines of pairs share a number.
    flow, draw = (grid.ravel().astype(np.uint64) for grid in np.mgrid[0:1000, 0:1000])
    assert np.unique(random_streams.bits(1, "test", flow, draw)).size == flow.size
