"""Queues whose packets start after others have left: a window is tried first, and settled as far as it holds.

A client sends its next request some time after the last one was answered. Which request that is, on which connection,
and whether the client has given up before, only the answer's time says; so whoever drives the clients guesses what they
will send, *attempts* a window with that, looks at the times, and *settles* the window up to the first guess that was
wrong. Everything before is exact, because nothing that happens depends on what comes later.

Modelled as in solver.py. A packet after one that was dropped never starts: what follows a loss is decided outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.columns import Columns, rows
from simnet.dataplane.queueing.solver import QueueNetwork
from simnet.dataplane.queueing.stations import Itineraries, Left
from simnet.dataplane.queueing.window import FAR_PS, Window, bits
from simnet.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class Sends:
    """Packets that may enter in a window. A packet that turns out not to is forgotten, and may be handed over again."""

    packet: NDArray[np.int64]  # [n] id, distinct; decides between equal arrival times
    after: NDArray[np.int64]  # [n] id of the packet that must have left; -1: none, `time_ps` is when it starts
    time_ps: NDArray[np.int64]  # [n] start; with `after` a guess, from which the search begins
    between_ps: NDArray[np.int64]  # [n] with `after`: from the other's leaving until the start, above 0
    way: NDArray[np.int64]  # [n] row of the Itineraries
    request_bytes: NDArray[np.int64]  # [n]
    reply_bytes: NDArray[np.int64]  # [n]
    drawn_ps: NDArray[np.int64]  # [n] service time of the visit that is DRAWN

    def __len__(self) -> int:
        return len(self.packet)


class Trial:
    """A window that was tried, and what would come of it, were all packets right that it has."""

    def __init__(self, window: ClosedWindow | None, begin_ps: int, until_ps: int) -> None:
        self.window, self.begin_ps, self.until_ps = window, begin_ps, until_ps
        none = np.zeros(0, np.int64)
        self.packet = none if window is None else window.packets["packet"]  # ids, ascending
        self.start_ps = none if window is None else window.packets["injected_ps"].copy()
        self.left_ps, self.has_left, self.is_dropped = none, none.astype(np.bool_), none.astype(np.bool_)
        if window is not None:
            later = window.chain[1]
            self.start_ps[later] = window.arrival_ps[window.first[later]] + begin_ps
            self._look()

    def _look(self) -> None:
        window = self.window
        assert window is not None
        self.left_ps = window.left_ps() + self.begin_ps
        self.has_left = window.has_left()
        self.is_dropped = np.zeros(len(self.packet), np.bool_)
        self.is_dropped[window.drops()[0]] = True

    def rows_of(self, packet: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the rows of packets that are in the window."""
        return np.searchsorted(self.packet, packet)

    def cut(self, until_ps: int) -> None:
        """Let the window end earlier: what arrives at that time or later has not happened."""
        if until_ps >= self.until_ps:
            return
        self.until_ps = until_ps
        if self.window is not None:
            self.window.cut(until_ps - self.begin_ps)
            self._look()


class ClosedQueues(QueueNetwork):
    """A network of queues for packets that follow on others."""

    def attempt(self, sends: Sends, itineraries: Itineraries, until_ps: int) -> Trial:
        """Try the window that ends at `until_ps` (or earlier, where its times do not fit); nothing is decided yet."""
        first_way = self._in.join_ways(itineraries) if len(sends) else 0
        flying = self._in.flying
        begin_ps = until_ps
        for times in (flying["time_ps"], sends.time_ps[sends.after < 0]):
            begin_ps = min(begin_ps, int(times.min(initial=until_ps)))
        begin_ps = max(begin_ps, self._in.now_ps)
        if begin_ps >= until_ps:
            return Trial(None, begin_ps, until_ps)
        packets = _with(flying, sends, first_way)
        later = np.flatnonzero((packets["after"] >= 0) & (packets["at"] == 0))  # whoever is under way has visited one
        before = np.searchsorted(packets["packet"], packets["after"][later])
        chain = np.stack([before, later, packets.pop("between_ps")[later]])
        packets["time_ps"] = np.maximum(packets["time_ps"], begin_ps)  # guesses too early
        assert self._in.ways is not None
        widest = max(level.stop_place - level.first_place for group in self._in.ways.groups for level in group)
        slots = int((self._in.ways.length[packets["way"]] - packets["at"] + 1).sum())
        until_ps = min(until_ps, begin_ps + (1 << bits(slots, widest)[1]) - 2)
        window = ClosedWindow(self._in.ways, self._state, packets, begin_ps, until_ps - begin_ps, chain)
        window.settle()
        return Trial(window, begin_ps, until_ps)

    def settle(self, trial: Trial) -> Left:
        """Make what has happened until the trial's end final, and return the packets whose leaving is settled."""
        self._in.now_ps = trial.until_ps
        if trial.window is None:
            return self._run(trial.until_ps)
        trial.window.close()
        left = self._leave(trial.window)
        self._in.flying = rows(self._in.flying, self._in.flying["at"] > 0)
        return left


class ClosedWindow(Window):
    """A window in which packets start after others."""

    def settle(self, most_sweeps: int | None = None) -> bool:
        """Sweep until no arrival before the window's end changes; raises ModelError where that never comes."""
        if not self.chain.shape[1]:
            return super().settle(most_sweeps)
        self._lay_out()
        passes = [each for _, group in self.groups for each in group]
        before, later, between = self.chain
        starts_at = self.first[later]
        for _ in range(2 * self.slots + 2):
            changed = [self._sweep(each) for each in passes]
            self.sweeps += 1
            left_ps = self.left_ps()
            left_ps[self.drops()[0]] = FAR_PS
            self.arrival_ps[starts_at] = np.minimum(left_ps[before] + between, FAR_PS)
            if not any(changed):
                return True
        raise ModelError(f"queues: {self.sweeps} sweeps of the window from {self.begin_ps} ps, and it does not rest")

    def cut(self, span_ps: int) -> None:
        """Let the window end earlier. Whatever came before that time depends on nothing that came after it."""
        self.span_ps = span_ps
        if self.dropped is not None:
            self.dropped &= self.arrival_ps < span_ps


def _with(flying: Columns, sends: Sends, first_way: int) -> Columns:
    """Return all packets of a window in order of id, with the time between each and the one before it."""
    zeros = np.zeros(len(sends), np.int64)
    fresh = dict.fromkeys(flying, zeros) | {
        "packet": sends.packet,
        "way": sends.way + first_way,
        "time_ps": sends.time_ps,
        "request_bytes": sends.request_bytes,
        "reply_bytes": sends.reply_bytes,
        "drawn_ps": sends.drawn_ps,
        "after": sends.after,
        "injected_ps": sends.time_ps,
        "turned_ps": zeros - 1,
    }
    held = len(flying["packet"])
    order = np.argsort(np.concatenate([flying["packet"], sends.packet]), kind="stable")
    packets = {name: np.concatenate([flying[name], fresh[name]])[order] for name in flying}
    packets["between_ps"] = np.concatenate([np.zeros(held, np.int64), sends.between_ps])[order]
    return packets
