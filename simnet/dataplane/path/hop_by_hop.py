"""A batch of packets hop by hop: each takes its next step from where it is, until all have ended.

Modelled: TTL, iptables hooks in the kernel's order, DNAT and SNAT, ECMP, hosts that listen or do not; where the
network changes, the tables in force when a packet is at a box (`clock.py`). Left out: ICMP errors on their way back.
Source: net/ipv4/ip_forward.c (TTL before FORWARD), nf_conntrack_core.c, nf_nat_core.c; docs/models/path.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.forwarding.step import Step
from simnet.dataplane.path import hooks, tunnelling
from simnet.dataplane.path.clock import Clock
from simnet.dataplane.path.columns import PENDING, ConnectionBatch, Header, NodePass, Visit, Way
from simnet.dataplane.path.network import CLIENTS, NODE, SWITCH, Network
from simnet.model.recording import REASONS, VERDICTS

Rows = NDArray[np.intp]

DELIVERED, DROPPED, REJECTED, LOST = (VERDICTS.index(name) for name in VERDICTS)
PORT_CLOSED = REASONS.index("port closed")
FRAGMENTATION = REASONS.index("fragmentation needed")
TTL_EXCEEDED = REASONS.index("ttl exceeded")
REVERSE_PATH = REASONS.index("reverse path filter")
REPLY_BYPASSED = REASONS.index("reply bypassed translation")
LINK_DOWN, DEVICE_DOWN = REASONS.index("link down"), REASONS.index("device down")


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Some rows of the batch inside one node, with what the node knows of each."""

    rows: Rows
    before: Header  # as they came in
    state: NDArray[np.uint8]  # conntrack's word for them: hooks.NEW, ESTABLISHED, INVALID
    step: Step | None = None  # the routing decision

    def keep(self, mask: NDArray[np.bool_]) -> Group:
        if mask.all():
            return self
        at = np.flatnonzero(mask)
        step = None if self.step is None else self.step.take(at)
        return Group(self.rows[at], self.before.take(at), self.state[at], step)


class Walk:
    """One batch under way. Each method moves the rows that it is given by one step."""

    def __init__(
        self,
        network: Network,
        batch: ConnectionBatch,
        way: Way,
        state: hooks.HookState,
        seed: int,
        clock: Clock | None = None,
    ) -> None:
        self.network, self.batch, self.way, self.state, self.seed = network, batch, way, state, seed
        self.clock = clock  # None: nothing changes while these rows are under way
        self.visits: list[Visit] = []
        self.size_bytes = batch.length_bytes  # of the first packet, whose fate all others share
        self.passed = np.zeros(len(batch), dtype=np.uint64)  # a bit of each node passed; two nodes may share one
        self.waits_at: NDArray[np.int32] | None = None  # [n] node that each row waits at for all others; -1: none
        self.waits_for_output = np.zeros(0, dtype=np.bool_)  # [n] it does so before OUTPUT, else before PREROUTING

    def run(self, rows: Rows) -> None:
        """Send `rows` from where they are until each has ended; the TTL bounds the number of steps."""
        self.leave_origin(rows)
        while (rows := np.flatnonzero(self.way.verdict == PENDING)).size:
            going = rows if self.waits_at is None else rows[self.waits_at[rows] != self.way.place[rows]]
            if going.size:
                self.arrive(going)
            else:
                self.release(rows)

    # --- waiting for those that are farther away, where rules remember ------------------------------

    def wait(self, node: NDArray[np.int32], for_output: NDArray[np.bool_]) -> None:
        """Let each row wait at a node, before the hook that translates it there, until all others are at theirs."""
        self.waits_at, self.waits_for_output = node.copy(), for_output

    def going_on(self, rows: Rows, *, sent_here: bool) -> Rows:
        """Return those of the rows that need not wait where they are."""
        if self.waits_at is None:
            return rows
        waits: NDArray[np.bool_] = self.waits_at[rows] == self.way.place[rows]
        return rows[np.flatnonzero(~(waits & (self.waits_for_output[rows] == sent_here)))]

    def release(self, rows: Rows) -> None:
        """Let rows that wait pass their nodes, at each node in their order, whether they were sent there or come in."""
        assert self.waits_at is not None
        by_node = np.argsort(self.way.place[rows], kind="stable")
        node, sent_here = self.way.place[rows[by_node]], self.waits_for_output[rows[by_node]]
        is_first = np.diff(node, prepend=-1) != 0
        turns = np.cumsum((np.diff(sent_here, prepend=sent_here[:1]) != 0) & ~is_first)  # from one hook to the other
        turn = np.empty_like(turns)
        turn[by_node] = turns - np.repeat(turns[is_first], np.diff(np.append(np.flatnonzero(is_first), len(rows))))
        self.waits_at[rows] = -1
        for number in range(int(turn.max()) + 1):
            now = rows[turn == number]
            here = self.waits_for_output[now]
            self.send_from_node(now[here])
            self.pass_node(now[~here])

    # --- leaving the sender -------------------------------------------------------------------------

    def leave_origin(self, rows: Rows) -> None:
        """Take the first step: out of a pod onto its node, out of a node's process, out of a client site."""
        network, way = self.network, self.way
        rows = self.where_power_is(rows)
        place = way.place[rows]
        in_pod = network.pod_link[place] >= 0
        pods = rows[in_pod]
        to_itself = way.header.source[pods] == way.header.destination[pods]
        way.end(pods[to_itself], DELIVERED, 0)  # over the pod's own loopback: the node never sees it
        pods = pods[~to_itself]
        large = self.size_bytes[pods] > network.forwarding.pod_mtu
        way.end(pods[large], DROPPED, FRAGMENTATION)
        pods = pods[~large]
        pods = pods[self.cross(pods, network.pod_link[way.place[pods]])]
        way.in_interface[pods] = network.pod_interface[way.place[pods]]
        way.place[pods] = network.place_device[way.place[pods]]
        on_device = rows[~in_pod]
        way.place[on_device] = network.place_device[way.place[on_device]]
        kind = network.device_kind[way.place[on_device]]
        self.send_from_node(on_device[kind == NODE])
        self.follow_route(on_device[kind == CLIENTS])
        self.arrive(pods)

    def send_from_node(self, rows: Rows) -> None:
        """Send from a process of a node: a route must exist before any rule is asked, then OUTPUT decides anew."""
        rows = self.going_on(rows, sent_here=True)
        if not rows.size:
            return
        group = self.recognise(rows, sent_here=True)
        step = self.look_up(rows)
        routable = (step.kind == Step.FORWARD) | (step.kind == Step.LOCAL)
        self.end_unroutable(rows[~routable], step.kind[~routable])
        group = group.keep(routable)
        with self.noted(group):
            self.leave_or_deliver(self.pass_hook("OUTPUT", group))

    # --- arriving ------------------------------------------------------------------------------------

    def arrive(self, rows: Rows) -> None:
        """Let every row take its next step from the place that it has come to."""
        network, way = self.network, self.way
        rows = self.where_power_is(rows)
        place = way.place[rows]
        is_end = (place >= network.device_count) | (network.device_kind[network.place_device[place]] == CLIENTS)
        way.end(rows[is_end], DELIVERED, 0)
        rows = rows[~is_end]
        kind = network.device_kind[way.place[rows]]
        self.pass_switch(rows[kind == SWITCH])
        rows = rows[kind == NODE]
        inside = tunnelling.leave(network.forwarding, way, rows)
        self.pass_switch(rows[inside])  # a node between the ends of a tunnel routes the outer packet
        self.pass_node(rows[~inside])

    def pass_switch(self, rows: Rows) -> None:
        """Route through a switch: its own addresses answer nothing, the TTL goes down."""
        if not rows.size:
            return
        step = self.look_up(rows)
        local = step.kind == Step.LOCAL
        self.way.end(rows[local], REJECTED, PORT_CLOSED)
        fits = ~local & self.fits(rows, step)
        rows, step = rows[fits], step.take(np.flatnonzero(fits))
        alive = self.spend_ttl(rows)
        self.follow(rows[alive], step.take(np.flatnonzero(alive)))

    def pass_node(self, rows: Rows) -> None:
        """Pass a node: PREROUTING, then what the routing decision says."""
        rows = self.going_on(rows, sent_here=False)
        if not rows.size:
            return
        group = self.recognise(rows, sent_here=False)
        with self.noted(group):
            self.route(self.pass_hook("PREROUTING", group))

    def route(self, group: Group) -> None:
        """From PREROUTING's end: into the node through INPUT, or on through FORWARD."""
        step = self.look_up(group.rows)
        accepted = (step.kind != Step.LOCAL) & (step.kind != Step.FORWARD)  # a route comes first, then the source
        accepted |= ~hooks.martians(self.network, self.way, group.rows, self.clock)
        self.way.end(group.rows[~accepted], DROPPED, REVERSE_PATH)
        group = Group(group.rows, group.before, group.state, step).keep(accepted)
        assert group.step is not None
        step = group.step
        local = step.kind == Step.LOCAL
        self.deliver(self.pass_hook("INPUT", group.keep(local)))
        routed = step.kind == Step.FORWARD
        stopped = ~(local | routed)
        self.end_unroutable(group.rows[stopped], step.kind[stopped])
        group = group.keep(routed)
        assert group.step is not None
        group = group.keep(self.fits(group.rows, group.step))
        group = group.keep(self.spend_ttl(group.rows))
        self.depart(self.pass_hook("FORWARD", group))

    def leave_or_deliver(self, group: Group) -> None:
        """From OUTPUT's end: the node may have been talking to itself."""
        step = self.look_up(group.rows)
        group = Group(group.rows, group.before, group.state, step)
        local = step.kind == Step.LOCAL
        looped = self.pass_hook("INPUT", self.pass_hook("POSTROUTING", group.keep(local)))
        self.deliver(looped)
        routed = step.kind == Step.FORWARD
        stopped = ~(local | routed)
        self.end_unroutable(group.rows[stopped], step.kind[stopped])
        self.depart(group.keep(routed & self.fits(group.rows, step)))

    def depart(self, group: Group) -> None:
        """Leave a node: POSTROUTING, then the wire."""
        group = self.pass_hook("POSTROUTING", group)
        if not group.rows.size:
            return
        self.remember(group)
        self.way.mark[group.rows] = 0
        assert group.step is not None
        self.follow(group.rows, group.step)

    def deliver(self, group: Group) -> None:
        """Hand rows to the process of this node that listens: a hostNetwork pod; any other port is closed."""
        if not group.rows.size:
            return
        self.remember(group)
        rows, header = group.rows, self.way.header
        place = self.network.listeners.find(
            header.destination[rows], header.protocol[rows], header.destination_port[rows]
        )
        listening = place >= 0
        self.way.place[rows[listening]] = place[listening]
        self.way.end(rows[listening], DELIVERED, 0)
        self.way.end(rows[~listening], REJECTED, PORT_CLOSED)

    def hand_back(self, rows: Rows) -> None:
        """Hand replies to the process that had sent the request, whatever its port; others find the port closed."""
        origin = self.batch.origin[rows]
        here = self.network.place_device[origin] == self.way.place[rows]
        asked = here & (self.way.header.destination_port[rows] == self.batch.header.source_port[rows])
        asked &= self.network.pod_link[origin] < 0
        self.way.place[rows[asked]] = origin[asked]
        self.way.end(rows[asked], DELIVERED, 0)
        self.way.end(rows[~asked], REJECTED, PORT_CLOSED)

    # --- what conntrack knows ------------------------------------------------------------------------

    def recognise(self, rows: Rows, *, sent_here: bool) -> Group:
        """Say what conntrack makes of rows that come to a node: new, and known to nat where they were here before."""
        before, place = self.way.header.take(rows), self.way.place[rows]
        state = np.full(len(rows), hooks.NEW, dtype=np.uint8)
        bit = np.uint64(1) << (place & 63).astype(np.uint64)
        passed = self.passed[rows]
        self.passed[rows] = passed | bit
        maybe = np.flatnonzero(passed & bit)
        if maybe.size:
            for visit in self.visits:
                at, held = positions_in(visit.rows, rows[maybe])
                held &= (visit.device[at] == place[maybe]) & before.take(maybe).equals(visit.original.take(at))
                state[maybe[held]] = hooks.SEEN_BEFORE
        return Group(rows, before, state)

    def remember(self, group: Group) -> None:
        """Keep the conntrack entries that the node of each row holds from now on."""
        self.visits.append(
            Visit(group.rows, self.way.place[group.rows], group.before, self.way.header.take(group.rows))
        )

    @contextmanager
    def noted(self, group: Group) -> Iterator[None]:
        """Note that the rows pass the node where they are, and the rules that they meet there meanwhile."""
        way, rows = self.way, group.rows
        device, before = way.place[rows], len(way.crossings)
        rules, endpoint_rules = way.rules_scanned[rows], way.endpoint_rules_scanned[rows]
        yield
        way.passes.append(
            NodePass(
                rows, device, group.before, way.rules_scanned[rows] - rules,
                way.endpoint_rules_scanned[rows] - endpoint_rules, before,
            )
        )  # fmt: skip

    # --- what every step needs -----------------------------------------------------------------------

    def spend_ttl(self, rows: Rows) -> NDArray[np.bool_]:
        """Take one off the TTL of rows that are forwarded; those with none left end. Returns bool: which go on."""
        inside = self.way.tunnel[rows] >= 0
        alive = np.where(inside, self.way.outer_ttl[rows], self.way.ttl[rows]) > 1
        self.way.end(rows[~alive], LOST, TTL_EXCEEDED)
        self.way.outer_ttl[rows[alive & inside]] -= 1
        going = rows[alive & ~inside]
        self.way.ttl[going] -= 1
        self.way.l3_hops[going] += 1
        return alive

    def fits(self, rows: Rows, step: Step) -> NDArray[np.bool_]:
        """End rows too large for the next interface, since no packet is fragmented here. Returns bool: the others.

        A row on its last TTL goes on, to end for that: the kernel looks at the TTL first.
        """
        way = self.way
        inside = way.tunnel[rows] >= 0
        ttl = np.where(inside, way.outer_ttl[rows], way.ttl[rows])
        routed: NDArray[np.bool_] = step.kind == Step.FORWARD
        large = (self.size_bytes[rows] > step.mtu) & ~inside & routed & (ttl > 1)
        way.end(rows[large], DROPPED, FRAGMENTATION)
        return ~large

    def look_up(self, rows: Rows) -> Step:
        """Ask the FIB of the device where each row is."""
        return hooks.look_up(self.network, self.way, rows, self.clock)

    def follow_route(self, rows: Rows) -> None:
        """Look up and follow, for a device without rules."""
        if rows.size:
            step = self.look_up(rows)
            fits = self.fits(rows, step)
            self.follow(rows[fits], step.take(np.flatnonzero(fits)))

    def follow(self, rows: Rows, step: Step) -> None:
        """Go where the routing decision says: over one wire or, through a bridge, two."""
        if not rows.size:
            return
        routed = step.kind == Step.FORWARD
        if not routed.all():
            self.end_unroutable(rows[~routed], step.kind[~routed])
            rows, step = rows[routed], step.take(np.flatnonzero(routed))
        wrapped = np.flatnonzero(step.tunnel >= 0)
        if wrapped.size:
            tunnelling.enter(
                self.network.forwarding, self.way, rows[wrapped], step.tunnel[wrapped], self.network.ecmp_seed
            )
            self.follow(rows[wrapped], self.look_up(rows[wrapped]))
            plain = np.flatnonzero(step.tunnel < 0)
            rows, step = rows[plain], step.take(plain)
        for name in ("first_link", "second_link"):
            carried = self.cross(rows, getattr(step, name), bridged=name == "second_link")
            if not carried.all():
                rows, step = rows[carried], step.take(np.flatnonzero(carried))
        self.way.place[rows] = step.next_place
        arrived = np.minimum(step.next_place, self.network.device_count - 1)
        self.way.in_interface[rows] = self.network.device_interface[arrived]

    def cross(self, rows: Rows, direction: NDArray[np.int32], *, bridged: bool = False) -> NDArray[np.bool_]:
        """Send rows over a wire each; -1: none. Those that it does not carry end. Returns bool: which go on."""
        carried = np.ones(len(rows), dtype=np.bool_)
        if self.clock is not None:
            carried = self.clock.cross(rows, direction, self.way.tunnel, bridged=bridged)
            self.way.end(rows[~carried], LOST, LINK_DOWN)
            rows, direction = rows[carried], direction[carried]
        self.way.cross(rows, direction, self.network.forwarding.tunnels.extra_bytes)
        return carried

    def where_power_is(self, rows: Rows) -> Rows:
        """End rows at devices that do not work; return the others."""
        if self.clock is None or not self.clock.changes.devices.any:
            return rows
        works = self.clock.works(rows, self.network.place_device[self.way.place[rows]])
        self.way.end(rows[~works], LOST, DEVICE_DOWN)
        return rows[works]

    def end_unroutable(self, rows: Rows, kind: NDArray[np.uint8]) -> None:
        """End rows that no route takes on, each for its reason."""
        if rows.size:
            self.way.verdict[rows], self.way.reason[rows] = hooks.unroutable(kind)

    def pass_hook(self, hook: str, group: Group) -> Group:
        """Run a hook's chains over a group; rows that a rule stops end here. Returns those that go on."""
        if not group.rows.size:
            return group
        out_interface = None if group.step is None else group.step.out_interface
        way, batch = self.way, self.batch
        passed = hooks.pass_hook(
            self.network, hook, group.rows, group.state, out_interface, way, batch, self.state, self.seed, self.clock
        )
        return group.keep(passed)


def positions_in(rows: Rows, wanted: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    """Where each of `wanted` stands in `rows` (ascending, not empty), and whether it does."""
    at = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    return at, rows[at] == wanted
