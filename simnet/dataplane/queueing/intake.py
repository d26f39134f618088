"""What was handed to a queue solver and has not left: packets by what is known of their beginning, and their ways."""

from __future__ import annotations

import numpy as np

from simnet.dataplane.queueing.columns import Columns, joined, none, rows
from simnet.dataplane.queueing.stations import Injected, Itineraries, Stations
from simnet.dataplane.queueing.ways import Ways, made_ready
from simnet.errors import ModelError

END_PS = np.iinfo(np.int64).max


class Intake:
    """Packets that have not left, in three groups; `way` of each is a row of `ways`."""

    def __init__(self, stations: Stations) -> None:
        self._stations = stations
        self._itineraries: Itineraries | None = None
        self._held: Itineraries | None = None  # what `ways` was made of: ways still in use, then the latest given
        self.ways: Ways | None = None
        self.flying = none()  # begun, or sure to begin at a known time
        self.waiting = none()  # not begun, in order of time from row `next` on
        self.next = 0
        self.chained = none()  # start after another, whose leaving is not known; in order of `after`
        self.now_ps = -END_PS  # nobody may start before

    def settled(self, until_ps: int) -> None:
        """Take note that everything before `until_ps` is settled; at the end, nobody may be left over."""
        self.now_ps = max(self.now_ps, until_ps)
        if until_ps == END_PS and len(self.chained["packet"]):
            raise ModelError(f"queues: packet {int(self.chained['after'][0])}, after which one starts, is not known")

    def take(self, injected: Injected, itineraries: Itineraries) -> None:
        """Take packets in, with their ways; raises ModelError where one is not to be had."""
        first_way = self.join_ways(itineraries)
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
            self.chained = joined([self.chained, rows(fresh, is_chained)])
            self.chained = rows(self.chained, np.argsort(self.chained["after"], kind="stable"))
            if (np.diff(self.chained["after"]) == 0).any():
                raise ModelError("queues: two packets start after the same one")
            if (self.chained["time_ps"] < 1).any():
                raise ModelError("queues: the time between a packet and the one after it must be positive")
            fresh = rows(fresh, ~is_chained)
        time_ps = fresh["time_ps"]
        if len(time_ps) and int(time_ps.min()) < self.now_ps:
            raise ModelError(f"queues: a packet starts at {int(time_ps.min())} ps, settled until {self.now_ps} ps")
        if self.next < len(self.waiting["packet"]):
            fresh = joined([rows(self.waiting, slice(self.next, None)), fresh])
        time_ps = fresh["time_ps"]
        if (time_ps[1:] < time_ps[:-1]).any():
            fresh = rows(fresh, np.argsort(time_ps, kind="stable"))
        self.waiting, self.next = fresh, 0

    def join_ways(self, itineraries: Itineraries) -> int:
        """Add ways to those still in use; return the number of the first."""
        if itineraries is self._itineraries and self.ways is not None:
            return len(self.ways.start) - len(itineraries)
        waiting = rows(self.waiting, slice(self.next, None))
        self.waiting, self.next = waiting, 0
        holders = [self.flying, waiting, self.chained]
        used = np.unique(np.concatenate([each["way"] for each in holders]))
        for each in holders:
            each["way"] = np.searchsorted(used, each["way"])
        joined = itineraries if self._held is None else self._held.take(used).followed_by(itineraries)
        self.ways = made_ready(joined, self._stations)
        self._held, self._itineraries = joined, itineraries
        return len(used)
