"""A what-if: the same rules with `statistic --mode nth` in place of `--mode random`, so that endpoints take turns.

kube-proxy never writes this; it shows what a perfectly even spread per node would look like. A cascade of probabilities
1/n, 1/(n-1), ... becomes every n-th, every (n-1)-th, ... packet.
"""

from __future__ import annotations

from dataclasses import replace

from simnet.model.iptables.ruleset import (
    PROBABILITY_ONE,
    Chain,
    Match,
    Ruleset,
    StatisticNth,
    StatisticRandom,
    Table,
)


class RoundRobin:
    """Rewrites rule sets; a chain that many nodes share is rewritten once and stays shared."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[Chain, Chain]] = {}  # id of a chain -> the chain itself, what it became

    def __call__(self, ruleset: Ruleset) -> Ruleset:
        """Return the rule set with every random statistic match made an nth one."""
        nat = ruleset.tables.get("nat")
        if nat is None:
            return ruleset
        chains = {name: self._chain(chain) for name, chain in nat.chains.items()}
        return replace(ruleset, tables={**ruleset.tables, "nat": Table("nat", chains)})

    def _chain(self, chain: Chain) -> Chain:
        known = self._done.get(id(chain))
        if known is None:
            rules = tuple(
                replace(rule, matches=tuple(_as_nth(match) for match in rule.matches))
                if any(isinstance(match, StatisticRandom) for match in rule.matches)
                else rule
                for rule in chain.rules
            )
            known = (chain, chain if rules == chain.rules else replace(chain, rules=rules))
            self._done[id(chain)] = known
        return known[1]


def _as_nth(match: Match) -> Match:
    if not isinstance(match, StatisticRandom) or match.threshold == 0:
        return match
    return StatisticNth(every=max(1, round(PROBABILITY_ONE / match.threshold)), packet=0, negated=match.negated)
