"""BGP in simulated time: where it ends, what it undoes, and how long failures last on a real BIRD."""

from dataclasses import replace

import pytest
from engine.bgp_networks import LAB, MINUTE, given_cluster, sessions_of, three_nodes, when
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.clusters import routed_clusters

from simnet.engine.bgp_processes import control_plane, run_control_plane
from simnet.engine.rib_at import daemon_of
from simnet.engine.route_view import rib
from simnet.errors import ModelError
from simnet.model.calico import FabricMode, Wiring
from simnet.model.events import Event, EventKind
from simnet.model.fabric import DeviceKind
from simnet.units import PS_PER_MS, PS_PER_S


@settings(max_examples=60, deadline=None)
@given(routed_clusters(most_nodes=4), st.integers(0, 2**32))
def test_speakers_that_come_up_at_jittered_times_end_with_the_steady_tables(cluster, seed):
    ready, spec = given_cluster(
        cluster.nodes, cluster.pods, cluster.blocks, cluster.calico, cluster.settings, cluster.fabric
    )
    history = run_control_plane(ready, spec, (), until_ps=MINUTE, seed=seed, start="cold")
    assert history.fibs_at(MINUTE) == dict(ready.fibs)
    if sessions_of(cluster):
        assert {change.state for change in history.sessions} >= {"Established"}
        assert history.converged_ps > PS_PER_S
    steady = run_control_plane(ready, spec, (), until_ps=MINUTE, seed=seed)
    assert steady.start == ready.fibs
    assert not steady.fibs
    assert not sum(steady.messages.values())


@settings(max_examples=30, deadline=None)
@given(routed_clusters(most_nodes=4), st.integers(0, 2**32), st.booleans())
def test_what_a_daemon_holds_at_rest_is_what_the_exchange_without_time_gives(cluster, seed, is_cold):
    ready, spec = given_cluster(
        cluster.nodes, cluster.pods, cluster.blocks, cluster.calico, cluster.settings, cluster.fabric
    )
    plane = control_plane(ready, spec, (), seed=seed, start="cold" if is_cold else "converged")
    plane.run(MINUTE if is_cold else 0)
    for device in ready.fabric.devices:
        if device.kind is DeviceKind.CLIENTS:
            continue
        for family in (4, 6):
            daemon, wanted = daemon_of(plane, device.name, family=family), rib(ready, spec, device.name, family=family)
            found = daemon.rib
            assert {entry.prefix: set(entry.paths) for entry in found.entries} == {
                entry.prefix: set(entry.paths) for entry in wanted.entries
            }
            assert set(found.untold) == set(wanted.untold)
            assert {each.state for each in daemon.sessions} <= {"Established"}
            assert not daemon.withdrawn


# --- failures, as long as facts/kernel.md measured them on BIRD 2

AT = 60 * PS_PER_S
SEEDS = range(60)


def withdrawn_and_back(kind, subject, *, until_ps=30 * PS_PER_S, **timers):
    """Seconds until the switch has no route to n0's block, and from the end of the event until it has one, by seed."""
    ready, spec = three_nodes(timers=replace(LAB, **timers))
    gone, back = [], []
    for seed in SEEDS:
        event = Event(AT, kind, subject, until_ps=None if until_ps is None else AT + until_ps)
        history = run_control_plane(ready, spec, (event,), until_ps=AT + 2 * MINUTE, seed=seed)
        changes = when(history, "tor", "192.168.0.0/26")
        assert [has for _, has in changes] in ([False, True], []), changes
        assert history.fibs_at(AT + 2 * MINUTE) == dict(ready.fibs)
        if changes:
            gone.append((changes[0][0] - AT) / PS_PER_S)
            back.append((changes[1][0] - AT - (until_ps or 0)) / PS_PER_S)
    return sorted(gone), sorted(back)


@pytest.mark.parametrize("kind", [EventKind.BGP_KILLED, EventKind.BGP_STOPS])
def test_a_daemon_that_ends_is_noticed_within_two_milliseconds_and_is_back_within_two_seconds(kind):
    gone, back = withdrawn_and_back(kind, ("n0",))
    assert len(gone) == len(SEEDS)
    assert 0.001 <= gone[0] <= gone[-1] <= 0.002
    assert 0 < back[0] <= back[-1] <= 1.8  # measured 0.4 to 1.8 s


def test_sigterm_voids_graceful_restart():
    gone, _ = withdrawn_and_back(EventKind.BGP_STOPS, ("n0",), restart_ps=8 * PS_PER_S)
    assert gone[-1] <= 0.002


def test_sigkill_with_graceful_restart_keeps_the_routes_for_the_restart_time():
    gone, _ = withdrawn_and_back(EventKind.BGP_KILLED, ("n0",), restart_ps=8 * PS_PER_S)
    assert len(gone) == len(SEEDS)
    assert 8.0 <= gone[0] <= gone[-1] <= 8.4


def test_a_restart_within_the_restart_time_changes_no_table():
    assert withdrawn_and_back(EventKind.BGP_KILLED, ("n0",), until_ps=3 * PS_PER_S, restart_ps=8 * PS_PER_S) == ([], [])
    assert withdrawn_and_back(EventKind.BGP_RESTARTS, ("n0",), until_ps=None, restart_ps=8 * PS_PER_S) == ([], [])


def test_a_link_that_goes_down_is_noticed_by_its_carrier():
    gone, back = withdrawn_and_back(EventKind.LINK_DOWN, ("n0", "tor"))
    assert 0.0065 <= gone[0] <= gone[-1] <= 0.0075  # measured 7 ms
    assert back[-1] <= 4.5  # measured 4.4 s


def test_a_port_of_a_bridge_that_goes_down_takes_no_session_with_it():
    """The switch's address is on the bridge, which stays up: a real BIRD waits for its hold timer (6.0 s measured)."""
    ready, spec = three_nodes(mode=FabricMode.BRIDGED)
    for seed in range(20):
        event = Event(AT, EventKind.LINK_DOWN, ("n0", "tor"), AT + 30 * PS_PER_S)
        history = run_control_plane(ready, spec, (event,), until_ps=AT + 3 * MINUTE, seed=seed)
        (gone, _), (_, _) = when(history, "tor", "192.168.0.0/26")
        assert 3.75 <= (gone - AT) / PS_PER_S <= 10.3
        assert history.fibs_at(AT + 3 * MINUTE) == dict(ready.fibs)


@pytest.mark.parametrize("kind, subject", [(EventKind.BGP_FREEZES, ("n0",)), (EventKind.LINK_SILENT, ("tor", "n0"))])
def test_silence_is_noticed_by_the_hold_timer(kind, subject):
    """Hold [6.75, 9] s after the last KEEPALIVE, which is at most 3 s old, and up to 1.3 s until BIRD's loop acts."""
    gone, _ = withdrawn_and_back(kind, subject)
    assert len(gone) == len(SEEDS)
    assert 6.75 - 3 <= gone[0] <= gone[-1] <= 9 + 1.3
    inside = sum(5.2 <= seconds <= 9.4 for seconds in gone)  # the sixteen that were measured
    assert inside >= 0.9 * len(gone)
    assert 6.2 <= gone[len(gone) // 2] <= 7.6


def test_bfd_notices_silence_after_its_interval_times_its_multiplier():
    bfd = replace(LAB, bfd_interval_ps=300 * PS_PER_MS)
    ready, spec = three_nodes(timers=bfd, switch=bfd)
    for seed in range(20):
        event = Event(AT, EventKind.LINK_SILENT, ("n0", "tor"), AT + MINUTE)
        history = run_control_plane(ready, spec, (event,), until_ps=AT + 3 * MINUTE, seed=seed)
        (gone, _), (_, _) = when(history, "tor", "192.168.0.0/26")
        assert 600 * PS_PER_MS <= gone - AT <= 902 * PS_PER_MS
        assert history.fibs_at(AT + 3 * MINUTE) == dict(ready.fibs)


# --- single events


def test_a_node_that_comes_back_behind_a_silent_link_is_found_when_the_link_is():
    """Its carrier is back before anything gets through."""
    ready, spec = three_nodes()
    events = (
        Event(0, EventKind.NODE_DIES, ("n0",), PS_PER_S // 2),
        Event(0, EventKind.LINK_SILENT, ("n0", "tor"), PS_PER_S),
    )
    history = run_control_plane(ready, spec, events, until_ps=MINUTE, seed=1)
    assert history.fibs_at(MINUTE) == dict(ready.fibs)


def test_timers_that_run_out_in_a_frozen_daemon_are_acted_on_once_it_goes_on():
    """A node is back, and its daemon is frozen when it would have connected to the others."""
    ready, spec = three_nodes(wiring=Wiring.S2)
    for node in ("n0", "n2"):  # of two nodes one connects, the other waits for that
        events = (
            Event(0, EventKind.NODE_DIES, (node,), PS_PER_S // 2),
            Event(PS_PER_S, EventKind.BGP_FREEZES, (node,), 4 * PS_PER_S),
        )
        for seed in range(5):
            history = run_control_plane(ready, spec, events, until_ps=5 * MINUTE, seed=seed)
            assert history.fibs_at(5 * MINUTE) == dict(ready.fibs)


def test_a_claimed_block_is_told_to_everyone_and_a_wrong_event_is_named():
    ready, spec = three_nodes(wiring=Wiring.S2)
    event = Event(PS_PER_S, EventKind.BLOCK_CLAIMED, ("n0", "192.168.9.0/26"))
    history = run_control_plane(ready, spec, (event,), until_ps=2 * PS_PER_S, seed=1)
    assert all(
        any(str(route.prefix) == "192.168.9.0/26" for route in history.fibs_at(2 * PS_PER_S)[name].routes)
        for name in ("n0", "n1", "n2", "tor")
    )
    with pytest.raises(ModelError, match="'n9' speaks no BGP in this cluster"):
        run_control_plane(ready, spec, (Event(0, EventKind.NODE_DIES, ("n9",)),), until_ps=1, seed=1)


# --- causes


def test_every_change_names_the_event_that_it_follows_from_however_late():
    """A silent link is noticed by the hold timer after a daemon elsewhere was killed: each change has its own cause."""
    ready, spec = three_nodes()
    silent = Event(AT, EventKind.LINK_SILENT, ("tor", "n0"), AT + MINUTE)
    killed = Event(AT + PS_PER_S, EventKind.BGP_KILLED, ("n1",), AT + 2 * MINUTE)
    for seed in range(10):
        history = run_control_plane(ready, spec, (silent, killed), until_ps=AT + 4 * MINUTE, seed=seed)
        assert history.events == (silent, killed)
        held = {route.prefix: route for route in history.start["tor"].routes}
        found = set()
        for change in history.fibs:
            if change.device == "tor":
                now = {route.prefix: route for route in change.fib.routes}
                differing = {prefix for prefix in held | now if held.get(prefix) != now.get(prefix)}
                found |= {(str(prefix), change.event) for prefix in differing if prefix.prefixlen == 26}
                held = now
        assert found == {("192.168.0.0/26", 0), ("192.168.1.0/26", 1)}
        assert {change.event for change in history.links} == {0}
