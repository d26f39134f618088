"""What the queue solver is given: stations with their speeds and limits, and the itineraries of packets through them.

A *station* is a FIFO queue with one or several servers: one direction of a link, a core of a node's CPU, a pod. A
packet's *itinerary* is the list of stations that it visits, request and reply alike. All times are int64 picoseconds;
packets that arrive at a station at the same instant are served in the order of their ids. A packet whose service begins
at the very instant of an arrival waits no longer, and takes no room from the one that arrives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.random_streams import mix_in_place

LINK, CPU, POD = range(3)  # Stations.kind
# Itineraries.work_of: what a visit's service time is made of.
REQUEST_SIZE, REPLY_SIZE, FIXED, DRAWN = range(4)
UNLIMITED = -1


@dataclass(frozen=True, slots=True, eq=False)
class Stations:
    """Row s of every column is station s."""

    kind: NDArray[np.uint8]  # [s] LINK, CPU or POD
    servers: NDArray[np.int32]  # [s] that work at once; packets leave the one queue for the first that is free
    rate_bps: NDArray[np.int64]  # [s] of a link: service is ceil(8e12 * bytes / rate) ps; 0: not by size
    delay_ps: NDArray[np.int64]  # [s] from the end of service until the next station: propagation
    limit_packets: NDArray[np.int64]  # [s] that may wait, those in service not counted; UNLIMITED: any number
    limit_bytes: NDArray[np.int64]  # [s] likewise in bytes on the wire; a packet that does not fit whole is dropped

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True, slots=True, eq=False)
class Itineraries:
    """Ways through the stations, one after the other; way r visits rows start[r] ... start[r + 1] - 1."""

    start: NDArray[np.int64]  # [ways + 1]
    station: NDArray[np.int32]  # [visits]
    work_of: NDArray[np.uint8]  # [visits] REQUEST_SIZE, REPLY_SIZE (on a link), FIXED, DRAWN
    extra_bytes: NDArray[np.int32]  # [visits] added to the packet's size on that wire: frame and tunnel headers
    fixed_ps: NDArray[np.int64]  # [visits] service time where work_of is FIXED

    def __len__(self) -> int:
        return len(self.start) - 1

    def take(self, rows: NDArray[np.integer]) -> Itineraries:
        """Return these ways, in this order."""
        start, visit = self.visits_of(rows)
        return Itineraries(start, *(column[visit] for column in self._columns()))

    def followed_by(self, other: Itineraries) -> Itineraries:
        """Return these ways, then those of the other."""
        start = np.concatenate([self.start, other.start[1:] + self.start[-1]])
        pairs = zip(self._columns(), other._columns(), strict=True)
        return Itineraries(start, *(np.concatenate(pair) for pair in pairs))

    def visits_of(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where each of these ways would begin were there no others, and the row of each of their visits."""
        length = np.diff(self.start)[rows]
        start = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(length, out=start[1:])
        return start, np.arange(start[-1]) + np.repeat(self.start[rows] - start[:-1], length)

    def equal_ways(
        self, rows: NDArray[np.integer], other: Itineraries, other_rows: NDArray[np.integer]
    ) -> NDArray[np.bool_]:
        """Return whether way rows[i] is way other_rows[i] of the other: bool[n]."""
        equal: NDArray[np.bool_] = np.diff(self.start)[rows] == np.diff(other.start)[other_rows]
        some = np.flatnonzero(equal & (np.diff(self.start)[rows] > 0))
        if not len(some):
            return equal
        start, mine = self.visits_of(rows[some])
        _, theirs = other.visits_of(other_rows[some])
        differs = np.zeros(len(mine), np.bool_)
        for column, against in zip(self._columns(), other._columns(), strict=True):
            differs |= column[mine] != against[theirs]
        equal[some] = ~np.logical_or.reduceat(differs, start[:-1])
        return equal

    def hashes(self, rows: NDArray[np.integer]) -> NDArray[np.uint64]:
        """Return a hash of each of these ways, each of which visits some station: uint64[n]."""
        start, visit = self.visits_of(rows)
        hashed = (np.arange(len(visit)) - np.repeat(start[:-1], np.diff(start))).astype(np.uint64)
        for column in self._columns():
            mix_in_place(hashed)
            hashed += column[visit].astype(np.uint64)
        mix_in_place(hashed)
        summed: NDArray[np.uint64] = np.add.reduceat(hashed, start[:-1])
        return summed

    def _columns(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        return self.station, self.work_of, self.extra_bytes, self.fixed_ps


@dataclass(frozen=True, slots=True, eq=False)
class Injected:
    """Packets that enter, in any order; none earlier than the `until_ps` of the call before.

    Closed loop: a packet may start when another has left. `after` names that other, which must not have left yet, and
    at most one packet starts after each; `time_ps` is then the time between the two: the client's think time.
    """

    packet: NDArray[np.int64]  # [n] id, distinct; decides between equal arrival times
    time_ps: NDArray[np.int64]  # [n] arrival at the first station; with `after`: from that one's leaving until then
    way: NDArray[np.int32]  # [n] row of the Itineraries handed over with them
    request_bytes: NDArray[np.int32]  # [n]
    reply_bytes: NDArray[np.int32]  # [n] 0 where the way has no visit of REPLY_SIZE
    drawn_ps: NDArray[np.int64]  # [n] service time of the visit that is DRAWN: the pod's
    after: NDArray[np.int64] | None = None  # [n] id of the packet that must have left, served or dropped; -1: none


@dataclass(frozen=True, slots=True, eq=False)
class Left:
    """Packets whose leaving is settled, served or dropped, in order of their ids within what was handed back at once.

    The last delay of a packet that is handed back may end after the time that was asked for, because nothing can change
    it any more: latency = injected until left = waited + served + travelled, to the picosecond.
    """

    packet: NDArray[np.int64]  # [n] id
    time_ps: NDArray[np.int64]  # [n] when the last visit's delay was over; of a dropped packet: when it was dropped
    dropped_at: NDArray[np.int32]  # [n] station that had no room; -1: none
    turned_ps: NDArray[np.int64]  # [n] when it arrived at the visit that is DRAWN (the pod); -1: it has none
    waited_ps: NDArray[np.int64]  # [3, n] in queues of links, CPUs, pods
    served_ps: NDArray[np.int64]  # [3, n] in service likewise
    travelled_ps: NDArray[np.int64]  # [n] delays between stations


@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """Arrivals at stations that are decided for good, for who watches queues; at each station in order of arrival."""

    station: NDArray[np.int32]  # [v]
    arrival_ps: NDArray[np.int64]  # [v]
    start_ps: NDArray[np.int64]  # [v] of service; -1: dropped, there was no room
    end_ps: NDArray[np.int64]  # [v] of service; -1: dropped
    size_bytes: NDArray[np.int64]  # [v] on the wire; 0 where the station is no link
