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

from simnet.dataplane.path.itineraries import Journeys, journeys_of
from simnet.dataplane.queueing.solver import QueueNetwork as Solver
from simnet.dataplane.queueing.stations import POD, Injected, Itineraries, Left, Visits
from simnet.engine.connections import Sent, spread
from simnet.engine.network import CompiledCluster
from simnet.engine.stations import ClusterStations

Columns = dict[str, NDArray[Any]]
_SLICE = 1 << 16  # packets that go in at a time: bounds what is in memory of those that have left
_FEW = 1 << 16  # connections that are not worth sorting out
_NUMBER_BITS = 20  # of a packet in its flow: MAX_PACKETS_PER_FLOW is below 2**20
# int64[n] flow ids, int64[n] numbers in their flows -> int64[n] service times in the pod, picoseconds
ServiceTimes = Callable[[NDArray[np.uint64], NDArray[np.uint64]], NDArray[np.int64]]


class QueueNetwork(Protocol):
    """What solves the queues (dataplane/queueing)."""

    def advance(self, injected: Injected, itineraries: Itineraries, until_ps: int) -> Left:
        """Take packets in, run to `until_ps` and return those that have left."""
        ...

    def finish(self) -> Left:
        """Run until the network is empty; return those that have left."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """Packets that have left the queues, in order of sending; row i of every column is one."""

    connection: Columns  # of each packet: flow_id, rank, place, verdict, reason, answered, ...; see `_connections`
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
        answered: NDArray[np.bool_] = self.connection["answered"] & (self.dropped_at < 0)
        return answered


class QueuedTraffic:
    """Feeds a queue network and collects what leaves it."""

    def __init__(
        self,
        compiled: CompiledCluster,
        stations: ClusterStations,
        service_ps: ServiceTimes,
        *,
        observe: Callable[[Visits], None] | None = None,
        network: Callable[..., QueueNetwork] = Solver,
    ) -> None:
        self.compiled, self.stations, self.service_ps = compiled, stations, service_ps
        self.queues = network(stations.stations, observe)
        self._connections: Columns = {}
        self._journeys: Journeys | None = None
        self._held: Columns = {}  # packets not yet sent: connection, number, sent_ps, size_bytes, reply_bytes
        self._flying: Columns = {}  # packets in the network, by id from `_first_flying` on, and `is_left`
        self._first_flying = self._next_packet = 0
        self._is_sorted = False

    def add(self, sent: Sent) -> None:
        """Take the connections of a window with all their packets."""
        flows, packets, each = sent
        before = len(self._connections["flow_id"]) if self._connections else 0
        journeys = journeys_of(self.compiled.network, self.stations.numbers, each.request, each.reply)
        self._journeys = journeys if self._journeys is None else Journeys.joined([self._journeys, journeys])
        reply = each.reply
        flow_end = flows.first_packet[each.flow] - packets.first_packet_id + flows.packet_count[each.flow]
        connections = {
            "flow_id": flows.flow_id[each.flow].astype(np.int64),
            "start_ps": flows.start_ps[each.flow],
            "is_first": each.rank == 0,
            "last_number": (flow_end - 1 - each.first_packet + each.sent_before).astype(np.int32),
            "place": each.request.place,
            "verdict": each.request.verdict,
            "reason": each.request.reason,
            "answered": each.answered,
            "reply_reason": np.zeros(len(each.flow), np.int8) if reply is None else reply.reason,
            "l3_hops": each.request.l3_hops,
            "links": each.request.links,
        }
        self._connections = _joined(self._connections, connections)
        owner, rows = spread(each.first_packet, each.end_packet)
        number = rows - (each.first_packet - each.sent_before)[owner]
        made = {
            "connection": (owner + before).astype(np.int32),
            "number": number.astype(np.int32),
            "sent_ps": packets.arrival_ps[rows],
            "size_bytes": packets.size_bytes[rows],
            "reply_bytes": packets.reply_size_bytes[rows],
            "opens": rows == each.first_packet[owner],
        }
        self._held = _joined(self._held, made)
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
        self._held = _taken(self._held, slice(due, None))

    def finish(self) -> Iterator[Served]:
        """Send all that are left, and yield every packet still under way."""
        if self._held:
            last_ps = int(self._held["sent_ps"].max(initial=0))
            yield from self.advance(last_ps + 1)
            yield from self._served(self.queues.finish())

    # --- in ----------------------------------------------------------------------------------------

    def _inject(self, due: slice) -> tuple[Injected, Itineraries, Left]:
        """Send these rows of what is held; return them with their ways, and those that end where they begin."""
        connections, journeys = self._connections, self._journeys
        assert journeys is not None
        sent = _taken(self._held, due)
        count = len(sent["sent_ps"])
        owner, opens = sent["connection"], sent.pop("opens")
        packet = np.arange(self._next_packet, self._next_packet + count)
        self._next_packet += count
        # Only the ways that these packets take go along with them.
        goes = np.diff(journeys.later.start)[owner] > 0
        first, first_of = _renumbered(owner[opens & goes], len(connections["flow_id"]))
        later, later_of = _renumbered(owner[~opens & goes], len(connections["flow_id"]))
        way = np.empty(count, np.int32)
        way[opens & goes], way[~opens & goes] = first_of, later_of + len(first)
        flow_id = connections["flow_id"][owner].astype(np.uint64)
        drawn_ps = self.service_ps(flow_id, sent["number"].astype(np.uint64))
        sent["rules_ps"] = np.where(opens, journeys.rules_ps[owner], 0)
        sent["is_left"] = np.zeros(count, np.bool_)
        self._flying = _joined(self._flying, sent)
        columns = (packet, sent["sent_ps"], way, sent["size_bytes"], sent["reply_bytes"], drawn_ps)
        injected = Injected(*(columns if goes.all() else (column[goes] for column in columns)))
        return injected, journeys.of(first, later), _left_at_once(packet[~goes], sent["sent_ps"][~goes])

    def _sort(self) -> None:
        """Put what is held in order of time; at equal times by flow, then by number in it."""
        held = self._held
        time_ps = held["sent_ps"]
        if self._is_sorted:
            return
        order = np.argsort(time_ps, kind="stable")
        tied = np.flatnonzero(np.diff(time_ps[order]) == 0)
        if tied.size:
            rank = (self._connections["flow_id"][held["connection"]] << _NUMBER_BITS) + held["number"]
            if (rank[order[tied]] > rank[order[tied + 1]]).any():
                order = np.lexsort((rank, time_ps))
        self._held = _taken(held, order)
        self._is_sorted = True

    # --- out ---------------------------------------------------------------------------------------

    def _served(self, left: Left) -> Iterator[Served]:
        if not len(left.packet):
            return
        at = left.packet - self._first_flying
        self._flying["is_left"][at] = True
        packet = _taken(self._flying, at)
        connection = _taken(self._connections, packet.pop("connection"))
        is_dropped = left.dropped_at >= 0
        by_pod = is_dropped & (self.stations.stations.kind[left.dropped_at] == POD)
        rules_ps = np.where(is_dropped, 0, packet.pop("rules_ps"))
        yield Served(
            connection=connection,
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
            self._flying = flying = _taken(flying, slice(gone, None))
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
        self._connections = _taken(self._connections, kept)
        assert self._journeys is not None
        self._journeys = self._journeys.take(kept)
        self._held["connection"] = number[self._held["connection"]]
        flying["connection"] = number[flying["connection"]]


def _left_at_once(packet: NDArray[np.int64], time_ps: NDArray[np.int64]) -> Left:
    none, zeros = np.full(len(packet), -1), np.zeros((3, len(packet)), np.int64)
    return Left(packet, time_ps, none.astype(np.int32), none, zeros, zeros, zeros[0])


def _joined(one: Columns, other: Columns) -> Columns:
    if not one:
        return other
    return {name: np.concatenate([one[name], other[name]]) for name in other}


def _taken(columns: Columns, rows: Any) -> Columns:
    return {name: column[rows] for name, column in columns.items()}


def _renumbered(numbers: NDArray[np.int32], n: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Return the distinct numbers below n, ascending, and where each of `numbers` stands among them."""
    used = np.zeros(n, np.bool_)
    used[numbers] = True
    distinct = np.flatnonzero(used)
    place = np.zeros(n, np.int32)
    place[distinct] = np.arange(len(distinct), dtype=np.int32)
    return distinct, place[numbers]
