"""Which endpoints a service port has, and which of them a node's rules use.

Pure functions of EndpointSlices and a node's name and zone; the rules and the exact shares both rest on
`select_endpoints`.
Modelled: merging of slices, readiness and the fall-back to terminating endpoints, topology hints, both traffic
policies.
Left out: order of slices in time (where two slices disagree about one endpoint, the slice with the later name wins).
Source: kubernetes/kubernetes pkg/proxy/endpointslicecache.go and topology.go, v1.33.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from simnet.controlplane.kube_proxy.addresses import canonical_address
from simnet.controlplane.kube_proxy.service_ports import SKIPPING_LABELS, ServicePortInfo
from simnet.model.iptables.ruleset import Family
from simnet.model.kubernetes import Endpoint, EndpointSlice

_API_FAMILY = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}
EndpointsKey = tuple[str, str, str, str]  # namespace, Service, port name, protocol in lower case


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """One endpoint of one service port."""

    text: str  # `ip:port`, `[ip]:port`
    ip: str
    port: int
    is_ready: bool = True
    is_serving: bool = True
    is_terminating: bool = False
    node_name: str | None = None
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()

    @property
    def is_last_resort(self) -> bool:
        """Whether it serves while nothing better does: serving and terminating."""
        return self.is_serving and self.is_terminating


@dataclass(frozen=True, slots=True)
class EndpointSelection:
    """What a node's rules use of a service port's endpoints; each list is in byte order of the endpoint text."""

    cluster: tuple[EndpointInfo, ...] = ()  # C: spread over by traffic policy Cluster
    local: tuple[EndpointInfo, ...] = ()  # L: spread over by traffic policy Local
    reachable: tuple[EndpointInfo, ...] = ()  # A: all that need a chain
    has_endpoints: bool = False


def endpoints_by_service_port(
    endpoint_slices: Iterable[EndpointSlice], family: Family
) -> dict[EndpointsKey, tuple[EndpointInfo, ...]]:
    """Return the endpoints of every service port that the slices of a family name, each in byte order of its text."""
    merged: dict[EndpointsKey, dict[str, EndpointInfo]] = {}
    for endpoint_slice in sorted(endpoint_slices, key=_slice_order):
        if endpoint_slice.address_type != _API_FAMILY[family] or not endpoint_slice.service_name:
            continue
        if any(key in SKIPPING_LABELS for key, _ in endpoint_slice.labels):
            continue
        for port in endpoint_slice.ports:
            if port.name is None or not port.port:
                continue
            protocol = (port.protocol or "TCP").lower()
            key = (endpoint_slice.namespace, endpoint_slice.service_name, port.name, protocol)
            held = merged.setdefault(key, {})
            for endpoint in endpoint_slice.endpoints:
                info = _endpoint_info(endpoint, port.port, family)
                if info is not None and (info.text not in held or not info.is_terminating):
                    held[info.text] = info
    return {
        key: tuple(held[text] for text in sorted(held))  # the texts are ASCII: this is byte order
        for key, held in merged.items()
    }


def select_endpoints(
    endpoints: tuple[EndpointInfo, ...],
    port: ServicePortInfo,
    *,
    node_name: str,
    zone: str | None,
    uses_node_hints: bool = False,
) -> EndpointSelection:
    """Return which endpoints the rules of a node use for a service port.

    `endpoints` are all of the service port's, sorted by text; `zone` is the node's, None without one.
    """
    cluster: tuple[EndpointInfo, ...] = ()
    local: tuple[EndpointInfo, ...] = ()
    has_endpoints = False
    if port.uses_cluster_endpoints:
        ready = tuple(endpoint for endpoint in endpoints if endpoint.is_ready)
        cluster = ready if port.ignores_hints else nearby(ready, node_name, zone, uses_node_hints)
        cluster = cluster or tuple(endpoint for endpoint in endpoints if endpoint.is_last_resort)
        has_endpoints = bool(cluster)
    if not port.uses_local_endpoints:
        return EndpointSelection(cluster, (), cluster, has_endpoints)

    has_endpoints = has_endpoints or any(endpoint.is_ready or endpoint.is_last_resort for endpoint in endpoints)
    on_node = tuple(endpoint for endpoint in endpoints if endpoint.node_name == node_name)
    local = tuple(endpoint for endpoint in on_node if endpoint.is_ready)
    local = local or tuple(endpoint for endpoint in on_node if endpoint.is_last_resort)
    if not port.uses_cluster_endpoints:
        return EndpointSelection((), local, local, has_endpoints)
    union = {endpoint.text: endpoint for endpoint in (*cluster, *local)}
    reachable = cluster if len(union) == len(cluster) else tuple(union[text] for text in sorted(union))
    return EndpointSelection(cluster, local, reachable, has_endpoints)


def nearby(
    ready: tuple[EndpointInfo, ...], node_name: str, zone: str | None, uses_node_hints: bool
) -> tuple[EndpointInfo, ...]:
    """Return the ready endpoints that topology hints leave to a node: all, unless every one carries a hint."""
    if uses_node_hints and all(endpoint.node_hints for endpoint in ready):
        same_node = tuple(endpoint for endpoint in ready if node_name in endpoint.node_hints)
        if same_node:
            return same_node
    if zone and all(endpoint.zone_hints for endpoint in ready):
        same_zone = tuple(endpoint for endpoint in ready if zone in endpoint.zone_hints)
        if same_zone:
            return same_zone
    return ready


def count_endpoints(
    ports: Iterable[ServicePortInfo], endpoints: Mapping[EndpointsKey, tuple[EndpointInfo, ...]]
) -> int:
    """Return the number of endpoints, ready or not, over all tracked service ports: what makes a cluster large."""
    return sum(len(endpoints.get(port.endpoints_key, ())) for port in ports)


def _slice_order(endpoint_slice: EndpointSlice) -> tuple[str, str]:
    return (endpoint_slice.namespace, endpoint_slice.name)


def _endpoint_info(endpoint: Endpoint, port: int, family: Family) -> EndpointInfo | None:
    ip = canonical_address(endpoint.addresses[0], family) if endpoint.addresses else None
    if ip is None:
        return None
    conditions = endpoint.conditions
    return EndpointInfo(
        f"{ip}:{port}" if family is Family.IPV4 else f"[{ip}]:{port}",
        ip,
        port,
        conditions.ready is not False,
        conditions.serving is not False,
        bool(conditions.terminating),
        endpoint.node_name or None,
        endpoint.hints_for_zones or (),
        endpoint.hints_for_nodes or (),
    )
