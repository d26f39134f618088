"""Clients that wait for their answers: what each sends next, decided a round at a time.

A round is a window of time. What the clients will send in it is guessed (closed_plan.py): that answers come before
time-outs, on the connections they have. The queues are tried with that, the times they give are held against the guess,
and the round ends before the first thing that was guessed wrong; by then it is known. So every number is that of an
event-by-event simulation, whatever the rounds; only how many there are depends on the guesses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simnet import random_streams
from simnet.dataplane.queueing.closed_loop import ClosedQueues, Trial
from simnet.dataplane.queueing.stations import Left
from simnet.engine.closed_connections import ConnectionTable
from simnet.engine.closed_plan import DONE, NEVER, THINKING, WAITING, Plan, Planner, Slots
from simnet.model.workload import ClosedLoop
from simnet.workload.closed_loop import backoffs
from simnet.workload.distributions import mean_of
from simnet.workload.generation import Generator
from simnet.workload.keep_alive import FIRST_REQUEST

_ROUND = 16_384  # transmissions in a round, at most about
_WORTH = 10_000  # a round of n slots has about sqrt(_WORTH / n) of each: more take more sweeps, fewer more rounds

Numbers = NDArray[np.int64]
Columns = dict[str, Numbers]


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """What a round has settled."""

    sent: Columns  # a transmission a row: see `_columns`
    left: Left
    until_ps: int  # when it ended; later ones were sent in vain, and are told early


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """Transmissions as a trial shows them: those that slots wait for, then those of the plan."""

    slot: Numbers
    request: Numbers
    tries: Numbers
    start_ps: Numbers
    left_ps: Numbers
    gives_up_ps: Numbers
    has_begun: NDArray[np.bool_]
    is_answered: NDArray[np.bool_]  # in time
    is_refused: NDArray[np.bool_]  # likewise
    is_over: NDArray[np.bool_]  # it is known what becomes of it


@dataclass(slots=True, eq=False)
class _Pace:
    """How far a round goes: as far as its guesses hold, and as many transmissions as are worth solving at once."""

    span_ps: int
    wanted: int
    rate: float = field(default=0.0)  # transmissions a picosecond

    def learn(self, transmissions: int, span_ps: int, *, was_cut: bool) -> None:
        """Take note of a round of so many transmissions in so much time."""
        self.rate = transmissions / max(span_ps, 1)
        if was_cut:
            self.span_ps = max(2 * span_ps, 1)
            return
        wanted = self.wanted / self.rate if self.rate else 2.0 * span_ps
        self.span_ps = max(1, int(min(wanted, 1.5 * self.span_ps)))


class ClosedLoopClients:
    """All slots of a run, advanced round by round until the run's duration is over."""

    def __init__(self, table: ConnectionTable, queues: ClosedQueues, generator: Generator, seed: int) -> None:
        loop = generator.workload.arrivals
        assert isinstance(loop, ClosedLoop)
        self.table, self.queues, self.generator, self.seed, self.loop = table, queues, generator, seed, loop
        self.now_ps = 0
        self.timeout_ps = NEVER if loop.timeout_ps is None else np.int64(loop.timeout_ps)
        mean_ps = mean_of(generator.gap.distribution)
        unit = random_streams.uniform(seed, FIRST_REQUEST, np.arange(table.slots, dtype=np.uint64))
        self.slots = Slots.at_start((unit * mean_ps).astype(np.int64), loop.until_ps)
        each = max(1.0, min(float(np.sqrt(_WORTH / table.slots)), 40.0))
        wanted = max(1, min(int(each * table.slots), _ROUND))
        self.pace = _Pace(max(1, int(mean_ps * min(1.0, wanted / table.slots))), wanted)
        self.planner = Planner(table, generator, seed, self.slots)

    @property
    def is_done(self) -> bool:
        """Whether nothing more will be sent."""
        return self.now_ps >= self.loop.until_ps or bool((self.slots.phase == DONE).all())

    def round(self) -> Round:
        """Advance the clock by a round; return what was sent in it, and what has left the network."""
        slots, until_ps = self.slots, self.loop.until_ps
        end_ps = min(self.now_ps + self.pace.span_ps, until_ps)
        if not (slots.phase == WAITING).any():  # nothing is decided before somebody sends
            first_ps = int(slots.due_ps[slots.phase == THINKING].min(initial=until_ps))
            end_ps = min(max(end_ps, first_ps + self.pace.span_ps), until_ps)
        sent = self._send_in_vain(end_ps) if self.table.some_end_at_once else []
        plan = self.planner.plan(self.now_ps, end_ps)
        trial = self.queues.attempt(plan.sends, self.table.itineraries, end_ps)
        right_ps = self._first_wrong_ps(plan, trial, self._outcome(plan, trial))
        was_cut = right_ps < trial.until_ps
        trial.cut(right_ps)
        outcome = self._outcome(plan, trial)
        left = self.queues.settle(trial)
        begun = np.flatnonzero(outcome.has_begun[len(outcome.slot) - len(plan) :])
        self.pace.learn(len(begun), trial.until_ps - self.now_ps, was_cut=was_cut)
        self._begin(plan, outcome, begun, sent)
        self.now_ps = trial.until_ps
        names = sent[0].keys()
        return Round({name: np.concatenate([part[name] for part in sent]) for name in names}, left, self.now_ps)

    # --- what the queues say -----------------------------------------------------------------------

    def _outcome(self, plan: Plan, trial: Trial) -> _Outcome:
        slots, table = self.slots, self.table
        waiting = np.flatnonzero(slots.phase == WAITING)
        slot = np.concatenate([waiting, plan.slot])
        ids = np.concatenate([slots.number[waiting] * table.slots + waiting, plan.sends.packet])
        live = np.concatenate([table.rows(waiting, slots.ordinal[waiting]), plan.live])
        if trial.window is None:  # nothing arrives anywhere before the round's end
            none = np.zeros(len(slot), np.bool_)
            left_ps, has_left, is_dropped = np.full(len(slot), NEVER), none, none
            start_ps = np.concatenate([slots.sent_ps[waiting], np.full(len(plan), NEVER)])
        else:
            row = trial.rows_of(ids)
            left_ps, has_left, is_dropped = trial.left_ps[row], trial.has_left[row], trial.is_dropped[row]
            start_ps = trial.start_ps[row]
        gives_up_ps = self._gives_up_ps(start_ps)
        in_time = has_left & ~is_dropped & (left_ps <= gives_up_ps)
        is_answered, is_refused = in_time & table.live.is_answered[live], in_time & table.live.is_refused[live]
        return _Outcome(
            slot=slot,
            request=np.concatenate([slots.request[waiting], plan.request]),
            tries=np.concatenate([slots.tries[waiting], plan.tries]),
            start_ps=start_ps,
            left_ps=left_ps,
            gives_up_ps=gives_up_ps,
            has_begun=start_ps < trial.until_ps,
            is_answered=is_answered,
            is_refused=is_refused,
            is_over=has_left | (gives_up_ps < trial.until_ps),
        )

    def _gives_up_ps(self, start_ps: Numbers) -> Numbers:
        return np.minimum(start_ps, NEVER - self.timeout_ps) + self.timeout_ps

    def _next_ps(self, outcome: _Outcome, rows: NDArray[np.intp]) -> Numbers:
        """Return when the slot of each of these transmissions sends again, as things stand; NEVER if it is stuck."""
        slot, request, tries = outcome.slot[rows], outcome.request[rows], outcome.tries[rows]
        wait_ps = self.planner.think_ps(slot, request + 1)
        again = np.flatnonzero(~outcome.is_answered[rows] & (tries < self.loop.retries))
        if again.size:
            assert self.generator.backoff is not None
            wait_ps[again] = backoffs(self.generator.backoff, self.seed, slot[again], request[again], tries[again] + 1)
        is_heard = outcome.is_answered[rows] | outcome.is_refused[rows]
        known_ps = np.where(is_heard, outcome.left_ps[rows], outcome.gives_up_ps[rows])
        return np.where(known_ps >= NEVER, NEVER, known_ps + wait_ps)

    def _first_wrong_ps(self, plan: Plan, trial: Trial, outcome: _Outcome) -> int:
        """Return the time from which on the plan is not what happens: all before is right."""
        waiting = len(outcome.slot) - len(plan)
        follower = np.full(len(outcome.slot), -1)  # row of what the plan lets follow
        chained = np.flatnonzero(plan.sends.after >= 0)
        first = chained[plan.depth[chained] == 0]
        number = np.full(self.table.slots, -1)
        number[outcome.slot[:waiting]] = np.arange(waiting)
        follower[number[plan.slot[first]]] = waiting + first
        rest = waiting + chained[plan.depth[chained] > 0]
        follower[rest - 1] = rest
        wrong_ps = trial.until_ps
        begun = outcome.has_begun
        rows = np.flatnonzero(begun & outcome.is_over & ~(outcome.is_answered & (follower >= 0)))
        if rows.size:
            wrong_ps = min(wrong_ps, int(self._next_ps(outcome, rows).min()))
            guessed = follower[rows]
            wrong_ps = min(wrong_ps, int(outcome.start_ps[guessed[guessed >= 0]].min(initial=wrong_ps)))
        if self.loop.max_age_ps is not None and len(plan):
            start_ps = outcome.start_ps[waiting:]
            opened_ps, before_ps = plan.opened_ps(start_ps, self.slots.opened_ps)
            too_old = start_ps - opened_ps >= self.loop.max_age_ps
            too_young = start_ps - before_ps < self.loop.max_age_ps
            is_wrong = begun[waiting:] & (too_old | (plan.is_too_old & too_young))
            wrong_ps = min(wrong_ps, int(start_ps[is_wrong].min(initial=wrong_ps)))
        return wrong_ps

    # --- what follows from it ----------------------------------------------------------------------

    def _begin(self, plan: Plan, outcome: _Outcome, begun: NDArray[np.intp], sent: list[Columns]) -> None:
        """Let these rows of the plan have been sent, and decide what every slot does that knows its outcome."""
        slots, table = self.slots, self.table
        waiting = len(outcome.slot) - len(plan)
        start_ps, slot = outcome.start_ps[waiting:], plan.slot[begun]
        opened_ps, _ = plan.opened_ps(start_ps, slots.opened_ps)
        asked_ps = np.where(plan.tries[begun] == 0, start_ps[begun], slots.asked_ps[slot])
        sent.append(self._columns(plan, begun, start_ps[begun], asked_ps, at_once=False))
        current = np.full(table.slots, -1)
        current[outcome.slot[:waiting]] = np.arange(waiting)
        current[slot] = waiting + begun  # of equal indexes the last is assigned: the slot's last transmission
        slots.phase[slot] = WAITING
        for name, column in (
            ("number", plan.number), ("request", plan.request), ("tries", plan.tries), ("ordinal", plan.ordinal),
            ("used", plan.on_connection + 1), ("sent_ps", start_ps), ("opened_ps", opened_ps),
            ("least_ps", start_ps + plan.least_ps),
        ):  # fmt: skip
            getattr(slots, name)[slot] = column[begun]
        slots.asked_ps[slot] = asked_ps
        slots.is_open[slot] = True
        rows = current[current >= 0]
        rows = rows[outcome.is_over[rows]]
        self._decide(outcome, rows, self._next_ps(outcome, rows))

    def _decide(self, outcome: _Outcome, rows: NDArray[np.intp], next_ps: Numbers) -> None:
        """Let the slots of these transmissions go on: think, try again, or be done."""
        slots, slot = self.slots, outcome.slot[rows]
        is_answered = outcome.is_answered[rows]
        tries_again = ~is_answered & (outcome.tries[rows] < self.loop.retries)
        slots.number[slot] += 1
        slots.request[slot] += ~tries_again
        slots.tries[slot] = np.where(tries_again, outcome.tries[rows] + 1, 0)
        slots.is_open[slot] &= is_answered
        slots.due_ps[slot] = next_ps
        slots.phase[slot] = np.where(next_ps < self.loop.until_ps, THINKING, DONE)

    def _send_in_vain(self, end_ps: int) -> list[Columns]:
        """Send what is due and gets no further than its sender: it meets no queue, so its outcome is known at once."""
        slots = self.slots
        sent: list[Columns] = []
        while True:
            due = np.flatnonzero((slots.phase == THINKING) & (slots.due_ps < end_ps))
            plan = self.planner.single(due)
            vain = np.flatnonzero(self.table.live.first_way[plan.live] < 0)
            if not vain.size:
                return sent
            slot, start_ps = plan.slot[vain], slots.due_ps[due][vain]
            asked_ps = np.where(plan.tries[vain] == 0, start_ps, slots.asked_ps[slot])
            sent.append(self._columns(plan, vain, start_ps, asked_ps, at_once=True))
            slots.asked_ps[slot], slots.opened_ps[slot] = (
                asked_ps,
                np.where(plan.on_connection[vain] == 0, start_ps, slots.opened_ps[slot]),
            )
            slots.ordinal[slot], slots.used[slot] = plan.ordinal[vain], plan.on_connection[vain] + 1
            none = np.zeros(len(slot), np.bool_)
            outcome = _Outcome(
                slot, plan.request[vain], plan.tries[vain], start_ps, start_ps,
                self._gives_up_ps(start_ps), ~none, none, self.table.live.is_refused[plan.live[vain]],
                ~none,
            )  # fmt: skip
            rows = np.arange(len(slot))
            self._decide(outcome, rows, self._next_ps(outcome, rows))

    def _columns(
        self, plan: Plan, rows: NDArray[np.intp], start_ps: Numbers, asked_ps: Numbers, *, at_once: bool
    ) -> Columns:
        """Return transmissions as the recorder takes them."""
        live = self.table.live
        held = plan.live[rows]
        return {
            "packet": plan.number[rows] * self.table.slots + plan.slot[rows],
            "slot": plan.slot[rows],
            "request": plan.request[rows],
            "tries": plan.tries[rows],
            "block": live.block[held],
            "row": live.row[held],
            "number": plan.on_connection[rows],
            "sent_ps": start_ps,
            "asked_ps": asked_ps,
            "size_bytes": plan.request_bytes[rows],
            "reply_bytes": plan.reply_bytes[rows],
            "at_once": np.full(len(rows), at_once, np.int64),
        }
