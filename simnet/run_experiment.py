"""Run what an experiment asks for and is not there yet; where config, engine, results, analysis and plotting meet.

A run is written by whoever simulated it, whole or not at all, under an id that names its content. So the same call
after a kill, a Ctrl-C or a full disk goes on where the first one stopped, and the folder's tables are the same bytes in
the end.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from simnet import __version__
from simnet.analysis.measures import measure_run
from simnet.analysis.result import Result
from simnet.config.digests import digest_of
from simnet.engine.executor import Failed, run_all
from simnet.engine.network import CompiledCluster
from simnet.engine.simulate import events_of, prepare, simulate
from simnet.errors import SimnetError
from simnet.model.recording import EVENT_TABLES, QUEUE_TABLES
from simnet.model.scenario import Experiment, Placement, PlannedRun, Scenario
from simnet.results import store
from simnet.results.frames import SweepValue
from simnet.results.store import RunDescription, RunWriter
from simnet.results.topology import topology_of

_ALWAYS = ("load", "hops", *QUEUE_TABLES, *EVENT_TABLES)
KEPT = {"summary": _ALWAYS, "flows": ("flows", "calls", *_ALWAYS), "packets": ("flows", "calls", *_ALWAYS)}
FAILURES = "failures.json"


class RunsFailed(SimnetError):
    """Some runs of an experiment failed; the others are in the folder. `failures` tells which and why."""

    def __init__(self, failures: tuple[Failure, ...]) -> None:
        self.failures = failures
        super().__init__(failures)

    def __str__(self) -> str:
        return "\n".join(map(str, self.failures))


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that has no result, and why."""

    run: PlannedRun
    reason: str
    trace: str = ""

    def __str__(self) -> str:
        lines = "\n  ".join(self.reason.splitlines())
        return f"run {self.run.run_id} failed: {describe_run(self.run)}\n  {lines}"


@dataclass(slots=True)
class Status:
    """How far an experiment is; told after every change."""

    total: int
    finished: int = 0  # `skipped` included
    skipped: int = 0  # finished before this call
    under_way: dict[str, int] = field(default_factory=dict)  # run id -> simulated time, picoseconds
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an experiment."""

    folder: Path
    finished: tuple[str, ...]  # run ids, in the experiment's order
    skipped: int
    failures: tuple[Failure, ...]


def run(
    experiment: Experiment,
    *,
    out: str | os.PathLike[str] | None = None,
    workers: int = 1,
    progress: Callable[[Status], None] = lambda status: None,
) -> Result:
    """Run an experiment and return its result.

    Parameters
    ----------
    out : the result folder; runs that it holds already are not repeated. None: a folder as long-lived as the result
    workers : processes; a script that asks for more than one needs `if __name__ == "__main__":`
    progress : told how far it is

    Raises RunsFailed, after all runs, where some failed; `load_results(out)` has the others.
    """
    temporary = tempfile.TemporaryDirectory(prefix="simnet-") if out is None else None
    outcome = run_experiment(
        experiment, Path(temporary.name if temporary else out or ""), workers=workers, progress=progress
    )
    if outcome.failures:
        raise RunsFailed(outcome.failures)
    result = Result.open(outcome.folder)
    if temporary is not None:
        weakref.finalize(result, temporary.cleanup)
    return result


def run_experiment(
    experiment: Experiment,
    folder: Path,
    *,
    workers: int = 1,
    progress: Callable[[Status], None] = lambda status: None,
    fail_fast: bool = False,
    command: str = "",
) -> Outcome:
    """Bring a result folder up to date with an experiment: simulate the runs that it lacks, then write its index.

    A run that fails, or that kills its worker again and again, is told in the outcome and in `failures.json`; the
    others go on (`fail_fast`: no further run is begun). An exception, such as KeyboardInterrupt, ends the workers and
    leaves whole runs only.
    """
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    store.clean_leftovers(folder)
    planned = {each.run_id: each for each in experiment.runs}
    missing = [each for each in planned.values() if not store.is_finished(folder, each.run_id)]
    status = Status(len(planned), len(planned) - len(missing), len(planned) - len(missing))
    origin = origin_of(experiment, command) if missing else {}
    keys: dict[tuple[int, int], str] = {}
    tasks = {each.run_id: _Task(each, str(folder), _cluster_key(each, keys), origin) for each in missing}
    progress(status)

    def moved(run_id: str, now_ps: int) -> None:
        status.under_way[run_id] = now_ps
        progress(status)

    try:
        with closing(run_all(tasks, perform, workers=workers, progress=moved, preload=[__name__])) as outcomes:
            for ended in outcomes:
                status.under_way.pop(ended.name, None)
                if isinstance(ended, Failed):
                    status.failures.append(Failure(planned[ended.name], ended.reason, ended.trace))
                    if fail_fast:
                        break
                else:
                    status.finished += 1
                progress(status)
    finally:
        _prepared.cache_clear()
        store.clean_leftovers(folder)
    finished = tuple(run_id for run_id in planned if store.is_finished(folder, run_id))
    if finished:
        store.write_index(folder, finished)
    _write_failures(folder, status.failures)
    return Outcome(folder, finished, status.skipped, tuple(status.failures))


@dataclass(frozen=True, slots=True)
class _Task:
    run: PlannedRun
    folder: str
    cluster_key: str
    origin: Mapping[str, Any]


def perform(task: _Task, tell: Callable[[int], None]) -> None:
    """Simulate one run and write it."""
    planned = task.run
    scenario = planned.scenario
    compiled = _compiled(task.cluster_key, scenario, planned.seed)
    manifest = {**task.origin, "topology": topology_of(compiled.cluster.fabric)}
    if happened := events_of(scenario, compiled.cluster, seed=planned.seed):
        manifest["events"] = [{"at_ps": e.at_ps, "until_ps": e.until_ps, "name": e.label} for e in happened]
    description = RunDescription(
        planned.run_id,
        planned.variant,
        planned.repeat,
        planned.seed,
        {name: sweep_value(value) for name, value in planned.point},
        manifest,
    )
    with RunWriter(task.folder, description) as writer:
        sink = writer.packets.append if scenario.record == "packets" else None
        recording = simulate(scenario, seed=planned.seed, sink=sink, compiled=compiled, progress=tell)
        writer.finish(recording, measure_run(recording), KEPT[scenario.record])


class _Prepared:
    """The cluster that was made ready last: repeats, and variants with the same clients, come one after the other."""

    def __init__(self) -> None:
        self._key, self._compiled = "", None

    def get(self, key: str) -> CompiledCluster | None:
        return self._compiled if key == self._key else None

    def put(self, key: str, compiled: CompiledCluster) -> None:
        self._key, self._compiled = key, compiled  # type: ignore[assignment]

    def cache_clear(self) -> None:
        self._key, self._compiled = "", None


_prepared = _Prepared()


def _compiled(key: str, scenario: Scenario, seed: int) -> CompiledCluster:
    """The scenario's cluster, ready; beside random placement, which is in the key, a seed decides the ECMP hashes."""
    compiled = _prepared.get(key)
    if compiled is None:
        _prepared.cache_clear()  # two of them in memory would be one too many
        compiled = prepare(scenario, seed=seed)
        _prepared.put(key, compiled)
    return replace(compiled, network=replace(compiled.network, ecmp_seed=seed))


def _cluster_key(planned: PlannedRun, keys: dict[tuple[int, int], str]) -> str:
    scenario = planned.scenario
    clients = scenario.variant.clients or scenario.workload.clients
    identity = (id(scenario.cluster), id(clients))
    if identity not in keys:
        keys[identity] = digest_of((scenario.cluster, clients.origin, clients.count, clients.addresses))
    changes = bool(scenario.events or scenario.failures)  # timers are drawn from the seed
    seed = planned.seed if changes or scenario.cluster.placement is Placement.RANDOM else None
    timeline = digest_of((scenario.events, scenario.failures, scenario.run.duration_ps)) if changes else ""
    return f"{keys[identity]}/{scenario.run.statistic_mode}/{seed}/{timeline}"


def sweep_value(value: object) -> SweepValue:
    """A swept value as a column of a frame holds it; what is no number or text becomes JSON."""
    return value if isinstance(value, int | float | str) else json.dumps(value, sort_keys=True)


def describe_run(planned: PlannedRun) -> str:
    """A run in words: its variant, its point of the sweep, its repetition and seed."""
    point = "".join(f", {name} {sweep_value(value)}" for name, value in planned.point)
    return f"{planned.variant}{point}, repeat {planned.repeat}, seed {planned.seed}"


def origin_of(experiment: Experiment, command: str = "") -> dict[str, Any]:
    """What a manifest says of where a run came from: experiment, inputs, versions, command, git state."""
    packages = ("numpy", "pandas", "pyarrow", "scipy", "simpy")
    return {
        "name": experiment.name,
        "question": experiment.question,
        "file": experiment.file,
        "inputs": dict(experiment.inputs),
        "left_out_rules": [rule.to_dict() for rule in experiment.left_out_rules],
        "resolved_sha256": digest_of(experiment.resolved),
        "command": command or " ".join(sys.argv[:1]),
        "versions": {"simnet": __version__, "python": platform.python_version(), **{p: version(p) for p in packages}},
        "machine": platform.machine(),
        "git": git_state(Path(experiment.file).parent),
    }


@functools.cache
def git_state(folder: Path) -> str:
    """The commit that a folder is at, `-dirty` behind it where files differ; empty where there is no repository."""
    ask = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(ask, capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""


def _write_failures(folder: Path, failures: list[Failure]) -> None:
    path = folder / FAILURES
    if not failures:
        path.unlink(missing_ok=True)
        return
    rows = [
        {
            "run": each.run.run_id,
            "variant": each.run.variant,
            "sweep": {name: sweep_value(value) for name, value in each.run.point},
            "repeat": each.run.repeat,
            "seed": each.run.seed,
            "reason": each.reason,
            "traceback": each.trace,
        }
        for each in failures
    ]
    store.write_text(path, json.dumps(rows, indent=1) + "\n")
