"""The options of one match module, as a value of `ruleset`.

Modelled: tcp, udp, sctp, dccp, udplite, multiport, comment, mark, statistic, recent, addrtype, conntrack --ctstate,
state, nfacct. Source: iptables-extensions(8) 1.8.9.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from simnet.model.iptables.extensions import (
    ADDRESS_TYPES,
    CONNTRACK_STATES,
    FULL_MASK,
    SERVICE_PORTS,
    TCP_FLAGS,
)
from simnet.model.iptables.parser_errors import RuleError
from simnet.model.iptables.ruleset import (
    PROBABILITY_ONE,
    AddressTypeMatch,
    CommentMatch,
    ConntrackStateMatch,
    Family,
    MarkMatch,
    Match,
    MultiportMatch,
    NfacctMatch,
    PortMatch,
    RecentMatch,
    StatisticNth,
    StatisticRandom,
    TcpFlagsMatch,
)

Given = tuple[str, bool, tuple[str, ...]]
_Values = dict[str, tuple[bool, tuple[str, ...]]]


def build(module: str, given: Sequence[Given], family: Family) -> tuple[Match, ...] | None:
    """Return the matches that a module's options make; None if simnet does not model them. Raises RuleError."""
    reader = _READERS.get(module)
    if reader is None:
        return None
    return reader(module, {name: (negated, values) for name, negated, values in given}, family)


def number(text: str, field: str, highest: int = 0xFFFFFFFF) -> int:
    """Return a number as strtoul reads it (decimal, 0x hexadecimal, 0 octal), at most `highest`. Raises RuleError."""
    try:
        if not text.isascii() or "_" in text or len(text) > 40:
            raise ValueError
        value = int(text, 8) if len(text) > 1 and text[0] == "0" and text.isdigit() else int(text, 0)
        if not 0 <= value <= highest:
            raise ValueError
    except ValueError:
        raise RuleError(
            field, repr(text[:60]), f"a number from 0 to {highest}", "write it as 16384 or 0x4000"
        ) from None
    return value


def mark_and_mask(text: str, field: str) -> tuple[int, int | None]:
    """Return `VALUE[/MASK]`; None: no mask was given."""
    value, slash, mask = text.partition("/")
    return number(value, field), number(mask, field) if slash else None


def port(text: str, field: str) -> int:
    """Return a port's number, from a number or a service's name. Raises RuleError."""
    if text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536:
        return int(text)
    if text in SERVICE_PORTS:
        return SERVICE_PORTS[text]
    raise RuleError(field, repr(text[:60]), "a port from 0 to 65535", "use the number (iptables -n prints numbers)")


def port_range(text: str, field: str, separator: str = ":") -> tuple[int, int]:
    """Return `A`, `A:B`, `A:` or `:B` as an inclusive range. Raises RuleError."""
    first, colon, last = text.partition(separator)
    if not colon:
        low = high = port(text, field)
    else:
        low, high = port(first, field) if first else 0, port(last, field) if last else 65535
    if low > high:
        raise RuleError(field, text, "the lower port first", f"write {high}{separator}{low}")
    return low, high


def _ports(module: str, values: _Values, family: Family) -> tuple[Match, ...] | None:
    if not values.keys() <= {"--sport", "--dport", "--tcp-flags", "--syn"}:
        return None  # --tcp-option, --chunk-types, --dccp-types
    found: dict[str, tuple[tuple[int, int] | None, bool]] = {}
    for name in ("--sport", "--dport"):
        negated, texts = values.get(name, (False, ()))
        ports = port_range(texts[0], name) if texts else None
        if ports == (0, 65535) and not negated:
            ports = None
        found[name] = (ports, negated)
    (source, not_source), (destination, not_destination) = found["--sport"], found["--dport"]
    matches: list[Match] = [PortMatch(module, source, destination, not_source, not_destination)]
    if "--syn" in values:
        matches.append(TcpFlagsMatch(("FIN", "SYN", "RST", "ACK"), ("SYN",), values["--syn"][0]))
    if "--tcp-flags" in values:
        negated, texts = values["--tcp-flags"]
        matches.append(TcpFlagsMatch(_flags(texts[0]), _flags(texts[1]), negated))
    return tuple(matches)


def _flags(text: str) -> tuple[str, ...]:
    if text.upper() == "ALL":
        return tuple(TCP_FLAGS)
    if text.upper() == "NONE":
        return ()
    names = set(text.upper().split(","))
    if not names <= TCP_FLAGS.keys():
        raise RuleError("--tcp-flags", repr(text[:60]), "a list of SYN, ACK, FIN, RST, URG, PSH, or ALL, or NONE",
                        "write for example --tcp-flags FIN,SYN,RST,ACK SYN")  # fmt: skip
    return tuple(flag for flag in TCP_FLAGS if flag in names)


def _multiport(module: str, values: _Values, family: Family) -> tuple[Match, ...]:
    if len(values) != 1:
        raise RuleError("-m multiport", f"{len(values)} lists of ports", "one of --sports, --dports, --ports",
                        "load the match once per list")  # fmt: skip
    ((name, (negated, texts)),) = values.items()
    ranges = tuple(port_range(text, name) for text in texts[0].split(","))
    if sum(1 + (low != high) for low, high in ranges) > 15:
        raise RuleError(name, f"{len(ranges)} ports", "at most 15, a range counting as two", "make two rules of it")
    return (MultiportMatch(ranges, name[2:], negated),)


def _comment(module: str, values: _Values, family: Family) -> tuple[Match, ...]:
    _, (text,) = _one(module, values, "--comment")
    return (CommentMatch(text),)


def _mark(module: str, values: _Values, family: Family) -> tuple[Match, ...]:
    negated, (text,) = _one(module, values, "--mark")
    value, mask = mark_and_mask(text, "--mark")
    return (MarkMatch(value, 0xFFFFFFFF if mask is None else mask, negated),)


def _statistic(module: str, values: _Values, family: Family) -> tuple[Match, ...]:
    _, (mode,) = _one(module, values, "--mode")
    if mode == "random":
        negated, (text,) = _one(module, values, "--probability")
        try:
            probability = float(text) if len(text) < 60 else -1.0
        except ValueError:
            probability = -1.0
        if not 0.0 <= probability <= 1.0:
            raise RuleError("--probability", repr(text[:60]), "a number from 0 to 1", "write for example 0.5")
        return (StatisticRandom(int(PROBABILITY_ONE * probability + 0.5), negated, text),)  # C's lround
    if mode != "nth":
        raise RuleError("--mode", repr(mode[:60]), "random or nth", "write --mode random --probability P")
    negated, (text,) = _one(module, values, "--every")
    every = number(text, "--every")
    packet = number(values["--packet"][1][0], "--packet") if "--packet" in values else 0
    if every == 0 or packet >= every:
        raise RuleError("--every", f"--every {every} --packet {packet}", "1 or more, and a packet below it",
                        "count packets from 0 to N-1")  # fmt: skip
    return (StatisticNth(every, packet, negated),)


def _recent(module: str, values: _Values, family: Family) -> tuple[Match, ...]:
    actions = [name for name in ("--set", "--rcheck", "--update", "--remove") if name in values]
    if len(actions) != 1:
        raise RuleError("-m recent", " ".join(actions) or "none of them", "one of --set, --rcheck, --update, --remove",
                        "keep one, or load the match twice")  # fmt: skip
    mask: str | None = None
    if "--mask" in values:
        try:
            mask = str(ipaddress.ip_address(values["--mask"][1][0]))
        except ValueError:
            raise RuleError("--mask", repr(values["--mask"][1][0][:60]), "a mask written as an address",
                            "write for example 255.255.255.255") from None  # fmt: skip
        if ipaddress.ip_address(mask) == ipaddress.ip_address(FULL_MASK[family]):
            mask = None
    counts = {
        name: number(values[name][1][0], name) if name in values else None for name in ("--seconds", "--hitcount")
    }
    return (
        RecentMatch(
            actions[0][2:],
            values["--name"][1][0] if "--name" in values else "DEFAULT",
            counts["--seconds"],
            counts["--hitcount"],
            "--reap" in values,
            "--rttl" in values,
            "rdest" if "--rdest" in values else "rsource",
            mask,
            values[actions[0]][0],
        ),
    )


def _addrtype(module: str, values: _Values, family: Family) -> tuple[Match, ...]:
    types: dict[str, tuple[bool, str | None]] = {}
    for name in ("--src-type", "--dst-type"):
        negated, texts = values.get(name, (False, ()))
        types[name] = (negated, _in_order(texts[0], ADDRESS_TYPES, name) if texts else None)
    (not_source, source), (not_destination, destination) = types["--src-type"], types["--dst-type"]
    limits = [end for end in ("in", "out") if f"--limit-iface-{end}" in values]
    if (source is None and destination is None) or len(limits) > 1:
        raise RuleError(
            "-m addrtype",
            " ".join(values) or "no option",
            "--src-type or --dst-type, and at most one limit",
            "write for example -m addrtype --dst-type LOCAL",
        )
    return (AddressTypeMatch(source, destination, not_source, not_destination, limits[0] if limits else None),)


def _conntrack(module: str, values: _Values, family: Family) -> tuple[Match, ...] | None:
    option = "--ctstate" if module == "conntrack" else "--state"
    if values.keys() != {option}:
        return None
    negated, (text,) = values[option]
    allowed = CONNTRACK_STATES if module == "conntrack" else CONNTRACK_STATES[:5]
    return (ConntrackStateMatch(tuple(_in_order(text, allowed, option).split(",")), negated, module),)


def _nfacct(module: str, values: _Values, family: Family) -> tuple[Match, ...]:
    _, (name,) = _one(module, values, "--nfacct-name")
    return (NfacctMatch(name),)


def in_state_order(states: Sequence[str]) -> str:
    """Return conntrack states as the comma list that iptables-save prints."""
    return ",".join(state for state in CONNTRACK_STATES if state in states)


def _in_order(text: str, allowed: Sequence[str], field: str) -> str:
    names = text.upper().split(",")
    for name in names:
        if name not in allowed:
            raise RuleError(field, repr(name[:60]), "a list of " + ", ".join(allowed), "check the spelling")
    return ",".join(name for name in allowed if name in names)


def _one(module: str, values: _Values, option: str) -> tuple[bool, tuple[str, ...]]:
    if option not in values:
        raise RuleError(
            f"-m {module}", f"no {option}", f"{option} with a value", f"add {option}, or save the rules again"
        )
    return values[option]


_READERS: dict[str, Callable[[str, _Values, Family], tuple[Match, ...] | None]] = {
    "tcp": _ports, "udp": _ports, "sctp": _ports, "dccp": _ports, "udplite": _ports, "multiport": _multiport,
    "comment": _comment, "mark": _mark, "statistic": _statistic, "recent": _recent, "addrtype": _addrtype,
    "conntrack": _conntrack, "state": _conntrack, "nfacct": _nfacct,
}  # fmt: skip
