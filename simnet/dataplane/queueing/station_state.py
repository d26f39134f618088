"""What stations are left with between windows: when each server is free, and who waits where room is limited."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.one_by_one import Room
from simnet.dataplane.queueing.stations import LINK, UNLIMITED, Stations
from simnet.dataplane.queueing.ways import BYTE_PS

_ALWAYS_PS = 1 << 62


class StationState:
    """The stations of a network at one instant, `free_ps` of those with one server in a column."""

    def __init__(self, stations: Stations) -> None:
        self.stations = stations
        self.free_ps = np.zeros(len(stations), np.int64)
        self.is_several = stations.servers > 1
        self.is_limited = (stations.limit_packets != UNLIMITED) | (stations.limit_bytes != UNLIMITED)
        self.is_special = self.is_several | self.is_limited
        self.any_limited = bool(self.is_limited.any())
        self._servers = {int(s): np.zeros(int(stations.servers[s]), np.int64) for s in np.flatnonzero(self.is_several)}
        self._waiting = {
            int(s): (np.zeros(0, np.int64), np.zeros(0, np.int64)) for s in np.flatnonzero(self.is_limited)
        }
        self._least_service_ps = np.full(len(stations), _ALWAYS_PS, np.int64)

    def __len__(self) -> int:
        return len(self.stations)

    def servers_free_ps(self, station: int) -> NDArray[np.int64]:
        """When each server is free."""
        return self._servers[station] if self.is_several[station] else self.free_ps[station : station + 1]

    def room(self, station: int, begin_ps: int) -> Room:
        """The station's limits and who waits, times counted from `begin_ps`."""
        if not self.is_limited[station]:
            return Room(UNLIMITED, UNLIMITED, np.zeros(0, np.int64), np.zeros(0, np.int64))
        start, size = self._waiting[station]
        limits = int(self.stations.limit_packets[station]), int(self.stations.limit_bytes[station])
        return Room(*limits, start - begin_ps, size)

    def see_services(self, stations: NDArray[np.int64], least_ps: NDArray[np.int64]) -> None:
        """Take note of the shortest service time at each station."""
        self._least_service_ps[stations] = np.minimum(self._least_service_ps[stations], least_ps)

    def safe_wait_ps(self, stations: NDArray[np.int64], largest_bytes: int) -> NDArray[np.int64]:
        """A wait up to which an arrival surely finds room, int64 a station.

        Whoever finds n packets waiting waits for n services at least; on a link, bytes that wait take their time on the
        wire. So a shorter wait means fewer packets, or bytes, than the limit.
        """
        at = self.stations
        packets, size = at.limit_packets[stations], at.limit_bytes[stations]
        least = self._least_service_ps[stations]
        most = _ALWAYS_PS // np.maximum(least, 1)
        by_packets = np.where(packets == UNLIMITED, _ALWAYS_PS, np.minimum(packets, most) * least - 1)
        spare = np.minimum(np.maximum(size - largest_bytes, 0), _ALWAYS_PS // BYTE_PS)
        rate = np.where(at.kind[stations] == LINK, at.rate_bps[stations], _ALWAYS_PS)
        by_bytes = np.where(size == UNLIMITED, _ALWAYS_PS, spare * BYTE_PS // rate - 1)
        safe: NDArray[np.int64] = np.maximum(np.minimum(by_packets, by_bytes), 0)
        return safe

    def served(
        self,
        station: int,
        start_ps: NDArray[np.int64],
        departure_ps: NDArray[np.int64],
        size_bytes: NDArray[np.int64],
        now_ps: int,
    ) -> None:
        """Take note of packets that a special station has accepted, in order."""
        if self.is_several[station]:
            # The server that is free first always takes the next packet: what remains are the latest of all.
            free = np.sort(np.concatenate([self._servers[station], departure_ps]))
            self._servers[station] = free[len(free) - len(self._servers[station]) :]
        elif len(departure_ps):
            self.free_ps[station] = max(int(departure_ps[-1]), int(self.free_ps[station]))
        if self.is_limited[station]:
            start, size = (
                np.concatenate([old, new])
                for old, new in zip(self._waiting[station], (start_ps, size_bytes), strict=True)
            )
            self._waiting[station] = start[start > now_ps], size[start > now_ps]
