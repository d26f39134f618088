"""Starts of flows against what is known of each process."""

import numpy as np
import pytest
from scipy import stats

from simnet.model.workload import Deterministic, OnOff, PeriodKind, Poisson, Trace
from simnet.units import PS_PER_S
from simnet.workload.arrivals import ArrivalState, arrival_times

P_VALUE_AT_FOUR_SIGMA = 6.3e-5
MS = 10**9


def starts(arrivals, seed=1, until_ps=10 * PS_PER_S, limit=10**7):
    start_ps, _ = arrival_times(arrivals, seed, ArrivalState(), until_ps=until_ps, limit=limit)
    return start_ps


def test_poisson_gaps_are_exponential_and_independent():
    gap = np.diff(starts(Poisson(20_000.0)), prepend=0)
    assert stats.kstest(gap, "expon", args=(0, PS_PER_S / 20_000)).pvalue > P_VALUE_AT_FOUR_SIGMA
    assert abs(np.corrcoef(gap[:-1], gap[1:])[0, 1]) * np.sqrt(gap.size) < 4.0


def test_poisson_counts_have_the_variance_of_their_mean():
    counts = np.bincount(starts(Poisson(20_000.0)) // (10 * MS), minlength=1_000)
    assert abs(counts.sum() - 200_000) < 4 * np.sqrt(200_000)
    dispersion = ((counts - counts.mean()) ** 2).sum() / counts.mean()  # chi-square with 999 degrees of freedom
    assert P_VALUE_AT_FOUR_SIGMA < stats.chi2.sf(dispersion, 999) < 1 - P_VALUE_AT_FOUR_SIGMA


def test_evenly_spaced_flows_start_at_multiples_of_the_period():
    assert starts(Deterministic(2_000.0), until_ps=2 * MS).tolist() == [0, MS // 2, MS, 3 * MS // 2]
    thirds = starts(Deterministic(3.0), until_ps=10**12)
    assert thirds.tolist() == [0, 333_333_333_333, 666_666_666_667]
    assert starts(Deterministic(1e11), until_ps=100).tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_bursts_have_the_rate_of_their_on_periods_and_silence_between():
    arrivals = OnOff(50_000.0, 4 * MS, 6 * MS, PeriodKind.CONSTANT)
    start_ps = starts(arrivals)
    phase_ps = start_ps % (10 * MS)
    assert phase_ps.max() < 4 * MS
    assert abs(start_ps.size - 200_000) < 4 * np.sqrt(200_000)
    assert stats.kstest(phase_ps, "uniform", args=(0, 4 * MS)).pvalue > P_VALUE_AT_FOUR_SIGMA


def test_exponential_bursts_have_the_long_run_rate_and_are_burstier_than_poisson():
    on_ps, off_ps, rate_hz = 4 * MS, 6 * MS, 50_000.0
    until_ps = 40 * PS_PER_S
    start_ps = starts(OnOff(rate_hz, on_ps, off_ps), until_ps=until_ps)
    cycles = until_ps / (on_ps + off_ps)
    mean = rate_hz * 1e-12 * on_ps * cycles
    # On-time in [0, T] of an alternating renewal process: variance about 2 a^2 b^2 / (a + b)^3 * T, with
    # means a and b;
    # the beginning in an on period adds off^2 / (on + off)^2 ... at most one on period.
    on_time_variance = 2 * on_ps**2 * off_ps**2 / (on_ps + off_ps) ** 3 * until_ps
    sigma = np.sqrt(mean + (rate_hz * 1e-12) ** 2 * on_time_variance)
    assert abs(start_ps.size - mean) < 4 * sigma + rate_hz * 1e-12 * on_ps
    counts = np.bincount(start_ps // (20 * MS), minlength=2_000)
    assert counts.var() / counts.mean() > 20


def test_exponential_silences_have_their_mean_length():
    on_ps, off_ps = 2 * MS, 6 * MS
    start_ps = starts(OnOff(1e6, on_ps, off_ps), until_ps=20 * PS_PER_S)
    gap = np.diff(start_ps)
    # At 1 flow a us, a gap over 50 us is a silence but for 1 in 10**21; the memoryless excess over 50 us has
    # the mean.
    excess = gap[gap > 50 * 10**6] - 50 * 10**6
    assert excess.size > 2_000
    assert abs(excess.mean() - off_ps) < 4 * off_ps / np.sqrt(excess.size) + 2 * 10**6


def test_bursts_without_silence_are_poisson():
    np.testing.assert_array_equal(starts(OnOff(5_000.0, 3 * MS, 0)), starts(Poisson(5_000.0)))


def test_a_flow_at_the_very_end_of_a_burst_starts_after_the_silence():
    first_ps = int(starts(Poisson(100.0), limit=1)[0])
    arrivals = OnOff(100.0, first_ps, 5 * MS, PeriodKind.CONSTANT)
    assert starts(arrivals, limit=1).tolist() == [first_ps + 5 * MS]


@pytest.mark.parametrize("seed", range(20))
def test_the_rarest_flows_never_leave_the_clock(seed):
    # Mean gap 10**17 ps, end of the clock 46 means: sums of more than 92 means would not fit int64.
    start_ps = starts(Poisson(1e-5), seed=seed, until_ps=2**62)
    assert abs(start_ps.size - 46.1) < 4 * np.sqrt(46.1)
    assert (np.diff(start_ps, prepend=0) > 0).all()
    assert start_ps[-1] < 2**62


def test_a_window_ends_before_the_flow_at_its_end():
    trace = Trace(np.array([0, 5, 5, 9], np.int64))
    first, state = arrival_times(trace, 1, ArrivalState(), until_ps=5, limit=10)
    second, state = arrival_times(trace, 1, state, until_ps=9, limit=1)
    third, state = arrival_times(trace, 1, state, until_ps=9, limit=10)
    last, state = arrival_times(trace, 1, state, until_ps=100, limit=10)
    assert [part.tolist() for part in (first, second, third, last)] == [[0], [5], [5], [9]]
    assert state.next_flow == 4


@pytest.mark.parametrize(
    "arrivals", [Poisson(1e5), Deterministic(1e5), OnOff(1e6, MS, MS), OnOff(1e6, MS, MS, PeriodKind.CONSTANT)]
)
def test_a_limit_stops_and_the_next_call_goes_on(arrivals):
    whole = starts(arrivals, until_ps=200 * MS)
    state, parts = ArrivalState(), []
    while not parts or parts[-1].size:
        part, state = arrival_times(arrivals, 1, state, until_ps=200 * MS, limit=1_001)
        assert part.size <= 1_001
        parts.append(part)
    assert len(parts) > 10
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_clock_has_an_end():
    with pytest.raises(ValueError, match="until_ps"):
        starts(Poisson(1.0), until_ps=2**62 + 1)
