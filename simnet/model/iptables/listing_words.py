"""The words at the end of a listed rule: what its matches and its target say of themselves.

`/* comment */ tcp dpt:80 statistic mode random probability 0.50000000000 to:10.0.0.1:80`. What is not known is kept as
an `OpaqueMatch` of module `listing`, or as the words of an `OpaqueTarget`.
Source: what iptables 1.4 to 1.8.9 printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from simnet.model.iptables import parser_match, parser_target
from simnet.model.iptables.extensions import MODELLED_TARGETS, PASSING_TARGETS, TARGET_OPTIONS, TCP_FLAGS, VERDICTS
from simnet.model.iptables.parser_errors import RuleError
from simnet.model.iptables.ruleset import Family, Jump, Match, OpaqueMatch, OpaqueTarget, Target, Verdict

Given = tuple[str, bool, tuple[str, ...]]
_Found = re.Match[str]


@dataclass(frozen=True, slots=True)
class Extras:
    """What the end of a listed rule says."""

    matches: tuple[Match, ...]
    target: Target | None
    opaque: tuple[tuple[str, bool], ...]


def read_extras(target: str | None, text: str, family: Family, table: str) -> Extras:
    """Return the matches and the target that `text` names; `target` is the column's word. Raises RuleError."""
    matches: list[Match] = []
    unknown: list[str] = []
    given: list[Given] = []
    goto = False
    takes_words = target in TARGET_OPTIONS and target not in MODELLED_TARGETS
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
            continue
        if text.startswith("/* ", at) and text.find(" */", at + 2) < 0:
            raise RuleError("comment", repr(text[at : at + 60]), "a comment that ends with */",
                            "the line seems cut off; list the rules again, or use iptables-save")  # fmt: skip
        for pattern, read in _MATCHES:
            found = pattern.match(text, at)
            if found is not None:
                matches += read(found, family)
                break
        if found is not None:
            at = found.end()
            continue
        if text.startswith("[goto]", at):
            goto, at = True, at + 6
            continue
        acts = _TARGET_WORDS[target].match(text, at) if target in _TARGET_WORDS else None
        if acts is not None and acts.end() > at:
            given += _target_options(target or "", acts)
            at = acts.end()
            continue
        if takes_words:
            unknown += text[at:].split()
            break
        end = text.find(" ", at)
        unknown.append(text[at:] if end < 0 else text[at:end])
        at = len(text) if end < 0 else end
    acts_as, passes, what = _target(target, given, unknown if takes_words else [], goto, family)
    opaque = [
        (f"match {match.module} is not modelled", not passes) for match in matches if isinstance(match, OpaqueMatch)
    ]
    if unknown and not takes_words:
        matches.append(OpaqueMatch("listing", tuple(unknown)))
        opaque.append((f"the words {' '.join(unknown)[:120]!r} of a listing are not known", not passes))
    return Extras(tuple(matches), acts_as, (*opaque, *what))


def _target(
    name: str | None, given: list[Given], words: list[str], goto: bool, family: Family
) -> tuple[Target | None, bool, list[tuple[str, bool]]]:
    if name is None:
        return None, True, []
    if name in VERDICTS:
        return Verdict(name), False, []
    if name in MODELLED_TARGETS:
        return parser_target.build(name, given, (), family), False, []
    if name in TARGET_OPTIONS and not goto:
        passes = name in PASSING_TARGETS or (name == "CONNMARK" and "restore" not in words)
        return OpaqueTarget(name, tuple(words)), passes, [(f"target {name} is not modelled", not passes)]
    return Jump(name, goto), False, []


def _ports(found: _Found, family: Family) -> tuple[Match, ...]:
    given: list[Given] = []
    for word in found[2].split():
        name, _, value = word.partition(":")
        given.append((f"--{name[0]}port", value[0] == "!", (value.lstrip("!"),)))
    if found[3]:
        mask, _, flags = found[4].lstrip("!").partition("/")
        given.append(("--tcp-flags", found[4][0] == "!", (_flags(mask), _flags(flags))))
    return parser_match.build(found[1], given, family) or ()


def _flags(text: str) -> str:
    if not text.startswith("0x"):
        return text
    bits = parser_match.number(text, "flags", 63)
    return ",".join(flag for flag, bit in TCP_FLAGS.items() if bits & bit) or "NONE"


def _recent(found: _Found, family: Family) -> tuple[Match, ...]:
    action = {"SET": "--set", "CHECK": "--rcheck", "UPDATE": "--update", "REMOVE": "--remove"}[found[2]]
    given: list[Given] = [(action, found[1] is not None, ())]
    given += [
        (option, False, (found[group],)) for option, group in (("--seconds", 3), ("--hitcount", 5)) if found[group]
    ]
    given += [(option, False, ()) for option, group in (("--reap", 4), ("--rttl", 6)) if found[group]]
    given.append(("--name", False, (found[7],)))
    given.append(("--rdest" if found[8] == "dest" else "--rsource", False, ()))
    if found[9]:
        given.append(("--mask", False, (found[9],)))
    return parser_match.build("recent", given, family) or ()


def _addrtype(found: _Found, family: Family) -> tuple[Match, ...]:
    given: list[Given] = []
    for option, group in (("--src-type", 1), ("--dst-type", 2)):
        if found[group]:
            given.append((option, found[group][0] == "!", (found[group].lstrip("!"),)))
    if found[3]:
        given.append((f"--limit-iface-{found[3]}", False, ()))
    return parser_match.build("addrtype", given, family) or ()


def _one(
    module: str, option: str, group: int = 2, extra: tuple[Given, ...] = ()
) -> Callable[[_Found, Family], tuple[Match, ...]]:
    """A reader for a match of one option, whose `!` is group 1 and whose value is `group`."""

    def read(found: _Found, family: Family) -> tuple[Match, ...]:
        given = [*extra, (option, bool(found[1]), (found[group],))]
        return parser_match.build(module, given, family) or ()

    return read


def _nth(found: _Found, family: Family) -> tuple[Match, ...]:
    given: list[Given] = [("--mode", False, ("nth",)), ("--every", bool(found[1]), (found[2],))]
    given.append(("--packet", False, (found[3] or "0",)))
    return parser_match.build("statistic", given, family) or ()


def _multiport(found: _Found, family: Family) -> tuple[Match, ...]:
    return parser_match.build("multiport", [(f"--{found[1]}", bool(found[2]), (found[3],))], family) or ()


def _opaque(module: str, *options: str) -> Callable[[_Found, Family], tuple[Match, ...]]:
    def read(found: _Found, family: Family) -> tuple[Match, ...]:
        words: list[str] = []
        for option, value in zip(options, found.groups(), strict=True):
            words += [option, *value.split()] if value else []
        return (OpaqueMatch(module, tuple(words)),)

    return read


def _negatable(module: str, option: str) -> Callable[[_Found, Family], tuple[Match, ...]]:
    def read(found: _Found, family: Family) -> tuple[Match, ...]:
        return (OpaqueMatch(module, (*(("!",) if found[1] else ()), option, *found[2].split())),)

    return read


def _physdev(found: _Found, family: Family) -> tuple[Match, ...]:
    return (OpaqueMatch("physdev", tuple(found[1].split())),)


_END = r"(?=[ \t]|$)"
_MATCHES: list[tuple[re.Pattern[str], Callable[[_Found, Family], tuple[Match, ...]]]] = [
    (re.compile(pattern + _END), read)
    for pattern, read in (
        (r"()/\* (.*?) \*/", _one("comment", "--comment")),
        (r"(tcp|udp|sctp|dccp|udplite)((?: [sd]pts?:!?\S+)*)( flags: ?(!?[\w,]+/[\w,]+))?", _ports),
        (r"multiport (sports|dports|ports) +(!?) ?(\S+)", _multiport),
        (r"ADDRTYPE match(?: src-type (!?\w\S*))?(?: dst-type (!?\w\S*))?(?: limit-(in|out))?", _addrtype),
        (r"(?:mark|MARK) match (! ?)?(\S+)", _one("mark", "--mark")),
        (r"(! )?ctstate (\S+)", _one("conntrack", "--ctstate")),
        (r"(! )?state (\S+)", _one("state", "--state")),
        (r"statistic mode random (! )?probability (\S+)", _one("statistic", "--probability", 2, (("--mode", False, ("random",)),))),  # noqa: E501
        (r"statistic mode nth (! )?every (\d+)(?: packet (\d+))?", _nth),
        (r"(! ?)?recent: (SET|CHECK|UPDATE|REMOVE)(?: seconds: (\d+))?( reap)?(?: hit_count: (\d+))?( TTL-Match)?"
         r" name: (\S+) side: (source|dest)(?: mask: (\S+))?", _recent),
        (r"()nfacct-name +(\S+)", _one("nfacct", "--nfacct-name")),
        (r"(! )?match-set (\S+ [\w,]+)", _negatable("set", "--match-set")),
        (r"(! )?owner UID match (\S+)", _negatable("owner", "--uid-owner")),
        (r"(! )?owner GID match (\S+)", _negatable("owner", "--gid-owner")),
        (r"limit: avg (\S+)(?: burst (\d+))?", _opaque("limit", "--limit", "--limit-burst")),
        (r"()icmptype (\S+)", _negatable("icmp", "--icmp-type")),
        (r"()ipv6-icmptype (\S+)", _negatable("icmp6", "--icmpv6-type")),
        (r"PHYSDEV match((?: !? ?--physdev-\S+(?: [^-\s!]\S*)?)+)", _physdev),
    )
]  # fmt: skip
_FLAG_WORDS = r"((?: ?(?:random-fully|random|persistent))*)"
_TARGET_WORDS: dict[str | None, re.Pattern[str]] = {
    "REJECT": re.compile(r"reject-with (\S+)"),
    "MARK": re.compile(r"MARK (or|xor|and|set|xset) (\S+)"),
    "DNAT": re.compile(r"to:(\S+)" + _FLAG_WORDS),
    "SNAT": re.compile(r"to:(\S+)" + _FLAG_WORDS),
    "REDIRECT": re.compile(r"(?:redir ports (\S+))?" + _FLAG_WORDS),
    "MASQUERADE": re.compile(r"(?:masq ports: (\S+))?" + _FLAG_WORDS),
}


def _target_options(target: str, found: _Found) -> list[Given]:
    if target == "REJECT":
        return [("--reject-with", False, (found[1],))]
    if target == "MARK":
        option = {"or": "--or-mark", "xor": "--xor-mark", "and": "--and-mark"}.get(found[1], "--set-xmark")
        if found[1] == "xset" and "/" not in found[2]:
            raise RuleError(
                "MARK", found[0][:80], "MARK xset VALUE/MASK", "the line seems cut off; list the rules again"
            )
        return [(option, False, (found[2],))]
    option = {"DNAT": "--to-destination", "SNAT": "--to-source"}.get(target, "--to-ports")
    given: list[Given] = [(option, False, (found[1],))] if found[1] else []
    return given + [(f"--{word}", False, ()) for word in found[2].split()]
