"""How a real node's rules differ from what the objects ask for: missing, stale and foreign rules.

Rules are compared by table, chain and content; counters play no part, nor does the order of Services in the chains that
kube-proxy writes in random order. What can be told apart from a dump alone:
missing, a rule that the objects ask for and the dump lacks; stale, a rule in a chain of kube-proxy's that no object
asks for; foreign, a rule in a chain that is not kube-proxy's (counted, since other programs own them); order, the
rules of a chain whose order decides (spread rules, filters) stand in another order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from simnet.model.iptables.printer import rule_text
from simnet.model.iptables.ruleset import (
    BUILT_IN_CHAINS,
    Chain,
    CommentMatch,
    Jump,
    Masquerade,
    NfacctMatch,
    Rule,
    Ruleset,
)

UNORDERED = ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL")
KUBELET = ("KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "KUBE-MARK-DROP")  # kubelet's own chains


@dataclass(frozen=True, slots=True)
class Difference:
    """One rule that is not where it should be."""

    kind: str  # "missing", "stale", "foreign", "order"
    table: str
    chain: str
    rule: str  # as iptables-save prints it
    line: int = 0  # in the dump; 0: not there

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "kind": self.kind, "table": self.table, "chain": self.chain, "rule": self.rule, "line": self.line or None
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class RuleCheck:
    """All differences of one dump, missing ones first."""

    node: str
    file: str
    compared: int  # rules that the objects ask for
    differences: tuple[Difference, ...]

    @property
    def agrees(self) -> bool:
        """Whether the dump holds what the objects ask for and nothing stale; foreign rules are no disagreement."""
        return all(each.kind == "foreign" for each in self.differences)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        counts = Counter(each.kind for each in self.differences)
        return {
            "node": self.node,
            "file": self.file,
            "compared": self.compared,
            "agrees": self.agrees,
            **{kind: counts[kind] for kind in ("missing", "stale", "order", "foreign")},
            "differences": [each.to_dict() for each in self.differences],
        }


def check_rules(node: str, asked: Ruleset, dump: Ruleset) -> RuleCheck:
    """Compare a node's dump with the rules that the objects ask for; only tables that the dump holds are compared.

    `--random-fully` and nfacct matches depend on the host's iptables and kernel, so they are not compared.
    """
    found: dict[str, list[Difference]] = {"missing": [], "stale": [], "order": [], "foreign": []}
    compared = 0
    for name, table in dump.tables.items():
        wanted = asked.tables[name].chains if name in asked.tables else {}
        for chain in dict.fromkeys((*wanted, *table.chains)):
            mine, theirs = wanted.get(chain), table.chains.get(chain)
            asked_lines = _lines(mine, asked)
            held = _lines(theirs, dump)
            compared += len(asked_lines)
            missing = Counter(text for text, _ in asked_lines) - Counter(text for text, _ in held)
            surplus = Counter(text for text, _ in held) - Counter(text for text, _ in asked_lines)
            for text, rule in asked_lines:
                if missing[text] > 0:
                    missing[text] -= 1
                    found["missing"].append(Difference("missing", name, chain, _shown(chain, rule, asked)))
            for text, rule in held:
                if surplus[text] > 0:
                    surplus[text] -= 1
                    kind = "stale" if _is_kube_proxys(chain, rule) else "foreign"
                    found[kind].append(Difference(kind, name, chain, _shown(chain, rule, dump), rule.line))
            if chain not in UNORDERED and chain not in BUILT_IN_CHAINS[name]:
                found["order"] += _moved(name, chain, asked_lines, held, dump)
    return RuleCheck(node, dump.source, compared, tuple(each for kind in found.values() for each in kind))


def _moved(
    table: str, chain: str, asked: list[tuple[str, Rule]], held: list[tuple[str, Rule]], dump: Ruleset
) -> list[Difference]:
    """The rules from the first one on that stands in another place, if both chains hold the same rules."""
    mine, theirs = [text for text, _ in asked], [text for text, _ in held]
    if mine == theirs or Counter(mine) != Counter(theirs):
        return []
    first = next(at for at, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1])
    rule = held[first][1]
    return [Difference("order", table, chain, _shown(chain, rule, dump), rule.line)]


def _lines(chain: Chain | None, ruleset: Ruleset) -> list[tuple[str, Rule]]:
    """Each rule with the text that it is compared by."""
    return [(rule_text(_comparable(rule), ruleset.family), rule) for rule in chain.rules] if chain else []


def _comparable(rule: Rule) -> Rule:
    """The rule without what the host, not the objects, decides; matches in one order, the comment first."""
    matches = tuple(match for match in rule.matches if not isinstance(match, NfacctMatch))
    comments = tuple(match for match in matches if isinstance(match, CommentMatch))
    others = tuple(match for match in matches if not isinstance(match, CommentMatch))
    target = replace(rule.target, random_fully=False) if isinstance(rule.target, Masquerade) else rule.target
    return replace(rule, matches=(*comments, *others), target=target)


def _is_kube_proxys(chain: str, rule: Rule) -> bool:
    """Whether a rule that nobody asked for stands where only kube-proxy writes."""
    if chain.startswith("KUBE-"):
        return chain not in KUBELET
    target = rule.target
    return isinstance(target, Jump) and target.chain.startswith("KUBE-") and target.chain not in KUBELET


def _shown(chain: str, rule: Rule, ruleset: Ruleset) -> str:
    return f"-A {chain} {rule_text(rule, ruleset.family)}"
