"""What changes a daemon's configuration while it runs: peers that come and go, filters that change.

A daemon reads its configuration at once, or when it next runs. A peer that goes is told so (Cease). A filter that
changes ends no session: what the peer is told now differs is told, and where the filter of import changes the peer is
asked to tell all again (RFC 2918), as BIRD does when it is reconfigured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from simnet.controlplane.bgp.network import bgp_network
from simnet.controlplane.bgp.session import Happening
from simnet.controlplane.bgp.update_group import Update
from simnet.engine.bgp_boxes import Box, End, RouteRefresh
from simnet.errors import ModelError
from simnet.model.calico import BGPFilter, BGPFilterRule, BGPPeer, CalicoSettings, Wiring
from simnet.model.events import OF_PEERS, Event, EventKind

if TYPE_CHECKING:
    from simnet.engine.bgp_processes import ControlPlane

Undo = Callable[[], None]


def settings_for(calico: CalicoSettings, events: Sequence[Event]) -> CalicoSettings:
    """Return the settings with sessions one by one where events may change BGPPeers and filters that they come from."""
    if calico.peers and any(event.kind in OF_PEERS for event in events):
        return replace(calico, wiring=Wiring.PEERS)
    return calico


def share_tables(events: Sequence[Event]) -> bool:
    """Return whether nodes that are told the same may share their tables: no event sets them apart."""
    return not any(event.kind in OF_PEERS and event.kind is not EventKind.PEER_REMOVED for event in events)


def configure(box: Box, change: Callable[[], None]) -> None:
    """Change a daemon's configuration: now, or when it next runs."""
    if box.answers:
        change()
    else:
        box.unheard.append(change)


def read_configuration(box: Box) -> None:
    """Let a daemon that runs again hear of what changed meanwhile."""
    unheard, box.unheard = box.unheard, []
    for change in unheard:
        change()


def start(plane: ControlPlane, end: End) -> None:
    """Let an end connect, if it may."""
    if end.is_configured and end.has_carrier and end.box.answers:
        plane.happens(end, Happening.START)


# --- peers


def add_ends(plane: ControlPlane, events: Sequence[Event]) -> None:
    """Make the ends of sessions that events will add; nobody is told of them yet.

    Raises ModelError where no session can come of it, or where there is one already.
    """
    for event in events:
        if event.kind is not EventKind.PEER_ADDED:
            continue
        what: BGPPeer | tuple[str, str] = event.peer or (event.subject[0], event.subject[1])
        found, unanswered = 0, []
        for family in (4, 6):
            network = bgp_network(
                plane.cluster.fabric, plane.cluster.nodes, plane.calico, plane.spec.fabric, family,
                plane.cluster.blocks, extra=(what,),
            )  # fmt: skip
            unanswered += [each.why for each in network.unanswered if each.peer == event.subject[0]]
            here = {box.name: box for box in plane.boxes.boxes if box.family == family}
            new = [each for each in network.peerings if each.remote not in here[each.local].ends]
            for peering in new:
                end = End.of(peering, here[peering.local])
                end.removals = 1  # until the event
                end.box.ends[peering.remote] = end
                plane.boxes.ends.append(end)
            for peering in new:
                end = here[peering.local].ends[peering.remote]
                end.twin = here[peering.remote].ends[peering.local]
                end.added_by.append(event)
            found += len(new)
            for one, other in [] if isinstance(what, BGPPeer) else [what, what[::-1]]:
                known = here[one].ends.get(other) if one in here else None
                if known is not None and known.added_by:
                    known.added_by.append(event)  # another event adds it too
                    found += 1
        if not found:
            why = unanswered[0] if unanswered else "they have a session already, or cannot have one"
            raise ModelError(f"{event.label}: no session comes of it: {why}")


def peer_added(plane: ControlPlane, event: Event) -> Undo:
    """Let both ends of new sessions hear of each other."""
    ends = [end for end in plane.boxes.ends if event in end.added_by]

    def add(end: End) -> None:
        end.additions += 1
        if end.additions == 1:
            end.removals -= 1
            start(plane, end)

    def remove(end: End) -> None:
        end.additions -= 1
        if not end.additions:
            _remove(plane, end)

    return _both(ends, add, remove)


def peer_removed(plane: ControlPlane, event: Event) -> Undo:
    """Take a peer out of the configuration of both of its ends."""

    def add(end: End) -> None:
        end.removals -= 1
        start(plane, end)

    return _both(ends_of(plane, event), partial(_remove, plane), add)


def _remove(plane: ControlPlane, end: End) -> None:
    end.removals += 1
    if end.removals == 1:
        plane.happens(end, Happening.STOP)
        plane.is_waited_for_no_more(end.box, end.peering.remote)


def _both(ends: Sequence[End], happen: Callable[[End], None], undo: Callable[[End], None]) -> Undo:
    for end in ends:
        configure(end.box, partial(happen, end))

    def undone() -> None:
        for end in ends:
            configure(end.box, partial(undo, end))

    return undone


def ends_of(plane: ControlPlane, event: Event) -> list[End]:
    """Return the ends that an event names: of a pair, or of all sessions that come of a BGPPeer alone."""
    if len(event.subject) == 2:
        one, other = event.subject
        pairs = {(one, other), (other, one)}
    else:
        pairs = _pairs_of(plane, event.subject[0], only=event.kind is EventKind.PEER_REMOVED)
    return [end for end in plane.boxes.ends if (end.peering.local, end.peering.remote) in pairs]


def _pairs_of(plane: ControlPlane, name: str, *, only: bool) -> set[tuple[str, str]]:
    """The pairs that peer by a BGPPeer; `only`: those that would not without it."""

    def pairs(peers: Sequence[BGPPeer], has_mesh: bool) -> set[tuple[str, str]]:
        calico = replace(plane.calico, wiring=Wiring.PEERS, peers=tuple(peers), has_mesh=has_mesh)
        networks = [
            bgp_network(plane.cluster.fabric, plane.cluster.nodes, calico, plane.spec.fabric, family)
            for family in (4, 6)
        ]
        return {(each.local, each.remote) for network in networks for each in network.peerings}

    peers = plane.calico.peers
    if only:
        return pairs(peers, plane.calico.has_mesh) - pairs(
            [peer for peer in peers if peer.name != name], plane.calico.has_mesh
        )
    return pairs([peer for peer in peers if peer.name == name], False) - pairs((), False)


# --- filters


def filters_changed(plane: ControlPlane, event: Event) -> Undo:
    """Give a BGPFilter other rules, or a peer other filters."""
    plane.filter_events.append(event)
    _apply_filters(plane)

    def undone() -> None:
        plane.filter_events.remove(event)
        _apply_filters(plane)

    return undone


def _apply_filters(plane: ControlPlane) -> None:
    nodes = {node.name for node in plane.cluster.nodes}
    for end in plane.boxes.ends:
        if end.box.name in nodes:
            configure(end.box, partial(_take_filters, plane, end, _filters_of(plane, end)))


def _filters_of(plane: ControlPlane, end: End) -> tuple[BGPFilter, ...]:
    """The filters of an end, as the events that hold now leave them: the latest counts."""
    known = {each.name: each for each in plane.calico.filters}
    filters = end.first_filters
    for event in plane.filter_events:
        if event.kind is EventKind.PEER_FILTERED and end in plane.filtered_ends[event]:
            filters = tuple(known[name] for name in event.filter_names)
    rules = {each.filter.name: each.filter for each in plane.filter_events if each.filter is not None}
    return tuple(rules.get(each.name, each) for each in filters)


def _take_filters(plane: ControlPlane, end: End, filters: tuple[BGPFilter, ...]) -> None:
    before = end.peering
    if before.filters == filters:
        return
    end.peering = replace(before, filters=filters)
    if not end.is_up or end.box.waits_for:
        return
    tables = end.box.tables
    was, told = tables.adj_rib_out(before).changes, tables.adj_rib_out(end.peering).changes
    changes = {
        prefix: told.get(prefix, ()) for prefix in {**was, **told} if was.get(prefix, ()) != told.get(prefix, ())
    }
    if changes:
        group = tables.group_of(end.peering)
        plane.send(end, Update(changes, group, len(group.log)))
    if _import_rules(before.filters, end.box.family) != _import_rules(filters, end.box.family):
        plane.send(end, RouteRefresh())


def _import_rules(filters: tuple[BGPFilter, ...], family: int) -> list[BGPFilterRule]:
    return [rule for each in filters for rule in each.rules(exports=False, family=family)]


def check(plane: ControlPlane, event: Event) -> None:
    """Raise ModelError where an event names peers or filters that are not there."""
    if event.kind in (EventKind.PEER_REMOVED, EventKind.PEER_FILTERED):
        ends = ends_of(plane, event)
        if not ends:
            what = "the two have" if len(event.subject) == 2 else f"BGPPeer {event.subject[0]} has"
            raise ModelError(f"{event.label}: {what} no session")
        if event.kind is EventKind.PEER_FILTERED:
            one = event.subject[0] if len(event.subject) == 2 else None
            plane.filtered_ends[event] = [end for end in ends if one is None or end.box.name == one]
    names = set(event.filter_names) | (set(event.subject) if event.kind is EventKind.FILTER_CHANGED else set())
    missing = names - {each.name for each in plane.calico.filters}
    if missing:
        raise ModelError(f"{event.label}: no BGPFilter {min(missing)} in this cluster")
