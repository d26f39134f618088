"""One run's queues: its stations, the traffic through them, and who writes down what becomes of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet.engine.connections import Sent
from simnet.engine.network import CompiledCluster
from simnet.engine.queue_recorder import QueueRecorder
from simnet.engine.queued_traffic import QueuedTraffic
from simnet.engine.sinks import PacketSink
from simnet.engine.station_recorder import StationRecorder
from simnet.engine.stations import stations_of
from simnet.model.recording import ColumnData
from simnet.model.scenario import Scenario
from simnet.workload import generation


class QueuedRun:
    """The queues of one scenario, from its connections to its tables."""

    def __init__(
        self,
        compiled: CompiledCluster,
        scenario: Scenario,
        generator: generation.Generator,
        seed: int,
        sink: PacketSink | None,
    ) -> None:
        workload, run = scenario.workload, scenario.run
        self.stations = stations = stations_of(compiled, scenario.cluster.cpu, workload.service)
        self.watched = StationRecorder(stations.stations, stations.names, duration_ps=run.duration_ps)
        self.recorder = QueueRecorder(
            compiled,
            stations.names,
            duration_ps=run.duration_ps,
            warmup_ps=run.warmup_ps,
            has_replies=workload.shape.reply_size_bytes is not None,
            sink=sink,
        )

        def service_ps(flow_id: NDArray[np.uint64], number: NDArray[np.uint64]) -> NDArray[np.int64]:
            return generation.service_times(generator, seed, flow_id, number)

        self._traffic = QueuedTraffic(compiled, stations, service_ps, observe=self.watched.observe)

    def add(self, sent: Sent) -> None:
        """Take connections with all their packets."""
        self._traffic.add(sent)

    def advance(self, until_ps: int) -> None:
        """Let time pass: no packet before `until_ps` will be added any more."""
        for served in self._traffic.advance(until_ps):
            self.recorder.add(served)

    def finish(self) -> None:
        """Let every packet come to its end."""
        for served in self._traffic.finish():
            self.recorder.add(served)

    def tables(self) -> dict[str, dict[str, ColumnData]]:
        """Return the tables that only a run with queues has."""
        return {"stations": self.watched.table(), **self.recorder.tables()}
