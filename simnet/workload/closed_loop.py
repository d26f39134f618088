"""Clients that wait for answers: what each of their requests is, whenever it will be sent.

A client keeps so many connections; each of these *slots* has one request under way at most. When a request is sent
depends on answers, and so on queues; what it is does not. Every number belongs to the slot and to the number of the
request in it, tries included: a retry is the same request, as large and as much work. So variants meet the same
requests, as far as they come. A connection's number is `ordinal * slots + slot`, its `ordinal` counted in its slot.
Left out: several requests at a time on a connection (HTTP/2 streams), pools that grow with demand.
Source: RFC 9112, 9.2 and 9.3 (answers belong to requests by order alone; persistence); docs/models/closed-loop.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet import random_streams
from simnet.model.workload import Constant
from simnet.workload.clients import EPHEMERAL_PORT_LOW, EPHEMERAL_PORTS, FIRST_PORT
from simnet.workload.distributions import Law, quantile, rounded_to_nearest
from simnet.workload.generation import PACKET_SIZE, REPLY_SIZE, Generator, service_times, whole_numbers
from simnet.workload.keep_alive import GAP

BACKOFF = "workload/backoff"
_TRY_BITS = 7  # MAX_RETRIES is below 2**7


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """Requests `first[s]` ... `first[s] + width - 1` of every slot s; shapes [slots, width]."""

    first: NDArray[np.int64]  # [slots]
    think_ps: NDArray[np.int64]  # before the request, at least 1
    service_ps: NDArray[np.int64]
    request_bytes: NDArray[np.int64]
    reply_bytes: NDArray[np.int64]

    @property
    def width(self) -> int:
        """How many requests of each slot are there."""
        return int(self.think_ps.shape[1])


def requests_of(generator: Generator, seed: int, first: NDArray[np.int64], width: int) -> Requests:
    """Return the next `width` requests of every slot, from `first` on."""
    slots = len(first)
    number = (first[:, None] + np.arange(width)).astype(np.uint64).ravel()
    slot = np.repeat(np.arange(slots, dtype=np.uint64), width)
    sizes = [
        np.zeros(len(slot), np.int64) if law is None else whole_numbers(law, seed, purpose, slot, number)
        for law, purpose in ((generator.packet_size, PACKET_SIZE), (generator.reply_size, REPLY_SIZE))
    ]
    columns = (
        waits(generator.gap, seed, GAP, slot, number),
        service_times(generator, seed, slot, number),
        *(size.astype(np.int64) for size in sizes),
    )
    return Requests(first.copy(), *(column.reshape(slots, width) for column in columns))


def waits(law: Law, seed: int, purpose: str, slot: NDArray[np.uint64], number: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return a time per (slot, number), int64[n]; at least 1 ps, so that what follows an answer comes after it."""
    if isinstance(law.distribution, Constant):
        return np.full(len(slot), max(int(law.distribution.value), 1), np.int64)
    unit = random_streams.open_unit_interval(random_streams.bits(seed, purpose, slot, number))
    return np.maximum(rounded_to_nearest(quantile(law, unit)), 1)


def backoffs(
    law: Law, seed: int, slot: NDArray[np.int64], request: NDArray[np.int64], tries: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return how long each client waits after `tries` tries of a request until the next one: int64[n], at least 1."""
    number = (request << _TRY_BITS) + tries
    return waits(law, seed, BACKOFF, slot.astype(np.uint64), number.astype(np.uint64))


def source_ports_of(
    seed: int, slot: NDArray[np.int64], ordinal: NDArray[np.int64], connections_per_client: int
) -> NDArray[np.uint16]:
    """Return the source port of each connection: 32768 + (start of the client + number) mod 28232, uint16[n].

    The slots of a client count in turns, each for itself, since which of them opens its next connection first is not
    known yet: number = ordinal * connections of the client + place of the slot among them.
    """
    client, place = slot // connections_per_client, slot % connections_per_client
    start = random_streams.bits(seed, FIRST_PORT, client.astype(np.uint64)) % np.uint64(EPHEMERAL_PORTS)
    number = start.astype(np.int64) + ordinal * connections_per_client + place
    return (EPHEMERAL_PORT_LOW + number % EPHEMERAL_PORTS).astype(np.uint16)
