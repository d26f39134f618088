"""The packets that a netfilter program sees, and what it decided about each: plain columns.

Row i of every column is packet i; rows are in order of time. Imports only model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

# conntrack's view of a packet: one state, and flags
STATE_NEW, STATE_ESTABLISHED, STATE_RELATED, STATE_INVALID, STATE_UNTRACKED = 1, 2, 4, 8, 16
STATE_SNAT, STATE_DNAT = 32, 64
STATE_NAT_DONE = 128  # new, but the nat table has been asked: the connection passed here before and came back
STATE_BITS = {"NEW": STATE_NEW, "ESTABLISHED": STATE_ESTABLISHED, "RELATED": STATE_RELATED, "INVALID": STATE_INVALID,
              "UNTRACKED": STATE_UNTRACKED, "SNAT": STATE_SNAT, "DNAT": STATE_DNAT}  # fmt: skip

# Outcome.verdict
ACCEPT_BY_RULE, ACCEPT_BY_POLICY, DROP_BY_RULE, DROP_BY_POLICY, REJECT = 1, 2, 3, 4, 5
VERDICT_NAMES = {ACCEPT_BY_RULE: "accepted", ACCEPT_BY_POLICY: "none", DROP_BY_RULE: "dropped",
                 DROP_BY_POLICY: "dropped by policy", REJECT: "rejected"}  # fmt: skip

# Outcome.snat_kind
SNAT_NONE, SNAT_MASQUERADE, SNAT_TO_SOURCE = 0, 1, 2

NO_ADDRESS = -1
OWN_ADDRESS = -2  # REDIRECT: the primary address of the incoming interface, 127.0.0.1 (::1) in OUTPUT


@dataclass(frozen=True, slots=True, eq=False)
class PacketColumns:
    """Packets at one hook of their hosts, in order of time; addresses are ids of the program's AddressTable."""

    host: NDArray[np.int32]  # [n] index of the rule set that the program was compiled from
    # [n] whose `recent` lists and `nth` counts are meant: the same number as long as a host goes from rules to rules
    memory: NDArray[np.int32]
    source: NDArray[np.int32]  # [n] address id
    destination: NDArray[np.int32]  # [n] address id
    source_port: NDArray[np.uint16]  # [n] 0 for protocols without ports
    destination_port: NDArray[np.uint16]  # [n]
    protocol: NDArray[np.uint8]  # [n] IANA number
    in_interface: NDArray[np.int32]  # [n] interface id, -1: none
    out_interface: NDArray[np.int32]  # [n] interface id, -1: none
    mark: NDArray[np.uint32]  # [n] the packet's mark (nfmark) as it comes in
    state: NDArray[np.uint8]  # [n] STATE_* bits
    source_is_local: NDArray[np.bool_]  # [n] addrtype LOCAL on this host
    destination_is_local: NDArray[np.bool_]  # [n]
    connection: NDArray[np.uint64]  # [n] whose random numbers are drawn
    draw: NDArray[np.int32]  # [n] how many this connection has drawn so far
    length_bytes: NDArray[np.int64]  # [n] what the byte counters add for this row (of all its packets)
    packets: NDArray[np.int64]  # [n] what the packet counters add for this row
    time_ps: NDArray[np.int64]  # [n] picoseconds, non-decreasing; `recent` reads it

    def __len__(self) -> int:
        return len(self.host)

    @classmethod
    def of(cls, count: int, **columns: Any) -> PacketColumns:
        """Build `count` packets; a column may be an array or one value for all, and one left out has a plain default.

        Defaults: host 0, its memory, TCP, new, no interfaces, no mark, draw 0, one packet of 60 bytes, connection =
        row, time 0.
        """
        made: dict[str, NDArray[Any]] = {}
        columns.setdefault("memory", columns.get("host", 0))
        for name, (dtype, default) in _COLUMNS.items():
            value = columns.pop(name, default)
            if value is None:
                value = np.arange(count)
            made[name] = np.ascontiguousarray(np.broadcast_to(np.asarray(value), (count,)).astype(dtype))
        if columns:
            raise TypeError(f"no such packet column: {', '.join(sorted(columns))}")
        return cls(**made)

    def take(self, rows: NDArray[Any] | slice) -> PacketColumns:
        """Return the chosen rows (row numbers, a mask or a slice) as packets of their own."""
        return PacketColumns(**{name: getattr(self, name)[rows] for name in _COLUMNS})


_COLUMNS: dict[str, tuple[type[Any], Any]] = {
    "host": (np.int32, 0), "memory": (np.int32, 0), "source": (np.int32, 0), "destination": (np.int32, 0),
    "source_port": (np.uint16, 0), "destination_port": (np.uint16, 0), "protocol": (np.uint8, 6),
    "in_interface": (np.int32, -1), "out_interface": (np.int32, -1), "mark": (np.uint32, 0),
    "state": (np.uint8, STATE_NEW),
    "source_is_local": (np.bool_, False), "destination_is_local": (np.bool_, False), "connection": (np.uint64, None),
    "draw": (np.int32, 0), "length_bytes": (np.int64, 60), "packets": (np.int64, 1), "time_ps": (np.int64, 0),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a chain, or all chains of a hook, decided about each packet."""

    verdict: NDArray[np.uint8]  # [n] ACCEPT_BY_RULE, ACCEPT_BY_POLICY, DROP_BY_RULE, DROP_BY_POLICY, REJECT
    mark: NDArray[np.uint32]  # [n] the mark as it goes out
    destination: NDArray[np.int32]  # [n] DNAT: new destination's address id; -1: none; -2: the host's own (REDIRECT)
    destination_port: NDArray[np.int32]  # [n] DNAT: new destination port; -1: no DNAT
    snat_kind: NDArray[np.uint8]  # [n] SNAT_NONE, SNAT_MASQUERADE, SNAT_TO_SOURCE
    snat_source: NDArray[np.int32]  # [n] SNAT: new source's address id; -1: none, or MASQUERADE's own choice
    snat_port_first: NDArray[np.int32]  # [n] lowest port of the range asked for; -1: no range
    snat_port_last: NDArray[np.int32]  # [n] highest
    snat_random_fully: NDArray[np.bool_]  # [n] the port is always drawn anew
    rules_scanned: NDArray[np.int32]  # [n] rules that the kernel would have evaluated, in all chains walked
    endpoint_rules_scanned: NDArray[np.int32]  # [n] of them, those whose `statistic` match was asked and could say no
    rule: NDArray[np.int32]  # [n] the program's id of the rule or policy that decided
    draw: NDArray[np.int32]  # [n] draws of the connection used so far, those before included

    @classmethod
    def before(cls, packets: PacketColumns) -> Outcome:
        """Return the outcome of packets on which nothing has acted yet (verdict ACCEPT_BY_POLICY, no rule)."""
        count = len(packets)
        return cls(
            verdict=np.full(count, ACCEPT_BY_POLICY, np.uint8), mark=packets.mark.copy(),
            destination=np.full(count, NO_ADDRESS, np.int32), destination_port=np.full(count, -1, np.int32),
            snat_kind=np.zeros(count, np.uint8), snat_source=np.full(count, NO_ADDRESS, np.int32),
            snat_port_first=np.full(count, -1, np.int32), snat_port_last=np.full(count, -1, np.int32),
            snat_random_fully=np.zeros(count, np.bool_), rules_scanned=np.zeros(count, np.int32),
            endpoint_rules_scanned=np.zeros(count, np.int32), rule=np.full(count, -1, np.int32),
            draw=packets.draw.copy(),
        )  # fmt: skip

    def rows(self, rows: slice) -> Outcome:
        """Return views of a block of rows."""
        return Outcome(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    def columns(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield each column's name and array."""
        for column in fields(self):
            yield column.name, getattr(self, column.name)
