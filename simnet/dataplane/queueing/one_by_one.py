"""One station, one packet after the other: what several servers and full buffers need, where the closed form ends."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.stations import UNLIMITED

_AHEAD = 256  # packets that the closed form looks ahead after a full queue; doubled where it holds
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """What a station's queue holds at most, and what it held before."""

    limit_packets: int
    limit_bytes: int
    waiting_start_ps: NDArray[np.int64]  # [w] starts of service still to come, non-decreasing
    waiting_bytes: NDArray[np.int64]  # [w]

    @property
    def is_limited(self) -> bool:
        return self.limit_packets != UNLIMITED or self.limit_bytes != UNLIMITED


def serve(
    arrival_ps: NDArray[np.int64],
    service_ps: NDArray[np.int64],
    size_bytes: NDArray[np.int64],
    free_ps: NDArray[np.int64],
    room: Room,
    *,
    until_idle_after: int = -1,
) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
    """Serve packets in order of arrival; stop before the first that finds all servers idle after `until_idle_after`.

    Returns the departures (of a dropped packet: its arrival), which were dropped, and how many packets were taken.
    `free_ps` says when each server is free. Source: Kiefer and Wolfowitz, 1955: the next packet goes to the server
    that is free first.
    """
    free = free_ps.tolist()
    heapq.heapify(free)
    waiting = deque(zip(room.waiting_start_ps.tolist(), room.waiting_bytes.tolist(), strict=True))
    held = int(room.waiting_bytes.sum())
    limit_packets = room.limit_packets if room.limit_packets != UNLIMITED else _NEVER
    limit_bytes = room.limit_bytes if room.limit_bytes != UNLIMITED else _NEVER
    departure, dropped = [], []
    stop = len(arrival_ps) if until_idle_after < 0 else until_idle_after
    for number, (arrival, service, size) in enumerate(_rows(arrival_ps, service_ps, size_bytes)):
        start = free[0]
        if start <= arrival:
            if number > stop and max(free) <= arrival:
                break
            start = arrival
        while waiting and waiting[0][0] <= arrival:
            held -= waiting.popleft()[1]
        if start > arrival:
            if len(waiting) >= limit_packets or held + size > limit_bytes:
                departure.append(arrival)
                dropped.append(True)
                continue
            waiting.append((start, size))
            held += size
        end = start + service
        heapq.heapreplace(free, end)
        departure.append(end)
        dropped.append(False)
    return np.array(departure, dtype=np.int64), np.array(dropped, dtype=np.bool_), len(departure)


def _rows(*columns: NDArray[np.int64]) -> Iterator[tuple[int, ...]]:
    """Rows as Python's integers, made as they are asked for."""
    for low in range(0, len(columns[0]), _AHEAD):
        yield from zip(*(column[low : low + _AHEAD].tolist() for column in columns), strict=True)


def departures_of_one(arrival_ps: NDArray[np.int64], service_ps: NDArray[np.int64], free_ps: int) -> NDArray[np.int64]:
    """Return when each packet leaves a FIFO station with one server: Lindley's recursion, unrolled; int64[n]."""
    work_ps = np.cumsum(service_ps)
    start_ps = arrival_ps - (work_ps - service_ps)
    start_ps[:1] = np.maximum(start_ps[:1], free_ps)
    departure: NDArray[np.int64] = np.fmax.accumulate(start_ps) + work_ps
    return departure


def serve_limited(
    arrival_ps: NDArray[np.int64],
    service_ps: NDArray[np.int64],
    size_bytes: NDArray[np.int64],
    free_ps: int,
    room: Room,
    safe_wait_ps: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return departures and drops of one server with a limited queue.

    Whoever waits no longer than `safe_wait_ps` surely finds room, so only busy periods in which somebody would wait
    longer are served one by one; the others follow the closed form.
    """
    departure = np.empty_like(arrival_ps)
    dropped = np.zeros(len(arrival_ps), np.bool_)
    none = np.zeros(0, np.int64)
    at, before, ahead = 0, room, _AHEAD
    while at < len(arrival_ps):
        look = slice(at, at + ahead)
        closed = departures_of_one(arrival_ps[look], service_ps[look], free_ps)
        start = closed - service_ps[look]
        late = np.flatnonzero(start - arrival_ps[look] > safe_wait_ps)
        idle = np.flatnonzero(start == arrival_ps[look])
        if len(late):
            idle = idle[idle <= late[0]]
        elif at + ahead >= len(arrival_ps):
            departure[look] = closed
            break
        # The closed form holds up to where the last busy period begins that is suspect, or not seen to its end.
        low = int(idle[-1]) if len(idle) else 0
        departure[at : at + low] = closed[:low]
        if low:
            free_ps, before = int(closed[low - 1]), Room(room.limit_packets, room.limit_bytes, none, none)
        at += low
        if not len(late):
            ahead *= 2
            continue
        ends, drops, taken = serve(
            arrival_ps[at:],
            service_ps[at:],
            size_bytes[at:],
            np.array([free_ps]),
            before,
            until_idle_after=int(late[0]) - low,
        )
        departure[at : at + taken] = ends
        dropped[at : at + taken] = drops
        free_ps = int(ends[~drops].max(initial=free_ps))
        at, before, ahead = at + taken, Room(room.limit_packets, room.limit_bytes, none, none), _AHEAD
    return departure, dropped
