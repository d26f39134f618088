"""Packets as columns: what the queue solvers pass from one window to the next."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.stations import Left

Columns = dict[str, NDArray[Any]]  # all of one length; row i of every column is one packet

BEGUN = ("packet", "way", "at", "time_ps", "request_bytes", "reply_bytes", "drawn_ps", "after")
# What a packet has met so far; waits on links are what remains of its latency.
SO_FAR = ("injected_ps", "turned_ps", "cpu_wait_ps", "pod_wait_ps", "link_ps", "cpu_ps", "pod_ps")


def none() -> Columns:
    """No packets."""
    return {name: np.zeros(0, np.int64) for name in (*BEGUN, *SO_FAR)}


def rows(columns: Columns, chosen: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Columns:
    """The chosen packets."""
    return {name: column[chosen] for name, column in columns.items()}


def joined(parts: list[Columns]) -> Columns:
    """All packets of the parts, in the columns that they share."""
    whole = [part for part in parts if len(part["packet"])] or parts[:1]
    if len(whole) == 1:
        return dict(whole[0])
    names = whole[0].keys() & whole[1].keys()
    return {name: np.concatenate([part[name] for part in whole]) for name in names}


def appended(held: Columns, more: Columns) -> Columns:
    """The packets of both, in the columns of `more`; `held` may be empty."""
    return {name: np.concatenate([held[name], more[name]]) for name in more} if held else more


def started(columns: Columns) -> Columns:
    """Add what a packet has met so far, which is nothing."""
    zeros = {name: np.zeros(len(columns["packet"]), np.int64) for name in SO_FAR}
    begun = {name: column for name, column in columns.items() if name in BEGUN}
    return begun | zeros | {"injected_ps": columns["time_ps"], "turned_ps": zeros["turned_ps"] - 1}


def left_at_once(packet: NDArray[np.int64], time_ps: NDArray[np.int64]) -> Left:
    """Packets that end where they begin: they visit no station."""
    none, zeros = np.full(len(packet), -1), np.zeros((3, len(packet)), np.int64)
    return Left(packet, time_ps, none.astype(np.int32), none, zeros, zeros, zeros[0])


def in_order(parts: list[Left]) -> Left:
    """Join what several windows let go, in order of ids."""
    none = np.zeros(0, np.int64)
    if not parts:
        empty = np.zeros((3, 0), np.int64)
        return Left(none, none, none.astype(np.int32), none, empty, empty, none)
    if len(parts) == 1 and (parts[0].packet[1:] > parts[0].packet[:-1]).all():
        return parts[0]
    packet = np.concatenate([part.packet for part in parts])
    order = np.argsort(packet, kind="stable")
    moved = np.flatnonzero(order != np.arange(len(order)))  # a few at each cut
    source = order[moved]

    def column(name: str) -> NDArray[np.int64]:
        joined: NDArray[np.int64] = np.concatenate([getattr(part, name) for part in parts], axis=-1)
        for row in joined if joined.ndim == 2 else [joined]:
            row[moved] = row[source]
        return joined

    names = ("packet", "time_ps", "dropped_at", "turned_ps", "waited_ps", "served_ps", "travelled_ps")
    left: dict[str, Any] = {name: column(name) for name in names}
    return Left(**left)
