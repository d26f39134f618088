"""Walks the lines of a save: tables, chains, rules, commands of iptables-restore, wrapped lines, what stands around.

What has no clear meaning is kept as a problem with its line, what is odd as a note; `parser` offers it to others.
Left out: `-R` and `-E`.
Source: iptables-restore(8) 1.8.9; texts of public issue reports.
"""

from __future__ import annotations

import re

from simnet.model.iptables import pasted_text
from simnet.model.iptables.parser_errors import RuleError
from simnet.model.iptables.parser_rule import RuleParts, RuleReader
from simnet.model.iptables.parser_text import (
    ChainDraft,
    Draft,
    NotUnderstood,
    ParsedRules,
    TableDraft,
)
from simnet.model.iptables.rule_words import mended, split_words
from simnet.model.iptables.ruleset import BUILT_IN_CHAINS, Family, Jump
from simnet.model.iptables.table_inference import infer_table

_COMMANDS = {
    "-A": "-A", "--append": "-A", "-I": "-I", "--insert": "-I", "-D": "-D", "--delete": "-D", "-N": "-N",
    "--new-chain": "-N", "-X": "-X", "--delete-chain": "-X", "-F": "-F", "--flush": "-F", "-P": "-P", "--policy": "-P",
    "-Z": "-Z", "--zero": "-Z", "-R": "-R", "--replace": "-R", "-E": "-E", "--rename-chain": "-E",
}  # fmt: skip
_STARTER = re.compile(
    r"-[A-Z](?:[ \t]|$)|--(?:append|insert|delete|new-chain|delete-chain|flush|policy|zero|replace|rename-chain)(?:[ \t]|$)"  # noqa: E501
    r"|[#*]|:\S+[ \t]+(?:-|[A-Z]+)(?:[ \t]|$)|\[\d{1,20}:\d{1,20}\]|COMMIT\b|```|(?:sudo )?ip6?tables(?:-\w+)? "
)
_COUNTERS = re.compile(r"\[(\d{1,20}):(\d{1,20})\][ \t]*")
_PROMPT = re.compile(r"(?:sudo )?ip(6?)tables(?:-legacy|-nft)?((?: -(?:w|-wait)(?: \d{1,6})?| -t \w{1,20})*) (-.*)")


class SaveReader:
    """Walks the lines of a save; one per text."""

    def __init__(self, draft: Draft, rules: RuleReader) -> None:
        self.draft = draft
        self.rules = rules
        self.table: TableDraft | None = None
        self.lines: list[str] = []
        self.around = 0
        self.width = 0

    def read(self, text: str) -> ParsedRules:
        lines = self.lines = text.split("\n")
        at = 0
        end = len(lines)
        while at < end:
            line = lines[at].strip(" \t\r")
            at += 1
            if not line:
                continue
            if line[0] == "#":
                if "tables" in line:
                    self._says(line, at)
                continue
            number = at
            if line[0] == "-" or line[0] == "[":
                while at < end and at - number < 8 and _goes_on(lines[at].strip(" \t\r")):
                    at += 1
                if at > number and not _STARTER.match(line):
                    at = number
                if at > number:
                    at = number - 1 + self._wrapped(lines[number - 1 : at], number)
                    continue
            try:
                self._line(line, number)
            except RuleError as error:
                if pasted_text.is_elided(line):
                    self.draft.note(number, "the author left lines out here")
                else:
                    self.draft.problem(number, error)
        draft = self.draft
        if not draft.tables and not draft.problems:
            draft.problem(1, RuleError("", "no rules", "lines of iptables-save, or a listing of iptables -L -n -v",
                                       "save the rules with `iptables-save > FILE`"))  # fmt: skip
        if self.around:
            draft.note(0, f"{self.around} lines around the rules are passed over")
        for table in draft.tables.values():
            if table.headed and not table.committed:
                draft.note(
                    table.line, f"table {table.name} has no COMMIT: the text may be cut off; read as far as it goes"
                )
        self._check_last_rule()
        return draft.finish()

    def _check_last_rule(self) -> None:
        """A rule without target at the end of a text without COMMIT may have had one."""
        last = len(self.lines)
        while last and not self.lines[last - 1].strip():
            last -= 1
        for table in self.draft.tables.values():
            for chain in () if table.committed else table.chains.values():
                if chain.rules and chain.rules[-1].line == last and chain.rules[-1].target is None:
                    self.draft.not_understood.append(
                        NotUnderstood(
                            last, chain.name, table.name, "the last rule has no target: the text may be cut off", True
                        )
                    )

    def _says(self, line: str, number: int) -> bool:
        """Heed a line that names the command whose output follows; return whether it is one."""
        warning = pasted_text.legacy_warning(line)
        if warning is not None:
            self.draft.note(number, warning)
        said = pasted_text.command(line)
        if said is None or (self.table is not None and self.table.headed):
            return said is not None or warning is not None
        self.table = None
        if said.form == "rules" and said.table in BUILT_IN_CHAINS:
            self._enter(said.table or "filter", number)
        return True

    def _wrapped(self, raw: list[str], number: int) -> int:
        """Read a rule that seems to go on over the lines below it; return how many of them are its own.

        Of all ways to join them the one counts that leaves least not understood; of equal ones, the most lines, and a
        join without a blank where a terminal broke full lines.
        """
        self.width = self.width or max(map(len, self.lines))
        words = [line.strip(" \t\r") for line in raw]
        best: tuple[int, int, str] | None = None
        for count in range(len(raw), 0, -1):
            held = [line[:-1].rstrip() if line.endswith("\\") and count > 1 else line for line in words[:count]]
            ways = [" ".join(held), "".join(line.strip("\r") for line in raw[:count]).strip(" \t")]
            if all(len(line.rstrip("\r")) == self.width for line in raw[: count - 1]):
                ways.reverse()
            for way in ways if count > 1 else ways[:1]:
                left = self._left_open(way)
                if best is None or left < best[0]:
                    best = (left, count, way)
            if best is not None and best[0] == 0:
                break
        assert best is not None
        left, count, way = best
        if left == _NOT_A_RULE:  # nothing helps: tell of the rule, pass by what belongs to it
            count, way = len(raw), " ".join(words)
        try:
            self._line(way, number)
        except RuleError as error:
            self.draft.problem(number, error)
        else:
            if count > 1:
                self.draft.note(number, f"the rule goes on over {count} lines; joined")
        return count

    def _left_open(self, line: str) -> int:
        """How much of a rule's line is not known: its options, its targets, its chains if the table declares any."""
        counters = _COUNTERS.match(line)
        try:
            words = split_words(line[counters.end() :] if counters else line)
            if len(words) < 3 or _COMMANDS.get(words[0]) not in ("-A", "-I"):
                return 1 if words and words[0] in _COMMANDS else _NOT_A_RULE
            at = 3 if words[2].isascii() and words[2].isdigit() and _COMMANDS[words[0]] == "-I" else 2
            chains = self.table.chains if self.table is not None else {}
            declared = chains if self.table is not None and self.table.declares else None
            parts = self.rules.read(words, at, chains.__contains__)
        except RuleError:
            return _NOT_A_RULE
        left = sum("is not known" in what for what, _ in (parts[0].opaque if parts else ()))
        if declared is not None and parts:
            target = parts[0].target
            left += words[1] not in declared
            left += isinstance(target, Jump) and target.chain not in declared
        return left

    def _line(self, line: str, number: int) -> None:
        first = line[0]
        if first == "-":
            self._command(line, number, (0, 0))
        elif first == "[" and (found := _COUNTERS.match(line)):
            self._command(line[found.end() :], number, (int(found[1]), int(found[2])))
        elif first == ":":
            self._declaration(line, number)
        elif first == "*":
            self._table_line(line, number)
        elif line == "COMMIT":
            if self.table is None:
                self.draft.note(number, "COMMIT without a table before it; passed over")
            else:
                self.table.committed = True
            self.table = None
        elif line.startswith("```"):
            pass
        elif (prompt := _PROMPT.match(line)) is not None:
            if (prompt[1] == "6") != (self.draft.family is Family.IPV6):
                raise RuleError("", line[:80], "commands of one address family", "keep ip6tables in a file of its own")
            name = re.search(r"-t (\w+)", prompt[2])
            self._enter(name[1] if name else "filter", number)
            self._command(prompt[3], number, (0, 0))
        elif ("tables" in line and self._says(line, number)) or pasted_text.is_around(line):
            self.around += 1
        elif pasted_text.is_elided(line):
            self.draft.note(number, "the author left lines out here")
        elif (self.table is None or not self.table.headed) and not _LIKE_A_RULE.search(line):
            self.around += 1
        else:
            raise _not_a_line(line)

    def _enter(self, name: str, number: int) -> TableDraft:
        if name not in BUILT_IN_CHAINS:
            raise RuleError("table", repr(name[:60]), "one of " + ", ".join(BUILT_IN_CHAINS), "check the spelling")
        held = self.draft.tables.get(name)
        if held is None:
            held = self.draft.tables[name] = TableDraft(name, number)
        self.table = held
        return held

    def _table_line(self, line: str, number: int) -> None:
        name = line[1:].strip()
        if name in self.draft.tables and self.draft.tables[name].headed:
            self.draft.note(
                number, f"table {name} stands here a second time; as with iptables-restore, this one counts"
            )
            gone = self.draft.tables.pop(name)
            first_line = gone.line
            self.draft.not_understood = [
                item for item in self.draft.not_understood if item.table != name or item.line < first_line
            ]
        self._enter(name, number).headed = True

    def _in_table(self, number: int) -> TableDraft:
        """The table that a line belongs to; a part of a save without table line gets the one that its rules show."""
        if self.table is None:
            self._enter("filter", number)  # so that a stretch without a table is complained of once
            name, why = infer_table(self.lines, number)
            if name != "filter":
                if not self.draft.tables["filter"].headed and not self.draft.tables["filter"].chains:
                    del self.draft.tables["filter"]
                self._enter(name, number)
            self.draft.note(number, f"no table line: read as table {name}, because {why}")
        assert self.table is not None
        return self.table

    def _declaration(self, line: str, number: int) -> None:
        words = line[1:].split()
        if not words:
            raise RuleError(":", line[:80], ":CHAIN POLICY [PACKETS:BYTES]", "write for example :KUBE-SERVICES - [0:0]")
        table = self._in_table(number)
        name = words[0]
        policy = words[1] if len(words) > 1 else "-"
        counters = _COUNTERS.fullmatch(words[2]) if len(words) > 2 else None
        built_in = name in BUILT_IN_CHAINS[table.name]
        if (len(words) > 2 and counters is None) or len(words) > 3:
            raise RuleError(f":{name}", line[:80], ":CHAIN POLICY [PACKETS:BYTES]", "save the rules again, whole")
        if policy not in (("ACCEPT", "DROP", "-") if built_in else ("-",)):
            raise RuleError(f":{name}", f"policy {policy[:40]}", "ACCEPT or DROP for a built-in chain, - for others",
                            "a chain of your own has no policy; end it with a rule instead")  # fmt: skip
        _check_name(name)
        if not built_in and name in _HOOKS:
            raise RuleError(f":{name}", f"chain {name} in table {table.name}", "a chain that this table has",
                            f"table {table.name} has " + ", ".join(BUILT_IN_CHAINS[table.name]))  # fmt: skip
        chain = table.chain(name, number)
        chain.declared, chain.rules = number, []  # declaring a chain empties it
        table.declares = True
        if policy != "-":
            chain.policy = policy
        if counters is not None:
            chain.packets, chain.bytes = int(counters[1]), int(counters[2])

    def _command(self, line: str, number: int, counters: tuple[int, int]) -> None:
        words = self._words(line)
        command = _COMMANDS.get(words[0]) if words else None
        if command is None:
            raise _not_a_line(line)
        table = self.table or self._in_table(number)
        if command == "-Z":
            return
        if command in ("-R", "-E"):
            raise RuleError(
                command, line[:80], "-A, -I, -D, -N, -X, -F or -P", "write the rules as they are afterwards"
            )
        if len(words) < 2:
            if command in ("-F", "-X"):
                for name in [*table.chains]:
                    self._remove(table, name, command, number)
                return
            raise RuleError(command, f"{command} without a chain", f"{command} CHAIN ...",
                            "the line seems cut off; save the rules again, whole, or remove it")  # fmt: skip
        name = words[1]
        if command == "-A":
            chain = table.chains.get(name)
            if chain is None:
                chain = self._chain(table, name, number)
            for parts in self._read(line, words, table, number):
                chain.rules.append(self.draft.add_rule(table, chain, parts, counters, number))
        elif command in ("-I", "-D"):
            self._insert_or_delete(table, command, words, counters, number)
        elif command == "-N":
            _check_name(name)
            chain = table.chain(name, number)
            chain.declared = number
            table.declares = True
        elif command == "-P":
            if name not in BUILT_IN_CHAINS[table.name] or len(words) < 3 or words[2] not in ("ACCEPT", "DROP"):
                raise RuleError("-P", line[:80], f"-P CHAIN ACCEPT|DROP for {', '.join(BUILT_IN_CHAINS[table.name])}",
                                "only built-in chains of the table have a policy")  # fmt: skip
            chain = table.chain(name, number)
            chain.policy, chain.declared, table.declares = words[2], number, True
            if len(words) == 6 and words[3] == "-c" and all(word.isascii() and word.isdigit() for word in words[4:]):
                chain.packets, chain.bytes = int(words[4][:20]), int(words[5][:20])
        else:
            self._remove(table, name, command, number)

    def _words(self, line: str) -> list[str]:
        try:
            return split_words(line)
        except RuleError:
            for reading in mended(line):
                try:
                    split_words(reading)
                except RuleError:
                    continue
                return reading.split()  # the rule is read from the mended line, in `_read`
            raise

    def _read(self, line: str, words: list[str], table: TableDraft, number: int) -> list[RuleParts]:
        """The rules of an -A line; if it is none as it stands, or has unknown options, of the line as it was once."""
        failure = None
        try:
            rules = self.rules.read(words, 2, table.chains.__contains__)
        except RuleError as error:
            rules, failure = [], error
        if failure is None and (not rules or not any(what[:7] == "option " for what, _ in rules[0].opaque)):
            return rules
        for reading in mended(line):
            try:
                better = self.rules.read(split_words(reading), 2, table.chains.__contains__)
            except RuleError:
                continue
            if better and not any(what[:7] == "option " for what, _ in better[0].opaque):
                self.draft.note(number, f"quotes, dashes or signs were changed after iptables; read as {reading[:200]}")
                return better
        if failure is not None:
            raise failure
        return rules

    def _chain(self, table: TableDraft, name: str, number: int) -> ChainDraft:
        _check_name(name)
        if name in _HOOKS and name not in BUILT_IN_CHAINS[table.name]:
            raise RuleError("chain", f"chain {name} in table {table.name}", "a chain that this table has",
                            f"add the line that names the table (such as *nat) before the rules of {name}")  # fmt: skip
        return table.chain(name, number)

    def _insert_or_delete(
        self, table: TableDraft, command: str, words: list[str], counters: tuple[int, int], number: int
    ) -> None:
        chain = self._chain(table, words[1], number)
        place, at = 1, 2
        if len(words) > 2 and words[2].isascii() and words[2].isdigit() and len(words[2]) < 9:
            place, at = int(words[2]), 3
        highest = len(chain.rules) + (command == "-I")
        if at == 3 and not 1 <= place <= highest:
            raise RuleError(
                command, f"rule number {place}", f"1 to {highest}", "count the rules of the chain above this line"
            )
        if command == "-D" and at == 3:
            del chain.rules[place - 1]
            return
        for parts in reversed(self.rules.read(words, at, table.chains.__contains__)):
            if command == "-I":
                chain.rules.insert(place - 1, self.draft.add_rule(table, chain, parts, counters, number))
                continue
            same = [held for held, rule in enumerate(chain.rules)
                    if (rule.matches, rule.target) == (parts.matches, parts.target)]  # fmt: skip
            if not same:
                raise RuleError("-D", "no such rule in the chain", "a rule that stands above", "remove the line")
            del chain.rules[same[0]]

    def _remove(self, table: TableDraft, name: str, command: str, number: int) -> None:
        chain = table.chains.get(name)
        if chain is None:
            self.draft.note(number, f"{command} {name}: no such chain in this text; passed over")
        elif command == "-F":
            chain.rules = []
        elif name not in BUILT_IN_CHAINS[table.name]:
            if chain.rules:
                raise RuleError("-X", f"chain {name} still has rules", "an empty chain", f"add -F {name} before it")
            del table.chains[name]


def _goes_on(line: str) -> bool:
    """Whether a line (stripped) may be the rest of the rule above it."""
    if not line or _STARTER.match(line):
        return False
    return not pasted_text.is_around(line) and not pasted_text.is_elided(line) and pasted_text.command(line) is None


_NOT_A_RULE = 1_000_000
_LIKE_A_RULE = re.compile(
    r" -[jgmpsdio] |--(?:comment|[ds]ports?|to-|ctstate|mode|probability|name|mask)|\[\d+:\d+\]|^-|^:"
    r"| (?:--|-f|!f) +\S"
)
_HOOKS = frozenset(BUILT_IN_CHAINS["mangle"])


def _check_name(name: str) -> None:
    if len(name.encode("utf-8", "replace")) > 28 or name[:1] in ("-", "!") or len(name.split()) != 1:
        raise RuleError("chain", f"chain name {name[:60]!r}", "1 to 28 characters without blanks, - or ! at the start",
                        "the kernel refuses other names; save the rules again, whole")  # fmt: skip


def _not_a_line(line: str) -> RuleError:
    return RuleError(
        "",
        repr(line[:80]),
        "a line of iptables-save: *TABLE, :CHAIN, -A CHAIN ..., COMMIT or a # comment",
        "remove the line, put # before it, or mend it if it is a rule that was cut",
    )
