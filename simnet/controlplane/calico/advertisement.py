"""Which nodes tell their peers about which service addresses.

Modelled: BGPConfiguration's three lists, traffic policy, load balancer aggregation, the exclusion label, and
the release that
told of endpoints that were not ready. Left out: the order of events (see the engine).
Source: projectcalico/calico, confd/pkg/backends/calico/routes.go and client.go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from simnet.model.calico import AdvertisedService, CalicoSettings
from simnet.model.cluster import ClusterNode
from simnet.model.iptables.ruleset import IPNetwork

EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"


@dataclass(frozen=True, slots=True)
class Advertisement:
    """A service prefix and the nodes that tell of it."""

    prefix: IPNetwork
    nodes: tuple[str, ...]
    in_kernel: bool  # the blackhole behind it reaches the node's own FIB: a single address as listed
    why: str


def service_advertisements(
    services: Iterable[AdvertisedService], nodes: Sequence[ClusterNode], settings: CalicoSettings
) -> tuple[Advertisement, ...]:
    """Return every advertised service prefix, by address, shorter prefixes first.

    Two services may share an address: its nodes are the union, and it goes when the last reason goes.
    """
    willing = tuple(node.name for node in nodes if node.labels.get(EXCLUDE_LABEL) != "true")
    lists = (
        ("serviceClusterIPs", settings.service_cluster_ips, True),
        ("serviceExternalIPs", settings.service_external_ips, False),
        ("serviceLoadBalancerIPs", settings.service_load_balancer_ips, False),
    )
    reasons: dict[IPNetwork, tuple[set[str], bool, str]] = {}

    def tell(prefix: IPNetwork, tellers: Iterable[str], in_kernel: bool, why: str) -> None:
        known = reasons.setdefault(prefix, (set(), in_kernel, why))
        known[0].update(tellers)

    for name, cidrs, is_cluster in lists:
        for text in cidrs:
            network = ipaddress.ip_network(text)
            alone = network.num_addresses == 1 and not is_cluster
            aggregated = settings.service_load_balancer_aggregation or name != "serviceLoadBalancerIPs"
            if not alone and aggregated:
                tell(network, willing, False, f"{name}: every node tells the whole CIDR")
    for service in services:
        for name, address, network in _listed_addresses(service, settings):
            prefix = ipaddress.ip_network(address)
            single = network == prefix and name != "serviceClusterIPs"
            if service.is_local:
                unready = settings.advertises_unready_local_endpoints
                tellers = service.endpoint_nodes | service.ready_nodes if unready else service.ready_nodes
                why = "externalTrafficPolicy Local: nodes with a ready endpoint of their own"
                if unready:
                    why = "externalTrafficPolicy Local: nodes with an endpoint, ready or not (a fault of this release)"
                tell(prefix, (node for node in willing if node in tellers), single, why)
            elif single:
                tell(prefix, willing, True, f"{name}: a single address, told by every node")
            elif (
                name == "serviceLoadBalancerIPs"
                and not settings.service_load_balancer_aggregation
                and service.ready_nodes
            ):
                tell(
                    prefix,
                    willing,
                    False,
                    "serviceLoadBalancerAggregation Disabled: every node while an endpoint is ready",
                )
    order = sorted(reasons, key=lambda prefix: (prefix.version, int(prefix.network_address), prefix.prefixlen))
    return tuple(
        Advertisement(prefix, tuple(n for n in willing if n in reasons[prefix][0]), *reasons[prefix][1:])
        for prefix in order
        if reasons[prefix][0]
    )


def _listed_addresses(service: AdvertisedService, settings: CalicoSettings) -> Iterator[tuple[str, str, IPNetwork]]:
    """Yield (list, address, CIDR that holds it) for the service's addresses that lie in an advertised CIDR."""
    for name, cidrs, addresses in (
        ("serviceClusterIPs", settings.service_cluster_ips, service.cluster_ips),
        ("serviceExternalIPs", settings.service_external_ips, service.external_ips),
        ("serviceLoadBalancerIPs", settings.service_load_balancer_ips, service.load_balancer_ips),
    ):
        networks = [ipaddress.ip_network(text) for text in cidrs]
        for address in addresses:
            parsed = ipaddress.ip_address(address)
            holders = [network for network in networks if parsed in network]
            if holders:
                yield name, address, max(holders, key=lambda network: network.prefixlen)
