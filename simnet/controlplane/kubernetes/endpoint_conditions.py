"""EndpointSlices after pods have changed: conditions as the endpoint slice controller derives them, endpoints that go.

An endpoint belongs to the pod that its targetRef names; one without, as of a slice written by hand, is nobody's and
stays as it is. Source: kubernetes/kubernetes, staging/src/k8s.io/endpointslice/utils.go (podToEndpoint).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from simnet.model.kubernetes import Endpoint, EndpointConditions, EndpointSlice, Service


@dataclass(frozen=True, slots=True)
class PodCondition:
    """What the API server says of a pod."""

    is_ready: bool = True
    is_terminating: bool = False
    exists: bool = True


def pod_of(endpoint: Endpoint, endpoint_slice: EndpointSlice) -> str | None:
    """Return the pod, `namespace/name`, that an endpoint stands for; None: none."""
    reference = endpoint.target_ref
    if reference is None or reference.kind != "Pod":
        return None
    return f"{reference.namespace or endpoint_slice.namespace}/{reference.name}"


def conditions_at_start(slices: Iterable[EndpointSlice]) -> dict[str, PodCondition]:
    """Return the condition of every pod that is an endpoint, as the slices tell it."""
    found: dict[str, PodCondition] = {}
    for each in slices:
        for endpoint in each.endpoints:
            pod, told = pod_of(endpoint, each), endpoint.conditions
            if pod is not None:
                serving = told.ready if told.serving is None else told.serving
                found.setdefault(pod, PodCondition(serving is not False, bool(told.terminating)))
    return found


def with_conditions(
    slices: Sequence[EndpointSlice], services: Iterable[Service], changed: Mapping[str, PodCondition]
) -> tuple[EndpointSlice, ...]:
    """Return the slices once some pods are in another condition; slices without any of these are the same objects."""
    published = {(each.namespace, each.name) for each in services if each.publish_not_ready_addresses}
    made = []
    for each in slices:
        if any(pod_of(endpoint, each) in changed for endpoint in each.endpoints):
            publishes = (each.namespace, each.service_name) in published
            endpoints = (_endpoint(endpoint, changed.get(pod_of(endpoint, each) or ""), publishes)
                         for endpoint in each.endpoints)  # fmt: skip
            each = replace(each, endpoints=tuple(endpoint for endpoint in endpoints if endpoint is not None))
        made.append(each)
    return tuple(made)


def _endpoint(endpoint: Endpoint, pod: PodCondition | None, publishes: bool) -> Endpoint | None:
    if pod is None:
        return endpoint
    if not pod.exists:
        return None
    ready = publishes or (pod.is_ready and not pod.is_terminating)
    return replace(endpoint, conditions=EndpointConditions(ready, pod.is_ready, pod.is_terminating))
