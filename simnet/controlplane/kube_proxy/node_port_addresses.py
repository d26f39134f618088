"""On which of a node's addresses node ports answer.

Source: kubernetes/kubernetes pkg/proxy/util/nodeport_addresses.go and the proxier's start-up, v1.33.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from simnet.controlplane.kube_proxy.addresses import host_network, networks_of
from simnet.controlplane.kube_proxy.node import ProxiedNode
from simnet.model.iptables.ruleset import Family, IPNetwork
from simnet.model.kube_proxy import KubeProxyConfiguration

PRIMARY = "primary"  # the word that stands for the node's primary addresses
_LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


@dataclass(frozen=True, slots=True)
class NodePortAddresses:
    """`nodePortAddresses` as one family's instance on one node uses it; no networks: all addresses."""

    networks: tuple[IPNetwork, ...]
    localhost_node_ports: bool  # whether node ports answer on 127.0.0.0/8

    @property
    def all_addresses(self) -> bool:
        """Whether every local address takes node ports."""
        return not self.networks or any(network.prefixlen == 0 for network in self.networks)

    def of_node(self, node: ProxiedNode, family: Family) -> tuple[str, ...]:
        """Return the node's addresses that take node ports, in the order of its interfaces."""
        taken = []
        for text in node.addresses(family):
            address = ipaddress.ip_address(text)
            if address.is_loopback and (family is Family.IPV6 or not self.localhost_node_ports):
                continue
            if any(address in network for network in self.networks):
                taken.append(text)
        return tuple(taken)


def node_port_addresses(configuration: KubeProxyConfiguration, family: Family, node: ProxiedNode) -> NodePortAddresses:
    """Return the node-port addresses in force; localhost node ports are forced off where they could not work."""
    if configuration.node_port_addresses == (PRIMARY,):
        primary = node.primary_address(family)
        networks: tuple[IPNetwork, ...] = (host_network(primary),) if primary else ()
    else:
        networks = networks_of(configuration.node_port_addresses, family)
    return NodePortAddresses(networks, has_localhost_node_ports(configuration, family))


def has_localhost_node_ports(configuration: KubeProxyConfiguration, family: Family) -> bool:
    """Return whether node ports answer on 127.0.0.0/8: as configured, and forced off where they could not work."""
    if family is Family.IPV6 or not configuration.iptables.localhost_node_ports:
        return False
    if configuration.node_port_addresses == (PRIMARY,):
        return False
    networks = networks_of(configuration.node_port_addresses, family)
    return not networks or any(_touches_loopback(network) for network in networks)


def _touches_loopback(network: IPNetwork) -> bool:
    # A network inside 127.0.0.0/8 counts as not excluding it.
    return isinstance(network, ipaddress.IPv4Network) and network.overlaps(_LOOPBACK)
