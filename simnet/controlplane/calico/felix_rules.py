"""The rules that Calico's Felix adds to a node's nat table: natOutgoing, after kube-proxy's.

Modelled: masquerade of packets from a pool to anywhere outside all pools, in cali-POSTROUTING, which runs last
(Calico v3.29 and later). Left out: policy, host endpoints, floating IPs; Felix writes ipsets where this writes the
pools themselves. Source: projectcalico/calico felix/rules/nat.go; facts in docs/models/routing.md.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from simnet.model.calico import CalicoSettings
from simnet.model.iptables.chain_layers import LayeredChains
from simnet.model.iptables.ruleset import (
    Chain,
    DestinationAddress,
    Family,
    Jump,
    Masquerade,
    Match,
    Rule,
    Ruleset,
    SourceAddress,
    Table,
    Verdict,
)

POSTROUTING, NAT_OUTGOING = "cali-POSTROUTING", "cali-nat-outgoing"
FELIX = "cali-"  # how the names of its chains begin
RETURN = Verdict("RETURN")


class NatOutgoing:
    """Adds the natOutgoing rules of a cluster's pools to a node's rule set; equal chains are shared by all nodes."""

    def __init__(self, settings: CalicoSettings) -> None:
        self._is_on = settings.nat_outgoing
        pools = [ipaddress.ip_network(pool) for pool in settings.ip_pools]
        self._chains: dict[Family, dict[str, Chain]] = {}
        for family, version in ((Family.IPV4, 4), (Family.IPV6, 6)):
            own = [pool for pool in pools if pool.version == version]
            outside: tuple[Match, ...] = tuple(DestinationAddress(pool, negated=True) for pool in own)
            # A rule takes one destination: with several pools those within any pool return first.
            leave = tuple(Rule((DestinationAddress(pool),), RETURN) for pool in own) if len(own) > 1 else ()
            rules = tuple(
                Rule((SourceAddress(pool), *(outside if len(own) == 1 else ())), Masquerade(random_fully=True))
                for pool in own
                if settings.nat_outgoing_pools is None or str(pool) in settings.nat_outgoing_pools
            )
            self._chains[family] = {
                NAT_OUTGOING: Chain(NAT_OUTGOING, leave + rules),
                POSTROUTING: Chain(POSTROUTING, (Rule((), Jump(NAT_OUTGOING)),)),
            }

    def __call__(self, ruleset: Ruleset) -> Ruleset:
        """Return the rule set with the chains added; unchanged where natOutgoing is off or no pool is of its family.

        A real node's rules that hold Felix's chains already say what Felix has written there: they stay as they are.
        """
        nat = ruleset.tables.get("nat")
        added = self._chains[ruleset.family]
        if not self._is_on or nat is None or not added[NAT_OUTGOING].rules:
            return ruleset
        if ruleset.source and any(name.startswith(FELIX) for name in nat.chains):
            return ruleset
        hook = nat.chains["POSTROUTING"]
        changed = {"POSTROUTING": replace(hook, rules=(*hook.rules, Rule((), Jump(POSTROUTING)))), **added}
        chains = LayeredChains(nat.chains, changed, frozenset())
        return replace(ruleset, tables={**ruleset.tables, "nat": Table("nat", chains)})
