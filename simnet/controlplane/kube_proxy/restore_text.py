"""The text that kube-proxy hands to `iptables-restore`, in its own order of arguments.

The rules of kube-proxy's chains are written as kube-proxy writes them (mark `0x00004000`, probabilities with ten
decimals, `-m tcp -p tcp -d IP --dport PORT`), grouped by chain in canonical order. What kube-proxy makes with single
iptables commands besides its restore input stands in the same text, so that loading it into an empty namespace gives
the complete state: the canary chains and KUBE-FIREWALL are declared, and jumps are `-I` lines in built-in chains, as
a full sync makes them (the last one inserted comes first). Tables come as nat, filter, mangle, not filter, nat as in
a real sync: a legacy kernel lists the table used last first, so that both back ends then save mangle, filter, nat.
Left out: matches and targets that kube-proxy never writes; they are an error.
Source: kubernetes/kubernetes pkg/proxy/iptables/proxier.go, v1.33.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from simnet.errors import ModelError
from simnet.model.iptables.ruleset import (
    AddressTypeMatch,
    Chain,
    CommentMatch,
    ConntrackStateMatch,
    DestinationAddress,
    Dnat,
    InInterface,
    IPNetwork,
    Jump,
    MarkMatch,
    Masquerade,
    Match,
    NfacctMatch,
    PortMatch,
    ProtocolMatch,
    RecentMatch,
    Reject,
    Rule,
    Ruleset,
    SetMark,
    SourceAddress,
    StatisticRandom,
    Table,
    Target,
    Verdict,
)

LOADING_ORDER = ("nat", "filter", "mangle")
_BLANK = re.compile(r"\s")


def restore_text(ruleset: Ruleset) -> str:
    """Return the restore input of a generated rule set; ModelError for what kube-proxy never writes."""
    lines: list[str] = []
    for name in LOADING_ORDER:
        if name in ruleset.tables:
            lines.extend(_table_lines(ruleset.tables[name]))
    return "\n".join(lines) + "\n"


def rule_text(chain: str, rule: Rule, command: str = "-A") -> str:
    """Return one rule as a line of restore input."""
    return " ".join((command, chain, *_arguments(rule.matches), *_target(rule.target)))


def _table_lines(table: Table) -> Iterator[str]:
    yield f"*{table.name}"
    own = [chain for chain in table.chains.values() if chain.policy is None]
    built_in = [chain for chain in table.chains.values() if chain.policy is not None]
    yield from (f":{chain.name} - [0:0]" for chain in own)
    yield from _rules(own)
    for chain in built_in:
        yield from (rule_text(chain.name, rule, "-I") for rule in reversed(chain.rules))
    yield "COMMIT"


def _rules(chains: Iterable[Chain]) -> Iterator[str]:
    for chain in chains:
        yield from (rule_text(chain.name, rule) for rule in chain.rules)


def _arguments(matches: Iterable[Match]) -> Iterator[str]:
    ports: tuple[str, ...] = ()  # of a port match: they follow the protocol and the destination
    for match in matches:
        if ports and not isinstance(match, ProtocolMatch | DestinationAddress):
            yield from ports
            ports = ()
        if isinstance(match, PortMatch):
            ports = _port_options(match)
        yield from _match(match)
    yield from ports


def _match(given: Match) -> tuple[str, ...]:
    match given:
        case CommentMatch(text):
            return ("-m", "comment", "--comment", f'"{text}"' if _BLANK.search(text) else text)
        case PortMatch(module):
            return ("-m", module)
        case ProtocolMatch(_, text):
            return ("-p", text)
        case DestinationAddress(network, negated, text):
            return (*_not(negated), "-d", text or _network(network))
        case SourceAddress(network, negated, text):
            return (*_not(negated), "-s", text or _network(network))
        case InInterface(name, negated):
            return (*_not(negated), "-i", name)
        case StatisticRandom(_, _, text):
            return ("-m", "statistic", "--mode", "random", "--probability", text)
        case RecentMatch("set", name):
            return ("-m", "recent", "--name", name, "--set")
        case RecentMatch("rcheck", name, seconds):
            return ("-m", "recent", "--name", name, "--rcheck", "--seconds", str(seconds), "--reap")
        case AddressTypeMatch(source_type, destination_type):
            source = ("--src-type", source_type) if source_type else ()
            return ("-m", "addrtype", *source, *(("--dst-type", destination_type) if destination_type else ()))
        case ConntrackStateMatch(states, negated):
            return ("-m", "conntrack", *_not(negated), "--ctstate", ",".join(states))
        case MarkMatch(value, mask, negated):
            return ("-m", "mark", *_not(negated), "--mark", f"{_mark(value)}/{_mark(mask)}")
        case NfacctMatch(name):
            return ("-m", "nfacct", "--nfacct-name", name)
    raise ModelError(f"kube-proxy writes no such match: {given!r}")


def _target(target: Target | None) -> tuple[str, ...]:
    match target:
        case None:
            return ()
        case Verdict(name):
            return ("-j", name)
        case Jump(chain):
            return ("-j", chain)
        case Reject():
            return ("-j", "REJECT")
        case SetMark(value, 0):
            return ("-j", "MARK", "--xor-mark", _mark(value))
        case SetMark(value):
            return ("-j", "MARK", "--or-mark", _mark(value))
        case Masquerade(random_fully):
            return ("-j", "MASQUERADE", *(("--random-fully",) if random_fully else ()))
        case Dnat(address, (port, _)) if address is not None:
            return ("-j", "DNAT", "--to-destination", f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
    raise ModelError(f"kube-proxy writes no such target: {target!r}")


def _port_options(match: PortMatch) -> tuple[str, ...]:
    return ("--dport", str(match.destination_ports[0])) if match.destination_ports else ()


def _network(network: IPNetwork) -> str:
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _not(negated: bool) -> tuple[str, ...]:
    return ("!",) if negated else ()


def _mark(value: int) -> str:
    return f"{value:#010x}"
