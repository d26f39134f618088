"""The SimPy processes: each waits, calls one pure function, and hands on what that returns.

Nothing is decided here, so that every decision can be tested without a clock. SimPy's time is int picoseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

import simpy

from simnet.engine.closed_loop import ClosedLoopClients, Round
from simnet.engine.targets import Targets
from simnet.model.flows import FlowBatch
from simnet.model.scenario import RunSpec
from simnet.model.workload import EntryChoice
from simnet.workload import generation

Handed = TypeVar("Handed")


def client_population(
    env: simpy.Environment,
    workload: generation.Generator,
    run: RunSpec,
    choice: EntryChoice,
    targets: Targets,
    seed: int,
    hand_on: Callable[[FlowBatch], None],
) -> Generator[simpy.Event, None, None]:
    """Start flows until the run's duration is over, a batch at a time; wake up when the last of a batch has started."""
    state = generation.start_of_run(workload.workload)
    limit = generation.flows_at_a_time(workload, run.window_flows)
    while True:
        flows, state = generation.flows_in_window(
            workload,
            seed,
            state,
            until_ps=run.duration_ps,
            limit=limit,
            choice=choice,
            target_count=len(targets.names),
            fixed_target=targets.fixed,
        )
        if len(flows):
            hand_on(flows)
            yield env.timeout(int(flows.start_ps[-1]) - env.now)
        if len(flows) < limit:
            return


def waiting_clients(
    env: simpy.Environment, clients: ClosedLoopClients, hand_on: Callable[[Round], None]
) -> Generator[simpy.Event, None, None]:
    """Let clients send and hear until the run's duration is over; wake up when a round of answers is settled."""
    while not clients.is_done:
        settled = clients.round()
        yield env.timeout(clients.now_ps - env.now)
        hand_on(settled)


class Timeline(Generic[Handed]):
    """The clock of one run, and what its processes have handed on."""

    def __init__(self) -> None:
        self.env = simpy.Environment(initial_time=0)
        self._ready: deque[Handed] = deque()

    def hand_on(self, batch: Handed) -> None:
        """Take a batch that is complete."""
        self._ready.append(batch)

    def windows(self) -> Iterator[Handed]:
        """Run the clock and yield each batch as it becomes complete, in order of time, until nothing happens any
        more.
        """
        while True:
            while self._ready:
                yield self._ready.popleft()
            if self.env.peek() == float("inf"):
                return
            self.env.step()
