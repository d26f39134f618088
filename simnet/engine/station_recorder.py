"""Utilisation, queue length, arrivals and drops of every station over the run's duration, in equal bins of time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.stations import Stations, Visits
from simnet.engine.queue_recorder import BINS, bin_width_ps
from simnet.model.recording import STATION_KINDS, Categories, ColumnData

_FEW_BINS = 8


class StationRecorder:
    """Watches a queue network: `observe` is handed to it."""

    def __init__(self, stations: Stations, names: tuple[str, ...], *, duration_ps: int) -> None:
        self.stations, self.names = stations, names
        self.duration_ps, self.bin_ps = duration_ps, bin_width_ps(duration_ps)
        shape = (len(stations), BINS)
        self._arrivals, self._drops, self._busy_ps, self._waiting_ps, self._longest = (
            np.zeros(shape, np.int64) for _ in range(5)
        )
        # station, start: of who may wait still
        self._queue: list[NDArray[Any]] = [np.zeros(0, np.int32), np.zeros(0, np.int64)]

    def observe(self, visits: Visits) -> None:
        """Take visits of one window; those of a later call do not arrive before them at their stations."""
        if not len(visits.station):
            return
        station, arrival, start, end = visits.station, visits.arrival_ps, visits.start_ps, visits.end_ps
        self._count(self._arrivals, station, arrival)
        dropped = start < 0
        if dropped.any():
            self._count(self._drops, station[dropped], arrival[dropped])
            served = np.flatnonzero(~dropped)
            station, arrival, start, end = station[served], arrival[served], start[served], end[served]
        self._spread(self._busy_ps, station, start, end)
        waits = np.flatnonzero(start > arrival)
        station, arrival, start = station[waits], arrival[waits], start[waits]
        self._spread(self._waiting_ps, station, arrival, start)
        self._measure_queues(station, arrival, start)

    def _count(self, table: NDArray[np.int64], station: NDArray[np.int32], time_ps: NDArray[np.int64]) -> None:
        """Add one for each time before the end."""
        if int(time_ps.max()) >= self.duration_ps:
            inside = time_ps < self.duration_ps
            station, time_ps = station[inside], time_ps[inside]
        if len(time_ps):
            self._add(table, station, *self._bins(time_ps))

    def _bins(self, time_ps: NDArray[np.int64]) -> tuple[NDArray[np.intp] | int, int, int]:
        """Return the bin of each time (int: of all), and the first and the last of them."""
        first, last = int(time_ps.min()) // self.bin_ps, int(time_ps.max()) // self.bin_ps
        if first == last:
            return first, first, last
        if last - first > _FEW_BINS:
            return time_ps // self.bin_ps, first, last
        at = np.full(len(time_ps), first)  # a comparison costs a tenth of a division
        for bin_number in range(first + 1, last + 1):
            at += time_ps >= bin_number * self.bin_ps
        return at, first, last

    def _add(
        self,
        table: NDArray[np.int64],
        station: NDArray[np.integer],
        at: NDArray[np.intp] | int,
        first: int,
        last: int,
        weights: NDArray[np.int64] | None = None,
    ) -> None:
        """Add to the bins first to last of each station."""
        width = last - first + 1
        cell = station if width == 1 else station * np.int64(width) + (at - first)
        # floats of bincount are exact: a bin holds less than 2**53 ps of all that a window brings
        more = np.bincount(cell, weights, minlength=len(table) * width)
        table[:, first : last + 1] += more.astype(np.int64).reshape(-1, width)

    def _spread(
        self,
        table: NDArray[np.int64],
        station: NDArray[np.int32],
        start_ps: NDArray[np.int64],
        end_ps: NDArray[np.int64],
    ) -> None:
        """Add to each bin the time that intervals [start, end) spend in it."""
        if not len(end_ps):
            return
        if int(end_ps.max()) > self.duration_ps:
            end_ps = np.minimum(end_ps, self.duration_ps)
            some = np.flatnonzero(end_ps > start_ps)
            station, start_ps, end_ps = station[some], start_ps[some], end_ps[some]
            if not len(some):
                return
        begin, first, last = self._bins(start_ps)
        if int(end_ps.max()) <= (last + 1) * self.bin_ps and first == last:
            self._add(table, station, begin, first, last, end_ps - start_ps)
            return
        # The part in the bin that an interval begins in, and then, of the few that go on, the rest bin by bin.
        edge_ps = (np.asarray(begin) + 1) * self.bin_ps
        self._add(table, station, begin, first, last, np.minimum(end_ps, edge_ps) - start_ps)
        more = np.flatnonzero(end_ps > edge_ps)
        if len(more):
            self._spread(table, station[more], np.broadcast_to(edge_ps, end_ps.shape)[more], end_ps[more])

    def _measure_queues(
        self, station: NDArray[np.int32], arrival_ps: NDArray[np.int64], start_ps: NDArray[np.int64]
    ) -> None:
        """Find how many wait, itself included, when each of these arrives: those before it that have not started.

        Service starts in order of arrival at each station, so they are a run that ends with it.
        """
        if not len(arrival_ps):
            return
        held_station, held_start = self._queue
        stations = np.concatenate([held_station, station])
        place = np.argsort(stations.astype(np.uint16) if len(self.stations) < 65_536 else stations, kind="stable")
        stations = stations[place]
        starts = np.concatenate([held_start, start_ps])[place]
        arrivals = np.concatenate([np.full(len(held_station), -1), arrival_ps])[place]
        new = np.flatnonzero(arrivals >= 0)
        edge = np.flatnonzero(np.diff(stations, prepend=-1))
        group = np.repeat(np.arange(len(edge)), np.diff(edge, append=len(stations)))
        # Times of all stations on one line, each station's beyond those of the station before.
        earliest_ps = min(int(arrival_ps.min()), int(starts.min()))
        width = int(starts.max()) - earliest_ps + 1
        at_once = max(1, (1 << 62) // width)
        length = np.empty(len(new), np.int64)
        for low in range(0, len(edge), at_once):
            rows = np.flatnonzero((group >= low) & (group < low + at_once))
            mine = np.flatnonzero((group[new] >= low) & (group[new] < low + at_once))
            line = (group[rows] - low) * width + (starts[rows] - earliest_ps)
            asked = (group[new[mine]] - low) * width + (arrivals[new[mine]] - earliest_ps)
            started = rows[0] + np.searchsorted(line, asked, side="right")
            length[mine] = new[mine] + 1 - started
        inside = np.flatnonzero(arrivals[new] < self.duration_ps)
        if len(inside):
            at = np.broadcast_to(self._bins(arrivals[new[inside]])[0], inside.shape)
            np.maximum.at(self._longest, (stations[new[inside]], at), length[inside])
        still = starts > int(arrival_ps.min())  # a later window brings no earlier arrival
        self._queue = [stations[still], starts[still]]

    def table(self) -> dict[str, ColumnData]:
        """Return the table `stations`: the stations that anything came to, a row a bin."""
        used = np.flatnonzero(self._arrivals.any(axis=1) | self._busy_ps.any(axis=1))
        start_ps = np.arange(BINS, dtype=np.int64) * self.bin_ps
        width = np.minimum(start_ps + self.bin_ps, self.duration_ps) - start_ps
        inside = np.flatnonzero(width > 0)
        rows = np.ix_(used, inside)
        n = len(inside)
        kinds = self.stations.kind[used].astype(np.int32)
        capacity = self.stations.servers[used].astype(np.int64)[:, None] * width[inside]
        return {
            "station": Categories(np.repeat(used + 1, n).astype(np.int32), ("", *self.names)),
            "kind": Categories(np.repeat(kinds + 1, n), ("", *STATION_KINDS)),
            "start_ps": np.tile(start_ps[inside], len(used)),
            "utilisation": (self._busy_ps[rows] / capacity).ravel(),
            "queue_mean": (self._waiting_ps[rows] / width[inside]).ravel(),
            "queue_max": self._longest[rows].ravel(),
            "arrivals": self._arrivals[rows].ravel(),
            "drops": self._drops[rows].ravel(),
        }
