"""A compiled program: words of code, the tables that they point into, and which rule each counter belongs to.

An instruction is a few int32 words beginning with the number of its *shape*; a shape says what the words mean, and all
packets that wait at instructions of one shape are worked on together. docs/models/netfilter.md lists the instructions.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.netfilter.nat_ranges import AddressRange
from simnet.model.addresses import AddressTable
from simnet.model.iptables.ruleset import Chain, IPNetwork, Rule


class Operation(IntEnum):
    """What an instruction does. `RULE` tests predicates and acts; the others are named by docs/models/netfilter.md."""

    RULE = 0  # shape, rule, cost, argument, one operand per predicate[, inlined rule]
    SKIP = 1  # shape, -, cost, next pc
    RETURN = 2  # shape: the end of a user chain
    POLICY = 3  # shape, rule, cost 0, verdict: the end of a built-in chain
    DISPATCH = 4  # shape, dispatch number, rules in the run, pc after the run
    SELECT = 5  # shape, first rule, thresholds, index of the first option
    RECALL = 6  # shape, first rule, rules in the run, index of the first in `recall_list`


class Predicate(IntEnum):
    """One test of a rule; its operand is one word."""

    SOURCE_HOST = 0  # address id
    SOURCE_NETWORK = 1  # network number
    DESTINATION_HOST = 2
    DESTINATION_NETWORK = 3
    IN_INTERFACE = 4  # interface pattern number
    OUT_INTERFACE = 5
    PROTOCOL = 6  # IANA number
    SOURCE_PORT = 7  # port
    DESTINATION_PORT = 8
    SOURCE_PORT_SET = 9  # port set number
    DESTINATION_PORT_SET = 10
    EITHER_PORT_SET = 11
    MARK = 12  # number of a (value, mask) pair
    STATE = 13  # STATE_* bits
    SOURCE_TYPE = 14  # TYPE_* bits
    DESTINATION_TYPE = 15
    RANDOM = 16  # 31-bit threshold, as uint32
    NTH = 17  # number of an NthCounter
    RECENT = 18  # number of a RecentTest
    TCP_FLAGS = 19  # bit 0: true of a SYN, the first packet; bit 1: true of an ACK, any later one


STATEFUL = frozenset({Predicate.NTH, Predicate.RECENT})  # true or not depends on the packets before
ORDERED = STATEFUL | {Predicate.RANDOM}  # asked only where all tests before held


class Action(IntEnum):
    """What a rule does when all its predicates hold; `argument` is the instruction's fourth word."""

    COUNT = 0
    JUMP = 1  # argument: pc, or below -1 a slot's; the pc of the next instruction is pushed
    TAIL = 2  # argument: as for JUMP; nothing is pushed (goto, or nothing but the chain's end would follow)
    RETURN = 3
    MARK = 4  # argument: number of a (value, mask) pair
    INLINE_MARK = 5  # the same, for a jump to a chain that does only that; counts the inlined rule too
    ACCEPT = 6
    DROP = 7
    REJECT = 8
    DNAT = 9  # argument: number in `dnat`
    SNAT = 10  # argument: number in `snat`; MASQUERADE too


TYPE_UNICAST, TYPE_LOCAL, TYPE_MULTICAST, TYPE_BROADCAST = 1, 2, 4, 8


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of an instruction: its operation, and for RULE the predicates (with negation) and the action."""

    operation: Operation
    predicates: tuple[tuple[Predicate, bool], ...] = ()
    action: Action = Action.COUNT

    @property
    def length(self) -> int:
        """Words of an instruction of this shape."""
        return 4 + len(self.predicates) + (self.action is Action.INLINE_MARK)

    @property
    def is_stateful(self) -> bool:
        """Whether a packet's result depends on packets before it."""
        return self.operation is Operation.RECALL or any(predicate in STATEFUL for predicate, _ in self.predicates)


@dataclass(frozen=True, slots=True)
class RecentTest:
    """One `recent` match: what it does to which list."""

    list: int  # number of the list's name
    action: str
    window_ps: int  # 0: no --seconds
    hitcount: int  # 0: none
    reap: bool
    by_source: bool
    mask: int | None  # of the address, None: the full mask


@dataclass(frozen=True, slots=True, eq=False)
class ListsTogether:
    """Which `recent` lists are asked together, and so decide together where a source goes."""

    count: int
    of_list: NDArray[np.int32]  # per list: number of its set
    members: tuple[tuple[int, ...], ...]  # per set
    is_plain: NDArray[np.bool_]  # per set: only runs of `--rcheck` of the source with one window, and `--set`
    window_ps: NDArray[np.int64]  # per set, 0: without end


@dataclass(frozen=True, slots=True)
class NthCounter:
    """One `statistic --mode nth` rule: true for each packet whose number modulo `every` is `packet`."""

    every: int
    packet: int


@dataclass(frozen=True, slots=True)
class Unit:
    """One chain as compiled, maybe shared by hosts: `first_rule + i` is the id of its rule i, then its policy."""

    table: str
    chain: Chain
    first_rule: int
    pc: int
    policy_pc: int  # -1 for a user chain


@dataclass(frozen=True, slots=True)
class SkippedRule:
    """A rule that was left out because it holds something unknown and the user asked for `skip_unknown`."""

    source: str
    line: int
    table: str
    chain: str
    index: int
    reason: str


@dataclass(slots=True)
class Program:
    """Many hosts' rule sets as one program. Made by `compile_program`; treat as read-only."""

    addresses: AddressTable
    interfaces: tuple[str, ...]
    shapes: tuple[Shape, ...]
    code: NDArray[np.int32]
    units: tuple[Unit, ...]
    chains: tuple[Mapping[tuple[str, str], int], ...]  # per host: (table, chain) -> unit
    rule_count: int  # rules and policies: the length of a counter column
    depth: int  # the deepest stack that a packet can need
    slot_pc: NDArray[np.int32]  # [slot, host] where a chain that differs between hosts begins; -1: not there
    # constants that operands and arguments point to
    networks: tuple[IPNetwork, ...]
    interface_patterns: tuple[str, ...]
    port_sets: NDArray[np.bool_]  # [set, 65536]
    mark_value: NDArray[np.uint32]
    mark_mask: NDArray[np.uint32]
    nat_ranges: tuple[AddressRange, ...]  # see `translation`
    dnat_address: NDArray[np.int32]  # address id, -1: unchanged, -2: the host's own, below: a range
    dnat_port_first: NDArray[np.int32]  # -1: unchanged
    dnat_port_last: NDArray[np.int32]
    dnat_is_random: NDArray[np.bool_]  # the port is drawn from the range
    dnat_is_plain: bool  # no DNAT of the program leaves a choice, as none of kube-proxy's does
    snat_kind: NDArray[np.uint8]
    snat_address: NDArray[np.int32]  # address id, -1: MASQUERADE's own choice, below -2: a range
    snat_port_first: NDArray[np.int32]
    snat_port_last: NDArray[np.int32]
    snat_random_fully: NDArray[np.bool_]
    nth: tuple[NthCounter, ...]
    recent: tuple[RecentTest, ...]
    recent_lists: tuple[str, ...]
    recent_list: NDArray[np.int32]  # per test: its list
    recent_is_set: NDArray[np.bool_]  # per test: whether it is a plain `--set`
    recent_lists_together: ListsTogether
    # RECALL runs
    recall_list: NDArray[np.int32]  # per rule of a run: the list that it asks
    recall_target: NDArray[np.int64]  # pc, or below -1 a slot's
    recall_keys: NDArray[np.int64]  # index of a run's first rule * lists + list, sorted
    recall_places: NDArray[np.int64]  # the place of that list in its run
    # SELECT options, DISPATCH keys
    option_threshold: NDArray[np.uint64]  # cumulative probability in units of 2**-64
    option_target: NDArray[np.int64]  # pc, or below -1 a slot's; -1: no rule was chosen
    option_return: NDArray[np.int64]  # pc pushed; -1: nothing
    dispatch_kinds: NDArray[np.uint8]  # per dispatch: bit 0 keys with destination, bit 1 keys without
    key_table: NDArray[np.int64]  # open addressing, -1: free
    key_target: NDArray[np.int64]  # pc
    skipped: tuple[SkippedRule, ...] = ()
    is_stateful: bool = field(init=False)  # some rule's answer depends on packets before
    stateful_shapes: tuple[bool, ...] = field(init=False)  # per shape, the same
    _entries: dict[tuple[str, str], NDArray[np.int64]] = field(default_factory=dict)
    _has_chain: dict[tuple[str, str], bool] = field(default_factory=dict)
    _interface_matches: NDArray[np.bool_] | None = None
    _members: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    _types: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __post_init__(self) -> None:
        """Note what every block of packets asks."""
        self.stateful_shapes = tuple(shape.is_stateful for shape in self.shapes)
        self.is_stateful = any(self.stateful_shapes)

    def target(self, host: int, target: int) -> int:
        """Return the pc that a jump's target means on a host."""
        return target if target >= 0 else int(self.slot_pc[slot_of(target), host])

    @property
    def hosts(self) -> int:
        """How many rule sets the program holds."""
        return len(self.chains)

    def unit(self, host: int, table: str, chain: str) -> Unit | None:
        """The compiled chain of that name on a host, None if there is none."""
        number = self.chains[host].get((table, chain))
        return None if number is None else self.units[number]

    def has_chain(self, table: str, chain: str) -> bool:
        """Whether any host has that chain."""
        found = self._has_chain.get((table, chain))
        if found is None:
            found = self._has_chain[table, chain] = any((table, chain) in names for names in self.chains)
        return found

    def entry(self, table: str, chain: str) -> NDArray[np.int64]:
        """Return int64[host, 2]: pc of the chain's first instruction and of its policy; -1 where a host has none."""
        found = self._entries.get((table, chain))
        if found is None:
            units = [self.unit(host, table, chain) for host in range(self.hosts)]
            found = np.array([(u.pc, u.policy_pc) if u else (-1, -1) for u in units], np.int64).reshape(-1, 2)
            self._entries[table, chain] = found
        return found

    def unit_of_rule(self, rule_id: int) -> Unit:
        """The chain that a rule id belongs to."""
        return self.units[bisect.bisect_right(self.units, rule_id, key=lambda unit: unit.first_rule) - 1]

    def rule(self, rule_id: int) -> tuple[Unit, int, Rule | None]:
        """What a rule id stands for: its chain, its index there, and the rule (None: the chain's policy)."""
        unit = self.unit_of_rule(rule_id)
        index = rule_id - unit.first_rule
        return unit, index, unit.chain.rules[index] if index < len(unit.chain.rules) else None

    def interface_matches(self) -> NDArray[np.bool_]:
        """Return bool[pattern, interface + 1]; see the function of that name."""
        if self._interface_matches is None:
            self._interface_matches = interface_matches(self.interface_patterns, self.interfaces)
        return self._interface_matches

    def members(self) -> NDArray[np.bool_]:
        """Return bool[network, address id]; kept until the address table grows."""
        if self._members.shape != (len(self.networks), len(self.addresses)):
            self._members = np.zeros((len(self.networks), len(self.addresses)), np.bool_)
            for row, network in enumerate(self.networks):
                self._members[row] = self.addresses.members(network)
        return self._members

    def address_types(self) -> NDArray[np.uint8]:
        """Return each address id's type where it is not local: UNICAST, MULTICAST or BROADCAST."""
        if len(self._types) != len(self.addresses):
            version, high, low = self.addresses.columns()
            multicast = np.where(version == 4, (low >> np.uint64(28)) == 14, (high >> np.uint64(56)) == 0xFF)
            types = np.where(multicast, TYPE_MULTICAST, TYPE_UNICAST).astype(np.uint8)
            types[(version == 4) & (low == 0xFFFFFFFF)] = TYPE_BROADCAST
            self._types = types
        return self._types


def interface_matches(patterns: Sequence[str], interfaces: Sequence[str]) -> NDArray[np.bool_]:
    """Return bool[pattern, interface + 1]: does the name match; the last column is "no interface"."""
    matched = np.zeros((len(patterns), len(interfaces) + 1), np.bool_)
    for row, pattern in enumerate(patterns):
        for column, name in enumerate([*interfaces, ""]):
            is_prefix = pattern.endswith("+")
            matched[row, column] = name.startswith(pattern[:-1]) if is_prefix else name == pattern
    return matched


def slot_target(slot: int) -> int:
    """Return how a jump names a slot: a number below -1, in place of a pc."""
    return -2 - slot


def slot_of(target: int) -> int:
    """Return the slot that a jump's target below -1 names."""
    return -2 - target


DISPATCH_LIMIT = 1 << 15  # dispatch numbers, and below it 24 bits of address id + 1: a key fits int64
ADDRESS_LIMIT = (1 << 24) - 1
_HASH = np.uint64(0x9E3779B97F4A7C15)


def dispatch_keys(
    dispatch: NDArray[np.int64] | int,
    address: NDArray[np.int64] | int,
    protocol: NDArray[np.int64],
    port: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the key of (dispatch, destination or -1, protocol, destination port): int64[n], 0 or more."""
    upper = (dispatch << 24) + (address + 1)
    return (upper << 24) | (protocol << 16) | port


def hash_keys(keys: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the home of each key in a table of `size` (a power of two) places."""
    shift = np.uint64(64 - (size.bit_length() - 1))
    return ((keys.view(np.uint64) * _HASH) >> shift).view(np.int64)


def build_key_table(keys: NDArray[np.int64], targets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place distinct keys in an open-addressed table, a quarter full at most; return keys (-1: free), targets."""
    size = max(4, 1 << (4 * len(keys)).bit_length())
    table, found = np.full(size, -1, np.int64), np.zeros(size, np.int64)
    left, place = np.arange(len(keys)), hash_keys(keys, size)
    while len(left):
        at = place[left]
        is_free = table[at] < 0
        table[at[is_free]] = keys[left[is_free]]  # the last of several for one place stays; the others go on
        is_placed = table[at] == keys[left]
        found[at[is_placed]] = targets[left[is_placed]]
        left = left[~is_placed]
        place[left] = (place[left] + 1) & (size - 1)
    return table, found
