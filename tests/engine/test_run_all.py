"""Experiments in result folders: the same bytes for any number of workers, nothing repeated, nothing half-written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import simnet
from simnet import run_experiment as runner
from simnet.errors import ModelError
from simnet.model.recording import EVENT_TABLES
from simnet.model.scenario import Experiment

DEMO = Path(__file__).parents[2] / "experiments" / "nginx-demo.yaml"
SMALL = ["run.repeat=2", "run.duration=1s", "run.warmup=0s", "workload.clients.count=40"]


def small(*settings: str) -> Experiment:
    return simnet.load_experiment(DEMO, settings=[*SMALL, *settings])


def tables(folder: Path) -> dict[str, str]:
    """Digest of every Parquet file by its place in the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.parquet")
    }


DIES = "events=[{at: 400ms, node: node-2, do: die, for: 200ms}]"


@pytest.mark.parametrize(("record", "events"), [("flows", "events=[]"), ("packets", "events=[]"), ("summary", DIES)])
def test_one_and_two_workers_write_the_same_bytes(tmp_path, record, events):
    experiment = small(f"record={record}", events)
    for workers in (1, 2):
        outcome = runner.run_experiment(experiment, tmp_path / str(workers), workers=workers)
        assert not outcome.failures
        assert list(outcome.finished) == [run.run_id for run in experiment.runs]
    one = tables(tmp_path / "1")
    assert one == tables(tmp_path / "2")
    names = {part for name in one for part in Path(name).parts}
    assert ("flows.parquet" in names) == (record != "summary")
    assert ("packets" in names) == (record == "packets")
    assert ({f"{name}.parquet" for name in EVENT_TABLES} <= names) == (events == DIES)


@pytest.mark.parametrize("placement", ["spread", "random"])
def test_a_cluster_that_is_used_again_gives_the_bytes_of_a_fresh_one(tmp_path, placement, monkeypatch):
    experiment = small("nodes.count=5", "replicas=7", f"placement={placement}", "fabric.leaves=2", "fabric.spines=2")
    runner.run_experiment(experiment, tmp_path / "again")
    monkeypatch.setattr(runner, "_compiled", lambda key, scenario, seed: runner.prepare(scenario, seed=seed))
    runner.run_experiment(experiment, tmp_path / "fresh")
    assert tables(tmp_path / "again") == tables(tmp_path / "fresh")


def test_finished_runs_are_not_run_again_and_new_ones_are_added(tmp_path, monkeypatch):
    runner.run_experiment(small(), tmp_path)
    before = tables(tmp_path)
    performed = []
    real = runner.perform
    monkeypatch.setattr(runner, "perform", lambda task, tell: performed.append(task.run.repeat) or real(task, tell))
    again = runner.run_experiment(small(), tmp_path)
    assert (again.skipped, performed) == (6, [])
    assert tables(tmp_path) == before
    more = runner.run_experiment(small("run.repeat=3"), tmp_path)
    assert (more.skipped, performed) == (6, [2, 2, 2])
    assert len(simnet.load_results(tmp_path).index) == 9


def test_a_failed_run_is_told_with_its_reason_and_the_others_are_kept(tmp_path, monkeypatch):
    experiment = small()
    bad = experiment.runs[3]

    def simulate(scenario, *, seed, **others):
        if scenario.variant.name == bad.variant and seed == bad.seed:
            raise ModelError("at 0.5 s on node-1: too many flows")
        return simnet.simulate(scenario, seed=seed, **others)

    monkeypatch.setattr(runner, "simulate", simulate)
    outcome = runner.run_experiment(experiment, tmp_path)
    assert [str(failure) for failure in outcome.failures] == [
        f"run {bad.run_id} failed: node-port, repeat 1, seed {bad.seed}\n  at 0.5 s on node-1: too many flows"
    ]
    assert len(outcome.finished) == 5
    (row,) = json.loads((tmp_path / "failures.json").read_text())
    assert (row["run"], row["reason"]) == (bad.run_id, "at 0.5 s on node-1: too many flows")
    assert not list(tmp_path.glob("runs/.partial*"))
    monkeypatch.undo()
    assert runner.run_experiment(experiment, tmp_path).skipped == 5
    assert not (tmp_path / "failures.json").exists()


def test_fail_fast_begins_no_further_run(tmp_path, monkeypatch):
    def simulate(scenario, **others):
        raise ModelError("no")

    monkeypatch.setattr(runner, "simulate", simulate)
    assert len(runner.run_experiment(small(), tmp_path, fail_fast=True).failures) == 1


def test_without_a_folder_a_result_lives_as_long_as_it_is_held():
    result = simnet.run(small())
    folder = result.path
    assert folder is not None
    assert len(result.flows)
    del result
    assert not folder.exists()


def test_an_experiment_whose_runs_fail_raises_after_the_others(tmp_path, monkeypatch):
    def simulate(scenario, **others):
        raise ModelError("no")

    monkeypatch.setattr(runner, "simulate", simulate)
    with pytest.raises(simnet.RunsFailed) as failed:
        simnet.run(small(), out=tmp_path)
    assert len(failed.value.failures) == 6


def test_a_manifest_says_where_its_run_came_from(tmp_path):
    runner.run_experiment(small(), tmp_path, command="simnet run x")
    manifest = json.loads(next(tmp_path.glob("runs/*/manifest.json")).read_text())["manifest"]
    assert manifest["name"] == "nginx-demo"
    assert manifest["command"] == "simnet run x"
    assert set(manifest["versions"]) >= {"simnet", "python", "numpy"}
    assert {Path(name).name for name in manifest["inputs"]} == {"nginx-demo.yaml"}
    assert [device["name"] for device in manifest["topology"]["devices"] if device["kind"] == "node"] == [
        "node-1",
        "node-2",
    ]
