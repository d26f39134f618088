"""Print a table as `iptables -L` does: the columns of `iptables -v -n -t nat -L KUBE-SERVICES`, with counters.

Protocols stand as names (`tcp`, `all`), as iptables prints them but for versions 1.8.8 and 1.8.9, which print numbers
with `-n`. Matches that simnet does not model are shown by the words of iptables-save.
Source: what iptables 1.8.9 printed (tests/model/iptables/test_listing.py asks a real one).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from simnet.model.iptables.extensions import FULL_MASK, SERVICE_NAMES, TCP_FLAGS
from simnet.model.iptables.parser_match import in_state_order
from simnet.model.iptables.ruleset import (
    BUILT_IN_CHAINS,
    PROBABILITY_ONE,
    AddressTypeMatch,
    Chain,
    CommentMatch,
    ConntrackStateMatch,
    DestinationAddress,
    Dnat,
    Family,
    InInterface,
    IPNetwork,
    Jump,
    MarkMatch,
    Masquerade,
    Match,
    MultiportMatch,
    NfacctMatch,
    OpaqueMatch,
    OpaqueTarget,
    OutInterface,
    PortMatch,
    ProtocolMatch,
    RecentMatch,
    Reject,
    Rule,
    Ruleset,
    SetMark,
    Snat,
    SourceAddress,
    StatisticNth,
    StatisticRandom,
    Target,
    TcpFlagsMatch,
    Verdict,
)


def listing_text(
    ruleset: Ruleset,
    table: str,
    chain: str | None = None,
    *,
    numeric: bool = True,
    verbose: bool = True,
    exact: bool = False,
    line_numbers: bool = False,
) -> str:
    """Return what `iptables -t TABLE -L [CHAIN] [-n] [-v] [-x] [--line-numbers]` prints."""
    held = ruleset.tables[table]
    built_in = list(BUILT_IN_CHAINS[table])
    if chain is not None:
        chains = [held.chains[chain]]
    else:
        chains = [held.chains.get(name) or Chain(name, policy="ACCEPT") for name in built_in]
        chains += [held.chains[name] for name in sorted(held.chains) if name not in built_in]
    references: Counter[str] = Counter()
    for each in held.chains.values():
        references.update(rule.target.chain for rule in each.rules if isinstance(rule.target, Jump))
    style = _Style(ruleset.family, numeric, verbose, exact, line_numbers)
    blocks = ["\n".join(style.chain_lines(each, references[each.name])) + "\n" for each in chains]
    return "\n".join(blocks)


def scaled(count: int) -> str:
    """Return a counter as iptables shows it: up to 99999 whole, then rounded, with K, M, G or T."""
    if count <= 99999:
        return str(count)
    count = (count + 500) // 1000
    for unit in ("K", "M", "G"):
        if count <= 9999:
            return f"{count}{unit}"
        count = (count + 500) // 1000
    return f"{count}T"


class _Style:
    def __init__(self, family: Family, numeric: bool, verbose: bool, exact: bool, line_numbers: bool) -> None:
        self.family = family
        self.numeric = numeric
        self.verbose = verbose
        self.exact = exact
        self.line_numbers = line_numbers

    def chain_lines(self, chain: Chain, references: int) -> Iterator[str]:
        counters = f" {_whole(chain.packets, self.exact)} packets, {_whole(chain.bytes, self.exact)} bytes"
        policy = f"policy {chain.policy}{counters if self.verbose else ''}"
        yield f"Chain {chain.name} ({policy if chain.policy else f'{references} references'})"
        head = f"{'num':<4} " if self.line_numbers else ""
        if self.verbose:
            head += f"{'pkts':>8} {'bytes':>10} " if self.exact else f"{'pkts':>5} {'bytes':>5} "
        head += f"{'target':<9}  prot opt "
        if self.verbose:
            head += f"{'in':<6} {'out':<6}  "
        yield head + f"{'source':<19}  {'destination':<19} "
        for place, rule in enumerate(chain.rules, 1):
            yield (f"{place:<4} " if self.line_numbers else "") + self.rule_line(rule)

    def rule_line(self, rule: Rule) -> str:
        line = ""
        if self.verbose:
            packets, octets = (
                (str(rule.packets), str(rule.bytes)) if self.exact else (scaled(rule.packets), scaled(rule.bytes))
            )
            line += f"{packets:>8} {octets:>8} " if self.exact else f"{packets:>5} {octets:>5} "
        heads = {type(match): match for match in rule.matches if not isinstance(match, OpaqueMatch)}
        bare = [match.arguments for match in rule.matches if isinstance(match, OpaqueMatch) and not match.module]
        line += f"{_target_name(rule.target):<9} "
        protocol = heads.get(ProtocolMatch)
        assert protocol is None or isinstance(protocol, ProtocolMatch)
        line += ("!" if protocol and protocol.negated else " ") + f"{protocol.text if protocol else 'all':<4} "
        line += "!f" if ("!", "-f") in bare else "-f" if ("-f",) in bare else "--"
        line += "  " if self.verbose else " "
        if self.verbose:
            any_name = "*" if self.numeric else "any"
            for kind in (InInterface, OutInterface):
                match = heads.get(kind)
                assert match is None or isinstance(match, InInterface | OutInterface)
                name = (("!" if match.negated else "") + match.name) if match else any_name
                line += f"{name:<6} "
        for side, option in ((SourceAddress, "-s"), (DestinationAddress, "-d")):
            line += self.address(heads.get(side), next((words for words in bare if option in words), ()))
        extras = [extra for match in rule.matches if (extra := self.extra(match))]
        if isinstance(rule.target, Jump) and rule.target.goto:
            line += "[goto] "
        extras += [acts] if (acts := self.acts(rule.target)) else []
        return line + (" " + " ".join(extras) if extras else "")

    def address(self, match: object, words: tuple[str, ...]) -> str:
        if words:
            return ("!" if words[0] == "!" else " ") + f"{words[-1]:<19} "
        if not isinstance(match, SourceAddress | DestinationAddress):
            zero = "0.0.0.0/0" if self.family is Family.IPV4 else "::/0"
            return f" {zero if self.numeric else 'anywhere':<19} "
        return ("!" if match.negated else " ") + f"{self.network(match.network):<19} "

    def network(self, network: IPNetwork) -> str:
        if not self.numeric and network.prefixlen == 0:
            return "anywhere"
        return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)

    def port(self, port: int, module: str = "tcp") -> str:
        if self.numeric or module not in ("tcp", "udp"):
            return str(port)
        return SERVICE_NAMES.get(port, str(port))

    def ports(self, name: str, ports: tuple[int, int] | None, negated: bool, module: str) -> list[str]:
        if ports is None:
            return []
        low, high = ports
        sign = "!" if negated else ""
        if low == high:
            return [f"{name}:{sign}{self.port(low, module)}"]
        return [f"{name}s:{sign}{self.port(low, module)}:{self.port(high, module)}"]

    def extra(self, match: Match) -> str:
        match match:
            case CommentMatch(text):
                return f"/* {text} */"
            case PortMatch(module, source, destination, not_source, not_destination):
                words = self.ports("spt", source, not_source, module)
                words += self.ports("dpt", destination, not_destination, module)
                return " ".join([module, *words])
            case TcpFlagsMatch(mask, set_flags, negated):
                return f"flags:{'!' if negated else ''}{self.flags(mask)}/{self.flags(set_flags)}"
            case MultiportMatch(ranges, which, negated):
                text = ",".join(self.port(a) + (f":{self.port(b)}" if a != b else "") for a, b in ranges)
                return f"multiport {which} {' !' if negated else ''}{text}"
            case MarkMatch(value, mask, negated):
                text = f"{value:#x}" + (f"/{mask:#x}" if mask != 0xFFFFFFFF else "")
                return f"mark match {'! ' if negated else ''}{text}"
            case StatisticRandom(threshold, negated):
                sign = "! " if negated else ""
                return f"statistic mode random {sign}probability {threshold / PROBABILITY_ONE:.11f}"
            case StatisticNth(every, packet, negated):
                return f"statistic mode nth {'! ' if negated else ''}every {every}" + (
                    f" packet {packet}" if packet else ""
                )
            case RecentMatch():
                return self.recent(match)
            case AddressTypeMatch(source_type, destination_type, not_source, not_destination, limit):
                words = ["ADDRTYPE match"]
                if source_type is not None:
                    words.append(f"src-type {'!' if not_source else ''}{source_type}")
                if destination_type is not None:
                    words.append(f"dst-type {'!' if not_destination else ''}{destination_type}")
                return " ".join(words + ([f"limit-{limit}"] if limit else []))
            case ConntrackStateMatch(states, negated, module):
                word = "ctstate" if module == "conntrack" else "state"
                return f"{'! ' if negated else ''}{word} {in_state_order(states)}"
            case NfacctMatch(name):
                return f"nfacct-name  {name}"
            case OpaqueMatch(module, arguments) if module:
                return " ".join([module, *arguments])
            case _:
                return ""

    def flags(self, flags: tuple[str, ...]) -> str:
        if self.numeric:
            return f"0x{sum(TCP_FLAGS[flag] for flag in flags):02X}"
        return ",".join(flags) or "NONE"

    def recent(self, match: RecentMatch) -> str:
        words = ["! recent:" if match.negated else "recent:",
                 {"set": "SET", "rcheck": "CHECK", "update": "UPDATE", "remove": "REMOVE"}[match.action]]  # fmt: skip
        if match.seconds is not None:
            words.append(f"seconds: {match.seconds}")
        if match.reap:
            words.append("reap")
        if match.hitcount is not None:
            words.append(f"hit_count: {match.hitcount}")
        if match.rttl:
            words.append("TTL-Match")
        side = "source" if match.side == "rsource" else "dest"
        return " ".join([*words, f"name: {match.name} side: {side} mask: {match.mask or FULL_MASK[self.family]}"])

    def acts(self, target: Target | None) -> str:
        match target:
            case Reject(reject_with):
                return f"reject-with {reject_with}"
            case SetMark(value, mask):
                return "MARK " + mark_words(value, mask)
            case Dnat(redirect=True, ports=ports, options=options):
                words = [f"redir ports {_span(ports)}"] if ports else []
                return " ".join(words + [option[2:] for option in options])
            case Dnat(address, ports, options, last) | Snat(address, ports, options, last):
                from simnet.model.iptables.printer import destination_text  # the two modules offer each other's names

                return " ".join([f"to:{destination_text(address, last, ports)}", *(option[2:] for option in options)])
            case Masquerade(random_fully, ports, random):
                words = [f"masq ports: {_span(ports)}"] if ports else []
                return " ".join(words + ["random"] * random + ["random-fully"] * random_fully)
            case OpaqueTarget(name, arguments):
                return " ".join([name, *arguments]) if arguments else ""
            case _:
                return ""


def mark_words(value: int, mask: int) -> str:
    """Return how a listing names a change of the mark: `or 0x4000`, `xor 0x4000`, `set 0x5`, `and 0xff`, `xset A/B`."""
    if mask == 0:
        return f"xor {value:#x}"
    if mask == value:
        return f"or {value:#x}"
    if mask == 0xFFFFFFFF:
        return f"set {value:#x}"
    if value == 0:
        return f"and {mask ^ 0xFFFFFFFF:#x}"
    return f"xset {value:#x}/{mask:#x}"


def _span(ports: tuple[int, int]) -> str:
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def _whole(count: int, exact: bool) -> str:
    return str(count) if exact else scaled(count)


def _target_name(target: Target | None) -> str:
    match target:
        case None:
            return ""
        case Verdict(name) | OpaqueTarget(name):
            return name
        case Jump(chain):
            return chain
        case Reject():
            return "REJECT"
        case SetMark():
            return "MARK"
        case Dnat(redirect=redirect):
            return "REDIRECT" if redirect else "DNAT"
        case Snat():
            return "SNAT"
        case Masquerade():
            return "MASQUERADE"
