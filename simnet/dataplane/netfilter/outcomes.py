"""Every outcome that one first packet can have at a hook, each with its exact probability.

Walks the program like the machine does, but takes every branch of each `statistic` rule, with the kernel's
probabilities
q / 2**31 as fractions; the probabilities sum to 1. A `statistic --mode nth` rule counts as chance 1 in `every` (its
long-run
share); `recent` lists are taken to be empty, as they are for a client's first connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from simnet.dataplane.netfilter.executor import HOOK_TABLES
from simnet.dataplane.netfilter.nat_ranges import RANDOM_NUMBERS, numbers_by_remainder
from simnet.dataplane.netfilter.packets import (
    ACCEPT_BY_POLICY,
    ACCEPT_BY_RULE,
    DROP_BY_RULE,
    OWN_ADDRESS,
    REJECT,
    STATE_DNAT,
    STATE_NAT_DONE,
    STATE_NEW,
    PacketColumns,
)
from simnet.dataplane.netfilter.program import (
    TYPE_LOCAL,
    Action,
    Operation,
    Predicate,
    Program,
    dispatch_keys,
    hash_keys,
    interface_matches,
)
from simnet.dataplane.netfilter.translation import destination_after, source_after
from simnet.errors import ModelError
from simnet.model.iptables.ruleset import PROBABILITY_ONE, StatisticRandom

ONE = Fraction(1)
# Of one packet through one chain: hand-made rules that return into cascades multiply without end.
MOST_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class ExactOutcome:
    """One way that a packet can go; columns as in `Outcome`. `rules`: ids of those that matched, if asked for."""

    verdict: int = ACCEPT_BY_POLICY
    mark: int = 0
    destination: int = -1
    destination_port: int = -1
    snat_kind: int = 0
    snat_source: int = -1
    snat_port_first: int = -1
    snat_port_last: int = -1
    snat_random_fully: bool = False
    rules_scanned: int = 0
    rule: int = -1
    rules: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Packet:
    """What predicates read, as plain values."""

    host: int
    source: int
    destination: int
    source_port: int
    destination_port: int
    protocol: int
    in_interface: int
    out_interface: int
    state: int
    source_is_local: bool
    destination_is_local: bool


def exact_outcomes(
    program: Program, hook: str, packets: PacketColumns, row: int = 0, *, record_rules: bool = False
) -> list[tuple[Fraction, ExactOutcome]]:
    """Return the outcomes of one packet at a hook with their probabilities, the first-chosen first; they sum to 1.

    Equal outcomes are one entry; with `record_rules` ways through different rules stay apart. Tables and their order as
    in `run_hook`: nat only for state NEW before it was asked; what nat OUTPUT rewrites is seen by the chains after.
    """
    packet = _Packet(**{name: getattr(packets, name)[row].item() for name in _Packet.__slots__})
    return _hook(program, HOOK_TABLES[hook], hook, packet, int(packets.mark[row]), record_rules)


def exact_chain_outcomes(
    program: Program, table: str, chain: str, packets: PacketColumns, row: int = 0, *, record_rules: bool = False
) -> list[tuple[Fraction, ExactOutcome]]:
    """Return the same for one built-in chain."""
    packet = _Packet(**{name: getattr(packets, name)[row].item() for name in _Packet.__slots__})
    return _hook(program, (table,), chain, packet, int(packets.mark[row]), record_rules, any_state=True)


def _hook(
    program: Program, tables: tuple[str, ...], chain: str, packet: _Packet, mark: int, record_rules: bool,
    any_state: bool = False,
) -> list[tuple[Fraction, ExactOutcome]]:  # fmt: skip
    branches = [(ONE, ExactOutcome(mark=mark), packet)]
    for table in tables:
        following: list[tuple[Fraction, ExactOutcome, _Packet]] = []
        for probability, before, now in branches:
            unit = program.unit(now.host, table, chain)
            is_skipped = table == "nat" and not any_state and now.state & (STATE_NEW | STATE_NAT_DONE) != STATE_NEW
            if unit is None or is_skipped or before.verdict > ACCEPT_BY_POLICY:
                following.append((probability, before, now))
                continue
            walk = _Walk(program, now, record_rules)
            for share, after in walk.outcomes(unit.pc, unit.policy_pc, before):
                moved = _rewritten(now, after) if table == "nat" and chain == "OUTPUT" else now
                following.append((probability * share, after, moved))
        branches = following
    merged: dict[ExactOutcome, Fraction] = {}
    for probability, outcome, _ in branches:
        merged[outcome] = merged.get(outcome, Fraction(0)) + probability
    return [(probability, outcome) for outcome, probability in merged.items()]


def _rewritten(packet: _Packet, outcome: ExactOutcome) -> _Packet:
    if outcome.destination_port < 0:
        return packet
    destination = packet.destination if outcome.destination == OWN_ADDRESS else outcome.destination
    is_same = (outcome.destination, outcome.destination_port) == (packet.destination, packet.destination_port)
    state = packet.state if is_same else packet.state | STATE_DNAT
    return replace(packet, destination=destination, destination_port=outcome.destination_port, state=state)


_Way = tuple[Fraction, int, tuple[int, ...], ExactOutcome]  # probability, pc, call stack, what happened so far


class _Walk:
    """All ways of one packet through one chain."""

    def __init__(self, program: Program, packet: _Packet, record_rules: bool) -> None:
        self.program, self.packet, self.record_rules = program, packet, record_rules

    def outcomes(self, pc: int, policy_pc: int, before: ExactOutcome) -> Iterator[tuple[Fraction, ExactOutcome]]:
        """Yield (probability, outcome) of each way that has one."""
        code, shapes = self.program.code, self.program.shapes
        ways: list[_Way] = [(ONE, pc, (policy_pc,), replace(before, rule=-1))]
        steps = 0
        while ways:
            steps += 1
            if steps > MOST_STEPS:
                raise ModelError(f"more than {MOST_STEPS} steps over all ways of one packet through a chain")
            probability, pc, stack, out = ways.pop()
            if probability == 0:
                continue
            shape = shapes[code[pc]]
            match shape.operation:
                case Operation.RETURN:
                    ways.append((probability, stack[-1], stack[:-1], out))
                case Operation.SKIP:
                    out = replace(out, rules_scanned=out.rules_scanned + int(code[pc + 2]))
                    ways.append((probability, int(code[pc + 3]), stack, out))
                case Operation.POLICY:
                    yield probability, self._ended(out, int(code[pc + 3]), int(code[pc + 1]), before)
                case Operation.DISPATCH:
                    target = self._find(int(code[pc + 1]))
                    if target < 0:
                        target = int(code[pc + 3])
                        out = replace(out, rules_scanned=out.rules_scanned + int(code[pc + 2]))
                    ways.append((probability, target, stack, out))
                case Operation.RECALL:
                    ways.append((probability, pc + 4, stack, out))  # its rules follow one by one
                case Operation.SELECT:
                    ways.extend(reversed([(probability * p, *way) for p, *way in self._select(pc, stack, out)]))  # type: ignore[misc]
                case Operation.RULE:
                    out = replace(out, rules_scanned=out.rules_scanned + int(code[pc + 2]))
                    chance = ONE
                    for number, (predicate, negated) in enumerate(shape.predicates):
                        holds = self._chance(predicate, int(code[pc + 4 + number]), out.mark)
                        chance *= 1 - holds if negated else holds
                        if chance == 0:
                            break
                    following = pc + shape.length
                    if chance < 1:
                        ways.append((probability * (1 - chance), following, stack, out))
                    if chance == 0:
                        continue
                    out = self._matched(out, int(code[pc + 1]))
                    argument = int(code[pc + 3])
                    way: tuple[int, tuple[int, ...], ExactOutcome]
                    match shape.action:
                        case Action.JUMP:
                            way = (self.program.target(self.packet.host, argument), (*stack, following), out)
                        case Action.TAIL:
                            way = (self.program.target(self.packet.host, argument), stack, out)
                        case Action.RETURN:
                            way = (stack[-1], stack[:-1], out)
                        case Action.COUNT:
                            way = (following, stack, out)
                        case Action.MARK | Action.INLINE_MARK:
                            value, mask = (int(c[argument]) for c in (self.program.mark_value, self.program.mark_mask))
                            out = replace(out, mark=(out.mark & ~mask & 0xFFFFFFFF) ^ value)
                            if shape.action is Action.INLINE_MARK:
                                out = self._matched(out, int(code[following - 1]))
                                out = replace(out, rules_scanned=out.rules_scanned + 1)
                            way = (following, stack, out)
                        case _:
                            for part, decided in self._decided(out, shape.action, argument, int(code[pc + 1])):
                                yield probability * chance * part, decided
                            continue
                    ways.append((probability * chance, *way))

    def _matched(self, out: ExactOutcome, rule: int) -> ExactOutcome:
        return replace(out, rules=(*out.rules, rule)) if self.record_rules else out

    @staticmethod
    def _ended(out: ExactOutcome, verdict: int, rule: int, before: ExactOutcome) -> ExactOutcome:
        """By policy: an earlier table's ACCEPT and rewrite stay what is told."""
        if verdict == ACCEPT_BY_POLICY and before.verdict == ACCEPT_BY_RULE:
            verdict = ACCEPT_BY_RULE
        is_translated = before.destination_port >= 0 or before.snat_kind > 0
        return replace(
            out, verdict=verdict, rule=before.rule if is_translated and verdict <= ACCEPT_BY_POLICY else rule
        )

    def _decided(
        self, out: ExactOutcome, action: Action, argument: int, rule: int
    ) -> Iterator[tuple[Fraction, ExactOutcome]]:
        program, packet = self.program, self.packet
        verdict = {Action.DROP: DROP_BY_RULE, Action.REJECT: REJECT}.get(action, ACCEPT_BY_RULE)
        is_translated = out.destination_port >= 0 or out.snat_kind > 0
        if not (is_translated and action is Action.ACCEPT):
            out = replace(out, rule=rule)
        out = replace(out, verdict=verdict)
        if action is Action.DNAT:
            for part, address, port in self._destinations(argument):
                yield part, replace(out, destination=address, destination_port=port)
            return
        if action is Action.SNAT:
            ends = [np.array([each], np.int32) for each in (packet.source, packet.destination)]
            port_column = np.array([packet.source_port], np.uint16)
            out = replace(
                out, snat_kind=int(program.snat_kind[argument]),
                snat_source=int(source_after(program, argument, ends[0], ends[1], port_column)[0]),
                snat_port_first=int(program.snat_port_first[argument]),
                snat_port_last=int(program.snat_port_last[argument]),
                snat_random_fully=bool(program.snat_random_fully[argument]),
            )  # fmt: skip
        yield ONE, out

    def _destinations(self, argument: int) -> Iterator[tuple[Fraction, int, int]]:
        """Yield (probability, address id, port) of each way that a DNAT may go."""
        program, packet = self.program, self.packet
        column = {name: np.array([getattr(packet, name)]) for name in ("source", "destination", "host")}
        addresses, ports = destination_after(
            program, argument, column["source"], column["destination"],
            np.array([packet.destination_port], np.uint16), np.zeros(1, np.uint64), column["host"], 0,
        )  # fmt: skip
        if not program.dnat_is_random[argument]:
            yield ONE, int(addresses[0]), int(ports[0])
            return
        first, last = int(program.dnat_port_first[argument]), int(program.dnat_port_last[argument])
        for port, numbers in enumerate(numbers_by_remainder(last - first + 1), start=first):
            yield Fraction(numbers, RANDOM_NUMBERS), int(addresses[0]), port

    def _select(
        self, pc: int, stack: tuple[int, ...], out: ExactOutcome
    ) -> Iterator[tuple[Fraction, int, tuple[int, ...], ExactOutcome]]:
        program, packet = self.program, self.packet
        first, tested, base = (int(program.code[pc + offset]) for offset in (1, 2, 3))
        left = ONE
        unit, index, _ = program.rule(first)
        for option in range(tested + 1):
            target = int(program.option_target[base + option])
            if target == -1:
                missed = replace(out, rules_scanned=out.rules_scanned + tested)
                yield left, pc + 4 + 5 * (tested - 1), stack, missed
                return
            matches = unit.chain.rules[index + option].matches
            threshold = next((m.threshold for m in matches if isinstance(m, StatisticRandom)), PROBABILITY_ONE)
            chance = left * Fraction(threshold, PROBABILITY_ONE)
            back = int(program.option_return[base + option])
            taken = self._matched(replace(out, rules_scanned=out.rules_scanned + option + 1), first + option)
            yield chance, program.target(packet.host, target), stack if back < 0 else (*stack, back), taken
            left -= chance

    def _find(self, number: int) -> int:
        program, packet = self.program, self.packet
        kinds, table = int(program.dispatch_kinds[number]), program.key_table
        for kind, address in ((1, packet.destination), (2, -1)):
            if not kinds & kind:
                continue
            key = dispatch_keys(number, address, np.array([packet.protocol]), np.array([packet.destination_port]))
            place = int(hash_keys(key, len(table))[0])
            while table[place] >= 0:
                if table[place] == key[0]:
                    return int(program.key_target[place])
                place = (place + 1) & (len(table) - 1)
        return -1

    def _chance(self, predicate: Predicate, operand: int, mark: int) -> Fraction:
        """How likely the predicate holds: 0 or 1 where nothing is left to chance."""
        program, packet = self.program, self.packet
        match predicate:
            case Predicate.RANDOM:
                return Fraction(operand % (1 << 32), PROBABILITY_ONE)
            case Predicate.NTH:
                return Fraction(1, program.nth[operand].every)
            case Predicate.RECENT:
                return Fraction(program.recent[operand].action == "set")
            case Predicate.MARK:
                holds = mark & int(program.mark_mask[operand]) == int(program.mark_value[operand])
            case Predicate.SOURCE_HOST:
                holds = packet.source == operand
            case Predicate.DESTINATION_HOST:
                holds = packet.destination == operand
            case Predicate.SOURCE_NETWORK:
                holds = bool(program.members()[operand, packet.source])
            case Predicate.DESTINATION_NETWORK:
                holds = bool(program.members()[operand, packet.destination])
            case Predicate.IN_INTERFACE | Predicate.OUT_INTERFACE:
                name = packet.in_interface if predicate is Predicate.IN_INTERFACE else packet.out_interface
                pattern = program.interface_patterns[operand]
                holds = bool(interface_matches([pattern], program.interfaces)[0, name])
            case Predicate.PROTOCOL:
                holds = packet.protocol == operand
            case Predicate.SOURCE_PORT:
                holds = packet.source_port == operand
            case Predicate.DESTINATION_PORT:
                holds = packet.destination_port == operand
            case Predicate.SOURCE_PORT_SET:
                holds = bool(program.port_sets[operand, packet.source_port])
            case Predicate.DESTINATION_PORT_SET:
                holds = bool(program.port_sets[operand, packet.destination_port])
            case Predicate.EITHER_PORT_SET:
                ports = [packet.source_port, packet.destination_port]
                holds = bool(program.port_sets[operand, ports].any())
            case Predicate.STATE:
                holds = bool(packet.state & operand)
            case Predicate.TCP_FLAGS:
                holds = bool(operand & (1 if packet.state & STATE_NEW else 2))
            case Predicate.SOURCE_TYPE | Predicate.DESTINATION_TYPE:
                is_source = predicate is Predicate.SOURCE_TYPE
                local = packet.source_is_local if is_source else packet.destination_is_local
                address = packet.source if is_source else packet.destination
                holds = bool((TYPE_LOCAL if local else int(program.address_types()[address])) & operand)
        return Fraction(holds)
