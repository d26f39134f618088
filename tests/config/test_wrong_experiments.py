"""Each wrong experiment is answered with exactly the text in the file of its name + .expected, by every reader."""

from __future__ import annotations

from pathlib import Path

import pytest

import simnet
from simnet.errors import InputError

FOLDER = Path(__file__).parent.parent / "data" / "wrong_experiments"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES)
def test_a_wrong_experiment_is_answered_with_where_found_expected_and_fix(file, monkeypatch):
    monkeypatch.chdir(FOLDER)
    with pytest.raises(InputError) as refusal:
        simnet.load_experiment(file)
    assert f"{refusal.value}\n" == (FOLDER / f"{file}.expected").read_text()


def test_every_wrong_experiment_has_its_message_and_there_are_sixty_or_more():
    assert {f"{file}.expected" for file in FILES} == {path.name for path in FOLDER.glob("*.expected")}
    assert len(FILES) >= 60


def test_the_mistakes_of_all_sections_come_in_one_answer(monkeypatch):
    monkeypatch.chdir(FOLDER)
    with pytest.raises(InputError) as refusal:
        simnet.load_experiment("all-at-once.yaml")
    fields = [problem.field for problem in refusal.value.problems]
    assert fields == [
        "cluster.nodes.count",
        "workload.flows.arrivals",
        "variants.node-port.entry",
        "run.warmup",
        "recrod",
    ]


def test_a_problem_of_one_sweep_point_is_told_where_the_sweep_gives_the_value(monkeypatch):
    monkeypatch.chdir(FOLDER)
    with pytest.raises(InputError) as refusal:
        simnet.load_experiment("sweep-point-impossible.yaml")
    (problem,) = refusal.value.problems
    assert (problem.field, problem.where.line) == ("sweep.nodes.count", 15)


def test_a_wrong_setting_is_told_as_it_was_given(monkeypatch):
    monkeypatch.chdir(FOLDER.parent.parent.parent / "experiments")
    with pytest.raises(InputError) as refusal:
        simnet.load_experiment("nginx-demo.yaml", settings=["runn.repeat=3", "run.repeat", "run.repeat=[1"])
    told = str(refusal.value)
    assert "--set runn.repeat=3: runn.repeat\n  found:    nothing is called runn; did you mean run?\n" in told
    assert "--set run.repeat\n  found:    run.repeat\n  expected: PATH=VALUE\n" in told
    assert "--set run.repeat=[1" in told
