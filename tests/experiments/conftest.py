"""The shipped experiments, run in this process: a row of figures and the loads of each run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import simnet
from simnet.analysis.measures import measure_run
from simnet.engine.simulate import prepare, simulate
from simnet.results.frames import frames

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@dataclass(frozen=True)
class Ran:
    """One run: its variant, its sweep point, its measures, and its frames."""

    variant: str
    point: dict[str, object]
    measures: dict[str, float]
    frames: dict[str, pd.DataFrame]

    def connections(self, where: str) -> np.ndarray:
        """Connections of each pod or node, in the order of their numbers."""
        load = self.frames["load"]
        rows = load[load["where"].astype(str) == where]
        order = rows["name"].astype(str).str.rsplit("-", n=1).str[-1].astype(int).argsort()
        return rows["connections"].to_numpy()[order]


RunShipped = Callable[..., list[Ran]]


@pytest.fixture(scope="session")
def run_shipped() -> RunShipped:
    """Runs experiments/<name>.yaml with `path=value` settings; each cluster is prepared once."""

    def run(name: str, *settings: str) -> list[Ran]:
        return list(_run(simnet.load_experiment(EXPERIMENTS / f"{name}.yaml", settings=settings)))

    return run


def _run(experiment: simnet.Experiment) -> Iterator[Ran]:
    held: dict[object, object] = {}
    for planned in experiment.runs:
        scenario = planned.scenario
        key = (planned.point, scenario.variant.clients or scenario.workload.clients)
        compiled = held.get(repr(key)) or held.setdefault(repr(key), prepare(scenario, seed=planned.seed))
        recording = simulate(scenario, seed=planned.seed, compiled=compiled)
        yield Ran(planned.variant, dict(planned.point), measure_run(recording), frames(recording))
