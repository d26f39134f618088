"""What only the engine can tell about an experiment before it runs: addresses that run out, laws that cannot be drawn.

Each distinct cluster of the experiment is placed and addressed once (no rule and no route is written), each distinct
workload is made ready to draw from.
"""

from __future__ import annotations

from collections.abc import Iterator

from simnet.engine.materialise import placed_objects
from simnet.errors import InputError, Position, Problem
from simnet.model.scenario import Experiment, PlannedRun
from simnet.workload.generation import generator


def problems_of(experiment: Experiment) -> list[Problem]:
    """Return what would make runs fail, a problem once however many runs it concerns."""
    found: dict[tuple[str, str, str], Problem] = {}
    placed: set[tuple[int, int]] = set()
    drawn: set[int] = set()
    for run in experiment.runs:
        scenario = run.scenario
        clients = scenario.variant.clients or scenario.workload.clients
        if (id(scenario.cluster), id(clients)) not in placed:
            placed.add((id(scenario.cluster), id(clients)))
            try:
                placed_objects(scenario.cluster, clients=clients, seed=run.seed)
            except InputError as error:
                for problem in error.problems:
                    told = _at(run, problem, experiment)
                    found.setdefault((told.field, told.found, told.expected), told)
        if id(scenario.workload) not in drawn:
            drawn.add(id(scenario.workload))
            try:
                generator(scenario.workload)
            except ValueError as error:
                problem = Problem(
                    Position(""), "workload.flows", str(error), "a law that can be drawn from", "change that parameter"
                )
                told = _at(run, problem, experiment)
                found.setdefault((told.field, told.found, told.expected), told)
    return list(found.values())


def _at(run: PlannedRun, problem: Problem, experiment: Experiment) -> Problem:
    """A problem of a run as one of the file, with the point of the sweep at which it comes up."""
    where = problem.where if problem.where.file else Position(experiment.file)
    point = ", ".join(f"{name} {value}" for name, value in run.point)
    found = f"{problem.found} (with {point})" if point else problem.found
    return Problem(where, problem.field, found, problem.expected, problem.fix)


def pending_of(experiment: Experiment) -> Iterator[str]:
    """Yield the names of pods that no node takes in the first run's cluster."""
    if experiment.runs:
        scenario = experiment.runs[0].scenario
        scheduled = placed_objects(scenario.cluster, seed=experiment.runs[0].seed).scheduled
        yield from (f"{key}: {reason}" for key, reason in scheduled.pending)
