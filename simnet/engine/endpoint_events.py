"""What drains, deletions and readiness do to pods, and how they are undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simnet.engine.replacements import replacement_of
from simnet.model.events import Event
from simnet.units import PS_PER_S

if TYPE_CHECKING:
    from simnet.engine.bgp_processes import ControlPlane

Undo = Callable[[], None]


def drained(plane: ControlPlane, event: Event) -> Undo:
    """Delete the pods of a node as `kubectl drain --ignore-daemonsets` does: all at once.

    Undone, the node's pods are there again, which no uncordon brings about by itself.
    """
    mine = [pod for pod in plane.cluster.pods if pod.node == event.subject[0] and pod.is_evictable]
    undo = [_delete(plane, event, pod.key) for pod in mine]

    def uncordoned() -> None:
        for start in undo:
            start()

    return uncordoned


def deleted(plane: ControlPlane, event: Event) -> Undo:
    """Delete one pod; undone, it is there again under its address."""
    return _delete(plane, event, event.subject[0])


def unready(plane: ControlPlane, event: Event) -> Undo:
    """Let a pod's readiness probe fail."""
    endpoints = plane.endpoints
    return _condition(plane, endpoints.unready, event.subject[0])


def ready(plane: ControlPlane, event: Event) -> Undo:
    """Let a pod that was not ready become it."""
    endpoints = plane.endpoints
    return _condition(plane, endpoints.made_ready, event.subject[0])


def _condition(plane: ControlPlane, causes: dict[str, set[int]], pod: str) -> Undo:
    number = plane.cause
    plane.endpoints.becomes(causes, pod, number)
    return lambda: plane.endpoints.is_no_longer(causes, pod, number)


def _delete(plane: ControlPlane, event: Event, pod: str) -> Undo:
    number, grace_ps = plane.cause, event.grace_period_ps
    if grace_ps is None:
        seconds = next((each.termination_grace_period_seconds for each in plane.cluster.pods if each.key == pod), 30)
        grace_ps = seconds * PS_PER_S
    endpoints = plane.endpoints
    endpoints.delete(pod, number, grace_ps)
    new, is_over = replacement_of(pod), [False]
    if event.replacement_ps is None or new not in endpoints.node_of:
        return lambda: endpoints.start(pod, number)

    def starts() -> None:
        if not is_over[0]:
            endpoints.becomes(endpoints.made_ready, new, number)

    def is_back() -> None:
        is_over[0] = True
        endpoints.is_no_longer(endpoints.made_ready, new, number)
        endpoints.start(pod, number)

    plane.after(event.replacement_ps, starts)
    return is_back
