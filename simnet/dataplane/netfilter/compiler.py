"""Compile many hosts' rule sets into one program; chains that hosts share are compiled once.

Two passes. `units` finds which distinct chains there are: a chain is shared between hosts if its rules are equal and
all
chains that it leads to are shared too; hosts are compared with the first one by identity, so that a host that differs
in
a few chains costs a few chains. The second pass writes the code of each distinct chain (`emitter`).
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simnet.dataplane.netfilter.emitter import Emitter
from simnet.dataplane.netfilter.program import Program
from simnet.errors import InputError, Position, Problem
from simnet.model.addresses import AddressTable
from simnet.model.iptables.ruleset import Chain, Jump, Ruleset, Table


@dataclass(slots=True)
class ChainUnit:
    """A distinct chain before code is written: the chain and which unit each chain name in it means."""

    table: str
    chain: Chain
    source: str
    callees: Mapping[str, int]


@dataclass(slots=True)
class _Base:
    """The first host's table of a name, which later hosts are compared with."""

    chains: Mapping[str, Chain]
    units: dict[str, int]
    callers: dict[str, list[str]] = field(default_factory=dict)


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
    bases: dict[str, _Base] = {}
    known: dict[object, int] = {}
    resolved: dict[int, tuple[Table, Mapping[str, int]]] = {}  # by id; holds the table so that the id stays its own
    hosts: list[Mapping[tuple[str, str], int]] = []
    by_ruleset: dict[int, Mapping[tuple[str, str], int]] = {}
    for ruleset in rulesets:
        found = by_ruleset.get(id(ruleset))
        if found is None:
            names: dict[str, Mapping[str, int]] = {}
            for name, table in ruleset.tables.items():
                if id(table.chains) not in resolved:
                    resolved[id(table.chains)] = (
                        table, _resolve(name, table.chains, ruleset.source, bases, known, units, problems)
                    )  # fmt: skip
                names[name] = resolved[id(table.chains)][1]
            found = by_ruleset[id(ruleset)] = _ChainNames(names)
        hosts.append(found)
    emitter = Emitter(addresses, tuple(interfaces), skip_unknown)
    program = emitter.program(units, hosts, problems)
    if problems:
        raise InputError(problems)
    return program


class _ChainNames(Mapping[tuple[str, str], int]):
    """(table, chain) -> unit of one host, over the tables' own maps."""

    def __init__(self, tables: Mapping[str, Mapping[str, int]]) -> None:
        self.tables = tables

    def __getitem__(self, key: tuple[str, str]) -> int:
        return self.tables[key[0]][key[1]]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return ((table, chain) for table, chains in self.tables.items() for chain in chains)

    def __len__(self) -> int:
        return sum(len(chains) for chains in self.tables.values())


def _callees(chain: Chain) -> list[str]:
    return list(dict.fromkeys(rule.target.chain for rule in chain.rules if isinstance(rule.target, Jump)))


def _changed(chains: Mapping[str, Chain], base: Mapping[str, Chain]) -> list[str]:
    """Names whose chain is not the base's own object."""
    if isinstance(chains, ChainMap) and isinstance(base, ChainMap) and chains.maps[-1] is base.maps[-1]:
        over = dict.fromkeys(name for layer in (*chains.maps[:-1], *base.maps[:-1]) for name in layer)
        return [name for name in over if name in chains and chains[name] is not base.get(name)]
    get = base.get
    return [name for name, chain in chains.items() if get(name) is not chain]


def _resolve(
    table: str, chains: Mapping[str, Chain], source: str, bases: dict[str, _Base], known: dict[object, int],
    units: list[ChainUnit], problems: list[Problem],
) -> Mapping[str, int]:  # fmt: skip
    """Return chain name -> unit for one host's table, adding the units that no host before had."""
    base = bases.get(table)
    lacking: list[str] = []
    if base is None:
        todo = dict.fromkeys(chains)
        over: dict[str, int] = {}
    else:
        todo = dict.fromkeys(_changed(chains, base.chains))
        over = {}
        lacking = [name for name in base.chains if name not in chains]
        queue = [*todo, *lacking]
        while queue:  # whatever leads to a changed chain is another chain too
            for caller in base.callers.get(queue.pop(), ()):
                if caller not in todo and caller in chains:
                    todo[caller] = None
                    queue.append(caller)
    ready = over if base is None else ChainMap(over, base.units)
    callers: dict[str, list[str]] = {}
    for root in todo:
        stack = [root]
        entered: dict[str, None] = {}
        while stack:  # depth first; a chain is numbered after all chains that it leads to
            name = stack[-1]
            if name in over:
                stack.pop()
                continue
            chain = chains[name]
            callees = _callees(chain)
            if name not in entered:
                entered[name] = None
                missing = [c for c in callees if c in todo and c not in over]
                loops = [c for c in missing if c in entered]
                if loops:
                    problems.append(_problem(source, chain, table, f"a jump to {loops[0]}, which leads back here",
                                             "chains without a loop", "remove one of the jumps"))  # fmt: skip
                stack.extend(c for c in missing if c in chains and c not in entered)
                continue
            stack.pop()
            resolved: dict[str, int] = {}
            for callee in callees:
                if callee not in chains:
                    problems.append(_problem(source, chain, table, f"a jump to {callee}, which is not in the table",
                                             "a chain of the table", "declare it or remove the jump"))  # fmt: skip
                elif callee in ready:
                    resolved[callee] = ready[callee]
                callers.setdefault(callee, []).append(name)
            key = (table, chain, tuple(resolved.values()))
            number = known.get(key) if base is not None else None
            if number is None:
                number = len(units)
                units.append(ChainUnit(table, chain, source, resolved))
                if base is not None:
                    known[key] = number
            over[name] = number
    if base is None:
        bases[table] = _Base(chains, over, callers)
        return over
    return {name: ready[name] for name in chains} if lacking else ready


def _problem(source: str, chain: Chain, table: str, found: str, expected: str, fix: str) -> Problem:
    line = next((rule.line for rule in chain.rules if rule.line), 0)
    return Problem(Position(source or "generated rules", line), f"{table} {chain.name}", found, expected, fix)
