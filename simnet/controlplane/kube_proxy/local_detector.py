"""How a node's rules tell traffic of local pods from other traffic.

Source: kubernetes/kubernetes pkg/proxy/util/localdetector.go, v1.33.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simnet.controlplane.kube_proxy.addresses import host_network, networks_of
from simnet.model.iptables.ruleset import Family, InInterface, SourceAddress
from simnet.model.kube_proxy import DetectLocalMode, KubeProxyConfiguration

LocalMatch = SourceAddress | InInterface


@dataclass(frozen=True, slots=True)
class LocalDetector:
    """The match for traffic of local pods, and its negation."""

    is_local: LocalMatch
    is_not_local: LocalMatch


def local_detector(
    configuration: KubeProxyConfiguration, family: Family, pod_cidrs: Iterable[str]
) -> LocalDetector | None:
    """Return a node's detector, None where nothing is configured for the family; `pod_cidrs` are the node's."""
    match configuration.detect_local_mode:
        case DetectLocalMode.CLUSTER_CIDR:
            return _by_cidr(configuration.cluster_cidr.split(","), family)
        case DetectLocalMode.NODE_CIDR:
            return _by_cidr(pod_cidrs, family)
        case DetectLocalMode.BRIDGE_INTERFACE:
            return _by_interface(configuration.detect_local.bridge_interface)
        case DetectLocalMode.INTERFACE_NAME_PREFIX:
            prefix = configuration.detect_local.interface_name_prefix
            return _by_interface(prefix + "+" if prefix else "")


# Stands for a detector that differs between nodes; a pod CIDR is never a single unspecified address.
PLACEHOLDER = {
    family: LocalDetector(SourceAddress(host_network(address)), SourceAddress(host_network(address), negated=True))
    for family, address in ((Family.IPV4, "0.0.0.0"), (Family.IPV6, "::"))
}


def _by_cidr(cidrs: Iterable[str], family: Family) -> LocalDetector | None:
    networks = networks_of(cidrs, family)
    if not networks:
        return None
    text = str(networks[0])
    return LocalDetector(SourceAddress(networks[0], text=text), SourceAddress(networks[0], negated=True, text=text))


def _by_interface(name: str) -> LocalDetector | None:
    return LocalDetector(InInterface(name), InInterface(name, negated=True)) if name else None
