"""One packet's way through a cluster and back, every branch with its probability, every rule and route told.

The scalar counterpart of `dataplane.path`: the same boxes in the same order, read from rule sets, FIBs and the fabric
themselves. A branch is an immutable value, so that the tree is a recursion of generators: each method takes a packet
where it is and yields all ends that it can come to. Depth is bounded by the TTL.
Source: net/ipv4/ip_forward.c, nf_conntrack_core.c, nf_nat_core.c; docs/models/trace-and-shares.md.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import NamedTuple

from simnet.dataplane.netfilter.packets import STATE_ESTABLISHED, STATE_INVALID, STATE_NEW
from simnet.dataplane.path.columns import TTL_AT_START
from simnet.dataplane.path.tunnelling import FIRST_PORT, IPIP, PORTS, VXLAN_PORT
from simnet.engine.network import PROTOCOL_NUMBERS
from simnet.engine.route_walk import FORWARD, LOCAL, Decision, RouteWalker
from simnet.engine.rule_walk import (
    ACCEPTED,
    ONE,
    REJECTED,
    Header,
    HookPacket,
    HookResult,
    IPAddress,
    Linked,
    RuleStep,
    RuleWalker,
    unlinked,
)
from simnet.model.cluster import Cluster
from simnet.model.fabric import DeviceKind, Tunnel
from simnet.model.iptables.printer import rule_text
from simnet.model.iptables.ruleset import Family, Ruleset
from simnet.model.iptables.stop_reasons import stop_reason

UDP = 17
FILTER_HOOKS = ("INPUT", "FORWARD", "OUTPUT")
_UNROUTABLE = {
    LOCAL: ("rejected", "port closed"),
    "blackhole": ("dropped", "blackhole"),
    "unreachable": ("rejected", "no route"),
    "no route": ("lost", "no route"),
    "no neighbour": ("lost", "no neighbour"),
}


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One thing that happened to a packet. Fields that do not concern it are None and left out of the JSON."""

    direction: str  # "request" or "reply"
    box: str  # device, or namespace/name of a pod
    action: str  # "send", "rule", "rewrite", "conntrack", "route", "wrap", "unwrap", "deliver", "stop"
    hook: str | None = None
    table: str | None = None
    chain: str | None = None
    number: int | None = None  # of the rule in its chain, from 1
    rule: str | None = None  # as iptables-save prints it
    probability: float | None = None  # of this rule or next hop, given that it was asked; None: certain
    draw: int | None = None  # the 31-bit number drawn
    before: str | None = None  # "source > destination"
    after: str | None = None
    route: str | None = None
    interface: str | None = None  # that it leaves by
    wires: tuple[str, ...] | None = None
    ttl: int | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the fields that say something."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if value is not None
        }


class Entry(NamedTuple):
    """A conntrack entry that a request left at a node."""

    device: str
    original: Header
    translated: Header


class Moving(NamedTuple):
    """A packet under way on one branch."""

    probability: Fraction
    place: str
    header: Header
    before: Header  # as it came to the node where it is
    state: int = STATE_NEW  # conntrack's word at that node
    nat_done: bool = False  # that node has seen this connection before
    mark: int = 0
    accepted: bool = False  # a filter rule said ACCEPT
    in_interface: str = ""
    ttl: int = TTL_AT_START
    l3_hops: int = 0
    links: int = 0
    outer: Header | None = None  # while it is in a tunnel
    outer_ttl: int = 0
    tunnel: Tunnel | None = None
    nat_hops: int = 0
    rules_scanned: int = 0
    draws: int = 0
    dnat_node: str = ""  # that first rewrote the destination
    snat: bool = False
    entries: tuple[Entry, ...] = ()
    owed: tuple[IPAddress, int] | None = None  # a reply's source, to be restored when it leaves the node
    steps: Linked | None = None
    chosen: tuple[tuple[Hashable, int, int], ...] = ()  # ECMP choices made: (what was hashed, next hops, which one)
    kept: tuple[
        tuple[str, str], ...
    ] = ()  # (box, next hop) chosen by addresses alone: equal for all of a pair's packets


class Ending(NamedTuple):
    """Where a branch ended."""

    packet: Moving
    verdict: str  # delivered, dropped, rejected, lost
    reason: str  # "" if delivered
    place: str  # where it was delivered, or stopped


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All that a walk reads, and its two walkers."""

    cluster: Cluster
    rulesets: Mapping[str, Mapping[Family, Ruleset]]  # by node
    routes: RouteWalker
    rules: RuleWalker
    listening: Mapping[tuple[IPAddress, int, int], str]  # (address, protocol, port) -> hostNetwork pod
    node_of: Mapping[str, str]  # pod -> node

    def own_source(self, origin: str, header: Header) -> IPAddress:
        """Return a sender's source: a node's process whose route is a tunnel takes the tunnel's address."""
        device = self.node_of.get(origin, origin)
        if origin in self.routes.pod_of or self.routes.kinds.get(device) is not DeviceKind.NODE:
            return header.source
        interface = self.routes.decide(device, header.destination)[0].interface
        return self.routes.hosts[device].tunnels.get(interface, header.source)


def listening_pods(cluster: Cluster) -> dict[tuple[IPAddress, int, int], str]:
    """Return the pods on their node's own network, by the address, protocol and port that endpoint slices name."""
    own = {pod.key: pod for pod in cluster.pods if pod.host_network}
    by_address = {address: pod.key for pod in reversed(list(own.values())) for address in pod.addresses}
    found: dict[tuple[IPAddress, int, int], str] = {}
    for each in cluster.endpoint_slices if own else ():
        for endpoint in each.endpoints:
            for text in endpoint.addresses:
                if text not in by_address:
                    continue
                reference = endpoint.target_ref
                key = f"{reference.namespace or each.namespace}/{reference.name}" if reference else ""
                for port in each.ports:
                    if port.port:
                        asked = (ipaddress.ip_address(text), PROTOCOL_NUMBERS.get(port.protocol, 6), port.port)
                        found.setdefault(asked, key if key in own else by_address[text])
    return found


def outer_header(tunnel: Tunnel, far_end: IPAddress, inner: Header) -> Header:
    """Return the header of the packet that holds another. VXLAN's source port stands for any that the flow may get."""
    near = ipaddress.ip_address(tunnel.underlay)
    if tunnel.kind == "ipip":
        return inner._replace(source=near, destination=far_end, protocol=IPIP, source_port=0, destination_port=0)
    ends = sorted([(str(inner.source), inner.source_port), (str(inner.destination), inner.destination_port)])
    port = FIRST_PORT + hash_of(f"{ends} {inner.protocol}") % PORTS
    return inner._replace(source=near, destination=far_end, protocol=UDP, source_port=port, destination_port=VXLAN_PORT)


def hash_of(text: str) -> int:
    """Return 64 bits of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class Request:
    """The first packet of a connection, from `origin` (a device or a pod) on."""

    direction = "request"

    def __init__(self, around: Surroundings, origin: str, header: Header) -> None:
        self.around, self.origin, self.header = around, origin, header
        self.record = around.rules.record

    def endings(self) -> Iterator[Ending]:
        """Yield every end of the packet; the probabilities sum to 1 unless one branch was drawn."""
        yield from self.leave_origin(Moving(ONE, self.origin, self.header, self.header))

    # --- leaving the sender -------------------------------------------------------------------------

    def leave_origin(self, packet: Moving) -> Iterator[Ending]:
        """Take the first step: out of a pod onto its node, out of a node's process, out of a client site."""
        around, place = self.around, packet.place
        if self.record:
            packet = self.told(packet, "send", after=str(packet.header), ttl=packet.ttl)
        if self.has_no_power(place):
            yield self.ended(packet, "lost", "device down", place)
            return
        pod = around.routes.pod_of.get(place)
        if pod is not None:
            if packet.header.source == packet.header.destination:  # over the pod's own loopback
                yield self.ended(packet, "delivered", "", place)
                return
            if pod.link in around.routes.broken_links:
                yield self.ended(packet, "lost", "link down", place)
                return
            packet = packet._replace(place=pod.node, in_interface=pod.interface, links=packet.links + 1)
            yield from self.arrive(packet)
            return
        device = around.node_of.get(place, place)
        packet = packet._replace(place=device)
        if around.routes.kinds[device] is DeviceKind.NODE:
            yield from self.send_from_node(packet)
        else:
            for share, step in self.decisions(packet):
                yield from self.follow(self.likely(packet, share, step), step)

    def send_from_node(self, packet: Moving) -> Iterator[Ending]:
        """Send from a process of a node: a route must exist before any rule is asked, then OUTPUT decides anew."""
        packet = self.recognise(packet)
        step = self.around.routes.decide(packet.place, packet.header.destination)[0]
        if step.kind not in (FORWARD, LOCAL):
            yield self.unroutable(packet, step)
            return
        for passed in self.hook("OUTPUT", packet):
            if isinstance(passed, Ending):
                yield passed
                continue
            for share, step in self.decisions(passed):
                leaving = self.likely(passed, share, step)
                if step.kind == FORWARD:
                    yield from self.depart(leaving, step)
                elif step.kind == LOCAL:
                    for through in self.hooks(("POSTROUTING", "INPUT"), leaving):
                        yield from (through,) if isinstance(through, Ending) else self.deliver(through)
                else:
                    yield self.unroutable(leaving, step)

    # --- arriving ------------------------------------------------------------------------------------

    def arrive(self, packet: Moving) -> Iterator[Ending]:
        """Take the next step from the place that the packet has come to."""
        kind = self.around.routes.kinds.get(packet.place)
        if self.has_no_power(packet.place):
            yield self.ended(packet, "lost", "device down", packet.place)
        elif kind is None or kind is DeviceKind.CLIENTS:
            yield self.ended(packet, "delivered", "", packet.place)
        elif kind is DeviceKind.SWITCH or (packet := self.come_out(packet)).outer is not None:
            yield from self.pass_switch(packet)
        else:
            for passed in self.hook("PREROUTING", self.recognise(packet)):
                yield from (passed,) if isinstance(passed, Ending) else self.route(passed)

    def pass_switch(self, packet: Moving) -> Iterator[Ending]:
        """Route through a switch: its own addresses answer nothing, the TTL goes down."""
        for share, step in self.decisions(packet):
            branch = self.likely(packet, share, step)
            if step.kind == LOCAL:
                yield self.ended(branch, "rejected", "port closed", branch.place)
            elif (branch.outer_ttl if branch.outer else branch.ttl) <= 1:
                yield self.ended(branch, "lost", "ttl exceeded", branch.place)
            elif branch.outer:
                yield from self.follow(branch._replace(outer_ttl=branch.outer_ttl - 1), step)
            else:
                branch = branch._replace(ttl=branch.ttl - 1, l3_hops=branch.l3_hops + 1)
                yield from self.follow(branch, step)

    def come_out(self, packet: Moving) -> Moving:
        """Take a packet out of its tunnel if the node where it is holds the far end."""
        routes = self.around.routes
        if packet.outer is None or packet.tunnel is None:
            return packet
        mine = routes.tunnels.get((packet.place, packet.tunnel.interface))
        if mine is None or not routes.hosts[packet.place].is_local(packet.outer.destination):
            return packet
        packet = packet._replace(outer=None, outer_ttl=0, tunnel=None, in_interface=mine.interface)
        return self.told(packet, "unwrap", interface=mine.interface, ttl=packet.ttl) if self.record else packet

    def route(self, packet: Moving) -> Iterator[Ending]:
        """From PREROUTING's end: into the node through INPUT, or on through FORWARD."""
        for share, step in self.decisions(packet):
            branch = self.likely(packet, share, step)
            routes, source = self.around.routes, branch.header.source
            if step.kind in (LOCAL, FORWARD) and routes.is_martian(branch.place, branch.in_interface, source):
                yield self.ended(branch, "dropped", "reverse path filter", branch.place)
            elif step.kind == LOCAL:
                for passed in self.hook("INPUT", branch):
                    yield from (passed,) if isinstance(passed, Ending) else self.deliver(passed)
            elif step.kind != FORWARD:
                yield self.unroutable(branch, step)
            elif branch.ttl <= 1:
                yield self.ended(branch, "lost", "ttl exceeded", branch.place)
            else:
                branch = branch._replace(ttl=branch.ttl - 1, l3_hops=branch.l3_hops + 1)
                for passed in self.hook("FORWARD", branch, step.interface):
                    yield from (passed,) if isinstance(passed, Ending) else self.depart(passed, step)

    def depart(self, packet: Moving, step: Decision) -> Iterator[Ending]:
        """Leave a node: POSTROUTING, then the wire."""
        for passed in self.hook("POSTROUTING", packet, step.interface):
            if isinstance(passed, Ending):
                yield passed
            else:
                yield from self.follow(self.remember(passed)._replace(mark=0), step)

    def deliver(self, packet: Moving) -> Iterator[Ending]:
        """Hand a packet to the process of this node that listens: a hostNetwork pod; any other port is closed."""
        packet = self.remember(packet)
        header = packet.header
        pod = self.around.listening.get((header.destination, header.protocol, header.destination_port))
        if pod is None:
            yield self.ended(packet, "rejected", "port closed", packet.place)
        else:
            yield self.ended(packet, "delivered", "", pod)

    # --- what conntrack knows ------------------------------------------------------------------------

    def recognise(self, packet: Moving) -> Moving:
        """Say what conntrack makes of a packet that comes to a node: new, on the way out."""
        known = any(each.device == packet.place and each.original == packet.header for each in packet.entries)
        return packet._replace(before=packet.header, state=STATE_NEW, nat_done=known)

    def remember(self, packet: Moving) -> Moving:
        """Keep the conntrack entry that the node holds from now on."""
        return packet._replace(entries=(*packet.entries, Entry(packet.place, packet.before, packet.header)))

    # --- what every step needs -----------------------------------------------------------------------

    def decisions(self, packet: Moving) -> Iterator[tuple[Fraction, Decision]]:
        """Yield the routing decisions taken, each with its share."""
        seen = packet.outer or packet.header
        steps = self.around.routes.decide(packet.place, seen.destination)
        if len(steps) == 1:
            yield ONE, steps[0]
            return
        key = self.around.routes.ecmp_key(packet.place, seen)
        known = next((index for held, size, index in packet.chosen if (held, size) == (key, len(steps))), None)
        if known is not None:  # the hash of the same packet is the same hash
            yield ONE, steps[known]._replace(choices=1)
            return
        for number in self.around.rules.chance.pick([step.share for step in steps], packet.draws):
            yield steps[number].share, steps[number]

    def likely(self, packet: Moving, share: Fraction, step: Decision) -> Moving:
        """Return the packet on the branch of an ECMP choice."""
        if step.choices == 1:
            return packet
        kept = packet.kept
        if self.around.routes.hashes_addresses_alone(packet.place):
            kept = (*kept, (packet.place, step.route))
        key = self.around.routes.ecmp_key(packet.place, packet.outer or packet.header)
        chosen = (*packet.chosen, (key, step.choices, step.member))
        return packet._replace(probability=packet.probability * share, draws=packet.draws + 1, kept=kept, chosen=chosen)

    def follow(self, packet: Moving, step: Decision) -> Iterator[Ending]:
        """Go where the routing decision says: over one wire or, through a bridge, two."""
        if step.kind != FORWARD:
            yield self.unroutable(packet, step)
            return
        if self.record:
            packet = self.told(
                packet, "route", route=step.route, interface=step.interface, wires=step.wires, ttl=packet.ttl,
                probability=float(step.share) if step.choices > 1 else None,
            )  # fmt: skip
        if step.tunnel is not None and step.far_end is not None:
            packet = packet._replace(
                outer=outer_header(step.tunnel, step.far_end, packet.header),
                outer_ttl=TTL_AT_START if step.tunnel.kind == "vxlan" else packet.ttl,
                tunnel=step.tunnel,
            )
            if self.record:
                packet = self.told(packet, "wrap", interface=step.interface, after=str(packet.outer))
            for share, outward in self.decisions(packet):
                yield from self.follow(self.likely(packet, share, outward), outward)
            return
        if step.broken_wire is not None:
            packet = packet._replace(links=packet.links + step.broken_wire)
            yield self.ended(packet, "lost", "link down", packet.place)
            return
        moved = packet._replace(
            place=step.next_place, in_interface=step.in_interface, links=packet.links + len(step.wires)
        )
        yield from self.arrive(moved)

    def has_no_power(self, place: str) -> bool:
        """Whether the device that a place is, or the node of a pod, is down."""
        return self.around.node_of.get(place, place) in self.around.routes.dead_devices

    def hooks(self, names: tuple[str, ...], packet: Moving) -> Iterator[Moving | Ending]:
        """Run hooks one after the other."""
        if not names:
            yield packet
            return
        for passed in self.hook(names[0], packet):
            yield from (passed,) if isinstance(passed, Ending) else self.hooks(names[1:], passed)

    def hook(self, hook: str, packet: Moving, out_interface: str = "") -> Iterator[Moving | Ending]:
        """Run a hook's chains; yields the packet as it goes on, or its end where a rule stops it."""
        around = self.around
        family = Family.IPV6 if packet.header.destination.version == 6 else Family.IPV4
        ruleset = around.rulesets.get(packet.place, {}).get(family)
        if ruleset is None:
            yield packet
            return
        seen = HookPacket(packet.header, packet.mark, packet.state, packet.in_interface, out_interface, packet.nat_done)
        host = around.routes.hosts[packet.place]
        for result in around.rules.hook(ruleset, hook, seen, host, packet.draws):
            yield self._after(hook, packet, result)

    def _after(self, hook: str, packet: Moving, result: HookResult) -> Moving | Ending:
        steps = packet.steps
        for step in unlinked(result.steps):
            assert isinstance(step, RuleStep)
            steps = Linked(steps, _rule_step(self.direction, packet.place, hook, step, packet.header))
        header = result.packet.header
        now = packet._replace(
            probability=packet.probability * result.probability,
            header=header,
            mark=result.packet.mark,
            accepted=packet.accepted or (result.verdict == ACCEPTED and hook in FILTER_HOOKS),
            state=result.packet.state,
            nat_hops=packet.nat_hops + result.dnat + result.snat,
            rules_scanned=packet.rules_scanned + result.scanned,
            draws=result.draws,
            dnat_node=packet.dnat_node or (packet.place if result.dnat else ""),
            snat=packet.snat or result.snat,
            steps=steps,
        )
        if self.record and (result.dnat or result.snat):
            now = self.told(now, "rewrite", hook=hook, before=str(packet.header), after=str(header))
        if result.passes:
            return now
        verdict = "rejected" if result.verdict == REJECTED else "dropped"
        return self.ended(now, verdict, stop_reason(result.chain, result.rule), packet.place)

    def unroutable(self, packet: Moving, step: Decision) -> Ending:
        """End a packet that no route takes on."""
        if self.record and step.route:
            packet = self.told(packet, "route", route=step.route)
        return self.ended(packet, *_UNROUTABLE[step.kind], packet.place)

    def ended(self, packet: Moving, verdict: str, reason: str, place: str) -> Ending:
        """Return the end of a branch."""
        if self.record:
            box, packet = (place, packet) if verdict == "delivered" else (packet.place, packet)
            action = "deliver" if verdict == "delivered" else "stop"
            packet = self.told(
                packet._replace(place=box), action, after=str(packet.header), ttl=packet.ttl, reason=reason or None
            )
        return Ending(packet, verdict, reason, place)

    def told(self, packet: Moving, action: str, **said: object) -> Moving:
        """Return the packet with a step added."""
        step = TraceStep(self.direction, packet.place, action, **said)  # type: ignore[arg-type]
        return packet._replace(steps=Linked(packet.steps, step))


class Reply(Request):
    """The answer to a request that was delivered: each node's entry undoes what it did; nat is not asked about it."""

    direction = "reply"

    def __init__(self, around: Surroundings, origin: str, header: Header, request: Ending) -> None:
        super().__init__(around, origin, header)
        self.request = request

    def endings(self) -> Iterator[Ending]:
        """Yield every end of the answer; `probability` is that of the reply's own branches."""
        answer = self.request.packet.header.reversed()
        start = Moving(
            ONE, self.request.place, answer, answer, draws=self.request.packet.draws, chosen=self.request.packet.chosen
        )
        for ending in self.leave_origin(start):
            as_called = ending.packet.header == self.header.reversed() and ending.place == self.origin
            if ending.verdict == "delivered" and not as_called:
                yield ending._replace(verdict="dropped", reason="reply bypassed translation")
            else:
                yield ending

    def recognise(self, packet: Moving) -> Moving:
        """Find the connection's entry at the node; restore the destination that it had before."""
        arrived = packet.header
        for entry in reversed(self.request.packet.entries):
            if entry.device != packet.place or entry.translated.reversed() != arrived:
                continue
            restored = arrived._replace(destination=entry.original.source, destination_port=entry.original.source_port)
            owed = (entry.original.destination, entry.original.destination_port)
            now = packet._replace(before=arrived, header=restored, owed=owed, state=STATE_ESTABLISHED)
            if self.record and restored != arrived:
                now = self.told(now, "conntrack", before=str(arrived), after=str(restored))
            return now
        # A TCP answer (SYN-ACK) that no entry expects is INVALID; a datagram opens a connection of its own.
        state = STATE_NEW if arrived.protocol == UDP else STATE_INVALID
        return packet._replace(before=arrived, state=state)

    def remember(self, packet: Moving) -> Moving:
        """Leave the node by restoring the source that the client called."""
        if packet.owed is None:
            return packet
        restored = packet.header._replace(source=packet.owed[0], source_port=packet.owed[1])
        now = packet._replace(header=restored, owed=None)
        if self.record and restored != packet.header:
            now = self.told(now, "conntrack", before=str(packet.header), after=str(restored))
        return now

    def deliver(self, packet: Moving) -> Iterator[Ending]:
        """Hand a reply to the process that had sent the request; others find the port closed."""
        packet = self.remember(packet)
        origin = self.origin
        is_here = self.around.node_of.get(origin, origin) == packet.place
        has_asked = packet.header.destination_port == self.header.source_port
        if is_here and has_asked and origin not in self.around.routes.pod_of:
            yield self.ended(packet, "delivered", "", origin)
        else:
            yield self.ended(packet, "rejected", "port closed", packet.place)


def _rule_step(direction: str, box: str, hook: str, step: RuleStep, header: Header) -> TraceStep:
    family = Family.IPV6 if header.destination.version == 6 else Family.IPV4
    return TraceStep(
        direction,
        box,
        "rule",
        hook=hook,
        table=step.table,
        chain=step.chain,
        number=step.number,
        rule=f"-A {step.chain} {rule_text(step.rule, family)}",
        probability=None if step.probability == 1 else float(step.probability),
        draw=step.draw,
    )
