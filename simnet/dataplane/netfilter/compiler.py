"""Compile many hosts' rule sets into one program; chains that hosts share are compiled once.

Hosts are compared with the first one, by layers where the mappings have them. A chain that is equal on all hosts is one
unit, and jumps to it are written into the code. A chain that differs has a unit per distinct form and a *slot*: a jump
to it names the slot, and the machine looks up which form the packet's host has. So a host that differs in a few chains
costs those chains, and not what leads to them. `emitter` writes the code of each unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.netfilter.chain_graph import GraphOfUnits, loops_of
from simnet.dataplane.netfilter.emitter import Emitter
from simnet.dataplane.netfilter.program import Program, slot_target
from simnet.errors import InputError, Position, Problem
from simnet.model.addresses import AddressTable
from simnet.model.iptables.chain_layers import names_that_may_differ
from simnet.model.iptables.ruleset import Chain, Jump, Rule, Ruleset

_MOST_PROBLEMS = 100  # of one kind; a thousand hosts may share one mistake


@dataclass(slots=True)
class ChainUnit:
    """A distinct chain before code is written."""

    table: str
    chain: Chain
    source: str
    callees: Mapping[str, int]  # of all chains of the table: unit, or `slot_target` where hosts differ
    is_variant: bool = False  # whether hosts have other chains of this name


def compile_program(
    rulesets: Sequence[Ruleset], addresses: AddressTable, interfaces: Sequence[str] = (), *, skip_unknown: bool = False
) -> Program:
    """Return the program of all hosts; host i of the packets uses `rulesets[i]` (which may be the same object often).

    Parameters
    ----------
    rulesets : one per host
    addresses : the table whose ids packets carry; the rules' own addresses are added to it
    interfaces : names by interface id, as packets carry them
    skip_unknown : leave out rules that hold a match or target that simnet does not model, and list them in
        `Program.skipped`; else they are an InputError that names each line

    Raises InputError: an unknown match or target, a jump to a chain that is not there, a loop of jumps.
    """
    problems: list[Problem] = []
    units: list[ChainUnit] = []
    slots: list[_Slot] = []
    by_table: dict[str, _Table] = {}
    for ruleset in rulesets:
        for name, table in ruleset.tables.items():
            by_table.setdefault(name, _Table(name)).add(table.chains, ruleset.source)
    for compared in by_table.values():
        compared.resolve(units, slots, problems)
    graph = GraphOfUnits(
        [[unit.callees[name] for name in callees(unit.chain) if name in unit.callees] for unit in units],
        [slot.units() for slot in slots],
    )
    if graph.has_loop:  # over all hosts together; whether one host has a loop is asked of each alone
        depth = 0
        for compared in by_table.values():
            depth = max(depth, compared.depth_without_loops(problems))
    else:
        depth = graph.depth
    if problems:
        raise InputError(problems[:_MOST_PROBLEMS])
    hosts = [
        _ChainNames({name: by_table[name].of(table.chains).units for name, table in ruleset.tables.items()})
        for ruleset in rulesets
    ]
    emitter = Emitter(addresses, tuple(interfaces), skip_unknown)
    program = emitter.program(units, graph.order, _slot_units(slots, rulesets, by_table), hosts, depth + 1, problems)
    if problems:
        raise InputError(problems)
    return program


def callees(chain: Chain) -> list[str]:
    """Return the chains that a chain's rules lead to, each once."""
    return list(dict.fromkeys(rule.target.chain for rule in chain.rules if isinstance(rule.target, Jump)))


class _ChainNames(Mapping[tuple[str, str], int]):
    """(table, chain) -> unit of one host, over the tables' own maps."""

    def __init__(self, tables: Mapping[str, Mapping[str, int]]) -> None:
        self.tables = tables

    def __getitem__(self, key: tuple[str, str]) -> int:
        return self.tables[key[0]][key[1]]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((table, chain) for table, chains in self.tables.items() for chain in chains)

    def __len__(self) -> int:
        return sum(len(chains) for chains in self.tables.values())


class _UnitNames(Mapping[str, int]):
    """Chain -> unit of one host's table: the first host's, with what differs."""

    def __init__(self, base: Mapping[str, int], own: Mapping[str, int], lacking: frozenset[str]) -> None:
        self.base, self.own, self.lacking = base, own, lacking

    def __getitem__(self, name: str) -> int:
        number = self.own.get(name)
        if number is not None:
            return number
        if name in self.lacking:
            raise KeyError(name)
        return self.base[name]

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in self.base if name not in self.lacking)
        yield from (name for name in self.own if name not in self.base)

    def __len__(self) -> int:
        return len(self.base) - len(self.lacking) + sum(name not in self.base for name in self.own)


@dataclass(slots=True)
class _Slot:
    """A chain name that means different chains on different hosts."""

    table: str
    name: str
    forms: Mapping[object, int]

    def units(self) -> list[int]:
        return list(dict.fromkeys(self.forms.values()))


@dataclass(slots=True)
class _Host:
    """One distinct table of that name: its chains and how they differ from the first host's."""

    chains: Mapping[str, Chain]
    source: str
    changed: dict[str, Chain] = field(default_factory=dict)
    lacking: frozenset[str] = frozenset()
    units: Mapping[str, int] = field(default_factory=dict)


class _Table:
    """All hosts' tables of one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.hosts: dict[int, _Host] = {}  # by id of the chains, which `_Host` keeps
        self._rules: dict[int, tuple[Rule, int]] = {}  # by id: the rule, kept, and the number of its value
        self._numbers: dict[Rule, int] = {}

    def add(self, chains: Mapping[str, Chain], source: str) -> None:
        """Take a host's chains in, if they are not known."""
        if id(chains) in self.hosts:
            return
        host = self.hosts[id(chains)] = _Host(chains, source)
        base = next(iter(self.hosts.values()))
        if host is base:
            return
        lacking = []
        for name in names_that_may_differ(chains, base.chains):
            chain = chains.get(name)
            if chain is None:
                lacking.append(name)
            else:
                host.changed[name] = chain
        host.lacking = frozenset(lacking)

    def resolve(self, units: list[ChainUnit], slots: list[_Slot], problems: list[Problem]) -> None:
        """Number the distinct chains, give a slot to each name that has several, and say which jumps lead nowhere."""
        base, *others = self.hosts.values()
        targets: dict[str, int] = {}
        differing = {name for host in others for name in host.changed}
        forms: dict[str, dict[object, int]] = {name: {} for name in differing}
        base_units: dict[str, int] = {}
        for name, chain in base.chains.items():
            base_units[name] = targets[name] = len(units)
            if name in differing:
                forms[name][self._form(chain)] = len(units)
            units.append(ChainUnit(self.name, chain, base.source, targets))
        base.units = base_units
        for host in others:
            own: dict[str, int] = {}
            for name, chain in host.changed.items():
                form = self._form(chain)
                number = forms[name].get(form)
                if number is None:
                    number = forms[name][form] = len(units)
                    units.append(ChainUnit(self.name, chain, host.source, targets))
                if base_units.get(name) != number:
                    own[name] = number
            host.units = _UnitNames(base_units, own, host.lacking) if own or host.lacking else base_units
        for name, made in forms.items():
            if len(made) == 1:
                targets[name] = next(iter(made.values()))
                continue
            for number in made.values():
                units[number].is_variant = True
            targets[name] = slot_target(len(slots))
            slots.append(_Slot(self.name, name, made))
        self._missing(base, others, problems)

    def of(self, chains: Mapping[str, Chain]) -> _Host:
        """Return what was made of a host's chains."""
        return self.hosts[id(chains)]

    def depth_without_loops(self, problems: list[Problem]) -> int:
        """Return the longest row of jumps on any host; a loop is a problem."""
        depth = 0
        for host in self.hosts.values():
            loops, longest = loops_of({name: callees(chain) for name, chain in host.chains.items()})
            depth = max(depth, longest)
            for caller, callee in loops:
                problems.append(
                    _problem(host.source, host.chains[caller], self.name, f"a jump to {callee}, which leads back here",
                             "chains without a loop", "remove one of the jumps")
                )  # fmt: skip
        return depth

    def _form(self, chain: Chain) -> object:
        """A key that is equal for chains that mean the same; rules that hosts share are compared by identity."""
        numbers = []
        for rule in chain.rules:
            known = self._rules.get(id(rule))
            if known is None:
                known = self._rules[id(rule)] = (rule, self._numbers.setdefault(rule, len(self._numbers)))
            numbers.append(known[1])
        return (chain.policy, tuple(numbers))

    def _missing(self, base: _Host, others: list[_Host], problems: list[Problem]) -> None:
        for chain in base.chains.values():
            self._missing_callees(base, chain, problems)
        callers: dict[str, list[str]] = {}
        if any(host.lacking for host in others):
            for name, chain in base.chains.items():
                for callee in callees(chain):
                    callers.setdefault(callee, []).append(name)
        for host in others:
            asked = dict.fromkeys(host.changed)
            for name in host.lacking:
                asked.update(dict.fromkeys(caller for caller in callers.get(name, ()) if caller in host.chains))
            for name in asked:
                self._missing_callees(host, host.chains[name], problems)

    def _missing_callees(self, host: _Host, chain: Chain, problems: list[Problem]) -> None:
        for callee in callees(chain):
            if callee not in host.chains:
                problems.append(
                    _problem(host.source, chain, self.name, f"a jump to {callee}, which is not in the table",
                             "a chain of the table", "declare it or remove the jump")
                )  # fmt: skip


def _slot_units(slots: Sequence[_Slot], rulesets: Sequence[Ruleset], tables: Mapping[str, _Table]) -> NDArray[np.int32]:
    """Return int32[slot, host]: the unit that a slot means on a host; -1 where the host has no such chain."""
    units = np.full((len(slots), len(rulesets)), -1, np.int32)
    for table_name, table in tables.items():
        rows = [number for number, slot in enumerate(slots) if slot.table == table_name]
        if not rows:
            continue
        places = {slots[row].name: place for place, row in enumerate(rows)}
        base, *_ = table.hosts.values()
        usual = np.array([base.units.get(name, -1) for name in places], np.int32)
        columns: dict[int, NDArray[np.int32]] = {}
        for number, ruleset in enumerate(rulesets):
            if table_name not in ruleset.tables:
                continue
            host = table.of(ruleset.tables[table_name].chains)
            column = columns.get(id(host))
            if column is None:
                column = columns[id(host)] = usual.copy()
                for name in (*host.changed, *host.lacking):
                    if name in places:
                        column[places[name]] = host.units.get(name, -1)
            units[rows, number] = column
    return units


def _problem(source: str, chain: Chain, table: str, found: str, expected: str, fix: str) -> Problem:
    line = next((rule.line for rule in chain.rules if rule.line), 0)
    return Problem(Position(source or "generated rules", line), f"{table} {chain.name}", found, expected, fix)
