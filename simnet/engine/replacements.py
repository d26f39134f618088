"""The pods that start on other nodes in place of deleted ones: in the cluster from the start, and not ready.

Modelled: one for each pod that an event with `replacement` deletes, on a node that no event drains, where there is
one, in turn. Left out: whose they are (a pod without a workload is replaced too), pods on their node's network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from simnet.engine.materialise import placed_objects
from simnet.model.events import Event, EventKind, RandomFailures
from simnet.model.kubernetes import Pod
from simnet.model.scenario import ClusterSpec, Scenario


def replacement_of(pod: str) -> str:
    """Return the name of the pod that starts in place of a deleted one."""
    return f"{pod}-replacement"


def with_replacements(scenario: Scenario, *, seed: int) -> ClusterSpec:
    """Return the scenario's cluster with the pods that its events start; the same object where they start none."""
    spec = scenario.cluster
    events: list[Event | RandomFailures] = [*scenario.events, *scenario.failures]
    replacing = [event for event in events if event.replacement_ps is not None]
    if not replacing:
        return spec
    ready = placed_objects(spec, clients=scenario.variant.clients or scenario.workload.clients, seed=seed)
    nodes = [node.name for node in ready.nodes]
    drained = set(_subjects(events, EventKind.NODE_DRAINED, nodes))
    emptied = set(_subjects(replacing, EventKind.NODE_DRAINED, nodes))
    deleted = set(_subjects(replacing, EventKind.POD_DELETED, [pod.key for pod in ready.pods]))
    started: list[Pod] = []
    for pod in ready.pods:
        others = [name for name in nodes if name != pod.node]
        others = [name for name in others if name not in drained] or others
        if (pod.node in emptied or pod.key in deleted) and pod.is_evictable and not pod.host_network and others:
            made = Pod(
                pod.namespace, replacement_of(pod.name), pod.labels, node_name=others[len(started) % len(others)],
                phase="Running", ready=False, container_ports=pod.container_ports,
                termination_grace_period_seconds=pod.termination_grace_period_seconds,
            )  # fmt: skip
            started.append(made)
    return replace(spec, replacements=tuple(started))


def _subjects(events: Iterable[Event | RandomFailures], kind: EventKind, every: list[str]) -> Iterable[str]:
    """What events of a kind name; `every`: all that random ones without a name mean."""
    for event in events:
        if event.kind is kind and isinstance(event, Event):
            yield event.subject[0]
        elif event.kind is kind and isinstance(event, RandomFailures):
            yield from [subject[0] for subject in event.subjects] or every
