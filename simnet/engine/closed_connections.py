"""The connections that clients who wait will open next: which way each takes, found a good many at a time.

A connection's way depends on its number and its ports, not on when it opens, as long as no rule remembers others
(`refuse_memory`). So ways are found ahead, for all slots at once, and thrown away if they were never used.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path.itineraries import journeys_of
from simnet.dataplane.queueing.itinerary_table import ItineraryTable
from simnet.dataplane.queueing.stations import Itineraries
from simnet.engine.connections import Connections, Sender
from simnet.engine.stations import ClusterStations
from simnet.errors import InputError, Position, Problem
from simnet.model.flows import FlowBatch, PacketBatch
from simnet.model.recording import VERDICTS
from simnet.model.workload import ClosedLoop, Constant, EntryChoice
from simnet.workload.clients import pick_targets
from simnet.workload.closed_loop import source_ports_of
from simnet.workload.distributions import Law, quantile
from simnet.workload.generation import Generator

REJECTED = VERDICTS.index("rejected")
_AHEAD = 1 << 15  # connections looked up at a time, about


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Connections whose ways were found together."""

    flows: FlowBatch  # each with one packet; `flow_id` is the connection's number
    connections: Connections
    rules_ps: NDArray[np.int64]  # [n]
    flow_id: NDArray[np.int64]  # [n] dense number of the flow, once it has begun; -1


@dataclass(frozen=True, slots=True, eq=False)
class _Live:
    """A connection a row, slot by slot: `width` of each."""

    block: NDArray[np.int64]
    row: NDArray[np.int64]  # in its block
    first_way: NDArray[np.int32]  # of its first packet; -1: ends where it begins
    later_way: NDArray[np.int32]  # of those after it
    is_answered: NDArray[np.bool_]  # where no queue is full
    is_refused: NDArray[np.bool_]
    least_ps: NDArray[np.int64]  # there and back without transmission, queues and service


class ConnectionTable:
    """What is known of each slot's connections from `base` on, ordinal by ordinal."""

    def __init__(
        self,
        sender: Sender,
        stations: ClusterStations,
        generator: Generator,
        choice: EntryChoice,
        seed: int,
    ) -> None:
        loop, clients = generator.workload.arrivals, generator.workload.clients
        assert isinstance(loop, ClosedLoop)
        self.sender, self.stations, self.generator, self.choice, self.seed = sender, stations, generator, choice, seed
        self.per_client = loop.connections_per_client
        self.slots = clients.count * loop.connections_per_client
        self.blocks: dict[int, Block] = {}
        self._next_block = 0
        self.base = np.zeros(self.slots, np.int64)
        self.width = 0
        self.some_end_at_once = False  # a connection gets no further than its sender
        self._ways = ItineraryTable()
        none, no_way, no_flag = np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.bool_)
        self.live = _Live(none, none, no_way, no_way, no_flag, no_flag, none)

    def look_ahead(self, ordinal: NDArray[np.int64], furthest: NDArray[np.int64]) -> None:
        """Know each slot's connections from `ordinal` (-1: before the first) to `furthest`, int64[slots] each."""
        if (furthest - self.base < self.width).all():
            return
        base, before = np.maximum(ordinal, 0), self.width
        needed = int((furthest - base).max()) + 1
        width = max(needed, min(2 * before, _AHEAD // self.slots), 2)
        wanted = base[:, None] + np.arange(width)  # [slots, width] ordinals
        held = wanted - self.base[:, None]
        is_held = (held < before).ravel()
        slot = np.repeat(np.arange(self.slots), width)
        new = np.flatnonzero(~is_held)
        fresh = self._found(slot[new], wanted.ravel()[new])
        old = (slot * before + held.ravel())[is_held]
        columns = {}
        for name in (each.name for each in fields(_Live)):
            mine = getattr(self.live, name)[old]
            column = np.empty(len(slot), mine.dtype)
            column[is_held], column[new] = mine, getattr(fresh, name)
            columns[name] = column
        used = np.union1d(columns["first_way"], columns["later_way"])
        if 2 * len(used) < len(self._ways.ways):
            number = np.append(self._ways.keep(used[used >= 0]), np.int32(-1))  # -1 stays -1
            for name in ("first_way", "later_way"):
                columns[name] = number[columns[name]]
        self.live = _Live(**columns)
        self.some_end_at_once = bool((self.live.first_way < 0).any())
        self.base, self.width = base, width

    @property
    def itineraries(self) -> Itineraries:
        """The ways that the connections of `live` take."""
        return self._ways.ways

    def rows(self, slot: NDArray[np.int64], ordinal: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of connections in `live`."""
        return slot * self.width + ordinal - self.base[slot]

    def forget(self, used: NDArray[np.int64]) -> None:
        """Let go of blocks that nobody can use any more, but for those in `used`."""
        kept = set(np.unique(self.live.block).tolist()) | set(np.unique(used).tolist())
        self.blocks = {number: block for number, block in self.blocks.items() if number in kept}

    def _found(self, slot: NDArray[np.int64], ordinal: NDArray[np.int64]) -> _Live:
        """Find the ways of connections, and keep them as a block."""
        n, sender, generator = len(slot), self.sender, self.generator
        number = (ordinal * self.slots + slot).astype(np.uint64)
        client = (slot // self.per_client).astype(np.int32)
        targets = sender.targets
        once = np.arange(n)
        flows = FlowBatch(
            flow_id=number,
            start_ps=np.zeros(n, np.int64),
            client=client,
            source_port=source_ports_of(self.seed, slot, ordinal, self.per_client),
            protocol=np.full(n, generator.workload.protocol, np.uint8),
            target=pick_targets(self.choice, len(targets.names), self.seed, number, client, fixed_target=targets.fixed),
            packet_count=np.ones(n, np.int32),
            first_packet=once,
            stream=slot.astype(np.uint64),
            first_draw=np.zeros(n, np.int64),
        )
        sizes = (_least(generator.packet_size), 0 if generator.reply_size is None else _least(generator.reply_size))
        packets = PacketBatch(0, once.astype(np.int32), flows.start_ps, *(np.full(n, size, np.int32) for size in sizes))
        zeros = np.zeros(n, np.int64)
        made = sender.connect(flows, packets, once, zeros, once, once + 1, zeros)
        journeys = journeys_of(sender.compiled.network, self.stations.numbers, made.request, made.reply)
        block, ways = self._next_block, journeys.later
        self.blocks[block] = Block(flows, made, journeys.rules_ps, np.full(n, -1, np.int64))
        self._next_block += 1
        step_ps = np.concatenate([ways.fixed_ps + self.stations.stations.delay_ps[ways.station], [0]])
        summed = np.concatenate([[0], np.cumsum(step_ps)])
        return _Live(
            block=np.full(n, block, np.int64),
            row=once,
            first_way=self._ways.add(journeys.first),
            later_way=self._ways.add(journeys.later),
            is_answered=made.answered,
            is_refused=made.request.verdict == REJECTED,
            least_ps=summed[ways.start[1:]] - summed[ways.start[:-1]],
        )


def refuse_memory(sender: Sender) -> None:
    """Raise InputError where the way of a connection would depend on which came before it."""
    if sender.compiled.network.remembers:
        raise InputError([memory_refused("rules")])


def memory_refused(what: str) -> Problem:
    """Return what a user is told whose rules (or the services `what`) remember who called before."""
    return Problem(
        Position(""),
        "workload.requests.closedLoop",
        f"{what}: who called before decides (sessionAffinity: ClientIP, or statisticMode: nth)",
        "rules that take each connection by itself, since ways are found before it is known who calls first",
        "take sessionAffinity and statisticMode: nth away, or closedLoop",
    )


def _least(law: Law) -> int:
    """The smallest size: an MTU stops a connection only if all of its packets are too large."""
    if isinstance(law.distribution, Constant):
        return int(law.distribution.value)
    return int(quantile(law, np.full(1, 2.0**-53))[0])
