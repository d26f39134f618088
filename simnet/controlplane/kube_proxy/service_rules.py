"""The rules of one service port: its lines in the shared chains, and its own chains.

Every piece is made once for what it depends on and then shared: an endpoint's chain depends on the endpoint alone, a
spread chain on the endpoints it spreads over, so nodes that use the same endpoints hold the very same objects.
Source: kubernetes/kubernetes pkg/proxy/iptables/proxier.go, v1.33; for releases before 1.26 see version_profile.py.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar, cast

from simnet.controlplane.kube_proxy import chain_names as names
from simnet.controlplane.kube_proxy.addresses import host_network
from simnet.controlplane.kube_proxy.endpoints import EndpointInfo, EndpointSelection
from simnet.controlplane.kube_proxy.fixed_rules import LOOPBACK_IPV4
from simnet.controlplane.kube_proxy.local_detector import LocalDetector
from simnet.controlplane.kube_proxy.service_ports import ServicePortInfo
from simnet.controlplane.kube_proxy.version_profile import VersionProfile
from simnet.model.iptables.ruleset import (
    PROBABILITY_ONE,
    AddressTypeMatch,
    Chain,
    CommentMatch,
    DestinationAddress,
    Dnat,
    Family,
    Jump,
    Match,
    NfacctMatch,
    PortMatch,
    ProtocolMatch,
    RecentMatch,
    Reject,
    Rule,
    SourceAddress,
    StatisticRandom,
    Target,
    Verdict,
)
from simnet.model.kube_proxy import LOCALHOST_NODE_PORTS_COUNTER

_PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_REJECT = {Family.IPV4: Reject("icmp-port-unreachable"), Family.IPV6: Reject("icmp6-port-unreachable")}
_DROP, _ACCEPT = Verdict("DROP"), Verdict("ACCEPT")
_MARK_MASQ = Jump(names.MARK_MASQ)
_FROM_THIS_HOST = AddressTypeMatch(source_type="LOCAL")
_TO_THIS_HOST = AddressTypeMatch(destination_type="LOCAL")
_LOOPBACK_DESTINATION = DestinationAddress(LOOPBACK_IPV4)
_LOCALHOST_COUNTER = NfacctMatch(LOCALHOST_NODE_PORTS_COUNTER)

Rules = tuple[Rule, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RuleContext:
    """What all service ports of one generator share."""

    family: Family
    profile: VersionProfile
    masquerade_all: bool
    counts_localhost_node_ports: bool  # whether node ports have a rule of their own for 127.0.0.0/8
    is_large_cluster: bool  # more than 1000 endpoints: rules of endpoints carry no comments


@dataclass(frozen=True, slots=True, eq=False)
class ServicePortRules:
    """All rules that one service port contributes on one node."""

    nat_services: Rules
    nat_node_ports: Rules
    filter_services: Rules
    filter_external_services: Rules
    filter_node_ports: Rules
    filter_proxy_firewall: Rules
    chains: tuple[Chain, ...]  # of nat


class ServicePortWriter:
    """Writes the rules of one service port for any node; what two nodes have in common is the same object."""

    __slots__ = (
        "_cluster_policy",
        "_endpoint_chains",
        "_external",
        "_firewall",
        "_local_policy",
        "_made",
        "_protocol",
        "context",
        "endpoints",
        "name",
        "port",
    )  # fmt: skip

    def __init__(self, port: ServicePortInfo, endpoints: tuple[EndpointInfo, ...], context: RuleContext) -> None:
        self.port = port
        self.endpoints = endpoints
        self.context = context
        self.name = port.name
        suffix = names.hash16(port.name + port.protocol)  # one hash for the four chains of a service port
        self._cluster_policy = "KUBE-SVC-" + suffix
        self._local_policy = "KUBE-SVL-" + suffix
        self._external = ("KUBE-EXT-" if context.profile.has_external_chain else "KUBE-XLB-") + suffix
        self._firewall = "KUBE-FW-" + suffix
        protocol = ProtocolMatch(_PROTOCOL_NUMBERS.get(port.protocol, 0), port.protocol)
        self._protocol = protocol
        self._endpoint_chains: dict[str, Chain] = {}
        self._made: dict[Hashable, object] = {}

    def rules(
        self, selection: EndpointSelection, detector: LocalDetector | None, primary_address_allowed: bool
    ) -> ServicePortRules:
        """Return the rules for what a node selects; equal arguments give the same object.

        `primary_address_allowed`: whether some source range holds the node's primary address.
        """
        cluster, local = _texts(selection.cluster), _texts(selection.local)
        allowed = primary_address_allowed and self._uses_firewall(selection)
        key = ("rules", cluster, local, selection.has_endpoints, detector, allowed)
        return self._once(key, lambda: self._rules(selection, detector, allowed))

    # --- derived switches (section 7 of the specification) ---

    def _has_internal(self, selection: EndpointSelection) -> bool:
        return selection.has_endpoints and not (self.port.internal_policy_local and not selection.local)

    def _has_external(self, selection: EndpointSelection) -> bool:
        return selection.has_endpoints and not (self.port.external_policy_local and not selection.local)

    def _uses_external(self, selection: EndpointSelection) -> bool:
        return selection.has_endpoints and self.port.externally_accessible

    def _uses_firewall(self, selection: EndpointSelection) -> bool:
        port = self.port
        return bool(selection.has_endpoints and port.load_balancer_vips and port.load_balancer_source_ranges)

    # --- all of one node ---

    def _rules(self, selection: EndpointSelection, detector: LocalDetector | None, allowed: bool) -> ServicePortRules:
        has_endpoints = selection.has_endpoints
        has_internal, has_external = self._has_internal(selection), self._has_external(selection)
        chains: list[Chain] = []
        if self._uses_external(selection):
            chains.append(self._external_chain(selection, detector))
        if self._uses_firewall(selection):
            chains.append(self._once(("fw", allowed), lambda: self._firewall_chain(allowed)))
        port = self.port
        if selection.cluster and port.uses_cluster_endpoints:
            internal = has_internal and not port.internal_policy_local
            chains.append(self._policy_chain(self._cluster_policy, selection.cluster, internal, detector))
        if selection.local and port.uses_local_endpoints and self._has_local_policy_chain:
            internal = has_internal and port.internal_policy_local
            chains.append(self._policy_chain(self._local_policy, selection.local, internal, detector))
        chains.extend(map(self._endpoint_chain, selection.reachable))
        once = self._once
        return ServicePortRules(
            nat_services=once(
                ("nat", has_internal, has_endpoints), lambda: self._nat_services(has_internal, has_endpoints)
            ),
            nat_node_ports=once(("np", has_endpoints), self._nat_node_ports) if has_endpoints else (),
            filter_services=()
            if has_internal
            else once(("filter", has_endpoints), lambda: self._filter_services(has_endpoints)),
            filter_external_services=()
            if has_external
            else once(("external", has_endpoints), lambda: self._filter_external_services(has_endpoints)),
            filter_node_ports=once(("health",), self._health_check_node_port),
            filter_proxy_firewall=once(("pfw",), self._proxy_firewall) if self._uses_firewall(selection) else (),
            chains=tuple(chains),
        )

    # --- lines in the shared chains (8.1 to 8.6) ---

    def _nat_services(self, has_internal: bool, has_endpoints: bool) -> Rules:
        port, rules = self.port, []
        if has_internal:
            internal = self._local_policy if port.internal_policy_local else self._cluster_policy
            rules.append(self._to(port.cluster_ip, "cluster IP", Jump(internal)))
        if has_endpoints:
            external = Jump(self._external)
            rules += [self._to(address, "external IP", external) for address in port.external_ips]
            target = Jump(self._firewall) if port.load_balancer_source_ranges else external
            rules += [self._to(address, "loadbalancer IP", target) for address in port.load_balancer_vips]
        return tuple(rules)

    def _filter_services(self, has_endpoints: bool) -> Rules:
        return (self._to(self.port.cluster_ip, *self._refusal(has_endpoints)),)

    def _filter_external_services(self, has_endpoints: bool) -> Rules:
        port = self.port
        reason, target = self._refusal(has_endpoints)
        rules = [self._to(address, reason, target) for address in (*port.external_ips, *port.load_balancer_vips)]
        if port.node_port:
            matches = (CommentMatch(f"{self.name} {reason}"), _TO_THIS_HOST, *self._destination_port(port.node_port))
            rules.append(Rule(matches, target))
        return tuple(rules)

    def _refusal(self, has_endpoints: bool) -> tuple[str, Target]:
        if has_endpoints:
            return "has no local endpoints", _DROP
        return "has no endpoints", _REJECT[self.context.family]

    def _nat_node_ports(self) -> Rules:
        port = self.port
        if not port.node_port:
            return ()
        comment, target = CommentMatch(self.name), Jump(self._external)
        to_port = self._destination_port(port.node_port)
        rules = [Rule((comment, *to_port), target)]
        if self.context.counts_localhost_node_ports:
            rules.insert(0, Rule((comment, *to_port, _LOOPBACK_DESTINATION, _LOCALHOST_COUNTER), target))
        return tuple(rules)

    def _health_check_node_port(self) -> Rules:
        number = self.port.health_check_node_port
        if not number:
            return ()
        to_port = PortMatch("tcp", destination_ports=(number, number))
        comment = CommentMatch(f"{self.name} health check node port")
        return (Rule((comment, to_port, ProtocolMatch(6, "tcp")), _ACCEPT),)

    def _proxy_firewall(self) -> Rules:
        if not self.context.profile.has_proxy_firewall:
            return ()
        reason = f"traffic not accepted by {self._firewall}"
        return tuple(self._to(address, reason, _DROP) for address in self.port.load_balancer_vips)

    # --- chains of the service port (8.7 to 8.12) ---

    def _external_chain(self, selection: EndpointSelection, detector: LocalDetector | None) -> Chain:
        has_external = self._has_external(selection)
        if not self.port.external_policy_local:
            return self._once(("ext", has_external), lambda: self._external_cluster_chain(has_external))
        local = selection.local if has_external and not self._has_local_policy_chain else ()
        key = ("ext", has_external, detector, _texts(local))
        return self._once(key, lambda: self._external_local_chain(has_external, detector, local))

    def _external_cluster_chain(self, has_external: bool) -> Chain:
        comment = CommentMatch(f"masquerade traffic for {self.name} external destinations")
        rules = [Rule((comment,), _MARK_MASQ)]
        if has_external:
            rules.append(Rule((), Jump(self._cluster_policy)))
        return Chain(self._external, tuple(rules))

    def _external_local_chain(
        self, has_external: bool, detector: LocalDetector | None, inlined: tuple[EndpointInfo, ...]
    ) -> Chain:
        # Short circuit: pods and the node itself may use all endpoints, as if they had called the cluster IP.
        everywhere, destinations = Jump(self._cluster_policy), f"{self.name} external destinations"
        rules: list[Rule] = []
        if detector is not None:
            rules.append(Rule((CommentMatch(f"pod traffic for {destinations}"), detector.is_local), everywhere))
        masquerade = CommentMatch(f"masquerade LOCAL traffic for {destinations}")
        rules.append(Rule((masquerade, _FROM_THIS_HOST), _MARK_MASQ))
        rules.append(Rule((CommentMatch(f"route LOCAL traffic for {destinations}"), _FROM_THIS_HOST), everywhere))
        if inlined:
            rules.extend(self._spread(inlined))
        elif has_external:
            rules.append(Rule((), Jump(self._local_policy)))
        return Chain(self._external, tuple(rules))

    @property
    def _has_local_policy_chain(self) -> bool:
        """Before 1.24 KUBE-XLB holds the spread of policy Local itself, unless internal traffic needs it too."""
        return self.context.profile.has_external_chain or self.port.internal_policy_local

    def _firewall_chain(self, primary_address_allowed: bool) -> Chain:
        port = self.port
        comment, external = CommentMatch(f"{self.name} loadbalancer IP"), Jump(self._external)
        rules = [
            Rule((comment, SourceAddress(network, text=str(network))), external)
            for network in port.load_balancer_source_ranges
        ]
        if primary_address_allowed:  # the node may reach a VIP that is its own address
            rules += [
                Rule((comment, SourceAddress(host_network(address))), external) for address in port.load_balancer_vips
            ]
        if self.context.profile.has_proxy_firewall:
            rest = CommentMatch(f"other traffic to {self.name} will be dropped by {names.PROXY_FIREWALL}")
            rules.append(Rule((rest,), None))
        else:
            rules.append(Rule((comment,), Jump(names.MARK_DROP)))
        return Chain(self._firewall, tuple(rules))

    def _policy_chain(
        self, chain: str, endpoints: tuple[EndpointInfo, ...], is_internal: bool, detector: LocalDetector | None
    ) -> Chain:
        if not is_internal:
            masquerades: tuple[Match, ...] | None = None
        elif self.context.masquerade_all:
            masquerades = ()
        else:
            masquerades = (detector.is_not_local,) if detector is not None else None
        return self._once(
            (chain, _texts(endpoints), masquerades), lambda: self._spread_chain(chain, endpoints, masquerades)
        )

    def _spread_chain(
        self, chain: str, endpoints: tuple[EndpointInfo, ...], masquerades: tuple[Match, ...] | None
    ) -> Chain:
        rules = self._once(("spread", _texts(endpoints)), lambda: self._spread(endpoints))
        if masquerades is None:
            return Chain(chain, rules)
        # External traffic passes through here too and must not match, so the cluster IP is asked for again.
        to_cluster_ip = self._to(self.port.cluster_ip, "cluster IP", _MARK_MASQ)
        return Chain(chain, (Rule(to_cluster_ip.matches + masquerades, _MARK_MASQ), *rules))

    def _spread(self, endpoints: tuple[EndpointInfo, ...]) -> Rules:
        count, seconds = len(endpoints), self.port.session_affinity_seconds
        comments: list[tuple[Match, ...]]
        if self.context.is_large_cluster:
            comments = [()] * count
        else:
            comments = [(CommentMatch(f"{self.name} -> {endpoint.text}"),) for endpoint in endpoints]
        targets = [self._endpoint_chain(endpoint).name for endpoint in endpoints]
        rules: list[Rule] = []
        if seconds is not None:
            for comment, target in zip(comments, targets, strict=True):
                seen = RecentMatch("rcheck", target, seconds=seconds, reap=True)
                rules.append(Rule((*comment, seen), Jump(target)))
        for i, (comment, target) in enumerate(zip(comments, targets, strict=True)):
            left = count - i
            rules.append(Rule((*comment, one_of(left)) if left > 1 else comment, Jump(target)))
        return tuple(rules)

    def _endpoint_chain(self, endpoint: EndpointInfo) -> Chain:
        held = self._endpoint_chains.get(endpoint.text)
        if held is not None:
            return held
        port = self.port
        name = names.endpoint_chain(self.name, port.protocol, endpoint.text)
        comment = self._once("comment", lambda: () if self.context.is_large_cluster else (CommentMatch(self.name),))
        protocol: tuple[Match, ...] = self._once("protocol", lambda: (PortMatch(port.protocol), self._protocol))
        if port.session_affinity_seconds is not None:
            protocol = (RecentMatch("set", name), *protocol)
        chain = Chain(
            name,
            (
                Rule((*comment, SourceAddress(host_network(endpoint.ip))), _MARK_MASQ),  # hairpin
                Rule((*comment, *protocol), Dnat(endpoint.ip, (endpoint.port, endpoint.port))),
            ),
        )
        self._endpoint_chains[endpoint.text] = chain
        return chain

    # --- pieces ---

    def _to(self, address: str, reason: str, target: Target) -> Rule:
        """A rule for packets to an address and the Service's port, commented `NAME reason`."""
        to_port = self._destination_port(self.port.port)
        return Rule(
            (CommentMatch(f"{self.name} {reason}"), *to_port, DestinationAddress(host_network(address))), target
        )

    def _destination_port(self, number: int) -> tuple[Match, Match]:
        return PortMatch(self.port.protocol, destination_ports=(number, number)), self._protocol

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = make()
        return cast(T, made)


@lru_cache(maxsize=4096)
def one_of(count: int) -> StatisticRandom:
    """Return the match that is true for one in `count` packets, with kube-proxy's ten decimals."""
    text = f"{1 / count:.10f}"
    return StatisticRandom(round(PROBABILITY_ONE * float(text)), text=text)


def _texts(endpoints: tuple[EndpointInfo, ...]) -> tuple[str, ...]:
    return tuple(endpoint.text for endpoint in endpoints)
