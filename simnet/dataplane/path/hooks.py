"""Where the walk meets the tables: one hook's rules, one routing decision, and what their answers mean for a packet."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simnet import random_streams
from simnet.dataplane.forwarding.reverse_path import is_martian
from simnet.dataplane.forwarding.step import Step, step
from simnet.dataplane.netfilter.counters import Counters
from simnet.dataplane.netfilter.executor import run_hook
from simnet.dataplane.netfilter.packets import (
    ACCEPT_BY_POLICY,
    OWN_ADDRESS,
    REJECT,
    SNAT_MASQUERADE,
    SNAT_NONE,
    STATE_ESTABLISHED,
    STATE_INVALID,
    STATE_NAT_DONE,
    STATE_NEW,
    Outcome,
    PacketColumns,
)
from simnet.dataplane.netfilter.program import Program
from simnet.dataplane.netfilter.state import NetfilterState
from simnet.dataplane.path import tunnelling
from simnet.dataplane.path.clock import Clock
from simnet.dataplane.path.columns import ConnectionBatch, Way
from simnet.dataplane.path.network import NODE, Network
from simnet.model.iptables.stop_reasons import stop_reason
from simnet.model.recording import REASONS, VERDICTS

NEW, ESTABLISHED, INVALID = STATE_NEW, STATE_ESTABLISHED, STATE_INVALID
SEEN_BEFORE = STATE_NEW | STATE_NAT_DONE  # came back to a node, as in a loop: nat is asked once
DROPPED, REJECTED, LOST = (VERDICTS.index(name) for name in ("dropped", "rejected", "lost"))
SOURCE_PORT = "netfilter/masquerade-port"
_FIRST_PORT, _PORTS = 1024, 65536 - 1024  # what the kernel draws from for a port above 1023

_UNROUTABLE = {
    Step.LOCAL: (REJECTED, "port closed"),
    Step.BLACKHOLE: (DROPPED, "blackhole"),
    Step.UNREACHABLE: (REJECTED, "no route"),
    Step.NO_ROUTE: (LOST, "no route"),
    Step.NO_NEIGHBOUR: (LOST, "no neighbour"),
}


@dataclass(slots=True)
class HookState:
    """What rules remember and count, advanced in place: `nth` counts, `recent` lists, counters, reasons of rules."""

    netfilter: NetfilterState
    counters: Counters
    reasons: dict[int, int] = field(default_factory=dict)  # rule id -> position in REASONS

    @classmethod
    def at_start(cls, program: Program, recent_limit: int | None = 100) -> HookState:
        """Return the state before the first packet."""
        return cls(NetfilterState(recent_limit), Counters(program))


def look_up(network: Network, way: Way, rows: NDArray[np.intp], clock: Clock | None = None) -> Step:
    """Ask the FIB of the device where each row is; of a row in a tunnel it sees the outer header."""
    tables, device = network.forwarding, way.place[rows]
    header = tunnelling.seen(tables, way, rows) if len(tables.tunnels) else way.header.take(rows)
    return step(
        tables,
        device,
        header.source,
        header.destination,
        header.source_port,
        header.destination_port,
        header.protocol,
        network.ecmp_seed,
        None if clock is None else clock.table_rows(rows, device, header.destination),
    )


def source_addresses(
    network: Network, place: NDArray[np.int32], source: NDArray[np.int32], destination: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return each caller's source: int32[n]. A process of a node whose route is a tunnel takes the tunnel's address."""
    tables = network.forwarding
    if not len(tables.tunnels):
        return source
    chosen, device = source.copy(), network.place_device[place]
    rows = np.flatnonzero((network.pod_link[place] < 0) & (network.device_kind[device] == NODE))
    none = np.zeros(len(rows), dtype=np.int32)
    taken = step(
        tables, device[rows], source[rows], destination[rows], none, none, none.astype(np.uint8), network.ecmp_seed
    )
    chosen[rows] = tunnelling.own_source(tables, device[rows], taken.out_interface, source[rows])
    return chosen


def martians(network: Network, way: Way, rows: NDArray[np.intp], clock: Clock | None = None) -> NDArray[np.bool_]:
    """Return which rows the node where they are drops for their source: bool[n]."""
    device, source = way.place[rows], way.header.source[rows]
    is_filtered = network.forwarding.rp_filter.any()  # else the FIB is not asked
    table_rows = clock.table_rows(rows, device, source) if clock is not None and is_filtered else None
    found = is_martian(network.forwarding, device, way.in_interface[rows], source, table_rows)
    return found & ~network.is_ipv6[source]


def unroutable(kind: NDArray[np.uint8]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Return verdict and reason of packets that the FIB does not take on: int8[n] each."""
    verdict, reason = np.zeros(256, dtype=np.int8), np.zeros(256, dtype=np.int8)
    for code, (what, why) in _UNROUTABLE.items():
        verdict[code], reason[code] = what, REASONS.index(why)
    return verdict[kind], reason[kind]


def pass_hook(
    network: Network,
    hook: str,
    rows: NDArray[np.intp],
    conntrack: NDArray[np.uint8],
    out_interface: NDArray[np.int32] | None,
    way: Way,
    batch: ConnectionBatch,
    state: HookState,
    seed: int,
    clock: Clock | None = None,
) -> NDArray[np.bool_]:
    """Run a hook of the node that each row is at; rewrite headers, end what a rule stops. Returns bool: which go on."""
    device = way.place[rows]
    header = way.header
    source, destination = header.source[rows], header.destination[rows]
    family = network.is_ipv6[destination].astype(np.intp)
    host = network.device_host[device, family] if clock is None else clock.hosts(rows, device, family)
    governed = host >= 0
    if not governed.any():
        return np.ones(len(rows), dtype=np.bool_)
    if not governed.all():
        passed = np.ones(len(rows), dtype=np.bool_)
        out = None if out_interface is None else out_interface[governed]
        inner = pass_hook(network, hook, rows[governed], conntrack[governed], out, way, batch, state, seed, clock)
        passed[governed] = inner
        return passed
    count = len(rows)
    packets = PacketColumns(
        host=host,
        memory=network.device_host[device, family],
        source=source,
        destination=destination,
        source_port=header.source_port[rows].astype(np.uint16),
        destination_port=header.destination_port[rows].astype(np.uint16),
        protocol=header.protocol[rows],
        in_interface=way.in_interface[rows],
        out_interface=np.full(count, -1, np.int32) if out_interface is None else out_interface,
        mark=way.mark[rows],
        state=conntrack,
        source_is_local=network.forwarding.is_local(device, source),
        destination_is_local=network.forwarding.is_local(device, destination),
        connection=batch.connection[rows],
        draw=way.draws[rows],
        length_bytes=batch.length_bytes[rows],
        packets=np.ones(count, np.int64),
        time_ps=batch.time_ps[rows],
    )
    outcome = run_hook(network.program, hook, packets, seed=seed, state=state.netfilter, counters=state.counters)
    way.rules_scanned[rows] += outcome.rules_scanned
    way.endpoint_rules_scanned[rows] += outcome.endpoint_rules_scanned
    way.draws[rows] = outcome.draw
    way.mark[rows] = outcome.mark
    _translate_destination(network, rows, device, outcome, way)
    _translate_source(network, rows, device, outcome, way, batch, seed, out_interface)
    passed = outcome.verdict <= ACCEPT_BY_POLICY
    if not passed.all():
        stopped = ~passed
        way.verdict[rows[stopped]] = np.where(outcome.verdict[stopped] == REJECT, REJECTED, DROPPED)
        way.reason[rows[stopped]] = _reasons(network.program, outcome, stopped, state)
    return passed


def _translate_destination(
    network: Network, rows: NDArray[np.intp], device: NDArray[np.int32], outcome: Outcome, way: Way
) -> None:
    at = np.flatnonzero(outcome.destination_port >= 0)
    if not at.size:
        return
    hit = rows[at]
    chosen = outcome.destination[at]
    family = network.is_ipv6[way.header.destination[hit]].astype(np.intp)
    own = network.forwarding.primary_address[device[at], family]
    way.header.destination[hit] = np.where(chosen == OWN_ADDRESS, own, chosen)
    way.header.destination_port[hit] = outcome.destination_port[at]
    way.dnat_device[hit] = np.where(way.dnat_device[hit] < 0, device[at], way.dnat_device[hit])
    way.nat_hops[hit] += 1


def _translate_source(
    network: Network,
    rows: NDArray[np.intp],
    device: NDArray[np.int32],
    outcome: Outcome,
    way: Way,
    batch: ConnectionBatch,
    seed: int,
    out_interface: NDArray[np.int32] | None,
) -> None:
    at = np.flatnonzero(outcome.snat_kind != SNAT_NONE)
    if not at.size:
        return
    hit = rows[at]
    family = network.is_ipv6[way.header.source[hit]].astype(np.intp)
    own = network.forwarding.primary_address[device[at], family]
    leaving_by = None if out_interface is None else out_interface[at]
    own = tunnelling.own_source(network.forwarding, device[at], leaving_by, own)
    masqueraded = outcome.snat_kind[at] == SNAT_MASQUERADE
    way.header.source[hit] = np.where(masqueraded, own, outcome.snat_source[at])
    port = way.header.source_port[hit]
    first, last = outcome.snat_port_first[at], outcome.snat_port_last[at]
    ranged = first >= 0
    low = np.where(ranged, first, _FIRST_PORT)
    size = np.where(ranged, last - first + 1, _PORTS)
    drawn = random_streams.bits(seed, SOURCE_PORT, batch.connection[hit], device[at].astype(np.uint64))
    anew = outcome.snat_random_fully[at] | (ranged & ((port < first) | (port > last)))
    new_port = low + (drawn % size.astype(np.uint64)).astype(np.int32)
    way.header.source_port[hit] = np.where(anew, new_port, port)
    way.snat[hit] = True
    way.nat_hops[hit] += 1


def _reasons(program: Program, outcome: Outcome, stopped: NDArray[np.bool_], state: HookState) -> NDArray[np.int8]:
    """Why rules stopped packets: told by the comment and the chain of each rule that did."""
    rules, inverse = np.unique(outcome.rule[stopped], return_inverse=True)
    for rule_id in rules.tolist():
        if rule_id not in state.reasons:
            state.reasons[rule_id] = REASONS.index(_reason_of(program, rule_id))
    return np.array([state.reasons[rule_id] for rule_id in rules.tolist()], dtype=np.int8)[inverse]


def _reason_of(program: Program, rule_id: int) -> str:
    unit, _, rule = program.rule(rule_id)
    return stop_reason(unit.chain.name, rule)
