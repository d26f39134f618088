"""A window of flows through a network that changes while they live.

Most flows meet no change: their first packet's way by the tables in force when it is sent is found at once for all of
them (`walk.py`), and whoever has no table on that way that changes before the flow's last answer is back has only that
way. The others go on in stretches, many windows' together: the first packet of a stretch walks by itself, past the
entries that nodes hold by then, and those that follow it share its fate until a table on the way changes. Packets under
way at a change are a stretch each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path import tracked, walk
from simnet.dataplane.path.clock import SendingClock, change_instants
from simnet.dataplane.path.columns import ConnectionBatch, Crossing, Header, NodePass, Way
from simnet.dataplane.path.entries import UDP_TIMEOUT_PS
from simnet.dataplane.path.hooks import HookState
from simnet.dataplane.path.hop_by_hop import REJECTED
from simnet.dataplane.versions import NEVER
from simnet.engine.connections import Connections, Part, Sender, Sent, forgotten_at
from simnet.engine.network import CompiledCluster
from simnet.engine.targets import Callers, Targets
from simnet.model.flows import FlowBatch, PacketBatch
from simnet.model.workload import UDP
from simnet.units import PS_PER_S

PACKETS_TO_WAIT = 1 << 20  # of flows that live through changes, before these are sent on
WIRES_AT_FIRST = 16  # assumed there and back until a way has been seen: decides only what is tried first


class ChangingSender(Sender):
    """Sends windows of flows through a data plane whose tables change. Flows that live through a change go on after
    their windows, several windows' at a time. Where rules remember they do so at once: these see flows window by
    window, within one in the order of sending but for the later stretches, which come last.
    """

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
        super().__init__(compiled, callers, targets, state, seed, has_replies=has_replies)
        self._next_ps = np.append(change_instants(compiled.network), NEVER)  # every change of any table
        self._trip_ps = 0  # longest time there and back so far
        self._living: list[Part] = []  # flows that live through a change; what they `sent_before` has its fate
        self._settled_until_ps = int(NEVER)

    def send(self, flows: FlowBatch, packets: PacketBatch) -> Iterator[Sent]:
        """Yield the connections of a window, and those of earlier flows that live through changes."""
        if self.compiled.network.remembers:
            yield from self._send_on(Part(flows, packets, *np.zeros((2, len(flows)), dtype=np.int64)))
            return
        yield from self._first_ways(flows, packets)
        if sum(len(part.packets) for part in self._living) >= PACKETS_TO_WAIT:
            yield from self.finish()

    def finish(self) -> Iterator[Sent]:
        """Yield what is left of flows that live through changes."""
        if self._living:
            living, self._living = Part.side_by_side(self._living), []
            yield from self._send_on(living)
            self._settled_until_ps = int(NEVER)

    @property
    def settled_until_ps(self) -> int:
        """No packet sent before this time is still to come, but of flows that have not been handed over."""
        return self._settled_until_ps

    def _first_ways(self, flows: FlowBatch, packets: PacketBatch) -> Iterator[Sent]:
        """Every flow's packets that meet the tables of its beginning; flows that have others are kept for later."""
        network = self.compiled.network
        first = flows.first_packet - packets.first_packet_id
        end = first + flows.packet_count
        start_ps, last_ps = flows.start_ps, packets.arrival_ps[end - 1]
        next_ps = self._next_ps[np.searchsorted(self._next_ps, start_ps, side="right")]
        likely_ps = self._trip_ps or self._assumed_trip_ps(packets)
        settled = np.zeros(len(flows), dtype=np.int64)  # packets whose fate is known
        flow = np.flatnonzero(next_ps > start_ps + likely_ps)  # else a table may change before the first is back
        if flow.size:
            rank, start = np.zeros(len(flow), dtype=np.int64), first[flow]
            batch = self.batch_of(flows, packets, flow, rank, start)
            until_ps = next_ps[flow]
            meets = np.flatnonzero(until_ps <= last_ps[flow] + likely_ps)  # a change, though perhaps not of its tables
            until_ps[meets] = NEVER
            clock = SendingClock(network, batch.time_ps, until_ps, meets)
            request, visits = walk.send_request(network, batch, self.state, self.seed, clock)
            tracked.clean_up_of(visits, clock)
            tracked.meet_ended_pods(request, clock)
            tracked.holds_for_stopped(network, request, clock, meets)
            reply = None
            if self.has_replies:
                reply = walk.send_reply(network, batch, request, visits, self.state, self.seed, clock)
                tracked.holds_for_stopped(network, reply, clock, meets)
            opens = np.ones(len(flow), dtype=np.bool_)
            made = self.connections(flow, rank, start, end[flow], rank, batch, request, reply, opens)
            trip_ps = self._longest_trip_ps(packets, made)
            self._trip_ps = max(self._trip_ps, int(trip_ps.max()))
            before_ps = clock.until_ps - trip_ps
            goes_on = (last_ps[flow] >= before_ps) | (forgotten_at(self.compiled, flows, packets, made) < end[flow])
            on = np.flatnonzero(goes_on & (batch.time_ps < before_ps))
            is_udp = int(flows.protocol[0]) == UDP
            made.end_packet[on] = _cut(packets, start[on], made.end_packet[on], before_ps[on], is_udp=is_udp)
            settled[flow] = made.end_packet - start
            late = np.flatnonzero(batch.time_ps >= before_ps)
            settled[flow[late]] = 0
            yield flows, packets, rows_of(made, np.flatnonzero(batch.time_ps < before_ps)) if late.size else made
        living = np.flatnonzero(settled < flows.packet_count)
        if living.size:
            earliest_ps = int(packets.arrival_ps[first[living] + settled[living]].min())
            self._settled_until_ps = min(self._settled_until_ps, earliest_ps)
            part = Part(flows, packets, np.zeros(len(flows), dtype=np.int64), settled)
            self._living.append(part if living.size == len(flows) else part.rest(living, first[living]))

    def _send_on(self, part: Part) -> Iterator[Sent]:
        """Send the packets of these flows after those that each has sent before, all flows a stretch further at a time.

        All packets of the flows are there; of the first of each it is found out again what entries it left.
        """
        network, flows, packets = self.compiled.network, part.flows, part.packets
        first = flows.first_packet - packets.first_packet_id
        end, start = first + flows.packet_count, first + part.sent_before
        states = tracked.FlowStates(network, flows.flow_id)
        known = np.flatnonzero(part.sent_before)
        if known.size:
            batch = self.batch_of(flows, packets, known, part.rank[known], first[known])
            counted_before = HookState.at_start(network.program)
            tracked.send(
                network, batch, known, states, counted_before, self.seed,
                is_first=np.ones(len(known), dtype=np.bool_), has_replies=self.has_replies,
            )  # fmt: skip
        going = np.arange(len(flows))
        while going.size:
            closed = packets.arrival_ps[start[going]] >= states.reset_ps[going]
            over, going = going[closed], going[~closed]
            if over.size:
                batch = self.batch_of(flows, packets, over, states.rank[over], start[over])
                yield (
                    flows,
                    packets,
                    self._after_reset(over, states.rank[over], start[over], end[over], first[over], batch),
                )
            if not going.size:
                return
            batch = self.batch_of(flows, packets, going, states.rank[going], start[going])
            sent = tracked.send(
                network, batch, going, states, self.state, self.seed,
                is_first=start[going] == first[going], has_replies=self.has_replies,
            )  # fmt: skip
            made = self.connections(
                going, sent.rank.copy(), start[going], end[going], start[going] - first[going], batch,
                sent.request, sent.reply, sent.opens,
            )  # fmt: skip
            before_ps = np.minimum(sent.until_ps - self._longest_trip_ps(packets, made), states.reset_ps[going])
            cut = _cut(packets, start[going], end[going], before_ps, is_udp=int(flows.protocol[0]) == UDP)
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
        wires = self.compiled.wires
        trip_ps = made.request_cost.longest_ps(wires, int(packets.size_bytes.max(initial=0)))
        if made.reply_cost is not None:
            trip_ps += made.reply_cost.longest_ps(wires, int(packets.reply_size_bytes.max(initial=0)))
        return trip_ps

    def _assumed_trip_ps(self, packets: PacketBatch) -> int:
        """A time there and back that few packets would exceed."""
        wires = self.compiled.wires
        largest = max(int(packets.size_bytes.max(initial=0)), int(packets.reply_size_bytes.max(initial=0)))
        slowest_ps = largest * 8 * PS_PER_S // int(wires.rate_bps.min())
        return WIRES_AT_FIRST * (int(wires.delay_ps.max()) + slowest_ps)


def _cut(
    packets: PacketBatch,
    first: NDArray[np.int64],
    end: NDArray[np.int64],
    before_ps: NDArray[np.int64],
    *,
    is_udp: bool,
) -> NDArray[np.int64]:
    """Return where each stretch that begins at `first` ends: before the first later packet not sent before `before_ps`.

    UDP entries time out, and the last packet before a pause says when: a pause near their timeouts begins a stretch,
    and the last packet of a stretch is one by itself.
    """
    cut, high = first + 1, end.copy()  # all before `cut` are sent before, none from `high` on is
    while (open_ := np.flatnonzero(cut < high)).size:
        middle = (cut[open_] + high[open_]) >> 1
        is_before = packets.arrival_ps[middle] < before_ps[open_]
        cut[open_[is_before]] = middle[is_before] + 1
        high[open_[~is_before]] = middle[~is_before]
    if is_udp:
        pause_ps = np.diff(packets.arrival_ps, prepend=packets.arrival_ps[:1])
        after_pause = np.append(np.flatnonzero(pause_ps >= UDP_TIMEOUT_PS // 2), len(packets))
        np.minimum(cut, after_pause[np.searchsorted(after_pause, first + 1)], out=cut)
        cut -= (cut < end) & (cut - first >= 2)
    return cut


def rows_of(made: Connections, rows: NDArray[np.intp]) -> Connections:
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
