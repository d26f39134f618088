"""The rules of every node of a cluster, for one state of its Services and EndpointSlices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from simnet.controlplane.kube_proxy.generator import RuleGenerator
from simnet.controlplane.kube_proxy.node import ProxiedNode
from simnet.model.cluster import ClusterNode
from simnet.model.iptables.parser import parse_rules
from simnet.model.iptables.ruleset import Family, Ruleset
from simnet.model.kubernetes import EndpointSlice, Service
from simnet.model.scenario import ClusterSpec, SavedRules


def rulesets_of(
    spec: ClusterSpec,
    nodes: Sequence[ClusterNode],
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
) -> dict[str, tuple[Ruleset, ...]]:
    """Return each node's rules, one set a family: its saved ones where it has such, else what kube-proxy writes."""
    families = [Family.IPV4]
    if any(":" in address for node in nodes for address in node.addresses):
        families.append(Family.IPV6)
    generators = [RuleGenerator(services, slices, spec.kube_proxy, family) for family in families]
    saved = {node.name: node.saved_rules for node in spec.nodes if node.saved_rules}
    rulesets: dict[str, tuple[Ruleset, ...]] = {}
    for node in nodes:
        own = {each.family: parsed_rules(each) for each in saved.get(node.name, ())}
        proxied = ProxiedNode(
            name=node.name,
            primary_ip=node.addresses[0],
            labels=node.labels,
            interface_addresses=node.addresses,
            pod_cidrs=node.pod_cidrs,
        )
        rulesets[node.name] = tuple(
            own.get(family) or generator.for_node(proxied)
            for family, generator in zip(families, generators, strict=True)
        )
    return rulesets


@lru_cache(maxsize=64)  # a cluster is made anew for every seed that places its pods
def parsed_rules(saved: SavedRules) -> Ruleset:
    """Return the rules of a saved text."""
    return parse_rules(saved.text, file=saved.saved_file, family=saved.family).ruleset
