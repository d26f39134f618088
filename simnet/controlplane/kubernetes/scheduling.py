"""Which pods there are, and on which nodes.

Pods that the input holds stay where they are; replicas of workloads whose pods it does not hold are made and placed.
Modelled: replicas, DaemonSets, nodeName, nodeSelector, cordoned and unready nodes, capacity in pods. Left out:
resources, affinity, taints and priorities, so `spread` is the even spread that the default scheduler aims at, not its
every decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import sha256

from simnet.model.cluster import ClusterNode
from simnet.model.kubernetes import ContainerPort, Objects, Pairs, Pod, Workload
from simnet.model.scenario import Placement


@dataclass(frozen=True, slots=True)
class ScheduledPod:
    """A pod with a node; addresses only where the input gave them."""

    namespace: str
    name: str
    labels: Pairs
    node: str
    addresses: tuple[str, ...]
    host_network: bool
    ready: bool
    terminating: bool
    container_ports: tuple[ContainerPort, ...]
    termination_grace_period_seconds: int = 30
    is_evictable: bool = True  # by a drain

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """All pods that run, and those that found no node, with the reason."""

    pods: tuple[ScheduledPod, ...]
    pending: tuple[tuple[str, str], ...]  # (namespace/name, reason)


def schedule(
    objects: Objects,
    nodes: Sequence[ClusterNode],
    *,
    placement: Placement,
    explicit: Mapping[str, Mapping[str, int]],
    replicas: int | None,
    pods_per_node: int,
    seed: int,
    unschedulable: frozenset[str] = frozenset(),
) -> Schedule:
    """Return the pods of a cluster, those of the input first, then those made for each workload in its order.

    `explicit` maps `namespace/workload` (or the bare name) to pods per node and wins over `placement` where it names
    a workload. `replicas` overrides the count of every workload but DaemonSets. Random placement is a pure function
    of the seed and the pod's name.
    """
    placer = _Placer(nodes, placement, pods_per_node, seed, unschedulable)
    pods: list[ScheduledPod] = []
    pending: list[tuple[str, str]] = []

    def add(pod: ScheduledPod | None, key: str, reason: str) -> None:
        if pod is None:
            pending.append((key, reason))
        else:
            pods.append(pod)

    for pod in objects.pods:
        if pod.phase in ("Succeeded", "Failed"):
            continue
        key = f"{pod.namespace}/{pod.name}"
        if pod.phase == "Pending":
            pending.append((key, "its phase is Pending"))
            continue
        node = pod.node_name if pod.node_name else placer.next_node(key, ())
        if node is None or node not in placer.names:
            pending.append((key, f"its node {node!r} is not in the cluster" if node else "no node can take it"))
            continue
        placer.take(node)
        pods.append(given_pod(pod, node))
    workload_names = {(each.kind, each.namespace, each.name) for each in objects.workloads}
    pods_of: dict[str, list[Pod]] = {}
    for pod in objects.pods:
        pods_of.setdefault(pod.namespace, []).append(pod)
    for workload in objects.workloads:
        if _is_made_by_another(workload, workload_names) or _has_pods(workload, pods_of.get(workload.namespace, ())):
            continue
        key = f"{workload.namespace}/{workload.name}"
        counts = explicit.get(key) or explicit.get(workload.name)
        if workload.replicas is None:  # DaemonSet
            for node in placer.matching(workload.node_selector):
                placer.take(node)
                pods.append(_made(workload, node, node))
            continue
        if counts is not None:
            targets: list[str | None] = [node for node, count in counts.items() for _ in range(count)]
        else:
            targets = [None] * (workload.replicas if replicas is None else replicas)
        for ordinal, target in enumerate(targets):
            name = f"{key}-{ordinal}"
            node = target or workload.node_name or placer.next_node(name, workload.node_selector)
            if node is None or node not in placer.names:
                add(None, name, "no node can take it")
                continue
            placer.take(node)
            pods.append(_made(workload, node, str(ordinal)))
    return Schedule(tuple(pods), tuple(pending))


class _Placer:
    """Picks nodes one pod after the other."""

    def __init__(
        self,
        nodes: Sequence[ClusterNode],
        placement: Placement,
        pods_per_node: int,
        seed: int,
        unschedulable: frozenset[str],
    ) -> None:
        self.names = {node.name for node in nodes}
        self.open = [node for node in nodes if node.name not in unschedulable]
        self.placement, self.pods_per_node, self.seed = placement, pods_per_node, seed
        self.used = {node.name: 0 for node in nodes}
        self.turn = 0
        self.candidates: dict[Pairs, list[str]] = {}  # by selector: matching nodes with room

    def matching(self, selector: Pairs) -> list[str]:
        """Open nodes that a selector matches, full ones included."""
        return [node.name for node in self.open if all(node.labels.get(key) == value for key, value in selector)]

    def take(self, node: str) -> None:
        """Count one more pod on a node; a full one is no candidate any more."""
        self.used[node] += 1
        if self.used[node] == self.pods_per_node:
            for candidates in self.candidates.values():
                if node in candidates:
                    candidates.remove(node)

    def next_node(self, key: str, selector: Pairs) -> str | None:
        """The node for the next pod, None where none has room."""
        able = self.candidates.get(selector)
        if able is None:
            able = [name for name in self.matching(selector) if self.used[name] < self.pods_per_node]
            self.candidates[selector] = able
        if not able:
            return None
        if self.placement is Placement.PACKED:
            return able[0]
        if self.placement is Placement.RANDOM:
            digest = sha256(f"{self.seed}/placement/{key}".encode()).digest()
            return able[int.from_bytes(digest[:8], "big") % len(able)]
        chosen = able[self.turn % len(able)]
        self.turn += 1
        return chosen


def given_pod(pod: Pod, node: str) -> ScheduledPod:
    """Return a pod of the input on its node."""
    return ScheduledPod(
        pod.namespace, pod.name, pod.labels, node, pod.pod_ips, pod.host_network,
        pod.ready, pod.terminating, pod.container_ports, pod.termination_grace_period_seconds,
        is_evictable=pod.owner is None or pod.owner.kind not in ("DaemonSet", "Node"),
    )  # fmt: skip


def _made(workload: Workload, node: str, suffix: str) -> ScheduledPod:
    return ScheduledPod(
        workload.namespace, f"{workload.name}-{suffix}", workload.pod_labels, node, (), workload.host_network,
        True, False, workload.container_ports, workload.termination_grace_period_seconds,
        is_evictable=workload.replicas is not None,
    )  # fmt: skip


def _is_made_by_another(workload: Workload, names: Set[tuple[str, str, str]]) -> bool:
    """A ReplicaSet whose Deployment is in the input too repeats what that one says."""
    owner = workload.owner
    return owner is not None and (owner.kind, workload.namespace, owner.name) in names


def _has_pods(workload: Workload, pods: Sequence[Pod]) -> bool:
    """Whether the input holds pods of this workload: then it is a dump, and its pods are what runs."""
    wanted = set(workload.selector or workload.pod_labels)
    return bool(wanted) and any(wanted <= set(pod.labels) for pod in pods)
