"""A full queue changes busy periods only in which somebody is dropped: the short cut equals serving everybody."""

from __future__ import annotations

import numpy as np
import pytest

from simnet.dataplane.queueing.one_by_one import Room, serve, serve_limited


@pytest.mark.parametrize("load", [0.5, 0.9, 1.3])
@pytest.mark.parametrize("held", [0, 3])
def test_busy_periods_without_a_full_queue_follow_the_closed_form(load: float, held: int) -> None:
    dropped_in_all = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        service = rng.integers(50, 151, 3_000)
        arrival = np.cumsum(rng.exponential(100 / load, 3_000)).astype(np.int64)
        size = rng.integers(1, 100, 3_000)
        room = Room(6, 450, np.array([120, 170, 220])[:held], np.array([60, 80, 90])[:held])
        free = np.array([270 if held else 0])
        want, lost, taken = serve(arrival, service, size, free, room)
        safe = min(6 * 50, (450 - 99) // 99 * 50) - 1  # so many services at least wait before the queue is full
        got, dropped = serve_limited(arrival, service, size, int(free[0]), room, safe)
        assert taken == 3_000
        np.testing.assert_array_equal(dropped, lost)
        np.testing.assert_array_equal(got[~lost], want[~lost])
        dropped_in_all += int(lost.sum())
    assert dropped_in_all > 0 or load == 0.5
