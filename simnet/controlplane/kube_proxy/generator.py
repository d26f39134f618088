"""Every node's complete rules after a full sync of kube-proxy on a fresh host.

Modelled: tables nat and filter as kube-proxy writes them, its jumps from built-in chains and its canary chains, in
the canonical order (chains KUBE-NODEPORTS, KUBE-SERVICES, then alphabetical; Services by `namespace/name`). Since the
result is the state, not the input, a full sync after any change of objects is a new generator over the new objects.
Left out: partial syncs as text, chains of others (kubelet's canary, Felix), the random order of Services in a real
sync.

One generator serves all nodes. It writes each service port once for a node that is nowhere (no local endpoint, no
zone, in no source range), and per node only what differs; nodes without differences hold the very same Ruleset.
Source: kubernetes/kubernetes pkg/proxy/iptables/proxier.go, v1.33.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain as concatenate
from operator import attrgetter

from simnet.controlplane.kube_proxy import chain_names as names
from simnet.controlplane.kube_proxy.endpoints import (
    EndpointInfo,
    EndpointSelection,
    count_endpoints,
    endpoints_by_service_port,
    select_endpoints,
)
from simnet.controlplane.kube_proxy.fixed_rules import (
    built_in_rules,
    filter_fixed_rules,
    has_counter,
    nat_fixed_rules,
    node_ports_jumps,
)
from simnet.controlplane.kube_proxy.local_detector import PLACEHOLDER, LocalDetector, local_detector
from simnet.controlplane.kube_proxy.node import ProxiedNode
from simnet.controlplane.kube_proxy.node_port_addresses import has_localhost_node_ports, node_port_addresses
from simnet.controlplane.kube_proxy.service_ports import ServicePortInfo, service_ports
from simnet.controlplane.kube_proxy.service_rules import (
    RuleContext,
    Rules,
    ServicePortRules,
    ServicePortWriter,
)
from simnet.controlplane.kube_proxy.substituted_chains import SubstitutedChains
from simnet.controlplane.kube_proxy.version_profile import version_profile
from simnet.garbage import paused_garbage_collector
from simnet.model.iptables.chain_layers import LayeredChains, canonical_order
from simnet.model.iptables.ruleset import BUILT_IN_CHAINS, Chain, Family, Match, Ruleset, Table
from simnet.model.kube_proxy import LOCALHOST_NODE_PORTS_COUNTER, DetectLocalMode, KubeProxyConfiguration
from simnet.model.kubernetes import EndpointSlice, Service

LARGE_CLUSTER_ENDPOINTS = 1000

Differences = Mapping[int, ServicePortRules]  # by position of the service port
_NOWHERE = ""  # no node has this name, and an endpoint without a node has none


@dataclass(frozen=True, slots=True, eq=False)
class _Base:
    """All service ports' rules for a node that is nowhere, and the chains made of them."""

    rules: tuple[ServicePortRules, ...]
    nat_chains: Mapping[str, Chain]
    filter_chains: Mapping[str, Chain]
    nat_table: Table
    filter_table: Table


class RuleGenerator:
    """The rules of kube-proxy for every node of a cluster, for one address family.

    Raises InputError if the configured release is not one that simnet knows. Objects are checked in `config/`; a text
    that is no address, or one of the other family, is passed over as kube-proxy does.
    """

    def __init__(
        self,
        services: Iterable[Service],
        endpoint_slices: Iterable[EndpointSlice],
        configuration: KubeProxyConfiguration,
        family: Family,
    ) -> None:
        self._configuration = configuration
        self._family = family
        self._profile = version_profile(configuration)
        self.service_ports: tuple[ServicePortInfo, ...] = service_ports(services, family, self._profile)
        with paused_garbage_collector():
            self._endpoints = endpoints_by_service_port(endpoint_slices, family)
        self.is_large_cluster: bool = count_endpoints(self.service_ports, self._endpoints) > LARGE_CLUSTER_ENDPOINTS
        self._localhost_node_ports = has_localhost_node_ports(configuration, family)
        context = RuleContext(
            family,
            self._profile,
            configuration.iptables.masquerade_all,
            self._localhost_node_ports and has_counter(configuration, self._profile, LOCALHOST_NODE_PORTS_COUNTER),
            self.is_large_cluster,
        )
        self._writers = tuple(ServicePortWriter(port, self.endpoints_of(port), context) for port in self.service_ports)
        self._by_node, self._always_asked = self._dependences()
        self._bases: dict[LocalDetector | None, _Base] = {}
        self._tables: dict[object, Table] = {}
        self._chains: dict[object, Chain] = {}
        self._rulesets: dict[object, Ruleset] = {}
        self._mangle = Table("mangle", self._ordered(_built_in_chains("mangle", {}), Chain(names.CANARY)))

    def endpoints_of(self, port: ServicePortInfo) -> tuple[EndpointInfo, ...]:
        """Return all endpoints of a service port, usable or not, in byte order of their text."""
        return self._endpoints.get(port.endpoints_key, ())

    def select(self, port: ServicePortInfo, node: ProxiedNode) -> EndpointSelection:
        """Return which endpoints a node's rules use for a service port."""
        return select_endpoints(
            self.endpoints_of(port),
            port,
            node_name=node.name,
            zone=node.zone,
            uses_node_hints=self._profile.uses_node_hints,
        )

    def for_node(self, node: ProxiedNode) -> Ruleset:
        """Return a node's rules; nodes that do not differ in anything that matters get the same object."""
        detector = local_detector(self._configuration, self._family, node.pod_cidrs)
        # A pod CIDR of its own for each node: chains are written with a placeholder, which each node's tables replace.
        by_node_cidr = self._configuration.detect_local_mode is DetectLocalMode.NODE_CIDR
        written = PLACEHOLDER[self._family] if by_node_cidr and detector is not None else detector
        with paused_garbage_collector():
            base = self._base(written)
        differences = self._differences(node, base, written)
        accepting = node_port_addresses(self._configuration, self._family, node)
        addresses = None if accepting.all_addresses else accepting.of_node(node, self._family)
        # The identity of rules stands for them: writers keep what they made as long as this generator lives.
        key = (detector, addresses, tuple((position, id(rules)) for position, rules in differences.items()))
        made = self._rulesets.get(key)
        if made is None:
            tables = {  # in the order in which restore_text loads them; see there
                "nat": _substituted(self._nat_table(base, differences, addresses), written, detector),
                "filter": self._filter_table(base, differences),
                "mangle": self._mangle,
            }
            made = self._rulesets[key] = Ruleset(self._family, tables)
        return made

    # --- what depends on the node ---

    def _dependences(self) -> tuple[Mapping[str, tuple[int, ...]], tuple[int, ...]]:
        """Positions of service ports to ask on nodes that hold an endpoint of theirs, and those to ask everywhere."""
        by_node: dict[str, dict[int, None]] = defaultdict(dict)
        always_asked = []
        for position, port in enumerate(self.service_ports):
            endpoints = self.endpoints_of(port)
            hinted = not port.ignores_hints and any(
                endpoint.zone_hints or endpoint.node_hints for endpoint in endpoints if endpoint.is_ready
            )
            if hinted or (port.load_balancer_vips and port.load_balancer_source_ranges):
                always_asked.append(position)
            elif port.uses_local_endpoints:
                for endpoint in endpoints:
                    if endpoint.node_name:
                        by_node[endpoint.node_name][position] = None
        return {node: tuple(positions) for node, positions in by_node.items()}, tuple(always_asked)

    def _differences(self, node: ProxiedNode, base: _Base, detector: LocalDetector | None) -> Differences:
        primary = node.primary_address(self._family)
        primary_address = ipaddress.ip_address(primary) if primary else None
        differences: dict[int, ServicePortRules] = {}
        for position in sorted((*self._by_node.get(node.name, ()), *self._always_asked)):
            port = self.service_ports[position]
            allowed = primary_address is not None and any(
                primary_address in network for network in port.load_balancer_source_ranges
            )
            rules = self._writers[position].rules(self.select(port, node), detector, allowed)
            if rules is not base.rules[position]:
                differences[position] = rules
        return differences

    # --- chains and tables ---

    def _base(self, detector: LocalDetector | None) -> _Base:
        made = self._bases.get(detector)
        if made is not None:
            return made
        nowhere = ProxiedNode(_NOWHERE)
        rules = tuple(
            writer.rules(self.select(writer.port, nowhere), detector, primary_address_allowed=False)
            for writer in self._writers
        )
        nat_chains = self._ordered(
            _built_in_chains("nat", built_in_rules("nat", self._profile)),
            Chain(names.CANARY),
            Chain(names.NODE_PORTS, _joined(rules, "nat_node_ports")),
            Chain(names.SERVICES, (*_joined(rules, "nat_services"), *self._node_ports_jumps(addresses=None))),
            *(Chain(*item) for item in nat_fixed_rules(self._configuration, self._profile).items()),
            *concatenate.from_iterable(port_rules.chains for port_rules in rules),
        )
        fixed = filter_fixed_rules(self._configuration, self._profile, localhost_node_ports=self._localhost_node_ports)
        filter_chains = self._ordered(
            _built_in_chains("filter", built_in_rules("filter", self._profile)),
            Chain(names.CANARY),
            *(Chain(name, _joined(rules, section)) for name, section in self._filter_sections()),
            *(Chain(*item) for item in fixed.items()),
        )
        made = self._bases[detector] = _Base(
            rules, nat_chains, filter_chains, Table("nat", nat_chains), Table("filter", filter_chains)
        )
        return made

    def _filter_sections(self) -> tuple[tuple[str, str], ...]:
        sections: tuple[tuple[str, str], ...] = (
            (names.NODE_PORTS, "filter_node_ports"),
            (names.SERVICES, "filter_services"),
            (names.EXTERNAL_SERVICES, "filter_external_services"),
        )
        if self._profile.has_proxy_firewall:
            sections += ((names.PROXY_FIREWALL, "filter_proxy_firewall"),)
        return sections

    def _node_ports_jumps(self, addresses: tuple[str, ...] | None) -> Rules:
        return node_ports_jumps(addresses, self._family, localhost_node_ports=self._localhost_node_ports)

    def _nat_table(self, base: _Base, differences: Differences, addresses: tuple[str, ...] | None) -> Table:
        changed: dict[str, Chain] = {}
        removed: set[str] = set()
        for position, rules in differences.items():
            removed.update(chain.name for chain in base.rules[position].chains)
            for chain in rules.chains:
                if base.nat_chains.get(chain.name) is not chain:
                    changed[chain.name] = chain
                removed.discard(chain.name)
        ends = () if addresses is None else self._node_ports_jumps(addresses)
        for name, section in ((names.SERVICES, "nat_services"), (names.NODE_PORTS, "nat_node_ports")):
            is_last_rule_own = name == names.SERVICES and addresses is not None
            chain = self._shared_chain(
                base, base.nat_chains[name], section, differences, ends if is_last_rule_own else None
            )
            if chain is not base.nat_chains[name]:
                changed[name] = chain
        return self._layered(base.nat_table, changed, removed)

    def _filter_table(self, base: _Base, differences: Differences) -> Table:
        changed: dict[str, Chain] = {}
        for name, section in self._filter_sections():
            chain = self._shared_chain(base, base.filter_chains[name], section, differences, None)
            if chain is not base.filter_chains[name]:
                changed[name] = chain
        return self._layered(base.filter_table, changed, set())

    def _shared_chain(
        self, base: _Base, held: Chain, section: str, differences: Differences, ends: Rules | None
    ) -> Chain:
        """Return a chain shared by all service ports as these differences leave it; `ends` replaces its last rule."""
        part = attrgetter(section)
        changed = {
            position: part(rules)
            for position, rules in differences.items()
            if part(rules) is not part(base.rules[position])
        }
        if not changed and ends is None:
            return held
        key = (held.name, section, tuple((position, id(rules)) for position, rules in changed.items()), ends)
        made = self._chains.get(key)
        if made is None:
            parts = [part(rules) for rules in base.rules]
            for position, rules in changed.items():
                parts[position] = rules
            last = ends if ends is not None else held.rules[len(_joined(base.rules, section)) :]
            made = self._chains[key] = Chain(held.name, (*concatenate.from_iterable(parts), *last))
        return made

    def _layered(self, table: Table, changed: Mapping[str, Chain], removed: set[str]) -> Table:
        if not changed and not removed:
            return table
        key = (id(table), tuple((name, id(chain)) for name, chain in changed.items()), frozenset(removed))
        made = self._tables.get(key)
        if made is None:
            chains = LayeredChains(table.chains, changed, frozenset(removed))
            made = self._tables[key] = Table(table.name, chains)
        return made

    @staticmethod
    def _ordered(built_in: Iterable[Chain], *chains: Chain) -> Mapping[str, Chain]:
        by_name = {chain.name: chain for chain in (*built_in, *chains)}
        return {name: by_name[name] for name in sorted(by_name, key=canonical_order)}


def _substituted(table: Table, written: LocalDetector | None, meant: LocalDetector | None) -> Table:
    if written is None or meant is None or written is meant:
        return table
    matches: Mapping[Match, Match] = {
        written.is_local: meant.is_local,
        written.is_not_local: meant.is_not_local,
    }
    return Table(table.name, SubstitutedChains(table.chains, matches))


def _joined(rules: Iterable[ServicePortRules], section: str) -> Rules:
    return tuple(concatenate.from_iterable(map(attrgetter(section), rules)))


def _built_in_chains(table: str, rules: Mapping[str, Rules]) -> tuple[Chain, ...]:
    return tuple(Chain(name, rules.get(name, ()), policy="ACCEPT") for name in BUILT_IN_CHAINS[table])
