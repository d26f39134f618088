"""How Kubernetes follows what happens to nodes and pods: conditions, EndpointSlices, then each node's rules and routes.

Nothing is decided here: `controlplane.kubernetes` says when a node is unreachable and what slices say then,
`controlplane.kube_proxy` when a sync comes and which rules it writes, `controlplane.calico` who advertises what.
Source: docs/models/endpoints.md.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from simnet.controlplane.bgp.timers import fraction, session_number
from simnet.controlplane.calico.advertisement import service_advertisements
from simnet.controlplane.kube_proxy.conntrack_cleanup import kept_udp_endpoints
from simnet.controlplane.kube_proxy.sync_runner import SyncTokens
from simnet.controlplane.kubernetes.endpoint_conditions import (
    PodCondition,
    conditions_at_start,
    pod_of,
    with_conditions,
)
from simnet.controlplane.kubernetes.node_lifecycle import (
    RENEWALS_PER_DURATION,
    last_renewal_ps,
    next_round_ps,
    unreachable_ps,
)
from simnet.engine.materialise import advertised_services
from simnet.engine.node_rules import rulesets_of
from simnet.model.fabric import DeviceKind
from simnet.model.fib import Route, RouteKind
from simnet.model.history import PodChange, RulesChange
from simnet.model.iptables.ruleset import IPNetwork, Ruleset
from simnet.model.kubernetes import EndpointSlice

if TYPE_CHECKING:
    from simnet.engine.bgp_processes import ControlPlane

Conditions = Mapping[str, PodCondition]  # of pods that are in another condition than at the start


class _Slices(NamedTuple):
    """One state of all EndpointSlices, and what follows from it."""

    slices: tuple[EndpointSlice, ...]
    rulesets: Mapping[str, tuple[Ruleset, ...]]  # by node
    told: Mapping[str, Mapping[IPNetwork, bool]]  # by node: service prefixes; whether its kernel gets a blackhole
    kept: frozenset[tuple[str, int]]


class EndpointPlane:
    """Pods, their nodes' leases, the endpoint slice controller, and a kube-proxy and a Calico on each node."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane, self.cluster, self.spec = plane, plane.cluster, plane.spec
        self.lifecycle = plane.spec.node_lifecycle
        cluster = plane.cluster
        self.nodes = [node.name for node in cluster.nodes]
        self.api_server = _device_beside_clients(plane)
        self.at_start = conditions_at_start(cluster.endpoint_slices)
        self.node_of = {pod.key: pod.node for pod in cluster.pods}
        for each in cluster.endpoint_slices:
            for endpoint in each.endpoints:
                pod = pod_of(endpoint, each)
                if pod is not None and endpoint.node_name:
                    self.node_of.setdefault(pod, endpoint.node_name)
        self.addresses_of = {pod.pod: pod.addresses for pod in cluster.fabric.pods}
        self.pods: list[PodChange] = []
        self.rules: list[RulesChange] = []
        # Why each pod is in another condition than at the start: numbers of events
        self.unready: dict[str, set[int]] = {}
        self.made_ready: dict[str, set[int]] = {}
        self.terminating: dict[str, set[int]] = {}
        self.ended: dict[str, set[int]] = {}
        self.unreachable: set[str] = set()  # nodes
        self.overdue: list[tuple[str, int]] = []  # (pod, event): its grace period ended while nobody heard its node
        # Leases
        period_ps = self.lifecycle.node_lease_duration_ps // RENEWALS_PER_DURATION
        self.monitor_phase_ps = self._phase("monitor", "", self.lifecycle.node_monitor_period_ps)
        self.lease_phase_ps = {node: self._phase("lease", node, period_ps) for node in self.nodes}
        self.heard = dict.fromkeys(self.nodes, True)
        self.heartbeat_ps = {node: last_renewal_ps(self.lifecycle, self.lease_phase_ps[node], 0) for node in self.nodes}
        self.heard_since_ps: dict[str, int] = {}  # of those that were not heard for a while
        # What the API server has, and what each node has of it: numbers of `published`
        self.known: dict[Hashable, _Slices] = {}
        self.published = [self._slices({})]
        self.last: Conditions = {}
        self.seen = dict.fromkeys(self.nodes, 0)
        self.synced = dict.fromkeys(self.nodes, 0)
        period_ps = cluster.kube_proxy.iptables.min_sync_period_ps
        self.tokens = {node: SyncTokens.full(period_ps, 0) for node in self.nodes}
        self.told = {node: dict(self.published[0].told.get(node, {})) for node in self.nodes}
        self.in_force = {node: (cluster.rulesets.get(node, ()), self.published[0].kept) for node in self.nodes}
        self._taken_out: dict[IPNetwork, Route] = {}  # host routes of pods that have ended
        self._untold: set[IPNetwork] = set()  # of them, those that BGP told of: they lie in no block of the node
        self._drawn = 0

    # --- what happens to pods (engine/endpoint_events.py)

    def becomes(self, causes: dict[str, set[int]], pod: str, event: int) -> None:
        """Let a pod have one more reason to be in a condition."""
        causes.setdefault(pod, set()).add(event)
        self.changed()

    def is_no_longer(self, causes: dict[str, set[int]], pod: str, event: int) -> None:
        """Take the reason away."""
        causes.get(pod, set()).discard(event)
        self.changed()

    def delete(self, pod: str, event: int, grace_period_ps: int) -> None:
        """Let a pod be terminating, serve as before until its grace period is over, then end."""
        self.becomes(self.terminating, pod, event)
        self.plane.after(grace_period_ps, partial(self._grace_period_ends, pod, event))

    def start(self, pod: str, event: int) -> None:
        """Let a deleted pod be there again, under its old address."""
        ended = self.ended.get(pod, set())
        has_ended = event in ended
        ended.discard(event)
        self.is_no_longer(self.terminating, pod, event)
        if has_ended and not ended:
            self._runs(pod, True)

    def _grace_period_ends(self, pod: str, event: int) -> None:
        if event not in self.terminating.get(pod, ()):
            return
        if not self.heard.get(self.node_of[pod], True):
            self.overdue.append((pod, event))  # its kubelet does not know, or does not run
            return
        has_ended = bool(self.ended.get(pod))
        self.becomes(self.ended, pod, event)
        if not has_ended:
            self._runs(pod, False)

    def _runs(self, pod: str, runs: bool) -> None:
        """Start or end a pod's processes; its veth, and Felix's route to it, go with them."""
        plane = self.plane
        self.pods.append(PodChange(plane.now, pod, runs, plane.cause))
        for address in self.addresses_of.get(pod, ()):
            prefix = ipaddress.ip_network(address)
            for box in plane.boxes.of(self.node_of[pod]):
                if box.family != prefix.version:
                    continue
                if runs and prefix in self._taken_out:
                    box.table.hold(prefix, self._taken_out.pop(prefix))
                elif not runs and prefix in box.table.base:
                    self._taken_out[prefix] = box.table.base[prefix]
                    box.table.hold(prefix, None)
                if runs and prefix in self._untold:
                    self._untold.discard(prefix)
                    box.tables.originate(prefix)
                elif not runs and prefix in box.tables.own:
                    self._untold.add(prefix)
                    box.tables.withdraw(prefix)
                plane.table_follows(box)
                plane.wake(box)

    # --- whether a node is heard

    def look(self) -> None:
        """See which nodes the API server hears now."""
        for node in self.nodes:
            is_heard = self.plane.wires.delay_ps(self.api_server, node) is not None
            if is_heard != self.heard[node]:
                self._heartbeat(node)
                self.heard[node] = is_heard
                (self._found if is_heard else self._lost)(node)

    def _heartbeat(self, node: str) -> None:
        """Take note of the last renewal before now of a node that has been heard."""
        if self.heard[node]:
            renewed_ps = last_renewal_ps(self.lifecycle, self.lease_phase_ps[node], self.plane.now)
            if renewed_ps >= self.heard_since_ps.get(node, renewed_ps):
                self.heartbeat_ps[node] = max(self.heartbeat_ps[node], renewed_ps)

    def _lost(self, node: str) -> None:
        at_ps = unreachable_ps(self.lifecycle, self.monitor_phase_ps, self.heartbeat_ps[node])
        self.plane.after(max(0, at_ps - self.plane.now), partial(self._looked_at, node))

    def _looked_at(self, node: str) -> None:
        """The controller looks at a node that it may not have heard of for a grace period."""
        self._heartbeat(node)
        due_ps = unreachable_ps(self.lifecycle, self.monitor_phase_ps, self.heartbeat_ps[node])
        if self.plane.now >= due_ps and node not in self.unreachable:
            self.unreachable.add(node)
            self.changed()
            if self.heard[node]:
                self._await_report(node)

    def _found(self, node: str) -> None:
        self.heard_since_ps[node] = self.plane.now
        overdue = [each for each in self.overdue if self.node_of[each[0]] == node]
        self.overdue = [each for each in self.overdue if each not in overdue]
        for pod, event in overdue:
            self._grace_period_ends(pod, event)
        if self.synced[node] < len(self.published) - 1:
            self._send(node)
        if node in self.unreachable:
            self._await_report(node)

    def _await_report(self, node: str) -> None:
        """The kubelet reports itself and its pods ready at its next round."""
        period_ps = self.lifecycle.node_status_update_frequency_ps
        at_ps = next_round_ps(self._phase("status", node, period_ps), period_ps, self.plane.now)
        self.plane.after(at_ps - self.plane.now, partial(self._reports, node))

    def _reports(self, node: str) -> None:
        if self.heard[node] and node in self.unreachable:
            self.heartbeat_ps[node] = self.plane.now
            self.unreachable.discard(node)
            self.changed()

    # --- from pods to slices

    def conditions(self) -> dict[str, PodCondition]:
        """The pods that are in another condition than at the start."""
        found = {}
        for pod, start in self.at_start.items():
            now = PodCondition(
                (start.is_ready or bool(self.made_ready.get(pod)))
                and not self.unready.get(pod)
                and self.node_of.get(pod) not in self.unreachable,
                start.is_terminating or bool(self.terminating.get(pod)),
                not self.ended.get(pod),
            )
            if now != start:
                found[pod] = now
        return found

    def changed(self) -> None:
        """Let the endpoint slice controller have a look, once it has heard."""
        delay_ps = self.latency_ps() + self.lifecycle.endpoint_updates_batch_period_ps
        self.plane.after(delay_ps, self._update_slices)

    def _update_slices(self) -> None:
        conditions = self.conditions()
        if conditions == self.last:
            return
        self.last = conditions
        self.published.append(self._slices(conditions))
        for node in self.nodes:
            self._send(node)

    def _slices(self, conditions: Conditions) -> _Slices:
        """The slices of a state and what follows from them; of one that was there before, the same objects."""
        key = frozenset(conditions.items())
        if key not in self.known:
            cluster = self.cluster
            slices = with_conditions(cluster.endpoint_slices, cluster.services, conditions)
            rulesets = cluster.rulesets
            if conditions:
                rulesets = rulesets_of(self.spec, cluster.nodes, cluster.services, slices)
            told: dict[str, dict[IPNetwork, bool]] = {}
            for each in service_advertisements(
                advertised_services(cluster.services, slices), cluster.nodes, self.spec.calico
            ):
                for node in each.nodes:
                    told.setdefault(node, {})[each.prefix] = each.in_kernel
            kept = kept_udp_endpoints(slices, cluster.endpoint_slices)
            self.known[key] = _Slices(slices, rulesets, told, kept)
        return self.known[key]

    # --- from slices to each node

    def _send(self, node: str) -> None:
        """Let a node's watchers have the latest slices."""
        self.plane.after(self.latency_ps(), partial(self._has, node, len(self.published) - 1))

    def _has(self, node: str, number: int) -> None:
        if not self.heard[node]:
            return  # it asks once it is heard again
        if number > self.seen[node]:
            self.seen[node] = number
            self._advertise(node)
        at_ps = self.tokens[node].next_sync_ps(self.plane.now)
        self.plane.after(at_ps - self.plane.now, partial(self._sync, node, number))

    def _sync(self, node: str, number: int) -> None:
        """Let kube-proxy write the rules, unless a sync since has had what this one is for."""
        if self.synced[node] >= number or self.plane.wires.is_dead(node):
            return
        self.synced[node] = self.seen[node]
        self.tokens[node] = self.tokens[node].after_sync(self.plane.now)
        now = self.published[self.seen[node]]
        rulesets = now.rulesets.get(node, ())
        if (rulesets, now.kept) != self.in_force[node]:
            self.in_force[node] = rulesets, now.kept
            self.rules.append(RulesChange(self.plane.now, node, rulesets, self.plane.cause, now.kept))

    def _advertise(self, node: str) -> None:
        """Let Calico tell of the service addresses that a node has a reason for now, and of no others."""
        plane, held = self.plane, self.told[node]
        wanted = self.published[self.seen[node]].told.get(node, {})
        for box in plane.boxes.of(node):
            changed = [prefix for prefix in {**held, **wanted} if (prefix in held) != (prefix in wanted)
                       and prefix.version == box.family]  # fmt: skip
            for prefix in changed:
                if prefix in wanted:
                    plane.boxes.plan.add_service_prefix(prefix)
                    box.tables.originate(prefix)
                    if wanted[prefix]:
                        route = plane.boxes.plan.advertised_blackhole(prefix)
                        box.table.hold(prefix, box.table.base.get(prefix, route))
                else:
                    box.tables.withdraw(prefix)
                    if held[prefix] and box.table.base[prefix].kind is RouteKind.BLACKHOLE:
                        box.table.hold(prefix, None)
            if changed:
                plane.table_follows(box)
                plane.wake(box)
        self.told[node] = dict(wanted)

    # --- draws

    def latency_ps(self) -> int:
        """How long a watcher waits for a write."""
        self._drawn += 1
        share = 0.5 + fraction(self.plane.seed, "watch", 0, self._drawn)
        return int(self.lifecycle.watch_latency_ps * share)

    def _phase(self, purpose: str, node: str, period_ps: int) -> int:
        return int(period_ps * fraction(self.plane.seed, purpose, session_number(node, purpose), 0))


def _device_beside_clients(plane: ControlPlane) -> str:
    """The box behind which the API server is taken to stand: that of outside clients, else the first switch."""
    fabric = plane.cluster.fabric
    kinds = {device.name: device.kind for device in fabric.devices}
    for link in fabric.links:
        if kinds.get(link.a) is DeviceKind.CLIENTS and kinds.get(link.b) is DeviceKind.SWITCH:
            return link.b
        if kinds.get(link.b) is DeviceKind.CLIENTS and kinds.get(link.a) is DeviceKind.SWITCH:
            return link.a
    return next(name for name, kind in kinds.items() if kind is DeviceKind.SWITCH)
