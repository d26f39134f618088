"""What only the engine can tell about an experiment before it runs: addresses that run out, laws that cannot be drawn.

Each distinct cluster of the experiment is placed and addressed once (no rule and no route is written), each distinct
workload is made ready to draw from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from simnet.engine.closed_connections import memory_refused
from simnet.engine.failures import unknown_subjects
from simnet.engine.materialise import PlacedObjects, placed_objects, wired
from simnet.engine.simulate import prepare
from simnet.errors import InputError, Position, Problem
from simnet.model.events import Event, RandomFailures
from simnet.model.scenario import PlannedRun
from simnet.model.workload import ClientOrigin, ClientPopulation, ClosedLoop, KeepAlive, Workload
from simnet.workload.generation import generator


def problems_of(runs: Sequence[PlannedRun]) -> list[Problem]:
    """Return what would make runs fail, a problem once however many runs it concerns; at first the point of the sweep.

    A problem without a place names the field of the experiment file that it is about.
    """
    found: dict[tuple[str, str, str], Problem] = {}
    placed: set[tuple[int, int]] = set()
    drawn: set[int] = set()
    for run in runs:
        scenario = run.scenario
        clients = scenario.variant.clients or scenario.workload.clients
        problems: list[Problem] = []
        if (id(scenario.cluster), id(clients)) not in placed:
            placed.add((id(scenario.cluster), id(clients)))
            try:
                ready = placed_objects(scenario.cluster, clients=clients, seed=run.seed)
            except InputError as error:
                problems += _counted(error.problems)
            else:
                problems += _missing_clients(clients, ready)
                problems += _uncompilable(run)
                problems += _unknown_subjects(run, ready)
                problems += _remembering(run, ready)
        if id(scenario.workload) not in drawn:
            drawn.add(id(scenario.workload))
            problems += _undrawable(scenario.workload)
        for problem in problems:
            found.setdefault((problem.field, problem.expected, problem.fix), _at(run, problem))
    return list(found.values())


def _counted(problems: Sequence[Problem]) -> Iterator[Problem]:
    """The first of those that differ only in what they are about, with the number of the others."""
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.found, problem.expected, problem.fix), []).append(problem)
    for group in groups.values():
        first = group[0]
        yield first if len(group) == 1 else replace(first, field=f"{first.field} and {len(group) - 1} more")


def _missing_clients(clients: ClientPopulation, ready: PlacedObjects) -> Iterable[Problem]:
    if clients.origin is ClientOrigin.OUTSIDE:
        return
    are_pods = clients.origin is ClientOrigin.PODS
    known = [pod.key for pod in ready.pods] if are_pods else [node.name for node in ready.nodes]
    missing = [name for name in clients.addresses if name not in set(known)]
    if missing:
        names = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
        kind = "pods" if are_pods else "nodes"
        yield Problem(
            Position(""),
            "workload.clients.from",
            ", ".join(missing),
            f"{kind} of the cluster: {names or 'there are none'}",
            f"correct the names, or write `from: {kind}`",
        )


def _uncompilable(run: PlannedRun) -> Iterable[Problem]:
    """What imported rules hold that simnet does not model; generated ones hold nothing of that kind."""
    if any(node.saved_rules for node in run.scenario.cluster.nodes):
        try:
            prepare(run.scenario, seed=run.seed)
        except InputError as error:
            yield from _counted(error.problems)


def _unknown_subjects(run: PlannedRun, ready: PlacedObjects) -> Iterable[Problem]:
    """What events name that is not there, and what cannot go with them."""
    scenario = run.scenario
    events: list[Event | RandomFailures] = [*scenario.events, *scenario.failures]
    if not events:
        return
    clients = scenario.variant.clients or scenario.workload.clients
    pods = [pod.key for pod in ready.pods]
    yield from unknown_subjects(wired(scenario.cluster, ready, clients), pods, scenario.cluster.calico, events)
    if isinstance(scenario.workload.arrivals, ClosedLoop):
        yield Problem(
            Position(""), "events", "events in a run whose clients wait for their answers", "one of the two",
            "remove `events`, or workload.requests.closedLoop",
        )  # fmt: skip


def _remembering(run: PlannedRun, ready: PlacedObjects) -> Iterable[Problem]:
    """Rules that remember callers, below clients whose order of calling is not known ahead."""
    if not isinstance(run.scenario.workload.arrivals, ClosedLoop):
        return
    affine = [
        f"{service.namespace}/{service.name}" for service in ready.services if service.session_affinity == "ClientIP"
    ]
    if affine or run.scenario.run.statistic_mode == "nth":
        yield memory_refused(", ".join(affine[:3]) or "run.statisticMode: nth")


def _undrawable(workload: Workload) -> Iterable[Problem]:
    try:
        generator(workload)
    except ValueError as error:
        field, colon, reason = str(error).partition(": ")
        inside = f".{field}" if colon and field.isidentifier() else ""
        has_pools = isinstance(workload.arrivals, KeepAlive)
        yield Problem(
            Position(""),
            f"workload.flows{inside}" if inside != ".gap" or not has_pools else "workload.requests",
            reason if inside else str(error),
            "a law that numbers can be drawn from",
            "change that parameter",
        )


def _at(run: PlannedRun, problem: Problem) -> Problem:
    """A problem with the point of the sweep at which it comes up first."""
    if not run.point:
        return problem
    point = ", ".join(f"{name}: {value}" for name, value in run.point)
    return replace(problem, found=f"{problem.found} (where the sweep has {point})")
