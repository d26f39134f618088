"""EndpointSlices for Services, as the endpoint slice controller derives them from pods.

Slices that the input holds are taken as they are; failing those an Endpoints object of the Service's name is
mirrored; failing that the Service's selector picks pods. Modelled: readiness, termination, named and numeric target
ports per pod, 100 endpoints a slice, zone and node hints of `trafficDistribution`. Left out: the topology-mode
annotation's allocation by CPU. Source: Kubernetes, "EndpointSlices"; KEP-752, KEP-4444, KEP-3015.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from simnet.controlplane.kubernetes.scheduling import ScheduledPod
from simnet.model.kubernetes import (
    HEADLESS,
    Endpoint,
    EndpointConditions,
    EndpointPort,
    Endpoints,
    EndpointSlice,
    ObjectReference,
    Service,
)

ENDPOINTS_PER_SLICE = 100


def endpoint_slices(
    services: Sequence[Service],
    pods: Sequence[ScheduledPod],
    *,
    given: Sequence[EndpointSlice],
    endpoints: Sequence[Endpoints],
    zone_of_node: Mapping[str, str],
) -> tuple[EndpointSlice, ...]:
    """Return all slices of a cluster: the given ones, then the mirrored and derived ones in the order of the services.

    `pods` have their addresses. A Service without selector, slices and Endpoints object gets none.
    """
    has_slices = {(each.namespace, each.service_name) for each in given}
    by_name = {(each.namespace, each.name): each for each in endpoints}
    by_label: dict[tuple[str, tuple[str, str]], list[ScheduledPod]] = defaultdict(list)
    for pod in pods:
        for label in pod.labels:
            by_label[pod.namespace, label].append(pod)
    made: list[EndpointSlice] = []
    for service in services:
        key = (service.namespace, service.name)
        if key in has_slices or service.type == "ExternalName":
            continue
        mirrored = by_name.get(key)
        if mirrored is not None and mirrored.subsets:
            made += _mirror(service, mirrored, zone_of_node)
        elif service.selector:
            chosen = set(service.selector)
            rarest = min((by_label.get((service.namespace, label), []) for label in service.selector), key=len)
            selected = [pod for pod in rarest if chosen <= set(pod.labels)]
            made += _derive(service, selected, zone_of_node)
    return tuple(given) + tuple(made)


def _families(service: Service) -> tuple[str, ...]:
    if service.ip_families:
        return service.ip_families
    if service.cluster_ip in ("", HEADLESS):
        return ("IPv4", "IPv6")
    return ("IPv6",) if ":" in service.cluster_ip else ("IPv4",)


def _derive(service: Service, pods: Iterable[ScheduledPod], zone_of_node: Mapping[str, str]) -> Iterable[EndpointSlice]:
    pods = list(pods)
    for family in _families(service):
        by_ports: dict[tuple[EndpointPort, ...], list[Endpoint]] = {}
        for pod in pods:
            address = next((each for each in pod.addresses if (":" in each) == (family == "IPv6")), None)
            if address is not None:
                ports = tuple(_resolved_ports(service, pod))
                by_ports.setdefault(ports, []).append(_endpoint(service, pod, address, zone_of_node))
        for ports, members in by_ports.items():
            yield from _slices(service, family, ports, members)


def _resolved_ports(service: Service, pod: ScheduledPod) -> Iterable[EndpointPort]:
    for port in service.ports:
        if isinstance(port.target_port, int):
            yield EndpointPort(port.name, port.protocol, port.target_port)
            continue
        for declared in pod.container_ports:
            if declared.name == port.target_port and declared.protocol == port.protocol:
                yield EndpointPort(port.name, port.protocol, declared.container_port)
                break


def _endpoint(service: Service, pod: ScheduledPod, address: str, zone_of_node: Mapping[str, str]) -> Endpoint:
    ready = service.publish_not_ready_addresses or (pod.ready and not pod.terminating)
    zone = zone_of_node.get(pod.node)
    distribution = service.traffic_distribution
    by_zone = distribution in ("PreferClose", "PreferSameZone", "PreferSameNode") and zone is not None
    return Endpoint(
        addresses=(address,),
        conditions=EndpointConditions(ready, pod.ready, pod.terminating),
        node_name=pod.node,
        zone=zone,
        target_ref=ObjectReference("Pod", pod.name, pod.namespace),
        hints_for_zones=(zone,) if by_zone and zone is not None else None,
        hints_for_nodes=(pod.node,) if distribution == "PreferSameNode" else None,
    )


def _mirror(service: Service, endpoints: Endpoints, zone_of_node: Mapping[str, str]) -> Iterable[EndpointSlice]:
    for subset in endpoints.subsets:
        for family in ("IPv4", "IPv6"):
            members = [
                Endpoint(
                    addresses=(each.ip,),
                    conditions=EndpointConditions(ready, ready, False),
                    hostname=each.hostname,
                    node_name=each.node_name,
                    zone=zone_of_node.get(each.node_name) if each.node_name else None,
                    target_ref=each.target_ref,
                )
                for ready, group in ((True, subset.addresses), (False, subset.not_ready_addresses))
                for each in group
                if (":" in each.ip) == (family == "IPv6")
            ]
            if members:
                ports = tuple(EndpointPort(port.name or "", port.protocol, port.port) for port in subset.ports)
                yield from _slices(service, family, ports, members)


def _slices(
    service: Service, family: str, ports: tuple[EndpointPort, ...], members: Sequence[Endpoint]
) -> Iterable[EndpointSlice]:
    for start in range(0, len(members), ENDPOINTS_PER_SLICE):
        digest = sha256(f"{service.namespace}/{service.name}/{family}/{ports}/{start}".encode()).hexdigest()[:5]
        yield EndpointSlice(
            namespace=service.namespace,
            name=f"{service.name}-{digest}",
            service_name=service.name,
            address_type=family,
            endpoints=tuple(members[start : start + ENDPOINTS_PER_SLICE]),
            ports=ports,
            position=service.position,
        )
