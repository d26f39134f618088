"""One box's routes as its operator looks at them: its BGP paths, and what became of the prefixes that are not told.

Puts the objects of a materialised cluster to the pure functions of `controlplane.bgp`; decides nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from simnet.controlplane.bgp.network import BgpNetwork, bgp_network
from simnet.controlplane.bgp.origins import originated_by, origins_of
from simnet.controlplane.bgp.rib import Rib, rib_of
from simnet.controlplane.calico.advertisement import EXCLUDE_LABEL, service_advertisements
from simnet.engine.materialise import advertised_services
from simnet.model.cluster import Cluster
from simnet.model.fabric import DeviceKind
from simnet.model.iptables.ruleset import IPNetwork
from simnet.model.scenario import ClusterSpec


@dataclass(frozen=True, slots=True)
class NotOriginated:
    """A prefix that a node holds or serves and does not put into BGP, and the rule by which it does not."""

    prefix: IPNetwork
    rule: str


def rib(cluster: Cluster, spec: ClusterSpec, device: str, *, family: int = 4) -> Rib:
    """Return what a node or switch learned by BGP, chose and withheld. Raises KeyError for another device."""
    network, originated = network_and_origins(cluster, spec, family=family)
    return rib_of(network, originated, device)


def network_and_origins(
    cluster: Cluster, spec: ClusterSpec, *, family: int = 4
) -> tuple[BgpNetwork, dict[str, list[IPNetwork]]]:
    """Return the speakers and sessions of a cluster, and the prefixes that each speaker tells of by itself."""
    network = bgp_network(cluster.fabric, cluster.nodes, spec.calico, spec.fabric, family, cluster.blocks)
    services = advertised_services(cluster.services, cluster.endpoint_slices)
    told = service_advertisements(services, cluster.nodes, spec.calico)
    origins = origins_of(cluster.nodes, cluster.blocks, told, spec.calico)
    return network, originated_by(origins, network.topology, family)


def not_originated(cluster: Cluster, spec: ClusterSpec, node: str, *, family: int = 4) -> Iterator[NotOriginated]:
    """Yield what a node does not tell anyone of: its pods' addresses, blocks outside the pools, service addresses."""
    calico = spec.calico
    blocks = [ipaddress.ip_network(block.cidr) for block in cluster.blocks if block.node == node]
    pools = [ipaddress.ip_network(pool) for pool in calico.ip_pools]
    unexported = [ipaddress.ip_network(pool) for pool in calico.unexported_pools]
    for block in blocks:
        if block.version != family:
            continue
        if pools and not any(_holds(pool, block) for pool in pools):
            yield NotOriginated(block, "outside every enabled IP pool: rejected by Calico's export filter")
        elif any(_holds(pool, block) for pool in unexported):
            yield NotOriginated(block, "its pool has disableBGPExport: rejected by Calico's export filter")
    for pod in cluster.fabric.pods:
        for address in pod.addresses if pod.node == node else ():
            host = ipaddress.ip_network(address)
            inside = next((block for block in blocks if _holds(block, host)), None)
            if host.version == family and inside is not None and inside != host:
                yield NotOriginated(host, f"within {inside}, a block of its own, which is told as one aggregate")
    yield from _services_not_told(cluster, spec, node, family)


def _services_not_told(cluster: Cluster, spec: ClusterSpec, node: str, family: int) -> Iterator[NotOriginated]:
    calico = spec.calico
    services = advertised_services(cluster.services, cluster.endpoint_slices)
    told = {each.prefix: each for each in service_advertisements(services, cluster.nodes, calico)}
    labels = next(each.labels for each in cluster.nodes if each.name == node)
    lists = (
        ("serviceClusterIPs", calico.service_cluster_ips, "cluster_ips"),
        ("serviceExternalIPs", calico.service_external_ips, "external_ips"),
        ("serviceLoadBalancerIPs", calico.service_load_balancer_ips, "load_balancer_ips"),
    )
    done: set[IPNetwork] = set()
    for service in services:
        for name, cidrs, field in lists:
            networks = [ipaddress.ip_network(cidr) for cidr in cidrs]
            for address in getattr(service, field):
                host = ipaddress.ip_network(address)
                mine = told.get(host)
                if host.version != family or host in done or (mine is not None and node in mine.nodes):
                    continue
                done.add(host)
                if not any(_holds(network, host) for network in networks):
                    rule = f"{service.name}: in no CIDR of {name}"
                elif labels.get(EXCLUDE_LABEL) == "true":
                    rule = f"{service.name}: the node has the label {EXCLUDE_LABEL}"
                elif service.is_local:
                    rule = f"{service.name}: externalTrafficPolicy Local, and no ready endpoint on this node"
                else:
                    rule = f"{service.name}: externalTrafficPolicy Cluster; covered by the CIDR that every node tells"
                yield NotOriginated(host, rule)


def _holds(network: IPNetwork, part: IPNetwork) -> bool:
    return network.version == part.version and part.subnet_of(network)  # type: ignore[arg-type]


def boxes(cluster: Cluster, kind: DeviceKind) -> tuple[str, ...]:
    """The names of all nodes or switches."""
    return tuple(device.name for device in cluster.fabric.devices if device.kind is kind)
