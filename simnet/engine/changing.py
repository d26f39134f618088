"""A window of flows through a network that changes while they live.

Most flows meet no change: their first packet's way is found at once for all of them (`walk.py`), and whoever has no
table on that way that changes before the flow's last answer is back has only that way. The others are sent anew, in
stretches: the first packet of a stretch walks by itself, past the entries that nodes hold by then, and those that
follow it share its fate until a table on the way changes. Packets under way at a change are a stretch each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path import tracked, walk
from simnet.dataplane.path.clock import Clock
from simnet.dataplane.path.columns import ConnectionBatch, Crossing, Header, NodePass, Way
from simnet.dataplane.path.entries import UDP_TIMEOUT_PS
from simnet.dataplane.path.hop_by_hop import REJECTED
from simnet.engine.connections import Connections, Sender, Sent, forgotten_at, spread
from simnet.model.flows import FlowBatch, PacketBatch
from simnet.model.workload import UDP


class ChangingSender(Sender):
    """Sends windows of flows through a data plane whose tables change. Rules that remember see flows window by window,
    within one in the order of sending but for those that are sent anew: they come last.
    """

    def send(self, flows: FlowBatch, packets: PacketBatch) -> Iterator[Sent]:
        """Yield the connections of a window, in stretches where tables change."""
        first = flows.first_packet - packets.first_packet_id
        end = first + flows.packet_count
        if self.compiled.network.remembers:
            anew = np.arange(len(flows))
        else:
            connections, holds = self._first_ways(flows, packets, first, end)
            kept = np.flatnonzero(holds)
            if kept.size:
                yield flows, packets, _rows_of(connections, kept)
            anew = np.flatnonzero(~holds)
        if anew.size:
            yield from self._stretches(flows, packets, anew, first[anew], end[anew])

    def finish(self) -> Iterator[Sent]:
        """Nothing waits between windows."""
        return iter(())

    def _first_ways(
        self, flows: FlowBatch, packets: PacketBatch, first: NDArray[np.int64], end: NDArray[np.int64]
    ) -> tuple[Connections, NDArray[np.bool_]]:
        """Every flow's first way by the tables in force then, and for which flows it is the only one."""
        network, flow = self.compiled.network, np.arange(len(flows))
        rank = np.zeros(len(flows), dtype=np.int64)
        batch = self.batch_of(flows, packets, flow, rank, first)
        clock = Clock(network, batch.length_bytes, batch.time_ps)
        request, visits = walk.send_request(network, batch, self.state, self.seed, clock)
        tracked.clean_up_of(network, batch, visits, clock)
        tracked.holds_for_stopped(network, request, clock, flow)
        reply = None
        if self.has_replies:
            back = Clock(network, batch.reply_bytes, clock.time_ps, clock.until_ps)
            reply = walk.send_reply(network, batch, request, visits, self.state, self.seed, back)
            tracked.holds_for_stopped(network, reply, back, flow)
        made = self.connections(flow, rank, first, end, first * 0, batch, request, reply, np.ones(len(flow), np.bool_))
        holds = packets.arrival_ps[end - 1] + self._longest_trip_ps(packets, made) < clock.until_ps
        holds &= forgotten_at(self.compiled, flows, packets, made) == end
        return made, holds

    def _stretches(
        self,
        flows: FlowBatch,
        packets: PacketBatch,
        flow: NDArray[np.intp],
        first: NDArray[np.int64],
        end: NDArray[np.int64],
    ) -> Iterator[Sent]:
        """Send these flows from their first packet on, all of them a stretch further at a time."""
        network = self.compiled.network
        states = tracked.FlowStates(network, flows.flow_id[flow])
        start, going = first.copy(), np.arange(len(flow))
        while going.size:
            closed = packets.arrival_ps[start[going]] >= states.reset_ps[going]
            over, going = going[closed], going[~closed]
            if over.size:
                batch = self.batch_of(flows, packets, flow[over], states.rank[over], start[over])
                yield (
                    flows,
                    packets,
                    self._after_reset(flow[over], states.rank[over], start[over], end[over], first[over], batch),
                )
            if not going.size:
                return
            batch = self.batch_of(flows, packets, flow[going], states.rank[going], start[going])
            sent = tracked.send(
                network, batch, going, states, self.state, self.seed,
                is_first=start[going] == first[going], has_replies=self.has_replies,
            )  # fmt: skip
            made = self.connections(
                flow[going], sent.rank.copy(), start[going], end[going], start[going] - first[going], batch,
                sent.request, sent.reply, sent.opens,
            )  # fmt: skip
            before_ps = np.minimum(sent.until_ps - self._longest_trip_ps(packets, made), states.reset_ps[going])
            cut = _cut(packets, made, before_ps, is_udp=int(flows.protocol[0]) == UDP)
            made = replace(made, end_packet=cut)
            yield flows, packets, made
            start[going] = cut
            going = going[cut < end[going]]

    def _after_reset(
        self,
        flow: NDArray[np.intp],
        rank: NDArray[np.int64],
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        first: NDArray[np.int64],
        batch: ConnectionBatch,
    ) -> Connections:
        """Packets that clients cannot send any more, since their connection was reset: rejected where they are."""
        ways = []
        for header in (batch.header, batch.header.reversed()):
            way = Way.start(header, batch.origin)
            way.end(np.arange(len(flow)), REJECTED, tracked.CONNECTION_RESET)
            ways.append(way)
        reply = ways[1] if self.has_replies else None
        opens = np.zeros(len(flow), dtype=np.bool_)
        return self.connections(flow, rank, start, end, start - first, batch, ways[0], reply, opens)

    def _longest_trip_ps(self, packets: PacketBatch, made: Connections) -> NDArray[np.int64]:
        """The time there and back that no packet of the window would exceed on each row's way: int64[n]."""
        wires, rows = self.compiled.wires, np.arange(len(made.flow))
        largest = np.full(len(rows), int(packets.size_bytes.max(initial=0)), dtype=np.int64)
        trip_ps = made.request_cost.delay_ps(wires, rows, largest)
        if made.reply_cost is not None:
            largest[:] = int(packets.reply_size_bytes.max(initial=0))
            trip_ps = trip_ps + made.reply_cost.delay_ps(wires, rows, largest)
        return trip_ps


def _cut(packets: PacketBatch, made: Connections, before_ps: NDArray[np.int64], *, is_udp: bool) -> NDArray[np.int64]:
    """Return where each stretch ends: before the first packet not sent before `before_ps`, int64[n].

    UDP entries time out, and the last packet before a pause says when: a pause near their timeouts begins a stretch,
    and the last packet of a stretch is one by itself.
    """
    end = made.end_packet.copy()
    owner, row = spread(made.first_packet + 1, made.end_packet)
    sent_ps = packets.arrival_ps[row]
    stops = sent_ps >= before_ps[owner]
    if is_udp:
        stops |= sent_ps - packets.arrival_ps[row - 1] >= UDP_TIMEOUT_PS // 2
    np.minimum.at(end, owner[stops], row[stops])
    if is_udp:
        end -= (end < made.end_packet) & (end - made.first_packet >= 2)
    return end


def _rows_of(made: Connections, rows: NDArray[np.intp]) -> Connections:
    """Some rows of connections as connections of their own."""
    if len(rows) == len(made.flow):
        return made
    position = np.full(len(made.flow), -1, dtype=np.intp)
    position[rows] = np.arange(len(rows))
    request = _way_rows(made.request, rows, position)
    reply = None if made.reply is None else _way_rows(made.reply, rows, position)
    cost, back = made.request_cost, made.reply_cost
    return Connections(
        made.flow[rows], made.rank[rows], made.first_packet[rows], made.end_packet[rows], made.sent_before[rows],
        made.called.take(rows), request, reply, cost.take(rows), None if back is None else back.take(rows),
        made.opens[rows],
    )  # fmt: skip


def _way_rows(way: Way, rows: NDArray[np.intp], position: NDArray[np.intp]) -> Way:
    columns: dict[str, object] = {}
    for column in fields(way):
        value = getattr(way, column.name)
        if isinstance(value, Header):
            columns[column.name] = value.take(rows)
        elif isinstance(value, list):
            columns[column.name] = [_step_rows(step, position) for step in value]
        else:
            columns[column.name] = value[rows]
    return Way(**columns)  # type: ignore[arg-type]


def _step_rows(step: Crossing | NodePass, position: NDArray[np.intp]) -> Crossing | NodePass:
    """A step of a walk with the rows that have a new position. It may be left with none."""
    at = np.flatnonzero(position[step.rows] >= 0)
    columns: dict[str, object] = {}
    for column in fields(step):
        value = getattr(step, column.name)
        if isinstance(value, Header):
            columns[column.name] = value.take(at)
        else:
            columns[column.name] = value[at] if isinstance(value, np.ndarray) else value
    columns["rows"] = position[step.rows[at]]
    return type(step)(**columns)  # type: ignore[arg-type]
