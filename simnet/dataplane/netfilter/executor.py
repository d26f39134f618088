"""Run a program over a batch of packets, all packets of a block at once, whatever chains they are in.

Every packet has a program counter. Packets whose next instructions have the same shape form a group and are worked on
together, the group that is furthest behind first, so that ways that part meet again. The number of steps depends on how
deep chains nest, not on how many services or endpoints there are. Packets that come to a rule whose answer depends on
packets before them (`nth`, `recent`) wait; when all others are done they go on one by one, in order (`sequential`).
Source: the kernel's semantics as docs/models/netfilter.md states them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.netfilter.counters import CounterJournal, Counters
from simnet.dataplane.netfilter.packets import (
    ACCEPT_BY_POLICY,
    ACCEPT_BY_RULE,
    OWN_ADDRESS,
    STATE_DNAT,
    STATE_NAT_DONE,
    STATE_NEW,
    Outcome,
    PacketColumns,
)
from simnet.dataplane.netfilter.program import Program
from simnet.dataplane.netfilter.state import NetfilterState
from simnet.dataplane.netfilter.stateful import Conflict
from simnet.dataplane.netfilter.steps import Block

BLOCK = 1 << 15  # packets worked on at a time, so that their columns stay in the second-level cache
STATEFUL_BLOCK = 1 << 18  # where rules remember: reading and writing what they hold costs by block, not by packet
PURPOSE = "netfilter/statistic"

HOOK_TABLES = {  # the tables that a hook visits, in order of priority
    "PREROUTING": ("raw", "mangle", "nat"),
    "INPUT": ("mangle", "filter", "security", "nat"),
    "FORWARD": ("mangle", "filter", "security"),
    "OUTPUT": ("raw", "mangle", "nat", "filter", "security"),
    "POSTROUTING": ("mangle", "nat"),
}


def run_chain(
    program: Program,
    table: str,
    chain: str,
    packets: PacketColumns,
    *,
    seed: int,
    state: NetfilterState,
    counters: Counters,
) -> Outcome:
    """Run packets through one built-in chain of their hosts.

    Parameters
    ----------
    program : from `compile_program`
    table, chain : such as "nat", "PREROUTING"; a host that has no such chain accepts by policy
    packets : in order of time
    seed : of the run; a draw is a function of (seed, connection, draw number) alone
    state, counters : changed in place; a batch may be cut anywhere

    Returns
    -------
    Outcome, a row per packet
    """
    outcome = Outcome.before(packets)
    entry = program.entry(table, chain)
    block = STATEFUL_BLOCK if program.is_stateful else BLOCK
    for start in range(0, len(packets), block):
        rows = slice(start, min(start + block, len(packets)))
        part, out = packets.take(rows), outcome.rows(rows)
        if program.is_stateful:
            _run_stateful(program, part, out, entry, seed, state, counters)
        else:
            Block(program, part, out, seed, state, counters).run(entry)
    return outcome


def _run_stateful(
    program: Program, packets: PacketColumns, outcome: Outcome, entry: NDArray[np.int64], seed: int,
    state: NetfilterState, counters: Counters,
) -> None:  # fmt: skip
    """Run a block at once; where packets turn out to depend on each other in other ways, again and one by one."""
    is_all_slow = False
    while True:
        made, journal = Outcome.before(packets), CounterJournal()
        try:
            Block(program, packets, made, seed, state, journal, frozenset(state.overflowing), is_all_slow).run(entry)
        except Conflict as conflict:
            state.overflowing |= conflict.groups
            is_all_slow = not conflict.groups
            continue
        break
    journal.replay(counters)
    for name, column in made.columns():
        getattr(outcome, name)[:] = column


def run_hook(
    program: Program, hook: str, packets: PacketColumns, *, seed: int, state: NetfilterState, counters: Counters,
    reroute: Callable[[PacketColumns], PacketColumns] | None = None,
) -> Outcome:  # fmt: skip
    """Run packets through all tables of a hook, in the kernel's order; nat only for packets in state NEW.

    What nat OUTPUT rewrites is seen by the filter chains after it; `reroute`, if given, then gets the packets with
    the new
    destinations and returns them with the columns that routing decides (out_interface, destination_is_local). After
    PREROUTING the caller routes, with `Outcome.destination`. The deciding rule is the one that dropped, rejected or
    rewrote, else that of the last table visited; `rules_scanned` is the sum. Other parameters as `run_chain`.
    """
    outcome = Outcome.before(packets)
    alive: NDArray[Any] | None = None  # rows still on their way; None: all
    current = packets
    for table in HOOK_TABLES[hook]:
        if not program.has_chain(table, hook):
            continue
        if table == "nat":
            is_new = (current.state & (STATE_NEW | STATE_NAT_DONE)) == STATE_NEW
            if is_new.all():
                part, rows = current, alive
            else:
                part = current.take(is_new)
                rows = np.flatnonzero(is_new) if alive is None else alive[is_new]
        else:
            part, rows = current, alive
        if not len(part):
            continue
        result = run_chain(program, table, hook, part, seed=seed, state=state, counters=counters)
        _merge(outcome, result, rows)
        at: Any = slice(None) if alive is None else alive
        is_alive = outcome.verdict[at] <= ACCEPT_BY_POLICY
        if not is_alive.all():
            alive = np.flatnonzero(is_alive) if alive is None else alive[is_alive]
            current = current.take(is_alive)
            at = alive
        current = replace(current, mark=outcome.mark[at].copy(), draw=outcome.draw[at].copy())
        if table == "nat" and hook == "OUTPUT":
            current = _rewritten(current, outcome.destination[at], outcome.destination_port[at])
            if reroute is not None:
                current = reroute(current)
    return outcome


def _merge(outcome: Outcome, result: Outcome, rows: NDArray[Any] | None) -> None:
    """Enter one table's result in the hook's outcome."""
    at: Any = slice(None) if rows is None else rows
    outcome.rules_scanned[at] += result.rules_scanned
    outcome.endpoint_rules_scanned[at] += result.endpoint_rules_scanned
    outcome.mark[at] = result.mark
    outcome.draw[at] = result.draw
    outcome.verdict[at] = np.where(
        (result.verdict <= ACCEPT_BY_POLICY) & (outcome.verdict[at] == ACCEPT_BY_RULE), ACCEPT_BY_RULE, result.verdict
    )
    is_translated = (outcome.destination_port[at] >= 0) | (outcome.snat_kind[at] > 0)
    keeps = is_translated & (result.verdict <= ACCEPT_BY_POLICY)
    keeps |= result.rule < 0  # the host has no such table
    outcome.rule[at] = np.where(keeps, outcome.rule[at], result.rule)
    has_dnat = result.destination_port >= 0
    for name in ("destination", "destination_port"):
        column = getattr(outcome, name)
        column[at] = np.where(has_dnat, getattr(result, name), column[at])
    has_snat = result.snat_kind > 0
    for name in ("snat_kind", "snat_source", "snat_port_first", "snat_port_last", "snat_random_fully"):
        column = getattr(outcome, name)
        column[at] = np.where(has_snat, getattr(result, name), column[at])


def _rewritten(packets: PacketColumns, destination: NDArray[np.int32], port: NDArray[np.int32]) -> PacketColumns:
    """Return packets with DNAT applied, and the conntrack flag DNAT where it changed something."""
    is_known = (port >= 0) & (destination != OWN_ADDRESS)
    new_destination = np.where(is_known, destination, packets.destination).astype(np.int32)
    new_port = np.where(port >= 0, port, packets.destination_port).astype(np.uint16)
    is_changed = (new_destination != packets.destination) | (new_port != packets.destination_port)
    is_changed |= (port >= 0) & (destination == OWN_ADDRESS)
    return replace(
        packets, destination=new_destination, destination_port=new_port,
        state=np.where(is_changed, packets.state | STATE_DNAT, packets.state).astype(np.uint8),
    )  # fmt: skip
