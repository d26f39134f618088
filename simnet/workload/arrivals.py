"""When flows start: the same flows wherever the run is cut into windows.

Every gap is a pure function of (seed, flow id), and times are sums of whole picoseconds, hence exact: a
window that takes up where the last one ended finds the flows that one long window would have found.
Modelled: Poisson, evenly spaced, on/off (a Poisson process whose clock stops during off periods), a recorded
trace; pools of connections: keep_alive.py. Left out: rates that change over the day, arrivals that react to the system
(closed loops).
Source: inverse transform; on/off by running the Poisson process in on-time, then adding the off periods
passed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simnet import exact_math, random_streams
from simnet.model.workload import Deterministic, OnOff, PeriodKind, Poisson, Trace
from simnet.units import PS_PER_S
from simnet.workload.distributions import rounded_to_nearest

GAPS = "workload/arrivals"
PERIODS = "workload/on-off"

_BLOCK = 1 << 13  # flows drawn at a time
_LARGEST_STANDARD_GAP = 37.0  # -log(2**-53) = 36.7: no exponential gap is longer than 37 means
_LAST_INSTANT_PS = 2**62


@dataclass(frozen=True, slots=True)
class ArrivalState:
    """What the next window must know of those before it. The first window starts from `ArrivalState()`."""

    next_flow: int = 0
    clock_ps: int = 0  # start of the last flow; for on/off counted in on-time only
    period: int = 0  # on/off: number of the on period that holds the clock,
    period_start_ps: int = 0  # its beginning in on-time,
    off_passed_ps: int = 0  # and the length of all off periods before it


def arrival_times(
    arrivals: Poisson | Deterministic | OnOff | Trace, seed: int, state: ArrivalState, *, until_ps: int, limit: int
) -> tuple[NDArray[np.int64], ArrivalState]:
    """Return when the next flows start: those before `until_ps`, at most `limit` of them.

    Parameters
    ----------
    arrivals : Poisson, Deterministic, OnOff or Trace
    seed : int
    state : ArrivalState
        Of the window before. The first flow returned is `state.next_flow`.
    until_ps : int, picoseconds, at most 2**62
        End of the window; a flow that starts at it belongs to the next.
    limit : int, > 0

    Returns
    -------
    start_ps : int64[n], picoseconds, non-decreasing
        Shorter than `limit` exactly if the flow after it starts at `until_ps` or later, or a trace has ended.
    state : ArrivalState
    """
    if until_ps > _LAST_INSTANT_PS:
        raise ValueError(f"until_ps is {until_ps}, expected at most 2**62")
    match arrivals:
        case Trace(start_ps):
            stop = int(np.searchsorted(start_ps, until_ps, side="left"))
            stop = max(state.next_flow, min(stop, state.next_flow + limit))
            return start_ps[state.next_flow : stop], replace(state, next_flow=stop)
        case Deterministic(rate_hz):
            start = _evenly_spaced(rate_hz, state.next_flow, until_ps, limit)
            return start, replace(state, next_flow=state.next_flow + start.size)
        case Poisson(rate_hz):
            start = _poisson(rate_hz, seed, state, until_ps, limit)
            clock_ps = int(start[-1]) if start.size else state.clock_ps
            return start, replace(state, next_flow=state.next_flow + start.size, clock_ps=clock_ps)
        case OnOff():
            return _on_off(arrivals, seed, state, until_ps, limit)


def _evenly_spaced(rate_hz: float, first_flow: int, until_ps: int, limit: int) -> NDArray[np.int64]:
    period_ps = PS_PER_S / rate_hz
    # One product and one rounding per flow; exact to the picosecond up to 2**53 ps (2.5 h), then to a part
    # in 2**52.
    enough = min(limit, max(0, int(until_ps / period_ps) - first_flow + 2))
    number = np.arange(first_flow, first_flow + enough, dtype=np.int64).astype(np.float64)
    start = rounded_to_nearest(number * period_ps)
    return start[: np.searchsorted(start, until_ps, side="left")]


def _poisson(rate_hz: float, seed: int, state: ArrivalState, until_ps: int, limit: int) -> NDArray[np.int64]:
    """Sum exponential gaps from `state.clock_ps` on, block by block, until a flow starts too late."""
    mean_ps = PS_PER_S / rate_hz
    # Rare flows are drawn in small blocks, so that no sum of gaps leaves int64.
    block = max(1, min(_BLOCK, int(_LAST_INSTANT_PS / (_LARGEST_STANDARD_GAP * mean_ps))))
    parts: list[NDArray[np.int64]] = []
    flow, clock_ps = state.next_flow, state.clock_ps
    last_flow = state.next_flow + limit
    while flow < last_flow:
        expected = int((until_ps - clock_ps) / mean_ps * 1.05) + 64
        count = max(1, min(block, last_flow - flow, expected))
        gap = exponential_ps(seed, GAPS, np.arange(flow, flow + count, dtype=np.uint64), mean_ps)
        start = np.cumsum(gap)
        start += clock_ps
        inside = int(np.searchsorted(start, until_ps, side="left"))
        parts.append(start[:inside])
        if inside < count:
            break
        flow += count
        clock_ps = int(start[-1])
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _on_off(
    arrivals: OnOff, seed: int, state: ArrivalState, until_ps: int, limit: int
) -> tuple[NDArray[np.int64], ArrivalState]:
    parts: list[NDArray[np.int64]] = []
    taken = 0
    while taken < limit:
        # Real time is never earlier than on-time plus the off periods already passed: few are drawn in vain.
        on_until_ps = until_ps - state.off_passed_ps
        count = min(_BLOCK, limit - taken)
        on_time = _poisson(arrivals.rate_hz, seed, state, on_until_ps, count)
        if not on_time.size:
            break
        start, period, period_start_ps, off_passed_ps = _in_real_time(arrivals, seed, state, on_time, until_ps)
        parts.append(start)
        taken += start.size
        if start.size:
            state = ArrivalState(
                state.next_flow + start.size,
                int(on_time[start.size - 1]),
                period,
                period_start_ps,
                off_passed_ps,
            )
        if start.size < on_time.size or on_time.size < count:
            break
    return (np.concatenate(parts) if parts else np.empty(0, np.int64)), state


def _in_real_time(
    arrivals: OnOff, seed: int, state: ArrivalState, on_time: NDArray[np.int64], until_ps: int
) -> tuple[NDArray[np.int64], int, int, int]:
    """Return the real starts before `until_ps`, and number, on-time start and off time of the last one's period."""
    first = state.period
    # Periods drawn at a time; those after the window's end are not needed.
    count = 16 + min(_BLOCK, int((int(on_time[-1]) - state.period_start_ps) / arrivals.on_ps * 1.2))
    on_ends, off_before = [], []
    end_ps, off_ps = state.period_start_ps, state.off_passed_ps
    while end_ps <= int(on_time[-1]) and end_ps + off_ps < until_ps:
        number = np.arange(first, first + count, dtype=np.uint64)
        on_length, off_length = _period_lengths(arrivals, seed, number)
        ends = end_ps + np.cumsum(on_length)
        off_after = off_ps + np.cumsum(off_length)
        on_ends.append(ends)
        off_before.append(off_after - off_length)
        end_ps, off_ps = int(ends[-1]), int(off_after[-1])
        first += count
    if not on_ends:
        return np.empty(0, np.int64), state.period, state.period_start_ps, state.off_passed_ps
    end, off = np.concatenate(on_ends), np.concatenate(off_before)
    # A flow at the very end of an on period belongs to the next one: it starts after the silence.
    row = np.searchsorted(end, on_time, side="right")
    known = on_time[row < end.size]  # the others start after the window
    row = row[: known.size]
    start = known + off[row]
    start = start[: np.searchsorted(start, until_ps, side="left")]
    if not start.size:
        return start, state.period, state.period_start_ps, state.off_passed_ps
    last = int(row[start.size - 1])
    period_start_ps = int(end[last - 1]) if last else state.period_start_ps
    return start, state.period + last, period_start_ps, int(off[last])


def _period_lengths(
    arrivals: OnOff, seed: int, period: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if arrivals.kind is PeriodKind.CONSTANT:
        return np.full(period.size, arrivals.on_ps), np.full(period.size, arrivals.off_ps)
    # At least 1 ps, so that every on period moves the clock.
    on_length = np.maximum(exponential_ps(seed, PERIODS, period, float(arrivals.on_ps), draw=0), 1)
    return on_length, exponential_ps(seed, PERIODS, period, float(arrivals.off_ps), draw=1)


def exponential_ps(
    seed: int, purpose: str, flow: NDArray[np.uint64], mean_ps: float, *, draw: int = 0
) -> NDArray[np.int64]:
    """Return exponential times, rounded to the nearest picosecond: int64[n], one per flow."""
    time = exact_math.log(1.0 - random_streams.uniform(seed, purpose, flow, draw))
    time *= -mean_ps
    return rounded_to_nearest(time)
