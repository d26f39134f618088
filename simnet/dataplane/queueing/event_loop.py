"""The queues as one loop over arrivals, in order of (time, packet id): what numba compiles, where it is installed.

A FIFO station's departures are known when a packet arrives, with several servers and limited queues too, so a visit is
one event. Plain Python without numba (`pip install simnet[fast]`): slow, and the same. Pending arrivals are of two
kinds: those known at the call, sorted, and one at most a packet that came up since, in a binary heap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.stations import UNLIMITED
from simnet.dataplane.queueing.ways import BYTE_PS

Function = TypeVar("Function", bound=Callable[..., Any])
try:
    import numba

    IS_COMPILED = not numba.config.DISABLE_JIT

    def _compiled(function: Function) -> Function:
        """Let numba compile the function when it is called first, and keep what came out on disk where it can."""
        options = {"error_model": "numpy", "forceinline": function.__name__.startswith("_")}
        try:
            machine_code: Function = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # there is no folder that it may write
            machine_code = numba.njit(**options)(function)
        return machine_code

except ImportError:
    IS_COMPILED = False

    def _compiled(function: Function) -> Function:
        """Leave the function as it is."""
        return function


UNBORN, WAITING, UNDER_WAY, LEFT = range(4)  # Beginnings.state
# What the loop remembers when it is left and entered again.
CURSOR = np.dtype(
    [
        ("entered", "i8"),  # packets of `entering` that have
        ("pending", "i8"),  # arrivals in the heap
        ("logged", "i8"),  # visits in the log
        ("free_node", "i8"),  # the first of the list of free nodes; -1: none
        ("far", "i8"),  # the first of the list of packets that arrive after this lap of the ring; -1: none
        ("served", "i8"),  # visits in this lap
        ("bucket", "i8"),  # of the ring, that is being served
        ("bucket_end_ps", "i8"),
        ("lap_ps", "i8"),  # when the lap began
        ("width_bits", "i8"),  # a bucket is 2**width_bits picoseconds wide
    ]
)


class Beginnings(NamedTuple):
    """Packets at the beginning of a call."""

    state: NDArray[np.int64]  # UNBORN: starts after another; WAITING for its time; UNDER_WAY; LEFT. The loop changes it
    time_ps: NDArray[np.int64]  # [n] of its next arrival; of one UNBORN: from the other's leaving until it starts
    row: NDArray[np.int64]  # [n] of VISIT: the visit that comes next
    request_bytes: NDArray[np.int64]
    reply_bytes: NDArray[np.int64]
    drawn_ps: NDArray[np.int64]
    follower: NDArray[np.int64]  # [n] row of the packet that starts after this one, -1: none; or [0], where none does


class Endings(NamedTuple):
    """What became of packets that have left: the columns of stations.Left, packets in rows."""

    time_ps: NDArray[np.int64]
    dropped_at: NDArray[np.int32]
    turned_ps: NDArray[np.int64]
    travelled_ps: NDArray[np.int64]
    met_ps: NDArray[np.int64]  # [6, n] waits at links, CPUs and pods, then services


# A packet under way, all in one place, because the loop jumps from one to another.
PACKET = np.dtype(
    [
        ("time_ps", "i8"),  # of its next arrival; of one that has left: the end of its last delay, or when dropped
        ("row", "i8"),  # of VISIT: the visit that comes next
        ("request_bytes", "i8"),
        ("reply_bytes", "i8"),
        ("drawn_ps", "i8"),
        ("turned_ps", "i8"),
        ("travelled_ps", "i8"),
        ("following", "i8"),  # next in the list of its bucket
    ]
)
# Rows of Ways: the visits of all ways, and after each way its exit, with station -1.
VISIT = np.dtype(
    [
        ("delay_ps", "i8"),
        ("fixed_ps", "i8"),
        ("byte_ps", "i8"),  # of a link: time on the wire of a byte, or
        ("rate_bps", "i8"),  # where that is no whole number; 0 otherwise
        ("station", "i4"),
        ("first_server", "i4"),  # of the station
        ("last_server", "i4"),
        ("extra_bytes", "i4"),
        ("request_share", "i1"),
        ("reply_share", "i1"),
        ("kind", "i1"),
        ("is_limited", "i1"),
        ("is_drawn", "i1"),
    ],
    align=True,  # 56 bytes: the visits of hundreds of ways stay in the cache that is nearest
)
# Who waits at a station with limited room: a list of nodes.
QUEUE = np.dtype(
    [
        ("limit_packets", "i8"),
        ("limit_bytes", "i8"),
        ("packets", "i8"),
        ("bytes", "i8"),
        ("head", "i8"),  # -1: nobody
        ("tail", "i8"),
    ]
)
NODE = np.dtype([("start_ps", "i8"), ("bytes", "i8"), ("following", "i8")])
# The columns of stations.Visits, for who observes.
LOG = np.dtype([("station", "i8"), ("arrival_ps", "i8"), ("start_ps", "i8"), ("end_ps", "i8"), ("size_bytes", "i8")])


def records(table: NDArray[np.void]) -> NDArray[np.void]:
    """Return the table so that the loop, compiled or not, reads `table[row].column`."""
    return table if IS_COMPILED else table.view(np.recarray)


@_compiled
def serve_until(
    until_ps: int,
    entering: NDArray[np.int64],
    beginnings: Beginnings,
    endings: Endings,
    packets: NDArray[np.void],
    met_ps: NDArray[np.int64],
    visits: NDArray[np.void],
    free_ps: NDArray[np.int64],
    queues: NDArray[np.void],
    nodes: NDArray[np.void],
    log: NDArray[np.void],
    heap: NDArray[np.int64],
    ring: NDArray[np.int64],
    cursor: NDArray[np.void],
) -> bool:
    """Serve every arrival before `until_ps`; return False where the log or the pool of nodes has no room for more.

    `entering`: packets that wait or are under way at the first call, in order of (time_ps, row). `packets`: those under
    way are filled in. `met_ps`: int64[n, 6], as in Endings. `free_ps`: when each server is free. `log`: of no length
    where nobody observes. `heap`, `ring`: room for the arrivals that came up since. Called again with the same
    arguments, or more nodes and an emptied log, it goes on where it stopped.
    """
    # Taken apart here, because numba would count references at each use.
    state, begins_ps, first_row, request_bytes, reply_bytes, drawn_ps, follower = beginnings
    left_ps, dropped_at, turned_ps, travelled_ps, left_met_ps = endings
    at = cursor[0]
    entered, pending, logged, free_node, far = at.entered, at.pending, at.logged, at.free_node, at.far
    served, bucket, bucket_end_ps, lap_ps, width_bits = at.served, at.bucket, at.bucket_end_ps, at.lap_ps, at.width_bits
    is_done = True
    while True:
        # --- the earliest arrival
        is_entering = entered < len(entering) and begins_ps[entering[entered]] < bucket_end_ps
        if not is_entering and pending == 0:
            bucket += 1
            if bucket >= len(ring):
                # The next lap begins at the earliest arrival there is; nobody is in the ring.
                if far < 0 and entered == len(entering):
                    break
                lap_ps = begins_ps[entering[entered]] if entered < len(entering) else packets[far].time_ps
                packet = far
                while packet >= 0:
                    lap_ps = min(lap_ps, packets[packet].time_ps)
                    packet = packets[packet].following
                if served < len(ring):
                    width_bits = min(width_bits + 1, 50)
                elif served > 4 * len(ring):
                    width_bits = max(width_bits - 1, 0)
                bucket, bucket_end_ps, served = 0, lap_ps, 0
                packet, far = far, -1
                while packet >= 0:
                    behind = packets[packet].following
                    far = _put(ring, packets, far, (packets[packet].time_ps - lap_ps) >> width_bits, packet)
                    packet = behind
            bucket_end_ps += 1 << width_bits
            packet = ring[bucket]
            ring[bucket] = -1
            while packet >= 0:
                _rise(heap, packets, pending, packet)
                pending += 1
                packet = packets[packet].following
            continue
        if is_entering:
            packet = entering[entered]
            packets[packet].time_ps = begins_ps[packet]
            if pending > 0 and _is_before(packets, heap[0], packet):
                is_entering, packet = False, heap[0]
        else:
            packet = heap[0]
        this = packets[packet]
        now = this.time_ps
        if now >= until_ps:
            break
        # --- its visit
        visit = visits[first_row[packet] if state[packet] == WAITING else this.row]
        if (visit.is_limited and free_node < 0) or (len(log) > 0 and logged == len(log)):
            is_done = False
            break
        if state[packet] == WAITING:
            state[packet] = UNDER_WAY
            this.request_bytes = request_bytes[packet]
            this.reply_bytes = reply_bytes[packet]
            this.drawn_ps = drawn_ps[packet]
            this.row = first_row[packet]
            this.turned_ps = -1
            this.travelled_ps = 0
            met_ps[packet] = 0
        size = visit.extra_bytes + visit.request_share * this.request_bytes + visit.reply_share * this.reply_bytes
        service = visit.fixed_ps + visit.byte_ps * size
        if visit.rate_bps > 0:
            service = -(-BYTE_PS * size // visit.rate_bps)
        if visit.is_drawn:
            service = this.drawn_ps
            this.turned_ps = now
        # --- the server that is free first
        server = visit.first_server
        for other in range(server + 1, visit.last_server + 1):
            if free_ps[other] < free_ps[server]:
                server = other
        start = max(now, free_ps[server])
        end = start + service
        is_dropped = False
        if visit.is_limited:
            queue = queues[visit.station]
            # Those go whose service has begun.
            node = queue.head
            while node >= 0 and nodes[node].start_ps <= now:
                queue.head = nodes[node].following
                queue.packets -= 1
                queue.bytes -= nodes[node].bytes
                nodes[node].following = free_node
                free_node = node
                node = queue.head
            if start > now:
                is_dropped = (queue.limit_packets != UNLIMITED and queue.packets >= queue.limit_packets) or (
                    queue.limit_bytes != UNLIMITED and queue.bytes + size > queue.limit_bytes
                )
                if not is_dropped:
                    node = free_node
                    free_node = nodes[node].following
                    nodes[node].start_ps = start
                    nodes[node].bytes = size
                    nodes[node].following = -1
                    if queue.head < 0:
                        queue.head = node
                    else:
                        nodes[queue.tail].following = node
                    queue.tail = node
                    queue.packets += 1
                    queue.bytes += size
        if is_dropped:
            start = end = -1
        else:
            free_ps[server] = end
            met_ps[packet, visit.kind] += start - now
            met_ps[packet, visit.kind + 3] += service
            this.travelled_ps += visit.delay_ps
            this.time_ps = end + visit.delay_ps
            this.row += 1
        if len(log) > 0:
            log[logged].station = visit.station
            log[logged].arrival_ps = now
            log[logged].start_ps = start
            log[logged].end_ps = end
            log[logged].size_bytes = size
            logged += 1
        # --- who arrives next because of it: this packet, or the one that starts after it
        served += 1
        if is_entering:
            entered += 1
        else:
            pending -= 1
            _sink(heap, packets, pending)
        if is_dropped or visits[this.row].station < 0:
            state[packet] = LEFT
            left_ps[packet] = this.time_ps
            dropped_at[packet] = visit.station if is_dropped else -1
            turned_ps[packet] = this.turned_ps
            travelled_ps[packet] = this.travelled_ps
            for part in range(6):
                left_met_ps[part, packet] = met_ps[packet, part]
            packet = follower[packet] if len(follower) > 0 else -1
            if packet >= 0:
                state[packet] = WAITING
                packets[packet].time_ps = this.time_ps + begins_ps[packet]
        if packet >= 0:
            time_ps = packets[packet].time_ps
            if time_ps < bucket_end_ps:
                _rise(heap, packets, pending, packet)
                pending += 1
            else:
                far = _put(ring, packets, far, (time_ps - lap_ps) >> width_bits, packet)
    at.entered, at.pending, at.logged, at.free_node, at.far = entered, pending, logged, free_node, far
    at.served, at.bucket, at.bucket_end_ps, at.lap_ps, at.width_bits = served, bucket, bucket_end_ps, lap_ps, width_bits
    return is_done


@_compiled
def _is_before(packets: NDArray[np.void], one: int, other: int) -> bool:
    """Say whether one packet arrives before the other."""
    one_ps, other_ps = packets[one].time_ps, packets[other].time_ps
    return one_ps < other_ps or (one_ps == other_ps and one < other)


@_compiled
def _put(ring: NDArray[np.int64], packets: NDArray[np.void], far: int, bucket: int, packet: int) -> int:
    """Put a packet into its bucket, or in front of those that are far; return the first of these."""
    if bucket < len(ring):
        packets[packet].following = ring[bucket]
        ring[bucket] = packet
        return far
    packets[packet].following = far
    return packet


@_compiled
def _rise(heap: NDArray[np.int64], packets: NDArray[np.void], place: int, packet: int) -> None:
    """Put a packet into the free place at the end of the heap, and let it rise."""
    while place > 0:
        above = (place - 1) >> 1
        if _is_before(packets, heap[above], packet):
            break
        heap[place] = heap[above]
        place = above
    heap[place] = packet


@_compiled
def _sink(heap: NDArray[np.int64], packets: NDArray[np.void], size: int) -> None:
    """Put the last packet of the heap, which then has `size`, in place of the first, and let it sink."""
    packet = heap[size]
    place, below = 0, 1
    while below < size:
        if below + 1 < size and _is_before(packets, heap[below + 1], heap[below]):
            below += 1
        if _is_before(packets, packet, heap[below]):
            break
        heap[place] = heap[below]
        place, below = below, 2 * below + 1
    heap[place] = packet
