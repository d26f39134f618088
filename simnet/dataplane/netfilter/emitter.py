"""Write the code of chains: single rules, DISPATCH for runs keyed by destination and port, SELECT for cascades.

A cascade's cumulative probabilities are computed with integers: rule j of a cascade holds with q_j / 2**31, so rule i
or
one before it is chosen with 1 - prod(2**31 - q_j) / 2**(31 i), kept as floor of that times 2**64.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.netfilter.packets import (
    ACCEPT_BY_POLICY,
    DROP_BY_POLICY,
    OWN_ADDRESS,
    SNAT_MASQUERADE,
    SNAT_TO_SOURCE,
)
from simnet.dataplane.netfilter.predicates import Pool, PredicateCompiler, Test, Unknown
from simnet.dataplane.netfilter.program import (
    ADDRESS_LIMIT,
    DISPATCH_LIMIT,
    ORDERED,
    Action,
    Operation,
    Predicate,
    Program,
    Shape,
    SkippedRule,
    Unit,
    build_key_table,
    dispatch_keys,
)
from simnet.dataplane.netfilter.recent_lists import is_plain_check, recent_tables
from simnet.dataplane.netfilter.translation import address_range, is_port_random, range_number
from simnet.errors import ModelError, Position, Problem
from simnet.model.addresses import AddressTable
from simnet.model.iptables.modelled import could_change_verdict, passes_on, unmodelled_target
from simnet.model.iptables.ruleset import (
    BUILT_IN_CHAINS,
    PROBABILITY_ONE,
    Dnat,
    Jump,
    Masquerade,
    OpaqueTarget,
    Reject,
    Rule,
    SetMark,
    Snat,
    Target,
    Verdict,
)

if TYPE_CHECKING:
    from simnet.dataplane.netfilter.compiler import ChainUnit

NO_CALLEE = -1
_SHORTEST_DISPATCH = 4  # a shorter run is cheaper as single rules


@dataclass(slots=True)
class _RuleForm:
    """What a rule becomes, apart from its id: hosts whose chains differ share most of their rules."""

    tests: list[Test]
    action: Action
    argument: int
    callee: int  # unit of a jump, or a slot's target; -1: none
    codes: tuple[int, ...] = ()  # predicates with negation, as numbers
    key: tuple[int, int, int] | None = None  # of DISPATCH
    residual: _RuleForm | None = None  # with the tests that the key does not answer

    @classmethod
    def of(cls, tests: list[Test], action: Action, argument: int, callee: int) -> _RuleForm:
        form = cls(tests, action, argument, callee, _codes(tests), _key(tests))
        if form.key is not None:
            left = _residual(tests, form.key)
            form.residual = cls(left, action, argument, callee, _codes(left))
        return form

    @property
    def is_cascade_member(self) -> bool:
        tests = self.tests
        return (
            len(tests) == 1 and tests[0][0] is Predicate.RANDOM and not tests[0][1] and self.action is Action.JUMP
        )  # fmt: skip


def _codes(tests: list[Test]) -> tuple[int, ...]:
    return tuple([2 * predicate + negated for predicate, negated, _ in tests])


def _key(tests: list[Test]) -> tuple[int, int, int] | None:
    """(destination or -1, protocol, port) if exact in the last two and nothing ordered is asked."""
    address, protocol, port = -1, -1, -1
    for predicate, negated, operand in tests:
        if predicate in ORDERED:
            return None
        if not negated:
            if predicate is Predicate.DESTINATION_HOST:
                address = operand if address < 0 else address
            elif predicate is Predicate.PROTOCOL:
                protocol = operand if protocol < 0 else protocol
            elif predicate is Predicate.DESTINATION_PORT:
                port = operand if port < 0 else port
    return (address, protocol, port) if protocol >= 0 and port >= 0 else None


def _residual(tests: list[Test], key: tuple[int, int, int]) -> list[Test]:
    """The tests that the key does not answer."""
    answers = (
        (Predicate.DESTINATION_HOST, False, key[0]),
        (Predicate.PROTOCOL, False, key[1]),
        (Predicate.DESTINATION_PORT, False, key[2]),
    )
    return [test for test in tests if test not in answers]


# What a rule becomes that is left out: the kernel evaluates it, no packet matches it.
_NEVER = _RuleForm.of([(Predicate.PROTOCOL, False, 256)], Action.COUNT, 0, NO_CALLEE)


@dataclass(slots=True)
class _Line:
    """A rule while its chain is written: its id and its form."""

    rule: int
    form: _RuleForm


class Emitter:
    """Collects code and constants; `program` is its one use."""

    def __init__(self, addresses: AddressTable, interfaces: tuple[str, ...], skip_unknown: bool) -> None:
        self.addresses, self.interfaces, self.skip_unknown = addresses, interfaces, skip_unknown
        self.predicates = PredicateCompiler(addresses)
        self.shapes, self.dnat, self.snat, self.ranges = Pool(), Pool(), Pool(), Pool()
        self._shape_numbers: dict[tuple[tuple[int, ...], Action], int] = {}
        self._forms: dict[int, _RuleForm] = {}  # by id of a rule in chains that differ between hosts
        self.words = array("i")
        self.jumps: list[tuple[int, int]] = []  # (word, unit whose pc it is)
        self.option_jumps: list[tuple[int, int]] = []
        self.option_threshold = array("Q")
        self.option_target = array("q")
        self.option_return = array("q")
        self.recall_list, self.recall_target = array("i"), array("q")
        self.recall_jumps: list[tuple[int, int]] = []
        self.recall_runs: list[tuple[int, int]] = []  # (first in recall_list, length)
        self.keys = array("q")  # of five: dispatch, address, protocol, port, pc
        self.dispatch_kinds: list[int] = []
        self.skipped: list[SkippedRule] = []
        self.thresholds: dict[tuple[int, ...], list[int]] = {}
        self.inlined: dict[int, int | None] = {}

    def program(
        self, units: Sequence[ChainUnit], order: Sequence[int], slot_units: NDArray[np.int32],
        hosts: Sequence[Mapping[tuple[str, str], int]], depth: int, problems: list[Problem],
    ) -> Program:  # fmt: skip
        """Write all units and return the program; mistakes go to `problems`.

        `order`: units, callees before callers; `slot_units`: int32[slot, host], -1: none; `depth`: of the call stack.
        """
        self.units = units
        self.first_rules, count = [], 0
        for unit in units:
            self.first_rules.append(count)
            count += len(unit.chain.rules) + self._is_built_in(unit)
        places: list[tuple[int, int]] = [(-1, -1)] * len(units)
        for number in reversed(order):  # callers before callees, so that pcs grow along a packet's way
            places[number] = self._chain(units[number], self.first_rules[number], problems)
        for word, number in self.jumps:
            self.words[word] = places[number][0] if number >= 0 else number
        for option, number in self.option_jumps:
            self.option_target[option] = places[number][0] if number >= 0 else number
        for place, number in self.recall_jumps:
            self.recall_target[place] = places[number][0] if number >= 0 else number
        code = np.array(self.words, dtype=np.int32)
        if len(self.dispatch_kinds) >= DISPATCH_LIMIT or len(self.addresses) >= ADDRESS_LIMIT:
            raise ModelError("more dispatch tables or addresses than a program's keys can hold")
        key_rows = np.array(self.keys, dtype=np.int64).reshape(-1, 5)
        keys = dispatch_keys(key_rows[:, 0], key_rows[:, 1], key_rows[:, 2], key_rows[:, 3])
        key_table, key_target = build_key_table(keys, key_rows[:, 4])
        marks = np.array(self.predicates.marks.values, dtype=np.uint32).reshape(-1, 2)
        dnat = np.array(self.dnat.values, dtype=np.int32).reshape(-1, 4)
        snat = np.array(self.snat.values, dtype=np.int64).reshape(-1, 5)
        return Program(
            addresses=self.addresses, interfaces=self.interfaces, shapes=tuple(self.shapes.values), code=code,  # type: ignore[arg-type]
            units=tuple(
                Unit(u.table, u.chain, first, *place)
                for u, first, place in zip(units, self.first_rules, places, strict=True)
            ),
            chains=tuple(hosts), rule_count=count, depth=depth,
            slot_pc=np.array([*(place[0] for place in places), -1], np.int32)[slot_units],
            networks=tuple(self.predicates.networks.values),  # type: ignore[arg-type]
            interface_patterns=tuple(self.predicates.interfaces.values),  # type: ignore[arg-type]
            port_sets=self.predicates.port_set_columns(),
            mark_value=marks[:, 0].copy(), mark_mask=marks[:, 1].copy(),
            nat_ranges=tuple(address_range(target, self.addresses) for target in self.ranges.values),  # type: ignore[arg-type]
            dnat_address=dnat[:, 0].copy(), dnat_port_first=dnat[:, 1].copy(), dnat_port_last=dnat[:, 2].copy(),
            dnat_is_random=dnat[:, 3].astype(np.bool_),
            dnat_is_plain=bool((dnat[:, 0] >= OWN_ADDRESS).all() and (dnat[:, 1] == dnat[:, 2]).all()),
            snat_kind=snat[:, 0].astype(np.uint8), snat_address=snat[:, 1].astype(np.int32),
            snat_port_first=snat[:, 2].astype(np.int32), snat_port_last=snat[:, 3].astype(np.int32),
            snat_random_fully=snat[:, 4].astype(np.bool_),
            nth=tuple(self.predicates.nth), recent=tuple(self.predicates.recent.values),  # type: ignore[arg-type]
            recent_lists=tuple(self.predicates.recent_lists.values),  # type: ignore[arg-type]
            **recent_tables(
                self.predicates.recent.values, len(self.predicates.recent_lists.values), self.negated_recent(),  # type: ignore[arg-type]
                self.recall_runs, self.recall_list,
            ),
            recall_list=np.array(self.recall_list, np.int32), recall_target=np.array(self.recall_target, np.int64),
            option_threshold=np.array(self.option_threshold, dtype=np.uint64),
            option_target=np.array(self.option_target, dtype=np.int64),
            option_return=np.array(self.option_return, dtype=np.int64),
            dispatch_kinds=np.array(self.dispatch_kinds, dtype=np.uint8),
            key_table=key_table, key_target=key_target, skipped=tuple(self.skipped),
        )  # fmt: skip

    def negated_recent(self) -> bool:
        """Whether some `recent` match is negated; then no list counts as plain."""
        return any(
            predicate is Predicate.RECENT and negated
            for shape in self.shapes.values for predicate, negated in shape.predicates  # type: ignore[attr-defined]
        )  # fmt: skip

    @staticmethod
    def _is_built_in(unit: ChainUnit) -> bool:
        return unit.chain.policy is not None or unit.chain.name in BUILT_IN_CHAINS.get(unit.table, ())

    # --- one chain

    def _chain(self, unit: ChainUnit, first_rule: int, problems: list[Problem]) -> tuple[int, int]:
        """Write one chain; returns its pc and the pc of its policy (-1 for a user chain)."""
        lines = self._lines(unit, first_rule, problems)
        pc, at = len(self.words), 0
        while at < len(lines):
            run = self._cascade(lines, at)
            if run > 1:
                self._select(lines[at : at + run], at + run == len(lines))
                at += run
                continue
            run = self._recalls(lines, at)
            if run:
                self._recall(lines[at : at + run])
                at += run
                continue
            run = self._run(lines, at)
            if run >= _SHORTEST_DISPATCH:
                self._dispatch(lines[at : at + run])
                at += run
                continue
            self._rule(lines[at].rule, lines[at].form, 1, at + 1 == len(lines))
            at += 1
        policy_pc = -1
        if self._is_built_in(unit):
            policy_pc = len(self.words)
            verdict = DROP_BY_POLICY if unit.chain.policy == "DROP" else ACCEPT_BY_POLICY
            self._emit(Shape(Operation.POLICY), first_rule + len(unit.chain.rules), 0, verdict)
        else:
            self._emit(Shape(Operation.RETURN), -1, 0, 0)
        return pc, policy_pc

    def _emit(self, shape: Shape, *words: int) -> int:
        place = len(self.words)
        self.words.append(self.shapes.number(shape))
        self.words.extend(words)
        return place

    def _shape(self, form: _RuleForm, action: Action) -> int:
        number = self._shape_numbers.get((form.codes, action))
        if number is None:
            shape = Shape(Operation.RULE, tuple((predicate, negated) for predicate, negated, _ in form.tests), action)
            number = self._shape_numbers[form.codes, action] = self.shapes.number(shape)
        return number

    def _rule(self, rule: int, form: _RuleForm, cost: int, is_last: bool) -> None:
        action, callee, argument, words = form.action, form.callee, form.argument, self.words
        mark = self._inline_mark(callee) if callee >= 0 and action is Action.JUMP else None
        if mark is not None:
            action, argument = Action.INLINE_MARK, mark
        elif action is Action.JUMP and is_last:
            action = Action.TAIL
        if mark is None and callee != NO_CALLEE:
            self.jumps.append((len(words) + 3, callee))
        words.extend((self._shape(form, action), rule, cost, argument))
        for predicate, _, operand in form.tests:
            words.append(operand - (1 << 32) if predicate is Predicate.RANDOM and operand >= 1 << 31 else operand)
        if mark is not None:
            words.append(self.first_rules[callee])

    def _inline_mark(self, callee: int) -> int | None:
        """The mark number if the chain does nothing but set a mark, whatever the packet; else None."""
        if callee not in self.inlined:
            rules = self.units[callee].chain.rules
            mark = None
            if len(rules) == 1 and isinstance(rules[0].target, SetMark) and rules[0].matches == ():
                mark = self.predicates.marks.number((rules[0].target.value, rules[0].target.mask))
            self.inlined[callee] = mark
        return self.inlined[callee]

    # --- cascades

    @staticmethod
    def _cascade(lines: list[_Line], at: int) -> int:
        """How many lines from `at` on make one cascade: random jumps, and the unconditional jump that ends them."""
        end = at
        while end < len(lines) and lines[end].form.is_cascade_member:
            end += 1
        if end > at and end < len(lines) and lines[end].form.action is Action.JUMP and not lines[end].form.tests:
            end += 1
        return end - at

    def _select(self, lines: list[_Line], is_last: bool) -> None:
        thresholds = self._cumulative(
            tuple(line.form.tests[0][2] if line.form.tests else PROBABILITY_ONE for line in lines)
        )
        is_total = thresholds[-1] >= 1 << 64
        tested = len(thresholds) - is_total
        base = len(self.option_threshold)
        self._emit(Shape(Operation.SELECT), lines[0].rule, tested, base)
        singles = len(self.words)  # after a return, the lines that follow are asked one by one
        for option in range(tested + 1):
            self.option_threshold.append(min(thresholds[option], 2**64 - 1) if option < tested else 2**64 - 1)
            if option < len(thresholds):
                is_tail = is_last and option == len(lines) - 1
                self.option_jumps.append((base + option, lines[option].form.callee))
                self.option_target.append(-1)
                self.option_return.append(-1 if is_tail else singles + 5 * option)
            else:
                self.option_target.append(-1)
                self.option_return.append(-1)
        for number, line in enumerate(lines[1:], start=1):
            assert len(self.words) == singles + 5 * (number - 1)
            # always a plain jump, so that the words are five each
            form = line.form
            self.jumps.append((len(self.words) + 3, form.callee))
            self.words.extend((self._shape(form, Action.JUMP), line.rule, 1, 0))
            for _, _, operand in form.tests:
                self.words.append(operand - (1 << 32) if operand >= 1 << 31 else operand)
        last = len(lines) - 1
        if last < len(thresholds) and self.option_return[base + last] >= 0:
            self.option_return[base + last] = len(self.words)

    def _cumulative(self, thresholds: tuple[int, ...]) -> list[int]:
        """Return floor(2**64 * P(this line or one before is chosen)) per line, ending where that is certain."""
        known = self.thresholds.get(thresholds)
        if known is None:
            known, missed = [], 1
            for count, threshold in enumerate(thresholds, start=1):
                missed *= PROBABILITY_ONE - threshold  # of 2**(31 * count)
                known.append((1 << 64) - -((-missed << 64) >> (31 * count)))
                if missed == 0:
                    break
            self.thresholds[thresholds] = known
        return known

    # --- runs of `recent --rcheck`

    def _recalls(self, lines: list[_Line], at: int) -> int:
        """How many lines from `at` on jump if a list holds the source, and ask nothing else."""
        end = at
        while end < len(lines) and self._is_recall(lines[end].form):
            end += 1
        return end - at

    def _is_recall(self, form: _RuleForm) -> bool:
        if form.action is not Action.JUMP or len(form.tests) != 1:
            return False
        predicate, negated, operand = form.tests[0]
        return predicate is Predicate.RECENT and not negated and is_plain_check(self.predicates.recent.values[operand])

    def _recall(self, lines: list[_Line]) -> None:
        base = len(self.recall_list)
        self.recall_runs.append((base, len(lines)))
        self._emit(Shape(Operation.RECALL), lines[0].rule, len(lines), base)
        for line in lines:  # and after a return, or packet by packet, as single rules of five words
            form = line.form
            operand = form.tests[0][2]
            self.recall_jumps.append((len(self.recall_list), form.callee))
            self.recall_list.append(self.predicates.recent.values[operand].list)  # type: ignore[attr-defined]
            self.recall_target.append(-1)
            self.jumps.append((len(self.words) + 3, form.callee))
            self.words.extend((self._shape(form, Action.JUMP), line.rule, 1, 0, operand))

    # --- runs keyed by destination and port

    def _run(self, lines: list[_Line], at: int) -> int:
        end = at
        while end < len(lines) and lines[end].form.key is not None:
            end += 1
        return end - at

    def _dispatch(self, lines: list[_Line]) -> None:
        by_key: dict[tuple[int, int, int], list[int]] = {}
        for position, line in enumerate(lines):
            key = line.form.key
            assert key is not None
            by_key.setdefault(key, []).append(position)
        kinds = (1 if any(key[0] >= 0 for key in by_key) else 0) | (2 if any(key[0] < 0 for key in by_key) else 0)
        candidates: dict[tuple[int, int, int], list[int]] = {}
        for key, positions in by_key.items():  # a line without destination also concerns each destination of its port
            others = by_key.get((-1, *key[1:]), []) if key[0] >= 0 else []
            candidates[key] = sorted([*positions, *others]) if others else positions
        if sum(map(len, candidates.values())) > 3 * len(lines) + 64:  # mixed in a way that multiplies: split by kind
            start = 0
            for position in range(1, len(lines) + 1):
                if position == len(lines) or (lines[position].form.key[0] < 0) != (lines[start].form.key[0] < 0):  # type: ignore[index]
                    self._dispatch(lines[start:position])
                    start = position
            return
        number = len(self.dispatch_kinds)
        self.dispatch_kinds.append(kinds)
        place = self._emit(Shape(Operation.DISPATCH), number, len(lines), 0)
        skips: list[int] = []
        for key, positions in candidates.items():
            self.keys.extend((number, *key, len(self.words)))
            scanned = 0
            for position in positions:
                line = lines[position]
                assert line.form.residual is not None
                self._rule(line.rule, line.form.residual, position + 1 - scanned, False)
                scanned = position + 1
            skips.append(self._emit(Shape(Operation.SKIP), -1, len(lines) - scanned, 0) + 3)
        after = len(self.words)
        for word in (place + 3, *skips):
            self.words[word] = after

    # --- targets

    def _lines(self, unit: ChainUnit, first_rule: int, problems: list[Problem]) -> list[_Line]:
        lines = []
        for index, rule in enumerate(unit.chain.rules):
            form = self._forms.get(id(rule))
            if form is None:
                try:
                    form = _RuleForm.of(self.predicates.tests(rule.matches), *self._target(rule.target, unit))
                except Unknown as unknown:
                    self._unknown(unit, index, rule, str(unknown), problems)
                    lines.append(_Line(first_rule + index, _NEVER))
                    continue
                # an nth counter belongs to one rule of one chain
                if unit.is_variant and not any(predicate is Predicate.NTH for predicate, _, _ in form.tests):
                    self._forms[id(rule)] = form
            lines.append(_Line(first_rule + index, form))
        return lines

    def _unknown(self, unit: ChainUnit, index: int, rule: Rule, reason: str, problems: list[Problem]) -> None:
        if self.skip_unknown or not could_change_verdict(rule):  # no error, but told
            self.skipped.append(SkippedRule(unit.source, rule.line, unit.table, unit.chain.name, index, reason))
            return
        problems.append(
            Problem(
                Position(unit.source or "generated rules", rule.line),
                f"{unit.table} {unit.chain.name} rule {index + 1}",
                reason,
                "a match or target that simnet models",
                "remove the rule, or leave it out with --skip-unknown",
            )
        )

    def _target(self, target: Target | None, unit: ChainUnit) -> tuple[Action, int, int]:
        """Return (action, argument, callee)."""
        match target:
            case None:
                return Action.COUNT, 0, -1
            case Jump():
                callee = unit.callees[target.chain]
                return (Action.TAIL if target.goto else Action.JUMP), 0, callee
            case Verdict("ACCEPT"):
                return Action.ACCEPT, 0, -1
            case Verdict("DROP"):
                return Action.DROP, 0, -1
            case Verdict("RETURN"):
                return Action.RETURN, 0, -1
            case SetMark():
                return Action.MARK, self.predicates.marks.number((target.value, target.mask)), -1
            case Reject():
                return Action.REJECT, 0, -1
            case Dnat():
                return Action.DNAT, self._dnat(target), -1
            case Masquerade():
                first, last = target.ports or (-1, -1)
                row = (SNAT_MASQUERADE, -1, first, last, target.random_fully or target.random)
                return Action.SNAT, self.snat.number(row), -1
            case Snat():
                if reason := unmodelled_target(target):
                    raise Unknown(reason)
                first, last = target.ports or (-1, -1)
                row = (SNAT_TO_SOURCE, self._address(target), first, last, is_port_random(target))
                return Action.SNAT, self.snat.number(row), -1
            case OpaqueTarget() if passes_on(target):
                return Action.COUNT, 0, -1
            case OpaqueTarget():
                raise Unknown(f"target {target.name}")
            case Verdict():
                raise Unknown(f"target {target.name}")

    def _dnat(self, target: Dnat) -> int:
        if reason := unmodelled_target(target):
            raise Unknown(reason)
        first, last = target.ports or (-1, -1)
        address = -2 if target.redirect else -1
        if target.address is not None:
            address = self._address(target)
        return self.dnat.number((address, first, last, is_port_random(target) and first != last))

    def _address(self, target: Dnat | Snat) -> int:
        """Return the id of a target's address, or the number of its range."""
        assert target.address is not None
        if target.last_address in (None, target.address):
            return self.addresses.intern(target.address)
        options = tuple(option for option in target.options if option == "--persistent")
        return range_number(self.ranges.number(replace(target, ports=None, options=options)))
