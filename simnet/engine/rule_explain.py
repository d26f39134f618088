"""How likely each endpoint rule is to be taken: given that it is asked, and of all packets that enter its chain.

Source: xt_statistic; facts in docs/models/trace-and-shares.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from simnet.model.iptables.printer import rule_text
from simnet.model.iptables.ruleset import (
    PROBABILITY_ONE,
    Chain,
    CommentMatch,
    Dnat,
    Jump,
    RecentMatch,
    Ruleset,
    StatisticNth,
    StatisticRandom,
)


@dataclass(frozen=True, slots=True)
class ExplainedRule:
    """One rule that spreads connections over endpoints."""

    chain: str
    number: int  # in its chain, from 1
    endpoint: str  # ip:port of the DNAT that it leads to
    conditional: Fraction  # of the packets that are asked by this rule
    unconditional: Fraction  # of the packets that enter the chain's spread rules
    fair: Fraction  # 1 / endpoints
    affinity: bool  # a `recent` rule comes first: a client that is remembered goes where it went before
    rule: str

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "chain": self.chain,
            "number": self.number,
            "endpoint": self.endpoint,
            "conditional": float(self.conditional),
            "unconditional": float(self.unconditional),
            "exact": str(self.unconditional),
            "of_fair": float(self.unconditional / self.fair),
            "affinity": self.affinity,
            "rule": self.rule,
        }


def explain(ruleset: Ruleset) -> Iterator[ExplainedRule]:
    """Yield the spread rules of every nat chain, in chain order."""
    nat = ruleset.tables.get("nat")
    for chain in nat.chains.values() if nat else ():
        yield from _of_chain(chain, ruleset)


def _of_chain(chain: Chain, ruleset: Ruleset) -> Iterator[ExplainedRule]:
    """A run of jumps to chains that end in DNAT, asked one after the other."""
    spread: list[tuple[int, str, Fraction]] = []
    affinity = False
    for number, rule in enumerate(chain.rules, 1):
        if not isinstance(rule.target, Jump):
            continue
        endpoint = _endpoint(ruleset, rule.target.chain)
        if endpoint is None:
            continue
        if any(isinstance(match, RecentMatch) for match in rule.matches):
            affinity = True
            continue
        others = [match for match in rule.matches if not isinstance(match, CommentMatch)]
        chance = Fraction(1)
        for match in others:
            if isinstance(match, StatisticRandom):
                chance = Fraction(match.threshold, PROBABILITY_ONE)
                chance = 1 - chance if match.negated else chance
            elif isinstance(match, StatisticNth):
                chance = Fraction(1, match.every)
            else:
                break  # a rule that asks for more is no spread rule
        else:
            spread.append((number, endpoint, chance))
    left = Fraction(1)
    for number, endpoint, chance in spread:
        text = f"-A {chain.name} {rule_text(chain.rules[number - 1], ruleset.family)}"
        fair = Fraction(1, len(spread))
        yield ExplainedRule(chain.name, number, endpoint, chance, left * chance, fair, affinity, text)
        left *= 1 - chance


def _endpoint(ruleset: Ruleset, chain: str) -> str | None:
    held = ruleset.chain("nat", chain)
    for rule in held.rules if held else ():
        if isinstance(rule.target, Dnat) and rule.target.address:
            port = f":{rule.target.ports[0]}" if rule.target.ports else ""
            return f"[{rule.target.address}]{port}" if ":" in rule.target.address else f"{rule.target.address}{port}"
    return None
