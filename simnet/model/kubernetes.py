"""Kubernetes objects as simnet uses them: frozen values with the API's own field names in snake case.

Only fields that decide where traffic goes are kept. Addresses are canonical text (`172.30.0.041` is `172.30.0.41`), a
field that the API server would default has that default, and `None` stands where "absent" means something of its own.
Maps are tuples of (key, value) pairs in the order of the file, so that objects can be hashed, compared and pickled.
`position` says where an object was read and takes no part in comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from simnet.errors import Position, Problem
from simnet.model.calico import CalicoValue

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""A map of the API (labels, annotations, selectors) as pairs; `dict(pairs)` gives it back."""

HEADLESS = "None"  # what the API writes as clusterIP of a headless Service
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
ZONE_LABEL = "topology.kubernetes.io/zone"
OLD_ZONE_LABEL = "failure-domain.beta.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service."""

    name: str  # "" where there is only one
    protocol: str  # TCP, UDP or SCTP
    port: int
    target_port: int | str  # a number, or the name of a container port; the API's default is `port`
    node_port: int = 0  # 0: none, or not yet allocated


@dataclass(frozen=True, slots=True)
class LoadBalancerIngress:
    """One address that a load balancer announced for a Service, from its status."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str = "VIP"  # VIP, or Proxy: kube-proxy makes no rules for it


@dataclass(frozen=True, slots=True)
class Service:
    """A Service."""

    namespace: str
    name: str
    type: str = "ClusterIP"  # ClusterIP, NodePort, LoadBalancer or ExternalName
    cluster_ip: str = ""  # "": not yet allocated; "None": headless
    cluster_ips: tuple[str, ...] = ()
    ip_families: tuple[str, ...] | None = None  # IPv4, IPv6
    ip_family_policy: str | None = None
    ports: tuple[ServicePort, ...] = ()
    selector: Pairs | None = None  # None: endpoints are made by someone else
    external_ips: tuple[str, ...] = ()
    load_balancer_ip: str = ""
    load_balancer_class: str | None = None
    load_balancer_ingress: tuple[LoadBalancerIngress, ...] = ()
    load_balancer_source_ranges: tuple[str, ...] = ()
    allocate_load_balancer_node_ports: bool = True
    external_traffic_policy: str = "Cluster"
    internal_traffic_policy: str = "Cluster"
    session_affinity: str = "None"
    session_affinity_timeout_seconds: int = 10800
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False
    traffic_distribution: str | None = None
    external_name: str = ""
    labels: Pairs = ()
    annotations: Pairs = ()
    is_served: bool = False  # printed by an API server (it has a status): every number that it lacks is meant to lack
    position: Position = field(default=Position(""), compare=False)

    @property
    def is_headless(self) -> bool:
        """Whether clusterIP is the word None: kube-proxy makes no rules for it."""
        return self.cluster_ip == HEADLESS


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """The object that an endpoint stands for, or that owns a Pod."""

    kind: str
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class EndpointConditions:
    """What an EndpointSlice says of an endpoint; None: not said (ready and serving then count as true)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of an EndpointSlice."""

    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: ObjectReference | None = None
    hints_for_zones: tuple[str, ...] | None = None
    hints_for_nodes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class EndpointPort:
    """One port of an EndpointSlice or Endpoints subset; port None means any, and makes no rules."""

    name: str | None
    protocol: str
    port: int | None


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """An EndpointSlice."""

    namespace: str
    name: str
    service_name: str  # of the label kubernetes.io/service-name; "": belongs to no Service
    address_type: str  # IPv4, IPv6 or FQDN
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()
    labels: Pairs = ()
    position: Position = field(default=Position(""), compare=False)


@dataclass(frozen=True, slots=True)
class EndpointAddress:
    """One address of an Endpoints subset."""

    ip: str
    hostname: str | None = None
    node_name: str | None = None
    target_ref: ObjectReference | None = None


@dataclass(frozen=True, slots=True)
class EndpointSubset:
    """Addresses that share a list of ports."""

    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The older Endpoints object, one per Service and of the Service's name."""

    namespace: str
    name: str
    subsets: tuple[EndpointSubset, ...] = ()
    labels: Pairs = ()
    annotations: Pairs = ()
    position: Position = field(default=Position(""), compare=False)


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port that a container declares."""

    name: str
    container_port: int
    protocol: str = "TCP"
    host_port: int = 0


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod."""

    namespace: str
    name: str
    labels: Pairs = ()
    annotations: Pairs = ()
    node_name: str | None = None
    pod_ips: tuple[str, ...] = ()
    host_ip: str = ""
    host_network: bool = False
    phase: str = ""  # "": no status in the file
    ready: bool = True
    terminating: bool = False
    container_ports: tuple[ContainerPort, ...] = ()
    owner: ObjectReference | None = None  # its controller
    termination_grace_period_seconds: int = 30
    position: Position = field(default=Position(""), compare=False)


@dataclass(frozen=True, slots=True)
class Workload:
    """What makes Pods: Deployment, ReplicaSet, StatefulSet, DaemonSet or ReplicationController."""

    kind: str
    namespace: str
    name: str
    replicas: int | None = 1  # None: one on each node (DaemonSet)
    selector: Pairs = ()  # matchLabels
    labels: Pairs = ()
    pod_labels: Pairs = ()
    pod_annotations: Pairs = ()
    container_ports: tuple[ContainerPort, ...] = ()
    host_network: bool = False
    node_selector: Pairs = ()
    node_name: str | None = None
    has_readiness_probe: bool = False
    service_name: str = ""  # of a StatefulSet
    owner: ObjectReference | None = None  # a ReplicaSet of a Deployment repeats what the Deployment says
    termination_grace_period_seconds: int = 30
    position: Position = field(default=Position(""), compare=False)


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a Node."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Node:
    """A cluster node."""

    name: str
    addresses: tuple[tuple[str, str], ...] = ()  # (type, address), for example ("InternalIP", "10.0.0.1")
    pod_cidrs: tuple[str, ...] = ()
    labels: Pairs = ()
    annotations: Pairs = ()
    taints: tuple[Taint, ...] = ()
    ready: bool = True
    unschedulable: bool = False
    cpus: float | None = None
    position: Position = field(default=Position(""), compare=False)

    @property
    def zone(self) -> str | None:
        """The zone of the node, of its labels (today's label first, then the one before 1.17)."""
        labels = dict(self.labels)
        return labels.get(ZONE_LABEL) or labels.get(OLD_ZONE_LABEL) or None

    @property
    def internal_ips(self) -> tuple[str, ...]:
        """Addresses of type InternalIP, in the order of the object; kube-proxy's node address is the first."""
        return tuple(address for kind, address in self.addresses if kind == "InternalIP")


@dataclass(frozen=True, slots=True)
class Namespace:
    """A Namespace."""

    name: str
    labels: Pairs = ()
    annotations: Pairs = ()
    position: Position = field(default=Position(""), compare=False)


@dataclass(frozen=True, slots=True)
class CalicoResource:
    """A Calico resource: its spec as it stands there, and as `config.calico_resources` reads it."""

    kind: str  # IPPool, BGPConfiguration, BGPPeer, BGPFilter, BlockAffinity, IPAMBlock, Node
    api_version: str
    name: str
    namespace: str = ""
    spec: Mapping[str, object] = field(default_factory=dict, hash=False)
    labels: Pairs = ()
    annotations: Pairs = ()
    position: Position = field(default=Position(""), compare=False)
    value: CalicoValue | None = None  # what `spec` says; None: a kind without a meaning here


@dataclass(frozen=True, slots=True)
class IgnoredObject:
    """An object of a kind that simnet does not read."""

    kind: str
    api_version: str
    name: str
    position: Position = field(default=Position(""), compare=False)


@dataclass(frozen=True, slots=True)
class Objects:
    """All objects of an input, each kind in the order of the files."""

    services: tuple[Service, ...] = ()
    endpoint_slices: tuple[EndpointSlice, ...] = ()
    endpoints: tuple[Endpoints, ...] = ()
    pods: tuple[Pod, ...] = ()
    workloads: tuple[Workload, ...] = ()
    nodes: tuple[Node, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    calico: tuple[CalicoResource, ...] = ()
    ignored: tuple[IgnoredObject, ...] = ()
    warnings: tuple[Problem, ...] = ()  # what loads, though the API server would refuse it or kube-proxy skip it
