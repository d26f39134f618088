"""Connections of many windows through one network of queues: packets go in by time, and come out with their times.

The workload's windows are cut by the start of flows, so packets of a long flow lie beyond the window's end: they are
held back until the windows since have started all flows that could come before. Memory: the packets of flows alive.

A packet's id is its place in the order of sending (time, then flow, then number in the flow). Whether a queue drops
the first packet of a connection does not change its way: that is what the tables made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path.itineraries import journeys_of
from simnet.dataplane.queueing.columns import Columns, appended, left_at_once, rows
from simnet.dataplane.queueing.itinerary_table import ItineraryTable
from simnet.dataplane.queueing.stations import POD, Injected, Itineraries, Left, Visits
from simnet.engine.connections import Sent, spread
from simnet.engine.network import CompiledCluster
from simnet.engine.queue_solver import queue_solver
from simnet.engine.stations import ClusterStations

_SLICE = 1 << 16  # packets that go in at a time: bounds what is in memory of those that have left
_FEW = 1 << 16  # connections that are not worth sorting out
_FEW_VISITS = 1 << 17  # of all ways: as long as there are no more, all go along with every slice
_NUMBER_BITS = 20  # of a packet in its flow: MAX_PACKETS_PER_FLOW is below 2**20
# int64[n] flow ids, int64[n] numbers in their flows -> int64[n] service times in the pod, picoseconds
ServiceTimes = Callable[[NDArray[np.uint64], NDArray[np.uint64]], NDArray[np.int64]]


class QueueNetwork(Protocol):
    """What solves the queues (dataplane/queueing); queue_solver.py says which of those there are."""

    def advance(self, injected: Injected, itineraries: Itineraries, until_ps: int) -> Left:
        """Take packets in, run to `until_ps` and return those that have left."""
        ...

    def finish(self) -> Left:
        """Run until the network is empty; return those that have left."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """Packets that have left the queues, in order of sending; row i of every column is one."""

    connections: Columns  # of all connections: flow_id, start_ps, place, verdict, reason, answered, ...; see `add`
    owner: NDArray[np.int32]  # [n] row in `connections`
    packet: Columns  # number, sent_ps, size_bytes, reply_bytes
    end_ps: NDArray[np.int64]  # [n] when it was back, served (no replies), stopped or dropped
    turned_ps: NDArray[np.int64]  # [n] when it was in the pod; -1: never
    dropped_at: NDArray[np.int32]  # [n] station without room; -1: none
    dropped_by_pod: NDArray[np.bool_]  # [n] that station is a pod
    waited_ps: NDArray[np.int64]  # [3, n] links, CPUs, pods
    served_ps: NDArray[np.int64]  # [3, n]
    rules_ps: NDArray[np.int64]  # [n] part of served_ps[CPU] that went on rules; 0 of a packet that was dropped
    travelled_ps: NDArray[np.int64]  # [n]

    def __len__(self) -> int:
        return len(self.end_ps)

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Which came to their pod and found room there: bool[n]."""
        reached: NDArray[np.bool_] = (self.turned_ps >= 0) & ~self.dropped_by_pod
        return reached

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which were answered, and the answer came back: bool[n]."""
        answered: NDArray[np.bool_] = self.of_connection("answered") & (self.dropped_at < 0)
        return answered

    def of_connection(self, name: str) -> NDArray[Any]:
        """Return a column of the connections, of each packet's: [n]."""
        column: NDArray[Any] = self.connections[name].take(self.owner)
        return column


class QueuedTraffic:
    """Feeds a queue network and collects what leaves it."""

    def __init__(
        self,
        compiled: CompiledCluster,
        stations: ClusterStations,
        service_ps: ServiceTimes,
        *,
        observe: Callable[[Visits], None] | None = None,
        network: Callable[..., QueueNetwork] | None = None,
    ) -> None:
        self.compiled, self.stations, self.service_ps = compiled, stations, service_ps
        self.queues = (network or queue_solver())(stations.stations, observe)
        self._connections: Columns = {}
        self._ways = ItineraryTable()
        self._held: Columns = {}  # packets not yet sent: connection, number, sent_ps, size_bytes, reply_bytes
        self._flying: Columns = {}  # packets in the network, by id from `_first_flying` on, and `is_left`
        self._first_flying = self._next_packet = 0
        self._is_sorted = False

    def add(self, sent: Sent) -> None:
        """Take the connections of a window with all their packets."""
        flows, packets, each = sent
        before = len(self._connections["flow_id"]) if self._connections else 0
        journeys = journeys_of(self.compiled.network, self.stations.numbers, each.request, each.reply)
        reply = each.reply
        flow_end = flows.first_packet[each.flow] - packets.first_packet_id + flows.packet_count[each.flow]
        way = self._ways.add(journeys.later)
        connections: Columns = {
            "flow_id": flows.flow_id[each.flow].astype(np.int64),
            "start_ps": flows.start_ps[each.flow],
            "last_number": (flow_end - 1 - each.first_packet + each.sent_before).astype(np.int32),
            "place": each.request.place,
            "verdict": each.request.verdict,
            "reason": each.request.reason,
            "answered": each.answered,
            "reply_reason": np.zeros(len(each.flow), np.int8) if reply is None else reply.reason,
            "l3_hops": each.request.l3_hops,
            "links": each.request.links,
            "way": way,
            "first_way": way if journeys.first_is_like_later else self._ways.add(journeys.first),
            "rules_ps": journeys.rules_ps,
        }
        self._connections = appended(self._connections, connections)
        owner, row = spread(each.first_packet, each.end_packet)
        number = row - (each.first_packet - each.sent_before)[owner]
        made: Columns = {
            "connection": (owner + before).astype(np.int32),
            "number": number.astype(np.int32),
            "sent_ps": packets.arrival_ps[row],
            "size_bytes": packets.size_bytes[row],
            "reply_bytes": packets.reply_size_bytes[row],
            "opens": (row == each.first_packet[owner]) & each.opens[owner],
        }
        self._held = appended(self._held, made)
        self._is_sorted = False

    def advance(self, until_ps: int) -> Iterator[Served]:
        """Send all packets before `until_ps` and yield those that have left by then; none earlier may come later."""
        if not self._held:
            return
        self._sort()
        sent_ps = self._held["sent_ps"]
        due = int(np.searchsorted(sent_ps, until_ps, side="left"))
        for begin in range(0, due, _SLICE):
            end = min(begin + _SLICE, due)
            injected, ways, at_once = self._inject(slice(begin, end))
            yield from self._served(at_once)
            yield from self._served(self.queues.advance(injected, ways, int(sent_ps[end]) if end < due else until_ps))
            self._forget(end)
        self._held = rows(self._held, slice(due, None))

    def finish(self) -> Iterator[Served]:
        """Send all that are left, and yield every packet still under way."""
        if self._held:
            last_ps = int(self._held["sent_ps"].max(initial=0))
            yield from self.advance(last_ps + 1)
            yield from self._served(self.queues.finish())

    # --- in ----------------------------------------------------------------------------------------

    def _inject(self, due: slice) -> tuple[Injected, Itineraries, Left]:
        """Send these rows of what is held; return them with their ways, and those that end where they begin."""
        connections = self._connections
        sent = rows(self._held, due)
        count = len(sent["sent_ps"])
        owner, opens = sent["connection"], np.flatnonzero(sent.pop("opens"))
        packet = np.arange(self._next_packet, self._next_packet + count)
        self._next_packet += count
        way = connections["way"].take(owner)
        way[opens] = connections["first_way"][owner[opens]]
        sent["rules_ps"] = np.zeros(count, np.int64)
        sent["rules_ps"][opens] = connections["rules_ps"][owner[opens]]
        sent["is_left"] = np.zeros(count, np.bool_)
        self._flying = appended(self._flying, sent)
        flow_id = connections["flow_id"].take(owner).view(np.uint64)
        drawn_ps = self.service_ps(flow_id, sent["number"].astype(np.uint64))
        columns: tuple[NDArray[Any], ...] = (
            packet,
            sent["sent_ps"],
            way,
            sent["size_bytes"],
            sent["reply_bytes"],
            drawn_ps,
        )
        stays = way < 0
        if stays.any():
            columns = tuple(column[~stays] for column in columns)
            way = columns[2]
        ways = self._ways.ways
        if len(ways.station) > _FEW_VISITS:  # only those that these packets take go along
            used, way = _renumbered(way, len(ways))
            ways = ways.take(used)
        injected = Injected(columns[0], columns[1], way, *columns[3:])
        return injected, ways, left_at_once(packet[stays], sent["sent_ps"][stays])

    def _sort(self) -> None:
        """Put what is held in order of time; at equal times by flow, then by number in it."""
        held = self._held
        time_ps = held["sent_ps"]
        if self._is_sorted:
            return
        order = _order_of_time(time_ps)
        in_order = time_ps[order]
        tied = np.flatnonzero(in_order[1:] == in_order[:-1])
        if tied.size:
            rank = (self._connections["flow_id"][held["connection"]] << _NUMBER_BITS) + held["number"]
            if (rank[order[tied]] > rank[order[tied + 1]]).any():
                order = np.lexsort((rank, time_ps))
        self._held = rows(held, order)
        self._is_sorted = True

    # --- out ---------------------------------------------------------------------------------------

    def _served(self, left: Left) -> Iterator[Served]:
        if not len(left.packet):
            return
        at = left.packet - self._first_flying
        self._flying["is_left"][at] = True
        packet = rows(self._flying, at)
        is_dropped = left.dropped_at >= 0
        by_pod = is_dropped & (self.stations.stations.kind[left.dropped_at] == POD)
        rules_ps = np.where(is_dropped, 0, packet.pop("rules_ps"))
        yield Served(
            connections=self._connections,
            owner=packet.pop("connection"),
            packet=packet,
            end_ps=left.time_ps,
            turned_ps=left.turned_ps,
            dropped_at=left.dropped_at,
            waited_ps=left.waited_ps,
            served_ps=left.served_ps,
            rules_ps=rules_ps,
            travelled_ps=left.travelled_ps,
            dropped_by_pod=by_pod,
        )

    def _forget(self, sent: int) -> None:
        """Let go of packets that have left, and of connections that have none any more.

        `sent`: rows of what is held that are no longer.
        """
        flying = self._flying
        alive = np.flatnonzero(~flying["is_left"])
        gone = int(alive[0]) if alive.size else len(flying["is_left"])
        if gone:
            self._flying = flying = rows(flying, slice(gone, None))
            self._first_flying += gone
        n = len(self._connections["flow_id"])
        if n < _FEW:
            return
        used = np.zeros(n, np.bool_)
        used[self._held["connection"][sent:]] = True
        used[flying["connection"]] = True
        kept = np.flatnonzero(used)
        if 2 * len(kept) > n:
            return
        number = np.zeros(n, np.int32)
        number[kept] = np.arange(len(kept), dtype=np.int32)
        self._connections = connections = rows(self._connections, kept)
        ways = np.union1d(connections["way"], connections["first_way"])
        if 2 * len(ways) < len(self._ways.ways):
            number_of_way = np.append(self._ways.keep(ways[ways >= 0]), np.int32(-1))  # -1 stays -1
            for name in ("way", "first_way"):
                connections[name] = number_of_way[connections[name]]
        self._held["connection"] = number[self._held["connection"]]
        flying["connection"] = number[flying["connection"]]


def _order_of_time(time_ps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the stable order of times: a sort of integers, time and row in one, is faster than one of rows."""
    if not len(time_ps):
        return np.zeros(0, np.int64)
    earliest_ps, row_bits = int(time_ps.min()), len(time_ps).bit_length()
    lost_bits = max(0, (int(time_ps.max()) - earliest_ps).bit_length() + row_bits - 63)
    key = (((time_ps - earliest_ps) >> lost_bits) << row_bits) + np.arange(len(time_ps))
    key.sort(kind="stable")  # merges the runs that flows are
    order: NDArray[np.int64] = key & ((1 << row_bits) - 1)
    if lost_bits:
        order = order[np.argsort(time_ps[order], kind="stable")]
    return order


def _renumbered(numbers: NDArray[np.int32], n: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Return the distinct numbers below n, ascending, and where each of `numbers` stands among them."""
    used = np.zeros(n, np.bool_)
    used[numbers] = True
    distinct = np.flatnonzero(used)
    place = np.zeros(n, np.int32)
    place[distinct] = np.arange(len(distinct), dtype=np.int32)
    return distinct, place[numbers]
