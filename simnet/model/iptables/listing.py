"""Read rules from a listing: `iptables [-t TABLE] -L [-n] [-v] [-x] [--line-numbers]`, as people paste it.

A listing says less than a save: not its table (told by its chains), counters only to three or four digits, without -v
no interfaces, without -n names in place of numbers. What it cannot say is noted, or named as not understood where a
verdict may hang on it. Text around the listing (Markdown, prose) is passed over with a note.
Source: what iptables 1.4 to 1.8.9 printed; moby's documentation and issue reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from simnet.model.iptables import pasted_text
from simnet.model.iptables.listing_words import read_extras
from simnet.model.iptables.parser_errors import RuleError
from simnet.model.iptables.parser_rule import RuleParts, RuleReader
from simnet.model.iptables.parser_text import Draft, NotUnderstood, ParsedRules, TableDraft
from simnet.model.iptables.ruleset import BUILT_IN_CHAINS, Family, Match, OpaqueMatch

_CHAIN = re.compile(
    r"[ \t]*Chain (\S{1,60}) \((?:policy (\w{1,20})(?: (\d{1,20})([KMGT]?) packets, (\d{1,20})([KMGT]?) bytes)?"
    r"|(-?\d{1,9}) references?)\)[ \t\r]*$"
)
_ANY_CHAIN = re.compile(r"^[ \t]*Chain \S+ \((?:policy |\d+ references?)", re.MULTILINE)
_TABLE_LINE = re.compile(r"^[ \t]*\*(?:nat|filter|mangle|raw|security)[ \t\r]*$", re.MULTILINE)
_HEADER = re.compile(r"[ \t]*(num +)?(pkts +bytes +)?target +prot +opt +(in +out +)?source +destination[ \t\r]*$")
_RULE = re.compile(
    r"[ \t]*(?:(?P<packets>\d{1,20}[KMGT]?)[ \t]+(?P<bytes>\d{1,20}[KMGT]?)[ \t]+)?(?:(?P<target>[^\s/]\S*)[ \t]+)??"
    r"(?P<protocol>!?[\w-]{1,20})[ \t]+(?P<opt>--|-f|!f)[ \t]+(?P<rest>\S.*)$"
)
_NO_OPTIONS = re.compile(  # ip6tables before 1.8.6 left the column `opt` blank
    r"^(?!.* (?:--|-f|!f) )(?!Chain )([ ]*(?:\d+ +)?(?:\d+[KMGT]? +\d+[KMGT]? +)?(?:[^\s/]\S* +)??"
    r"!?(?:all|tcp|udp|udplite|sctp|dccp|icmp|icmpv6|ipv6-icmp|esp|ah|gre|\d{1,3})) {3,}(?=\S+ +\S)",
    re.MULTILINE,
)
_COUNTED = re.compile(r"[ \t]*\d{1,20}[KMGT]?[ \t]+\d{1,20}[KMGT]?[ \t]+\S")
_HEADER_BEGUN = re.compile(r"[ \t]*(?:num +)?(?:pkts +bytes +)?target +prot +opt\b")
_SCALE = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_NAMES = {
    "localhost": "127.0.0.1",
    "loopback": "127.0.0.0",
    "ip6-localhost": "::1",
    "base-address.mcast.net": "224.0.0.0",
}
_SAYS_TABLE = re.compile(
    r"(?:-t ?|--table[ =]|[Tt]able: ?)(nat|filter|mangle|raw|security)\b|\b(nat|filter|mangle|raw|security) table\b"
)
_HOOK_ORDER = {name: place for place, name in enumerate(BUILT_IN_CHAINS["mangle"])}
_NAT_ONLY = re.compile(r"\b(?:DNAT|SNAT|MASQUERADE|REDIRECT)\b|KUBE-(?:SEP|SVC|SVL|EXT|XLB|FW|MARK-MASQ|NODEPORTS)\b")


@dataclass(slots=True)
class _ChainBlock:
    name: str
    line: int
    policy: str | None
    counters: tuple[int, int]
    numbered: bool = False
    verbose: bool = True
    table: str | None = None  # as a line above the listing says: iptables -t nat -L, or "nat table"
    rules: list[tuple[int, str]] = field(default_factory=list)


def looks_like_listing(text: str) -> bool:
    """Whether a text holds the chains of `iptables -L` and no table of `iptables-save`."""
    return _ANY_CHAIN.search(text) is not None and _TABLE_LINE.search(text) is None


def parse_listing(text: str, *, file: str, family: Family | None = None) -> ParsedRules:
    """Return the rules of a listing, as far as it says them. Raises InputError."""
    if family is None:
        family = Family.IPV6 if re.search(r"[ !]::/0|[ !][0-9a-f]{1,4}:[0-9a-f:]{0,40}:", text) else Family.IPV4
        if family is Family.IPV6 and re.search(r"[ !]0\.0\.0\.0/0 ", text):
            family = Family.IPV4
    text = text.replace("\t", " ")
    if family is Family.IPV6:
        text = _NO_OPTIONS.sub(r"\1 --  ", text)
    draft = Draft(file, family, "listing")
    reader = RuleReader(family)
    rounded = False
    for blocks in _tables(_blocks(text, draft)):
        name, why = _infer_table(blocks, draft)
        table = draft.tables.get(name) or TableDraft(name, blocks[0].line)
        if any(block.name in table.chains for block in blocks):
            draft.problem(blocks[0].line, RuleError("table", f"a second table {name}", "each table once",
                          "put the listings of several hosts into files of their own"))  # fmt: skip
        draft.tables[name] = table
        draft.note(blocks[0].line, f"a listing does not name its table: read as table {name}, because {why}")
        for block in blocks:
            rounded |= _read_chain(block, table, draft, reader)
    if rounded:
        draft.note(0, "counters with K, M, G or T are rounded in a listing; iptables -x shows them whole")
    if not draft.tables and not draft.problems:
        draft.problem(
            1, RuleError("", "no chains", "a listing of iptables -L -n -v", "save with `iptables-save > FILE`")
        )
    return draft.finish()


def _blocks(text: str, draft: Draft) -> list[_ChainBlock]:
    """Cut the text into chains; join wrapped rules; pass over what stands around them."""
    blocks: list[_ChainBlock] = []
    block: _ChainBlock | None = None
    around = 0
    says: str | None = None
    is_parted = False  # by a blank line from the chain above
    for number, raw, joined in _unwrapped(text.split("\n")):
        line = raw.strip(" \t\r")
        if not line:
            is_parted = True
            continue
        if joined:
            draft.note(number, f"the line goes on over {joined + 1} lines; joined")
        if is_parted and block is not None and not (_is_rule(raw, block) or _HEADER.match(raw)):
            block = None
        is_parted = False
        if line[0] == "#" and (warning := pasted_text.legacy_warning(line)) is not None:
            draft.note(number, warning)
            continue
        chain = _CHAIN.match(raw) if "Chain " in raw else None
        if chain is not None:
            block = _ChainBlock(chain[1], number, chain[2], (_count(chain[3], chain[4]), _count(chain[5], chain[6])))
            block.table, says = says, None
            blocks.append(block)
        elif block is None:
            if _RULE.match(raw) and re.search(r" (?:--|-f|!f)  ?", raw):
                draft.problem(number, RuleError("", repr(line[:80]), "a rule below the line that names its chain",
                              "paste the listing from its line `Chain ...` on"))  # fmt: skip
            else:
                around += 1
                if (command := pasted_text.command(line)) is not None and command.form == "listing":
                    says = command.table
                elif len(line) < 1000 and (said := _SAYS_TABLE.search(line)) is not None:
                    says = said[1] or said[2]
        elif not block.rules and (header := _HEADER.match(raw)) is not None:
            block.numbered, block.verbose = header[1] is not None, header[3] is not None
        elif _is_rule(raw, block):
            block.rules.append((number, raw))
        elif pasted_text.is_around(line) or pasted_text.command(line) is not None:
            around += 1
            command = pasted_text.command(line)
            if command is not None and command.form == "listing":
                says = command.table
        elif pasted_text.is_elided(line):
            draft.note(number, "the author left lines out here")
        elif block.rules:
            at, before = block.rules[-1]
            if len(before) < 4000:
                block.rules[-1] = (at, f"{before.rstrip()} {line}")
                draft.note(at, f"the rule goes on in line {number}; joined")
            else:
                draft.problem(number, RuleError(f"chain {block.name}", repr(line[:80]), "a rule of the listing",
                              "put a blank line behind the listing, or use iptables-save"))  # fmt: skip
        else:
            draft.problem(number, RuleError(f"chain {block.name}", repr(line[:80]), "a rule of the listing",
                          "paste the listing as iptables -L -n -v prints it, or use iptables-save"))  # fmt: skip
    if around:
        draft.note(0, f"{around} lines around the listings are passed over")
    return blocks


def _unwrapped(lines: list[str]) -> Iterator[tuple[int, str, int]]:
    """Yield the lines with their numbers, those that a terminal broke joined, and how many more they went over.

    A broken line is as wide as the widest, or ends before the column `destination` that every rule and header has.
    """
    width = max(map(len, lines))
    at = 0
    while at < len(lines):
        number, line, last, joined = at + 1, lines[at], lines[at], 0
        at += 1
        while at < len(lines) and joined < 8 and line.strip():
            is_full = len(last) == width
            is_open = line.rfind("/* ") > line.rfind(" */")
            if not (is_full or _is_begun(line)) or (_begins(lines[at]) and not (is_full and is_open)):
                break
            last = lines[at]
            apart = f"{line.rstrip()} {last.lstrip()}"
            line = line + last if is_full and not (_HEADER_BEGUN.match(line) and _HEADER.match(apart)) else apart
            joined += 1
            at += 1
        yield number, line, joined


def _is_begun(line: str) -> bool:
    """Whether a line is a header or a rule with counters that lacks columns."""
    if _HEADER_BEGUN.match(line):
        return _HEADER.match(line) is None
    if _COUNTED.match(line) is None:
        return False
    found = _RULE.match(re.sub(r"^[ \t]*\d+(?=[ \t]+\d+[KMGT]?[ \t]+\d+[KMGT]?[ \t])", "", line, count=1))
    return found is None or len(found["rest"].split(None, 4)) < 4


def _begins(line: str) -> bool:
    """Whether a line cannot be the rest of the one above it."""
    words = line.strip()
    return (
        not words
        or _CHAIN.match(line) is not None
        or _HEADER_BEGUN.match(line) is not None
        or _COUNTED.match(line) is not None
        or _RULE.match(line) is not None
        or pasted_text.is_around(words)
        or pasted_text.is_elided(words)
        or pasted_text.command(words) is not None
    )


def _is_rule(line: str, block: _ChainBlock) -> bool:
    return _rule_fields(line, block) is not None


def _rule_fields(line: str, block: _ChainBlock) -> re.Match[str] | None:
    text = re.sub(r"^[ \t]*\d+[ \t]", "", line, count=1) if block.numbered else line
    found = _RULE.match(text)
    return found if found is not None and (found["packets"] is not None) == block.verbose else None


def _tables(blocks: list[_ChainBlock]) -> list[list[_ChainBlock]]:
    """Group chains into tables: iptables prints built-in chains first, in hook order, and no chain twice."""
    groups: list[list[_ChainBlock]] = []
    seen: set[str] = set()
    last_hook = -1
    for block in blocks:
        hook = _HOOK_ORDER.get(block.name, len(_HOOK_ORDER))
        if not groups or block.table or block.name in seen or (hook < len(_HOOK_ORDER) and hook < last_hook):
            groups.append([])
            seen = set()
        groups[-1].append(block)
        seen.add(block.name)
        last_hook = hook
    return groups


def _infer_table(blocks: list[_ChainBlock], draft: Draft) -> tuple[str, str]:
    if blocks[0].table is not None:
        return blocks[0].table, "the text above it says so"
    hooks = {block.name for block in blocks if block.policy is not None}
    for name in ("filter", "nat", "mangle", "raw"):
        if hooks == set(BUILT_IN_CHAINS[name]):
            if name == "filter" and "filter" in draft.tables:
                name = "security"
            return name, "its built-in chains are " + ", ".join(BUILT_IN_CHAINS[name])
    for block in blocks:
        for _, line in block.rules:
            shown = _NAT_ONLY.search(line)
            if shown is not None and "FORWARD" not in hooks:
                return "nat", f"of {shown[0]}"
    if hooks & {"PREROUTING", "POSTROUTING"}:
        return ("mangle", "of its built-in chains") if "FORWARD" in hooks else ("nat", "of its built-in chains")
    return "filter", "that is iptables' default"


def _read_chain(block: _ChainBlock, table: TableDraft, draft: Draft, reader: RuleReader) -> bool:
    """Read a chain's rules into the table; return whether a counter was rounded."""
    rounded = False
    built_in = block.name in BUILT_IN_CHAINS[table.name]
    if (block.policy is not None) != built_in or (built_in and block.policy not in ("ACCEPT", "DROP")):
        draft.problem(
            block.line,
            RuleError(
                f"chain {block.name}",
                f"policy {block.policy} in table {table.name}",
                "ACCEPT or DROP for a built-in chain, none for others",
                "paste one whole table per listing",
            ),
        )
        return False
    chain = table.chain(block.name, block.line)
    chain.declared, table.declares = block.line, True
    chain.policy = block.policy
    chain.packets, chain.bytes = block.counters
    for number, line in block.rules:
        fields = _rule_fields(line, block)
        if fields is None:  # cannot happen: joined text only grows at its end
            continue
        counters = [fields["packets"] or "0", fields["bytes"] or "0"]
        rounded |= any(not count[-1].isdigit() for count in counters)
        try:
            parts = _read_rule(fields, block.verbose, reader, table)
        except RuleError as error:
            draft.problem(number, error)
            continue
        packets, octets = (_count(*re.fullmatch(r"(\d+)(\D?)", count).groups()) for count in counters)  # type: ignore[union-attr]
        chain.rules.append(draft.add_rule(table, chain, parts, (packets, octets), number))
    if block.rules and not block.verbose:
        draft.not_understood.append(NotUnderstood(block.line, block.name, table.name,
            "a listing without -v does not show the interfaces of rules", True))  # fmt: skip
    return rounded


def _read_rule(fields: re.Match[str], verbose: bool, reader: RuleReader, table: TableDraft) -> RuleParts:
    words = fields["rest"].split(None, 4 if verbose else 2)
    needed = 4 if verbose else 2
    if len(words) < needed:
        raise RuleError("", repr(fields[0].strip()[:80]), "the columns up to destination",
                        "the line seems cut off; list the rules again, or use iptables-save")  # fmt: skip
    heads: list[Match | None] = []
    kinds = ("-i", "-o", "-s", "-d") if verbose else ("-s", "-d")
    built: dict[str, Match | None] = {}
    for kind, word in zip(kinds, words, strict=False):
        negated, value = word[:1] == "!", word.lstrip("!")
        if value in ("*", "any", "anywhere"):
            if negated:
                raise RuleError(kind, word, "a name or address after '!'", "save with iptables-save")
            continue
        if kind in ("-s", "-d"):
            name, slash, prefix = value.partition("/")
            value = _NAMES.get(name, name) + slash + prefix
        built[kind] = reader.header(kind, value, negated)[0]
    protocol = fields["protocol"]
    built["-p"] = reader.header("-p", protocol.lstrip("!"), protocol[0] == "!")[0]
    heads = [built.get(kind) for kind in ("-s", "-d", "-i", "-o", "-p")]
    if fields["opt"] != "--":
        heads.append(OpaqueMatch("", ("-f",) if fields["opt"] == "-f" else ("!", "-f")))
    rest = words[needed] if len(words) > needed else ""
    extras = read_extras(fields["target"], rest, reader.family, table.name)
    opaque = list(extras.opaque)
    if fields["opt"] != "--":
        opaque.append(("option -f is not modelled", True))
    return RuleParts((*(match for match in heads if match is not None), *extras.matches), extras.target, tuple(opaque))


def _count(digits: str | None, unit: str | None) -> int:
    return int(digits or "0") * _SCALE[unit or ""]
