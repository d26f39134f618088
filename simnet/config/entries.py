"""Whether what a variant calls exists: the service, its port, the kind of address, the node; and who can reach it."""

from __future__ import annotations

from simnet.config.documents import FieldPath
from simnet.config.kubernetes_source import nearest_name
from simnet.config.reading import Reading
from simnet.model.kubernetes import Service
from simnet.model.scenario import ClusterSpec, Entry, Variant
from simnet.model.workload import SCTP, TCP, UDP, ClientOrigin, EntryChoiceKind, Workload

_PROTOCOL_NAMES = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP"}


def check_entry(variant: Variant, cluster: ClusterSpec, workload: Workload, reading: Reading, path: FieldPath) -> bool:
    """Report what is wrong with a variant's target; True if nothing is."""
    before = len(reading.problems)
    services = {f"{each.namespace}/{each.name}": each for each in cluster.objects.services}
    service = services.get(variant.service)
    if service is None:
        names = sorted(services)
        nearest = nearest_name(variant.service, names) or nearest_name(
            variant.service.partition("/")[2], [name.partition("/")[2] for name in names]
        )
        reading.refuse(
            (*path, "service"),
            variant.service,
            f"a Service of cluster.objects: {', '.join(names[:8]) or 'there is none'}",
            f"did you mean {nearest}?" if nearest else "add its manifest to cluster.objects",
        )
        return False
    _check_port(variant, service, workload, reading, path)
    _check_kind(variant, service, cluster, reading, path)
    _check_choice(variant, service, cluster, reading, path)
    _warn_unreachable(variant, workload, cluster, reading, path)
    return len(reading.problems) == before


def _check_port(variant: Variant, service: Service, workload: Workload, reading: Reading, path: FieldPath) -> None:
    protocol = _PROTOCOL_NAMES[workload.protocol]
    ports = [port for port in service.ports if port.protocol == protocol]
    wanted = variant.port
    if not ports:
        reading.refuse(
            (*path, "service"),
            f"{variant.service}, which has no {protocol} port",
            f"a Service with a {protocol} port",
            "change workload.flows.protocol, or the Service",
        )
    elif wanted is not None and not any(wanted in (port.name, port.port) for port in ports):
        names = ", ".join(f"{port.name} ({port.port})" if port.name else str(port.port) for port in ports)
        reading.refuse((*path, "port"), str(wanted), f"a {protocol} port of {variant.service}: {names}", "name one")


def _check_kind(variant: Variant, service: Service, cluster: ClusterSpec, reading: Reading, path: FieldPath) -> None:
    where = (*path, "entry")
    name = variant.service
    if service.type == "ExternalName" or (service.is_headless and variant.entry is not Entry.POD):
        kind = "an ExternalName Service" if service.type == "ExternalName" else "a headless Service"
        reading.refuse(
            where, f"{variant.entry.value} of {name}", f"a Service with a cluster IP; it is {kind}", "call Pod"
        )
    elif variant.entry is Entry.EXTERNAL_IP and not service.external_ips:
        reading.refuse(
            where,
            f"ExternalIP, but {name} has none",
            "a Service with spec.externalIPs",
            "add externalIPs to the Service",
        )
    elif variant.entry is Entry.NODE_PORT and not (
        service.type in ("NodePort", "LoadBalancer") or any(port.node_port for port in service.ports)
    ):
        reading.refuse(
            where,
            f"NodePort, but {name} is of type {service.type}",
            "type NodePort or LoadBalancer",
            "change spec.type",
        )
    elif variant.entry is Entry.LOAD_BALANCER_IP and not (
        any(each.ip for each in service.load_balancer_ingress)
        or (service.type == "LoadBalancer" and (service.load_balancer_ip or cluster.load_balancer_pool))
    ):
        reading.refuse(
            where,
            f"LoadBalancerIP, but {name} has none",
            "status.loadBalancer.ingress, spec.loadBalancerIP, or cluster.loadBalancerPool with type LoadBalancer",
            "add cluster.loadBalancerPool, for example 203.0.113.0/24",
        )


def _check_choice(variant: Variant, service: Service, cluster: ClusterSpec, reading: Reading, path: FieldPath) -> None:
    if variant.choice.kind is not EntryChoiceKind.FIXED:
        return
    nodes = [node.name for node in cluster.nodes] or [node.name for node in cluster.objects.nodes]
    if variant.entry is Entry.NODE_PORT:
        if nodes and variant.choice.fixed not in nodes:
            reading.refuse(
                (*path, "node"),
                str(variant.choice.fixed),
                f"a node of the cluster: {', '.join(nodes[:8])}",
                f"did you mean {nearest_name(str(variant.choice.fixed), nodes) or nodes[0]}?",
            )
    elif variant.entry is Entry.EXTERNAL_IP and variant.choice.fixed not in service.external_ips:
        reading.refuse(
            (*path, "address"),
            str(variant.choice.fixed),
            f"one of externalIPs: {', '.join(service.external_ips)}",
            "name one of them",
        )


def _warn_unreachable(
    variant: Variant, workload: Workload, cluster: ClusterSpec, reading: Reading, path: FieldPath
) -> None:
    clients = variant.clients or workload.clients
    if (
        variant.entry is Entry.CLUSTER_IP
        and clients.origin is ClientOrigin.OUTSIDE
        and not cluster.calico.service_cluster_ips
    ):
        reading.warn(
            (*path, "entry"),
            "ClusterIP called from outside the cluster",
            "a route to it: nothing advertises cluster IPs, so every flow will be lost",
            "add clients: {from: pods} to the variant, or calico.serviceClusterIPs",
        )
