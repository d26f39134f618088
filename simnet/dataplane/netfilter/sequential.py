"""Run single packets, in order, from where they wait: for rules whose answer depends on the packets before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.netfilter.packets import ACCEPT_BY_RULE, DROP_BY_RULE, REJECT, STATE_NEW
from simnet.dataplane.netfilter.program import (
    TYPE_LOCAL,
    Action,
    Operation,
    Predicate,
    Program,
    dispatch_keys,
    hash_keys,
)
from simnet.dataplane.netfilter.translation import destination_after, source_after
from simnet.model.iptables.ruleset import PROBABILITY_ONE
from simnet.random_streams import bits_of_keys

if TYPE_CHECKING:
    from simnet.dataplane.netfilter.steps import Block


def finish(block: Block, rows: NDArray[np.int64], pcs: NDArray[np.int64]) -> None:
    """Take each row, in order, from its pc to its verdict."""
    machine = _Machine(block)
    for row, pc in zip(rows.tolist(), pcs.tolist(), strict=True):
        machine.run(row, pc)


class _Machine:
    def __init__(self, block: Block) -> None:
        self.block = block
        self.program: Program = block.program
        self.code = memoryview(block.program.code.data)
        self.masked: dict[tuple[int, int], int] = {}
        self.masked_lists = {test.list for test in self.program.recent if test.mask is not None}

    def run(self, row: int, pc: int) -> None:
        block, code, shapes = self.block, self.code, self.program.shapes
        out, packets = block.outcome, block.packets
        self.row = row
        self.host, self.memory = int(packets.host[row]), int(packets.memory[row])
        self.key_base = self.host * self.program.rule_count
        self.mark = int(out.mark[row])
        self.scanned = self.asked = 0  # rules; `statistic` matches among them
        stack = [int(block.stack[d * block.count + row]) for d in range(int(block.depth[row]))]
        while pc >= 0:
            shape = shapes[code[pc]]
            operation = shape.operation
            if operation is Operation.RULE:
                self.scanned += code[pc + 2]
                following = pc + shape.length
                if not all(
                    self._holds(predicate, negated, code[pc + 4 + number])
                    for number, (predicate, negated) in enumerate(shape.predicates)
                ):
                    pc = following
                    continue
                rule, argument, action = code[pc + 1], code[pc + 3], shape.action
                self._count(rule)
                if action is Action.JUMP:
                    stack.append(following)
                    pc = self.program.target(self.host, argument)
                elif action is Action.TAIL:
                    pc = self.program.target(self.host, argument)
                elif action is Action.RETURN:
                    pc = stack.pop()
                elif action is Action.COUNT:
                    pc = following
                elif action in (Action.MARK, Action.INLINE_MARK):
                    value, mask = int(self.program.mark_value[argument]), int(self.program.mark_mask[argument])
                    self.mark = (self.mark & ~mask & 0xFFFFFFFF) ^ value
                    if action is Action.INLINE_MARK:
                        self._count(code[following - 1])
                        self.scanned += 1
                    pc = following
                else:
                    self._terminate(action, argument, rule)
                    pc = -1
            elif operation is Operation.RETURN:
                pc = stack.pop()
            elif operation is Operation.SKIP:
                self.scanned += code[pc + 2]
                pc = code[pc + 3]
            elif operation is Operation.POLICY:
                self._count(code[pc + 1])
                out.verdict[row], out.rule[row] = code[pc + 3], code[pc + 1]
                pc = -1
            elif operation is Operation.DISPATCH:
                target = self._find(code[pc + 1])
                if target < 0:
                    self.scanned += code[pc + 2]
                    target = code[pc + 3]
                pc = target
            elif operation is Operation.RECALL:
                pc += 4  # its rules follow one by one
            else:
                pc = self._select(pc, stack)
        out.mark[row] = self.mark
        out.rules_scanned[row] += self.scanned
        out.endpoint_rules_scanned[row] += self.asked

    def _count(self, rule: int) -> None:
        packets = self.block.packets
        self.block.counters.count(
            self.key_base + rule, int(packets.packets[self.row]), int(packets.length_bytes[self.row])
        )

    def _draw(self) -> int:
        draws = self.block.outcome.draw
        drawn = bits_of_keys(self.block.flow_key(self.row), int(draws[self.row]))
        draws[self.row] += 1
        return int(drawn[0])

    def _select(self, pc: int, stack: list[int]) -> int:
        code, program = self.code, self.program
        rule, tested, base = code[pc + 1], code[pc + 2], code[pc + 3]
        drawn = np.uint64(self._draw())
        option = int(np.searchsorted(program.option_threshold[base : base + tested], drawn, side="right"))
        self.asked += min(option + 1, tested)
        target = int(program.option_target[base + option])
        if target == -1:
            self.scanned += tested
            return pc + 4 + 5 * (tested - 1)
        self.scanned += option + 1
        self._count(rule + option)
        back = int(program.option_return[base + option])
        if back >= 0:
            stack.append(back)
        return program.target(self.host, target)

    def _find(self, number: int) -> int:
        packets, program, row = self.block.packets, self.program, self.row
        protocol, port = int(packets.protocol[row]), int(packets.destination_port[row])
        kinds = int(program.dispatch_kinds[number])
        table = program.key_table
        for kind, address in ((1, int(packets.destination[row])), (2, -1)):
            if not kinds & kind:
                continue
            key = dispatch_keys(number, address, np.array([protocol]), np.array([port]))
            place = int(hash_keys(key, len(table))[0])
            while table[place] >= 0:
                if table[place] == key[0]:
                    return int(program.key_target[place])
                place = (place + 1) & (len(table) - 1)
        return -1

    def _terminate(self, action: Action, argument: int, rule: int) -> None:
        out, program, packets, row = self.block.outcome, self.program, self.block.packets, self.row
        verdicts = {Action.DROP: DROP_BY_RULE, Action.REJECT: REJECT}
        out.verdict[row], out.rule[row] = verdicts.get(action, ACCEPT_BY_RULE), rule
        if action is Action.DNAT:
            one = slice(row, row + 1)
            out.destination[one], out.destination_port[one] = destination_after(
                program, argument, packets.source[one], packets.destination[one], packets.destination_port[one],
                packets.connection[one], packets.host[one], self.block.seed,
            )  # fmt: skip
        elif action is Action.SNAT:
            out.snat_kind[row] = program.snat_kind[argument]
            one = slice(row, row + 1)
            ends = [column[one] for column in (packets.source, packets.destination)]
            out.snat_source[one] = source_after(program, argument, ends[0], ends[1], packets.source_port[one])
            out.snat_port_first[row] = program.snat_port_first[argument]
            out.snat_port_last[row] = program.snat_port_last[argument]
            out.snat_random_fully[row] = program.snat_random_fully[argument]

    def _holds(self, predicate: Predicate, negated: bool, operand: int) -> bool:
        block, row = self.block, self.row
        packets = block.packets
        answer: bool
        if predicate is Predicate.NTH:
            block.lookback.forbid(self.memory, operand, is_nth=True)
            self.asked += 1
            answer = block.state.ask_nth(self.memory, operand, self.program.nth[operand])
        elif predicate is Predicate.RECENT:
            test = self.program.recent[operand]
            block.lookback.forbid(self.memory, test.list, is_nth=False)
            address = int(packets.source[row] if test.by_source else packets.destination[row])
            if test.list in self.masked_lists:
                address = self._masked(address, -1 if test.mask is None else test.mask)
            return block.state.ask_recent(self.memory, test, address, int(packets.time_ps[row]), negated)
        elif predicate is Predicate.RANDOM:
            threshold = operand % (1 << 32)
            self.asked += threshold < PROBABILITY_ONE
            answer = self._draw() >> 33 < threshold
        elif predicate is Predicate.MARK:
            answer = self.mark & int(self.program.mark_mask[operand]) == int(self.program.mark_value[operand])
        elif predicate is Predicate.SOURCE_HOST:
            answer = int(packets.source[row]) == operand
        elif predicate is Predicate.DESTINATION_HOST:
            answer = int(packets.destination[row]) == operand
        elif predicate is Predicate.SOURCE_NETWORK:
            answer = bool(block.members[operand, packets.source[row]])
        elif predicate is Predicate.DESTINATION_NETWORK:
            answer = bool(block.members[operand, packets.destination[row]])
        elif predicate is Predicate.IN_INTERFACE:
            answer = bool(block.interfaces[operand, packets.in_interface[row]])
        elif predicate is Predicate.OUT_INTERFACE:
            answer = bool(block.interfaces[operand, packets.out_interface[row]])
        elif predicate is Predicate.PROTOCOL:
            answer = int(packets.protocol[row]) == operand
        elif predicate is Predicate.SOURCE_PORT:
            answer = int(packets.source_port[row]) == operand
        elif predicate is Predicate.DESTINATION_PORT:
            answer = int(packets.destination_port[row]) == operand
        elif predicate is Predicate.SOURCE_PORT_SET:
            answer = bool(self.program.port_sets[operand, packets.source_port[row]])
        elif predicate is Predicate.DESTINATION_PORT_SET:
            answer = bool(self.program.port_sets[operand, packets.destination_port[row]])
        elif predicate is Predicate.EITHER_PORT_SET:
            sets = self.program.port_sets[operand]
            answer = bool(sets[packets.source_port[row]] or sets[packets.destination_port[row]])
        elif predicate is Predicate.STATE:
            answer = bool(int(packets.state[row]) & operand)
        elif predicate is Predicate.TCP_FLAGS:
            answer = bool(operand & (1 if int(packets.state[row]) & STATE_NEW else 2))
        elif predicate is Predicate.SOURCE_TYPE:
            answer = self._is_type(operand, int(packets.source[row]), bool(packets.source_is_local[row]))
        else:
            answer = self._is_type(operand, int(packets.destination[row]), bool(packets.destination_is_local[row]))
        return answer != negated

    def _is_type(self, bits: int, address: int, is_local: bool) -> bool:
        kind = TYPE_LOCAL if is_local else int(self.program.address_types()[address])
        return bool(kind & bits)

    def _masked(self, address: int, mask: int) -> int:
        """A number for the masked address: its value below zero, so that it meets no address id."""
        found = self.masked.get((address, mask))
        if found is None:
            _, high, low = self.program.addresses.columns()
            value = ((int(high[address]) << 64) | int(low[address])) & mask
            found = self.masked[address, mask] = -1 - value
        return found
