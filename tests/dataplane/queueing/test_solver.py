"""The vectorised solver gives what a plain event simulation gives, packet by packet, to the picosecond."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from reference.queue_networks import Case, networks, run
from reference.queue_simulation import simulate

from simnet.dataplane.queueing.solver import QueueNetwork
from simnet.dataplane.queueing.ways import made_ready
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


@pytest.mark.slow
@settings(max_examples=LONG_CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from([1, 2, 5, 17, 1_000]))
def test_every_packet_fares_as_in_the_event_simulation_in_many_networks(case: Case, window_packets: int) -> None:
    _agree(case, window_packets)
