"""After any finite sequence of events that is undone, overlapping ones too, every table is that of the start."""

from dataclasses import replace

import pytest
from engine.bgp_networks import LAB, run_undone, sessions_of, three_nodes, when, with_timers
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.clusters import routed_clusters

from simnet.model.calico import Wiring
from simnet.model.events import Event, EventKind
from simnet.units import PS_PER_MS, PS_PER_S

HALF_S = PS_PER_S // 2


@st.composite
def events_that_end(draw, cluster, *, most=6, span=40):
    """Up to `most` events within `span` half seconds, overlapping as it comes, on few subjects."""
    nodes = [node.name for node in cluster.nodes]
    switches = [d.name for d in cluster.fabric.devices if d.as_number and d.name not in nodes]
    wires = [(w.a, w.b) for w in cluster.fabric.links if w.a in (*nodes, *switches) and w.b in switches]
    peers = sorted({tuple(sorted(pair)) for pair in sessions_of(cluster)})
    speaking = [name for name in switches if any(name in pair for pair in peers)]
    boxes = draw(st.lists(st.sampled_from(nodes + speaking), min_size=1, max_size=2))
    found = []
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(KINDS))
        box = draw(st.sampled_from(boxes))
        at_ps = draw(st.integers(0, span)) * HALF_S
        until_ps = at_ps + draw(st.integers(1, span)) * HALF_S
        if kind in (EventKind.LINK_DOWN, EventKind.LINK_SILENT):
            near = [wire for wire in wires if box in wire]
            subject = draw(st.sampled_from(near or wires))
        elif kind is EventKind.PEER_REMOVED:
            if not peers:
                continue
            subject = draw(st.sampled_from([pair for pair in peers if box in pair] or peers))
        elif kind is EventKind.BLOCK_CLAIMED:
            free = ["192.168.0.192/30", "192.168.0.200/30"]
            subject = (draw(st.sampled_from(nodes)), draw(st.sampled_from(free)))
            if any(block.cidr == subject[1] for block in cluster.blocks):
                continue
        elif kind in (EventKind.NODE_DIES, EventKind.NODE_DRAINED):
            subject = (box if box in nodes else draw(st.sampled_from(nodes)),)
        else:
            subject = (box,)
        found.append(Event(at_ps, kind, subject, until_ps))
    return found


KINDS = [
    EventKind.NODE_DIES, EventKind.LINK_DOWN, EventKind.LINK_SILENT, EventKind.BGP_STOPS, EventKind.BGP_KILLED,
    EventKind.BGP_FREEZES, EventKind.BGP_RESTARTS, EventKind.BLOCK_CLAIMED, EventKind.PEER_REMOVED,
]  # fmt: skip


@st.composite
def timers(draw):
    """With and without graceful restart, its helper, BFD; the node's and the switch's apart."""
    return replace(
        LAB,
        restart_ps=draw(st.sampled_from([None, 3 * PS_PER_S, 8 * PS_PER_S])),
        is_helper=draw(st.booleans()),
        bfd_interval_ps=draw(st.sampled_from([None, None, 300 * PS_PER_MS])),
    )


SITUATIONS = (st.data(), routed_clusters(most_nodes=4), st.integers(0, 2**32), timers(), timers())


def _leaves_no_trace(data, cluster, seed, node, switch):
    events = data.draw(events_that_end(cluster))
    ready, spec = with_timers(cluster, node, switch)
    history, found = run_undone(ready, spec, events, seed)
    assert found == {}
    assert all(a.time_ps <= b.time_ps for a, b in zip(history.fibs, history.fibs[1:], strict=False))
    return ready, spec, events, history


@settings(max_examples=40)
@given(*SITUATIONS)
def test_events_that_overlap_and_are_undone_leave_the_tables_of_the_start(data, cluster, seed, node, switch):
    ready, spec, events, history = _leaves_no_trace(data, cluster, seed, node, switch)
    assert run_undone(ready, spec, events, seed)[0] == history


@pytest.mark.slow
@settings(max_examples=2_000)
@given(*SITUATIONS)
def test_thousands_of_events_that_overlap_and_are_undone_leave_the_tables_of_the_start(
    data, cluster, seed, node, switch
):
    _leaves_no_trace(data, cluster, seed, node, switch)


# --- what was once not so


def at(seconds):
    return int(seconds * PS_PER_S)


def event(kind, start, end, *subject):
    return Event(at(start), kind, subject, at(end))


CLAIM, FREEZE, KILL = EventKind.BLOCK_CLAIMED, EventKind.BGP_FREEZES, EventKind.BGP_KILLED
DIE, DOWN, SILENT, REMOVE = EventKind.NODE_DIES, EventKind.LINK_DOWN, EventKind.LINK_SILENT, EventKind.PEER_REMOVED
GRACEFUL = replace(LAB, restart_ps=at(8))

B0 = "192.168.0.0/26"


@pytest.mark.parametrize(
    "events",
    [
        # a node that boots while a peer is out of its configuration must not start that session in vain
        (event(REMOVE, 0, 1, "n0", "tor"), event(DIE, 0, 0.5, "n0")),
        (event(REMOVE, 0, 9, "n0", "tor"), event(REMOVE, 3, 5, "n0", "tor")),  # removed twice, added once
        (event(FREEZE, 1, 9, "n0"), event(REMOVE, 2, 5, "n0", "tor")),  # a frozen daemon reads no configuration
        (event(FREEZE, 1, 9, "n0"), event(FREEZE, 3, 20, "n0"), event(REMOVE, 8, 30, "tor", "n0")),
        (event(KILL, 1, 5, "n0"), event(FREEZE, 3, 20, "n0")),  # the process that starts is another one
        (event(CLAIM, 0, 5, "n0", "192.168.9.0/26"), event(CLAIM, 3, 9, "n0", "192.168.9.0/26")),
        (event(CLAIM, 0, 5, "n0", B0),),  # a block of its own
        (event(CLAIM, 0, 5, "n0", "192.168.9.0/26"), event(DIE, 1, 9, "n0")),
        # routes over an interface without carrier go, also those of a peer that restarts gracefully
        (event(KILL, 0, 3, "n0"), event(DOWN, 1, 2, "n0", "tor")),
        (event(SILENT, 0, 3, "n0", "tor"), event(SILENT, 3.1, 3.3, "n0", "tor"), event(KILL, 1, 2, "n0")),
    ],
)
@pytest.mark.parametrize("wiring", [Wiring.S1, Wiring.S2, Wiring.S4])
def test_these_events_that_overlap_leave_no_trace(wiring, events):
    for node, switch in ((LAB, LAB), (GRACEFUL, LAB)):
        ready, spec = three_nodes(wiring, node, switch)
        for seed in range(3):
            assert run_undone(ready, spec, events, seed)[1] == {}


def test_two_claims_of_one_block_end_with_the_later():
    ready, spec = three_nodes(Wiring.S2)
    both = (event(CLAIM, 0, 5, "n0", "192.168.9.0/26"), event(CLAIM, 3, 9, "n0", "192.168.9.0/26"))
    history, _ = run_undone(ready, spec, both, 1)
    (gone,) = [time for time, has in when(history, "tor", "192.168.9.0/26", after_ps=at(1)) if not has]
    assert at(9) < gone < at(9.1)


def test_an_event_elsewhere_does_not_make_a_hold_timer_start_again():
    ready, spec = three_nodes()
    frozen, elsewhere = event(FREEZE, 60, 90, "n0"), event(SILENT, 63.5, 64, "n1", "tor")
    for seed in range(20):
        alone, _ = run_undone(ready, spec, (frozen,), seed)
        both, _ = run_undone(ready, spec, (frozen, elsewhere), seed)
        assert when(both, "tor", B0)[0] == when(alone, "tor", B0)[0]


def test_what_is_heard_meanwhile_makes_a_hold_timer_start_again():
    """Silent for 5 s, heard for 1 s, silent again: the hold time of at least 6.75 s counts from what was heard."""
    ready, spec = three_nodes()
    for seed in range(20):
        silences = event(SILENT, 60, 63, "n0", "tor"), event(SILENT, 64, 90, "n0", "tor")
        history, _ = run_undone(ready, spec, silences, seed)
        assert when(history, "tor", B0)[0][0] >= at(63 + 6.75)


def test_a_session_whose_error_waits_have_grown_is_still_tried_again():
    """The wait after an error (here up to 30 s) is drawn once: a mesh session never stays in Active for good."""
    timers = replace(LAB, error_wait_ps=(at(30), at(30)), connect_delay_ps=at(1))
    ready, spec = three_nodes(Wiring.S2, timers, timers)
    for seed in range(20):
        assert run_undone(ready, spec, (event(SILENT, 0, 20, "n0", "tor"),), seed)[1] == {}


def test_the_restart_time_counts_from_the_loss_that_it_is_for():
    """Killed at 0, back at 2 s, killed again at 7 s: its routes stay for 8 s from then on."""
    ready, spec = three_nodes(Wiring.S1, GRACEFUL, LAB)
    history, _ = run_undone(ready, spec, (event(KILL, 0, 1, "n0"), event(KILL, 7, 40, "n0")), 1)
    assert when(history, "tor", B0)[0][0] >= at(7 + 8)


def test_a_node_that_boots_without_a_daemon_has_no_learned_route():
    ready, spec = three_nodes(Wiring.S2)
    history, _ = run_undone(ready, spec, (event(DIE, 1, 2, "n0"), event(KILL, 1.5, 20, "n0")), 1)
    assert when(history, "n0", "192.168.1.0/26")[0][0] == at(2) + LAB.fib_write_ps


def test_a_speaker_that_recovers_tells_once_no_awaited_peer_is_configured_any_more():
    """It waits for n1, which is off; when n1 is taken out of its configuration it goes on."""
    prompt = replace(LAB, loop_ps=0)
    ready, spec = three_nodes(Wiring.S2, replace(prompt, restart_ps=at(8)), replace(prompt, is_helper=False))
    events = (
        event(DIE, 0, 200, "n1"), event(KILL, 30, 31, "n0"), event(REMOVE, 60, 200, "n0", "n1"),
    )  # fmt: skip
    history, found = run_undone(ready, spec, events, 1)
    assert found == {}
    (_, _), (back, has) = when(history, "tor", B0)[:2]
    assert has
    assert at(60) < back < at(60) + 5 * PS_PER_MS


def test_a_daemon_that_goes_on_reads_what_waited_in_its_sockets_in_order():
    """The peer's hold timer ran out meanwhile: its NOTIFICATION is read, and the session comes up again at once."""
    ready, spec = three_nodes()
    history, found = run_undone(ready, spec, (event(FREEZE, 10, 30, "n0"),), 1)
    changes = [c for c in history.sessions if (c.local, c.remote) == ("n0", "tor") and c.time_ps >= at(30)]
    assert (changes[0].time_ps, changes[0].why) == (at(30), "NOTIFICATION hold timer expired")
    assert found == {}
