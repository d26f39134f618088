"""One scenario: a cluster as the user described it, a workload, an entry point; and the experiment of many.

`config` makes these values from files and has checked them; `engine` materialises the cluster and runs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from simnet.errors import Position, Problem
from simnet.model.calico import CalicoNode, CalicoSettings, FabricSettings
from simnet.model.cluster import Block
from simnet.model.events import Event, RandomFailures
from simnet.model.iptables.modelled import LeftOutRule
from simnet.model.iptables.ruleset import Family
from simnet.model.kube_proxy import KubeProxyConfiguration
from simnet.model.kubernetes import Objects, Pod
from simnet.model.node_lifecycle import NodeLifecycle
from simnet.model.queues import CpuCosts
from simnet.model.workload import ClientPopulation, ClosedLoop, EntryChoice, Workload


class Entry(Enum):
    """The kinds of address at which a service can be called."""

    EXTERNAL_IP = "ExternalIP"
    LOAD_BALANCER_IP = "LoadBalancerIP"
    NODE_PORT = "NodePort"
    CLUSTER_IP = "ClusterIP"
    POD = "Pod"  # the pods' own addresses: no service in between, the baseline


class Placement(Enum):
    """How replicas without a given node are put on nodes."""

    SPREAD = "spread"  # one after the other over all nodes, in node order
    PACKED = "packed"  # as many as fit on the first node, then the next
    RANDOM = "random"  # a pure function of the seed and the pod's name
    EXPLICIT = "explicit"  # counts per node are given


@dataclass(frozen=True, slots=True)
class SavedRules:
    """The text of a real node's rules of one family."""

    family: Family
    text: str
    saved_file: str  # as the user named it, for messages
    left_out: tuple[LeftOutRule, ...] = ()  # what simnet does not model in it, and the user let be left out


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node in simnet's short form."""

    name: str
    addresses: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    cpus: int = 4
    pod_cidrs: tuple[str, ...] = ()
    as_number: int | None = None
    route_reflector_cluster_id: str = ""
    saved_rules: tuple[SavedRules, ...] = ()  # one a family, in place of the generated rules of that family
    switch: str | None = None  # the leaf it hangs off; None: in turn
    rp_filter: str = "none"  # "none", "strict", "loose"


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What the user gave about the cluster; nothing allocated or placed yet."""

    objects: Objects
    nodes: tuple[NodeSpec, ...]  # empty: those of `objects`, or those that its pods name
    kube_proxy: KubeProxyConfiguration
    calico: CalicoSettings
    fabric: FabricSettings
    # Nodes whose address (of a family) nobody gave count up from here; a second family makes the cluster dual-stack.
    first_node_addresses: tuple[str, ...] = ("192.168.64.57",)
    placement: Placement = Placement.SPREAD
    pods_per_node: int = 110  # capacity that `packed` fills
    explicit_placement: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # ns/workload -> node -> pods
    replicas: int | None = None  # overrides every Deployment, ReplicaSet and StatefulSet (a sweep's `replicas`)
    service_overrides: Mapping[str, object] = field(default_factory=dict)  # snake-case Service fields, all services
    service_cidrs: tuple[str, ...] = ("10.96.0.0/12",)
    node_port_range: tuple[int, int] = (30000, 32767)
    load_balancer_pool: str = ""  # CIDR from which LoadBalancer Services without an address get one
    kubernetes_version: str = "1.33"
    # What Calico's resources say beyond `calico`.
    blocks: tuple[Block, ...] = ()  # that nodes hold already: confirmed affinities
    used_addresses: tuple[tuple[str, str], ...] = ()  # (address, node of its pod or empty) of IPAM blocks
    calico_nodes: tuple[CalicoNode, ...] = ()
    cpu: CpuCosts | None = None  # None: nodes take no time
    node_lifecycle: NodeLifecycle = NodeLifecycle()
    replacements: tuple[Pod, ...] = ()  # pods that events start while a run lasts: there from the start, and not ready
    queues: bool = False  # links have queues, be they unlimited, without any of them being described
    warnings: tuple[Problem, ...] = field(default=(), compare=False)  # what was odd in the file but usable

    @property
    def left_out_rules(self) -> tuple[LeftOutRule, ...]:
        """What nodes' saved rules hold that simnet does not model; each file's once, however many nodes share it."""
        return tuple(
            dict.fromkeys(rule for node in self.nodes for saved in node.saved_rules for rule in saved.left_out)
        )


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to call a service; the variants of an experiment meet the same clients, arrivals and sizes."""

    name: str
    entry: Entry
    service: str  # "namespace/name"
    port: str | int | None = None  # name or number; None: the first port of the workload's protocol
    choice: EntryChoice = EntryChoice()  # which node or address each flow calls
    clients: ClientPopulation | None = None  # in place of the workload's; the count must be the same
    position: Position = Position("")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """How long, how often, from which seed."""

    duration_ps: int
    warmup_ps: int = 0
    repeat: int = 1
    seed: int = 1
    window_flows: int = 65536  # flows handled at a time; no result depends on it
    statistic_mode: str = "random"  # as the kernel does it, or the what-if "nth"
    recent_limit: int | None = 100  # addresses per xt_recent list; None: unlimited


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run but for its seed: everything that decides the outcome."""

    cluster: ClusterSpec
    workload: Workload
    variant: Variant
    run: RunSpec
    record: str = "flows"  # "packets", "flows" or "summary"
    events: tuple[Event, ...] = ()  # in order of time
    failures: tuple[RandomFailures, ...] = ()

    @property
    def has_queues(self) -> bool:
        """Whether packets wait for each other: anything that a queue needs was asked for."""
        cluster, fabric = self.cluster, self.cluster.fabric
        of_links = (fabric.link_queue, fabric.client_link_queue, fabric.spine_link_queue, fabric.veth_queue)
        asked = (*of_links, cluster.cpu, self.workload.service)
        return (
            cluster.queues or isinstance(self.workload.arrivals, ClosedLoop) or any(each is not None for each in asked)
        )


@dataclass(frozen=True, slots=True)
class Expectation:
    """A line of `expect:`: a metric of the summary that must hold, or the command exits with 1."""

    metric: str
    equals: float | str | None = None  # a number, or "analytic"
    at_least: float | None = None
    at_most: float | None = None
    tolerance: str | float = "4sigma"  # absolute number, or "<k>sigma" of the estimate
    variant: str | None = None  # None: all
    position: Position = Position("")


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of the experiment: a scenario, the point of the sweep, and the number of the repetition."""

    run_id: str  # hash of the resolved scenario, the seed and the model version
    variant: str
    point: tuple[tuple[str, object], ...]  # swept name -> value, in the order of `sweep:`
    repeat: int
    seed: int
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class Experiment:
    """A checked experiment file."""

    name: str
    question: str
    file: str
    runs: tuple[PlannedRun, ...]
    sweep: tuple[tuple[str, tuple[object, ...]], ...]
    variants: tuple[str, ...]
    record: str
    expect: tuple[Expectation, ...] = ()
    resolved: Mapping[str, object] = field(default_factory=dict)  # the file with every default written out
    warnings: tuple[Problem, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)  # every file that was read -> SHA-256 of its content

    @property
    def left_out_rules(self) -> tuple[LeftOutRule, ...]:
        """What the runs' clusters leave out of saved rules, each once."""
        clusters = {id(run.scenario.cluster): run.scenario.cluster for run in self.runs}
        return tuple(dict.fromkeys(rule for cluster in clusters.values() for rule in cluster.left_out_rules))
