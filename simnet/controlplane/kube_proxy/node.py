"""A node as kube-proxy sees it: what, beside objects and configuration, the rules of one node depend on."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from simnet.controlplane.kube_proxy.addresses import addresses_of
from simnet.model.iptables.ruleset import Family
from simnet.model.kubernetes import ZONE_LABEL


@dataclass(frozen=True, slots=True)
class ProxiedNode:
    """A node that runs kube-proxy."""

    name: str
    primary_ip: str = ""  # of either family; "": the first of its interfaces that is not a loopback address
    labels: Mapping[str, str] = field(default_factory=dict)
    interface_addresses: tuple[str, ...] = ()  # with or without prefix length, in the order of the interfaces
    pod_cidrs: tuple[str, ...] = ()

    @property
    def zone(self) -> str | None:
        """The node's zone for topology hints; kube-proxy looks at today's label alone."""
        return self.labels.get(ZONE_LABEL) or None

    def addresses(self, family: Family) -> tuple[str, ...]:
        """Return the canonical addresses of the family on its interfaces, each once, in the order given."""
        without_length = (address.partition("/")[0] for address in self.interface_addresses)
        return tuple(dict.fromkeys(addresses_of(without_length, family)))

    def primary_address(self, family: Family) -> str | None:
        """Return its primary address of the family, None if it has none that leaves the host."""
        for address in (*addresses_of((self.primary_ip,), family), *self.addresses(family)):
            if not ipaddress.ip_address(address).is_loopback:
                return address
        return None
