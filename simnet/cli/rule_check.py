"""`simnet rules --check`: read a node's dump, and tell its differences so that they can be read in an incident.

Differences stand under the Service port that they belong to, each with its table and the dump's line. Of a Service
that is missing or stale as a whole, the ways in are shown and the rules of its own chains are counted; of other
programs, what stands in the kernel's own chains is shown and the rest counted. `-o json` has every rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from simnet.engine.rule_check import Difference, RuleCheck, check_rules
from simnet.errors import InputError, Position, Problem
from simnet.model.iptables.parser import parse_rules
from simnet.model.iptables.ruleset import BUILT_IN_CHAINS, Family

if TYPE_CHECKING:
    from simnet.cluster import Cluster

_ENTRIES = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL")


def checked(cluster: Cluster, node: str, dump: str, family: str | None) -> RuleCheck:
    """Compare the file `dump` with what the objects ask for on a node; notes on the text go to stderr.

    `family` None: the dump's own. Raises InputError.
    """
    try:
        with open(dump, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError as error:
        said = error.strerror or str(error)
        raise InputError(
            [Problem(Position(dump), "--check", said, "a file that can be read", "correct the path")]
        ) from None
    parsed = parse_rules(text, file=dump, family=Family(family) if family else None)
    for note in parsed.notes:
        click.echo(f"{dump}:{note.line}: {note.text}" if note.line else f"{dump}: {note.text}", err=True)
    rules = cluster.asked_rules(node, parsed.ruleset.family.value)
    return check_rules(rules.node, rules.ruleset, parsed.ruleset)


def check_text(check: RuleCheck) -> str:
    """Return the report, the verdict last."""
    lines: list[str] = []
    mistakes = [each for each in check.differences if each.kind != "foreign" or each.among_kube_proxys]
    named = sorted({each.service for each in mistakes if each.service})
    for service in named:
        lines += _service_lines(service, [each for each in mistakes if each.service == service], check)
    lines += _section("kube-proxy's rules of no one Service", [each for each in mistakes if not each.service])
    lines += _foreign_lines(
        [each for each in check.differences if each.kind == "foreign" and not each.among_kube_proxys]
    )
    counts = check.counts()
    told = [f"{counts[kind]} {kind}" for kind in ("missing", "stale", "changed") if counts[kind]]
    told += [f"{counts['order']} chains in another order"] if counts["order"] else []
    among = sum(each.among_kube_proxys for each in check.differences)
    told += [f"{among} foreign among kube-proxy's"] if among else []
    verdict = "agrees with" if check.agrees else "differs from"
    end = f"{check.file} {verdict} the {check.compared} rules that the objects ask for on {check.node}"
    lines.append(f"{end}: {', '.join(told)}" if told else end)
    return "\n".join(lines)


def _service_lines(service: str, found: Sequence[Difference], check: RuleCheck) -> list[str]:
    if service not in check.absent_services | check.unknown_services:
        return _section(f"{service}{_endpoints(found)}", found)
    shown = [each for each in found if each.chain in _ENTRIES]
    own = len(found) - len(shown)
    why = "missing as a whole" if service in check.absent_services else "stale as a whole: no object asks for it"
    lines = _section(f"{service}: {why}", shown) or [f"{service}: {why}"]
    return [*lines, f"  and {_rules(own)} in chains of its own"] if own else lines


def _endpoints(found: Iterable[Difference]) -> str:
    """Which endpoints are there or not, from the jumps to their chains."""
    said = []
    for kind, meaning in (("missing", "missing"), ("stale", "stale")):
        names = {
            each.rule.partition("--to-destination ")[2].split(" ")[0]
            for each in found
            if each.kind == kind and each.chain.startswith("KUBE-SEP-") and "--to-destination " in each.rule
        }
        if names:
            said.append(f"{meaning} endpoint{'s' * (len(names) > 1)} {', '.join(sorted(names))}")
    if any(each.kind == "changed" and "--probability" in each.rule + each.asked for each in found):
        said.append("changed probabilities")
    return f": {'; '.join(said)}" if said else ""


def _section(title: str, found: Sequence[Difference]) -> list[str]:
    if not found:
        return []
    lines = [title]
    for each in found:
        place = f"line {each.line}" if each.line else ""
        lines.append(f"  {each.kind:<8} {each.table:<7} {place:<10} {each.rule}")
        if each.asked:
            lines.append(f"  {'  asked':<8} {'':<7} {'':<10} {each.asked}")
    return lines


def _foreign_lines(found: Sequence[Difference]) -> list[str]:
    """Rules of other programs that agree with kube-proxy's being there: told, not judged."""
    if not found:
        return []
    shown = [each for each in found if each.chain in BUILT_IN_CHAINS[each.table]]
    lines = _section(f"of other programs: {_rules(len(found))}", shown) or [f"of other programs: {_rules(len(found))}"]
    hidden = Counter((each.table, each.chain) for each in found if each.chain not in BUILT_IN_CHAINS[each.table])
    if hidden:
        few = [f"{table} {chain} ({count})" for (table, chain), count in hidden.most_common(6)]
        more = ", ..." if len(hidden) > len(few) else ""
        lines.append(f"  and {_rules(sum(hidden.values()))} in chains of their own: {', '.join(few)}{more}")
    return lines


def _rules(count: int) -> str:
    return f"{count} rule{'s' * (count != 1)}"
