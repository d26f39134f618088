"""The rules that kube-proxy writes whatever Services there are: jumps from built-in chains, masquerading, forwarding.

Source: kubernetes/kubernetes pkg/proxy/iptables/proxier.go, v1.33; the order in built-in chains as a kernel showed
it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from simnet.controlplane.kube_proxy import chain_names as names
from simnet.controlplane.kube_proxy.addresses import host_network
from simnet.controlplane.kube_proxy.version_profile import VersionProfile
from simnet.model.iptables.ruleset import (
    AddressTypeMatch,
    CommentMatch,
    ConntrackStateMatch,
    DestinationAddress,
    Family,
    Jump,
    MarkMatch,
    Masquerade,
    Match,
    NfacctMatch,
    Rule,
    SetMark,
    SourceAddress,
    Verdict,
)
from simnet.model.kube_proxy import CT_STATE_INVALID_COUNTER, KubeProxyConfiguration

DROP_MARK = 0x8000  # kubelet's, before KUBE-PROXY-FIREWALL
LOOPBACK_IPV4 = ipaddress.ip_network("127.0.0.0/8")
LOOPBACK_IPV6 = ipaddress.ip_network("::1/128")
_NODE_PORTS_LAST = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
_NEW = ConntrackStateMatch(("NEW",))


@dataclass(frozen=True, slots=True)
class BuiltInJump:
    """A jump that every full sync makes sure of, at the head of a built-in chain."""

    table: str
    chain: str
    target: str
    matches: tuple[Match, ...]

    @property
    def rule(self) -> Rule:
        """The jump as a rule."""
        return Rule(self.matches, Jump(self.target))


def _jumps() -> tuple[BuiltInJump, ...]:
    external = (_NEW, CommentMatch("kubernetes externally-visible service portals"))
    portals = (_NEW, CommentMatch("kubernetes service portals"))
    firewall = (_NEW, CommentMatch("kubernetes load balancer firewall"))
    nat_portals = (CommentMatch("kubernetes service portals"),)
    return (
        BuiltInJump("filter", "INPUT", names.EXTERNAL_SERVICES, external),
        BuiltInJump("filter", "FORWARD", names.EXTERNAL_SERVICES, external),
        BuiltInJump("filter", "INPUT", names.NODE_PORTS, (CommentMatch("kubernetes health check service ports"),)),
        BuiltInJump("filter", "FORWARD", names.SERVICES, portals),
        BuiltInJump("filter", "OUTPUT", names.SERVICES, portals),
        BuiltInJump("filter", "FORWARD", names.FORWARD, (CommentMatch("kubernetes forwarding rules"),)),
        BuiltInJump("filter", "INPUT", names.PROXY_FIREWALL, firewall),
        BuiltInJump("filter", "OUTPUT", names.PROXY_FIREWALL, firewall),
        BuiltInJump("filter", "FORWARD", names.PROXY_FIREWALL, firewall),
        BuiltInJump("nat", "OUTPUT", names.SERVICES, nat_portals),
        BuiltInJump("nat", "PREROUTING", names.SERVICES, nat_portals),
        BuiltInJump("nat", "POSTROUTING", names.POSTROUTING, (CommentMatch("kubernetes postrouting rules"),)),
        BuiltInJump("filter", "INPUT", names.KUBELET_FIREWALL, ()),
        BuiltInJump("filter", "OUTPUT", names.KUBELET_FIREWALL, ()),
    )


JUMPS = _jumps()  # in the order in which a full sync ensures them


def built_in_rules(table: str, profile: VersionProfile) -> Mapping[str, tuple[Rule, ...]]:
    """Return the jumps in each built-in chain of a fresh host: each was put at the head, so the last comes first."""
    rules: dict[str, tuple[Rule, ...]] = {}
    for jump in JUMPS:
        if jump.target == names.PROXY_FIREWALL and not profile.has_proxy_firewall:
            continue
        if jump.table == table:
            rules[jump.chain] = (jump.rule, *rules.get(jump.chain, ()))
    return rules


def nat_fixed_rules(configuration: KubeProxyConfiguration, profile: VersionProfile) -> Mapping[str, tuple[Rule, ...]]:
    """Return KUBE-POSTROUTING and KUBE-MARK-MASQ, and kubelet's KUBE-MARK-DROP of older releases."""
    mark = configuration.masquerade_mark
    rules: dict[str, tuple[Rule, ...]] = {
        names.POSTROUTING: (
            Rule((MarkMatch(mark, mark, negated=True),), Verdict("RETURN")),
            Rule((), SetMark(mark, 0)),  # --xor-mark: an encapsulated copy must not be masqueraded again
            Rule(
                (CommentMatch("kubernetes service traffic requiring SNAT"),),
                Masquerade(random_fully=configuration.host.random_fully),
            ),
        ),
        names.MARK_MASQ: (Rule((), SetMark(mark, mark)),),
    }
    if not profile.has_proxy_firewall:
        rules[names.MARK_DROP] = (Rule((), SetMark(DROP_MARK, DROP_MARK)),)
    return rules


def filter_fixed_rules(
    configuration: KubeProxyConfiguration, profile: VersionProfile, *, localhost_node_ports: bool
) -> Mapping[str, tuple[Rule, ...]]:
    """Return KUBE-FIREWALL (empty without localhost node ports) and KUBE-FORWARD."""
    mark = configuration.masquerade_mark
    firewall: list[Rule] = []
    if not profile.has_proxy_firewall:
        firewall.append(
            Rule(
                (
                    CommentMatch("kubernetes firewall for dropping marked packets"),
                    MarkMatch(DROP_MARK, DROP_MARK),
                ),
                Verdict("DROP"),
            )
        )
    if localhost_node_ports:
        firewall.append(
            Rule(
                (
                    CommentMatch("block incoming localnet connections"),
                    DestinationAddress(LOOPBACK_IPV4),
                    SourceAddress(LOOPBACK_IPV4, negated=True),
                    ConntrackStateMatch(("RELATED", "ESTABLISHED", "DNAT"), negated=True),
                ),
                Verdict("DROP"),
            )
        )
    forward: list[Rule] = []
    if not configuration.host.conntrack_tcp_be_liberal:
        invalid: tuple[Match, ...] = (ConntrackStateMatch(("INVALID",)),)
        if has_counter(configuration, profile, CT_STATE_INVALID_COUNTER):
            invalid += (NfacctMatch(CT_STATE_INVALID_COUNTER),)
        forward.append(Rule(invalid, Verdict("DROP")))
    forward.append(Rule((CommentMatch("kubernetes forwarding rules"), MarkMatch(mark, mark)), Verdict("ACCEPT")))
    forward.append(
        Rule(
            (
                CommentMatch("kubernetes forwarding conntrack rule"),
                ConntrackStateMatch(("RELATED", "ESTABLISHED")),
            ),
            Verdict("ACCEPT"),
        )
    )
    return {names.KUBELET_FIREWALL: tuple(firewall), names.FORWARD: tuple(forward)}


def node_ports_jumps(
    addresses: tuple[str, ...] | None, family: Family, *, localhost_node_ports: bool
) -> tuple[Rule, ...]:
    """Return the rules that end nat KUBE-SERVICES: one for any local address (`addresses` None), or one an address."""
    comment, jump = CommentMatch(_NODE_PORTS_LAST), Jump(names.NODE_PORTS)
    if addresses is not None:
        return tuple(Rule((comment, DestinationAddress(host_network(address))), jump) for address in addresses)
    matches: tuple[Match, ...] = (comment, AddressTypeMatch(destination_type="LOCAL"))
    if family is Family.IPV6:
        matches += (DestinationAddress(LOOPBACK_IPV6, negated=True, text=str(LOOPBACK_IPV6)),)
    elif not localhost_node_ports:
        matches += (DestinationAddress(LOOPBACK_IPV4, negated=True),)
    return (Rule(matches, jump),)


def has_counter(configuration: KubeProxyConfiguration, profile: VersionProfile, counter: str) -> bool:
    """Return whether rules count into this nfacct object."""
    return profile.has_nfacct and counter in configuration.host.nfacct_counters
