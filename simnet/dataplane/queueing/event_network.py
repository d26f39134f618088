"""The queue solver as an event loop: what solver.py gives, packet by packet, for who has numba.

Packets go in and come out as of `solver.QueueNetwork`; between the two, event_loop.py serves one arrival after the
other. Exact for the same reason as any event simulation: arrivals are taken in order of (time, packet id).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing import event_loop as loop
from simnet.dataplane.queueing.columns import BEGUN, Columns, in_order, joined, rows
from simnet.dataplane.queueing.intake import END_PS, Intake
from simnet.dataplane.queueing.stations import UNLIMITED, Injected, Itineraries, Left, Stations, Visits
from simnet.dataplane.queueing.ways import Ways

_AT_ONCE = 1 << 16  # packets that begin in one call of the loop
_BUCKETS = 1 << 10
_WIDTH_BITS = 16  # at first; the loop adapts it
_NODES = 1 << 10  # packets that wait where room is limited, at first
_LOG = 1 << 16  # visits that are told at once


class EventNetwork:
    """A network of queues. `observe` is told of every visit, in order of (arrival, packet id)."""

    def __init__(self, stations: Stations, observe: Callable[[Visits], None] | None = None) -> None:
        self._observe, self._stations = observe, stations
        self._in = Intake(stations)
        self._in.flying |= {
            "table": np.zeros(0, loop.PACKET),
            "met_ps": np.zeros((0, 6), np.int64),
            "state": np.zeros(0, np.int64),
        }
        self._table = np.zeros(0, loop.PACKET)  # room for the packets of one call, kept: fresh memory costs as much
        self._met_ps = np.zeros((0, 6), np.int64)
        self._ended_ps, self._ended_at = np.zeros((9, 0), np.int64), np.zeros(0, np.int32)
        self._ways: Ways | None = None  # those that `_visits` was made of
        self._visits = np.zeros(0, loop.VISIT)
        self._free_ps = np.zeros(int(stations.servers.sum()), np.int64)
        self._queues = np.zeros(len(stations), loop.QUEUE)
        self._queues["limit_packets"], self._queues["limit_bytes"] = stations.limit_packets, stations.limit_bytes
        self._queues["head"] = -1
        self._is_limited = (stations.limit_packets != UNLIMITED) | (stations.limit_bytes != UNLIMITED)
        self._nodes = np.zeros(0, loop.NODE)
        self._log = np.zeros(0 if observe is None else _LOG, loop.LOG)
        self._cursor = np.zeros(1, loop.CURSOR)
        self._cursor["free_node"], self._cursor["width_bits"] = -1, _WIDTH_BITS

    def advance(self, injected: Injected, itineraries: Itineraries, until_ps: int) -> Left:
        """Take packets in, settle all that happens before `until_ps`, and return those whose leaving is settled.

        No packet may come later that starts before `until_ps`. Raises ModelError where one does, or where a cycle of
        ways takes no time.
        """
        if len(injected.packet):
            self._in.take(injected, itineraries)
        return self._run(until_ps)

    def finish(self) -> Left:
        """Settle everything that was handed over; return the packets that had not been handed back."""
        return self._run(END_PS)

    def _run(self, until_ps: int) -> Left:
        parts: list[Left] = []
        while self._in.ways is not None:
            waiting, low = self._in.waiting["time_ps"], self._in.next
            part_ps = until_ps
            if low + _AT_ONCE < len(waiting):
                part_ps = min(until_ps, max(int(waiting[low + _AT_ONCE]), int(waiting[low]) + 1))
            parts.append(self._serve(self._in.ways, int(np.searchsorted(waiting, part_ps)), part_ps))
            if part_ps == until_ps:
                break
        self._in.settled(until_ps)
        return in_order(parts)

    def _serve(self, ways: Ways, stop: int, until_ps: int) -> Left:
        """Let the packets in front of row `stop` of those waiting begin, and serve all arrivals before `until_ps`."""
        known = self._in
        begun = [rows(known.waiting, slice(known.next, stop)), known.chained]
        known.next = stop
        packets = joined([{name: part[name] for name in BEGUN} for part in [known.flying, *begun]])
        count, held = len(packets["packet"]), len(known.flying["packet"])
        table, met_ps, endings = self._room(count)
        table[:held], met_ps[:held] = known.flying["table"], known.flying["met_ps"]
        packets["row"] = ways.start.take(packets["way"]) + packets["at"]
        table["row"][:held] = packets["row"][:held]
        states = np.array([loop.WAITING, loop.UNBORN])
        state = np.concatenate([known.flying["state"], states.repeat([len(part["packet"]) for part in begun])])
        if (packets["packet"][1:] < packets["packet"][:-1]).any():
            order = np.argsort(packets["packet"], kind="stable")
            packets, state, table, met_ps = rows(packets, order), state[order], table[order], met_ps[order]
        beginnings = loop.Beginnings(
            state=state,
            time_ps=packets["time_ps"],
            row=packets["row"],
            request_bytes=packets["request_bytes"],
            reply_bytes=packets["reply_bytes"],
            drawn_ps=packets["drawn_ps"],
            follower=_followers(packets, state) if len(known.chained["packet"]) else np.zeros(0, np.int64),
        )
        self._loop(ways, beginnings, endings, table, met_ps, until_ps)
        stays = np.flatnonzero((state == loop.WAITING) | (state == loop.UNDER_WAY))
        known.flying = flying = rows(packets | {"table": table, "met_ps": met_ps, "state": state}, stays)
        flying["time_ps"] = flying["table"]["time_ps"].copy()
        has_begun = flying["state"] == loop.UNDER_WAY
        flying["at"] += np.where(has_begun, flying["table"]["row"] - flying.pop("row"), 0)
        if len(known.chained["packet"]):
            unborn = packets["packet"][state == loop.UNBORN]
            known.chained = rows(known.chained, np.isin(known.chained["packet"], unborn))
        left = np.flatnonzero(state == loop.LEFT)
        met_left_ps = endings.met_ps.take(left, axis=1)
        return Left(
            packet=packets["packet"].take(left),
            time_ps=endings.time_ps.take(left),
            dropped_at=endings.dropped_at.take(left),
            turned_ps=endings.turned_ps.take(left),
            waited_ps=met_left_ps[:3],
            served_ps=met_left_ps[3:],
            travelled_ps=endings.travelled_ps.take(left),
        )

    def _room(self, count: int) -> tuple[NDArray[np.void], NDArray[np.int64], loop.Endings]:
        """Return room for `count` packets under way, for what they met, and for what becomes of them, not filled in."""
        if count > len(self._table):
            self._table, self._met_ps = np.zeros(count, loop.PACKET), np.zeros((count, 6), np.int64)
            self._ended_ps, self._ended_at = np.zeros((9, count), np.int64), np.zeros(count, np.int32)
        left_ps, turned_ps, travelled_ps = self._ended_ps[:3]
        endings = loop.Endings(left_ps, self._ended_at, turned_ps, travelled_ps, self._ended_ps[3:])
        return self._table[:count], self._met_ps[:count], endings

    def _loop(
        self,
        ways: Ways,
        beginnings: loop.Beginnings,
        endings: loop.Endings,
        table: NDArray[np.void],
        met_ps: NDArray[np.int64],
        until_ps: int,
    ) -> None:
        """Run the loop; where it stops for want of room, make room, and run on."""
        if ways is not self._ways:
            self._ways, self._visits = ways, _visits(ways, self._stations, self._is_limited)
        entering = np.flatnonzero(beginnings.state != loop.UNBORN)
        time_ps = beginnings.time_ps.take(entering)
        if (time_ps[1:] < time_ps[:-1]).any():
            entering = entering[np.argsort(time_ps, kind="stable")]
        heap, ring = np.empty(len(table), np.int64), np.full(_BUCKETS, -1)
        cursor = self._cursor
        cursor["entered"] = cursor["pending"] = 0
        cursor["far"], cursor["bucket"], cursor["bucket_end_ps"] = -1, _BUCKETS, -END_PS
        is_done = False
        while not is_done:
            if cursor["free_node"] < 0 and self._is_limited.any():
                self._more_nodes()
            is_done = loop.serve_until(
                until_ps,
                entering,
                beginnings,
                endings,
                loop.records(table),
                met_ps,
                loop.records(self._visits),
                self._free_ps,
                loop.records(self._queues),
                loop.records(self._nodes),
                loop.records(self._log),
                heap,
                ring,
                loop.records(cursor),
            )
            self._tell()

    def _more_nodes(self) -> None:
        """Double the pool of list nodes; those added are free, each followed by the next."""
        had = len(self._nodes)
        added = np.zeros(max(had, _NODES), loop.NODE)
        added["following"] = np.append(np.arange(had + 1, had + len(added)), -1)
        self._nodes = np.concatenate([self._nodes, added])
        self._cursor["free_node"] = had

    def _tell(self) -> None:
        """Tell the observer of the visits in the log, and empty it."""
        logged = int(self._cursor["logged"][0])
        self._cursor["logged"] = 0
        if self._observe is not None and logged:
            station, *others = (self._log[name][:logged].copy() for name in loop.LOG.names or ())
            self._observe(Visits(station.astype(np.int32), *others))


def _followers(packets: Columns, state: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row of the packet that starts after each one, -1: none."""
    follower = np.full(len(state), -1)
    later = np.flatnonzero(state == loop.UNBORN)
    after = packets["after"][later]
    before = np.minimum(np.searchsorted(packets["packet"], after), len(state) - 1)
    is_known = packets["packet"][before] == after
    follower[before[is_known]] = later[is_known]
    return follower


def _visits(ways: Ways, stations: Stations, is_limited: NDArray[np.bool_]) -> NDArray[np.void]:
    """Return the visits of the ways as the loop wants them."""
    first_server = np.cumsum(stations.servers) - stations.servers
    is_exit = ways.place == len(stations)
    at = ways.station_of_place[np.where(is_exit, 0, ways.place)]
    made = np.zeros(len(ways.place), loop.VISIT)
    made["station"] = np.where(is_exit, -1, at)
    made["kind"] = ways.kind
    made["delay_ps"] = ways.delay_ps
    made["first_server"] = first_server[at]
    made["last_server"] = (first_server + stations.servers - 1)[at]
    made["is_limited"] = is_limited[at]
    made["is_drawn"][(ways.start + ways.drawn_at)[ways.drawn_at >= 0]] = 1
    if ways.byte_ps is None:
        made["rate_bps"] = ways.rate_bps
    else:
        made["byte_ps"] = ways.byte_ps
    made["request_share"], made["reply_share"] = ways.request_share, ways.reply_share
    made["extra_bytes"], made["fixed_ps"] = ways.extra_bytes, ways.fixed_ps
    return made
