"""What each event does to boxes and wires, and how it is undone."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from simnet.controlplane.bgp.session import Happening, Session
from simnet.controlplane.bgp.timers import DAEMON_START_PS
from simnet.engine import bgp_configuration, endpoint_events
from simnet.engine.bgp_boxes import Box, End
from simnet.engine.bgp_silence import ends_fall_silent, ends_hear_again
from simnet.errors import ModelError
from simnet.model.events import OF_PEERS, OF_PODS, Event, EventKind
from simnet.model.fib import Route, RouteKind
from simnet.model.history import DeviceChange, LinkChange
from simnet.model.iptables.ruleset import IPNetwork

if TYPE_CHECKING:
    from simnet.engine.bgp_processes import ControlPlane

Undo = Callable[[], None]


def schedule_events(plane: ControlPlane, events: Sequence[Event]) -> None:
    """Let every event happen at its time, and be undone at its end. Raises ModelError where one names nothing here."""
    bgp_configuration.add_ends(plane, events)
    for number, event in enumerate(events):
        happen = _HAPPENS.get(event.kind)
        if happen is None:
            raise ModelError(f"{event.label}: the control plane does not know this event")
        _check(plane, event)

        def begin(
            number: int = number, event: Event = event, happen: Callable[[ControlPlane, Event], Undo] = happen
        ) -> None:
            plane.cause = number
            undo = happen(plane, event)
            plane.endpoints.look()
            if event.until_ps is not None:
                plane.after(event.until_ps - plane.now, partial(_end, plane, undo))

        plane.after(event.at_ps, begin)


def _end(plane: ControlPlane, undo: Undo) -> None:
    undo()
    plane.endpoints.look()


def _check(plane: ControlPlane, event: Event) -> None:
    if event.kind in OF_PODS:
        if event.subject[0] not in plane.endpoints.node_of:
            raise ModelError(f"{event.label}: {event.subject[0]!r} is no pod of this cluster")
        return
    names = event.subject[:1] if event.kind is EventKind.BLOCK_CLAIMED else event.subject
    if event.kind in OF_PEERS and len(event.subject) == 1:
        names = ()  # of a BGPPeer or BGPFilter
    is_of_wires = event.kind in (EventKind.LINK_DOWN, EventKind.LINK_SILENT)
    for name in names:
        if not plane.boxes.of(name) and not is_of_wires:
            raise ModelError(f"{event.label}: {name!r} speaks no BGP in this cluster")
    if is_of_wires and not plane.wires.between(*event.subject):
        raise ModelError(f"{event.label}: no wire joins the two")
    bgp_configuration.check(plane, event)


# --- wires


def _link_down(plane: ControlPlane, event: Event) -> Undo:
    return _break(plane, plane.wires.between(*event.subject), has_carrier=False)


def _link_silent(plane: ControlPlane, event: Event) -> Undo:
    return _break(plane, plane.wires.between(*event.subject), has_carrier=True)


def _break(plane: ControlPlane, links: list[int], *, has_carrier: bool) -> Undo:
    reason = object()
    for link in plane.wires.break_links(links, reason, has_carrier=has_carrier):
        plane.links.append(LinkChange(plane.now, link, False, plane.cause))
    if not has_carrier:
        _carrier(plane, links, False)
    ends_fall_silent(plane)

    def mend() -> None:
        for link in plane.wires.mend_links(links, reason):
            plane.links.append(LinkChange(plane.now, link, True, plane.cause))
        if not has_carrier:
            _carrier(plane, links, True)
        ends_hear_again(plane)

    return mend


def _carrier(plane: ControlPlane, links: list[int], is_there: bool) -> None:
    """Let those who look at the carrier notice: ends of single-hop sessions, and switches' routed interfaces."""
    for link in links:
        pair = {plane.cluster.fabric.links[link].a, plane.cluster.fabric.links[link].b}
        for end in plane.boxes.ends:
            if {end.peering.local, end.peering.remote} == pair and _sees_carrier(plane, end, link):
                plane.after(end.timers.carrier_ps, partial(_noticed, plane, end, link, is_there))


def _sees_carrier(plane: ControlPlane, end: End, link: int) -> bool:
    """Whether the session's own interface goes down with a wire: not that of a bridge, which has other ports."""
    return end.peering.is_single_hop and _routed_interface(plane, end, link) is not None


def _noticed(plane: ControlPlane, end: End, link: int, is_there: bool) -> None:
    if end.has_carrier == is_there or plane.wires.has_carrier(link) != is_there or not end.box.answers:
        return
    end.has_carrier = is_there
    interface = _routed_interface(plane, end, link)
    table = end.box.table
    for prefix, route in _connected_over(plane, end.box, interface).items():
        told = prefix in plane.boxes.underlay_of(end.box)
        table.hold(prefix, route if is_there else None)
        if is_there:
            if told:
                end.box.tables.originate(prefix)
        elif told:
            end.box.tables.withdraw(prefix)
    if not is_there and interface is not None:  # routes go with their interface
        over = [p for p, route in table.learned.items() if all(hop.interface == interface for hop in route.next_hops)]
        table.learn(over, None)
    if is_there:
        bgp_configuration.start(plane, end)
    else:
        end.box.tables.drop(end.peering.remote)  # what a restarting peer told goes too
        plane.happens(end, Happening.CARRIER_LOST)
    plane.table_follows(end.box)
    plane.wake(end.box)


def _look_at_carriers(plane: ControlPlane, box: Box) -> None:
    """Let a daemon that runs again notice what it could not while it did not."""
    for end in box.ends.values():
        for link in plane.wires.between(end.peering.local, end.peering.remote):
            if _sees_carrier(plane, end, link):
                _noticed(plane, end, link, plane.wires.has_carrier(link))


def _routed_interface(plane: ControlPlane, end: End, link: int) -> str | None:
    for segment in plane.cluster.fabric.segments:
        for attachment in segment.attachments:
            if attachment.device == end.box.name and attachment.link == link:
                return attachment.interface
    return None


def _connected_over(plane: ControlPlane, box: Box, interface: str | None) -> dict[IPNetwork, Route]:
    return {
        route.prefix: route
        for route in plane.cluster.fibs[box.name].routes
        if route.kind is RouteKind.DIRECT and route.prefix.version == box.family
        and any(hop.interface == interface for hop in route.next_hops)
    }  # fmt: skip


# --- daemons and nodes


def _killed(plane: ControlPlane, event: Event) -> Undo:
    return _outage(plane, event, None)


def _stops(plane: ControlPlane, event: Event) -> Undo:
    return _outage(plane, event, Happening.STOP)


def _outage(plane: ControlPlane, event: Event, goodbye: Happening | None) -> Undo:
    """End the daemon; with the last event that keeps it from running it starts again."""
    device = event.subject[0]
    plane.outages.setdefault(device, []).append(event)
    for box in plane.boxes.of(device):
        _end_daemon(plane, box, goodbye if box.answers else None)

    def start() -> None:
        plane.outages[device].remove(event)
        if not plane.outages[device]:
            _start_daemons(plane, device)

    return start


def _restarts(plane: ControlPlane, event: Event) -> Undo:
    start = _killed(plane, event)
    if event.until_ps is None:
        plane.after(DAEMON_START_PS, start)
    return start


def _end_daemon(plane: ControlPlane, box: Box, goodbye: Happening | None) -> None:
    """The kernel closes the daemon's connections; what it wrote into the kernel stays (`persist`)."""
    for end in box.ends.values():
        if goodbye is not None and end.connection:
            plane.happens(end, goodbye)
        elif end.connection:
            plane._close(end)
        end.token += 1
        end.session = Session()
        end.unread.clear()
    box.is_running = False
    box.inbox.clear()
    box.frozen_by.clear()
    box.overdue.clear()


def _start_daemons(plane: ControlPlane, device: str) -> None:
    from simnet.engine.bgp_processes import RECOVERY_PS

    for box in plane.boxes.of(device):
        if box.is_running:
            continue
        box.is_running, box.is_awake, box.starts = True, False, box.starts + 1
        for end in box.ends.values():
            box.tables.drop(end.peering.remote)
        bgp_configuration.read_configuration(box)
        box.tables.decide()
        recovers = box.has_kernel_routes and box.timers.restart_ps is not None
        box.has_kernel_routes = True
        box.waits_for = {peer for peer, end in box.ends.items() if end.is_configured} if recovers else set()
        if recovers:
            plane.after(RECOVERY_PS, partial(plane.stop_waiting, box, box.starts))
        else:
            plane.boxes.rewrite(box)
            plane.table_follows(box)
        _look_at_carriers(plane, box)
        for end in box.ends.values():
            bgp_configuration.start(plane, end)


def _freezes(plane: ControlPlane, event: Event) -> Undo:
    boxes = [box for box in plane.boxes.of(event.subject[0]) if box.is_running]
    for box in boxes:
        box.frozen_by.append(event)
    ends_fall_silent(plane)

    def resume() -> None:
        for box in boxes:
            if event not in box.frozen_by:
                continue  # its process ended meanwhile
            box.frozen_by.remove(event)
            if box.answers:
                _goes_on(plane, box)
        ends_hear_again(plane)

    return resume


def _goes_on(plane: ControlPlane, box: Box) -> None:
    _look_at_carriers(plane, box)
    plane.read_what_waited(box)
    box.is_awake = False
    plane.wake(box)
    overdue, box.overdue = box.overdue, []
    for work in overdue:
        work()
    bgp_configuration.read_configuration(box)


def _node_dies(plane: ControlPlane, event: Event) -> Undo:
    device = event.subject[0]
    plane.devices.append(DeviceChange(plane.now, device, False, plane.cause))
    mend = _break(plane, [link for _, link in plane.wires.of(device)], has_carrier=False)
    start = _outage(plane, event, None)
    plane.wires.set_dead(device, True)
    for box in plane.boxes.of(device):
        box.has_kernel_routes = False
    ends_fall_silent(plane)

    def boots() -> None:
        if not any(other.kind is EventKind.NODE_DIES and other is not event for other in plane.outages[device]):
            plane.wires.set_dead(device, False)
            plane.devices.append(DeviceChange(plane.now, device, True, plane.cause))
            for box in plane.boxes.of(device):
                plane.boxes.forget(box)
                plane.table_follows(box)
        mend()
        start()

    return boots


# --- configuration


def _block_claimed(plane: ControlPlane, event: Event) -> Undo:
    node, cidr = event.subject
    prefix = ipaddress.ip_network(cidr)
    boxes = [box for box in plane.boxes.of(node) if box.family == prefix.version]

    def claim(box: Box) -> None:
        box.claims.setdefault(prefix, 0 if prefix not in box.tables.own else 1)  # a block that it holds anyway stays
        box.claims[prefix] += 1
        if prefix.prefixlen < prefix.max_prefixlen:  # a /32's would collide with its pod's route
            route = Route(prefix, RouteKind.BLACKHOLE, (), "bird", why=f"own block of {node}, claimed meanwhile")
            box.table.hold(prefix, box.table.base.get(prefix, route))
        box.tables.originate(prefix)
        plane.table_follows(box)
        plane.wake(box)

    def release(box: Box) -> None:
        box.claims[prefix] -= 1
        if not box.claims[prefix]:
            box.table.hold(prefix, None)
            box.tables.withdraw(prefix)
            plane.table_follows(box)
            plane.wake(box)

    for box in boxes:
        bgp_configuration.configure(box, partial(claim, box))

    def released() -> None:
        for box in boxes:
            bgp_configuration.configure(box, partial(release, box))

    return released


_HAPPENS: dict[EventKind, Callable[[ControlPlane, Event], Undo]] = {
    EventKind.NODE_DIES: _node_dies,
    EventKind.NODE_DRAINED: endpoint_events.drained,
    EventKind.POD_DELETED: endpoint_events.deleted,
    EventKind.POD_UNREADY: endpoint_events.unready,
    EventKind.POD_READY: endpoint_events.ready,
    EventKind.LINK_DOWN: _link_down,
    EventKind.LINK_SILENT: _link_silent,
    EventKind.BGP_STOPS: _stops,
    EventKind.BGP_KILLED: _killed,
    EventKind.BGP_FREEZES: _freezes,
    EventKind.BGP_RESTARTS: _restarts,
    EventKind.BLOCK_CLAIMED: _block_claimed,
    EventKind.PEER_ADDED: bgp_configuration.peer_added,
    EventKind.PEER_REMOVED: bgp_configuration.peer_removed,
    EventKind.FILTER_CHANGED: bgp_configuration.filters_changed,
    EventKind.PEER_FILTERED: bgp_configuration.filters_changed,
}
