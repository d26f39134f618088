"""The queues one arrival after the other: a heap of (time, packet id), plain Python, exact.

The meaning of `stations.py` in code: what other solvers are held against, and what runs where none is faster. Each
station is a queue and its servers; FIFO, so that when a packet starts is known the moment it arrives. Packets that
arrive at the same instant are taken in the order of their ids; who leaves service at an instant makes room for who
arrives at it. Memory: the packets in the network, and those that wait.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.stations import (
    DRAWN,
    FIXED,
    LINK,
    REQUEST_SIZE,
    UNLIMITED,
    Injected,
    Itineraries,
    Left,
    Stations,
    Visits,
)

_BITS_PS = 8 * 10**12


@dataclass(slots=True)
class _Station:
    """One queue: when each server is free, and who waits."""

    kind: int
    rate_bps: int
    delay_ps: int
    limit_packets: int
    limit_bytes: int
    free_ps: list[int]  # of each server, a heap
    waiting: deque[tuple[int, int]] = field(default_factory=deque)  # (start of service, bytes), in order
    waiting_bytes: int = 0


@dataclass(slots=True)
class _Packet:
    """One packet under way: what remains of its itinerary, what it has spent."""

    id: int
    stations: list[int]
    works: list[int]
    extras: list[int]
    fixed: list[int]
    sizes: tuple[int, int]  # request, reply
    drawn_ps: int
    at: int = 0
    turned_ps: int = -1
    waited_ps: list[int] = field(default_factory=lambda: [0, 0, 0])
    served_ps: list[int] = field(default_factory=lambda: [0, 0, 0])
    travelled_ps: int = 0


class EventLoop:
    """A network of queues. `observe` is told of every visit, window by window, in order of (arrival, packet id)."""

    def __init__(self, stations: Stations, observe: Callable[[Visits], None] | None = None) -> None:
        self._observe = observe
        self._stations = [
            _Station(kind, rate, delay, packets, limit, [0] * servers)
            for kind, rate, delay, packets, limit, servers in zip(
                stations.kind.tolist(),
                stations.rate_bps.tolist(),
                stations.delay_ps.tolist(),
                stations.limit_packets.tolist(),
                stations.limit_bytes.tolist(),
                stations.servers.tolist(),
                strict=True,
            )
        ]
        self._heap: list[tuple[int, int, _Packet]] = []

    def advance(self, injected: Injected, itineraries: Itineraries, until_ps: int) -> Left:
        """Take packets in and run to `until_ps`, that instant left out; return those that have left."""
        self._inject(injected, itineraries)
        return self._run(until_ps)

    def finish(self) -> Left:
        """Run until the network is empty; return those that have left."""
        return self._run(np.iinfo(np.int64).max)

    def _inject(self, injected: Injected, ways: Itineraries) -> None:
        start = ways.start.tolist()
        columns = (ways.station, ways.work_of, ways.extra_bytes, ways.fixed_ps)
        cut = [[column[a:b].tolist() for a, b in itertools.pairwise(start)] for column in columns]
        rows = zip(
            injected.packet.tolist(),
            injected.time_ps.tolist(),
            injected.way.tolist(),
            injected.request_bytes.tolist(),
            injected.reply_bytes.tolist(),
            injected.drawn_ps.tolist(),
            strict=True,
        )
        for number, time_ps, way, request, reply, drawn_ps in rows:
            stations, works, extras, fixed = (column[way] for column in cut)
            packet = _Packet(number, stations, works, extras, fixed, (request, reply), drawn_ps)
            heapq.heappush(self._heap, (time_ps, number, packet))

    def _run(self, until_ps: int) -> Left:
        done: list[tuple[int, int, int, _Packet]] = []
        seen: list[tuple[int, int, int, int, int]] = []
        heap = self._heap
        while heap and heap[0][0] < until_ps:
            now_ps, _, packet = heapq.heappop(heap)
            if packet.at == len(packet.stations):
                done.append((packet.id, now_ps, -1, packet))
                continue
            number = packet.stations[packet.at]
            station = self._stations[number]
            service_ps, size = self._service(packet, station)
            if packet.works[packet.at] == DRAWN and packet.turned_ps < 0:
                packet.turned_ps = now_ps
            waiting = station.waiting
            while waiting and waiting[0][0] <= now_ps:
                station.waiting_bytes -= waiting.popleft()[1]
            start_ps = max(now_ps, station.free_ps[0])
            if start_ps > now_ps:
                is_full = station.limit_packets != UNLIMITED and len(waiting) >= station.limit_packets
                is_full |= station.limit_bytes != UNLIMITED and station.waiting_bytes + size > station.limit_bytes
                if is_full:
                    seen.append((number, now_ps, -1, -1, size))
                    done.append((packet.id, now_ps, number, packet))
                    continue
                waiting.append((start_ps, size))
                station.waiting_bytes += size
            end_ps = start_ps + service_ps
            heapq.heapreplace(station.free_ps, end_ps)
            seen.append((number, now_ps, start_ps, end_ps, size))
            packet.waited_ps[station.kind] += start_ps - now_ps
            packet.served_ps[station.kind] += service_ps
            packet.travelled_ps += station.delay_ps
            packet.at += 1
            heapq.heappush(heap, (end_ps + station.delay_ps, packet.id, packet))
        if self._observe is not None and seen:
            columns = np.array(seen, dtype=np.int64).T
            self._observe(Visits(columns[0].astype(np.int32), columns[1], columns[2], columns[3], columns[4]))
        return _left(done)

    @staticmethod
    def _service(packet: _Packet, station: _Station) -> tuple[int, int]:
        """How long the station works on the packet, and the bytes that it has there."""
        work = packet.works[packet.at]
        size = packet.extras[packet.at]
        if station.kind == LINK:
            size += packet.sizes[0 if work == REQUEST_SIZE else 1]
            return -(-_BITS_PS * size // station.rate_bps), size
        if work == FIXED:
            return packet.fixed[packet.at], size
        assert work == DRAWN
        return packet.drawn_ps, size


def _left(done: list[tuple[int, int, int, _Packet]]) -> Left:
    done.sort(key=lambda row: row[0])

    def column(values: list[int], dtype: type[np.signedinteger[Any]] = np.int64) -> NDArray[Any]:
        return np.array(values, dtype=dtype)

    packets = [row[3] for row in done]
    return Left(
        packet=column([row[0] for row in done]),
        time_ps=column([row[1] for row in done]),
        dropped_at=column([row[2] for row in done], np.int32),
        turned_ps=column([packet.turned_ps for packet in packets]),
        waited_ps=np.array([packet.waited_ps for packet in packets], dtype=np.int64).reshape(-1, 3).T,
        served_ps=np.array([packet.served_ps for packet in packets], dtype=np.int64).reshape(-1, 3).T,
        travelled_ps=column([packet.travelled_ps for packet in packets]),
    )
