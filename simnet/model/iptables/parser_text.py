"""What a parser of rule text hands on, and the draft of a rule set while the lines are read.

`Draft` collects tables, problems, notes and what is not understood; `Draft.finish` checks that every jump has a chain
and raises all problems at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from simnet.errors import InputError, Position, Problem
from simnet.model.iptables.extensions import TARGET_OPTIONS
from simnet.model.iptables.parser_errors import RuleError
from simnet.model.iptables.parser_rule import RuleParts
from simnet.model.iptables.ruleset import BUILT_IN_CHAINS, Chain, Family, Jump, Rule, Ruleset, Table, Verdict

MOST_PROBLEMS = 200  # told one by one; the rest is counted


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """Something in a rule set that simnet keeps but does not model."""

    line: int
    chain: str
    table: str
    what: str
    could_change_verdict: bool


@dataclass(frozen=True, slots=True)
class Note:
    """How an incomplete or odd text was read; `line` 0: the text as a whole."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class ParsedRules:
    """A rule set read from text, with what was not understood and how odd places were read."""

    ruleset: Ruleset
    not_understood: tuple[NotUnderstood, ...] = ()
    notes: tuple[Note, ...] = ()
    form: str = "save"  # or "listing"


@dataclass(slots=True)
class ChainDraft:
    """A chain while its rules are read; `declared` is the line that declared it, 0 if only rules or jumps name it."""

    name: str
    declared: int = 0
    policy: str | None = None
    packets: int = 0
    bytes: int = 0
    rules: list[Rule] = field(default_factory=list)
    first_line: int = 0


@dataclass(slots=True)
class TableDraft:
    """A table while it is read; `whole`: it began with `*TABLE`, declared its chains and ended with COMMIT."""

    name: str
    line: int
    headed: bool = False
    committed: bool = False
    declares: bool = False
    chains: dict[str, ChainDraft] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether a chain that it does not declare can only be a mistake."""
        return self.headed and self.committed and self.declares

    def chain(self, name: str, line: int) -> ChainDraft:
        """The chain of that name, made if need be."""
        held = self.chains.get(name)
        if held is None:
            built_in = name in BUILT_IN_CHAINS[self.name]
            held = self.chains[name] = ChainDraft(name, policy="ACCEPT" if built_in else None, first_line=line)
        return held


class Draft:
    """A rule set while its text is read."""

    def __init__(self, file: str, family: Family, form: str) -> None:
        self.file = file
        self.family = family
        self.form = form
        self.tables: dict[str, TableDraft] = {}
        self.problems: list[Problem] = []
        self.unsaid_problems = 0
        self.notes: list[Note] = []
        self.not_understood: list[NotUnderstood] = []

    def problem(self, line: int, error: RuleError) -> None:
        """Keep a mistake; past MOST_PROBLEMS only count it."""
        if len(self.problems) < MOST_PROBLEMS:
            where = Position(self.file, line)
            self.problems.append(Problem(where, error.field[:120], error.found, error.expected, error.fix))
        else:
            self.unsaid_problems += 1

    def note(self, line: int, text: str) -> None:
        """Keep how an odd place was read."""
        self.notes.append(Note(line, text))

    def add_rule(
        self, table: TableDraft, chain: ChainDraft, parts: RuleParts, counters: tuple[int, int], line: int
    ) -> Rule:
        """Make the rule and keep what it holds that is not understood; the caller puts it into the chain."""
        packets, octets = parts.counters or counters
        if parts.goto_verdict and isinstance(parts.target, Verdict):
            self.note(line, f"-g {parts.target.name} is a goto to a verdict, read as -j {parts.target.name}")
        for what, could_change_verdict in parts.opaque:
            self.not_understood.append(NotUnderstood(line, chain.name, table.name, what, could_change_verdict))
        return Rule(parts.matches, parts.target, packets, octets, line)

    def finish(self) -> ParsedRules:
        """Check what only the whole text shows, and return the rule set. Raises InputError with all problems."""
        for table in self.tables.values():
            self._check_chains(table)
        if self.unsaid_problems:
            self.problem_count_note()
        if self.problems:
            raise InputError(self.problems)
        tables = {draft.name: _table(draft) for draft in self.tables.values()}
        ruleset = Ruleset(self.family, tables, self.file)
        return ParsedRules(
            ruleset,
            tuple(sorted(self.not_understood, key=lambda item: item.line)),
            tuple(sorted(self.notes, key=lambda note: note.line)),
            self.form,
        )

    def problem_count_note(self) -> None:
        """Say how many problems there are beyond those told."""
        last_told = max(problem.where.line for problem in self.problems)
        self.problems.append(Problem(Position(self.file, last_told), "", f"{self.unsaid_problems} more mistakes",
                                     "rules as iptables-save prints them", "mend those above first"))  # fmt: skip

    def _check_chains(self, table: TableDraft) -> None:
        built_in = BUILT_IN_CHAINS[table.name]
        chains = table.chains
        missing: dict[str, tuple[int, str]] = {}  # chain -> the line and chain of the first jump to it
        for chain in list(chains.values()):
            if not chain.declared and chain.name not in built_in:
                if table.whole:
                    self.problem(chain.first_line, _undeclared(chain.name, table.name))
                    continue
                missing.setdefault(chain.name, (0, ""))
            for rule in chain.rules:
                target = rule.target
                if type(target) is Jump and target.chain not in chains:
                    if len(target.chain.encode("utf-8", "replace")) > 28 or target.chain[:1] in ("-", "!"):
                        self.problem(
                            rule.line,
                            RuleError(
                                "-j",
                                f"a jump to {target.chain[:60]!r}",
                                "a chain's name of 1 to 28 characters, or a target",
                                "check whether the line was cut",
                            ),
                        )
                    elif target.chain in built_in:
                        self.problem(rule.line, RuleError("-j", f"a jump to the built-in chain {target.chain}",
                            "a chain made by the user, or a target", "jump to a chain of your own"))  # fmt: skip
                    elif table.whole or target.chain in TARGET_OPTIONS:
                        self.problem(rule.line, _undeclared(target.chain, table.name))
                    elif target.chain not in missing:
                        missing[target.chain] = (rule.line, chain.name)
        made = [name for name, (line, _) in missing.items() if not line]
        if made:
            self.note(0, f"table {table.name}: chains that rules are appended to but nothing declares:"
                         f" {_some(made)}; made")  # fmt: skip
        for name, (line, jumper) in missing.items():
            if line:
                chains[name] = ChainDraft(name)
                self.not_understood.append(
                    NotUnderstood(line, jumper, table.name, f"chain {name} is not in this text; read as empty", True)
                )
        absent = [name for name in built_in if name not in chains or not chains[name].declared]
        for name in built_in:
            table.chain(name, 0)
        if absent:
            self.note(table.line, f"table {table.name}: the text does not say the policy of {_some(absent)};"
                                  " ACCEPT is assumed")  # fmt: skip


def _table(draft: TableDraft) -> Table:
    return Table(
        draft.name,
        {
            chain.name: Chain(chain.name, tuple(chain.rules), chain.policy, chain.packets, chain.bytes)
            for chain in draft.chains.values()
        },
    )


def _undeclared(chain: str, table: str) -> RuleError:
    return RuleError(
        "chain", f"chain {chain[:60]}", f"a chain that table {table} declares, or a target of iptables",
        f"add the line `:{chain[:60]} - [0:0]` to table {table}, or save the rules again, whole",
    )  # fmt: skip


def _some(names: Iterable[str]) -> str:
    held = list(names)
    return ", ".join(held[:8]) + (f" and {len(held) - 8} more" if len(held) > 8 else "")
