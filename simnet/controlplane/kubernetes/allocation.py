"""Cluster IPs, node ports and load-balancer IPs for Services that leave them out.

Modelled: the ranges, the band that the API server keeps for hand-picked values (it allocates from the rest first), no
clash with any given value, one node port for the same port number over TCP and UDP. Left out: randomness; the choice
is a hash of the Service's name, so that it does not depend on the order of the files. Source: Kubernetes, "Service
ClusterIP allocation" and "Avoiding collisions" (KEP-3070, KEP-3668).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from simnet.errors import ModelError
from simnet.model.kubernetes import HEADLESS, LoadBalancerIngress, Service

IPV4, IPV6 = "IPv4", "IPv6"


def allocate(
    services: Sequence[Service],
    *,
    service_cidrs: Sequence[str],
    node_port_range: tuple[int, int],
    load_balancer_pool: str = "",
) -> tuple[Service, ...]:
    """Return the services with cluster IPs, node ports and load-balancer IPs filled in where the API server would.

    A Service that asks for a family without a service CIDR gets no cluster IP of that family, and so no rules.
    Raises ModelError where a range is full.
    """
    networks = {_family(cidr): ipaddress.ip_network(cidr) for cidr in reversed(service_cidrs)}
    addresses = _Pool(address for service in services for address in (*service.cluster_ips, service.cluster_ip))
    ports = _taken_ports(services)
    balanced = _Pool(ingress.ip for service in services for ingress in service.load_balancer_ingress)
    by_name: dict[tuple[str, str], Service] = {}
    for service in sorted(services, key=lambda each: (each.namespace, each.name)):
        allocated = _with_cluster_ips(service, networks, addresses)
        allocated = _with_node_ports(allocated, node_port_range, ports)
        by_name[service.namespace, service.name] = _with_load_balancer_ip(allocated, load_balancer_pool, balanced)
    return tuple(by_name[service.namespace, service.name] for service in services)


def _family(cidr: str) -> str:
    return IPV6 if ":" in cidr else IPV4


class _Pool:
    """Values that are taken, and the next free one after a hash."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)

    def address(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network, name: str) -> str:
        size = min(network.num_addresses, 1 << 20)
        kept_for_hand_picked = min(max(16, size // 16), 256)
        for offset in _probe(name, kept_for_hand_picked, size - 1, first=1):
            address = str(network[offset])
            if address not in self.taken:
                self.taken.add(address)
                return address
        raise ModelError(f"{network} has no free address left for {name}")


def _probe(name: str, band: int, end: int, *, first: int) -> Iterable[int]:
    """Yield `band..end-1` from a place that the name decides, then the band of hand-picked values, `first..band-1`."""
    band = min(band, max(end - 1, first))
    count = end - band
    start = int.from_bytes(sha256(name.encode()).digest()[:8], "big") % count
    for step in range(count):
        yield band + (start + step) % count
    yield from range(first, band)


def _with_cluster_ips(
    service: Service, networks: dict[str, ipaddress.IPv4Network | ipaddress.IPv6Network], taken: _Pool
) -> Service:
    if service.type == "ExternalName" or service.cluster_ip:
        return service
    families = service.ip_families or _families(service, networks)
    name = f"{service.namespace}/{service.name}"
    chosen = [(family, taken.address(networks[family], name)) for family in families if family in networks]
    if not chosen:
        return service
    return replace(
        service,
        cluster_ip=chosen[0][1],
        cluster_ips=tuple(address for _, address in chosen),
        ip_families=tuple(family for family, _ in chosen),
    )


def _families(service: Service, networks: Mapping[str, object]) -> tuple[str, ...]:
    available = tuple(family for family in (IPV4, IPV6) if family in networks)
    return available if service.ip_family_policy in ("PreferDualStack", "RequireDualStack") else available[:1]


def _taken_ports(services: Sequence[Service]) -> set[tuple[str, int]]:
    taken = {(port.protocol, port.node_port) for service in services for port in service.ports if port.node_port}
    taken |= {("TCP", service.health_check_node_port) for service in services if service.health_check_node_port}
    return taken


def _with_node_ports(service: Service, port_range: tuple[int, int], taken: set[tuple[str, int]]) -> Service:
    needs = service.type == "NodePort" or (service.type == "LoadBalancer" and service.allocate_load_balancer_node_ports)
    if not needs or service.cluster_ip in ("", HEADLESS):
        return service
    if service.is_served:  # its node ports were allocated, or allocation was switched off for it
        return service
    name = f"{service.namespace}/{service.name}"
    first, last = port_range
    band = first + min(max(16, (last - first + 1) // 32), 128)
    given: dict[int, int] = {port.port: port.node_port for port in service.ports if port.node_port}
    ports = []
    for port in service.ports:
        number = port.node_port
        if not number and (port.protocol, given.get(port.port, 0)) not in taken:
            number = given.get(port.port, 0)  # the twin of another protocol shares it
        if not number:
            number = _free_port(f"{name}:{port.port}", band, last + 1, first, {port.protocol}, taken)
        taken.add((port.protocol, number))
        given[port.port] = number
        ports.append(replace(port, node_port=number))
    check = service.health_check_node_port
    if service.type == "LoadBalancer" and service.external_traffic_policy == "Local" and not check:
        check = _free_port(f"{name}:health", band, last + 1, first, {"TCP"}, taken)
        taken.add(("TCP", check))
    return replace(service, ports=tuple(ports), health_check_node_port=check)


def _free_port(name: str, band: int, end: int, first: int, protocols: set[str], taken: set[tuple[str, int]]) -> int:
    for number in _probe(name, band, end, first=first):
        if not any((protocol, number) in taken for protocol in protocols):
            return number
    raise ModelError(f"the node port range {first}-{end - 1} has no free port left for {name}")


def _with_load_balancer_ip(service: Service, pool: str, taken: _Pool) -> Service:
    if service.type != "LoadBalancer" or service.load_balancer_ingress:
        return service
    address = service.load_balancer_ip
    if not address and pool:
        address = taken.address(ipaddress.ip_network(pool), f"{service.namespace}/{service.name}")
    if not address:
        return service  # pending, as in a cluster without a load-balancer controller
    return replace(service, load_balancer_ingress=(LoadBalancerIngress(ip=address),))
