"""One block of packets on its way through a program: groups, predicates and actions over arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.netfilter.counters import CounterJournal, Counters
from simnet.dataplane.netfilter.packets import ACCEPT_BY_RULE, DROP_BY_RULE, REJECT, STATE_NEW, Outcome, PacketColumns
from simnet.dataplane.netfilter.program import (
    ORDERED,
    TYPE_LOCAL,
    Action,
    Operation,
    Predicate,
    Program,
    Shape,
    dispatch_keys,
    hash_keys,
    slot_of,
)
from simnet.dataplane.netfilter.state import NetfilterState
from simnet.dataplane.netfilter.stateful import Group, Lookback
from simnet.dataplane.netfilter.translation import destination_after, source_after
from simnet.model.iptables.ruleset import PROBABILITY_ONE
from simnet.random_streams import bits_of_keys, flow_keys

PURPOSE = "netfilter/statistic"

Rows = NDArray[np.int64] | None  # row numbers in the block; None: all rows in order
Words = NDArray[np.int64] | int  # one value per row of a group, or one for all


class Block:
    """The machine's registers for one block; results go straight into the outcome's columns."""

    def __init__(
        self, program: Program, packets: PacketColumns, outcome: Outcome, seed: int, state: NetfilterState,
        counters: Counters | CounterJournal, slow: frozenset[Group] = frozenset(), is_all_slow: bool = False,
    ) -> None:  # fmt: skip
        """`slow`, `is_all_slow`: what must go packet by packet; `Conflict` says so where it turns out."""
        self.program, self.packets, self.outcome = program, packets, outcome
        self.seed, self.state, self.counters = seed, state, counters
        self.count = len(packets)
        self.all = np.arange(self.count)
        self.stack = np.empty(program.depth * self.count, np.int64)  # place d of row i is at d * count + i
        self.depth = np.ones(self.count, np.int64)
        self.members = program.members()
        self.interfaces = program.interface_matches()
        self.packet_weight = _one_value(packets.packets)
        self.byte_weight = _one_value(packets.length_bytes)
        self.key_base: NDArray[np.int64] | int = _one_value(packets.host)
        if isinstance(self.key_base, int):
            self.key_base *= program.rule_count
        else:
            self.key_base = self.key_base.astype(np.int64) * program.rule_count
        self.waiting: dict[int, list[tuple[Rows, Words, int]]] = {}  # by shape
        self.parked: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}  # at stateful rules, by shape
        self.slow_rows: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []  # to go one by one at the end
        self.lookback = Lookback(self, slow, is_all_slow)
        self._flow_keys: NDArray[np.uint64] | None = None

    def run(self, entry: NDArray[np.int64]) -> None:
        """Take all packets from their hosts' entry (`Program.entry`) to a verdict."""
        if self.count == 0:
            return
        host = _one_value(self.packets.host)
        if isinstance(host, int):
            pc, policy = int(entry[host, 0]), int(entry[host, 1])
            if pc < 0:
                return
            self.stack[: self.count] = policy
            self._advance(None, pc)
        else:
            pcs, policies = entry[host, 0], entry[host, 1]
            self.stack[: self.count] = policies
            rows = np.flatnonzero(pcs >= 0)
            self._advance(None if len(rows) == self.count else rows, pcs[rows])
        self._drain()
        while self.parked and self.lookback.resume():
            self._drain()
        self.lookback.finish()

    def _drain(self) -> None:
        """Take the groups that wait on, until all packets have a verdict or are parked."""
        while self.waiting:
            number = min(self.waiting, key=lambda shape: min(group[2] for group in self.waiting[shape]))
            rows_, pcs_ = _merged(self.waiting.pop(number))
            shape = self.program.shapes[number]
            match shape.operation:
                case Operation.RULE:
                    self.rule(shape, rows_, pcs_)
                case Operation.DISPATCH:
                    self._dispatch(rows_, pcs_)
                case Operation.SELECT:
                    self._select(rows_, pcs_)
                case Operation.SKIP:
                    self._scan(rows_, self._word(pcs_, 2))
                    self._advance(rows_, self._word(pcs_, 3))
                case Operation.RETURN:
                    self._return(rows_)
                case Operation.POLICY:
                    rule = self._word(pcs_, 1)
                    self._log(rule, rows_)
                    self._decide(rows_, self._word(pcs_, 3), rule)

    # --- groups

    def _advance(self, rows: Rows, pcs: Words) -> None:
        """Let rows wait at their next instructions, by shape."""
        if not isinstance(pcs, np.ndarray):
            self._wait(int(self.program.code[pcs]), rows, pcs)
            return
        if len(pcs) == 0:
            return
        shapes = self.program.code.take(pcs)
        first = int(shapes[0])
        if (shapes == first).all():
            self._wait(first, rows, pcs)
            return
        present = np.flatnonzero(np.bincount(shapes))
        for shape in present:
            chosen = np.flatnonzero(shapes == shape)
            self._wait(int(shape), chosen if rows is None else rows[chosen], pcs[chosen])

    def _jump(self, rows: Rows, target: Words) -> None:
        """Go on at the targets of jumps: a pc each, or a chain that each host has a form of."""
        slot_pc = self.program.slot_pc
        if not len(slot_pc):
            self._advance(rows, target)
            return
        if not isinstance(target, np.ndarray):
            if target >= 0:
                self._advance(rows, target)
                return
            host = _column(self.packets.host, rows)
            self._advance(rows, slot_pc[slot_of(target)].take(host).astype(np.int64))
            return
        late = np.flatnonzero(target < 0)
        if len(late):
            host = self.packets.host.take(late if rows is None else rows.take(late))
            target = target.copy()
            target[late] = slot_pc.reshape(-1).take((-2 - target.take(late)) * slot_pc.shape[1] + host)
        self._advance(rows, target)

    def _wait(self, shape: int, rows: Rows, pcs: Words) -> None:
        if self.program.stateful_shapes[shape]:
            numbers = self._numbers(rows)
            self.park(shape, numbers, np.broadcast_to(np.asarray(pcs, np.int64), numbers.shape))
            return
        lowest = int(pcs.min()) if isinstance(pcs, np.ndarray) else pcs
        self.waiting.setdefault(shape, []).append((rows, pcs, lowest))

    def park(self, shape: int, rows: NDArray[np.int64], pcs: NDArray[np.int64]) -> None:
        """Let rows wait at stateful instructions of a shape."""
        self.parked.setdefault(shape, []).append((rows, pcs))

    def unpark(self, shape: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all rows parked at a shape, and their pcs; they are parked no more."""
        parts = self.parked.pop(shape)
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def slow(self, rows: NDArray[np.int64], pcs: NDArray[np.int64]) -> None:
        """Leave rows for the pass that takes them one by one."""
        self.slow_rows.append((rows, pcs))

    def recall(
        self, rows: NDArray[np.int64], pcs: NDArray[np.int64], option: NDArray[np.int64], count: NDArray[np.int64],
        base: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Go on from RECALL: to what rule `option` of each run jumps to, past the run where it is `count`."""
        self._scan(rows, np.minimum(option + 1, count))
        missed = np.flatnonzero(option == count)
        self._advance(rows.take(missed), pcs.take(missed) + 4 + 5 * count.take(missed))
        found = np.flatnonzero(option < count)
        if len(found):
            hit, option = rows.take(found), option.take(found)
            self._log(self.program.code.take(pcs.take(found) + 1).astype(np.int64) + option, hit)
            self._push(hit, pcs.take(found) + 4 + 5 * (option + 1))
            self._jump(hit, self.program.recall_target.take(base.take(found) + option))

    def _numbers(self, rows: Rows) -> NDArray[np.int64]:
        return self.all if rows is None else rows

    def _word(self, pcs: Words, offset: int) -> Words:
        """The instruction's word at an offset: one value, or one per row."""
        if isinstance(pcs, np.ndarray):
            return self.program.code.take(pcs + offset).astype(np.int64)
        return int(self.program.code[pcs + offset])

    def _scan(self, rows: Rows, cost: Words) -> None:
        if rows is None:
            self.outcome.rules_scanned[:] += np.asarray(cost, dtype=np.int32)
        else:
            self.outcome.rules_scanned[rows] += np.asarray(cost, dtype=np.int32)

    def _ask(self, rows: Rows, count: Words = 1) -> None:
        """Count `statistic` matches that rows were asked."""
        at: Any = slice(None) if rows is None else rows
        self.outcome.endpoint_rules_scanned[at] += np.asarray(count, dtype=np.int32)

    def _log(self, rule: Words, rows: Rows) -> None:
        """Count a match of each row's rule."""
        base, packets, length_bytes = self.key_base, self.packet_weight, self.byte_weight
        size = self.count if rows is None else len(rows)
        if rows is not None:
            base = base.take(rows) if isinstance(base, np.ndarray) else base
            packets = packets.take(rows) if isinstance(packets, np.ndarray) else packets
            length_bytes = length_bytes.take(rows) if isinstance(length_bytes, np.ndarray) else length_bytes
        keys = base + rule
        if isinstance(keys, np.ndarray):
            self.counters.log(keys, packets, length_bytes)
        else:
            self.counters.count(
                keys,
                int(packets.sum()) if isinstance(packets, np.ndarray) else packets * size,
                int(length_bytes.sum()) if isinstance(length_bytes, np.ndarray) else length_bytes * size,
            )

    def _decide(self, rows: Rows, verdict: Words, rule: Words) -> None:
        at: Any = slice(None) if rows is None else rows
        self.outcome.verdict[at] = verdict
        self.outcome.rule[at] = rule

    def _push(self, rows: Rows, pcs: Words) -> None:
        numbers = self._numbers(rows)
        depth = self.depth if rows is None else self.depth.take(rows)
        self.stack[depth * self.count + numbers] = pcs
        if rows is None:
            self.depth += 1
        else:
            self.depth[rows] = depth + 1

    def _return(self, rows: Rows) -> None:
        numbers = self._numbers(rows)
        depth = self.depth.take(numbers) - 1
        self.depth[numbers] = depth
        self._advance(rows, self.stack.take(depth * self.count + numbers))

    # --- instructions

    def rule(self, shape: Shape, rows: Rows, pcs: Words) -> None:
        """Test a rule's predicates and act where all hold."""
        self._scan(rows, self._word(pcs, 2))
        holds: NDArray[np.bool_] | None = None
        for number, (predicate, negated) in enumerate(shape.predicates):
            operand = self._word(pcs, 4 + number)
            if predicate in ORDERED and holds is not None:  # asked only where all before held
                asked = np.flatnonzero(holds)
                some = operand.take(asked) if isinstance(operand, np.ndarray) else operand
                answer = self._test(predicate, some, self._numbers(rows).take(asked))
                holds[asked] = answer ^ negated
                continue
            answer = self._test(predicate, operand, rows)
            if negated:
                answer = ~answer
            holds = answer if holds is None else holds & answer
        if holds is None or holds.all():
            self._act(shape, rows, pcs)
            return
        length = shape.length
        missed = np.flatnonzero(~holds)
        if len(missed) == len(holds):
            self._advance(rows, pcs + length)
            return
        hit = np.flatnonzero(holds)
        numbers = self._numbers(rows)
        is_many = isinstance(pcs, np.ndarray)
        self._act(shape, numbers.take(hit), pcs.take(hit) if is_many else pcs)  # type: ignore[union-attr]
        self._advance(numbers.take(missed), (pcs.take(missed) if is_many else pcs) + length)  # type: ignore[union-attr]

    def _act(self, shape: Shape, rows: Rows, pcs: Words) -> None:
        """What a rule does to the rows for which all its predicates hold."""
        program, outcome = self.program, self.outcome
        rule, argument = self._word(pcs, 1), self._word(pcs, 3)
        self._log(rule, rows)
        at: Any = slice(None) if rows is None else rows
        match shape.action:
            case Action.COUNT:
                self._advance(rows, pcs + shape.length)
            case Action.JUMP:
                self._push(rows, pcs + shape.length)
                self._jump(rows, argument)
            case Action.TAIL:
                self._jump(rows, argument)
            case Action.RETURN:
                self._return(rows)
            case Action.MARK | Action.INLINE_MARK:
                value, mask = program.mark_value[argument], program.mark_mask[argument]
                outcome.mark[at] = (outcome.mark[at] & ~mask) ^ value
                if shape.action is Action.INLINE_MARK:
                    self._log(self._word(pcs, shape.length - 1), rows)
                    self._scan(rows, 1)
                self._advance(rows, pcs + shape.length)
            case Action.ACCEPT:
                self._decide(rows, ACCEPT_BY_RULE, rule)
            case Action.DROP:
                self._decide(rows, DROP_BY_RULE, rule)
            case Action.REJECT:
                self._decide(rows, REJECT, rule)
            case Action.DNAT:
                self._decide(rows, ACCEPT_BY_RULE, rule)
                if not program.dnat_is_plain:
                    outcome.destination[at], outcome.destination_port[at] = self._destination_after(at, argument)
                    return
                address, port = program.dnat_address[argument], program.dnat_port_first[argument]
                if (address == -1).any():
                    address = np.where(address == -1, self.packets.destination[at], address)
                if (port == -1).any():
                    port = np.where(port == -1, self.packets.destination_port[at], port)
                outcome.destination[at] = address
                outcome.destination_port[at] = port
            case Action.SNAT:
                self._decide(rows, ACCEPT_BY_RULE, rule)
                outcome.snat_kind[at] = program.snat_kind[argument]
                outcome.snat_source[at] = program.snat_address[argument]
                if program.nat_ranges:
                    ends = [column[at] for column in (self.packets.source, self.packets.destination)]
                    port = self.packets.source_port[at]
                    outcome.snat_source[at] = source_after(program, argument, ends[0], ends[1], port)
                outcome.snat_port_first[at] = program.snat_port_first[argument]
                outcome.snat_port_last[at] = program.snat_port_last[argument]
                outcome.snat_random_fully[at] = program.snat_random_fully[argument]

    def _destination_after(self, at: Any, argument: Words) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        packets = self.packets
        return destination_after(
            self.program, argument, packets.source[at], packets.destination[at], packets.destination_port[at],
            packets.connection[at], packets.host[at], self.seed,
        )  # fmt: skip

    def _dispatch(self, rows: Rows, pcs: Words) -> None:
        program, packets = self.program, self.packets
        numbers = self._word(pcs, 1)
        protocol = _column(packets.protocol, rows).astype(np.int64)
        port = _column(packets.destination_port, rows).astype(np.int64)
        address = _column(packets.destination, rows).astype(np.int64)
        kinds = program.dispatch_kinds[numbers]
        target = np.full(len(protocol), -1, np.int64)
        if np.any(kinds & 1):
            target = self._find(dispatch_keys(numbers, address, protocol, port))
        if np.any(kinds & 2):
            left = np.flatnonzero(target < 0)
            some = numbers.take(left) if isinstance(numbers, np.ndarray) else numbers
            target[left] = self._find(dispatch_keys(some, -1, protocol.take(left), port.take(left)))
        missed = target < 0
        if missed.any():
            lost = np.flatnonzero(missed)
            their_rows = self._numbers(rows).take(lost)
            their_pcs = pcs.take(lost) if isinstance(pcs, np.ndarray) else pcs
            self._scan(their_rows, self._word(their_pcs, 2))
            self._advance(their_rows, self._word(their_pcs, 3))
            found = np.flatnonzero(~missed)
            self._advance(self._numbers(rows).take(found), target.take(found))
        else:
            self._advance(rows, target)

    def _find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Look keys up; the pc of each, -1 where there is none."""
        table, targets = self.program.key_table, self.program.key_target
        place = hash_keys(keys, len(table))
        held = table.take(place)
        found = np.where(held == keys, targets.take(place), -1)
        left = np.flatnonzero((held != keys) & (held >= 0))
        while len(left):
            place[left] = (place[left] + 1) & (len(table) - 1)
            held = table.take(place[left])
            is_it = held == keys[left]
            found[left[is_it]] = targets.take(place[left[is_it]])
            left = left[~is_it & (held >= 0)]
        return found

    def _select(self, rows: Rows, pcs: Words) -> None:
        program = self.program
        rule, tested, base = self._word(pcs, 1), self._word(pcs, 2), self._word(pcs, 3)
        drawn = self._draw(rows)
        option = choose(program.option_threshold, drawn, base, tested)
        at = base + option
        target = program.option_target.take(at)
        is_none = target == -1
        self._scan(rows, np.where(is_none, tested, option + 1))
        self._ask(rows, np.minimum(option + 1, tested))
        if is_none.any():
            left = np.flatnonzero(is_none)
            their_tested = tested.take(left) if isinstance(tested, np.ndarray) else tested
            their_pcs = (pcs.take(left) if isinstance(pcs, np.ndarray) else pcs) + 4
            # the single forms follow: one of five words for each line but the first
            self._advance(
                self._numbers(rows).take(left), np.broadcast_to(their_pcs + 5 * (their_tested - 1), left.shape)
            )
            kept = np.flatnonzero(~is_none)
            if len(kept) == 0:
                return
            rows = self._numbers(rows).take(kept)
            at, target, option = at.take(kept), target.take(kept), option.take(kept)
            rule = rule.take(kept) if isinstance(rule, np.ndarray) else rule
        self._log(rule + option, rows)
        back = program.option_return.take(at)
        is_pushed = back >= 0
        if is_pushed.all():
            self._push(rows, back)
        else:
            pushed = np.flatnonzero(is_pushed)
            if len(pushed):
                self._push(self._numbers(rows).take(pushed), back.take(pushed))
        self._jump(rows, target)

    # --- predicates

    def _draw(self, rows: Rows) -> NDArray[np.uint64]:
        """Draw 64 random bits for each row, each its connection's next number."""
        if self._flow_keys is None:
            self._flow_keys = flow_keys(self.seed, PURPOSE, self.packets.connection)
        draw = self.outcome.draw
        if rows is None:
            numbers = _one_value(draw)
            drawn = bits_of_keys(self._flow_keys, _as_draw(numbers))
            draw += 1
        else:
            theirs = draw.take(rows)
            drawn = bits_of_keys(self._flow_keys.take(rows), _as_draw(_one_value(theirs)))
            draw[rows] = theirs + 1
        return drawn

    def flow_key(self, row: int) -> NDArray[np.uint64]:
        """The key of one row's random numbers, uint64[1]."""
        if self._flow_keys is None:
            self._flow_keys = flow_keys(self.seed, PURPOSE, self.packets.connection)
        return self._flow_keys[row : row + 1]

    def _test(self, predicate: Predicate, operand: Words, rows: Rows) -> Any:
        """Return bool[group]: does the predicate hold, negation aside."""
        packets, program = self.packets, self.program
        match predicate:
            case Predicate.SOURCE_HOST:
                return _column(packets.source, rows) == operand
            case Predicate.DESTINATION_HOST:
                return _column(packets.destination, rows) == operand
            case Predicate.SOURCE_NETWORK:
                return self._is_member(operand, _column(packets.source, rows))
            case Predicate.DESTINATION_NETWORK:
                return self._is_member(operand, _column(packets.destination, rows))
            case Predicate.IN_INTERFACE:
                return self.interfaces[operand, _column(packets.in_interface, rows)]
            case Predicate.OUT_INTERFACE:
                return self.interfaces[operand, _column(packets.out_interface, rows)]
            case Predicate.PROTOCOL:
                return _column(packets.protocol, rows) == operand
            case Predicate.SOURCE_PORT:
                return _column(packets.source_port, rows) == operand
            case Predicate.DESTINATION_PORT:
                return _column(packets.destination_port, rows) == operand
            case Predicate.SOURCE_PORT_SET:
                return program.port_sets[operand, _column(packets.source_port, rows)]
            case Predicate.DESTINATION_PORT_SET:
                return program.port_sets[operand, _column(packets.destination_port, rows)]
            case Predicate.EITHER_PORT_SET:
                return (
                    program.port_sets[operand, _column(packets.source_port, rows)]
                    | program.port_sets[operand, _column(packets.destination_port, rows)]
                )
            case Predicate.MARK:
                mark = _column(self.outcome.mark, rows)
                return (mark & program.mark_mask[operand]) == program.mark_value[operand]
            case Predicate.STATE:
                return (_column(packets.state, rows) & operand) != 0
            case Predicate.SOURCE_TYPE:
                return self._is_type(operand, packets.source, packets.source_is_local, rows)
            case Predicate.DESTINATION_TYPE:
                return self._is_type(operand, packets.destination, packets.destination_is_local, rows)
            case Predicate.RANDOM:
                threshold = np.asarray(operand).astype(np.uint32)  # kept as int32 words
                self._ask(rows, (threshold < PROBABILITY_ONE).astype(np.int64))
                return (self._draw(rows) >> np.uint64(33)) < threshold
            case Predicate.TCP_FLAGS:
                is_later = (_column(packets.state, rows) & STATE_NEW) == 0
                return (operand >> is_later.astype(np.int64)) & 1 != 0
            case Predicate.NTH:
                self._ask(rows)
                numbers = self._numbers(rows)
                return self.lookback.nth(np.broadcast_to(operand, numbers.shape), numbers)
            case Predicate.RECENT:
                numbers = self._numbers(rows)
                return self.lookback.set(np.broadcast_to(operand, numbers.shape), numbers)
            case _:
                raise AssertionError(predicate)

    def _is_member(self, network: Words, address: NDArray[np.int32]) -> Any:
        if not isinstance(network, np.ndarray):
            return self.members[network].take(address)
        first = int(network[0])
        if (network == first).all():
            return self.members[first].take(address)
        return self.members.reshape(-1).take(network * self.members.shape[1] + address)

    def _is_type(self, bits: Words, address: NDArray[np.int32], is_local: NDArray[np.bool_], rows: Rows) -> Any:
        local = _column(is_local, rows)
        if not isinstance(bits, np.ndarray) and bits == TYPE_LOCAL:
            return local.copy()
        types = np.where(local, TYPE_LOCAL, self.program.address_types().take(_column(address, rows)))
        return (types & bits) != 0


def choose(threshold: NDArray[np.uint64], drawn: NDArray[np.uint64], base: Words, tested: Words) -> NDArray[np.int64]:
    """Return how many of the thresholds base .. base + tested - 1 are not above the drawn number: int64[n].

    The guess is right for equal shares but at their edges; what it missed is found by bisection.
    """
    options = np.asarray(tested, dtype=np.int64) + 1
    option = (((drawn >> np.uint64(32)) * options.astype(np.uint64)) >> np.uint64(32)).view(np.int64)
    at = base + option
    wrong = drawn >= threshold.take(at)
    wrong &= option < tested
    wrong |= (drawn < threshold.take(at - 1, mode="wrap")) & (option > 0)
    if wrong.any():
        left = np.flatnonzero(wrong)
        start = np.broadcast_to(base, drawn.shape)[left]
        low = np.zeros(len(left), np.int64)
        high = np.broadcast_to(tested, drawn.shape)[left].copy()
        value = drawn[left]
        while True:
            is_open = low < high
            if not is_open.any():
                break
            middle = (low + high) >> 1
            is_above = (value >= threshold.take(start + middle)) & is_open
            low = np.where(is_above, middle + 1, low)
            high = np.where(is_open & ~is_above, middle, high)
        option[left] = low
    return option


def _column(column: NDArray[Any], rows: Rows) -> NDArray[Any]:
    return column if rows is None else column.take(rows)


def _one_value(column: NDArray[Any]) -> Any:
    """The value if all rows share it (an int), else the column."""
    if len(column) and (column == column[0]).all():
        return int(column[0])
    return column


def _as_draw(numbers: NDArray[np.int32] | int) -> NDArray[np.uint64] | int:
    return numbers.astype(np.uint64) if isinstance(numbers, np.ndarray) else numbers


def _merged(groups: list[tuple[Rows, Words, int]]) -> tuple[Rows, Words]:
    """Join the groups that wait at one shape."""
    if len(groups) == 1:
        return groups[0][0], groups[0][1]
    rows = np.concatenate([group[0] for group in groups if group[0] is not None])
    values = {group[1] for group in groups if not isinstance(group[1], np.ndarray)}
    if len(values) == 1 and not any(isinstance(group[1], np.ndarray) for group in groups):
        return rows, values.pop()
    pcs = np.concatenate([np.broadcast_to(pc, len(part)) for part, pc, _ in groups if part is not None])
    return rows, pcs
