"""What speakers do with what came in, all those together that do it at the same instant.

A switch tells its nodes the same at once, and they handle it at once: one event of the clock for all of them. Their
order within it is the one they would have had alone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simnet.controlplane.bgp.update_group import Update
from simnet.engine.bgp_boxes import Box, End, EndOfRib
from simnet.model.history import NO_EVENT, FibChange
from simnet.model.table_log import TableLog

if TYPE_CHECKING:
    from simnet.engine.bgp_processes import ControlPlane

Delivery = tuple[End, int, object]  # to whom, on which connection, what
Written = tuple[TableLog, int]


class Together:
    """What leaves speakers that work at one instant: messages by when they arrive, tables by when they are written."""

    def __init__(self) -> None:
        self.deliveries: dict[int, list[Delivery]] = {}
        self.tables: dict[int, list[Written]] = {}

    def send(self, delay_ps: int, to: End, connection: int, message: object) -> None:
        """Have a message delivered."""
        if delay_ps not in self.deliveries:
            self.deliveries[delay_ps] = []
        self.deliveries[delay_ps].append((to, connection, message))

    def go(self, plane: ControlPlane) -> None:
        """Let it all happen in its time."""
        for delay_ps, deliveries in self.deliveries.items():
            plane.after(delay_ps, partial(_deliver, plane, deliveries))
        for delay_ps, tables in self.tables.items():
            plane.after(delay_ps, partial(_are_written, plane, tables))


def work_together(plane: ControlPlane, boxes: list[Box]) -> None:
    """Let speakers handle what came in."""
    together = plane.together = Together()
    for box in boxes:
        box.is_awake = False
        if not box.answers:
            continue
        if box.cause != plane.cause:
            together.go(plane)  # what left so far follows from another event
            together = plane.together = Together()
            plane.cause = box.cause
        box.cause = NO_EVENT
        _work(plane, box)
    together.go(plane)
    plane.together = None


def _work(plane: ControlPlane, box: Box) -> None:
    inbox, box.inbox = box.inbox, []
    if box.follower is not None and not box.waits_for:
        updates = [
            update
            for end, connection, message in inbox
            if end.connection == connection
            and (update := message if isinstance(message, Update) else message.nothing) is not None
        ]
        if box.follower.may_handle(updates):
            written = box.follower.handle(updates)
            if written is not None:
                write_later(plane, box, written)
            plane.last_work_ps = plane.now
            return
    tables = box.tables
    for end, connection, message in inbox:
        if end.connection != connection:
            continue
        if isinstance(message, EndOfRib):
            tables.end_of_rib(end.peering.remote)
            plane.is_waited_for_no_more(box, end.peering.remote)
        else:
            tables.receive(end.peering, end.twin.box.speaker, message.changes)
    if box.waits_for:
        return
    changed = tables.decide()
    if changed:
        plane.boxes.write(box, changed)
        for end in box.ends.values():
            if end.is_up:
                update = tables.update_for(end.peering, changed)
                if update is not None:
                    plane.send(end, update)
        plane.table_follows(box)
    plane.last_work_ps = plane.now


def _deliver(plane: ControlPlane, deliveries: list[Delivery]) -> None:
    now, woken = plane.now, dict[int, list[Box]]()
    for end, connection, message in deliveries:
        box = end.box
        if not isinstance(message, Update | EndOfRib) or not box.answers:
            plane.deliver(end, connection, message)
        elif end.connection == connection:
            end.received_ps = now
            box.inbox.append((end, connection, message))
            box.cause = max(box.cause, plane.cause)
            if not box.is_awake:
                box.is_awake = True
                woken.setdefault(box.timers.processing_ps, []).append(box)
    for processing_ps, boxes in woken.items():
        plane.after(processing_ps, partial(work_together, plane, boxes))


def write_later(plane: ControlPlane, box: Box, written: Written) -> None:
    """Have a device forward by a table after the time that writing it takes."""
    delay_ps = box.timers.fib_write_ps
    if plane.together is None:
        plane.after(delay_ps, partial(_are_written, plane, [written]))
    else:
        plane.together.tables.setdefault(delay_ps, []).append(written)


def _are_written(plane: ControlPlane, tables: list[Written]) -> None:
    now, cause = plane.now, plane.cause
    plane.fibs.extend(FibChange(now, table.device, table, cause, number) for table, number in tables)
