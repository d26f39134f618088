"""What experiments/README.md says of nodes that are lost: closed forms, each within four standard errors."""

from __future__ import annotations

import pytest
from experiments.test_node_failure import assert_lost, between

DIES_S, BACK_S, DRAINED_S, GONE_S, UNDONE_S, AT_ONCE_S, LAST_S = 20, 120, 150, 180, 200, 220, 235
N = 4
BOTH_LEGS = 1 - (1 - 1 / N) ** 2  # entry node or serving node is the one that is lost
CARRIER_S = 0.051  # a switch's look at its port, and the table written
WATCHES_S = (0.1, 0.3)  # two of 50 to 150 ms: pod to slice, slice to node


@pytest.fixture(scope="module")
def flows(run_shipped):
    found = {}
    for run in run_shipped("node-loss", "run.repeat=1"):
        frame = run.frames["flows"]
        grace_s = run.point["kubeControllerManager.nodeMonitorGracePeriod"]
        found[run.variant, grace_s] = frame.assign(second=frame["start_ps"] / 1e12)
    return found


def unreachable_s(grace_s):
    """From the death until rules are without the pod, soonest and latest: the lease is up to 10 s old, the look 5 s."""
    return grace_s - 10 + WATCHES_S[0], grace_s + 5 + WATCHES_S[1]


@pytest.mark.parametrize("grace", ["20s", "50s"])
@pytest.mark.parametrize(
    ("variant", "before", "after"),
    [
        ("load-balancer-local", 0, 0),  # the switch sees the carrier go and has three nodes left
        ("load-balancer-cluster", 1 / N, 0),
        ("node-port", BOTH_LEGS, 1 / N),  # the dead node's own address stays in use
        ("pod", 1 / N, 1 / N),
    ],
)
def test_a_dead_nodes_share_is_lost_until_kubernetes_takes_its_pods_out(flows, variant, before, after, grace):
    frame = flows[variant, grace]
    soonest_s, latest_s = unreachable_s(int(grace.removesuffix("s")))
    assert between(frame, 0, DIES_S)["answered"].all()
    assert (between(frame, DIES_S + CARRIER_S, DIES_S + soonest_s)["answered"].all()) == (before == 0)
    for begin_s, end_s, share in (
        (DIES_S + CARRIER_S, DIES_S + soonest_s, before), (DIES_S + latest_s, BACK_S, after)
    ):  # fmt: skip
        mine = between(frame, begin_s, end_s)
        assert abs((~mine["answered"]).mean() - share) <= 4 * (share * (1 - share) / len(mine)) ** 0.5


@pytest.mark.parametrize("variant", ["load-balancer-local", "load-balancer-cluster", "node-port"])
def test_a_drain_costs_nothing_at_any_service_address(flows, variant):
    frame = flows[variant, "50s"]
    assert between(frame, DRAINED_S - 15, AT_ONCE_S)["answered"].all()
    mine = between(frame, DRAINED_S + WATCHES_S[1], UNDONE_S)
    assert "node-3" not in set(mine["serving_node"])
    before = between(frame, DRAINED_S - 15, DRAINED_S)
    assert "node-3" in set(before["serving_node"])


def test_a_pod_that_is_called_by_its_address_serves_until_its_grace_period_is_over(flows):
    frame = flows["pod", "50s"]
    assert between(frame, DRAINED_S, GONE_S)["answered"].all()
    assert_lost(frame, GONE_S + 0.01, UNDONE_S, 1 / N, "blackhole")
    assert between(frame, UNDONE_S + 0.01, AT_ONCE_S)["answered"].all()


@pytest.mark.parametrize("variant", ["load-balancer-local", "load-balancer-cluster", "node-port"])
def test_without_a_grace_period_calls_are_lost_for_as_long_as_news_travel(flows, variant):
    frame = flows[variant, "50s"]
    lost = frame[(frame["second"] >= AT_ONCE_S) & ~frame["answered"]]
    assert (lost["second"] < AT_ONCE_S + WATCHES_S[1] + 0.001).all()
    assert set(lost["reason"]) <= {"blackhole", "port closed"}
    assert between(frame, AT_ONCE_S + WATCHES_S[1] + 0.001, 240)["answered"].all()
