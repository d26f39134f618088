"""A window of flows through the data plane: which connections they become, where each goes, and what that costs.

A flow is one connection as long as conntrack remembers it. A UDP flow that pauses longer than its entry lives is
translated anew (a second connection of the same flow, with draws of its own); entries of TCP and SCTP outlive any
pause that is modelled. Source: net/netfilter/nf_conntrack_proto_udp.c; sysctls nf_conntrack_udp_timeout 30 s and
udp_timeout_stream 120 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path import hooks, walk
from simnet.dataplane.path.columns import ConnectionBatch, Header, Way
from simnet.dataplane.path.entries import UDP_STREAM_AGE_PS, UDP_STREAM_TIMEOUT_PS, UDP_TIMEOUT_PS
from simnet.dataplane.path.hooks import HookState
from simnet.dataplane.path.tracked import RANK_BITS
from simnet.dataplane.path.wires import PathCost, path_cost
from simnet.dataplane.versions import NEVER
from simnet.engine.network import CompiledCluster
from simnet.engine.targets import Callers, Targets
from simnet.model.flows import FlowBatch, PacketBatch
from simnet.model.recording import VERDICTS
from simnet.model.workload import UDP

DELIVERED = VERDICTS.index("delivered")


@dataclass(frozen=True, slots=True, eq=False)
class Connections:
    """Connections with their fate; row i of every column is one. No flow has two of them.

    Where tables change, a connection may come in stretches: some of its packets that meet one fate are a row.
    """

    flow: NDArray[np.intp]  # [n] row in the FlowBatch
    rank: NDArray[np.int64]  # [n] 0: the flow's first connection, 1: its second, ...
    first_packet: NDArray[np.int64]  # [n] row in the PacketBatch
    end_packet: NDArray[np.int64]  # [n] one past its last packet
    sent_before: NDArray[np.int64]  # [n] packets of the flow before this connection
    called: Header
    request: Way
    reply: Way | None  # None: the workload has no replies
    request_cost: PathCost
    reply_cost: PathCost | None
    opens: NDArray[np.bool_]  # [n] its first packet opened the connection; False: more of one that was open

    @property
    def delivered(self) -> NDArray[np.bool_]:
        """Which were delivered: bool[n]."""
        delivered: NDArray[np.bool_] = self.request.verdict == DELIVERED
        return delivered

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which got their answer from where they had called: bool[n]."""
        if self.reply is None:
            return np.zeros(len(self.flow), dtype=np.bool_)
        answered: NDArray[np.bool_] = self.reply.verdict == DELIVERED
        return answered


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Flows with packets still to send, each with the rank of its next connection and what it has sent before."""

    flows: FlowBatch
    packets: PacketBatch
    rank: NDArray[np.int64]  # [flows]
    sent_before: NDArray[np.int64]  # [flows]

    @property
    def start_ps(self) -> NDArray[np.int64]:
        """When each flow's next packet is sent: int64[flows]."""
        start_ps: NDArray[np.int64] = self.packets.arrival_ps[self.flows.first_packet - self.packets.first_packet_id]
        return start_ps

    def rest(self, rows: NDArray[np.intp], start: NDArray[np.int64]) -> Part:
        """Return these flows, each from packet `start` (a row) on."""
        flows = self.flows
        first = flows.first_packet[rows] - self.packets.first_packet_id
        count = first + flows.packet_count[rows] - start
        owner, kept = spread(start, start + count)
        columns = {column.name: getattr(flows, column.name)[rows] for column in fields(flows)}
        columns |= {"packet_count": count.astype(np.int32), "first_packet": np.cumsum(count) - count}
        packets = self.packets
        return Part(
            FlowBatch(**columns),
            PacketBatch(
                0,
                owner.astype(np.int32),
                packets.arrival_ps[kept],
                packets.size_bytes[kept],
                packets.reply_size_bytes[kept],
            ),
            self.rank[rows],
            self.sent_before[rows] + start - first,
        )

    @classmethod
    def side_by_side(cls, parts: list[Part]) -> Part:
        """Return the flows of all parts, part by part."""
        if len(parts) == 1:
            return parts[0]
        packets_before = np.cumsum([0, *(len(part.packets) for part in parts)]).tolist()
        flows_before = np.cumsum([0, *(len(part.flows) for part in parts)]).tolist()
        flows = {
            column.name: np.concatenate([getattr(part.flows, column.name) for part in parts])
            for column in fields(FlowBatch)
        }
        flows["first_packet"] = np.concatenate(
            [
                part.flows.first_packet - part.packets.first_packet_id + before
                for part, before in zip(parts, packets_before[:-1], strict=True)
            ]
        )
        packets = {
            name: np.concatenate([getattr(part.packets, name) for part in parts])
            for name in ("arrival_ps", "size_bytes", "reply_size_bytes")
        }
        packets["flow"] = np.concatenate(
            [part.packets.flow + before for part, before in zip(parts, flows_before[:-1], strict=True)]
        ).astype(np.int32)
        return cls(
            FlowBatch(**flows),
            PacketBatch(0, **packets),
            np.concatenate([part.rank for part in parts]),
            np.concatenate([part.sent_before for part in parts]),
        )

    @classmethod
    def joined(cls, parts: list[Part]) -> Part:
        """Return the flows of all parts in the order of their next packets; the older flow first at equal times."""
        whole = cls.side_by_side(parts)
        order = np.lexsort((whole.flows.flow_id, whole.start_ps))
        return whole.rest(order, (whole.flows.first_packet - whole.packets.first_packet_id)[order])


Sent = tuple[FlowBatch, PacketBatch, Connections]


class Sender:
    """Sends windows of flows through the data plane. `state`, what rules remember and count, is advanced in place."""

    def __init__(
        self,
        compiled: CompiledCluster,
        callers: Callers,
        targets: Targets,
        state: HookState,
        seed: int,
        *,
        has_replies: bool,
    ) -> None:
        self.compiled, self.callers, self.targets = compiled, callers, targets
        self.state, self.seed, self.has_replies = state, seed, has_replies
        self._waiting: list[Part] = []  # forgotten flows whose next connection comes after the windows so far

    def send(self, flows: FlowBatch, packets: PacketBatch) -> Iterator[Sent]:
        """Yield the connections of a window, and those of earlier flows that begin while it lasts."""
        if self._is_order_free(flows):
            yield from self._send_by_rank(flows, packets)
            return
        none = np.zeros(len(flows), np.int64)
        self._waiting.append(Part(flows, packets, none, none))
        yield from self._send_in_order(int(flows.start_ps[-1]))

    def finish(self) -> Iterator[Sent]:
        """Yield the connections that begin after the last window."""
        yield from self._send_in_order(np.iinfo(np.int64).max)

    @property
    def settled_until_ps(self) -> int:
        """No packet sent before this time is still to come, but of flows that have not been handed over."""
        return NEVER

    def _is_order_free(self, flows: FlowBatch) -> bool:
        return not self.compiled.network.remembers or int(flows.protocol[0]) != UDP

    def _send_by_rank(self, flows: FlowBatch, packets: PacketBatch) -> Iterator[Sent]:
        """All first connections, then all second ones, and so on."""
        first = flows.first_packet - packets.first_packet_id
        rank, flow = 0, np.arange(len(flows))
        start, end = first, first + flows.packet_count
        while flow.size:
            ranks = np.full(len(flow), rank, dtype=np.int64)
            connections = self.connect(flows, packets, flow, ranks, start, end, start - first[flow])
            cut = connections.end_packet
            yield flows, packets, connections
            again = cut < end
            rank, flow, start, end = rank + 1, flow[again], cut[again], end[again]

    def _send_in_order(self, until_ps: int) -> Iterator[Sent]:
        """Connections that begin by `until_ps`, in slices so short that none is forgotten in the one it begins in."""
        while self._waiting:
            part = Part.joined(self._waiting)
            start_ps = part.start_ps
            slice_end = int(np.searchsorted(start_ps, start_ps[0] + UDP_TIMEOUT_PS, side="left"))
            due = min(slice_end, int(np.searchsorted(start_ps, until_ps, side="right")))
            first = part.flows.first_packet  # joined: rows of its packets
            later = np.arange(due, len(start_ps))
            self._waiting = [part.rest(later, first[later])] if later.size else []
            if not due:
                return
            rows = np.arange(due)
            now = part.rest(rows, first[rows]) if later.size else part
            start, end = now.flows.first_packet, now.flows.first_packet + now.flows.packet_count
            connections = self.connect(now.flows, now.packets, rows, now.rank, start, end, now.sent_before)
            yield now.flows, now.packets, connections
            again = np.flatnonzero(connections.end_packet < end)
            if again.size:
                rest = now.rest(again, connections.end_packet[again])
                self._waiting.append(replace(rest, rank=rest.rank + 1))

    def connect(
        self,
        flows: FlowBatch,
        packets: PacketBatch,
        flow: NDArray[np.intp],
        rank: NDArray[np.int64],
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        sent_before: NDArray[np.int64],
    ) -> Connections:
        """Return the connections that packets `start:end` (rows) of each of some flows make."""
        network = self.compiled.network
        batch = self.batch_of(flows, packets, flow, rank, start)
        request, visits = walk.send_request(network, batch, self.state, self.seed)
        reply = None
        if self.has_replies:
            reply = walk.send_reply(network, batch, request, visits, self.state, self.seed)
        opens = np.ones(len(flow), dtype=np.bool_)
        connections = self.connections(flow, rank, start, end, sent_before, batch, request, reply, opens)
        return replace(connections, end_packet=forgotten_at(self.compiled, flows, packets, connections))

    def connections(
        self,
        flow: NDArray[np.intp],
        rank: NDArray[np.int64],
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        sent_before: NDArray[np.int64],
        batch: ConnectionBatch,
        request: Way,
        reply: Way | None,
        opens: NDArray[np.bool_],
    ) -> Connections:
        """Return the connections whose ways are found, with what these cost."""
        wires = self.compiled.wires
        costs = path_cost(request, wires), None if reply is None else path_cost(reply, wires)
        return Connections(flow, rank, start, end, sent_before, batch.header, request, reply, *costs, opens)

    def batch_of(
        self,
        flows: FlowBatch,
        packets: PacketBatch,
        flow: NDArray[np.intp],
        rank: NDArray[np.int64],
        start: NDArray[np.int64],
    ) -> ConnectionBatch:
        """Return packet `start` (a row) of each of some flows, as callers send it."""
        callers, targets = self.callers, self.targets
        client, target = flows.client[flow], flows.target[flow]
        source = hooks.source_addresses(
            self.compiled.network, callers.place[client], callers.address[client], targets.address[target]
        )
        return ConnectionBatch(
            connection=flows.flow_id[flow] + (rank.astype(np.uint64) << np.uint64(RANK_BITS)),
            time_ps=packets.arrival_ps[start],
            origin=callers.place[client],
            header=Header(
                source=source,
                destination=targets.address[target],
                source_port=flows.source_port[flow].astype(np.int32),
                destination_port=targets.port[target],
                protocol=flows.protocol[flow],
            ),
            length_bytes=packets.size_bytes[start].astype(np.int64),
            reply_bytes=packets.reply_size_bytes[start].astype(np.int64),
        )


def forgotten_at(
    compiled: CompiledCluster, flows: FlowBatch, packets: PacketBatch, connections: Connections
) -> NDArray[np.int64]:
    """Return the packet before which each connection's entry had timed out; its end where that never happens: int64[n].

    The entry that counts is that of the first node on the way: it translates. An answer that comes by there renews it
    as a request does, so the pause is counted from the answer's return.
    """
    end = connections.end_packet.copy()
    if not len(flows) or int(flows.protocol[0]) != UDP:
        return end
    arrival_ps = packets.arrival_ps
    pause_ps = np.diff(arrival_ps, prepend=arrival_ps[:1])
    long = np.flatnonzero(pause_ps >= UDP_TIMEOUT_PS)  # packets that come after a pause, in any flow
    if not long.size:
        return end
    order = np.argsort(connections.first_packet, kind="stable")
    owner = order[np.searchsorted(connections.first_packet[order], long, side="right") - 1]
    inside = (long > connections.first_packet[owner]) & (long < connections.end_packet[owner])
    inside &= connections.request.rules_scanned[owner] > 0  # else no node has seen it
    long, owner = long[inside], owner[inside]
    if not long.size:
        return end
    reply = connections.reply
    answered = np.zeros(len(owner), dtype=np.bool_) if reply is None else reply.passed_first_node[owner]
    age_ps = arrival_ps[long - 1] - arrival_ps[connections.first_packet[owner]]
    lives_ps = np.where(answered & (age_ps > UDP_STREAM_AGE_PS), UDP_STREAM_TIMEOUT_PS, UDP_TIMEOUT_PS)
    lives_ps += np.where(answered, round_trip_ps(compiled, packets, connections, owner, long - 1), 0)
    forgotten = pause_ps[long] >= lives_ps
    np.minimum.at(end, owner[forgotten], long[forgotten])
    return end


def round_trip_ps(
    compiled: CompiledCluster,
    packets: PacketBatch,
    connections: Connections,
    rows: NDArray[np.intp],
    packet: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the time there and back of one packet of each of `rows`, nothing spent in the pod: int64[m]."""
    there = connections.request_cost.delay_ps(compiled.wires, rows, packets.size_bytes[packet].astype(np.int64))
    if connections.reply_cost is None:
        return there
    size_bytes = packets.reply_size_bytes[packet].astype(np.int64)
    return there + connections.reply_cost.delay_ps(compiled.wires, rows, size_bytes)


def spread(start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Return every number of every range start:end, range by range, after the range that it belongs to."""
    count = end - start
    owner = np.repeat(np.arange(len(start)), count)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return owner, start[owner] + within
