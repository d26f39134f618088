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

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.columns import Columns, in_order, joined, rows, started
from simnet.dataplane.queueing.intake import END_PS, Intake
from simnet.dataplane.queueing.station_state import StationState
from simnet.dataplane.queueing.stations import Injected, Itineraries, Left, Stations, Visits
from simnet.dataplane.queueing.window import Window, bits

_WINDOW_PACKETS = 16_384
_FEWEST_PACKETS = 512  # in a window that takes many sweeps
_MANY_SWEEPS, _FEW_SWEEPS = 48, 24


class QueueNetwork:
    """A network of queues. `observe` is told of every visit, window by window, at each station in order of arrival."""

    def __init__(
        self,
        stations: Stations,
        observe: Callable[[Visits], None] | None = None,
        *,
        window_packets: int = _WINDOW_PACKETS,
    ) -> None:
        self._stations, self._observe = stations, observe
        self._window_packets = self._most_packets = window_packets
        self._state = StationState(stations)
        self._kinds = set(np.unique(stations.kind).tolist())
        self._in = Intake(stations)
        self._reach_ps = 0  # closed loop: how far a window goes

    def advance(self, injected: Injected, itineraries: Itineraries, until_ps: int) -> Left:
        """Take packets in, settle all that happens before `until_ps`, and return those whose leaving is settled.

        No packet may come later that starts before `until_ps`. Raises ModelError where one does, where a cycle of
        ways takes no time, or where a window does not come to rest.
        """
        if len(injected.packet):
            self._in.take(injected, itineraries)
        return self._run(until_ps)

    def finish(self) -> Left:
        """Settle everything that was handed over; return the packets that had not been handed back."""
        return self._run(END_PS)

    # --- through -----------------------------------------------------------------------------------

    def _run(self, until_ps: int) -> Left:
        parts: list[Left] = []
        while True:
            begin_ps = self._earliest_ps()
            if begin_ps >= until_ps:
                break
            parts.append(self._settle_from(begin_ps, until_ps))
        self._in.settled(until_ps)
        return in_order(parts)

    def _earliest_ps(self) -> int:
        flying, waiting = self._in.flying["time_ps"], self._in.waiting["time_ps"]
        earliest = int(flying.min()) if len(flying) else END_PS
        return min(earliest, int(waiting[self._in.next])) if self._in.next < len(waiting) else earliest

    def _settle_from(self, begin_ps: int, until_ps: int, fewer_than: int = END_PS) -> Left:
        """Settle one window that begins at the earliest arrival there is.

        Where packets come back to stations that are busy, answers above all, a wait that was guessed wrong moves others
        sooner than sweeps settle it: then what is right advances by about the time between two stations a sweep, and
        all that lies further on is swept in vain. So a window that takes many sweeps is begun anew with half the
        packets, if there are then `fewer_than` before.
        """
        assert self._in.ways is not None
        waiting = self._in.waiting["time_ps"]
        last = self._in.next + self._window_packets
        end_ps = until_ps if last >= len(waiting) else max(int(waiting[last]), begin_ps + 1)
        end_ps = min(end_ps, until_ps)
        if len(self._in.chained["packet"]):
            self._reach_ps = self._reach_ps or max(int(np.median(self._in.chained["time_ps"])), 1)
            end_ps = min(end_ps, begin_ps + self._reach_ps)
        widest = max(level.stop_place - level.first_place for group in self._in.ways.groups for level in group)
        while True:
            stop = int(np.searchsorted(waiting, end_ps))
            known = joined([self._in.flying, started(rows(self._in.waiting, slice(self._in.next, stop)))])
            packets, chain = self._with_successors(known, begin_ps, end_ps)
            slots = int((self._in.ways.length[packets["way"]] - packets["at"] + 1).sum())
            most = begin_ps + (1 << bits(slots, widest)[1]) - 2
            too_many = chain.shape[1] > 4 * (len(known["packet"]) + 64) and end_ps > begin_ps + 1
            if end_ps <= most and not too_many:
                break
            end_ps = min(end_ps, most) if not too_many else begin_ps + max((end_ps - begin_ps) // 2, 1)
        window = Window(self._in.ways, self._state, packets, begin_ps, end_ps - begin_ps, chain)
        begun = stop - self._in.next
        may_be_cut = _FEWEST_PACKETS < begun < fewer_than and not len(self._in.chained["packet"])
        if not window.settle(_MANY_SWEEPS if may_be_cut else None):
            self._window_packets = max(begun // 2, _FEWEST_PACKETS)
            return self._settle_from(begin_ps, until_ps, begun)
        while len(more := self._missed(window, end_ps)):
            # A packet was dropped early, so that the one after it starts within the window as well.
            packets, chain = self._with_successors(known, begin_ps, end_ps, np.union1d(packets["packet"], more))
            window = Window(self._in.ways, self._state, packets, begin_ps, end_ps - begin_ps, chain)
            window.settle()
        if len(self._in.chained["packet"]):
            self._adapt_reach(len(known["packet"]), chain.shape[1], end_ps - begin_ps)
        elif window.sweeps < _FEW_SWEEPS:
            self._window_packets = min(2 * self._window_packets, self._most_packets)
        self._in.next = stop
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
        assert self._in.ways is not None
        parts = [known]
        after: list[NDArray[np.int64]] = []
        follower = rows(known, known["time_ps"] < end_ps) if len(self._in.chained["packet"]) else known
        while len(self._in.chained["packet"]) and len(follower["packet"]):
            row = np.searchsorted(self._in.chained["after"], follower["packet"])
            row = np.minimum(row, len(self._in.chained["after"]) - 1)
            has = np.flatnonzero(self._in.chained["after"][row] == follower["packet"])
            if not len(has):
                break
            alone = Window(self._in.ways, self._state, rows(follower, has), begin_ps, 1, np.zeros((3, 0), np.int64))
            chained = started(rows(self._in.chained, row[has]))
            chained["time_ps"] = alone.arrival_ps[alone.exit] + begin_ps + chained["time_ps"]
            chained["injected_ps"] = chained["time_ps"]
            enters = chained["time_ps"] < end_ps
            if wanted is not None:
                enters |= np.isin(chained["packet"], wanted)
            follower = rows(chained, enters)
            parts.append(follower)
            after.append(follower["after"])
        packets = joined(parts)
        if (packets["packet"][1:] < packets["packet"][:-1]).any():
            packets = rows(packets, np.argsort(packets["packet"], kind="stable"))
        if not after:
            return packets, np.zeros((3, 0), np.int64)
        later = np.flatnonzero(np.isin(packets["packet"], np.concatenate([each["packet"] for each in parts[1:]])))
        before = np.searchsorted(packets["packet"], packets["after"][later])
        between = self._in.chained["time_ps"][np.searchsorted(self._in.chained["after"], packets["after"][later])]
        return packets, np.stack([before, later, between])

    def _missed(self, window: Window, end_ps: int) -> NDArray[np.int64]:
        """Ids of packets that start in the window, as it turned out, and were not in it."""
        if not len(self._in.chained["packet"]) or window.dropped is None:
            return np.zeros(0, np.int64)
        settled = window.has_left()
        ids = window.packets["packet"][settled]
        row = np.minimum(np.searchsorted(self._in.chained["after"], ids), len(self._in.chained["after"]) - 1)
        starts = window.left_ps()[settled] + window.begin_ps + self._in.chained["time_ps"][row]
        is_next = (self._in.chained["after"][row] == ids) & (starts < end_ps)
        found = self._in.chained["packet"][row[is_next]]
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
        left_ps = window.left_ps()
        left_ps += window.begin_ps
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
        under_way = rows(packets, stays)
        if len(stays):
            is_past = np.add.reduceat(window.arrival_ps < span_ps, window.first, dtype=np.int64)[stays]
            under_way["at"] = under_way["at"] + is_past
            under_way["time_ps"] = window.arrival_ps[window.first[stays] + is_past] + window.begin_ps
        if len(self._in.chained["packet"]):
            released = self._release(packets["packet"][left], left_ps[left], packets["packet"])
            # Not begun within the window, after all.
            under_way = rows(under_way, ~np.isin(under_way["packet"], self._in.chained["packet"]))
            under_way = joined([under_way, released])
        self._in.flying = under_way
        if self._observe is not None:
            self._tell(window)
        ended_ps, travelled = left_ps.take(left), travelled.take(left)
        served, waited = np.zeros((3, len(left)), np.int64), np.zeros((3, len(left)), np.int64)
        on_links = ended_ps - packets["injected_ps"].take(left)
        on_links -= travelled
        for number, name in enumerate(("link_ps", "cpu_ps", "pod_ps")):
            if number in self._kinds:
                served[number] = packets[name].take(left)
                on_links -= served[number]
        for number, name in ((1, "cpu_wait_ps"), (2, "pod_wait_ps")):
            if number in self._kinds:
                waited[number] = packets[name].take(left)
                on_links -= waited[number]
        waited[0] = on_links
        return Left(
            packet=packets["packet"].take(left),
            time_ps=ended_ps,
            dropped_at=dropped_at.take(left),
            turned_ps=packets["turned_ps"].take(left),
            waited_ps=waited,
            served_ps=served,
            travelled_ps=travelled,
        )

    def _release(self, ids: NDArray[np.int64], left_ps: NDArray[np.int64], inside: NDArray[np.int64]) -> Columns:
        """Take those out of the chained that start after packets that have left; return those not `inside`."""
        row = np.minimum(np.searchsorted(self._in.chained["after"], ids), len(self._in.chained["after"]) - 1)
        has = self._in.chained["after"][row] == ids
        released = rows(self._in.chained, row[has])
        released["time_ps"] = released["time_ps"] + left_ps[has]
        stays = np.ones(len(self._in.chained["after"]), np.bool_)
        stays[row[has]] = False
        self._in.chained = rows(self._in.chained, stays)
        return started(rows(released, ~np.isin(released["packet"], inside)))

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
