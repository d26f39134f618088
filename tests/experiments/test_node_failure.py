"""What experiments/README.md says of failures: what is lost, for how long and why, from closed forms."""

from __future__ import annotations

import pytest

SILENT_S, KILLED_S, BACK_S = 10, 40, 45
N = 4
BOTH_LEGS = 1 - (1 - 1 / N) ** 2  # entry node or serving node is the one that is cut off
GAP_S = 10 * N / 200  # ten mean gaps between calls to one node: none so long in e^10


@pytest.fixture(scope="module")
def runs(run_shipped):
    found = {}
    for run in run_shipped("node-failure", "run.repeat=1"):
        bfd, restart = run.point["calico.bgp.bfd"] != "none", run.point["calico.bgp.gracefulRestart"] != "none"
        found[run.variant, bfd, restart] = run.frames
    return found


@pytest.fixture(scope="module")
def flows(runs):
    return {which: each["flows"].assign(second=each["flows"]["start_ps"] / 1e12) for which, each in runs.items()}


def between(frame, start_s, end_s):
    return frame[(frame["second"] >= start_s) & (frame["second"] < end_s)]


def assert_lost(frame, start_s, end_s, share, reason):
    """`share` of what began in a span is lost, within four standard errors, and all for one reason."""
    mine = between(frame, start_s, end_s)
    lost = mine[~mine["answered"]]
    assert abs(len(lost) / len(mine) - share) <= 4 * (share * (1 - share) / len(mine)) ** 0.5
    assert set(lost["reason"]) <= {reason}


@pytest.mark.parametrize(
    ("variant", "before", "after"),
    [
        ("load-balancer-local", 1 / N, 0),
        ("load-balancer-cluster", BOTH_LEGS, 1 / N),  # the pod stays an endpoint
        ("node-port", BOTH_LEGS, None),  # before and after; the reason depends on the leg
        ("pod", 1 / N, 1 / N),
    ],
)
@pytest.mark.parametrize(("bfd", "soonest_s", "latest_s"), [(False, 3.75, 9.0), (True, 0.6, 0.9)])
def test_a_silent_link_costs_what_goes_there_until_bgp_notices(flows, variant, before, after, bfd, soonest_s, latest_s):
    frame = flows[variant, bfd, False]
    assert between(frame, 0, SILENT_S)["answered"].all()
    assert_lost(frame, SILENT_S, SILENT_S + soonest_s, before, "link down")
    noticed = SILENT_S + latest_s + 0.01
    if after is not None:
        assert_lost(frame, noticed, SILENT_S + 15, after, "no route")
    else:
        mine = between(frame, noticed, SILENT_S + 15)
        assert set(mine["reason"][~mine["answered"]]) == {"no route", "link down"}  # node-2's own address, connected
        assert abs((~mine["answered"]).mean() - before) <= 4 * (before * (1 - before) / len(mine)) ** 0.5


@pytest.mark.parametrize(("bfd", "soonest_s", "latest_s"), [(False, 3.75, 9.0), (True, 0.6, 0.9)])
def test_the_address_moves_when_the_timer_says(flows, bfd, soonest_s, latest_s):
    frame = between(flows["load-balancer-local", bfd, False], SILENT_S, KILLED_S)
    outage_s = frame["second"][~frame["answered"]].max() - SILENT_S
    assert soonest_s - GAP_S <= outage_s <= latest_s + 0.01


@pytest.mark.parametrize(
    ("variant", "share"),
    [
        ("load-balancer-local", 0), ("load-balancer-cluster", 1 / N), ("pod", 1 / N),
        ("node-port", (1 - 1 / N) / N),  # what enters at the node itself still finds its pod
    ],
)  # fmt: skip
@pytest.mark.parametrize("bfd", [False, True])
def test_a_killed_daemon_costs_the_routes_to_its_pods_unless_they_are_kept(flows, variant, share, bfd):
    assert_lost(flows[variant, bfd, False], KILLED_S + 0.01, BACK_S, share, "no route")
    assert between(flows[variant, bfd, True], KILLED_S - 10, 60)["answered"].all()


def lost_by(frames, event, reason):
    effects = frames["event_effects"]
    chosen = (effects["event"] == event) & (effects["effect"] == "packets") & (effects["reason"] == reason)
    return int(effects.loc[chosen, "count"].sum())


def assert_near(count, share, calls):
    assert abs(count - share * calls) <= 4 * (share * (1 - share) * calls) ** 0.5


@pytest.mark.parametrize(("bfd", "soonest_s", "latest_s"), [(False, 3.75, 9.0), (True, 0.6, 0.9)])
def test_each_event_loses_its_share_of_the_calls_between_the_instants_that_its_row_names(
    runs, flows, bfd, soonest_s, latest_s
):
    frames = runs["load-balancer-cluster", bfd, False]
    silent, killed = frames["events"].to_dict("records")
    assert soonest_s <= silent["time_to_withdraw_ps"] / 1e12 <= latest_s + 0.01
    assert 0.001 <= killed["time_to_withdraw_ps"] / 1e12 <= 0.002
    followed_s, whole_s = SILENT_S + silent["time_to_withdraw_ps"] / 1e12, silent["window_end_ps"] / 1e12
    frame = flows["load-balancer-cluster", bfd, False]
    assert_near(lost_by(frames, 0, "link down"), BOTH_LEGS, len(between(frame, SILENT_S, followed_s)))
    assert_near(lost_by(frames, 0, "no route"), 1 / N, len(between(frame, followed_s, whole_s)))
    assert_near(killed["packets_lost"], 1 / N, len(between(frame, KILLED_S, killed["window_end_ps"] / 1e12)))
    for event in (silent, killed):
        assert event["start_ps"] <= event["first_loss_ps"] <= event["last_loss_ps"] <= event["window_end_ps"] + 1e9


@pytest.mark.parametrize("variant", ["load-balancer-local", "load-balancer-cluster", "node-port", "pod"])
@pytest.mark.parametrize("restart", [False, True])
def test_every_call_that_is_lost_is_one_of_the_two_events(runs, variant, restart):
    frames = runs[variant, False, restart]
    silent, killed = frames["events"].to_dict("records")
    assert silent["packets_lost"] + killed["packets_lost"] == (~frames["flows"]["answered"]).sum()
    if restart:
        assert (killed["time_to_withdraw_ps"], killed["time_to_repair_ps"], killed["packets_lost"]) == (-1, 0, 0)
