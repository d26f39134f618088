"""The bytes of small runs, written down: they may change only on purpose, and not with the CPU.

`make test` compares them as numpy runs here, `make test-digest` again with its SIMD features switched off. A change of
the model that moves them says so under *Numbers* in the changelog and writes down what the failing test prints.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from simnet.config.experiment import load_experiment
from simnet.engine.simulate import simulate
from simnet.model.recording import Categories, Recording

WRITTEN = Path(__file__).parents[1] / "data" / "digests.json"
SETTINGS = ("run.duration=1s", "run.warmup=100ms", "run.repeat=1")


def digest_of(recording: Recording) -> str:
    """A hash of every column of every table: names of categories as text, numbers as their bytes."""
    digest = hashlib.sha256()
    for table, columns in recording.tables.items():
        for name, column in columns.items():
            digest.update(f"{table}.{name}".encode())
            if isinstance(column, Categories):
                digest.update("\0".join(column.names).encode() + column.codes.tobytes())
            else:
                digest.update(str(column.dtype).encode() + np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


@pytest.mark.digest
@pytest.mark.parametrize("name", ["nginx-demo", "nginx-demo-bridged"])
def test_a_run_has_the_bytes_that_are_written_down(name: str, repository: Path) -> None:
    experiment = load_experiment(repository / "experiments" / f"{name}.yaml", settings=SETTINGS)
    found = {run.variant: digest_of(simulate(run.scenario, seed=run.seed)) for run in experiment.runs}
    assert len(found) == len(experiment.variants)
    assert found == json.loads(WRITTEN.read_text())[name]
