"""Which UDP conntrack entries kube-proxy leaves alone after a sync.

It takes away those of a service port that lead to no endpoint that serves, be it terminating or not; where none serves
at all it takes away none. Whether the rules still name the endpoint plays no part.
Source: kubernetes/kubernetes, pkg/proxy/conntrack/cleanup.go (CleanStaleEntries).
"""

from __future__ import annotations

from collections.abc import Iterable

from simnet.controlplane.kube_proxy.endpoints import endpoints_by_service_port
from simnet.model.iptables.ruleset import Family
from simnet.model.kubernetes import EndpointSlice


def kept_udp_endpoints(
    slices: Iterable[EndpointSlice], at_start: Iterable[EndpointSlice]
) -> frozenset[tuple[str, int]]:
    """Return (address, port) of endpoints whose UDP entries are kept. `at_start`: slices with all there ever are."""
    kept: set[tuple[str, int]] = set()
    for family in Family:
        now = endpoints_by_service_port(slices, family)
        for key, ever in endpoints_by_service_port(at_start, family).items():
            if key[-1] == "udp":
                serving = [endpoint for endpoint in now.get(key, ()) if endpoint.is_serving]
                kept.update((endpoint.ip, endpoint.port) for endpoint in (serving or ever))
    return frozenset(kept)
