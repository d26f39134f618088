"""What nobody says: which sessions have fallen silent, when that is noticed, and what TCP sends again afterwards.

A healthy session's KEEPALIVEs cost no events; when something breaks, the time of the last one is worked out.
Source: docs/models/bgp.md; RFC 6298.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simnet.controlplane.bgp.session import Happening
from simnet.controlplane.bgp.timers import fraction, jittered_ps, last_keepalive_ps
from simnet.engine.bgp_boxes import End
from simnet.units import PS_PER_MS

if TYPE_CHECKING:
    from simnet.engine.bgp_processes import ControlPlane

FIRST_RETRANSMISSION_PS = 200 * PS_PER_MS  # RFC 6298 as Linux has it: TCP_RTO_MIN; it doubles each time


def keepalive_ps(end: End) -> int:
    """How often an end sends KEEPALIVE."""
    return end.timers.keepalive_ps or end.session.hold_ps // 3


def ends_fall_silent(plane: ControlPlane) -> None:
    """After something broke: see, for every established session that is silent now, when that will be noticed."""
    for end in plane.boxes.ends:
        if not end.connection:
            continue
        if end.broken_ps is None and plane.wires.delay_ps(end.peering.local, end.peering.remote) is None:
            end.broken_ps = plane.now
        if end.is_up and end.box.is_running and not end.is_watched and is_silent(plane, end):
            watch(plane, end)


def is_silent(plane: ControlPlane, end: End) -> bool:
    """Whether nothing comes from the far end."""
    twin = end.twin
    no_way = plane.wires.delay_ps(end.peering.local, end.peering.remote) is None
    return no_way or not twin.box.answers or twin.connection != end.connection


def watch(plane: ControlPlane, end: End) -> None:
    """Start what the last message that came in left of the hold timer, and BFD's detection."""
    twin = end.twin
    last = last_keepalive_ps(
        plane.seed, twin.number, twin.established_ps, max(1, keepalive_ps(twin) or end.session.hold_ps // 3),
        plane.now,
    )  # fmt: skip
    end.received_ps, end.is_watched = max(end.received_ps, last), True
    number = abs(end.received_ps) % 2**31
    hold_ps = jittered_ps(plane.seed, "hold", end.number, number, end.session.hold_ps)
    # mostly at once, rarely a whole turn of its loop later: with a uniform draw the median would be 0.8 s too late
    late_ps = int(end.timers.loop_ps * fraction(plane.seed, "loop", end.number, number) ** 4)
    connection, received_ps = end.connection, end.received_ps
    plane.after(
        max(0, end.received_ps + hold_ps - plane.now) + late_ps,
        lambda: _times_out(plane, end, connection, received_ps, Happening.HOLD_EXPIRED),
    )
    mine, theirs = end.timers.bfd_interval_ps, twin.timers.bfd_interval_ps
    if mine and theirs:
        interval = max(mine, theirs)
        age = int(interval * fraction(plane.seed, "bfd", end.number, number))
        plane.after(
            interval * end.timers.bfd_multiplier - age,
            lambda: _times_out(plane, end, connection, received_ps, Happening.BFD_DOWN),
        )


def _times_out(plane: ControlPlane, end: End, connection: int, received_ps: int, what: Happening) -> None:
    if end.connection != connection or end.received_ps != received_ps or not end.is_up or not is_silent(plane, end):
        return
    if end.box.is_frozen:
        end.box.overdue.append(lambda: _times_out(plane, end, connection, received_ps, what))
    else:
        plane.happens(end, what)


def ends_hear_again(plane: ControlPlane) -> None:
    """After something was mended: TCP sends again what was lost, at its next retransmission."""
    for end in plane.boxes.ends:
        if not end.connection or plane.wires.delay_ps(end.peering.local, end.peering.remote) is None:
            continue
        connection, wait_ps = end.connection, 0
        if end.broken_ps is not None:
            wait_ps = next_retransmission_ps(end.broken_ps, plane.now) - plane.now
        if end.twin.connection != connection:
            plane.after(wait_ps, partial(_learns_of_the_close, plane, end, connection))
            continue
        if end.unsent:
            plane.after(wait_ps, partial(_send_again, plane, end, connection))
        end.broken_ps = None
        if end.is_watched and not is_silent(plane, end):
            end.received_ps, end.is_watched = plane.now, False


def _learns_of_the_close(plane: ControlPlane, end: End, connection: int) -> None:
    if plane.wires.delay_ps(end.peering.local, end.peering.remote) is not None:
        plane._far_end_closed(end, connection)


def _send_again(plane: ControlPlane, end: End, connection: int) -> None:
    delay = plane.wires.delay_ps(end.peering.local, end.peering.remote)
    if end.connection == connection and delay is not None:
        lost, end.unsent = end.unsent, []
        for message in lost:
            plane.after(delay, partial(plane.deliver, end.twin, connection, message))


def next_retransmission_ps(broken_ps: int, now_ps: int) -> int:
    """Return when TCP next sends again what it could not since `broken_ps`: after 0.2, 0.6, 1.4 ... s."""
    wait = FIRST_RETRANSMISSION_PS
    while broken_ps + wait < now_ps:
        wait = 2 * wait + FIRST_RETRANSMISSION_PS
    return broken_ps + wait
