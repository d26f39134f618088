"""Pods, what makes Pods, Nodes and Namespaces: from the API's fields to `simnet.model.kubernetes`.

A Pod without a Ready condition counts as ready unless its phase says otherwise: hand-written Pods have no status, and
people trim it from dumps. Addresses that a status holds and that are none (redacted, truncated) are left out with a
warning.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from simnet.config.kubernetes_fields import (
    HIDDEN,
    ApiModel,
    ApiObject,
    CIDRText,
    Metadata,
    OptionalCIDRText,
    OptionalPort,
    Port,
    Protocol,
    TextMap,
    Whole,
    pairs,
    parse_ip,
    refuse,
)
from simnet.config.kubernetes_source import Source, describe
from simnet.model.kubernetes import ContainerPort, Namespace, Node, Pod, Taint, Workload

MAX_REPLICAS = 1_000_000
DEFAULT_GRACE_PERIOD_SECONDS = 30  # as the API server fills it in
MOST_SECONDS = 10**6
_QUANTITY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(m|k)?")


def _grace_period(value: int) -> int:
    if not 0 <= value <= MOST_SECONDS:
        raise refuse(f"0 to {MOST_SECONDS:,} seconds", "use the seconds that the pod may take to end")
    return value


class _ContainerPort(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"hostIP"})
    name: str = ""
    container_port: Port
    protocol: Protocol = "TCP"
    host_port: OptionalPort = 0


class _Container(ApiModel):
    ports: list[_ContainerPort] = Field(default_factory=list)
    readiness_probe: object = None
    restart_policy: str = ""


class _PodSpec(ApiModel):
    containers: list[_Container] = Field(default_factory=list)
    init_containers: list[_Container] = Field(default_factory=list)
    node_name: str | None = None
    node_selector: TextMap = Field(default_factory=dict)
    host_network: bool = False
    termination_grace_period_seconds: Annotated[Whole, AfterValidator(_grace_period)] = DEFAULT_GRACE_PERIOD_SECONDS

    def container_ports(self) -> tuple[ContainerPort, ...]:
        """Return the ports of all containers that stay: sidecars are init containers with restartPolicy Always."""
        sidecars = [container for container in self.init_containers if container.restart_policy == "Always"]
        return tuple(
            ContainerPort(port.name, port.container_port, port.protocol, port.host_port)
            for container in (*self.containers, *sidecars)
            for port in container.ports
        )


class _Condition(ApiModel):
    type: str = ""
    status: str = ""


class _PodIP(ApiModel):
    ip: str = ""


class _PodStatus(ApiModel):
    phase: str = ""
    conditions: list[_Condition] = Field(default_factory=list)
    pod_ip: str = Field("", alias="podIP")
    pod_ips: list[_PodIP] = Field(default_factory=list, alias="podIPs")
    host_ip: str = Field("", alias="hostIP")


class _Pod(ApiObject):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"apiVersion", "kind"})
    spec: _PodSpec = Field(default_factory=_PodSpec)
    status: _PodStatus = Field(default_factory=_PodStatus)


def _is_ready(conditions: list[_Condition], otherwise: bool) -> bool:
    return next((condition.status == "True" for condition in conditions if condition.type == "Ready"), otherwise)


def read_pod(source: Source, namespace: str, name: str) -> Pod | None:
    """Return the Pod, or report what is wrong with it and return None."""
    checked = source.read(_Pod)
    if checked is None:
        return None
    spec, status, metadata = checked.spec, checked.status, checked.metadata
    texts = [entry.ip for entry in status.pod_ips if entry.ip] or ([status.pod_ip] if status.pod_ip else [])
    is_single = not status.pod_ips
    pod_ips: list[str] = []
    for index, text in enumerate(texts):
        if HIDDEN in text:
            continue
        try:
            pod_ips.append(parse_ip(text))
        except ValueError:
            source.warn(
                ("status", "podIP") if is_single else ("status", "podIPs", index, "ip"),
                describe(text),
                "an IP address",
                "it is left out",
            )
    try:
        host_ip = parse_ip(status.host_ip) if status.host_ip and HIDDEN not in status.host_ip else ""
    except ValueError:
        host_ip = ""
        source.warn(("status", "hostIP"), describe(status.host_ip), "an IP address", "it is left out")
    return Pod(
        namespace=namespace,
        name=name,
        labels=pairs(metadata.labels),
        annotations=pairs(metadata.annotations),
        node_name=spec.node_name or None,
        pod_ips=tuple(pod_ips),
        host_ip=host_ip,
        host_network=spec.host_network,
        phase=status.phase,
        ready=_is_ready(status.conditions, status.phase in ("", "Running")),
        terminating=metadata.deletion_timestamp is not None,
        container_ports=spec.container_ports(),
        owner=metadata.controller(namespace),
        termination_grace_period_seconds=spec.termination_grace_period_seconds,
        position=source.position,
    )


def _replicas(value: int) -> int:
    if not 0 <= value <= MAX_REPLICAS:
        raise refuse(f"0 to {MAX_REPLICAS:,} replicas", "use the number of Pods that is meant")
    return value


class _Template(ApiModel):
    metadata: Metadata = Field(default_factory=Metadata)
    spec: _PodSpec = Field(default_factory=_PodSpec)


class _LabelSelector(ApiModel):
    match_labels: TextMap = Field(default_factory=dict)


_WORKLOAD_FIELDS = frozenset(
    [
        "strategy",
        "updateStrategy",
        "minReadySeconds",
        "revisionHistoryLimit",
        "paused",
        "progressDeadlineSeconds",
        "rollbackTo",
        "volumeClaimTemplates",
        "podManagementPolicy",
        "persistentVolumeClaimRetentionPolicy",
        "ordinals",
        "templateGeneration",
        "serviceName",
        "replicas",
    ]
)


class _WorkloadSpec(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = _WORKLOAD_FIELDS
    replicas: Annotated[Whole, AfterValidator(_replicas)] = 1
    selector: _LabelSelector = Field(default_factory=_LabelSelector)
    template: _Template = Field(default_factory=_Template)
    service_name: str = ""


class _ReplicationControllerSpec(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"minReadySeconds"})
    replicas: Annotated[Whole, AfterValidator(_replicas)] = 1
    selector: TextMap = Field(default_factory=dict)
    template: _Template = Field(default_factory=_Template)


class _Workload(ApiObject):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"apiVersion", "kind", "status"})
    spec: _WorkloadSpec = Field(default_factory=_WorkloadSpec)


class _ReplicationController(ApiObject):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"apiVersion", "kind", "status"})
    spec: _ReplicationControllerSpec = Field(default_factory=_ReplicationControllerSpec)


def read_workload(source: Source, namespace: str, name: str) -> Workload | None:
    """Return what makes Pods, or report what is wrong with it and return None."""
    checked: _Workload | _ReplicationController | None
    if source.kind == "ReplicationController":
        checked = controller = source.read(_ReplicationController)
        selector = controller.spec.selector if controller else {}
        service_name = ""
    else:
        checked = workload = source.read(_Workload)
        selector = workload.spec.selector.match_labels if workload else {}
        service_name = workload.spec.service_name if workload else ""
    if checked is None:
        return None
    template = checked.spec.template
    pod_labels = template.metadata.labels
    return Workload(
        kind=source.kind,
        namespace=namespace,
        name=name,
        replicas=None if source.kind == "DaemonSet" else checked.spec.replicas,
        selector=pairs(selector or pod_labels),  # as the API defaults it for the older kinds
        labels=pairs(checked.metadata.labels),
        pod_labels=pairs(pod_labels),
        pod_annotations=pairs(template.metadata.annotations),
        container_ports=template.spec.container_ports(),
        host_network=template.spec.host_network,
        node_selector=pairs(template.spec.node_selector),
        node_name=template.spec.node_name or None,
        has_readiness_probe=any(container.readiness_probe is not None for container in template.spec.containers),
        service_name=service_name,
        owner=checked.metadata.controller(namespace),
        termination_grace_period_seconds=template.spec.termination_grace_period_seconds,
        position=source.position,
    )


class _NodeAddress(ApiModel):
    type: str = ""
    address: str = ""


class _Taint(ApiModel):
    key: str = ""
    value: str = ""
    effect: str = ""


class _NodeSpec(ApiModel):
    pod_cidr: OptionalCIDRText = Field("", alias="podCIDR")
    pod_cidrs: list[CIDRText] = Field(default_factory=list, alias="podCIDRs")
    unschedulable: bool = False
    taints: list[_Taint] = Field(default_factory=list)


class _NodeStatus(ApiModel):
    addresses: list[_NodeAddress] = Field(default_factory=list)
    conditions: list[_Condition] = Field(default_factory=list)
    capacity: dict[str, object] = Field(default_factory=dict)


class _Node(ApiObject):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"apiVersion", "kind"})
    spec: _NodeSpec = Field(default_factory=_NodeSpec)
    status: _NodeStatus = Field(default_factory=_NodeStatus)


def read_node(source: Source, _namespace: str, name: str) -> Node | None:
    """Return the Node, or report what is wrong with it and return None."""
    checked = source.read(_Node)
    if checked is None:
        return None
    addresses: list[tuple[str, str]] = []
    for index, entry in enumerate(checked.status.addresses):
        text = entry.address
        if entry.type in ("InternalIP", "ExternalIP"):
            if HIDDEN in text:
                source.warn(
                    ("status", "addresses", index, "address"),
                    describe(text),
                    "an IP address",
                    "it is left out",
                )
                continue
            try:
                text = parse_ip(text)
            except ValueError:
                source.warn(
                    ("status", "addresses", index, "address"),
                    describe(text),
                    "an IP address",
                    "it is left out",
                )
                continue
        addresses.append((entry.type, text))
    spec, metadata = checked.spec, checked.metadata
    return Node(
        name=name,
        addresses=tuple(addresses),
        pod_cidrs=tuple(cidr for cidr in spec.pod_cidrs if cidr) or ((spec.pod_cidr,) if spec.pod_cidr else ()),
        labels=pairs(metadata.labels),
        annotations=pairs(metadata.annotations),
        taints=tuple(Taint(taint.key, taint.value, taint.effect) for taint in spec.taints),
        ready=_is_ready(checked.status.conditions, True),
        unschedulable=spec.unschedulable,
        cpus=_cpus(checked.status.capacity.get("cpu")),
        position=source.position,
    )


def _cpus(quantity: object) -> float | None:
    """Return a quantity such as 4, "4" or "3920m" as a number of CPUs, None for anything else."""
    if isinstance(quantity, int | float) and not isinstance(quantity, bool):
        return float(quantity)
    matched = _QUANTITY.fullmatch(quantity) if isinstance(quantity, str) else None
    if matched is None:
        return None
    return float(matched[1]) * {"m": 0.001, "k": 1000.0}.get(matched[2] or "", 1.0)


class _Namespace(ApiObject):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"apiVersion", "kind", "spec", "status"})


def read_namespace(source: Source, _namespace: str, name: str) -> Namespace | None:
    """Return the Namespace, or report what is wrong with it and return None."""
    checked = source.read(_Namespace)
    if checked is None:
        return None
    return Namespace(name, pairs(checked.metadata.labels), pairs(checked.metadata.annotations), source.position)
