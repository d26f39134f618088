"""Packets of flows that have been under way before: each node translates by the entry that it holds, or anew.

Needed where tables change while a flow lives; without changes, later packets simply follow the first one (`walk.py`).
Modelled, beside what `entries.py` says: TCP and SCTP segments that no node knows are picked up as new connections
(net.netfilter.nf_conntrack_tcp_loose = 1), and a pod answers with a reset what belongs to no connection of its own.
Left out: the reset's own way back.
Source: net/netfilter/nf_conntrack_proto_tcp.c; RFC 9293, 3.5.2; docs/models/events.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.forwarding.step import Step
from simnet.dataplane.path import hooks
from simnet.dataplane.path.clock import Clock
from simnet.dataplane.path.columns import ConnectionBatch, Visit, Way
from simnet.dataplane.path.entries import Entries
from simnet.dataplane.path.hop_by_hop import (
    DELIVERED,
    DROPPED,
    PORT_CLOSED,
    REJECTED,
    REPLY_BYPASSED,
    Group,
    Walk,
)
from simnet.dataplane.path.network import NODE, Network
from simnet.dataplane.versions import NEVER
from simnet.model.recording import REASONS

Rows = NDArray[np.intp]

CONNECTION_RESET = REASONS.index("connection reset")
UDP = 17
RANK_BITS = 40  # connection number = flow id + rank << 40: flows below 10**12


class FlowStates:
    """What nodes and pods know of some flows, advanced in place; flows are numbered from 0 here."""

    def __init__(self, network: Network, flow_id: NDArray[np.uint64]) -> None:
        count = len(flow_id)
        self.flow_id = flow_id
        self.rank = np.zeros(count, dtype=np.int64)  # of the flow's connection: times it was translated anew
        self.tracked = np.zeros(count, dtype=np.bool_)  # a node has seen it
        empty = np.zeros(0, dtype=np.int64)
        self.entries = Entries(count, Clock(network, empty, empty).works_since)
        # The socket that a TCP or SCTP flow is connected to: place (-1: none yet), source and ports seen there
        self.socket = np.full((4, count), -1, dtype=np.int32)
        self.connected_ps = np.full(count, NEVER, dtype=np.int64)
        self.reset_ps = np.full(count, NEVER, dtype=np.int64)  # from then on the client sends nothing more

    def connection(self, flow: Rows) -> NDArray[np.uint64]:
        """Return the number that the draws of each flow's present connection are made from."""
        numbers: NDArray[np.uint64] = self.flow_id[flow] + (self.rank[flow].astype(np.uint64) << np.uint64(RANK_BITS))
        return numbers


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """What became of one packet of each of some flows."""

    request: Way
    reply: Way | None  # None: the workload has no replies
    opens: NDArray[np.bool_]  # [n] it opened a connection
    rank: NDArray[np.int64]  # [n] of its connection
    arrived_ps: NDArray[np.int64]  # [n] when the request ended
    until_ps: NDArray[np.int64]  # [n] packets whose whole way ends before meet the same fate


def send(
    network: Network,
    batch: ConnectionBatch,
    flow: Rows,
    states: FlowStates,
    memory: hooks.HookState,
    seed: int,
    *,
    is_first: NDArray[np.bool_],
    has_replies: bool,
) -> Sent:
    """Send one packet of each of some flows, and the answers of those delivered.

    Parameters
    ----------
    batch : the packets; `connection` is overwritten with the number of the connection that each belongs to
    flow : intp[n], distinct, numbers in `states`; nothing of these flows may still be under way
    is_first : bool[n], the packet is the first of its flow
    """
    batch.connection[:] = states.connection(flow)
    clock = Clock(network, batch.length_bytes, batch.time_ps)
    request = Way.start(batch.header.copy(), batch.origin)
    there = _TrackedWalk(network, batch, request, memory, seed, clock, flow, states, is_first=is_first)
    there.run(np.arange(len(batch)))
    there.close()
    meet_ended_pods(request, clock)
    _meet_sockets(network, batch, request, flow, states, clock)
    reply = None
    if has_replies:
        back_clock = Clock(network, batch.reply_bytes, clock.time_ps, clock.until_ps)
        reply = Way.start(request.header.reversed(), request.place)
        delivered = request.verdict == DELIVERED
        reply.verdict[~delivered] = request.verdict[~delivered]
        reply.reason[~delivered] = request.reason[~delivered]
        reply.draws[:] = request.draws
        back = _TrackedWalk(network, batch, reply, memory, seed, back_clock, flow, states, is_reply=True)
        back.run(np.flatnonzero(delivered))
        back.close()
        came_back = delivered & (reply.verdict == DELIVERED)
        as_called = reply.header.equals(batch.header.reversed()) & (reply.place == batch.origin)
        reply.end(np.flatnonzero(came_back & ~as_called), DROPPED, REPLY_BYPASSED)
    return Sent(request, reply, there.opens, states.rank[flow], clock.time_ps, clock.until_ps)


def holds_for_stopped(network: Network, way: Way, clock: Clock, rows: Rows) -> None:
    """What a node stopped, it may let pass once it has other tables: take note for those of `rows`."""
    place = way.place[rows]
    stopped = (way.verdict[rows] != DELIVERED) & (place < network.device_count)
    rows, place = rows[stopped], place[stopped]
    at_node = network.device_kind[place] == NODE
    rows, place = rows[at_node], place[at_node]
    family = network.is_ipv6[way.header.destination[rows]].astype(np.intp)
    clock.holds_until(rows, clock.next_tables(rows, place, family))


def meet_ended_pods(request: Way, clock: Clock) -> None:
    """Reject what comes to a pod whose processes have ended, and take note until when the others' run."""
    if clock.changes.pods.any:
        rows = np.flatnonzero(request.verdict == DELIVERED)
        request.end(rows[~clock.runs(rows, request.place[rows])], REJECTED, PORT_CLOSED)


def _meet_sockets(
    network: Network, batch: ConnectionBatch, request: Way, flow: Rows, states: FlowStates, clock: Clock
) -> None:
    """Connect TCP and SCTP flows to the pods they reach first; reset what comes to another one, or from elsewhere, and
    all of a pod when its processes end.
    """
    rows = np.flatnonzero((request.verdict == DELIVERED) & (batch.header.protocol != UDP))
    header, which = request.header, flow[rows]
    seen = np.stack(
        [request.place[rows], header.source[rows], header.source_port[rows], header.destination_port[rows]]
    ).astype(np.int32)
    now_ps = clock.time_ps[rows]
    is_new = states.socket[0, which] < 0
    states.socket[:, which[is_new]] = seen[:, is_new]
    states.connected_ps[which[is_new]] = now_ps[is_new]
    since_ps = clock.works_since(network.place_device[request.place[rows]], now_ps)
    strange = (states.socket[:, which] != seen).any(axis=0) | (states.connected_ps[which] < since_ps)
    request.end(rows[strange], REJECTED, CONNECTION_RESET)
    states.reset_ps[which[strange]] = np.minimum(states.reset_ps[which[strange]], now_ps[strange])
    pods, place = clock.changes.pods, request.place[rows]
    mortal = np.flatnonzero(pods.changes[place])
    if mortal.size:
        ends_ps = pods.end_ps[pods.at(place[mortal], now_ps[mortal])]
        states.reset_ps[which[mortal]] = np.minimum(states.reset_ps[which[mortal]], ends_ps)


class _TrackedWalk(Walk):
    """One packet of each flow, or its answer, past nodes that may hold entries of the flow."""

    def __init__(
        self,
        network: Network,
        batch: ConnectionBatch,
        way: Way,
        memory: hooks.HookState,
        seed: int,
        clock: Clock,
        flow: Rows,
        states: FlowStates,
        *,
        is_first: NDArray[np.bool_] | None = None,
        is_reply: bool = False,
    ) -> None:
        super().__init__(network, batch, way, memory, seed, clock)
        self.now, self.flow, self.states, self.entries, self.is_reply = clock, flow, states, states.entries, is_reply
        self.size_bytes = batch.reply_bytes if is_reply else batch.length_bytes
        n = len(batch)
        self.undecided = np.full(n, not is_reply, dtype=np.bool_)  # no node has said yet whether it knows the flow
        self.opens = np.zeros(n, dtype=np.bool_) if is_first is None else is_first.copy()
        # At the node where each row is:
        self.slot = np.full(n, -1, dtype=np.intp)  # of its entry; -1: none, as of an answer that nobody expects
        self.is_fresh = np.zeros(n, dtype=np.bool_)  # the entry was made for it
        self.is_answer = np.zeros(n, dtype=np.bool_)  # it goes the answer's way
        self.made: list[tuple[Rows, Rows]] = []  # rows and slots of all entries made

    def send_from_node(self, rows: Rows) -> None:
        """Send from a process of a node; what has no route makes no entry."""
        step = self.look_up(rows)
        routable = (step.kind == Step.FORWARD) | (step.kind == Step.LOCAL)
        self.end_unroutable(rows[~routable], step.kind[~routable])
        rows = rows[routable]
        if rows.size:
            group = self.recognise(rows, sent_here=True)
            with self.noted(group):
                self.leave_or_deliver(self.pass_hook("OUTPUT", group))

    def recognise(self, rows: Rows, *, sent_here: bool) -> Group:
        """Find or make the entry of each row at its node, and translate the destination as it says."""
        way, entries, flow = self.way, self.entries, self.flow[rows]
        before, place, now_ps = way.header.take(rows), way.place[rows], self.now.time_ps[rows]
        is_udp = before.protocol == UDP
        slot, is_answer = entries.find(flow, place, before, now_ps)
        is_fresh = slot < 0
        self._number(rows, flow, is_fresh)
        untracked = is_fresh & ~is_udp if self.is_reply else np.zeros(len(rows), dtype=np.bool_)
        is_fresh &= ~untracked
        new = np.flatnonzero(is_fresh)
        slot[new] = entries.add(flow[new], place[new], before.take(new), now_ps[new])
        self.made.append((rows[new], slot[new]))
        self.slot[rows], self.is_fresh[rows], self.is_answer[rows] = slot, is_fresh, is_answer
        entries.replied[slot[is_answer], flow[is_answer]] = True
        known = np.flatnonzero(slot >= 0)
        entries.renew(slot[known], flow[known], now_ps[known], is_udp[known])
        self.now.holds_until(rows[known], entries.gone_ps[slot[known], flow[known]])
        back, forth = np.flatnonzero(is_answer), np.flatnonzero((slot >= 0) & ~is_fresh & ~is_answer)
        way.header.destination[rows[back]] = entries.original_column("source", slot[back], flow[back])
        way.header.destination_port[rows[back]] = entries.original_column("source_port", slot[back], flow[back])
        self._translate_destination_again(rows[forth], slot[forth], flow[forth])
        state = np.full(len(rows), hooks.NEW, dtype=np.uint8)
        state[forth] = hooks.SEEN_BEFORE
        replied = np.zeros(len(rows), dtype=np.bool_)
        replied[known] = entries.replied[slot[known], flow[known]]
        state[is_answer | replied] = hooks.ESTABLISHED
        state[untracked] = hooks.INVALID
        return Group(rows, before, state)

    def _number(self, rows: Rows, flow: Rows, is_fresh: NDArray[np.bool_]) -> None:
        """The first node on the way says whether the flow was forgotten, and so whether a new connection begins."""
        states = self.states
        asked = self.undecided[rows]
        anew = asked & is_fresh & states.tracked[flow]
        states.rank[flow[anew]] += 1
        self.opens[rows[anew]] = True
        self.batch.connection[rows[asked]] = states.connection(flow[asked])
        states.tracked[flow[asked]] = True
        self.undecided[rows] = False

    def _translate_destination_again(self, rows: Rows, slot: Rows, flow: Rows) -> None:
        way = self.way
        address, port = self.entries.new_destination[:, slot, flow]
        rewritten = address >= 0
        hit = rows[rewritten]
        way.header.destination[hit], way.header.destination_port[hit] = address[rewritten], port[rewritten]
        way.dnat_device[hit] = np.where(way.dnat_device[hit] < 0, way.place[hit], way.dnat_device[hit])
        way.nat_hops[hit] += 1

    def pass_hook(self, hook: str, group: Group) -> Group:
        """Run a hook; new entries keep what its nat rules chose."""
        rows, way, entries = group.rows, self.way, self.entries
        if not rows.size:
            return group
        hops = way.nat_hops[rows]
        going = super().pass_hook(hook, group)
        hit = rows[way.nat_hops[rows] > hops]
        slot, flow = self.slot[hit], self.flow[hit]
        if hook in ("POSTROUTING", "INPUT"):
            entries.new_source[:, slot, flow] = way.header.source[hit], way.header.source_port[hit]
            return going
        address, port = way.header.destination[hit], way.header.destination_port[hit]
        entries.new_destination[:, slot, flow] = address, port
        gone_ps = self.now.target_gone(hit, way.place[hit], address, port)
        gone_ps = np.where(way.header.protocol[hit] == UDP, gone_ps, NEVER)
        entries.gone_ps[slot, flow] = gone_ps
        self.now.holds_until(hit, gone_ps)
        return going

    def remember(self, group: Group) -> None:
        """Leave a node: the source as the entry says; a new entry learns what its answers look like."""
        rows, way, entries = group.rows, self.way, self.entries
        slot, flow, is_answer, is_fresh = self.slot[rows], self.flow[rows], self.is_answer[rows], self.is_fresh[rows]
        back = np.flatnonzero(is_answer)
        way.header.source[rows[back]] = entries.original_column("destination", slot[back], flow[back])
        way.header.source_port[rows[back]] = entries.original_column("destination_port", slot[back], flow[back])
        forth = np.flatnonzero((slot >= 0) & ~is_answer & ~is_fresh)
        address, port = entries.new_source[:, slot[forth], flow[forth]]
        hit, rewritten = rows[forth], address >= 0
        way.header.source[hit[rewritten]] = address[rewritten]
        way.header.source_port[hit[rewritten]] = port[rewritten]
        way.snat[hit[rewritten]] = True
        way.nat_hops[hit[rewritten]] += 1
        new = np.flatnonzero(is_fresh)
        entries.confirm(slot[new], flow[new], way.header.take(rows[new]), self.now.time_ps[rows[new]])

    def deliver(self, group: Group) -> None:
        """Hand rows to a process of the node: who listens, or who had sent the request."""
        if self.is_reply and group.rows.size:
            self.remember(group)
            self.hand_back(group.rows)
        else:
            super().deliver(group)

    def close(self) -> None:
        """Entries of packets that their node dropped are kept until its tables change."""
        rows = np.flatnonzero(self.way.verdict != DELIVERED)
        holds_for_stopped(self.network, self.way, self.now, rows)
        for made, slot in self.made:
            flow = self.flow[made]
            open_ended = ~self.entries.confirmed[slot, flow]
            if open_ended.any():
                at, slot, flow = made[open_ended], slot[open_ended], flow[open_ended]
                place = self.entries.device[slot, flow]
                family = self.network.is_ipv6[self.way.header.destination[at]].astype(np.intp)
                self.entries.gone_ps[slot, flow] = self.now.next_tables(at, place, family)


def clean_up_of(visits: list[Visit], clock: Clock) -> None:
    """Take note of when kube-proxy takes away the UDP entries that a walk without earlier entries has made.

    `clock` shows when the packets were sent.
    """
    if not clock.changes.targets.any:
        return
    for visit in visits:
        after = visit.translated
        moved = after.destination != visit.original.destination
        moved |= after.destination_port != visit.original.destination_port
        moved &= after.protocol == UDP
        at = np.flatnonzero(moved)
        at = at[clock.watched(visit.rows[at])]
        rows = visit.rows[at]
        clock.holds_until(
            rows, clock.target_gone(rows, visit.device[at], after.destination[at], after.destination_port[at])
        )
