"""What the rules of one Kubernetes release look like, where releases differ.

Modelled: `KUBE-XLB-*` before 1.24, `KUBE-MARK-DROP` before 1.26, the topology annotation before 1.31, nfacct matches
and the localhost node-port rule from 1.32, node hints (feature PreferSameTrafficDistribution) on from 1.34.
Left out: every other difference in wording or order before 1.26. The boundaries are from memory of the releases, not
checked against each; the shape of v1.33 is the one that is checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from simnet.errors import InputError, Position, Problem
from simnet.model.kube_proxy import KubeProxyConfiguration

OLDEST = (1, 19)


@dataclass(frozen=True, slots=True)
class VersionProfile:
    """The switches that a release sets."""

    major_minor: tuple[int, int]
    has_nfacct: bool
    has_proxy_firewall: bool  # else KUBE-MARK-DROP
    has_external_chain: bool  # else KUBE-XLB
    needs_topology_annotation: bool
    uses_node_hints: bool
    honours_ip_mode: bool


def version_profile(configuration: KubeProxyConfiguration) -> VersionProfile:
    """Return the profile of the configured release with its feature gates.

    Raises InputError if the release is not "MAJOR.MINOR" or older than 1.19.
    """
    found = re.fullmatch(r"v?(\d+)\.(\d+)(?:[.+-].*)?", configuration.kubernetes.strip())
    major_minor = (int(found[1]), int(found[2])) if found else (0, 0)
    if major_minor < OLDEST:
        raise InputError([
            Problem(
                Position(""), "kubernetes", repr(configuration.kubernetes),
                f"a release from {OLDEST[0]}.{OLDEST[1]} on", 'write for example kubernetes: "1.33"',
            )
        ])  # fmt: skip
    gates = dict(configuration.feature_gates)
    return VersionProfile(
        major_minor=major_minor,
        has_nfacct=major_minor >= (1, 32),
        has_proxy_firewall=major_minor >= (1, 26),
        has_external_chain=major_minor >= (1, 24),
        needs_topology_annotation=major_minor < (1, 31),
        uses_node_hints=major_minor >= (1, 33) and gates.get("PreferSameTrafficDistribution", major_minor >= (1, 34)),
        honours_ip_mode=gates.get("LoadBalancerIPMode", major_minor >= (1, 30)),
    )
