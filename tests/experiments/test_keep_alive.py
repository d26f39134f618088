"""What experiments/README.md says of kept connections: spread follows from how many there are, not from requests."""

from __future__ import annotations

import numpy as np
import pytest

PODS, CLIENTS, REPEATS = 10, 100, 4
FOREVER = 1_000_000


@pytest.fixture(scope="module")
def ran(run_shipped):
    sweep = f"{{workload.requests.perConnection: [5, 100, {FOREVER}], workload.requests.connections: [1, 8]}}"
    found = run_shipped("keep-alive", f"sweep={sweep}", f"run.repeat={REPEATS}", "run.duration=300ms")
    by_point = {}
    for run in found:
        limit, pool = (run.point[f"workload.requests.{key}"] for key in ("perConnection", "connections"))
        by_point.setdefault((run.variant, limit, pool), []).append(run)
    assert len(by_point) == 2 * 3 * 2
    return by_point


def requests_of_pods(run):
    load = run.frames["load"]
    return load[load["where"] == "pod"]["packets"].to_numpy()


def test_requests_spread_over_pods_as_their_connections_do(ran):
    for point, runs in ran.items():
        ratios = []
        for run in runs:
            requests = requests_of_pods(run)
            carried = run.frames["flows"]["packets_sent"].to_numpy().astype(float)
            assert len(requests) == PODS
            assert requests.sum() == carried.sum()
            expected = (PODS - 1) * (carried**2).sum() / carried.sum() ** 2
            ratios.append((requests.std() / requests.mean()) ** 2 / expected)
        # A chi-square number with PODS - 1 degrees of freedom, over its mean.
        assert abs(np.mean(ratios) - 1) < 4 * (2 / (PODS - 1) / REPEATS) ** 0.5, point


def test_connections_that_are_never_given_up_are_as_many_as_the_clients_keep(ran):
    for (_, limit, pool), runs in ran.items():
        for run in runs:
            carried = run.frames["flows"]["packets_sent"]
            assert carried.max() <= limit
            if limit == FOREVER:
                assert len(carried) == CLIENTS * pool


def test_a_limit_changes_connections_and_no_request(ran):
    for pool in (1, 8):
        for repeat in range(REPEATS):
            sums = {requests_of_pods(ran[point][repeat]).sum() for point in ran if point[2] == pool}
            assert len(sums) == 1
