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
from simnet.config.events import events_of
from simnet.config.experiment_models import (
    ClientsModel,
    ClusterModel,
    ExperimentModel,
    RunModel,
    VariantModel,
    WorkloadModel,
)
from simnet.config.file_problems import Model, read_model
from simnet.config.kubernetes_source import describe, nearest_name
from simnet.config.reading import Reading, digests_of
from simnet.config.resolved import resolved
from simnet.config.traffic import clients_of, run_spec, variant_of, workload_of
from simnet.config.yaml_reader import read_yaml
from simnet.errors import InputError, Position, Problem
from simnet.model.scenario import Expectation, Experiment, PlannedRun, Scenario
from simnet.units import PS_PER_S

MODEL_VERSION = f"{__version__}/1"  # part of every run id: raise it when a result changes for the same input
MAX_RUNS = 100_000
# The lines of `expect:`, the variants, the number of repeats -> what is wrong with them
CheckExpectations = Callable[[Sequence[Expectation], Sequence[str], int], list[Problem]]
# The runs -> what is wrong with them; a problem without a place names a field of the file
CheckRuns = Callable[[Sequence[PlannedRun]], list[Problem]]


def load_experiment(
    path: str | os.PathLike[str],
    *,
    seed: int | None = None,
    settings: Sequence[str] = (),
    skip_unknown: bool = False,
    check_expectations: CheckExpectations | None = None,
    check_runs: CheckRuns | None = None,
) -> Experiment:
    """Return the checked experiment of a file.

    `settings` are `path=value` texts that replace values (`run.repeat=3`, `nodes.count=8`), `seed` the file's seed.
    `skip_unknown` leaves out what nodes' saved rules hold that simnet does not model.
    `check_expectations` knows which metrics there are, `check_runs` what only the engine can tell of runs that are
    right by themselves; their problems join the others.
    Raises InputError with every mistake, each with file, line, field, found, expected and fix.
    """
    if os.path.isdir(path):
        fix = "name the file in it; a folder of manifests goes under cluster.objects of an experiment"
        raise InputError([Problem(Position(os.fspath(path)), "", "a folder", "an experiment file", fix)])
    documents, problems = gather_documents([path])
    if not problems and (len(documents) != 1 or not isinstance(documents[0].data, dict)):
        problems.append(
            Problem(
                Position(os.fspath(path), documents[1].line if len(documents) > 1 else 0),
                "",
                {0: "an empty file"}.get(len(documents), f"{len(documents)} documents")
                if len(documents) != 1
                else describe(documents[0].data),
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
    return _Loading(document, data, skip_unknown, check_expectations, check_runs).experiment()


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

    def __init__(
        self,
        document: Document,
        data: dict[str, Any],
        skip_unknown: bool,
        check_expectations: CheckExpectations | None,
        check_runs: CheckRuns | None,
    ) -> None:
        self.check_expectations, self.check_runs = check_expectations, check_runs
        self.document = document
        self.data = data
        self.problems: list[Problem] = []
        self.reading = Reading(document, self.problems, skip_unknown=skip_unknown)

    def experiment(self) -> Experiment:
        base = read_model(ExperimentModel, self.data, self.document, (), self.problems)
        if base is None:
            self._check_the_rest()
            raise InputError(dict.fromkeys(self.problems))
        self._check_top(base)
        points = self._points(base)
        runs: list[PlannedRun] = []
        models: list[tuple[_Point, ExperimentModel]] = []
        wrong: dict[Problem, list[_Point]] = {}
        for point in points:
            model = base if not point.values else self._read_point(point)
            if model is not None:
                models.append((point, model))
                before = len(self.problems)
                runs += self._runs(point, model)
                for problem in self.problems[before:]:
                    wrong.setdefault(problem, []).append(point)
                del self.problems[before:]
            if len(self.problems) + len(wrong) > 100:
                break
        for problem, at in wrong.items():
            everywhere = len(at) == len(points) or not at[0].values
            self.problems.append(problem if everywhere else self._of_point(problem, at[0]))
        expect = self._expectations(base)
        if expect and self.check_expectations is not None:
            self.problems += self.check_expectations(expect, list(base.variants), base.run.repeat)
        if not self.problems and self.check_runs is not None:
            self.problems += map(self._located, self.check_runs(runs))
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

    def _check_the_rest(self) -> None:
        """A mistake in one section does not hide those in the others: what can be read is checked as far as it goes."""

        def section(model: type[Model], key: str) -> Model | None:
            return read_model(model, self.data.get(key), self.document, (key,), [])

        cluster_model = section(ClusterModel, "cluster")
        cluster = None
        if cluster_model is not None:
            version = str(self.data.get("kubernetes", "1.33"))
            cluster = cluster_spec(cluster_model, version, self.reading, ("cluster",))
        run_model = section(RunModel, "run")
        if run_model is not None:
            run_spec(run_model, self.reading, ("run",))
        workload_model = section(WorkloadModel, "workload")
        duration_ps = PS_PER_S if run_model is None else run_model.duration
        workload = None
        if workload_model is not None:
            workload = workload_of(workload_model, self.reading, ("workload",), duration_ps)
        clients = self.data.get("workload", {}).get("clients") if isinstance(self.data.get("workload"), dict) else None
        if workload_model is None and isinstance(clients, dict):
            self._check_clients(clients)
        variants = self.data.get("variants")
        if workload is None or cluster is None or not isinstance(variants, dict):
            return
        for name, content in variants.items():
            path: FieldPath = ("variants", name)
            model = read_model(VariantModel, content, self.document, path, [])
            variant = None if model is None else variant_of(str(name), model, workload, self.reading, path)
            if variant is not None:
                check_entry(variant, cluster, workload, self.reading, path)

    def _check_clients(self, content: dict[str, Any]) -> None:
        path: FieldPath = ("workload", "clients")
        networks = ClientsModel.model_fields["from_"].alias
        model = read_model(ClientsModel, {k: v for k, v in content.items() if k == networks}, self.document, path, [])
        if model is not None:
            clients_of(model, self.reading, path)

    def _check_top(self, base: ExperimentModel) -> None:
        if not base.variants:
            self.reading.refuse(
                ("variants",), "no variant", "at least one variant", "add {entry: NodePort, service: NAME}"
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
            if any(value in choices[:index] for index, value in enumerate(choices)):
                twice = next(value for index, value in enumerate(choices) if value in choices[:index])
                self.reading.refuse(("sweep", name), f"{twice} twice", "each value once", "remove one of the two")
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
        self.problems += [self._of_point(problem, point) for problem in wrong]
        return model

    def _of_point(self, problem: Problem, point: _Point) -> Problem:
        """A problem that only some points of the sweep have: told where the sweep gives the value, or with it."""
        for name, _ in point.values:
            if problem.field == ".".join(target_path(name)):
                where = self.document.locate(("sweep", name))
                return replace(problem, where=where, field=f"sweep.{name}")
        values = ", ".join(f"{name}: {value}" for name, value in point.values)
        return replace(problem, found=f"{problem.found} (where the sweep has {values})")

    def _located(self, problem: Problem) -> Problem:
        if problem.where.file:
            return problem
        return replace(problem, where=self.document.locate(tuple(problem.field.split("."))))

    def _runs(self, point: _Point, model: ExperimentModel) -> Iterable[PlannedRun]:
        cluster = cluster_spec(model.cluster, model.kubernetes, self.reading, ("cluster",))
        workload = workload_of(model.workload, self.reading, ("workload",), model.run.duration)
        run = run_spec(model.run, self.reading, ("run",))
        events, failures = events_of(model.events, self.reading, model.run.duration)
        if cluster is None or workload is None:
            return []
        runs: list[PlannedRun] = []
        for name, variant_model in model.variants.items():
            path: FieldPath = ("variants", name)
            variant = variant_of(name, variant_model, workload, self.reading, path)
            if variant is None or not check_entry(variant, cluster, workload, self.reading, path):
                continue
            scenario = Scenario(cluster, workload, variant, run, model.record, events, failures)
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
