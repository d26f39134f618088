"""From what the user gave to a cluster that is ready to run: the steady state of every controller, one after the other.

API server (cluster IPs, node ports) -> scheduler -> IPAM -> endpoint slice controller -> fabric -> BGP -> kube-proxy.
Each step is a pure function of `controlplane`; this module only says in which order they meet.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from simnet.controlplane.bgp.steady import steady_fibs
from simnet.controlplane.calico.encapsulation import tunnel_kinds, tunnels_of
from simnet.controlplane.calico.ipam import AddressRequest, Assignment, assign_blocks
from simnet.controlplane.fabric import build_fabric
from simnet.controlplane.kubernetes.allocation import allocate
from simnet.controlplane.kubernetes.endpoint_slices import endpoint_slices
from simnet.controlplane.kubernetes.scheduling import Schedule, ScheduledPod, given_pod, schedule
from simnet.controlplane.racks import known_by_peers
from simnet.engine.node_rules import rulesets_of
from simnet.engine.nodes import cluster_nodes
from simnet.engine.peer_warnings import choices_by_order, unanswered_peers
from simnet.errors import InputError, Position, Problem
from simnet.model.calico import AdvertisedService, FabricSettings
from simnet.model.cluster import Cluster, ClusterNode, ClusterPod
from simnet.model.fabric import Fabric
from simnet.model.kubernetes import ZONE_LABEL, EndpointSlice, Service
from simnet.model.scenario import ClusterSpec
from simnet.model.workload import ClientOrigin, ClientPopulation

CLIENT_NAMESPACE = "simnet-clients"


def materialise(spec: ClusterSpec, *, clients: ClientPopulation | None = None, seed: int = 1) -> Cluster:
    """Return the cluster as of its steady state; outside clients and client pods are part of it.

    `seed` decides random placement only. Raises InputError where the objects contradict each other or the addresses
    run out.
    """
    ready = placed_objects(spec, clients=clients, seed=seed)
    nodes, services, slices = ready.nodes, ready.services, ready.endpoint_slices
    assignment = ready.assignment
    pods = _cluster_pods(ready)
    fabric = wired(spec, ready, clients)
    settings = _fabric_settings(spec, nodes, clients)
    told = advertised_services(services, slices)
    fibs = steady_fibs(fabric, nodes, pods, assignment.blocks, told, spec.calico, settings)
    return Cluster(
        nodes=nodes,
        pods=pods,
        services=services,
        endpoint_slices=slices,
        blocks=assignment.blocks,
        kube_proxy=spec.kube_proxy,
        fabric=fabric,
        fibs=fibs,
        rulesets=rulesets_of(spec, nodes, services, slices),
        warnings=(
            *spec.objects.warnings, *spec.warnings, *_pending(ready.scheduled, spec),
            *unanswered_peers(spec, fabric, nodes, settings),
            *choices_by_order(spec, fabric, nodes, assignment.blocks, told, settings),
        ),
    )  # fmt: skip


def wired(spec: ClusterSpec, ready: PlacedObjects, clients: ClientPopulation | None) -> Fabric:
    """Return the wires between what was placed."""
    tunnels = {node.name: tunnels_of(node, spec.calico) for node in ready.nodes}
    settings = _fabric_settings(spec, ready.nodes, clients)
    return build_fabric(ready.nodes, _cluster_pods(ready), ready.client_addresses, settings, tunnels)


def _fabric_settings(
    spec: ClusterSpec, nodes: Sequence[ClusterNode], clients: ClientPopulation | None
) -> FabricSettings:
    settings = known_by_peers(spec.fabric, nodes, spec.calico)
    return replace(settings, client_networks=_client_networks(clients, spec))


def _cluster_pods(ready: PlacedObjects) -> tuple[ClusterPod, ...]:
    return tuple(_cluster_pod(pod) for pod in ready.pods)


@dataclass(frozen=True, slots=True)
class PlacedObjects:
    """What API server, scheduler, IPAM and endpoint slice controller have made of a spec; no table is written yet."""

    nodes: tuple[ClusterNode, ...]
    services: tuple[Service, ...]
    scheduled: Schedule
    assignment: Assignment
    pods: tuple[ScheduledPod, ...]  # with their addresses
    endpoint_slices: tuple[EndpointSlice, ...]
    client_addresses: tuple[str, ...]


def placed_objects(spec: ClusterSpec, *, clients: ClientPopulation | None = None, seed: int = 1) -> PlacedObjects:
    """Return services, pods and endpoints with their addresses: the part that can fail, and takes little time.

    Raises InputError where the objects contradict each other or the addresses run out.
    """
    nodes = cluster_nodes(spec)
    services = allocate(
        [_overridden(service, spec.service_overrides) for service in spec.objects.services],
        service_cidrs=spec.service_cidrs,
        node_port_range=spec.node_port_range,
        load_balancer_pool=spec.load_balancer_pool,
    )
    scheduled = schedule(
        spec.objects,
        nodes,
        placement=spec.placement,
        explicit=spec.explicit_placement,
        replicas=spec.replicas,
        pods_per_node=spec.pods_per_node,
        seed=seed,
        unschedulable=frozenset(node.name for node in spec.objects.nodes if node.unschedulable or not node.ready),
    )
    scheduled = _without_shared_addresses(scheduled)
    started_later = [given_pod(pod, pod.node_name) for pod in spec.replacements if pod.node_name]
    all_pods = [*scheduled.pods, *_client_pods(clients, nodes), *started_later]
    addresses_of_node = {node.name: node.addresses for node in nodes}
    kinds = tunnel_kinds(spec.calico)
    ends = [(f"{kind} of {node.name}", node) for kind in kinds for node in nodes if _has_ipv4(node)]
    assignment = assign_blocks(
        [AddressRequest(name, node.name) for name, node in ends]
        + [
            AddressRequest(pod.key, pod.node, pod.addresses, _pool_families(spec))
            for pod in all_pods
            if not pod.host_network
        ],
        spec.calico,
        spec.blocks,
        spec.used_addresses,
    )
    given = {node.name: tuple(assignment.addresses[name][0] for name, end in ends if end is node) for node in nodes}
    nodes = tuple(replace(node, tunnel_addresses=given[node.name]) for node in nodes)
    placed = [
        replace(
            pod,
            addresses=_one_per_family(addresses_of_node[pod.node])
            if pod.host_network
            else tuple(assignment.addresses[pod.key]),
        )
        for pod in all_pods
    ]
    zones = {node.name: node.labels[ZONE_LABEL] for node in nodes if ZONE_LABEL in node.labels}
    slices = endpoint_slices(
        services,
        placed,
        given=spec.objects.endpoint_slices,
        endpoints=spec.objects.endpoints,
        zone_of_node=zones,
    )
    return PlacedObjects(
        nodes, services, scheduled, assignment, tuple(placed), slices, _client_addresses(clients, nodes, spec)
    )


def _has_ipv4(node: ClusterNode) -> bool:
    return any(":" not in address for address in node.addresses)


def _overridden(service: Service, overrides: Mapping[str, object]) -> Service:
    """Apply a sweep's policy to a Service that it can concern."""
    if not overrides or service.is_headless or service.type == "ExternalName":
        return service
    external = service.type in ("NodePort", "LoadBalancer") or bool(service.external_ips)
    fields = {name: value for name, value in overrides.items() if external or name != "external_traffic_policy"}
    return replace(service, **fields)  # type: ignore[arg-type]


def _without_shared_addresses(scheduled: Schedule) -> Schedule:
    """Leave out pods whose address another pod holds already, as edited dumps have it; the first one keeps it."""
    holder: dict[str, str] = {}
    kept: list[ScheduledPod] = []
    left_out = list(scheduled.pending)
    for pod in scheduled.pods:
        taken = next((address for address in pod.addresses if address in holder and not pod.host_network), None)
        if taken is not None:
            left_out.append((pod.key, f"its address {taken} is that of pod {holder[taken]}"))
            continue
        if not pod.host_network:
            holder.update(dict.fromkeys(pod.addresses, pod.key))
        kept.append(pod)
    return Schedule(tuple(kept), tuple(left_out))


def _pool_families(spec: ClusterSpec) -> tuple[int, ...]:
    return tuple(dict.fromkeys(6 if ":" in pool else 4 for pool in spec.calico.ip_pools))


def _one_per_family(addresses: Sequence[str]) -> tuple[str, ...]:
    first = {":" in address: address for address in reversed(addresses)}
    return tuple(first[family] for family in (False, True) if family in first)


def _client_pods(clients: ClientPopulation | None, nodes: Sequence[ClusterNode]) -> Iterable[ScheduledPod]:
    if clients is None or clients.origin is not ClientOrigin.PODS or clients.addresses:
        return
    for number in range(clients.count):
        yield ScheduledPod(
            CLIENT_NAMESPACE,
            f"client-{number}",
            (),
            nodes[number % len(nodes)].name,
            (),
            False,
            True,
            False,
            (),
            is_evictable=False,
        )


def _client_addresses(
    clients: ClientPopulation | None, nodes: Sequence[ClusterNode], spec: ClusterSpec
) -> tuple[str, ...]:
    """The addresses of outside clients: given ones and prefixes filled in order, past addresses that are taken."""
    if clients is None or clients.origin is not ClientOrigin.OUTSIDE:
        return ()
    taken = {address for node in nodes for address in node.addresses} | set(spec.fabric.router_addresses)
    taken |= {peer.peer_ip for peer in spec.calico.peers}
    chosen: list[str] = []
    for text in clients.addresses:
        chosen += itertools.islice(_hosts(text, taken), clients.count - len(chosen))
    if len(chosen) < clients.count:
        room = Problem(
            Position(""),
            "workload.clients.from",
            f"{', '.join(clients.addresses)}, which has room for {len(chosen)} clients",
            f"room for {clients.count} clients",
            "give a larger network, or fewer clients",
        )
        raise InputError([room])
    return tuple(chosen)


def _client_networks(clients: ClientPopulation | None, spec: ClusterSpec) -> tuple[str, ...]:
    """The subnets that outside clients sit in: one site each; clients inside the nodes' subnet share its segment."""
    if clients is None or clients.origin is not ClientOrigin.OUTSIDE or spec.fabric.client_networks:
        return spec.fabric.client_networks
    nodes = [ipaddress.ip_network(text) for text in spec.fabric.node_networks]
    given = [ipaddress.ip_network(text, strict=False) for text in clients.addresses]
    return tuple(
        str(network)
        for network in given
        if network.num_addresses > 1
        and not any(network.version == other.version and network.overlaps(other) for other in nodes)
    )


def _hosts(text: str, taken: set[str]) -> Iterable[str]:
    """The usable addresses of an address or prefix; the first nine of a subnet are left to routers and servers."""
    network = ipaddress.ip_network(text, strict=False)
    first = int(network.network_address)
    last = int(network.broadcast_address)
    if network.num_addresses > 2:
        first += 10 if network.num_addresses > 32 else 2
        last -= network.version == 4
    for number in range(first, last + 1):
        address = str(ipaddress.ip_address(number))
        if address not in taken:
            yield address


def _cluster_pod(pod: ScheduledPod) -> ClusterPod:
    return ClusterPod(
        pod.namespace, pod.name, pod.node, pod.addresses, pod.host_network, pod.ready,
        termination_grace_period_seconds=pod.termination_grace_period_seconds, is_evictable=pod.is_evictable,
    )  # fmt: skip


def advertised_services(services: Sequence[Service], slices: Sequence[EndpointSlice]) -> tuple[AdvertisedService, ...]:
    """Return what route advertisement needs to know of the Services: addresses, policy, nodes with endpoints.

    A Service of two families is two of them: an IPv4 endpoint is no reason to tell of an IPv6 address.
    """
    ready: dict[tuple[str, str, str], set[str]] = {}
    held: dict[tuple[str, str, str], set[str]] = {}
    for each in slices:
        key = (each.namespace, each.service_name, each.address_type)
        for endpoint in each.endpoints:
            if endpoint.node_name:
                held.setdefault(key, set()).add(endpoint.node_name)
                if endpoint.conditions.ready is not False:
                    ready.setdefault(key, set()).add(endpoint.node_name)
    found = []
    for service in services:
        if service.is_headless or service.type == "ExternalName":
            continue
        cluster_ips = service.cluster_ips or ((service.cluster_ip,) if service.cluster_ip else ())
        load_balancer_ips = tuple(each.ip for each in service.load_balancer_ingress if each.ip)
        for family in ("IPv4", "IPv6"):
            cluster, external, balanced = (
                tuple(address for address in addresses if (":" in address) == (family == "IPv6"))
                for addresses in (cluster_ips, service.external_ips, load_balancer_ips)
            )
            key = (service.namespace, service.name, family)
            if cluster or external or balanced:
                found.append(
                    AdvertisedService(
                        name=f"{service.namespace}/{service.name}",
                        cluster_ips=cluster,
                        external_ips=external,
                        load_balancer_ips=balanced,
                        is_local=service.external_traffic_policy == "Local",
                        ready_nodes=frozenset(ready.get(key, ())),
                        endpoint_nodes=frozenset(held.get(key, ())),
                    )
                )
    return tuple(found)


def _pending(scheduled: Schedule, spec: ClusterSpec) -> Iterable[Problem]:
    file = spec.objects.services[0].position if spec.objects.services else Position("")
    for key, reason in scheduled.pending:
        yield Problem(
            Position(file.file),
            f"pod {key}",
            f"left out: {reason}",
            "a running pod with a node",
            "nothing, if that is meant; else add the node or the pod's status",
        )


__all__ = ["CLIENT_NAMESPACE", "cluster_nodes", "materialise"]
