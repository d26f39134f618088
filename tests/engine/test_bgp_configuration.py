"""Peers that are added and removed and filters that change while a network runs, in every topology."""

from dataclasses import replace

import pytest
from engine.bgp_networks import LAB, MINUTE, given_cluster, run_undone, three_nodes, with_timers
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.clusters import filters_of, routed_clusters

from simnet.controlplane.bgp.network import bgp_network
from simnet.controlplane.bgp.steady import steady_fibs
from simnet.engine.bgp_processes import run_control_plane
from simnet.errors import ModelError
from simnet.model.calico import BGPFilter, BGPFilterRule, BGPPeer, Wiring
from simnet.model.events import Event, EventKind
from simnet.model.fib import RouteKind
from simnet.units import PS_PER_S

ADD, REMOVE = EventKind.PEER_ADDED, EventKind.PEER_REMOVED
CHANGE, FILTER = EventKind.FILTER_CHANGED, EventKind.PEER_FILTERED
ALL = BGPFilterRule("Reject")


def via(history, device, at_ps):
    routes = history.fibs_at(at_ps)[device].routes
    return {str(route.prefix) for route in routes if route.kind is RouteKind.VIA and route.protocol == "bird"}


def of_peers(has_mesh=False, peers=(), filters=(), **nodes):
    """Three nodes and a switch of AS 65001, wired by BGPPeers."""
    ready, spec = three_nodes(Wiring.PEERS)
    calico = replace(spec.calico, has_mesh=has_mesh, peers=peers, filters=filters)
    changed = tuple(replace(node, **nodes.get(node.name, {})) for node in ready.nodes)
    return given_cluster(changed, ready.pods, ready.blocks, calico, spec.fabric, ready.fabric)


TOR = BGPPeer("tor", "10.0.0.1", 65001)
B0, B1, B2 = ("192.168.0.0/26", "192.168.1.0/26", "192.168.2.0/26")


def test_a_pair_that_gets_a_session_learns_of_each_other_until_it_goes():
    ready, spec = of_peers()
    event = Event(5 * PS_PER_S, ADD, ("n0", "tor"), 20 * PS_PER_S)
    history = run_control_plane(ready, spec, (event,), until_ps=MINUTE, seed=3)
    assert via(history, "tor", 4 * PS_PER_S) == set()
    assert via(history, "tor", 19 * PS_PER_S) == {B0}
    assert via(history, "tor", 21 * PS_PER_S) == set()
    assert history.fibs_at(MINUTE) == dict(ready.fibs)


INTERNAL = {name: {"as_number": 65001} for name in ("n0", "n1", "n2")}  # of the switch's AS: it reflects


@pytest.mark.parametrize("nodes", [{}, INTERNAL])
def test_a_bgp_peer_that_is_added_reaches_all_nodes_that_it_names(nodes):
    ready, spec = of_peers(**nodes)
    event = Event(5 * PS_PER_S, ADD, ("tor",), peer=replace(TOR, num_allowed_local_as_numbers=1))
    history = run_control_plane(ready, spec, (event,), until_ps=MINUTE, seed=3)
    assert via(history, "tor", MINUTE) == {B0, B1, B2}
    assert via(history, "n0", MINUTE) == {B1, B2}
    told = replace(spec.calico, peers=(event.peer,))
    expected = steady_fibs(ready.fabric, ready.nodes, ready.pods, ready.blocks, (), told, spec.fabric)
    assert history.fibs_at(MINUTE) == dict(expected)


def test_a_session_that_two_events_add_stays_until_the_last_of_them_ends():
    ready, spec = of_peers()
    events = [Event(5 * PS_PER_S, ADD, ("n0", "tor"), end * PS_PER_S) for end in (20, 20, 30)]
    history = run_control_plane(ready, spec, events, until_ps=MINUTE, seed=3)
    assert via(history, "tor", 29 * PS_PER_S) == {B0}
    assert history.fibs_at(MINUTE) == dict(ready.fibs)


def test_a_bgp_peer_that_is_removed_takes_its_sessions_and_no_others():
    ready, spec = of_peers(has_mesh=True, peers=(TOR,))
    event = Event(5 * PS_PER_S, REMOVE, ("tor",), 20 * PS_PER_S)
    history = run_control_plane(ready, spec, (event,), until_ps=MINUTE, seed=3)
    assert via(history, "tor", 4 * PS_PER_S) == {B0, B1, B2}
    assert via(history, "tor", 6 * PS_PER_S) == set()
    assert via(history, "n0", 6 * PS_PER_S) == {B1, B2}
    assert history.fibs_at(MINUTE) == dict(ready.fibs)


@pytest.mark.parametrize("direction", ["export_v4", "import_v4"])
def test_a_filter_that_changes_withholds_at_once_and_ends_no_session(direction):
    ready, spec = of_peers(peers=(replace(TOR, filters=("f",), num_allowed_local_as_numbers=1),),
                           filters=(BGPFilter("f"),))  # fmt: skip
    rule = BGPFilterRule("Reject", B1, "Equal")
    event = Event(5 * PS_PER_S, CHANGE, ("f",), 20 * PS_PER_S, filter=BGPFilter("f", **{direction: (rule,)}))
    history = run_control_plane(ready, spec, (event,), until_ps=MINUTE, seed=3)
    assert not history.sessions
    during = 5 * PS_PER_S + PS_PER_S // 100
    if direction == "export_v4":
        assert via(history, "tor", during) == {B0, B2}
        assert via(history, "n0", during) == {B2}
    else:
        assert via(history, "tor", during) == {B0, B1, B2}
        assert via(history, "n0", during) == {B2}
        assert history.messages["ROUTEREFRESH"] == 6  # of three nodes, to the change and back
    assert history.fibs_at(MINUTE) == dict(ready.fibs)


def test_one_end_of_a_pair_gets_a_filter_and_loses_it():
    ready, spec = of_peers(peers=(TOR,), filters=(BGPFilter("nothing", export_v4=(ALL,)),))
    event = Event(5 * PS_PER_S, FILTER, ("n1", "tor"), 20 * PS_PER_S, filter_names=("nothing",))
    history = run_control_plane(ready, spec, (event,), until_ps=MINUTE, seed=3)
    assert via(history, "tor", 6 * PS_PER_S) == {B0, B2}
    assert history.fibs_at(MINUTE) == dict(ready.fibs)


@pytest.mark.parametrize(
    "event, message",
    [
        (Event(0, ADD, ("n0", "n1")), "they have a session already"),
        (Event(0, ADD, ("x",), peer=BGPPeer("x", "10.9.9.9", 1)), "no node has that address"),
        (Event(0, REMOVE, ("y",)), "BGPPeer y has no session"),
        (Event(0, FILTER, ("n0", "n1"), filter_names=("z",)), "no BGPFilter z in this cluster"),
        (Event(0, CHANGE, ("z",), filter=BGPFilter("z")), "no BGPFilter z in this cluster"),
    ],
)
def test_what_is_not_there_is_named(event, message):
    ready, spec = of_peers(has_mesh=True, peers=(TOR,))
    with pytest.raises(ModelError, match=message):
        run_control_plane(ready, spec, (event,), until_ps=1, seed=1)


# --- laws


@st.composite
def changes_that_end(draw, cluster):
    """Up to four changes of peers and filters within twenty seconds, overlapping, with outages among them."""
    calico, found = cluster.calico, []
    networks = [bgp_network(cluster.fabric, cluster.nodes, calico, cluster.settings, family) for family in (4, 6)]
    pairs = sorted({(each.local, each.remote) for network in networks for each in network.peerings})
    nodes = [node.name for node in cluster.nodes]
    free = [(one, other) for one in nodes for other in nodes if one < other and (one, other) not in pairs]
    names = [each.name for each in calico.filters]
    for _ in range(draw(st.integers(1, 4))):
        at_ps = draw(st.integers(0, 40)) * PS_PER_S // 2
        until_ps = at_ps + draw(st.integers(1, 40)) * PS_PER_S // 2
        kinds = [EventKind.BGP_FREEZES, EventKind.BGP_KILLED]
        kinds += [REMOVE] * bool(pairs) + [ADD] * bool(free) + [CHANGE, FILTER] * bool(names and pairs)
        kind = draw(st.sampled_from(kinds))
        if kind is CHANGE:
            name = draw(st.sampled_from(names))
            found.append(Event(at_ps, kind, (name,), until_ps, filter=draw(filters_of(name))))
        elif kind is FILTER:
            ends = [pair for pair in pairs if pair[0] in nodes]
            if ends:
                told = draw(st.lists(st.sampled_from(names), unique=True))
                found.append(Event(at_ps, kind, draw(st.sampled_from(ends)), until_ps, filter_names=tuple(told)))
        elif kind in (ADD, REMOVE):
            found.append(Event(at_ps, kind, draw(st.sampled_from(free if kind is ADD else pairs)), until_ps))
        else:
            found.append(Event(at_ps, kind, (draw(st.sampled_from(nodes)),), until_ps))
    return found


@settings(max_examples=40, deadline=None)
@given(st.data(), routed_clusters(most_nodes=4), st.integers(0, 2**32))
def test_changes_of_configuration_that_are_undone_leave_the_tables_of_the_start(data, cluster, seed):
    ready, spec = with_timers(cluster, LAB, LAB)
    _, found = run_undone(ready, spec, data.draw(changes_that_end(cluster)), seed)
    assert found == {}


@settings(max_examples=40, deadline=None)
@given(st.data(), routed_clusters(most_nodes=4, wirings=(Wiring.PEERS,)), st.integers(0, 2**32))
def test_filters_that_change_end_where_the_steady_tables_with_those_filters_are(data, cluster, seed):
    ready, spec = with_timers(cluster, LAB, LAB)
    names = [each.name for each in spec.calico.filters]
    if not names:
        return
    name = data.draw(st.sampled_from(names))
    changed = data.draw(filters_of(name))
    event = Event(PS_PER_S, CHANGE, (name,), filter=changed)
    history = run_control_plane(ready, spec, (event,), until_ps=MINUTE, seed=seed)
    told = replace(spec.calico, filters=tuple(changed if each.name == name else each for each in spec.calico.filters))
    expected = steady_fibs(ready.fabric, ready.nodes, ready.pods, ready.blocks, (), told, spec.fabric)
    assert history.fibs_at(MINUTE) == dict(expected)
