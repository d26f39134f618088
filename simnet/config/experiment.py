"""An experiment file as a checked Experiment: every run that it asks for, with all mistakes reported at once.

A sweep point or `--set` is the same file with some values replaced; each point is read and checked like a file of its
own, so nothing that a sweep makes impossible is found only while it runs.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simnet import __version__
from simnet.config.cluster_file import cluster_spec
from simnet.config.digests import digest_of
from simnet.config.documents import Document, FieldPath, gather_documents
from simnet.config.entries import check_entry
from simnet.config.experiment_models import ClusterModel, ExperimentModel
from simnet.config.file_problems import read_model
from simnet.config.kubernetes_source import describe, nearest_name
from simnet.config.reading import Reading, digests_of
from simnet.config.resolved import resolved
from simnet.config.traffic import run_spec, variant_of, workload_of
from simnet.config.yaml_reader import read_yaml
from simnet.errors import InputError, Position, Problem
from simnet.model.scenario import Expectation, Experiment, PlannedRun, Scenario

MODEL_VERSION = f"{__version__}/1"  # part of every run id: raise it when a result changes for the same input
MAX_RUNS = 100_000
# The lines of `expect:`, the variants, the number of repeats -> what is wrong with them
CheckExpectations = Callable[[Sequence[Expectation], Sequence[str], int], list[Problem]]


def load_experiment(
    path: str | os.PathLike[str],
    *,
    seed: int | None = None,
    settings: Sequence[str] = (),
    check_expectations: CheckExpectations | None = None,
) -> Experiment:
    """Return the checked experiment of a file.

    `settings` are `path=value` texts that replace values (`run.repeat=3`, `nodes.count=8`), `seed` the file's seed.
    `check_expectations` knows which metrics there are; its problems join the others.
    Raises InputError with every mistake, each with file, line, field, found, expected and fix.
    """
    documents, problems = gather_documents([path])
    if not problems and (len(documents) != 1 or not isinstance(documents[0].data, dict)):
        problems.append(
            Problem(
                Position(os.fspath(path), documents[1].line if len(documents) > 1 else 0),
                "",
                f"{len(documents)} documents" if len(documents) != 1 else describe(documents[0].data),
                "one experiment",
                "write one mapping with name, cluster, workload, variants and run; `simnet init` makes an example",
            )
        )
    if not problems and "kind" in documents[0].data and "cluster" not in documents[0].data:  # type: ignore[operator]
        problems.append(
            Problem(
                Position(os.fspath(path), documents[0].line),
                "kind",
                describe(documents[0].data["kind"]),  # type: ignore[index]
                "an experiment, not a Kubernetes object",
                "name this file under cluster.objects of an experiment; `simnet init` makes an example",
            )
        )
    if problems:
        raise InputError(problems)
    document = documents[0]
    data = copy.deepcopy(document.data)
    assert isinstance(data, dict)
    for setting in settings:
        _apply_setting(data, setting, problems)
    if seed is not None and isinstance(data.get("run"), dict):
        data["run"]["seed"] = seed
    if problems:
        raise InputError(problems)
    return _Loading(document, data, check_expectations).experiment()


def _apply_setting(data: dict[str, Any], setting: str, problems: list[Problem]) -> None:
    path, equals, text = setting.partition("=")
    where = Position(f"--set {setting}")
    if not equals or not path:
        problems.append(Problem(where, "", setting, "PATH=VALUE", "for example --set run.repeat=3"))
        return
    documents, wrong = read_yaml(text.encode(), str(where))
    problems += wrong
    value = documents[0].data if documents else None
    try:
        replace_at(data, path, value)
    except KeyError as error:
        problems.append(
            Problem(where, path, str(error.args[0]), "a path in the file", "see `simnet validate --resolved`")
        )


# Where a swept or set name that is no path from the top leads.
_CLUSTER_KEYS = frozenset(field.alias or name for name, field in ClusterModel.model_fields.items())
_TOP_KEYS = frozenset(field.alias or name for name, field in ExperimentModel.model_fields.items())


def target_path(name: str) -> tuple[str, ...]:
    """Return the path in the file that a swept name means: from the top, or from `cluster:`. KeyError if neither."""
    steps = tuple(name.split("."))
    if steps[0] in _TOP_KEYS:
        return steps
    if steps[0] in _CLUSTER_KEYS:
        return ("cluster", *steps)
    nearest = nearest_name(steps[0], list(_CLUSTER_KEYS | _TOP_KEYS))
    raise KeyError(f"nothing is called {steps[0]}" + (f"; did you mean {nearest}?" if nearest else ""))


def replace_at(data: dict[str, Any], name: str, value: object) -> None:
    """Put `value` where `name` leads, making mappings on the way. KeyError, in words, where that is impossible."""
    steps = target_path(name)
    node: Any = data
    for step in steps[:-1]:
        if isinstance(node, list) and step.isdecimal() and int(step) < len(node):
            node = node[int(step)]
            continue
        if not isinstance(node, dict):
            raise KeyError(f"{step} of {name} is not a mapping")
        if not isinstance(node.get(step), dict | list):
            node[step] = {}
        node = node[step]
    if not isinstance(node, dict):
        raise KeyError(f"{name} does not lead to a key")
    node[steps[-1]] = value


@dataclass(frozen=True, slots=True)
class _Point:
    """One point of the sweep: the values, and the file with them put in."""

    values: tuple[tuple[str, object], ...]
    data: dict[str, Any]


class _Loading:
    """One experiment file while it is checked."""

    def __init__(self, document: Document, data: dict[str, Any], check: CheckExpectations | None) -> None:
        self.check_expectations = check
        self.document = document
        self.data = data
        self.problems: list[Problem] = []
        self.reading = Reading(document, self.problems)

    def experiment(self) -> Experiment:
        base = read_model(ExperimentModel, self.data, self.document, (), self.problems)
        if base is None:
            self._check_cluster_anyway()
            raise InputError(self.problems)
        self._check_top(base)
        points = self._points(base)
        runs: list[PlannedRun] = []
        models: list[tuple[_Point, ExperimentModel]] = []
        for point in points:
            model = base if not point.values else self._read_point(point)
            if model is not None:
                models.append((point, model))
                runs += self._runs(point, model)
            if len(self.problems) > 100:
                break
        expect = self._expectations(base)
        if expect and self.check_expectations is not None:
            self.problems += self.check_expectations(expect, list(base.variants), base.run.repeat)
        if self.problems:
            raise InputError(dict.fromkeys(self.problems))
        return Experiment(
            name=base.name,
            question=base.question,
            file=self.document.file,
            runs=tuple(runs),
            sweep=tuple((name, tuple(values)) for name, values in base.sweep.items()),
            variants=tuple(base.variants),
            record=base.record,
            expect=expect,
            resolved=resolved(models[0][1]) if models else {},
            warnings=tuple(dict.fromkeys(self.reading.warnings)),
            inputs=digests_of([self.document.file, *self.reading.files]),
        )

    def _check_cluster_anyway(self) -> None:
        """A mistake elsewhere does not hide the mistakes in the cluster and its manifests."""
        quiet: list[Problem] = []
        model = read_model(ClusterModel, self.data.get("cluster", {}), self.document, ("cluster",), quiet)
        if model is not None:
            cluster_spec(model, str(self.data.get("kubernetes", "1.33")), self.reading, ("cluster",))

    def _check_top(self, base: ExperimentModel) -> None:
        if not base.variants:
            self.reading.refuse(
                ("variants",), "no variant", "at least one variant", "add {entry: NodePort, service: NAME}"
            )
        if base.events:
            self.reading.refuse(("events",), f"{len(base.events)} events", "no events", "events are not modelled yet")
        fabric = base.cluster.fabric
        for key, link in (("link", fabric.link), ("clientLink", fabric.client_link), ("spineLink", fabric.spine_link)):
            if link.queue is not None:
                self.reading.warn(
                    ("cluster", "fabric", key, "queue"),
                    "a queue",
                    "nothing yet: queues are not modelled",
                    "leave it; it has no effect",
                )

    def _points(self, base: ExperimentModel) -> list[_Point]:
        names: list[str] = []
        values: list[list[object]] = []
        for name, choices in base.sweep.items():
            try:
                target_path(name)
            except KeyError as error:
                self.reading.refuse(
                    ("sweep", name), str(error.args[0]), "a path in this file", "for example nodes.count"
                )
                continue
            if not choices:
                self.reading.refuse(("sweep", name), "an empty list", "at least one value", "add values, or remove it")
            names.append(name)
            values.append(choices)
        count = len(base.variants) * base.run.repeat
        for choices in values:
            count *= max(len(choices), 1)
        if count > MAX_RUNS:
            self.reading.refuse(
                ("sweep",), f"{count:,} runs", f"at most {MAX_RUNS:,} runs", "sweep fewer values, or repeat less often"
            )
            return []
        points = []
        for combination in itertools.product(*values):
            data = copy.deepcopy(self.data)
            for name, value in zip(names, combination, strict=True):
                try:
                    replace_at(data, name, value)
                except KeyError as error:
                    self.reading.refuse(("sweep", name), str(error.args[0]), "a path in this file", "correct the path")
            points.append(_Point(tuple(zip(names, combination, strict=True)), data))
        return points

    def _read_point(self, point: _Point) -> ExperimentModel | None:
        """Read the file of a point; what is wrong only there is told where the sweep gives the value."""
        wrong: list[Problem] = []
        model = read_model(ExperimentModel, point.data, self.document, (), wrong)
        for problem in wrong:
            name = next((name for name, _ in point.values if problem.field.endswith(".".join(target_path(name)))), None)
            where = self.document.locate(("sweep", name)) if name else problem.where
            self.problems.append(
                Problem(where, f"sweep.{name}" if name else problem.field, problem.found, problem.expected, problem.fix)
            )
        return model

    def _runs(self, point: _Point, model: ExperimentModel) -> Iterable[PlannedRun]:
        cluster = cluster_spec(model.cluster, model.kubernetes, self.reading, ("cluster",))
        workload = workload_of(model.workload, self.reading, ("workload",))
        run = run_spec(model.run, self.reading, ("run",))
        if cluster is None or workload is None:
            return []
        runs: list[PlannedRun] = []
        for name, variant_model in model.variants.items():
            path: FieldPath = ("variants", name)
            variant = variant_of(name, variant_model, workload, self.reading, path)
            if variant is None or not check_entry(variant, cluster, workload, self.reading, path):
                continue
            scenario = Scenario(cluster, workload, variant, run, model.record)
            # How often and from which seed a scenario is repeated is no part of it; where it stands in the sweep is,
            # since the run's rows say so.
            identity = digest_of((replace(scenario, run=replace(run, repeat=1, seed=0)), point.values))
            for repeat in range(run.repeat):
                seed = run_seed(run.seed, repeat)
                run_id = hashlib.sha256(f"{identity}/{seed}/{MODEL_VERSION}".encode()).hexdigest()[:16]
                runs.append(PlannedRun(run_id, name, point.values, repeat, seed, scenario))
        return runs

    def _expectations(self, base: ExperimentModel) -> tuple[Expectation, ...]:
        return tuple(
            Expectation(
                metric=each.metric,
                equals=each.equals,
                at_least=each.at_least,
                at_most=each.at_most,
                tolerance=each.tolerance,
                variant=each.variant,
                position=self.document.locate(("expect", index)),
            )
            for index, each in enumerate(base.expect)
        )


def run_seed(seed: int, repeat: int) -> int:
    """Return the seed of a repetition; variants and sweep points share it, so that they meet the same clients."""
    digest = hashlib.sha256(f"simnet/repeat/{seed}/{repeat}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
