"""The event loop gives what the plain event simulation gives, and what the windows give, piece by piece."""

from __future__ import annotations

import os
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from reference.queue_networks import Case, networks, rows, run
from reference.queue_simulation import simulate

from simnet.dataplane.queueing import event_network
from simnet.dataplane.queueing.event_loop import IS_COMPILED
from simnet.dataplane.queueing.event_network import EventNetwork
from simnet.dataplane.queueing.solver import QueueNetwork
from simnet.dataplane.queueing.stations import Left, Visits
from simnet.dataplane.queueing.ways import made_ready
from simnet.engine.queue_solver import queue_solver
from simnet.errors import ModelError

# The loop is the same without numba, and a hundred times slower.
CASES = 100 if os.environ.get("CI") else 2_000 if IS_COMPILED else 300
LONG_CASES = 50_000 if IS_COMPILED else 3_000
COLUMNS = ("packet", "time_ps", "dropped_at", "turned_ps", "waited_ps", "served_ps", "travelled_ps")

# Room for few packets at once, few visits in the log, few that wait, buckets few and narrow: all run full and are left.
rooms = st.fixed_dictionaries(
    {
        "_AT_ONCE": st.sampled_from([1, 7, 1_000]),
        "_LOG": st.sampled_from([1, 5, 1_000]),
        "_NODES": st.sampled_from([1, 3, 1_000]),
        "_BUCKETS": st.sampled_from([2, 16, 1_024]),
        "_WIDTH_BITS": st.sampled_from([0, 5, 16, 40]),
    }
)


def _possible(case: Case) -> Case:
    try:
        made_ready(case.ways, case.stations)
    except ModelError:
        reject()  # a cycle that takes no time, or two drawn services in one way
    return case


def _agree(case: Case, room: dict[str, int]) -> None:
    with mock.patch.multiple(event_network, **room):
        got = run(EventNetwork(case.stations), _possible(case))
    for name, column in simulate(case.stations, case.injected, case.ways).items():
        np.testing.assert_array_equal(got[name], column, err_msg=name)


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), rooms)
def test_every_packet_fares_as_in_the_event_simulation(case: Case, room: dict[str, int]) -> None:
    _agree(case, room)


@pytest.mark.slow
@settings(max_examples=LONG_CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), rooms)
def test_every_packet_fares_as_in_the_event_simulation_in_many_networks(case: Case, room: dict[str, int]) -> None:
    _agree(case, room)


def _pieces(network: EventNetwork | QueueNetwork, case: Case) -> list[Left]:
    """What is handed back at each cut, and at the end."""
    pieces, low = [], 0
    for cut in (*case.cuts, int(case.injected.time_ps.max()) + 1):
        part = (case.injected.time_ps >= low) & (case.injected.time_ps < cut)
        pieces.append(network.advance(rows(case.injected, part), case.ways, cut))
        low = cut
    return [*pieces, network.finish()]


def _at_stations(visits: list[Visits]) -> np.ndarray:
    """All visits, each station's in order of arrival as they were told."""
    names = ("station", "arrival_ps", "start_ps", "end_ps", "size_bytes")
    table = np.concatenate([[getattr(told, name).astype(np.int64) for name in names] for told in visits], axis=1)
    return table[:, np.argsort(table[0], kind="stable")]


@settings(max_examples=CASES // 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), rooms)
def test_each_call_hands_back_and_tells_what_the_windows_do(case: Case, room: dict[str, int]) -> None:
    told: list[list[Visits]] = [[], []]
    windows = _pieces(QueueNetwork(_possible(case).stations, told[0].append, window_packets=17), case)
    with mock.patch.multiple(event_network, **room):
        events = _pieces(EventNetwork(case.stations, told[1].append), case)
    for one, other in zip(windows, events, strict=True):
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(other, name), getattr(one, name), err_msg=name)
            assert getattr(other, name).dtype == getattr(one, name).dtype
    np.testing.assert_array_equal(_at_stations(told[1]), _at_stations(told[0]))


def test_numba_decides_which_solver_runs_and_the_user_overrules_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMNET_QUEUES", raising=False)
    with mock.patch("importlib.util.find_spec", return_value=None):
        assert queue_solver() is QueueNetwork
    with mock.patch("importlib.util.find_spec", return_value=object()):
        assert queue_solver() is EventNetwork
    monkeypatch.setenv("SIMNET_QUEUES", "windows")
    assert queue_solver() is QueueNetwork
    monkeypatch.setenv("SIMNET_QUEUES", "events")
    assert queue_solver() is EventNetwork
    monkeypatch.setenv("SIMNET_QUEUES", "both")
    with pytest.raises(ModelError, match="SIMNET_QUEUES is 'both': say windows or events, or leave it out"):
        queue_solver()
