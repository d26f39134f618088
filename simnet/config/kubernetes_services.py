"""Service, EndpointSlice and Endpoints: from the API's fields to `simnet.model.kubernetes`.

Refused is what the API server refuses and no simulation could mean: a protocol or port that does not exist, an
address that is none. What kube-proxy can live with (ports without names, an ExternalName with a clusterIP, a Service
without ports) loads.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from simnet.config.kubernetes_fields import (
    HIDDEN,
    ApiModel,
    ApiObject,
    CIDRText,
    ClusterIPText,
    IPText,
    OptionalPort,
    Port,
    Protocol,
    TargetPort,
    TextMap,
    Whole,
    family_of,
    is_ip,
    pairs,
    parse_ip,
    refuse,
)
from simnet.config.kubernetes_source import Source, describe
from simnet.model.kubernetes import (
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointAddress,
    EndpointConditions,
    EndpointPort,
    Endpoints,
    EndpointSlice,
    EndpointSubset,
    LoadBalancerIngress,
    ObjectReference,
    Service,
    ServicePort,
)

HOSTNAME_LABEL = "kubernetes.io/hostname"


def _empty_as(default: str) -> BeforeValidator:
    return BeforeValidator(lambda value: default if value == "" else value)


def _seconds(value: int) -> int:
    if not 1 <= value <= 86400:
        raise refuse("1 to 86400 seconds", "the API's default is 10800 (three hours)")
    return value


class _ServicePort(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"appProtocol"})
    name: str = ""
    protocol: Protocol = "TCP"
    port: Port
    target_port: TargetPort = 0
    node_port: OptionalPort = 0


class _ClientIP(ApiModel):
    timeout_seconds: Annotated[Whole, AfterValidator(_seconds)] = 10800


class _SessionAffinityConfig(ApiModel):
    client_ip: _ClientIP = Field(default_factory=_ClientIP, alias="clientIP")


class _ServiceSpec(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset(
        {"topologyKeys", "portalIP", "deprecatedPublicIPs", "createExternalLoadBalancer"}
    )
    type: Annotated[Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"], _empty_as("ClusterIP")] = (
        "ClusterIP"
    )
    cluster_ip: ClusterIPText = Field("", alias="clusterIP")
    cluster_ips: list[ClusterIPText] = Field(default_factory=list, alias="clusterIPs")
    ip_family: Literal["IPv4", "IPv6"] | None = None  # 1.16 to 1.19
    ip_families: list[Literal["IPv4", "IPv6"]] | None = None
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = None
    ports: list[_ServicePort] = Field(default_factory=list)
    selector: TextMap | None = None
    external_ips: list[IPText] = Field(default_factory=list, alias="externalIPs")
    load_balancer_ip: str = Field("", alias="loadBalancerIP")
    load_balancer_class: str | None = None
    load_balancer_source_ranges: list[CIDRText] = Field(default_factory=list)
    allocate_load_balancer_node_ports: bool = True
    external_traffic_policy: Annotated[Literal["Cluster", "Local"], _empty_as("Cluster")] = "Cluster"
    internal_traffic_policy: Annotated[Literal["Cluster", "Local"], _empty_as("Cluster")] = "Cluster"
    session_affinity: Annotated[Literal["None", "ClientIP"], _empty_as("None")] = "None"
    session_affinity_config: _SessionAffinityConfig = Field(default_factory=_SessionAffinityConfig)
    health_check_node_port: OptionalPort = 0
    publish_not_ready_addresses: bool = False
    traffic_distribution: Literal["PreferClose", "PreferSameZone", "PreferSameNode"] | None = None
    external_name: str = ""


class _Ingress(ApiModel):
    ip: str = ""
    hostname: str = ""
    ip_mode: Literal["VIP", "Proxy"] = "VIP"


class _LoadBalancerStatus(ApiModel):
    ingress: list[_Ingress] = Field(default_factory=list)


class _ServiceStatus(ApiModel):
    load_balancer: _LoadBalancerStatus = Field(default_factory=_LoadBalancerStatus)


class _Service(ApiObject):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"apiVersion", "kind"})
    spec: _ServiceSpec = Field(default_factory=_ServiceSpec)
    status: _ServiceStatus = Field(default_factory=_ServiceStatus)


class _HeldPort(_ServicePort):
    port: OptionalPort = 0


class _HeldSpec(_ServiceSpec):
    ports: list[_HeldPort] = Field(default_factory=list)  # type: ignore[assignment]


class _HeldService(_Service):
    """A Service as some program holds it, not as a user writes it: kube-proxy's own tests leave its port out."""

    spec: _HeldSpec = Field(default_factory=_HeldSpec)


def read_service(source: Source, namespace: str, name: str) -> Service | None:
    """Return the Service, or report what is wrong with it and return None."""
    checked = source.read(_HeldService if _is_held(source) else _Service)
    if checked is None:
        return None
    spec = checked.spec
    ports = tuple(
        ServicePort(port.name, port.protocol, port.port, port.target_port or port.port, port.node_port)
        for port in spec.ports
    )
    _check_ports(source, ports, spec.type)
    cluster_ips = tuple(ip for ip in spec.cluster_ips if ip)
    if spec.cluster_ip and cluster_ips and cluster_ips[0] != spec.cluster_ip:
        source.warn(
            ("spec", "clusterIPs", 0),
            describe(cluster_ips[0]),
            f"the same as clusterIP, {spec.cluster_ip!r}",
            "make the two agree; kube-proxy goes by clusterIPs",
        )
    return Service(
        namespace=namespace,
        name=name,
        type=spec.type,
        cluster_ip=spec.cluster_ip or (cluster_ips[0] if cluster_ips else ""),
        cluster_ips=cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ()),
        ip_families=tuple(spec.ip_families) if spec.ip_families else (spec.ip_family,) if spec.ip_family else None,
        ip_family_policy=spec.ip_family_policy,
        ports=ports,
        selector=pairs(spec.selector) if spec.selector else None,
        external_ips=tuple(ip for ip in spec.external_ips if ip),
        load_balancer_ip=_status_ip(source, ("spec", "loadBalancerIP"), spec.load_balancer_ip),
        load_balancer_class=spec.load_balancer_class,
        load_balancer_ingress=_ingress(source, checked.status.load_balancer.ingress),
        load_balancer_source_ranges=tuple(cidr for cidr in spec.load_balancer_source_ranges if cidr),
        allocate_load_balancer_node_ports=spec.allocate_load_balancer_node_ports,
        external_traffic_policy=spec.external_traffic_policy,
        internal_traffic_policy=spec.internal_traffic_policy,
        session_affinity=spec.session_affinity,
        session_affinity_timeout_seconds=spec.session_affinity_config.client_ip.timeout_seconds,
        health_check_node_port=spec.health_check_node_port,
        publish_not_ready_addresses=spec.publish_not_ready_addresses,
        traffic_distribution=spec.traffic_distribution,
        external_name=spec.external_name,
        labels=pairs(checked.metadata.labels),
        annotations=pairs(checked.metadata.annotations),
        # `kubectl create --dry-run` prints an empty status too, but no cluster IP
        is_served=bool(spec.cluster_ip) and "status" in checked.model_fields_set,
        position=source.position,
    )


def _is_held(source: Source) -> bool:
    """Whether it was taken out of a cluster or a program: users write no status and no cluster IP."""
    spec = source.data.get("spec")
    return isinstance(spec, dict) and bool(spec.get("clusterIP")) and isinstance(source.data.get("status"), dict)


def _check_ports(source: Source, ports: tuple[ServicePort, ...], service_type: str) -> None:
    numbers: dict[tuple[str, int], int] = {}
    names: dict[str, int] = {}
    for index, port in enumerate(ports):
        if not port.port:
            source.warn(
                ("spec", "ports", index), "no port", "the field port", "kube-proxy writes --dport 0; the API refuses it"
            )
        first = numbers.setdefault((port.protocol, port.port), index)
        if first != index:
            source.refuse(
                ("spec", "ports", index, "port"),
                f"{port.protocol} port {port.port} twice: ports[{first}] and ports[{index}]",
                "each protocol and port once in a Service",
                "remove one of the two",
            )
        if names.setdefault(port.name, index) != index:
            source.warn(
                ("spec", "ports", index),
                f"the name {port.name!r} again" if port.name else "a port without a name",
                "a name of its own for each port where there are several",
                "name the ports",
            )
        if port.node_port and service_type in ("ClusterIP", "ExternalName"):
            source.warn(
                ("spec", "ports", index, "nodePort"),
                f"nodePort {port.node_port} on type {service_type}",
                "no nodePort, or type NodePort or LoadBalancer",
                "remove nodePort, or set type: NodePort",
            )
    if not ports and service_type != "ExternalName" and (source.data.get("spec") or {}).get("clusterIP") != "None":
        source.warn(("spec",), "no ports", "at least one port", "without ports nothing can be sent to it")


def _status_ip(source: Source, path: tuple[str | int, ...], text: str) -> str:
    """Return an address that a controller wrote, "" with a warning where it is none: kube-proxy skips such a one."""
    if not text or HIDDEN in text:
        return ""
    try:
        return parse_ip(text)
    except ValueError:
        source.warn(path, describe(text), "an IP address", "it is left out, as kube-proxy would leave it out")
        return ""


def _ingress(source: Source, entries: list[_Ingress]) -> tuple[LoadBalancerIngress, ...]:
    result: list[LoadBalancerIngress] = []
    for index, entry in enumerate(entries):
        ip = _status_ip(source, ("status", "loadBalancer", "ingress", index, "ip"), entry.ip)
        if ip or entry.hostname:
            result.append(LoadBalancerIngress(ip, entry.hostname, entry.ip_mode))
    return tuple(result)


class _TargetReference(ApiModel):
    kind: str = ""
    namespace: str = ""
    name: str = ""

    def reference(self) -> ObjectReference:
        return ObjectReference(self.kind, self.name, self.namespace)


class _Hint(ApiModel):
    name: str = ""


class _Hints(ApiModel):
    for_zones: list[_Hint] | None = None
    for_nodes: list[_Hint] | None = None


class _Conditions(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset()
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Endpoint(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"deprecatedTopology"})
    addresses: list[str] = Field(default_factory=list)
    conditions: _Conditions = Field(default_factory=_Conditions)
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: _TargetReference | None = None
    hints: _Hints | None = None
    topology: TextMap = Field(default_factory=dict)  # v1beta1


class _EndpointPort(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"appProtocol"})
    name: str | None = None
    protocol: Protocol = "TCP"
    port: OptionalPort | None = None  # 0: kube-proxy passes it over, as it does one that is absent

    def model(self) -> EndpointPort:
        return EndpointPort(self.name, self.protocol, self.port)


class _EndpointSlice(ApiObject):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"apiVersion", "kind"})
    address_type: Literal["IPv4", "IPv6", "FQDN", "IP"] | None = None  # IP: v1alpha1
    endpoints: list[_Endpoint] = Field(default_factory=list)
    ports: list[_EndpointPort] = Field(default_factory=list)


def read_endpoint_slice(source: Source, namespace: str, name: str) -> EndpointSlice | None:
    """Return the EndpointSlice, or report what is wrong with it and return None."""
    checked = source.read(_EndpointSlice)
    has_good_addresses = _check_addresses(source)
    if checked is None or not has_good_addresses:
        return None
    address_type: str | None = checked.address_type
    if address_type is None or address_type == "IP":
        address_type = next((family_of(one.addresses[0]) for one in checked.endpoints if one.addresses), "IPv4")
        if checked.address_type is None:
            source.warn(
                ("addressType",),
                "no addressType",
                "IPv4, IPv6 or FQDN",
                f"taken as {address_type}, from its addresses",
            )
    labels = checked.metadata.labels
    return EndpointSlice(
        namespace=namespace,
        name=name,
        service_name=labels.get(SERVICE_NAME_LABEL, ""),
        address_type=address_type,
        endpoints=tuple(_endpoint(one) for one in checked.endpoints),
        ports=tuple(port.model() for port in checked.ports),
        labels=pairs(labels),
        position=source.position,
    )


def _check_addresses(source: Source) -> bool:
    """Report addresses that are none of the slice's family; on the raw data, so that other mistakes hide none."""
    family, endpoints = source.data.get("addressType"), source.data.get("endpoints")
    is_good = True
    if family == "FQDN" or not isinstance(endpoints, list):
        return is_good
    if family not in ("IPv4", "IPv6"):
        family = None
    for index, endpoint in enumerate(endpoints):
        addresses = endpoint.get("addresses") if isinstance(endpoint, dict) else None
        for number, text in enumerate(addresses if isinstance(addresses, list) else []):
            if not isinstance(text, str) or HIDDEN in text:
                continue
            if is_ip(text) and family in (None, family_of(parse_ip(text))):
                continue
            is_good = False
            source.refuse(
                ("endpoints", index, "addresses", number),
                describe(text),
                f"an {family or 'IP'} address",
                f"write an {family or 'IP'} address, or change addressType",
            )
    return is_good


def _endpoint(checked: _Endpoint) -> Endpoint:
    addresses = tuple(parse_ip(text) if is_ip(text) else text for text in checked.addresses if HIDDEN not in text)
    hints, conditions = checked.hints, checked.conditions
    return Endpoint(
        addresses=addresses,
        conditions=EndpointConditions(conditions.ready, conditions.serving, conditions.terminating),
        hostname=checked.hostname,
        node_name=checked.node_name or checked.topology.get(HOSTNAME_LABEL),
        zone=checked.zone or checked.topology.get("topology.kubernetes.io/zone"),
        target_ref=checked.target_ref.reference() if checked.target_ref else None,
        hints_for_zones=tuple(hint.name for hint in hints.for_zones) if hints and hints.for_zones else None,
        hints_for_nodes=tuple(hint.name for hint in hints.for_nodes) if hints and hints.for_nodes else None,
    )


class _EndpointAddress(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset()
    ip: IPText
    hostname: str | None = None
    node_name: str | None = None
    target_ref: _TargetReference | None = None

    def model(self) -> EndpointAddress:
        target = self.target_ref.reference() if self.target_ref else None
        return EndpointAddress(self.ip, self.hostname, self.node_name, target)


class _EndpointSubset(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset()
    addresses: list[_EndpointAddress] = Field(default_factory=list)
    not_ready_addresses: list[_EndpointAddress] = Field(default_factory=list)
    ports: list[_EndpointPort] = Field(default_factory=list)


class _Endpoints(ApiObject):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"apiVersion", "kind"})
    subsets: list[_EndpointSubset] = Field(default_factory=list)


def read_endpoints(source: Source, namespace: str, name: str) -> Endpoints | None:
    """Return the Endpoints, or report what is wrong with it and return None."""
    checked = source.read(_Endpoints)
    if checked is None:
        return None
    subsets = tuple(
        EndpointSubset(
            tuple(address.model() for address in subset.addresses if address.ip),
            tuple(address.model() for address in subset.not_ready_addresses if address.ip),
            tuple(port.model() for port in subset.ports),
        )
        for subset in checked.subsets
    )
    metadata = checked.metadata
    return Endpoints(namespace, name, subsets, pairs(metadata.labels), pairs(metadata.annotations), source.position)
