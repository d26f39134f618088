"""A cluster that is ready to run: every object addressed, placed and wired, as the control plane would have left it.

Made by `simnet.engine.materialise` from what the user gave; everything after it trusts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from simnet.errors import Problem
from simnet.model.fabric import Fabric
from simnet.model.fib import Fib
from simnet.model.iptables.ruleset import Ruleset
from simnet.model.kube_proxy import KubeProxyConfiguration
from simnet.model.kubernetes import EndpointSlice, Service


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node with all that its tables depend on."""

    name: str
    addresses: tuple[str, ...]  # on its interfaces, primary first
    labels: Mapping[str, str]
    pod_cidrs: tuple[str, ...] = ()
    cpus: int = 4
    as_number: int = 64512
    route_reflector_cluster_id: str = ""  # of a node that reflects
    rp_filter: str = "none"  # net.ipv4.conf.*.rp_filter: "none", "strict", "loose"
    tunnel_addresses: tuple[str, ...] = ()  # of tunl0, of vxlan.calico, where there are such


@dataclass(frozen=True, slots=True)
class ClusterPod:
    """A pod that runs on a node and has an address."""

    namespace: str
    name: str
    node: str
    addresses: tuple[str, ...]  # one a family
    host_network: bool
    ready: bool
    listening: tuple[tuple[str, int], ...] | None = None  # (protocol, port); None: not known, all ports answer
    termination_grace_period_seconds: int = 30
    is_evictable: bool = True  # a drain deletes it: not of a DaemonSet, not static, no client of simnet's own

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Block:
    """An IPAM block: a CIDR that a node holds, and the addresses borrowed from it by pods elsewhere."""

    cidr: str
    node: str
    borrowed: tuple[tuple[str, str], ...] = ()  # (address, node that holds the pod)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster as of one instant."""

    nodes: tuple[ClusterNode, ...]
    pods: tuple[ClusterPod, ...]
    services: tuple[Service, ...]
    endpoint_slices: tuple[EndpointSlice, ...]
    blocks: tuple[Block, ...]
    kube_proxy: KubeProxyConfiguration
    fabric: Fabric
    fibs: Mapping[str, Fib]  # by device name
    rulesets: Mapping[str, tuple[Ruleset, ...]]  # by node name; one a family
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
