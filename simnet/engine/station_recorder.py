"""Utilisation, queue length, arrivals and drops of every station over the run's duration, in equal bins of time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.stations import Stations, Visits
from simnet.engine.queue_recorder import BINS, bin_width_ps
from simnet.model.recording import STATION_KINDS, Categories, ColumnData


class StationRecorder:
    """Watches a queue network: `observe` is handed to it."""

    def __init__(self, stations: Stations, names: tuple[str, ...], *, duration_ps: int) -> None:
        self.stations, self.names = stations, names
        self.duration_ps, self.bin_ps = duration_ps, bin_width_ps(duration_ps)
        shape = (len(stations), BINS)
        self._arrivals, self._drops, self._busy_ps, self._waiting_ps, self._longest = (
            np.zeros(shape, np.int64) for _ in range(5)
        )
        self._queue: list[NDArray[np.int64]] = [np.zeros(0, np.int64)] * 2  # station, start: of who may wait still

    def observe(self, visits: Visits) -> None:
        """Take visits of one window; those of a later call do not arrive before them at their stations."""
        station, arrival = visits.station.astype(np.int64), visits.arrival_ps
        dropped = visits.start_ps < 0
        self._count(self._arrivals, station, arrival)
        self._count(self._drops, station[dropped], arrival[dropped])
        served = np.flatnonzero(~dropped)
        station, arrival = station[served], arrival[served]
        start, end = visits.start_ps[served], visits.end_ps[served]
        self._spread(self._busy_ps, station, start, end)
        waits = np.flatnonzero(start > arrival)
        self._spread(self._waiting_ps, station[waits], arrival[waits], start[waits])
        self._measure_queues(station[waits], arrival[waits], start[waits])

    def _count(self, table: NDArray[np.int64], station: NDArray[np.int64], time_ps: NDArray[np.int64]) -> None:
        inside = time_ps < self.duration_ps
        at = station[inside] * BINS + time_ps[inside] // self.bin_ps
        table += np.bincount(at, minlength=table.size).reshape(table.shape)

    def _spread(
        self,
        table: NDArray[np.int64],
        station: NDArray[np.int64],
        start_ps: NDArray[np.int64],
        end_ps: NDArray[np.int64],
    ) -> None:
        """Add to each bin the time that intervals [start, end) spend in it."""
        end_ps = np.minimum(end_ps, self.duration_ps)
        some = np.flatnonzero(end_ps > start_ps)
        station, start_ps, end_ps = station[some], start_ps[some], end_ps[some]
        first, last = start_ps // self.bin_ps, (end_ps - 1) // self.bin_ps
        count = last - first + 1
        row = np.repeat(np.arange(len(some)), count)
        at = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        spent = np.minimum(end_ps[row], (at + 1) * self.bin_ps) - np.maximum(start_ps[row], at * self.bin_ps)
        # floats of bincount are exact: a bin holds less than 2**53 ps of all that a window brings
        more = np.bincount(station[row] * BINS + at, weights=spent, minlength=table.size)
        table += more.astype(np.int64).reshape(table.shape)

    def _measure_queues(
        self, station: NDArray[np.int64], arrival_ps: NDArray[np.int64], start_ps: NDArray[np.int64]
    ) -> None:
        """Find how many wait, itself included, when each of these arrives: those before it that have not started.

        Service starts in order of arrival at each station, so they are a run that ends with it.
        """
        if not len(arrival_ps):
            return
        held_station, held_start = self._queue
        place = np.argsort(np.concatenate([held_station, station]), kind="stable")
        stations = np.concatenate([held_station, station])[place]
        starts = np.concatenate([held_start, start_ps])[place]
        arrivals = np.concatenate([np.full(len(held_station), -1), arrival_ps])[place]
        edges = np.flatnonzero(np.diff(stations, prepend=-1))
        for begin, end in zip(edges.tolist(), [*edges[1:].tolist(), len(stations)], strict=True):
            new = begin + np.flatnonzero(arrivals[begin:end] >= 0)
            started = np.searchsorted(starts[begin:end], arrivals[new], side="right")
            length = new - begin + 1 - started
            inside = arrivals[new] < self.duration_ps
            at = arrivals[new][inside] // self.bin_ps
            np.maximum.at(self._longest[int(stations[begin])], at, length[inside])
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
