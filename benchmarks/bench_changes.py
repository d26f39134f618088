"""What 100 table changes cost: packets a second of CPU time of the same traffic with and without them.

Run: python benchmarks/bench_changes.py [PACKETS]. One core, some minutes. Prints and writes
benchmarks/results/changes.json: for each case the median over paired runs of (packets a second with changes) over
(those without), in this process and by turns. The control plane's own time and the compilation of the later tables
stand apart. The recording of the events' blast radius is part of what is measured.

The cases differ in how much of a flow's life meets changes: `changes_in_life` counts those of any table (mean), and
`more_stretches` those that touch the flow's own way or catch a packet under way (mean number of later stretches a
flow). The latter decide: each is a walk of its own, dearer than the flow's first. The target is that of
the cases in which changes are far apart as flows live, as in any cluster of which 100 tables change in five minutes.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy is loaded
    os.environ.setdefault(library, "1")

# ruff: noqa: E402

import numpy as np

from simnet.config.experiment import load_experiment
from simnet.engine.connections import Connections
from simnet.engine.network import CompiledCluster, compile_cluster
from simnet.engine.recorder import Recorder
from simnet.engine.simulate import history_of, prepare, simulate
from simnet.model.calico import Wiring
from simnet.model.events import Event, EventKind
from simnet.model.flows import FlowBatch, PacketBatch
from simnet.model.recording import Recording
from simnet.model.scenario import Scenario
from simnet.model.workload import Constant, Exponential, Poisson
from simnet.units import PS_PER_MS, PS_PER_S

ROOT = Path(__file__).parents[1]
RUN_S, REPEATS, CHANGES = 300, 5, 100
TARGET = 0.9


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of traffic under one kind of events."""

    name: str
    wiring: Wiring
    stops: int  # of BGP daemons, node after node, spread over the run
    packets: int  # a flow
    gap_ms: float
    variant: str = "load-balancer-cluster"
    has_target: bool = True


CASES = (
    # S1: only the switch learns routes, 2 changes a stop, at instants of their own. S4: the nodes do too.
    Case("10 packets, switch", Wiring.S1, 50, 10, 1.0),
    Case("100 packets, switch", Wiring.S1, 50, 100, 1.0),
    Case("10 packets, switch and nodes", Wiring.S4, 10, 10, 1.0),
    Case("100 packets, switch and nodes", Wiring.S4, 10, 100, 1.0),
    Case("100 packets, 1 s", Wiring.S1, 50, 100, 10.0, has_target=False),
    Case("100 packets, 3 s", Wiring.S1, 50, 100, 30.0, has_target=False),
    Case("100 packets, 3 s, one pod", Wiring.S1, 50, 100, 30.0, "pod", has_target=False),
)


def scenario_of(case: Case, packets: float) -> Scenario:
    """About that many packets of the case's traffic, in a run with its events."""
    experiment = load_experiment(str(ROOT / "experiments" / "node-failure.yaml"))
    scenario = next(run.scenario for run in experiment.runs if run.variant == case.variant)
    spacing_ps = RUN_S * PS_PER_S // (case.stops + 1)
    stops = [
        Event((k + 1) * spacing_ps, EventKind.BGP_STOPS, (f"node-{k % 4 + 1}",), (k + 1) * spacing_ps + spacing_ps // 3)
        for k in range(case.stops)
    ]
    gap = Exponential(case.gap_ms * PS_PER_MS)
    workload = replace(
        scenario.workload,
        arrivals=Poisson(packets / case.packets / RUN_S),
        shape=replace(scenario.workload.shape, packet_count=Constant(case.packets), gap_ps=gap),
    )
    calico = replace(scenario.cluster.calico, wiring=case.wiring)
    return replace(
        scenario,
        cluster=replace(scenario.cluster, calico=calico),
        workload=workload,
        events=tuple(stops),
        run=replace(scenario.run, duration_ps=RUN_S * PS_PER_S),
    )


def timed(scenario: Scenario, compiled: CompiledCluster) -> tuple[float, Recording]:
    """Packets a second of CPU time."""
    began = time.process_time()
    recording = simulate(scenario, seed=1, compiled=compiled)
    return recording.totals["sent"] / (time.process_time() - began), recording


def later_stretches(scenario: Scenario, compiled: CompiledCluster) -> int:
    """How many stretches of flows come after their first ones, in a run that is not timed."""
    add, counted = Recorder.add, [0]

    def counting(recorder: Recorder, flows: FlowBatch, packets: PacketBatch, connections: Connections) -> None:
        counted[0] += int(np.count_nonzero(connections.sent_before))
        add(recorder, flows, packets, connections)

    Recorder.add = counting  # type: ignore[method-assign]
    try:
        simulate(scenario, seed=1, compiled=compiled)
    finally:
        Recorder.add = add  # type: ignore[method-assign]
    return counted[0]


def measure(case: Case, packets: float) -> dict[str, object]:
    """The figures of one case."""
    scenario = scenario_of(case, packets)
    steady = prepare(replace(scenario, events=()), seed=1)
    began = time.process_time()
    history = history_of(scenario, steady.cluster, seed=1)
    controlled = time.process_time()
    assert history is not None
    assert len(history.fibs) >= CHANGES, f"{case.name}: only {len(history.fibs)} changes"
    changing = compile_cluster(steady.cluster, scenario.cluster, seed=1, history=history)
    compiled = time.process_time()
    ratios = []
    timed(scenario, steady)  # the first run of a size pays for the memory
    for _ in range(REPEATS):
        without, _ = timed(scenario, steady)
        with_changes, recording = timed(scenario, changing)
        ratios.append(with_changes / without)
    instants_ps = np.array([change.time_ps for change in history.fibs])  # ascending
    stretches = later_stretches(scenario, changing)
    flows = recording.tables["flows"]
    lived = np.searchsorted(instants_ps, flows["end_ps"]) - np.searchsorted(instants_ps, flows["start_ps"])
    return {
        "fib_changes": len(history.fibs),
        "boxes_changed": len({change.device for change in history.fibs}),
        "packets": recording.totals["sent"],
        "changes_in_life": round(float(lived.mean()), 4),
        "more_stretches": round(stretches / len(lived), 4),
        "packets_per_second": round(with_changes),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_lowest": round(min(ratios), 3),
        "ratio_highest": round(max(ratios), 3),
        "control_plane_s": round(controlled - began, 3),
        "compile_s": round(compiled - controlled, 3),
    }


def main() -> None:
    """Measure, print, write."""
    packets = float(sys.argv[1]) if len(sys.argv) > 1 else 10e6
    cases: dict[str, dict[str, object]] = {}
    for case in CASES:
        cases[case.name] = measure(case, packets)
        print(f"{case.name:32} {cases[case.name]}", flush=True)
    result = {
        "cases": cases,
        "target_met": all(float(str(cases[case.name]["ratio"])) > TARGET for case in CASES if case.has_target),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    (ROOT / "benchmarks" / "results").mkdir(exist_ok=True)
    (ROOT / "benchmarks" / "results" / "changes.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
