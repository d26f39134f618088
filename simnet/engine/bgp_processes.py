"""BGP speakers in simulated time: sessions come up and fail, routes are told, and each device's table follows.

Nothing is decided here: `controlplane.bgp` says what a message, a timer or a loss does. A healthy session costs no
events: its KEEPALIVEs are worked out when something breaks.
Source: docs/models/bgp.md.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import simpy

from simnet.controlplane.bgp.session import Happening, Keepalive, Loss, Notification, Open, Session, State, step
from simnet.controlplane.bgp.timers import fraction, jittered_ps, session_number
from simnet.controlplane.bgp.update_group import Update
from simnet.engine.bgp_boxes import Box, End, EndOfRib, RouteRefresh
from simnet.engine.bgp_configuration import settings_for, share_tables
from simnet.engine.bgp_events import schedule_events
from simnet.engine.bgp_network import Boxes, boxes_of
from simnet.engine.bgp_silence import is_silent, keepalive_ps, watch
from simnet.engine.bgp_wires import Wires
from simnet.engine.bgp_work import Together, work_together, write_later
from simnet.engine.endpoint_processes import EndpointPlane
from simnet.model.cluster import Cluster
from simnet.model.events import Event
from simnet.model.history import NO_EVENT, DeviceChange, FibChange, LinkChange, SessionChange, TableHistory
from simnet.model.scenario import ClusterSpec
from simnet.units import PS_PER_S

RECOVERY_PS = 240 * PS_PER_S  # BIRD: how long a restarted speaker waits for End-of-RIB before it tells and writes
_LOOP = ""  # among the peers that a speaker waits for after a restart: its own loop


def run_control_plane(
    cluster: Cluster, spec: ClusterSpec, events: Sequence[Event], *, until_ps: int, seed: int, start: str = "converged"
) -> TableHistory:
    """Return how every device's table changes until `until_ps`, as BGP speakers bring it about.

    Parameters
    ----------
    start : "converged": all sessions established, the steady tables; "cold": no session, no learned route

    Raises ModelError for an event that names no box or pair of this network.
    """
    plane = control_plane(cluster, spec, events, seed=seed, start=start)
    return replace(plane.run(until_ps), events=tuple(events))


def control_plane(
    cluster: Cluster, spec: ClusterSpec, events: Sequence[Event], *, seed: int, start: str = "converged"
) -> ControlPlane:
    """Return the boxes before anything has happened, and all that will."""
    spec = replace(spec, calico=settings_for(spec.calico, events))
    plane = ControlPlane(cluster, spec, seed, is_cold=start == "cold", shares=share_tables(events))
    schedule_events(plane, events)
    return plane


class ControlPlane:
    """The clock, the boxes and what happened so far."""

    def __init__(self, cluster: Cluster, spec: ClusterSpec, seed: int, *, is_cold: bool, shares: bool = True) -> None:
        self.cluster, self.spec, self.seed, self.calico = cluster, spec, seed, spec.calico
        self.env = simpy.Environment(initial_time=0)
        self.wires = Wires(cluster.fabric)
        self.boxes: Boxes = boxes_of(cluster, spec, is_cold=is_cold, shares=shares)
        self.is_cold = is_cold
        self.start = {**cluster.fibs, **{name: table.start for name, table in self.boxes.tables.items()}}
        self.fibs: list[FibChange] = []
        self.links: list[LinkChange] = []
        self.devices: list[DeviceChange] = []
        self.sessions: list[SessionChange] = []
        self.messages: dict[str, int] = {"OPEN": 0, "KEEPALIVE": 0, "UPDATE": 0, "NOTIFICATION": 0}
        self.outages: dict[str, list[Event]] = {}  # by device: the events that keep its daemon from running
        self.filter_events: list[Event] = []  # that hold now
        self.filtered_ends: dict[Event, list[End]] = {}  # of events that give a peer other filters
        self.last_work_ps: int | None = None
        self.together: Together | None = None  # while speakers work: what they send and write
        self.cause = NO_EVENT  # the event that what happens now follows from
        self._connections = 0
        self.endpoints = EndpointPlane(self)
        for end in self.boxes.ends:
            if is_cold:
                self.happens(end, Happening.START)
            else:
                self._stands_since_long(end)

    @property
    def now(self) -> int:
        """Picoseconds since the run began."""
        return int(self.env.now)

    def after(self, delay_ps: int, work: Callable[[], None]) -> None:
        """Do something later; in the order of asking at equal times. It follows from the event that this does."""
        timeout, cause = self.env.timeout(delay_ps), self.cause

        def happen(_: object) -> None:
            self.cause = cause
            work()

        assert timeout.callbacks is not None
        timeout.callbacks.append(happen)

    def run(self, until_ps: int) -> TableHistory:
        """Let time pass."""
        collects = gc.isenabled()
        gc.disable()  # nearly all that is made stays in the history: to look for garbage meanwhile takes a quarter
        try:
            while self.env.peek() <= until_ps:
                self.env.step()
        finally:
            if collects:
                gc.enable()
        return TableHistory(
            start=self.start, fibs=tuple(self.fibs), links=tuple(self.links), devices=tuple(self.devices),
            rules=tuple(self.endpoints.rules), pods=tuple(self.endpoints.pods),
            sessions=tuple(self.sessions), messages=dict(self.messages),
            converged_ps=self.last_work_ps if self.is_cold else 0,
        )  # fmt: skip

    def _stands_since_long(self, end: End) -> None:
        """Put an end where it is when its session has stood for some twenty KEEPALIVEs."""
        hold_ps = min(end.timers.hold_ps, end.twin.timers.hold_ps)
        end.session = Session(State.ESTABLISHED, hold_ps, end.twin.timers.restart_ps)
        end.connection = end.twin.connection or self._next_connection()
        age = 20 + fraction(self.seed, "age", end.number, 0)
        end.established_ps = -int(keepalive_ps(end) * age)
        end.received_ps = end.established_ps

    def _next_connection(self) -> int:
        self._connections += 1
        return self._connections

    # --- sessions

    def happens(self, end: End, what: Happening | Open | Keepalive | Notification) -> None:
        """Let something happen to one end, and do what follows."""
        before = end.session.state
        done = step(end.session, end.timers, what, self.now)
        end.session = done.session
        if before is not end.session.state:
            why = done.why or (what.value if isinstance(what, Happening) else type(what).__name__.upper())
            self.sessions.append(
                SessionChange(self.now, end.peering.local, end.peering.remote, end.session.state.value, why)
            )
        for message in done.send if end.connection else ():
            self.send(end, message)
        if done.closes:
            self._close(end)
        if done.loss is Loss.FLUSH:
            end.box.tables.drop(end.peering.remote)
            self.wake(end.box)
        elif done.loss is Loss.KEEP:
            end.box.tables.keep_as_stale(end.peering.remote)
            self.wake(end.box)
            since_ps = end.established_ps
            self._later(
                end, done.session.peer_restart_ps or 0, lambda: self._give_up_waiting(end, since_ps), is_void=False
            )
        if done.is_up:
            self._is_established(end)
        if done.wait_ps is not None and end.is_configured and end.has_carrier:
            end.token += 1
            if not end.peering.is_passive or len(done.wait_ps) > 1:
                waits = [self._jittered(end, "connect", wait) for wait in done.wait_ps]
                if len(waits) > 1:  # only the last part is spent in Active
                    self._later(end, waits[0], lambda: self._active(end))
                else:
                    self._active(end)
                self._later(end, sum(waits), lambda: self._connect(end))
            else:
                self._active(end)

    def _active(self, end: End) -> None:
        if end.session.state is State.IDLE:
            end.session = Session(
                State.ACTIVE, error_wait_ps=end.session.error_wait_ps, last_error_ps=end.session.last_error_ps
            )
            self.sessions.append(SessionChange(self.now, end.peering.local, end.peering.remote, "Active", ""))

    def _later(self, end: End, delay_ps: int, work: Callable[[], None], *, is_void: bool = True) -> None:
        """Do something if by then the end's timers have not been stopped; a frozen daemon does it once it goes on."""
        token = end.token

        def do() -> None:
            if is_void and token != end.token:
                return
            if end.box.answers:
                work()
            elif end.box.is_running:
                end.box.overdue.append(do)

        self.after(delay_ps, do)

    def _jittered(self, end: End, purpose: str, value_ps: int) -> int:
        end.draws += 1
        return jittered_ps(self.seed, purpose, end.number, end.draws, value_ps)

    def _connect(self, end: End) -> None:
        """Try to open a TCP connection."""
        if end.session.state is not State.ACTIVE or end.peering.is_passive or not end.is_configured:
            return
        twin, delay = end.twin, self.wires.delay_ps(end.peering.local, end.peering.remote)
        end.token += 1
        if delay is None or (twin.box.is_frozen and twin.box.is_running):
            self._later(end, self._jittered(end, "retry", end.timers.connect_retry_ps), lambda: self._connect(end))
            return
        self.happens(end, Happening.CONNECTING)
        if twin.box.is_running and twin.is_up and twin.connection:
            self._later(twin, delay, lambda: self._far_end_closed(twin, twin.connection))  # it was restarted: RST
        self._later(end, 2 * delay, lambda: self._tcp_answers(end))

    def _tcp_answers(self, end: End) -> None:
        twin = end.twin
        if end.session.state is not State.CONNECT:
            return
        is_reached = self.wires.delay_ps(end.peering.local, end.peering.remote) is not None and twin.box.answers
        if not (is_reached and twin.is_configured and twin.session.state in (State.ACTIVE, State.CONNECT)):
            self.happens(end, Happening.TCP_REFUSED)
            return
        connection = self._next_connection()
        for each in (twin, end):
            each.token += 1
            each.connection = connection
            each.unsent.clear()
            each.received_ps, each.broken_ps, each.is_watched = self.now, None, False
        for each in (twin, end):
            self.happens(each, Happening.TCP_UP)

    def _close(self, end: End) -> None:
        """Close the connection; the far end hears of it if there is a way, or when there is one again."""
        connection, twin = end.connection, end.twin
        end.connection = 0
        end.token += 1
        end.unsent.clear()
        end.is_watched = False
        delay = self.wires.delay_ps(end.peering.local, end.peering.remote)
        if connection and delay is not None:
            self.after(delay, lambda: self._far_end_closed(twin, connection))

    def _far_end_closed(self, end: End, connection: int) -> None:
        self.deliver(end, connection, Happening.TCP_CLOSED)

    def _is_established(self, end: End) -> None:
        end.established_ps = end.received_ps = self.now
        if is_silent(self, end):  # it broke while the session came up
            watch(self, end)
        if end.box.waits_for:
            return  # a speaker that recovers tells nothing yet
        self._tell_everything(end)

    def _tell_everything(self, end: End) -> None:
        everything = end.box.tables.adj_rib_out(end.peering)
        if everything.messages:
            self.send(end, everything)
        self.send(end, EndOfRib(None if everything.messages else everything))

    def _tell_again(self, end: End) -> None:
        """Tell a peer that asks for it (RFC 2918) all that it is told."""
        if end.is_up and not end.box.waits_for:
            self.send(end, end.box.tables.adj_rib_out(end.peering))

    def _give_up_waiting(self, end: End, since_ps: int) -> None:
        """The restart time is over: without a session what is stale goes (with one, End-of-RIB sees to it)."""
        if end.established_ps == since_ps and not end.is_up and end.peering.remote in end.box.tables.stale:
            end.box.tables.drop(end.peering.remote)
            self.wake(end.box)

    # --- messages

    def send(self, end: End, message: object) -> None:
        """Send a message on the end's connection."""
        if isinstance(message, Update):
            self.messages["UPDATE"] += message.messages
        else:
            kind = "UPDATE" if isinstance(message, EndOfRib) else type(message).__name__.upper()
            self.messages[kind] = self.messages.get(kind, 0) + 1
        delay = self.wires.delay_ps(end.peering.local, end.peering.remote)
        if delay is None or end.unsent:  # TCP hands on nothing before what it has to send again
            end.unsent.append(message)
            return
        connection, twin = end.connection, end.twin
        if self.together is not None:
            self.together.send(delay, twin, connection, message)
        else:
            self.after(delay, lambda: self.deliver(twin, connection, message))

    def deliver(self, end: End, connection: int, message: object) -> None:
        if end.connection != connection or not connection or not end.box.is_running:
            return
        if end.box.is_frozen:
            end.unread.append((connection, message))
            return
        end.received_ps = self.now
        if isinstance(message, Open | Keepalive | Notification | Happening):
            self.happens(end, message)
            if isinstance(message, Open):
                end.draws += 1
        elif isinstance(message, RouteRefresh):
            self._later(end, end.box.timers.processing_ps, partial(self._tell_again, end))
        elif isinstance(message, Update | EndOfRib):
            end.box.inbox.append((end, connection, message))
            self.wake(end.box)

    # --- a speaker's work

    def wake(self, box: Box) -> None:
        """Let a speaker handle, a little later, all that came in by then."""
        box.cause = max(box.cause, self.cause)
        if not box.is_awake and box.answers:
            box.is_awake = True
            self.after(box.timers.processing_ps, partial(work_together, self, [box]))

    def table_follows(self, box: Box) -> None:
        """Write the device's table as it is now, after the time that writing takes."""
        written = box.table.written()
        if written is not None:
            write_later(self, box, written)

    def is_waited_for_no_more(self, box: Box, peer: str) -> None:
        """After a restart: with the last awaited End-of-RIB the speaker tells its peers and writes its table."""
        if peer in box.waits_for:
            box.waits_for.discard(peer)
            if not box.waits_for:
                self._recovers(box)

    def _recovers(self, box: Box) -> None:
        """Tell and write: at once, or when BIRD's loop has come round twice."""
        late_ps = int(
            2 * box.timers.loop_ps * fraction(self.seed, "recovery", session_number(box.name, ""), box.starts)
        )
        if late_ps:
            box.waits_for.add(_LOOP)
            self.after(late_ps, partial(self.stop_waiting, box, box.starts))
        else:
            self._has_recovered(box)

    def _has_recovered(self, box: Box) -> None:
        box.tables.decide()
        self.boxes.rewrite(box)
        self.table_follows(box)
        for end in box.ends.values():
            if end.is_up:
                self._tell_everything(end)

    def stop_waiting(self, box: Box, starts: int) -> None:
        """The recovery time of one start is over."""
        if box.is_frozen:
            box.overdue.append(lambda: self.stop_waiting(box, starts))
        elif box.waits_for and box.is_running and box.starts == starts:
            box.waits_for.clear()
            self._has_recovered(box)

    def read_what_waited(self, box: Box) -> None:
        """Let a daemon that goes on handle what came in meanwhile."""
        for end in box.ends.values():
            unread, end.unread = end.unread, []
            for connection, message in unread:
                self.deliver(end, connection, message)
