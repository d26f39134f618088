"""One window of time, solved for all stations at once: arrivals sorted, Lindley's recursion unrolled, swept to rest.

Every packet has a run of *slots*: one for each visit that it still has before it, and one for its exit. `arrival_ps`
of a slot is what the sweeps look for, counted from the window's begin. A visit whose arrival is not before the window's
end takes no part: it stands behind all others of its station, so what is computed for it touches nobody.

Why it ends at the right answer: a visit's departure depends on arrivals before it only. So when all arrivals before
some instant are right, one more sweep makes right the next one in order of (time, id) as well. This needs no monotony
and holds with drops too; at rest, every arrival is right. In practice a window takes about ten sweeps, because most
queues are short; what is sorted again is nearly sorted, which a merge sort that looks for runs does in linear time.
Source: D. V. Lindley, "The theory of queues with a single server", 1952.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.columns import Columns
from simnet.dataplane.queueing.one_by_one import departures_of_one, serve, serve_limited
from simnet.dataplane.queueing.prices import Prices
from simnet.dataplane.queueing.station_state import StationState
from simnet.dataplane.queueing.ways import Level, Ways
from simnet.errors import ModelError

FAR_PS = 1 << 61  # an arrival that does not happen: of a packet that was dropped before


@dataclass(slots=True, eq=False)
class _Pass:
    """A level within the window: its visits in the order of the last sweep, and what came out."""

    level: Level
    low_bits: NDArray[np.int64]  # [v] station and slot of each visit: its sort key without the time
    first: NDArray[np.int64]  # [stations] first visit of each station that has any
    count: NDArray[np.int64]  # [stations]
    stations: NDArray[np.int64]  # [stations]
    delay_ps: NDArray[np.int64] | int  # [v], or of all
    slot: NDArray[np.int64]  # [v]
    # [v] service of each visit and all before it, where all are equal, so that no order changes the sums
    work_ps: NDArray[np.int64] | None
    free_ps: NDArray[np.int64]  # [stations] when its server is free
    fits: bool  # the times of all stations on one line, each station's beyond those of the one before, whatever waits
    is_plain: bool  # one server each, and room for all
    key: NDArray[np.int64] | None = None  # [v] station | arrival | slot, ascending
    departure_ps: NDArray[np.int64] | None = None  # [v]


class Window:
    """The visits of some packets between two instants. `chain` (rows): before, after, time between, as packet rows."""

    def __init__(
        self,
        ways: Ways,
        state: StationState,
        packets: Columns,
        begin_ps: int,
        span_ps: int,
        chain: NDArray[np.int64],
    ) -> None:
        self.ways, self.state, self.packets, self.chain = ways, state, packets, chain
        self.begin_ps, self.span_ps = begin_ps, span_ps
        way, at = packets["way"], packets["at"]
        slots = ways.length.take(way) - at + 1  # of each packet
        end = np.cumsum(slots)
        self.first = end - slots
        self.exit = end - 1
        self.slots = int(end[-1]) if len(end) else 0
        first_row = ways.start.take(way) + at
        self.row = np.arange(self.slots)
        self.row += np.repeat(first_row - self.first, slots)
        # A first guess: nobody waits.
        entered_ps = packets["time_ps"] - begin_ps
        self.prices = prices = Prices(ways, packets, self.row, self.first, slots)
        if prices.of_row_ps is not None:
            step = prices.of_row_ps + ways.delay_ps
            so_far = np.cumsum(step) - step
            self.arrival_ps = so_far.take(self.row)
            self.arrival_ps += np.repeat(entered_ps - so_far.take(first_row), slots)
        else:
            step = prices.all_service_ps() + ways.delay_ps.take(self.row)
            self.arrival_ps = np.cumsum(step) - step
            self.arrival_ps += np.repeat(entered_ps - self.arrival_ps.take(self.first), slots)
        self._onward_ps = self.arrival_ps[1:]  # of a slot: when its packet arrives at the next
        self.dropped = np.zeros(self.slots, np.bool_) if state.any_limited else None
        self.sweeps = 0

    def _lay_out(self) -> None:
        """Deal the visits out to levels, each sorted by station."""
        ways, places = self.ways, len(self.state)
        place = ways.short_place.take(self.row)
        order = np.argsort(place, kind="stable")
        count = np.bincount(place, minlength=places + 1)
        begin = np.concatenate([[0], np.cumsum(count)])
        widest = max((level.stop_place - level.first_place for group in ways.groups for level in group), default=1)
        self.slot_bits, self.time_bits = bits(self.slots, widest)
        self.groups: list[tuple[bool, list[_Pass]]] = []
        for is_swept, group in zip(ways.is_swept, ways.groups, strict=True):
            passes = []
            for level in group:
                low, high = int(begin[level.first_place]), int(begin[level.stop_place])
                if low == high:
                    continue
                slot = order[low:high]
                mine = count[level.first_place : level.stop_place]
                used = np.flatnonzero(mine)
                stations = ways.station_of_place[level.first_place + used]
                station_of = np.repeat(np.arange(len(used)), mine[used])
                delays = self.state.stations.delay_ps[stations]
                delay_ps = int(delays[0]) if (delays == delays[0]).all() else np.repeat(delays, mine[used])
                low_bits = (station_of << (self.slot_bits + self.time_bits)) + slot
                first = begin[level.first_place + used] - low
                work_ps = self._equal_work_ps(level, slot) if is_swept else None
                free_ps = np.maximum(self.state.free_ps[stations] - self.begin_ps, 0)
                total_ps = int(work_ps[-1] if work_ps is not None else self.prices.service_ps(slot).sum())
                fits = int(free_ps.max()) + total_ps + self.span_ps < (1 << self.time_bits) - 1
                is_plain = not self.state.is_special[stations].any()
                each = _Pass(
                    level, low_bits, first, mine[used], stations, delay_ps, slot, work_ps, free_ps, fits, is_plain
                )
                passes.append(each)
            if passes:
                self.groups.append((is_swept, passes))
        if self.chain.shape[1]:
            self.groups = [(True, [each for _, group in self.groups for each in group])]

    def _equal_work_ps(self, level: Level, slot: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return 1, 2, 3 ... services, where all visits of a level take the same time."""
        of_row_ps, place = self.prices.of_row_ps, self.ways.place
        if of_row_ps is None:
            service = self.prices.service_ps(slot)
        else:
            service = of_row_ps[(place >= level.first_place) & (place < level.stop_place)]
        if (service != service[0]).any():
            return None
        work_ps: NDArray[np.int64] = np.arange(1, len(slot) + 1) * service[0]
        return work_ps

    def settle(self, most_sweeps: int | None = None) -> bool:
        """Sweep until no arrival before the window's end changes; raises ModelError where that never comes.

        Return False where it has not come after `most_sweeps`.
        """
        self._lay_out()
        for is_swept, group in self.groups:
            if not is_swept:
                for each in group:
                    self._sweep(each)
                continue
            # Each sweep settles at least the earliest visit that is not settled.
            for number in range(self.slots + 2):
                before = self.arrival_ps.copy() if number > self.slots else self.arrival_ps
                changed = [self._sweep(each) for each in group]
                if self.chain.shape[1]:
                    self.arrival_ps[self.first[self.chain[1]]] = self.left_ps()[self.chain[0]] + self.chain[2]
                self.sweeps += 1
                if not any(changed):
                    break
                if most_sweeps is not None and self.sweeps >= most_sweeps:
                    return False
            else:
                residual = int(np.abs(self.arrival_ps - before).max())
                raise ModelError(
                    f"queues: {self.sweeps} sweeps of the window from {self.begin_ps} ps left arrivals that still"
                    f" change by up to {residual} ps"
                )
        return True

    def _sweep(self, each: _Pass) -> bool:
        """Serve a level's visits in order of arrival; return whether any arrival had changed."""
        slot_bits, mask = self.slot_bits, (1 << self.slot_bits) - 1
        time_mask = (1 << self.time_bits) - 1
        arrival = self.arrival_ps.take(each.slot)
        np.minimum(arrival, self.span_ps, out=arrival)
        arrival <<= slot_bits
        arrival += each.low_bits
        key = arrival
        if each.key is not None and (key == each.key).all():
            return False
        key.sort(kind="stable")  # nearly sorted: station by station, and by arrival as of the sweep before
        each.key = key
        each.slot = slot = key & mask
        each.low_bits = key & ~(time_mask << slot_bits)
        placed = key >> slot_bits  # station | arrival: a later station lies beyond all times of those before
        if each.work_ps is not None:
            work = each.work_ps
            before = work - work[0]
        else:
            service = self.prices.service_ps(slot)
            work = np.cumsum(service)
            before = work - service
        if each.fits:
            placed -= before
            opened = (np.arange(len(each.first)) << self.time_bits) + each.free_ps - before.take(each.first)
            placed[each.first] = np.maximum(placed.take(each.first), opened)
            # The same as maximum, which takes five times as long where numpy uses AVX-512.
            departure = np.fmax.accumulate(placed)
            departure += work
            departure &= time_mask
        else:
            arrival = placed & time_mask
            departure = np.empty_like(arrival)
            starts = zip(each.first.tolist(), each.count.tolist(), each.free_ps.tolist(), strict=True)
            for low, count, free_ps in starts:
                rows = slice(low, low + count)
                departure[rows] = departures_of_one(arrival[rows], work[rows] - before[rows], free_ps)
        each.departure_ps = departure
        dropped = None if each.is_plain else self._exceptions(each, key, slot, departure)
        onward = departure + each.delay_ps
        if dropped is not None:
            assert self.dropped is not None
            self.dropped[slot] = dropped
            onward[dropped] = FAR_PS
        self._onward_ps[slot] = onward
        return True

    def _exceptions(
        self,
        each: _Pass,
        key: NDArray[np.int64],
        slot: NDArray[np.int64],
        departure: NDArray[np.int64],
    ) -> NDArray[np.bool_] | None:
        """Correct the departures of stations with several servers or a full queue; return who was dropped."""
        state = self.state
        is_several, is_limited = state.is_several[each.stations], state.is_limited[each.stations]
        if not (is_several.any() or is_limited.any()):
            return None
        arrival = (key >> self.slot_bits) & ((1 << self.time_bits) - 1)
        service = self.prices.service_ps(slot)
        dropped = np.zeros(len(key), np.bool_)
        suspect = is_several.copy()
        safe = np.zeros(len(suspect), np.int64)
        if is_limited.any():
            longest = np.maximum.reduceat(departure - service - arrival, each.first)
            state.see_services(each.stations, np.minimum.reduceat(service, each.first))
            safe = state.safe_wait_ps(each.stations, self.prices.largest_bytes)
            suspect |= is_limited & (longest > safe)
        for row in np.flatnonzero(suspect).tolist():
            station, low = int(each.stations[row]), int(each.first[row])
            high = low + int(each.count[row])
            high = low + int(np.searchsorted(arrival[low:high], self.span_ps))  # the others take no part
            rows = slice(low, high)
            size = self.prices.size_bytes(slot[rows]) if is_limited[row] else np.zeros(high - low, np.int64)
            free_ps, room = state.servers_free_ps(station) - self.begin_ps, state.room(station, self.begin_ps)
            if is_several[row]:
                departure[rows], dropped[rows], _ = serve(arrival[rows], service[rows], size, free_ps, room)
            else:
                departure[rows], dropped[rows] = serve_limited(
                    arrival[rows], service[rows], size, int(free_ps[0]), room, int(safe[row])
                )
            rest = slice(high, low + int(each.count[row]))
            departure[rest] = arrival[rest] + service[rest]
        return dropped if is_limited.any() else None

    def left_ps(self) -> NDArray[np.int64]:
        """When each packet's last delay is over, or it is dropped; not before the window's end where not settled."""
        left: NDArray[np.int64] = self.arrival_ps.take(self.exit)
        packet, slot = self.drops()
        left[packet] = self.arrival_ps[slot]
        return left

    def has_left(self) -> NDArray[np.bool_]:
        """Which packets have left, or surely will when their last delay is over."""
        has_left: NDArray[np.bool_] = self.arrival_ps.take(self.exit - 1) < self.span_ps
        has_left[self.drops()[0]] = True
        return has_left

    def drops(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The packets that were dropped, and in which slot."""
        slot = np.zeros(0, np.int64) if self.dropped is None else np.flatnonzero(self.dropped)
        return np.searchsorted(self.first, slot, side="right") - 1, slot

    def close(self) -> None:
        """Write what the stations are left with into their state."""
        for _, group in self.groups:
            for each in group:
                assert each.key is not None
                assert each.departure_ps is not None
                bound = (np.arange(len(each.first)) << self.time_bits) + self.span_ps
                stop = np.searchsorted(each.key, bound << self.slot_bits)
                served = np.flatnonzero(stop > each.first)
                plain = served[~self.state.is_special[each.stations[served]]]
                self.state.free_ps[each.stations[plain]] = each.departure_ps[stop[plain] - 1] + self.begin_ps
                special = served[self.state.is_special[each.stations[served]]]
                for row in special.tolist():
                    rows = slice(int(each.first[row]), int(stop[row]))
                    slot = each.key[rows] & ((1 << self.slot_bits) - 1)
                    departure = each.departure_ps[rows]
                    if self.dropped is not None:
                        slot, departure = slot[~self.dropped[slot]], departure[~self.dropped[slot]]
                    start = departure - self.prices.service_ps(slot)
                    self.state.served(
                        int(each.stations[row]),
                        start + self.begin_ps,
                        departure + self.begin_ps,
                        self.prices.size_bytes(slot),
                        self.begin_ps + self.span_ps,
                    )


def bits(slots: int, stations: int) -> tuple[int, int]:
    """How many bits of a sort key hold the slot and the time, where `stations` share a level."""
    slot_bits = max(slots, 1).bit_length()
    return slot_bits, 63 - slot_bits - stations.bit_length()
