"""What clients who wait will probably send before some time: requests, connections, and a first guess of when.

The guess is that no packet waits anywhere, so it has what may be sent and perhaps more; and that all answers come.
Transmission k of slot s has the packet id k * slots + s: of packets that arrive at the same instant, the one with fewer
before it in its slot goes first, then the lower slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.closed_loop import Sends
from simnet.engine.closed_connections import ConnectionTable
from simnet.model.workload import ClosedLoop
from simnet.workload.closed_loop import requests_of
from simnet.workload.generation import Generator

NEVER = np.int64(1 << 62)
THINKING, WAITING, DONE = range(3)  # WAITING: for the answer to transmission `number`
_REQUESTS = 1 << 16  # drawn at a time
_DEEPEST = 256  # transmissions of a slot in a plan

Numbers = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Slots:
    """Where each slot stands: at the transmission that it waits for, or that comes next. Shapes [slots]."""

    phase: NDArray[np.int8]
    number: Numbers  # of the transmission in its slot
    request: Numbers  # that it carries
    tries: Numbers  # of that request before it
    due_ps: Numbers  # thinking: when it is sent
    sent_ps: Numbers  # waiting: when it was
    asked_ps: Numbers  # when the first try of its request was sent
    ordinal: Numbers  # of the connection that is open, or was last; -1: none yet
    used: Numbers  # transmissions on it
    opened_ps: Numbers  # when it was
    is_open: NDArray[np.bool_]  # it may be used again
    least_ps: Numbers  # waiting: when the answer is back if nothing waits anywhere

    @classmethod
    def at_start(cls, due_ps: Numbers, until_ps: int) -> Slots:
        """Return slots that send their first requests at `due_ps`, those before `until_ps`."""
        n = len(due_ps)
        phase = np.where(due_ps < until_ps, THINKING, DONE).astype(np.int8)
        number, request, tries, sent, asked, used, opened, least = np.zeros((8, n), np.int64)
        ordinal, is_open = np.full(n, -1), np.zeros(n, np.bool_)
        return cls(phase, number, request, tries, due_ps, sent, asked, ordinal, used, opened, is_open, least)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Transmissions that may be sent, slot by slot and in order within each."""

    slot: Numbers
    depth: Numbers  # how many of the slot come before it in the plan
    number: Numbers
    request: Numbers
    tries: Numbers
    ordinal: Numbers
    on_connection: Numbers  # number in its connection
    is_too_old: NDArray[np.bool_]  # it opens a connection only because the one before has reached its age
    live: Numbers  # row of its connection in the table
    least_ps: Numbers  # there and back if nothing waits anywhere
    request_bytes: Numbers
    reply_bytes: Numbers
    sends: Sends

    def __len__(self) -> int:
        return len(self.slot)

    def opened_ps(self, start_ps: Numbers, of_slot_ps: Numbers) -> tuple[Numbers, Numbers]:
        """Return when the connection of each transmission was opened, and the one that the slot had before it.

        `start_ps`: when the transmissions are sent; `of_slot_ps`: when the connections that slots have were opened.
        """
        row = np.arange(len(self))
        opener = np.maximum.accumulate(np.where(self.on_connection == 0, row, -1))
        here = opener >= row - self.depth
        opened_ps = np.where(here, start_ps[opener], of_slot_ps[self.slot])
        before_ps = np.where(self.depth == 0, of_slot_ps[self.slot], np.roll(opened_ps, 1))
        return opened_ps, before_ps


class Planner:
    """Draws what slots send, some way ahead."""

    def __init__(self, table: ConnectionTable, generator: Generator, seed: int, slots: Slots) -> None:
        loop = generator.workload.arrivals
        assert isinstance(loop, ClosedLoop)
        self.table, self.generator, self.seed, self.slots, self.loop = table, generator, seed, slots, loop
        self._every = np.arange(table.slots)
        self._depth = 4
        self._requests = requests_of(generator, seed, slots.request, self._width())
        table.look_ahead(slots.ordinal, np.zeros(table.slots, np.int64))

    def _width(self) -> int:
        return max(_REQUESTS // self.table.slots, 2 * self._depth + 8)

    def _draw(self) -> None:
        """Know the requests of each slot from its present one to the last that a plan may have, and one more."""
        needed = int((self.slots.request - self._requests.first).max(initial=0)) + self._depth + 3
        if needed > self._requests.width:
            self._requests = requests_of(self.generator, self.seed, self.slots.request, self._width())

    def think_ps(self, slot: Numbers, request: Numbers) -> Numbers:
        """Return the time between these requests of slots and the ones before: int64[n], a new array."""
        return self._requests.think_ps.ravel().take(self._row(slot, request))

    def _row(self, slot: Numbers, request: Numbers) -> Numbers:
        return slot * self._requests.width + request - self._requests.first[slot]

    def plan(self, now_ps: int, end_ps: int) -> Plan:
        """Return what slots may send before `end_ps`, none of it sent yet at `now_ps`."""
        slots, live = self.slots, self.table.live
        self._draw()
        is_waiting = slots.phase == WAITING
        request = slots.request + is_waiting
        held = self.table.rows(self._every, np.maximum(slots.ordinal, 0))
        begins_ps = np.maximum(slots.least_ps, now_ps) + self.think_ps(self._every, request)
        begins_ps = np.where(is_waiting, begins_ps, slots.due_ps)
        active = (slots.phase != DONE) & (begins_ps < end_ps) & (~is_waiting | live.is_answered[held])
        slot = np.flatnonzero(active)
        round_trip_ps = live.least_ps[held[slot]]
        while True:
            guess_ps = self._guesses(slot, request[slot], begins_ps[slot], round_trip_ps)
            if self._depth >= _DEEPEST or not (guess_ps[:, -1] < end_ps).any():
                break
            self._depth *= 2
            self._draw()
        count = (guess_ps < end_ps).sum(axis=1)
        if slot.size and int(count.max()) < self._depth // 2:
            self._depth -= 1
        row = np.repeat(np.arange(slot.size), count)
        depth = np.arange(len(row)) - (np.cumsum(count) - count)[row]
        return self._made(slot[row], depth, guess_ps[row, depth], *self._connections(slot, guess_ps, row, depth))

    def single(self, due: Numbers) -> Plan:
        """Return the next transmissions of these slots, which are thinking."""
        self._draw()
        depth = np.zeros(len(due), np.int64)
        guess_ps = self.slots.due_ps[due]
        connections = self._connections(due, guess_ps[:, None], np.arange(len(due)), depth)
        return self._made(due, depth, guess_ps, *connections, is_cut=False)

    def _guesses(self, slot: Numbers, request: Numbers, begins_ps: Numbers, round_trip_ps: Numbers) -> Numbers:
        """Return when the next transmissions of slots are sent if nothing waits, int64[slot, depth]."""
        at = self._row(slot, request)[:, None] + np.arange(self._depth)
        step_ps = self._requests.service_ps.ravel().take(at[:, :-1])
        step_ps += self._requests.think_ps.ravel().take(at[:, 1:])
        step_ps += round_trip_ps[:, None]
        return np.cumsum(np.concatenate([begins_ps[:, None], step_ps], axis=1), axis=1)

    def _connections(
        self, slot: Numbers, guess_ps: Numbers, row: Numbers, depth: Numbers
    ) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
        """Return the ordinal of each transmission's connection, its number there, and whether age alone opened it."""
        slots, most, age_ps = self.slots, self.loop.requests_per_connection, self.loop.max_age_ps
        ordinal, is_open = slots.ordinal[slot], slots.is_open[slot]
        used = np.where(is_open, slots.used[slot], most)
        if age_ps is None:
            place = used[row] + depth
            return ordinal[row] + place // most, place % most, np.zeros(len(row), np.bool_)
        opened_ps = slots.opened_ps[slot].copy()
        ordinals, numbers = np.empty_like(guess_ps), np.empty_like(guess_ps)
        too_old = np.zeros(guess_ps.shape, np.bool_)
        for column in range(guess_ps.shape[1]):
            is_full = used >= most
            too_old[:, column] = ~is_full & (guess_ps[:, column] - opened_ps >= age_ps)
            opens = is_full | too_old[:, column]
            ordinal, used = ordinal + opens, np.where(opens, 1, used + 1)
            opened_ps = np.where(opens, guess_ps[:, column], opened_ps)
            ordinals[:, column], numbers[:, column] = ordinal, used - 1
        return ordinals[row, depth], numbers[row, depth], too_old[row, depth]

    def _made(
        self,
        slot: Numbers,
        depth: Numbers,
        guess_ps: Numbers,
        ordinal: Numbers,
        on_connection: Numbers,
        too_old: NDArray[np.bool_],
        *,
        is_cut: bool = True,
    ) -> Plan:
        """Make a plan of transmissions; `is_cut`: up to a connection that does not answer or ends where it begins."""
        slots, table = self.slots, self.table
        furthest = slots.ordinal.copy()
        furthest[slot] = ordinal  # of equal indexes the last is assigned, the highest
        table.look_ahead(slots.ordinal, furthest)
        live = table.rows(slot, ordinal)
        if is_cut:
            ends = (table.live.first_way[live] < 0) | ~table.live.is_answered[live]
            if ends.any():
                before: Numbers = np.cumsum(ends) - ends
                kept = (before == before[np.arange(len(slot)) - depth]) & (table.live.first_way[live] >= 0)
                slot, depth, guess_ps, live = slot[kept], depth[kept], guess_ps[kept], live[kept]
                ordinal, on_connection, too_old = ordinal[kept], on_connection[kept], too_old[kept]
        is_waiting = slots.phase[slot] == WAITING
        request = slots.request[slot] + is_waiting + depth
        number = slots.number[slot] + is_waiting + depth
        at = self._row(slot, request)
        requests = self._requests
        service_ps = requests.service_ps.ravel().take(at)
        request_bytes, reply_bytes = requests.request_bytes.ravel().take(at), requests.reply_bytes.ravel().take(at)
        packet = number * table.slots + slot
        sends = Sends(
            packet=packet,
            after=np.where(is_waiting | (depth > 0), packet - table.slots, -1),
            time_ps=guess_ps,
            between_ps=requests.think_ps.ravel().take(at),
            way=np.where(on_connection > 0, table.live.later_way[live], table.live.first_way[live]).astype(np.int64),
            request_bytes=request_bytes,
            reply_bytes=reply_bytes,
            drawn_ps=service_ps,
        )
        return Plan(
            slot=slot,
            depth=depth,
            number=number,
            request=request,
            tries=np.where(is_waiting | (depth > 0), 0, slots.tries[slot]),
            ordinal=ordinal,
            on_connection=on_connection,
            is_too_old=too_old,
            live=live,
            least_ps=table.live.least_ps[live] + service_ps,
            request_bytes=request_bytes,
            reply_bytes=reply_bytes,
            sends=sends,
        )
