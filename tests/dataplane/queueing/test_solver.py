"""The vectorised solver gives what a plain event simulation gives, packet by packet, to the picosecond."""

from __future__ import annotations

import os
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from reference.queue_networks import Case, networks, run
from reference.queue_simulation import simulate

from simnet.dataplane.queueing import solver, window
from simnet.dataplane.queueing.solver import QueueNetwork
from simnet.dataplane.queueing.stations import CPU, FIXED, UNLIMITED, Injected, Itineraries, Stations
from simnet.dataplane.queueing.ways import made_ready
from simnet.dataplane.queueing.window import Window, bits
from simnet.errors import ModelError

CASES = 400 if os.environ.get("CI") else 2_000
LONG_CASES = 50_000


def _agree(case: Case, window_packets: int) -> None:
    try:
        made_ready(case.ways, case.stations)
    except ModelError:
        reject()  # a cycle that takes no time, or two drawn services in one way
    got = run(QueueNetwork(case.stations, window_packets=window_packets), case)
    want = simulate(case.stations, case.injected, case.ways)
    for name, column in want.items():
        np.testing.assert_array_equal(got[name], column, err_msg=name)


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from([1, 2, 5, 17, 1_000]))
def test_every_packet_fares_as_in_the_event_simulation(case: Case, window_packets: int) -> None:
    _agree(case, window_packets)


@settings(max_examples=CASES // 2, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from([1, 2, 3]))
def test_a_window_that_takes_many_sweeps_is_begun_anew_with_fewer_packets(case: Case, most_sweeps: int) -> None:
    with (
        patch.object(solver, "_MANY_SWEEPS", most_sweeps),
        patch.object(solver, "_FEW_SWEEPS", most_sweeps),
        patch.object(solver, "_FEWEST_PACKETS", 1),
    ):
        _agree(case, 1_000)


@settings(max_examples=CASES // 2, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(7, 12))
def test_a_backlog_may_be_longer_than_the_times_that_a_sort_key_holds(case: Case, time_bits: int) -> None:
    def few_bits(slots: int, stations: int) -> tuple[int, int]:
        return bits(slots, stations)[0], time_bits

    with patch.object(window, "bits", few_bits), patch.object(solver, "bits", few_bits):
        _agree(case, 1_000)


@pytest.mark.slow
@settings(max_examples=LONG_CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from([1, 2, 5, 17, 1_000]))
def test_every_packet_fares_as_in_the_event_simulation_in_many_networks(case: Case, window_packets: int) -> None:
    _agree(case, window_packets)


def _one_way(kinds: list[int], fixed_ps: list[int], stations: list[int]) -> tuple[Stations, Itineraries]:
    count = len(kinds)
    network = Stations(
        kind=np.array(kinds, dtype=np.uint8),
        servers=np.ones(count, np.int32),
        rate_bps=np.zeros(count, np.int64),
        delay_ps=np.zeros(count, np.int64),
        limit_packets=np.full(count, UNLIMITED),
        limit_bytes=np.full(count, UNLIMITED),
    )
    visits = len(stations)
    ways = Itineraries(
        start=np.array([0, visits]),
        station=np.array(stations, dtype=np.int32),
        work_of=np.full(visits, FIXED, np.uint8),
        extra_bytes=np.zeros(visits, np.int32),
        fixed_ps=np.array(fixed_ps),
    )
    return network, ways


def _packets(time_ps: list[int], after: list[int] | None = None) -> Injected:
    nothing = np.zeros(len(time_ps), np.int32)
    return Injected(
        np.arange(len(time_ps)),
        np.array(time_ps),
        nothing,
        nothing,
        nothing,
        nothing.astype(np.int64),
        None if after is None else np.array(after),
    )


def test_a_cycle_that_takes_no_time_is_refused() -> None:
    network, ways = _one_way([CPU, CPU], [0, 0, 0], [0, 1, 0])
    with pytest.raises(ModelError, match="a cycle of ways through station 0 takes no time"):
        QueueNetwork(network).advance(_packets([5]), ways, 10)


def test_a_packet_of_the_past_is_refused() -> None:
    network, ways = _one_way([CPU], [3], [0])
    queues = QueueNetwork(network)
    queues.advance(_packets([5]), ways, 10)
    with pytest.raises(ModelError, match="a packet starts at 9 ps, settled until 10 ps"):
        queues.advance(_packets([9]), ways, 20)


def test_a_packet_after_an_unknown_one_is_refused() -> None:
    network, ways = _one_way([CPU], [3], [0])
    queues = QueueNetwork(network)
    queues.advance(_packets([5, 7], [-1, 40]), ways, 10)
    with pytest.raises(ModelError, match="packet 40, after which one starts, is not known"):
        queues.finish()


def test_a_request_starts_when_the_answer_before_it_has_been_thought_over() -> None:
    network, ways = _one_way([CPU], [3], [0])
    queues = QueueNetwork(network)
    left = queues.advance(_packets([5, 10, 20], [-1, 0, 1]), ways, 100)
    assert left.time_ps.tolist() == [8, 8 + 10 + 3, 21 + 20 + 3]


def test_a_window_that_does_not_come_to_rest_says_by_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(window: Window, _: object) -> bool:
        window.arrival_ps += 7
        return True

    monkeypatch.setattr(Window, "_sweep", never)
    network, ways = _one_way([CPU, CPU], [3, 3, 3], [0, 1, 0])
    with pytest.raises(ModelError, match="left arrivals that still change by up to 14 ps"):
        QueueNetwork(network).advance(_packets([5]), ways, 10)
