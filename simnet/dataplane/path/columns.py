"""The columns of a batch of connections: who calls whom, what became of it, and over which wires.

Row i of every column is connection i. A connection is what conntrack calls one: the first packet that found no entry,
and all that follow it until the entry times out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TTL_AT_START = 64

# The number of an outcome is its position in `model.recording.VERDICTS`; of a reason, its position in `REASONS`.
PENDING = -1


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """The addresses and ports of one packet a row, as interned address ids."""

    source: NDArray[np.int32]  # [n]
    destination: NDArray[np.int32]  # [n]
    source_port: NDArray[np.int32]  # [n]
    destination_port: NDArray[np.int32]  # [n]
    protocol: NDArray[np.uint8]  # [n] IANA number

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """The columns in order."""
        return self.source, self.destination, self.source_port, self.destination_port, self.protocol

    def copy(self) -> Header:
        """Return columns that can be written without changing these."""
        return Header(
            self.source.copy(),
            self.destination.copy(),
            self.source_port.copy(),
            self.destination_port.copy(),
            self.protocol,
        )

    def reversed(self) -> Header:
        """Return the header of an answer: ends swapped."""
        return Header(
            self.destination.copy(),
            self.source.copy(),
            self.destination_port.copy(),
            self.source_port.copy(),
            self.protocol,
        )

    def take(self, rows: NDArray[np.intp]) -> Header:
        """Return the header of some rows."""
        return Header(
            self.source[rows],
            self.destination[rows],
            self.source_port[rows],
            self.destination_port[rows],
            self.protocol[rows],
        )

    def equals(self, other: Header) -> NDArray[np.bool_]:
        """Return bool[n]: which rows are the same in both."""
        same: NDArray[np.bool_] = (
            (self.source == other.source)
            & (self.destination == other.destination)
            & (self.source_port == other.source_port)
            & (self.destination_port == other.destination_port)
        )
        return same


@dataclass(frozen=True, slots=True, eq=False)
class ConnectionBatch:
    """New connections, in order of their first packet."""

    connection: NDArray[np.uint64]  # [n] number that all draws of this connection are made from
    time_ps: NDArray[np.int64]  # [n] picoseconds, non-decreasing
    origin: NDArray[np.int32]  # [n] place that sends: a device (node or client site), or a pod behind it
    header: Header
    length_bytes: NDArray[np.int64]  # [n] of the first packet
    reply_bytes: NDArray[np.int64]  # [n] of the reply to it

    def __len__(self) -> int:
        return len(self.connection)


@dataclass(frozen=True, slots=True, eq=False)
class Visit:
    """A node's conntrack entries of one step of the walk: what came in, and what went out, row by row."""

    rows: NDArray[np.intp]  # [m] connections that passed the node at this step
    device: NDArray[np.int32]  # [m]
    original: Header  # [m] before PREROUTING (or OUTPUT)
    translated: Header  # [m] after POSTROUTING (or INPUT)


@dataclass(frozen=True, slots=True, eq=False)
class Crossing:
    """Wires crossed at one step of the walk."""

    rows: NDArray[np.intp]  # [m]
    direction: NDArray[np.int32]  # [m] link direction
    extra_bytes: NDArray[np.int32]  # [m] of the tunnel's outer headers


@dataclass(frozen=True, slots=True, eq=False)
class NodePass:
    """Nodes that packets came to at one step of the walk, and the rules that they were held against there."""

    rows: NDArray[np.intp]  # [m]
    device: NDArray[np.int32]  # [m]
    header: Header  # as they came in
    rules_scanned: NDArray[np.int32]  # [m] in all hooks of this pass
    endpoint_rules_scanned: NDArray[np.int32]  # [m] of them, those that asked a `statistic` match
    crossings_before: int  # how many of `Way.crossings` come before it


@dataclass(slots=True, eq=False)
class Way:
    """One direction of a batch of connections: where each packet is, then where it ended.

    Filled step by step by the walk; `state` of a row is final once its `verdict` is not PENDING.
    """

    header: Header
    place: NDArray[np.int32]  # [n] where it is; at the end: where it was delivered or stopped
    verdict: NDArray[np.int8]  # [n] position in VERDICTS, PENDING while under way
    reason: NDArray[np.int8]  # [n] position in REASONS
    ttl: NDArray[np.int16]  # [n]
    l3_hops: NDArray[np.int16]  # [n]
    links: NDArray[np.int16]  # [n]
    rules_scanned: NDArray[np.int32]  # [n]
    endpoint_rules_scanned: NDArray[np.int32]  # [n] of them, those that asked a `statistic` match
    draws: NDArray[np.int32]  # [n] draws that this connection has used
    mark: NDArray[np.uint32]  # [n]
    in_interface: NDArray[np.int32]  # [n] id of the interface that it came in on
    dnat_device: NDArray[np.int32]  # [n] node that first rewrote the destination; -1: none
    snat: NDArray[np.bool_]  # [n] the source was rewritten, be it to the same address
    nat_hops: NDArray[np.int16]  # [n] rewrites
    passed_first_node: NDArray[np.bool_]  # [n] a reply met the entry that the first node made of the request
    tunnel: NDArray[np.int32]  # [n] that it is in, row of ForwardingTables.tunnels; -1: none
    outer_ttl: NDArray[np.int16]  # [n] of the outer header
    outer_port: NDArray[np.int32]  # [n] its source port
    crossings: list[Crossing]
    passes: list[NodePass]

    @classmethod
    def start(cls, header: Header, place: NDArray[np.int32]) -> Way:
        """Return a way on which nothing has moved yet."""
        n = len(place)
        return cls(
            header=header,
            place=place.copy(),
            verdict=np.full(n, PENDING, dtype=np.int8),
            reason=np.zeros(n, dtype=np.int8),
            ttl=np.full(n, TTL_AT_START, dtype=np.int16),
            l3_hops=np.zeros(n, dtype=np.int16),
            links=np.zeros(n, dtype=np.int16),
            rules_scanned=np.zeros(n, dtype=np.int32),
            endpoint_rules_scanned=np.zeros(n, dtype=np.int32),
            draws=np.zeros(n, dtype=np.int32),
            mark=np.zeros(n, dtype=np.uint32),
            in_interface=np.full(n, -1, dtype=np.int32),
            dnat_device=np.full(n, -1, dtype=np.int32),
            snat=np.zeros(n, dtype=np.bool_),
            nat_hops=np.zeros(n, dtype=np.int16),
            passed_first_node=np.zeros(n, dtype=np.bool_),
            tunnel=np.full(n, -1, dtype=np.int32),
            outer_ttl=np.zeros(n, dtype=np.int16),
            outer_port=np.zeros(n, dtype=np.int32),
            crossings=[],
            passes=[],
        )

    def cross(
        self, rows: NDArray[np.intp], direction: NDArray[np.int32], tunnel_bytes: NDArray[np.int32] | None = None
    ) -> None:
        """Record that `rows` crossed a wire each; -1 in `direction`: none. `tunnel_bytes`: of each tunnel."""
        real = direction >= 0
        if not real.all():
            rows, direction = rows[real], direction[real]
        if rows.size:
            self.links[rows] += 1
            extra = np.zeros(len(rows), dtype=np.int32)
            if tunnel_bytes is not None and tunnel_bytes.size:
                inside = np.flatnonzero(self.tunnel[rows] >= 0)
                extra[inside] = tunnel_bytes[self.tunnel[rows[inside]]]
            self.crossings.append(Crossing(rows, direction, extra))

    def end(self, rows: NDArray[np.intp], verdict: int, reason: int) -> None:
        """Record the end of `rows`."""
        self.verdict[rows] = verdict
        self.reason[rows] = reason
