"""A run whose clients wait for answers: their rounds through the queues, and who writes down what becomes of them."""

from __future__ import annotations

from collections.abc import Callable

from simnet.dataplane.queueing.closed_loop import ClosedQueues
from simnet.engine.closed_connections import ConnectionTable, refuse_memory
from simnet.engine.closed_loop import ClosedLoopClients, Round
from simnet.engine.closed_recorder import ClosedRecorder
from simnet.engine.connections import Sender
from simnet.engine.processes import Timeline, waiting_clients
from simnet.engine.queued_run import QueuedRun
from simnet.engine.recorder import Recorder
from simnet.model.recording import Recording
from simnet.model.scenario import Scenario
from simnet.model.workload import ClosedLoop
from simnet.workload.generation import Generator


class ClosedRun:
    """One scenario's clients, on the stations and recorders of its queues."""

    def __init__(
        self, scenario: Scenario, generator: Generator, sender: Sender, queued: QueuedRun, recorder: Recorder, seed: int
    ) -> None:
        loop = scenario.workload.arrivals
        assert isinstance(loop, ClosedLoop)
        refuse_memory(sender)
        self._queued, self._client_names, self._loop = queued, sender.callers.names, loop
        self._table = ConnectionTable(sender, queued.stations, generator, scenario.variant.choice, seed)
        self._queues = ClosedQueues(queued.stations.stations, queued.watched.observe)
        self._clients = ClosedLoopClients(self._table, self._queues, generator, seed)
        self._keeps_calls = scenario.record != "summary"
        self._recorder = ClosedRecorder(
            self._table, recorder, queued.recorder, queued.stations.stations, loop,
            warmup_ps=scenario.run.warmup_ps, keeps_calls=self._keeps_calls,
        )  # fmt: skip

    def run(self, progress: Callable[[int], None]) -> None:
        """Let the clients send until the run's duration is over, and every packet come to its end."""
        timeline: Timeline[Round] = Timeline()
        timeline.env.process(waiting_clients(timeline.env, self._clients, timeline.hand_on))
        for settled in timeline.windows():
            for served in self._recorder.add(settled):
                self._queued.recorder.add(served)
                progress(settled.until_ps)
        for served in self._recorder.hand_on(self._loop.until_ps, self._queues.finish()):
            self._queued.recorder.add(served)

    def amended(self, recording: Recording) -> Recording:
        """Return the recording with what only such a run has."""
        tables = {name: dict(columns) for name, columns in recording.tables.items()}
        self._recorder.amend(tables["flows"])
        if self._keeps_calls:
            tables["calls"] = self._recorder.calls.table(self._client_names, self._loop.connections_per_client)
        return Recording(tables, {**recording.totals, **self._recorder.calls.totals})
