"""How a real node's rules differ from what the objects ask for: missing, stale, changed and foreign rules.

Rules are compared by table, chain and what they do: counters, comments, the order of chains in the text, the order of
matches that only look at the packet, and the order of Services in the chains that kube-proxy writes in random order
play no part. What can be told apart from a dump alone:
missing, a rule that the objects ask for and the dump lacks; stale, a rule of kube-proxy's shape that no object asks
for; changed, a rule that differs from the asked one in its probability or in where it translates to; order, the rules
that both have stand in another order where the order decides (spread rules, filters); foreign, a rule of another
program, in a chain of its own, in a built-in chain, or (then the dump does not agree) among kube-proxy's.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from simnet.model.iptables.printer import rule_text
from simnet.model.iptables.ruleset import (
    BUILT_IN_CHAINS,
    Chain,
    CommentMatch,
    DestinationAddress,
    Dnat,
    InInterface,
    Jump,
    Masquerade,
    Match,
    NfacctMatch,
    OpaqueMatch,
    OutInterface,
    ProtocolMatch,
    RecentMatch,
    Reject,
    Rule,
    Ruleset,
    SetMark,
    SourceAddress,
    StatisticNth,
    StatisticRandom,
    TcpFlagsMatch,
    Verdict,
)

KINDS = ("missing", "stale", "changed", "order", "foreign")
UNORDERED = ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL")
# XLB: kube-proxy before 1.24. KUBE-FIREWALL, KUBE-MARK-DROP, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT are kubelet's,
# KUBE-ROUTER-*, KUBE-NWPLCY-*, KUBE-POD-FW-* a policy engine's.
_OF_KUBE_PROXY = re.compile(
    r"KUBE-(?:SERVICES|EXTERNAL-SERVICES|NODEPORTS|POSTROUTING|MARK-MASQ|FORWARD|PROXY-FIREWALL|PROXY-CANARY)$"
    r"|KUBE-(?:SVC|SVL|SEP|EXT|FW|XLB)-[A-Z2-7]{16}$"
)
_OF_ONE_SERVICE = re.compile(r"KUBE-(?:SVC|SVL|SEP|EXT|FW|XLB)-")
_SERVICE_PORT = re.compile(r"(?:^| )([a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9.-]*(?::[a-z0-9][a-z0-9-]*)?)(?= |$)")
_STATEFUL = (RecentMatch, StatisticNth, OpaqueMatch, TcpFlagsMatch)  # where the order of matches says something
_HEADER = (SourceAddress, DestinationAddress, InInterface, OutInterface, ProtocolMatch)


@dataclass(frozen=True, slots=True)
class Difference:
    """One rule that is not where it should be, or not as it should be."""

    kind: str  # one of KINDS
    table: str
    chain: str
    rule: str  # as iptables-save prints it; of a changed rule what the dump holds
    line: int = 0  # in the dump; 0: not there
    service: str = ""  # namespace/name:port, where a chain's name or a comment tells it
    asked: str = ""  # of a changed rule: what the objects ask for
    among_kube_proxys: bool = False  # of a foreign rule: it stands in a chain that only kube-proxy writes

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "kind": self.kind, "table": self.table, "chain": self.chain, "service": self.service or None,
            "rule": self.rule, "asked": self.asked or None, "line": self.line or None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class RuleCheck:
    """All differences of one dump, missing ones first."""

    node: str
    file: str
    compared: int  # rules that the objects ask for, in the tables that the dump holds
    differences: tuple[Difference, ...]
    absent_services: frozenset[str] = frozenset()  # Service ports of which the dump holds no rule
    unknown_services: frozenset[str] = frozenset()  # Service ports of the dump of which the objects ask for no rule

    @property
    def agrees(self) -> bool:
        """Whether the dump holds what the objects ask for and nothing else in kube-proxy's chains."""
        return all(each.kind == "foreign" and not each.among_kube_proxys for each in self.differences)

    def counts(self) -> dict[str, int]:
        """Return the number of differences of each kind."""
        counts = Counter(each.kind for each in self.differences)
        return {kind: counts[kind] for kind in KINDS}

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "node": self.node,
            "file": self.file,
            "compared": self.compared,
            "agrees": self.agrees,
            **self.counts(),
            "absent_services": sorted(self.absent_services),
            "unknown_services": sorted(self.unknown_services),
            "differences": [each.to_dict() for each in self.differences],
        }


def check_rules(node: str, asked: Ruleset, dump: Ruleset) -> RuleCheck:
    """Compare a node's dump with the rules that the objects ask for; only tables that the dump holds are compared.

    `--random-fully` and nfacct objects depend on the host's iptables and kernel, so they are not compared; a rule that
    is there for an nfacct object alone may be absent.
    """
    found: dict[str, list[Difference]] = {kind: [] for kind in KINDS}
    compared = 0
    mine_of, theirs_of = _services(asked), _services(dump)
    for name, table in dump.tables.items():
        wanted = asked.tables[name].chains if name in asked.tables else {}
        for chain in dict.fromkeys((*wanted, *table.chains)):
            mine, theirs = _rules(wanted.get(chain)), _rules(table.chains.get(chain))
            compared += len(mine)
            missing, surplus = _left_over(mine, theirs), _left_over(theirs, mine)
            missing = [
                (key, rule) for key, rule in missing if not (_waits_for_nfacct(rule) and not _uses_nfacct(theirs))
            ]
            changed = _changed(missing, surplus)
            services = {**mine_of, **theirs_of}
            for before, rule in changed:
                service = _service(name, chain, rule, services)
                found["changed"].append(
                    Difference("changed", name, chain, _shown(chain, rule, dump), rule.line, service,
                               _shown(chain, before, asked))
                )  # fmt: skip
            done = {id(rule) for pair in changed for rule in pair}
            for _, rule in missing:
                if id(rule) not in done:
                    service = _service(name, chain, rule, services)
                    found["missing"].append(
                        Difference("missing", name, chain, _shown(chain, rule, asked), service=service)
                    )
            for _, rule in surplus:
                if id(rule) not in done:
                    stale = _is_kube_proxys(chain, rule)
                    among = bool(_OF_KUBE_PROXY.match(chain)) and not stale
                    kind, service = ("stale" if stale else "foreign"), _service(name, chain, rule, services)
                    shown = _shown(chain, rule, dump)
                    found[kind].append(
                        Difference(kind, name, chain, shown, rule.line, service, among_kube_proxys=among)
                    )
            if chain not in UNORDERED and chain not in BUILT_IN_CHAINS[name]:
                found["order"] += _moved(name, chain, mine, theirs, dump, _service(name, chain, None, services))
    return RuleCheck(
        node, dump.source, compared, tuple(each for kind in KINDS for each in found[kind]),
        *_whole_services(asked, dump, found, mine_of, theirs_of),
    )  # fmt: skip


def _rules(chain: Chain | None) -> list[tuple[Rule, Rule]]:
    """Each rule of a chain behind the form that it is compared by."""
    return [(_comparable(rule), rule) for rule in chain.rules] if chain else []


def _left_over(these: list[tuple[Rule, Rule]], those: list[tuple[Rule, Rule]]) -> list[tuple[Rule, Rule]]:
    """What stands in `these` more often than in `those`; of equal rules the last ones."""
    spare = Counter(key for key, _ in those)
    left = []
    for key, rule in these:
        if spare[key] > 0:
            spare[key] -= 1
        else:
            left.append((key, rule))
    return left


def _changed(missing: list[tuple[Rule, Rule]], surplus: list[tuple[Rule, Rule]]) -> list[tuple[Rule, Rule]]:
    """Pairs (asked, held) that differ in nothing but their probability or the place that they translate to."""
    pairs = []
    held: dict[Rule, list[Rule]] = defaultdict(list)
    for key, rule in surplus:
        held[_frame(key)].append(rule)
    for key, rule in missing:
        if held[_frame(key)]:
            pairs.append((rule, held[_frame(key)].pop(0)))
    return pairs


def _frame(rule: Rule) -> Rule:
    matches = tuple(match for match in rule.matches if not isinstance(match, StatisticRandom))
    return replace(rule, matches=matches, target=Dnat(None) if isinstance(rule.target, Dnat) else rule.target)


def _moved(
    table: str, chain: str, asked: list[tuple[Rule, Rule]], held: list[tuple[Rule, Rule]], dump: Ruleset, service: str
) -> list[Difference]:
    """The first rule that stands in another place, among the rules that both chains hold."""
    mine, theirs = _common(asked, held), _common(held, asked)
    for (wanted, _), (found, rule) in zip(mine, theirs, strict=True):
        if wanted != found:
            return [Difference("order", table, chain, _shown(chain, rule, dump), rule.line, service)]
    return []


def _common(these: list[tuple[Rule, Rule]], those: list[tuple[Rule, Rule]]) -> list[tuple[Rule, Rule]]:
    left = {id(rule) for _, rule in _left_over(these, those)}
    return [(key, rule) for key, rule in these if id(rule) not in left]


def _comparable(rule: Rule) -> Rule:
    """The rule without what changes nothing or what the host decides; matches in one order where it is free."""
    matches = [match for match in rule.matches if not isinstance(match, NfacctMatch | CommentMatch)]
    # the kernel compares the header's fields first, wherever they were written
    header = sorted((_plain(match) for match in matches if isinstance(match, _HEADER)), key=_kind)
    others = [match for match in matches if not isinstance(match, _HEADER)]
    if not any(isinstance(match, _STATEFUL) for match in others):
        others.sort(key=_kind)
    target = replace(rule.target, random_fully=False) if isinstance(rule.target, Masquerade) else rule.target
    return replace(rule, matches=(*header, *others), target=target)


def _kind(match: Match) -> str:
    return type(match).__name__


def _plain(match: Match) -> Match:
    return replace(match, text="") if isinstance(match, ProtocolMatch) else match


def _waits_for_nfacct(rule: Rule) -> bool:
    """Whether kube-proxy writes the rule only where the host has nfacct objects (facts of versions 1.33 and later)."""
    is_localhost = any(isinstance(match, DestinationAddress) and match.network.is_loopback for match in rule.matches)
    return is_localhost and any(isinstance(match, NfacctMatch) for match in rule.matches)


def _uses_nfacct(rules: list[tuple[Rule, Rule]]) -> bool:
    return any(isinstance(match, NfacctMatch) for _, rule in rules for match in rule.matches)


def _is_kube_proxys(chain: str, rule: Rule) -> bool:
    """Whether a rule that nobody asked for is one that a kube-proxy could have written."""
    target = rule.target
    to_kube_proxys = isinstance(target, Jump) and bool(_OF_KUBE_PROXY.match(target.chain))
    if not _OF_KUBE_PROXY.match(chain):
        return to_kube_proxys
    if to_kube_proxys or (isinstance(target, Jump) and target.chain == "KUBE-MARK-DROP"):
        return True
    if chain.startswith("KUBE-SEP-"):
        return isinstance(target, Dnat) or target is None
    if chain in ("KUBE-POSTROUTING", "KUBE-MARK-MASQ"):
        return isinstance(target, Masquerade | SetMark | Verdict)
    if chain == "KUBE-FORWARD":
        return isinstance(target, Verdict)
    return (target is None or isinstance(target, Verdict | Reject)) and _named(rule) != ""


# --- which Service a rule belongs to ------------------------------------------------------------------


def _named(rule: Rule) -> str:
    """The Service port that a comment names."""
    said = _SERVICE_PORT.search(rule.comment or "")
    return said[1] if said else ""


def _services(ruleset: Ruleset) -> dict[str, str]:
    """The Service port of each chain that belongs to one, as comments in it, or on jumps to it, say."""
    found: dict[str, str] = {}
    for table in ruleset.tables.values():
        for chain in table.chains.values():
            for rule in chain.rules:
                if not (service := _named(rule)):
                    continue
                if _OF_ONE_SERVICE.match(chain.name):
                    found.setdefault(chain.name, service)
                if isinstance(rule.target, Jump) and _OF_ONE_SERVICE.match(rule.target.chain):
                    found.setdefault(rule.target.chain, service)
    return found


def _service(table: str, chain: str, rule: Rule | None, services: dict[str, str]) -> str:
    """The Service port of a rule; only chains of kube-proxy's are read so, since others' comments may hold anything."""
    if not _OF_KUBE_PROXY.match(chain):
        return ""
    if chain in services:
        return services[chain]
    if rule is None:
        return ""
    jumped = services.get(rule.target.chain, "") if isinstance(rule.target, Jump) else ""
    return _named(rule) or jumped


def _whole_services(
    asked: Ruleset, dump: Ruleset, found: dict[str, list[Difference]], mine: dict[str, str], theirs: dict[str, str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Service ports that the dump lacks as a whole, and those that only the dump knows."""

    def total(ruleset: Ruleset, services: dict[str, str]) -> Counter[str]:
        return Counter(
            _service(table.name, chain.name, rule, services)
            for table in ruleset.tables.values()
            if table.name in dump.tables
            for chain in table.chains.values()
            for rule in chain.rules
        )

    wanted, held = total(asked, {**theirs, **mine}), total(dump, {**mine, **theirs})
    missing = Counter(each.service for each in found["missing"])
    return (
        frozenset(name for name in missing if name and name not in held),
        frozenset(name for name in {each.service for each in found["stale"]} if name and name not in wanted),
    )


def _shown(chain: str, rule: Rule, ruleset: Ruleset) -> str:
    return f"-A {chain} {rule_text(rule, ruleset.family)}".rstrip()
