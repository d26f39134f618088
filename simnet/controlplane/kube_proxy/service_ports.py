"""The service ports that one family's kube-proxy tracks: the ports of Services with a cluster IP of the family.

Modelled: all that decides rules. A text that is no address is passed over.
Left out: kube-proxy's complaints about it.
Source: kubernetes/kubernetes pkg/proxy/serviceport.go and pkg/proxy/util, v1.33.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simnet.controlplane.kube_proxy.addresses import addresses_of, canonical_address, networks_of
from simnet.controlplane.kube_proxy.version_profile import VersionProfile
from simnet.model.iptables.ruleset import Family, IPNetwork
from simnet.model.kubernetes import HEADLESS, Service

# Objects with one of these labels are not even listed by kube-proxy.
SKIPPING_LABELS = frozenset({"service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"})
TOPOLOGY_ANNOTATIONS = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")
_API_FAMILY = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}


@dataclass(frozen=True, slots=True)
class ServicePortInfo:
    """One port of one Service as one family sees it; addresses are canonical texts of the family."""

    namespace: str
    service: str
    port_name: str
    protocol: str  # tcp, udp or sctp
    cluster_ip: str
    port: int
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_vips: tuple[str, ...] = ()
    load_balancer_source_ranges: tuple[IPNetwork, ...] = ()
    external_policy_local: bool = False
    internal_policy_local: bool = False
    session_affinity_seconds: int | None = None  # None: no affinity
    health_check_node_port: int = 0
    ignores_hints: bool = False

    @property
    def name(self) -> str:
        """The text that comments carry and chain names hash: `namespace/name:port`, or `namespace/name`."""
        return f"{self.namespace}/{self.service}" + (f":{self.port_name}" if self.port_name else "")

    @property
    def endpoints_key(self) -> tuple[str, str, str, str]:
        """What its endpoints are found by: namespace, Service, port name and protocol."""
        return (self.namespace, self.service, self.port_name, self.protocol)

    @property
    def externally_accessible(self) -> bool:
        """Whether it has a node port, an external IP or a load-balancer IP."""
        return bool(self.node_port or self.external_ips or self.load_balancer_vips)

    @property
    def uses_cluster_endpoints(self) -> bool:
        """Whether some of its traffic may go to all endpoints."""
        return not self.internal_policy_local or self.externally_accessible

    @property
    def uses_local_endpoints(self) -> bool:
        """Whether some of its traffic is kept to endpoints of the node."""
        return self.internal_policy_local or (self.external_policy_local and self.externally_accessible)


def cluster_ip_of(service: Service, family: Family) -> str | None:
    """Return the Service's canonical cluster IP of this family, None without one."""
    if not service.ip_families:
        return canonical_address(service.cluster_ip, family)
    # The API server keeps clusterIPs[0] equal to clusterIP; a hand-written manifest may give clusterIP alone.
    cluster_ips = service.cluster_ips or (service.cluster_ip,)
    for ip_family, cluster_ip in zip(service.ip_families, cluster_ips, strict=False):
        if ip_family == _API_FAMILY[family]:
            return canonical_address(cluster_ip, family)
    return None


def is_proxied(service: Service) -> bool:
    """Return whether kube-proxy writes rules for this Service at all."""
    return (
        service.cluster_ip not in ("", HEADLESS)
        and service.type != "ExternalName"
        and not any(key in SKIPPING_LABELS for key, _ in service.labels)
    )


def is_external_policy_local(service: Service) -> bool:
    """Return whether externalTrafficPolicy Local is in force; externalIPs count before the family filter."""
    reachable = service.type in ("NodePort", "LoadBalancer") or (
        service.type == "ClusterIP" and bool(service.external_ips)
    )
    return reachable and service.external_traffic_policy == "Local"


def service_ports(services: Iterable[Service], family: Family, profile: VersionProfile) -> tuple[ServicePortInfo, ...]:
    """Return a family's service ports in canonical order: by `namespace/name` in byte order, then as in spec.ports."""
    by_key: dict[tuple[str, str], list[ServicePortInfo]] = {}
    for service in services:
        if is_proxied(service):
            by_key[service.namespace, service.name] = _ports_of(service, family, profile)
    ordered = sorted(by_key.items(), key=lambda item: "/".join(item[0]).encode())
    return tuple(port for _, ports in ordered for port in ports)


def _ports_of(service: Service, family: Family, profile: VersionProfile) -> list[ServicePortInfo]:
    cluster_ip = cluster_ip_of(service, family)
    if cluster_ip is None:
        return []
    external_policy_local = is_external_policy_local(service)
    checks_health = external_policy_local and service.type == "LoadBalancer"
    vips = (
        ingress.ip
        for ingress in service.load_balancer_ingress
        if ingress.ip and not (profile.honours_ip_mode and ingress.ip_mode == "Proxy")
    )
    external_ips = addresses_of(service.external_ips, family)
    load_balancer_vips = addresses_of(vips, family)
    source_ranges = networks_of(service.load_balancer_source_ranges, family)
    ports: dict[tuple[str, str], ServicePortInfo] = {}
    for port in service.ports:
        protocol = (port.protocol or "TCP").lower()
        ports[port.name, protocol] = ServicePortInfo(
            namespace=service.namespace,
            service=service.name,
            port_name=port.name,
            protocol=protocol,
            cluster_ip=cluster_ip,
            port=port.port,
            node_port=port.node_port,
            external_ips=external_ips,
            load_balancer_vips=load_balancer_vips,
            load_balancer_source_ranges=source_ranges,
            external_policy_local=external_policy_local,
            internal_policy_local=service.internal_traffic_policy == "Local",
            session_affinity_seconds=(
                service.session_affinity_timeout_seconds if service.session_affinity == "ClientIP" else None
            ),
            health_check_node_port=service.health_check_node_port if checks_health else 0,
            ignores_hints=profile.needs_topology_annotation and not _asks_for_hints(service),
        )
    return list(ports.values())


def _asks_for_hints(service: Service) -> bool:
    annotations = dict(service.annotations)
    return any(annotations.get(key) in ("Auto", "auto") for key in TOPOLOGY_ANNOTATIONS)
