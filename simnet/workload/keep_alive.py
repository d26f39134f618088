"""Pools of connections: when each connection opens, and how many requests it carries.

A client keeps so many connections; each of these *slots* sends one request after the other, whatever becomes of them.
The request that would be one too many for its connection, or finds it too old, opens the slot's next one. Requests,
their times and sizes belong to the slot, so that they stay the same however often connections change: the spread of
requests over pods is all that differs.
Modelled: a limit of requests, a limit of age, looked at when a request is to be sent. Left out: requests that wait for
answers, several at a time on one connection, idle connections closed, pools that grow with demand, servers that close.
Source: RFC 9112, section 9.3 (persistence).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet import random_streams
from simnet.model.workload import Constant, KeepAlive
from simnet.workload.distributions import Law, mean_of, quantile, rounded_to_nearest

GAP = "workload/gap"
FIRST_REQUEST = "workload/first-request"

_REQUESTS_AT_A_TIME = 1 << 16
_LONGEST_ROW = 1 << 10  # so many gaps of an hour do not leave int64
_PACKETS_PER_WINDOW = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Pools:
    """What each slot does next; slot s belongs to client s // connections. Arrays are not changed in place."""

    next_request: NDArray[np.int64]  # [slots] number, in its slot, of the request that opens the next connection
    next_start_ps: NDArray[np.int64]  # [slots] when it is sent


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """Connections in order of opening; at equal times by slot."""

    slot: NDArray[np.int64]  # [n]
    first_request: NDArray[np.int64]  # [n] number in its slot of the request that opens it
    start_ps: NDArray[np.int64]  # [n]
    requests: NDArray[np.int64]  # [n]


def start_of_pools(keep_alive: KeepAlive, gap: Law, clients: int, seed: int) -> Pools:
    """Return the pools before the first request: each slot's comes within one mean gap, anywhere alike."""
    slots = clients * keep_alive.connections_per_client
    unit = random_streams.uniform(seed, FIRST_REQUEST, np.arange(slots, dtype=np.uint64))
    return Pools(np.zeros(slots, np.int64), (unit * mean_of(gap.distribution)).astype(np.int64))


def connections_opened(
    keep_alive: KeepAlive, gap: Law, seed: int, pools: Pools, *, until_ps: int, limit: int
) -> tuple[Opened, Pools]:
    """Return the next connections: those opened before `until_ps`, at most `limit` of them, and the pools after them.

    Requests of a connection are counted up to `keep_alive.until_ps`, where the clients stop.
    """
    until_ps = min(until_ps, keep_alive.until_ps)
    request, start_ps = pools.next_request.copy(), pools.next_start_ps.copy()
    # Longer steps find more than is needed, shorter ones take more rounds; no connection depends on them.
    step_ps = 1 + int(connection_ps(keep_alive, gap) * (limit / len(request) + 1))
    parts: list[tuple[NDArray[np.int64], ...]] = []
    found, horizon_ps = 0, int(start_ps.min(initial=until_ps))
    while found < limit and horizon_ps < until_ps:
        horizon_ps = min(horizon_ps + step_ps, until_ps)
        slot = np.flatnonzero(start_ps < horizon_ps)
        while slot.size:
            count, next_ps = _next(keep_alive, gap, seed, slot, request[slot], start_ps[slot])
            parts.append((slot, request[slot], start_ps[slot], count))
            found += slot.size
            request[slot] += count
            start_ps[slot] = next_ps
            slot = slot[next_ps < horizon_ps]
    if not parts:
        none = np.zeros(0, np.int64)
        return Opened(none, none, none, none), pools
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.lexsort((columns[1], columns[0], columns[2]))
    columns = [column[order] for column in columns]
    for column, following in ((request, columns[1]), (start_ps, columns[2])):
        # Too many were found: of each slot, the first that is left over. The last of equal indexes is assigned.
        column[columns[0][limit:][::-1]] = following[limit:][::-1]
    return Opened(*(column[:limit] for column in columns)), Pools(request, start_ps)


def connection_ps(keep_alive: KeepAlive, gap: Law) -> float:
    """Return about how long a connection lasts, in picoseconds, until the next one opens."""
    mean_ps = mean_of(gap.distribution)
    by_age = np.inf if keep_alive.max_age_ps is None else keep_alive.max_age_ps + mean_ps
    return float(min(keep_alive.requests_per_connection * mean_ps, by_age, keep_alive.until_ps))


def connections_per_window(keep_alive: KeepAlive, gap: Law, limit: int) -> int:
    """Return how many connections to handle at a time, at most `limit`, so that their requests fit into memory."""
    requests = connection_ps(keep_alive, gap) / mean_of(gap.distribution)
    return max(1, min(limit, int(_PACKETS_PER_WINDOW / max(requests, 1.0))))


def _next(
    keep_alive: KeepAlive,
    gap: Law,
    seed: int,
    slot: NDArray[np.int64],
    request: NDArray[np.int64],
    start_ps: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many requests each connection carries, and when the one after its last is sent: int64[n] each."""
    count, next_ps = np.zeros_like(start_ps), np.zeros_like(start_ps)
    end_ps = np.full_like(start_ps, keep_alive.until_ps)
    if keep_alive.max_age_ps is not None:
        np.minimum(end_ps, start_ps + keep_alive.max_age_ps, out=end_ps)
    row, now_ps, done = np.arange(len(slot)), start_ps, 1  # `done` requests of the connections in `row` are placed
    while row.size:
        width = min(keep_alive.requests_per_connection + 1 - done, _REQUESTS_AT_A_TIME // row.size, _LONGEST_ROW)
        width = max(width, 1)
        number = request[row, None] + done + np.arange(width)  # [row, width]
        sent_ps = now_ps[:, None] + np.cumsum(_gaps(gap, seed, slot[row, None], number), axis=1)
        is_over = sent_ps >= end_ps[row, None]
        if done + width > keep_alive.requests_per_connection:
            is_over[:, -1] = True
        first = np.argmax(is_over, axis=1)
        over = is_over[np.arange(row.size), first]
        count[row[over]] = done + first[over]
        next_ps[row[over]] = sent_ps[over, first[over]]
        row, now_ps, done = row[~over], sent_ps[~over, -1], done + width
    return count, next_ps


def _gaps(gap: Law, seed: int, slot: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the time before each request of each slot, int64[slot, request]: draw `number` of the slot."""
    if isinstance(gap.distribution, Constant):
        return np.full(number.shape, gap.distribution.value, np.int64)
    slots = np.broadcast_to(slot, number.shape).astype(np.uint64).ravel()
    drawn = random_streams.bits(seed, GAP, slots, number.astype(np.uint64).ravel())
    return rounded_to_nearest(quantile(gap, random_streams.open_unit_interval(drawn))).reshape(number.shape)
