"""The exact queue solver: packets go in by time, and come out with the times of an event-by-event simulation.

Time is cut into windows of about `window_packets` packets, each solved at once (window.py). What crosses the cut is
small: packets under way, each with its next arrival, and when each station is free. Where windows are cut makes no
difference to any result. Memory: the window, the packets under way, and what was handed over and has not begun.

Modelled: FIFO stations with one or several servers, queues limited in packets or bytes (tail drop), open and closed
loop. Left out: priorities, pre-emption, random early drop. Limits: a way has one visit of a drawn service time, a
packet at most one that starts after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.prices import Columns
from simnet.dataplane.queueing.station_state import StationState
from simnet.dataplane.queueing.stations import Injected, Itineraries, Left, Stations, Visits
from simnet.dataplane.queueing.ways import Ways, made_ready
from simnet.dataplane.queueing.window import Window, bits
from simnet.errors import ModelError

_END_PS = np.iinfo(np.int64).max
_COLUMNS = ("packet", "way", "at", "time_ps", "request_bytes", "reply_bytes", "drawn_ps", "after")
# What a packet has met so far; waits on links are what remains of its latency.
_SO_FAR = ("injected_ps", "turned_ps", "cpu_wait_ps", "pod_wait_ps", "link_ps", "cpu_ps", "pod_ps")
_WINDOW_PACKETS = 16_384


class QueueNetwork:
    """A network of queues. `observe` is told of every visit, window by window, at each station in order of arrival."""

    def __init__(
        self,
        stations: Stations,
        observe: Callable[[Visits], None] | None = None,
        *,
        window_packets: int = _WINDOW_PACKETS,
    ) -> None:
        self._stations, self._observe, self._window_packets = stations, observe, window_packets
        self._state = StationState(stations)
        self._kinds = set(np.unique(stations.kind).tolist())
        self._now_ps = -_END_PS
        self._itineraries: Itineraries | None = None
        self._ways: Ways | None = None
        self._held: Itineraries | None = None  # the ways of `_ways`: those still under way, then the latest given
        self._flying = _none()  # begun, or sure to begin at a known time
        self._waiting = _none()  # not begun, in order of time from row `_next` on
        self._next = 0
        self._chained = _none()  # start after another, whose leaving is not known; in order of `after`
        self._reach_ps = 0  # closed loop: how far a window goes

    def advance(self, injected: Injected, itineraries: Itineraries, until_ps: int) -> Left:
        """Take packets in, settle all that happens before `until_ps`, and return those whose leaving is settled.

        No packet may come later that starts before `until_ps`. Raises ModelError where one does, where a cycle of
        ways takes no time, or where a window does not come to rest.
        """
        if len(injected.packet):
            self._take(injected, itineraries)
        return self._run(until_ps)

    def finish(self) -> Left:
        """Settle everything that was handed over; return the packets that had not been handed back."""
        return self._run(_END_PS)

    # --- in ----------------------------------------------------------------------------------------

    def _take(self, injected: Injected, itineraries: Itineraries) -> None:
        first_way = self._join_ways(itineraries)
        count = len(injected.packet)
        after = np.full(count, -1, np.int64) if injected.after is None else injected.after
        fresh: Columns = {
            "packet": injected.packet,
            "way": injected.way.astype(np.int64) + first_way,
            "at": np.zeros(count, np.int64),
            "time_ps": injected.time_ps,
            "request_bytes": injected.request_bytes.astype(np.int64),
            "reply_bytes": injected.reply_bytes.astype(np.int64),
            "drawn_ps": injected.drawn_ps,
            "after": after,
        }
        is_chained = after >= 0
        if is_chained.any():
            self._chained = _joined([self._chained, _rows(fresh, is_chained)])
            self._chained = _rows(self._chained, np.argsort(self._chained["after"], kind="stable"))
            if (np.diff(self._chained["after"]) == 0).any():
                raise ModelError("queues: two packets start after the same one")
            if (self._chained["time_ps"] < 1).any():
                raise ModelError("queues: the time between a packet and the one after it must be positive")
            fresh = _rows(fresh, ~is_chained)
        time_ps = fresh["time_ps"]
        if len(time_ps) and int(time_ps.min()) < self._now_ps:
            raise ModelError(f"queues: a packet starts at {int(time_ps.min())} ps, settled until {self._now_ps} ps")
        if self._next < len(self._waiting["packet"]):
            fresh = _joined([_rows(self._waiting, slice(self._next, None)), fresh])
        time_ps = fresh["time_ps"]
        if (time_ps[1:] < time_ps[:-1]).any():
            fresh = _rows(fresh, np.argsort(time_ps, kind="stable"))
        self._waiting, self._next = fresh, 0

    def _join_ways(self, itineraries: Itineraries) -> int:
        """Add ways to those still in use; return the number of the first."""
        if itineraries is self._itineraries and self._ways is not None:
            return len(self._ways.start) - len(itineraries)
        waiting = _rows(self._waiting, slice(self._next, None))
        self._waiting, self._next = waiting, 0
        holders = [self._flying, waiting, self._chained]
        used = np.unique(np.concatenate([each["way"] for each in holders]))
        for each in holders:
            each["way"] = np.searchsorted(used, each["way"])
        joined = itineraries if self._held is None else self._held.take(used).followed_by(itineraries)
        self._ways = made_ready(joined, self._stations)
        self._held, self._itineraries = joined, itineraries
        return len(used)

    # --- through -----------------------------------------------------------------------------------

    def _run(self, until_ps: int) -> Left:
        parts: list[Left] = []
        while True:
            begin_ps = self._earliest_ps()
            if begin_ps >= until_ps:
                break
            parts.append(self._settle_from(begin_ps, until_ps))
        self._now_ps = max(self._now_ps, until_ps)
        if until_ps == _END_PS and len(self._chained["packet"]):
            raise ModelError(f"queues: packet {int(self._chained['after'][0])}, after which one starts, is not known")
        return _in_order(parts)

    def _earliest_ps(self) -> int:
        flying, waiting = self._flying["time_ps"], self._waiting["time_ps"]
        earliest = int(flying.min()) if len(flying) else _END_PS
        return min(earliest, int(waiting[self._next])) if self._next < len(waiting) else earliest

    def _settle_from(self, begin_ps: int, until_ps: int) -> Left:
        """Settle one window that begins at the earliest arrival there is."""
        assert self._ways is not None
        waiting = self._waiting["time_ps"]
        last = self._next + self._window_packets
        end_ps = until_ps if last >= len(waiting) else max(int(waiting[last]), begin_ps + 1)
        end_ps = min(end_ps, until_ps)
        if len(self._chained["packet"]):
            self._reach_ps = self._reach_ps or max(int(np.median(self._chained["time_ps"])), 1)
            end_ps = min(end_ps, begin_ps + self._reach_ps)
        widest = max(level.stop_place - level.first_place for group in self._ways.groups for level in group)
        while True:
            stop = int(np.searchsorted(waiting, end_ps))
            known = _joined([self._flying, _started(_rows(self._waiting, slice(self._next, stop)))])
            packets, chain = self._with_successors(known, begin_ps, end_ps)
            slots = int((self._ways.length[packets["way"]] - packets["at"] + 1).sum())
            most = begin_ps + (1 << bits(slots, widest)[1]) - 2
            too_many = chain.shape[1] > 4 * (len(known["packet"]) + 64) and end_ps > begin_ps + 1
            if end_ps <= most and not too_many:
                break
            end_ps = min(end_ps, most) if not too_many else begin_ps + max((end_ps - begin_ps) // 2, 1)
        window = Window(self._ways, self._state, packets, begin_ps, end_ps - begin_ps, chain)
        window.settle()
        while len(more := self._missed(window, end_ps)):
            # A packet was dropped early, so that the one after it starts within the window as well.
            packets, chain = self._with_successors(known, begin_ps, end_ps, np.union1d(packets["packet"], more))
            window = Window(self._ways, self._state, packets, begin_ps, end_ps - begin_ps, chain)
            window.settle()
        if len(self._chained["packet"]):
            self._adapt_reach(len(known["packet"]), chain.shape[1], end_ps - begin_ps)
        self._next = stop
        window.close()
        return self._leave(window)

    def _adapt_reach(self, known: int, chained: int, span_ps: int) -> None:
        """Aim at one or two requests of a client in a window: each further one takes one more sweep."""
        if chained < known:
            self._reach_ps = max(self._reach_ps, span_ps) * 3 // 2 + 1
        elif chained > 2 * known:
            self._reach_ps = max(span_ps * 2 // 3, 1)

    def _with_successors(
        self, known: Columns, begin_ps: int, end_ps: int, wanted: NDArray[np.int64] | None = None
    ) -> tuple[Columns, NDArray[np.int64]]:
        """Add the packets that may start in the window after others; return all in order of id, and the chain.

        Which may start: those whose predecessor, were there no queues, would leave early enough; and those `wanted`.
        """
        assert self._ways is not None
        parts = [known]
        after: list[NDArray[np.int64]] = []
        follower = _rows(known, known["time_ps"] < end_ps) if len(self._chained["packet"]) else known
        while len(self._chained["packet"]) and len(follower["packet"]):
            row = np.searchsorted(self._chained["after"], follower["packet"])
            row = np.minimum(row, len(self._chained["after"]) - 1)
            has = np.flatnonzero(self._chained["after"][row] == follower["packet"])
            if not len(has):
                break
            alone = Window(self._ways, self._state, _rows(follower, has), begin_ps, 1, np.zeros((3, 0), np.int64))
            chained = _started(_rows(self._chained, row[has]))
            chained["time_ps"] = alone.arrival_ps[alone.exit] + begin_ps + chained["time_ps"]
            chained["injected_ps"] = chained["time_ps"]
            enters = chained["time_ps"] < end_ps
            if wanted is not None:
                enters |= np.isin(chained["packet"], wanted)
            follower = _rows(chained, enters)
            parts.append(follower)
            after.append(follower["after"])
        packets = _joined(parts)
        if (packets["packet"][1:] < packets["packet"][:-1]).any():
            packets = _rows(packets, np.argsort(packets["packet"], kind="stable"))
        if not after:
            return packets, np.zeros((3, 0), np.int64)
        later = np.flatnonzero(np.isin(packets["packet"], np.concatenate([each["packet"] for each in parts[1:]])))
        before = np.searchsorted(packets["packet"], packets["after"][later])
        between = self._chained["time_ps"][np.searchsorted(self._chained["after"], packets["after"][later])]
        return packets, np.stack([before, later, between])

    def _missed(self, window: Window, end_ps: int) -> NDArray[np.int64]:
        """Ids of packets that start in the window, as it turned out, and were not in it."""
        if not len(self._chained["packet"]) or window.dropped is None:
            return np.zeros(0, np.int64)
        settled = window.has_left()
        ids = window.packets["packet"][settled]
        row = np.minimum(np.searchsorted(self._chained["after"], ids), len(self._chained["after"]) - 1)
        starts = window.left_ps()[settled] + window.begin_ps + self._chained["time_ps"][row]
        is_next = (self._chained["after"][row] == ids) & (starts < end_ps)
        found = self._chained["packet"][row[is_next]]
        missed: NDArray[np.int64] = found[~np.isin(found, window.packets["packet"])]
        return missed

    # --- out ---------------------------------------------------------------------------------------

    def _leave(self, window: Window) -> Left:
        """Keep what is under way; return the packets that have left."""
        packets, ways, span_ps = window.packets, window.ways, window.span_ps
        if window.chain.shape[1]:
            later = window.chain[1]
            packets["injected_ps"] = packets["injected_ps"].copy()
            packets["injected_ps"][later] = window.arrival_ps[window.first[later]] + window.begin_ps
        self._add_up(window)
        dropped, drop_slot = window.drops()
        has_left = window.has_left()
        left = np.flatnonzero(has_left)
        left_ps = window.left_ps() + window.begin_ps
        stays = np.flatnonzero(~has_left)
        travelled = ways.travelled_ps.take(packets["way"])
        dropped_at = np.full(len(has_left), -1, np.int32)
        if len(dropped):
            dropped_at[dropped] = ways.station_of_place[ways.place[window.row[drop_slot]]]
            service_ps = window.prices.all_service_ps()
            for packet, slot in zip(dropped.tolist(), drop_slot.tolist(), strict=True):
                rest = slice(slot, int(window.exit[packet]))
                kind = ways.kind[window.row[rest]]
                for number, name in enumerate(("link_ps", "cpu_ps", "pod_ps")):
                    packets[name][packet] -= service_ps[rest][kind == number].sum()
                travelled[packet] -= ways.delay_ps[window.row[rest]].sum()
        # Those that stay wait for their next visit: the first that is not before the window's end.
        under_way = _rows(packets, stays)
        if len(stays):
            is_past = np.add.reduceat(window.arrival_ps < span_ps, window.first, dtype=np.int64)[stays]
            under_way["at"] = under_way["at"] + is_past
            under_way["time_ps"] = window.arrival_ps[window.first[stays] + is_past] + window.begin_ps
        if len(self._chained["packet"]):
            released = self._release(packets["packet"][left], left_ps[left], packets["packet"])
            # Not begun within the window, after all.
            under_way = _rows(under_way, ~np.isin(under_way["packet"], self._chained["packet"]))
            under_way = _joined([under_way, released])
        self._flying = under_way
        if self._observe is not None:
            self._tell(window)
        served = np.stack([packets[name][left] for name in ("link_ps", "cpu_ps", "pod_ps")])
        waited = np.stack([packets["cpu_wait_ps"][left], packets["pod_wait_ps"][left]])
        latency = left_ps[left] - packets["injected_ps"][left]
        on_links = latency - travelled[left] - served.sum(axis=0) - waited.sum(axis=0)
        return Left(
            packet=packets["packet"][left],
            time_ps=left_ps[left],
            dropped_at=dropped_at[left],
            turned_ps=packets["turned_ps"][left],
            waited_ps=np.concatenate([on_links[None], waited]),
            served_ps=served,
            travelled_ps=travelled[left],
        )

    def _release(self, ids: NDArray[np.int64], left_ps: NDArray[np.int64], inside: NDArray[np.int64]) -> Columns:
        """Take those out of the chained that start after packets that have left; return those not `inside`."""
        row = np.minimum(np.searchsorted(self._chained["after"], ids), len(self._chained["after"]) - 1)
        has = self._chained["after"][row] == ids
        released = _rows(self._chained, row[has])
        released["time_ps"] = released["time_ps"] + left_ps[has]
        stays = np.ones(len(self._chained["after"]), np.bool_)
        stays[row[has]] = False
        self._chained = _rows(self._chained, stays)
        return _started(_rows(released, ~np.isin(released["packet"], inside)))

    def _add_up(self, window: Window) -> None:
        """Add to each packet what it met in the window, and what service it needs in all."""
        packets, ways = window.packets, window.ways
        is_fresh = packets["at"] == 0
        kinds = self._kinds
        needs_kind = kinds != {0} or window.prices.of_row_ps is None
        kind = ways.kind.take(window.row) if needs_kind else np.zeros(0, np.int64)
        for number, name in enumerate(("link_ps", "cpu_ps", "pod_ps")):
            if number not in kinds:
                continue
            if window.prices.of_row_ps is not None:
                in_way = np.add.reduceat(np.where(ways.kind == number, window.prices.of_row_ps, 0), ways.start)
                needed = in_way.take(packets["way"])
            else:
                needed = np.add.reduceat(np.where(kind == number, window.prices.all_service_ps(), 0), window.first)
            packets[name] = np.where(is_fresh, needed, packets[name])
        if kinds != {0}:
            arrival = window.arrival_ps
            is_past = arrival < window.span_ps
            if window.dropped is not None:
                is_past &= ~window.dropped
            wait = np.zeros(len(arrival), np.int64)
            step = window.prices.all_service_ps() + ways.delay_ps.take(window.row)
            wait[:-1] = arrival[1:] - arrival[:-1] - step[:-1]
            for number, name in ((1, "cpu_wait_ps"), (2, "pod_wait_ps")):
                mine = np.where(is_past & (kind == number), wait, 0)
                packets[name] = packets[name] + np.add.reduceat(mine, window.first)
        drawn_at = ways.drawn_at.take(packets["way"]) - packets["at"]
        if (drawn_at >= 0).any():
            turn = window.arrival_ps.take(window.first + np.maximum(drawn_at, 0))
            has = (drawn_at >= 0) & (turn < window.span_ps)
            packets["turned_ps"] = np.where(has, turn + window.begin_ps, packets["turned_ps"])

    def _tell(self, window: Window) -> None:
        """Tell the observer of the window's visits."""
        assert self._observe is not None
        slot = np.concatenate([each.slot for _, group in window.groups for each in group])  # station by station
        arrival = window.arrival_ps.take(slot)
        slot = slot[arrival < window.span_ps]
        arrival = window.arrival_ps[slot] + window.begin_ps
        end = window.arrival_ps[slot + 1] + window.begin_ps - window.ways.delay_ps[window.row[slot]]
        start = end - window.prices.service_ps(slot)
        if window.dropped is not None:
            start[window.dropped[slot]] = end[window.dropped[slot]] = -1
        station = window.ways.station_of_place[window.ways.place[window.row[slot]]].astype(np.int32)
        self._observe(Visits(station, arrival, start, end, window.prices.size_bytes(slot)))


def _none() -> Columns:
    return {name: np.zeros(0, np.int64) for name in (*_COLUMNS, *_SO_FAR)}


def _rows(columns: Columns, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Columns:
    return {name: column[rows] for name, column in columns.items()}


def _joined(parts: list[Columns]) -> Columns:
    whole = [part for part in parts if len(part["packet"])] or parts[:1]
    if len(whole) == 1:
        return dict(whole[0])
    names = whole[0].keys() & whole[1].keys()
    return {name: np.concatenate([part[name] for part in whole]) for name in names}


def _started(columns: Columns) -> Columns:
    """Add what a packet has met so far, which is nothing."""
    zeros = {name: np.zeros(len(columns["packet"]), np.int64) for name in _SO_FAR}
    begun = {name: column for name, column in columns.items() if name in _COLUMNS}
    return begun | zeros | {"injected_ps": columns["time_ps"], "turned_ps": zeros["turned_ps"] - 1}


def _in_order(parts: list[Left]) -> Left:
    """Join what several windows let go, in order of ids."""
    none = np.zeros(0, np.int64)
    if not parts:
        empty = np.zeros((3, 0), np.int64)
        return Left(none, none, none.astype(np.int32), none, empty, empty, none)
    packet = np.concatenate([part.packet for part in parts])
    order = np.argsort(packet, kind="stable")
    moved = np.flatnonzero(order != np.arange(len(order)))  # a few at each cut
    source = order[moved]

    def column(name: str) -> NDArray[np.int64]:
        joined: NDArray[np.int64] = np.concatenate([getattr(part, name) for part in parts], axis=-1)
        for row in joined if joined.ndim == 2 else [joined]:
            row[moved] = row[source]
        return joined

    names = ("packet", "time_ps", "dropped_at", "turned_ps", "waited_ps", "served_ps", "travelled_ps")
    left: dict[str, Any] = {name: column(name) for name in names}
    return Left(**left)
