"""The data plane once more, event by event: SimPy, one process a flow, one event a packet and wire. Slow, and plain.

Every packet walks by itself: it asks the FIB of each box (`reference.forwarding`, a loop over routes), runs the rules
of each node one by one (`reference.netfilter_interpreter`), and meets conntrack tables that are dicts with clocks of
their own. Shared with the engine are only what the control plane made, the definitions of the draws, and who calls
what.

Definitions that both follow (docs/models/path.md): no port clashes, so an entry belongs to its flow; a dropped packet
leaves an entry; a connection's number is its flow's id, plus 2**40 for each time that the flow was forgotten.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import simpy
from reference import closed_loop, forwarding, queues
from reference import workload as one_by_one
from reference.changes import Timetable
from reference.netfilter_interpreter import Interpreter

from simnet.engine.changes import later_rulesets
from simnet.engine.network import _host_rulesets, _prepared
from simnet.model import workload as workload_model
from simnet.model.addresses import AddressTable
from simnet.model.fabric import DeviceKind
from simnet.model.history import TableHistory
from simnet.model.iptables import ruleset as rs

UDP = 17
S = 10**12
TABLES = {
    "PREROUTING": ("raw", "mangle", "nat"),
    "INPUT": ("mangle", "filter", "security", "nat"),
    "FORWARD": ("mangle", "filter", "security"),
    "OUTPUT": ("raw", "mangle", "nat", "filter", "security"),
    "POSTROUTING": ("mangle", "nat"),
}
UNROUTABLE = {
    "local": ("rejected", "port closed"),
    "blackhole": ("dropped", "blackhole"),
    "unreachable": ("rejected", "no route"),
    "no route": ("lost", "no route"),
    "no neighbour": ("lost", "no neighbour"),
}


@dataclass(frozen=True)
class Header:
    source: str
    source_port: int
    destination: str
    destination_port: int

    def reversed(self):
        return Header(self.destination, self.destination_port, self.source, self.source_port)


@dataclass
class Entry:
    """A conntrack entry of one node."""

    original: Header
    created_ps: int
    expires_ps: float = 0
    gone_ps: float = float("inf")  # taken away then, whatever its timer says
    confirmed: bool = False
    replied: bool = False
    destination: tuple | None = None  # (address, port) that DNAT chose
    source: tuple | None = None  # that SNAT chose


@dataclass
class Packet:
    flow: object
    number: int  # in its flow
    header: Header
    size_bytes: int
    place: str
    is_reply: bool = False
    ttl: int = 64
    l3_hops: int = 0
    links: int = 0
    rules_scanned: int = 0
    endpoint_rules_scanned: int = 0
    nat_hops: int = 0
    draw: int = 0
    mark: int = 0
    connection: int | None = None  # its rank in the flow; known when the first node has seen the packet
    opens: bool = False  # the first of its connection, or the reply to that
    dnat_node: str | None = None
    snat: bool = False
    in_interface: str = ""
    verdict: str = ""
    reason: str = ""
    sent_ps: int = 0
    ended_ps: int = 0
    wires: list = field(default_factory=list)  # (wire, bytes that a tunnel added)
    outer: Header | None = None  # while it is in a tunnel
    outer_ttl: int = 0
    tunnel: object = None
    journey: queues.Journey | None = None  # with queues: shared with the reply
    is_routed: bool = False  # the tables deliver it, whatever queues do to it
    in_pod_ps: int = -1
    work: tuple = ()  # what its service time is drawn from, if not flow and number
    answer: object = None
    link_delays_ps: tuple = ()
    visits: list = field(default_factory=list)  # stations, where tables change: what is called, with what

    def end(self, verdict, reason, now_ps):
        self.verdict, self.reason, self.ended_ps = verdict, reason, now_ps


@dataclass
class Flow:
    made: one_by_one.Flow
    protocol: int
    client: str
    origin: str
    called: Header
    target: str
    rank: int = 0
    tracked: bool = False
    requests: list = field(default_factory=list)
    replies: list = field(default_factory=list)
    socket: tuple | None = None  # of a TCP or SCTP flow: (pod, source, ports) that it is connected to, and since when
    reset_ps: float = float("inf")  # nothing is sent from then on
    led: object = None  # event: the first packet and its reply have ended


class Simulation:
    """One run of a scenario on a cluster. `callers` are (name, place, address), `targets` (address, port)."""

    def __init__(self, cluster, scenario, seed, callers, targets, history=None):
        self.cluster, self.scenario, self.seed = cluster, scenario, seed
        self.callers, self.targets = callers, targets
        self.env = simpy.Environment(initial_time=0)
        fabric = cluster.fabric
        self.devices = {device.name: device for device in fabric.devices}
        self.veths = {pod.pod: pod for pod in fabric.pods}
        self.host_pods = {pod.key: pod for pod in cluster.pods if pod.host_network}
        self.fabric_interface = {}
        for segment in fabric.segments:
            for attachment in segment.attachments:
                self.fabric_interface.setdefault(attachment.device, attachment.interface)
        rulesets, self.host = _host_rulesets(cluster, scenario.cluster, scenario.run.statistic_mode)
        history = history or TableHistory(cluster.fibs)
        later, rule_changes = later_rulesets(
            history, len(rulesets), _prepared(scenario.cluster, scenario.run.statistic_mode)
        )
        rulesets += later
        self.times = Timetable(history, self.host, rule_changes, rulesets)
        self.changes = history.fibs or history.rules or history.links or history.devices or history.pods
        self.addresses = AddressTable()
        self.interfaces = ["lo", *self.fabric_interface.values(), *(pod.interface for pod in fabric.pods)]
        self.interfaces += [tunnel.interface for device in fabric.devices for tunnel in device.tunnels]
        for ruleset in rulesets:
            for table in ruleset.tables.values():
                for chain in table.chains.values():
                    for rule in chain.rules:
                        if isinstance(rule.target, rs.Dnat | rs.Snat) and rule.target.address:
                            self.addresses.intern(rule.target.address)
        self.rules = Interpreter(rulesets, self.addresses, self.interfaces, seed, scenario.run.recent_limit)
        self.conntrack = defaultdict(dict)  # node -> (flow id, header) -> (entry, is the reply's direction)
        self.listeners = self._listeners()
        self.routes = {}
        self.flows = []
        self.entry, self.pods, self.links = (defaultdict(lambda: [0, 0, 0]) for _ in range(3))
        self.hops = defaultdict(lambda: [0, 0])
        self.totals = Counter()
        self.link_delays_ps = tuple(link.delay_ps for link in fabric.links)
        self.queues = None  # where the scenario has any
        self.closed_loop = None
        self.ranks = {}  # (flow id, number) -> place in the order of sending

    def run(self, generator, choice, fixed_target):
        """Make all flows, run the clock to its end, return self."""
        if isinstance(generator.workload.arrivals, workload_model.ClosedLoop):
            return self.run_closed(generator, choice, fixed_target)
        made = one_by_one.generate(
            generator, self.seed, until_ps=self.scenario.run.duration_ps, choice=choice,
            target_count=len(self.targets), fixed_target=fixed_target,
        )  # fmt: skip
        if self.scenario.has_queues:
            sent = sorted((packet[0], flow.flow_id, k) for flow in made for k, packet in enumerate(flow.packets))
            self.ranks = {key[1:]: rank for rank, key in enumerate(sent)}
            if not self.changes:
                self.queues = self.make_queues(self.env, generator)
        for each in made:
            flow = self.begin(each, generator.workload.protocol)
            self.env.process(self.send_flow(flow, generator.reply_size is not None))
        return self.run_to_the_end(generator)

    def run_closed(self, generator, choice, fixed_target):
        """Let clients that wait make their flows as they go."""
        self.queues = self.make_queues(self.env, generator)
        self.closed_loop = closed_loop.ClosedLoop(self, generator, choice, fixed_target)
        self.env.run()
        self.totals += self.closed_loop.settle(self.flows)
        return self.run_to_the_end(generator)

    def run_to_the_end(self, generator):
        self.env.run()
        if self.scenario.has_queues and self.changes:
            self.wait_in_queues(generator)
        for flow in self.flows:
            self.account(flow)
        return self

    def make_queues(self, env, generator):
        law = generator.service_time
        return queues.Queues(
            env, self.cluster, self.scenario,
            lambda stream, number: round(
                one_by_one.value_of(law, one_by_one.open_uniform(self.seed, "workload/service-time", stream, number))
            ) if law else 0,
        )  # fmt: skip

    def begin(self, made, protocol):
        """A flow as its client calls its target."""
        name, origin, address = self.callers[made.client]
        target, port = self.targets[made.target]
        address = self.source_of(origin, address, target)
        flow = Flow(made, protocol, name, origin, Header(address, made.source_port, target, port), target)
        flow.led = self.env.event()
        self.flows.append(flow)
        return flow

    def send(self, flow, number, size_bytes, reply_bytes, rank, work):
        """Send a packet of a flow now; return it, and the process that ends with it or its answer."""
        packet = Packet(
            flow, number, flow.called, size_bytes, flow.origin, sent_ps=self.env.now, opens=number == 0, work=work
        )
        packet.journey = queues.Journey(rank, flow.led if number else None)
        packet.link_delays_ps = self.link_delays_ps
        flow.requests.append(packet)
        ended = self.env.process(self.there_and_back(packet, reply_bytes, True))
        if number == 0:
            ended.callbacks.append(lambda _: flow.led.succeed())
        return packet, ended

    def wait_in_queues(self, generator):
        """Where tables change, they are asked as if nobody waited; then every packet goes its way again, and waits."""
        env = simpy.Environment(initial_time=0)
        self.queues = self.make_queues(env, generator)
        for flow in self.flows:
            replies = {reply.number: reply for reply in flow.replies}
            for packet in flow.requests:
                env.process(self.wait(env, packet, replies.get(packet.number)))
        env.run()

    def wait(self, env, packet, reply):
        rank = self.ranks[packet.flow.made.flow_id, packet.number]
        packet.journey = journey = queues.Journey(rank, None)
        yield queues.At(env, packet.sent_ps, rank)
        for each in (packet, reply):
            if each is None or journey.lost_at:
                continue
            each.journey = journey
            for visit, *what in each.visits:
                arrived_ps = env.now
                yield from getattr(self.queues, visit)(each, *what)
                if visit == "serve" and not journey.lost_at:
                    packet.in_pod_ps = arrived_ps
            each.ended_ps = env.now
        if journey.lost_at:
            if packet.in_pod_ps < 0:
                packet.end("dropped", "queue full", journey.lost_ps)
            if reply is not None:
                reply.end("dropped", "queue full", journey.lost_ps)

    def source_of(self, origin, address, target):
        """A process of a node takes the address of the interface that its route leaves by, where that is a tunnel."""
        node = self.devices.get(self.host_pods[origin].node if origin in self.host_pods else origin)
        if node is None or node.kind is not DeviceKind.NODE:
            return address
        asked = (node.name, address, target, 0, 0, 0)
        kind, following, _, _ = forwarding.decide(self.cluster.fabric, self.cluster.fibs, *asked, self.seed)
        return following[0].address if kind == "tunnel" else address

    def send_flow(self, flow, has_replies):
        for number, (at_ps, size_bytes, reply_bytes) in enumerate(flow.made.packets):
            rank = self.ranks.get((flow.made.flow_id, number))
            yield self.env.timeout(at_ps - self.env.now) if rank is None else queues.At(self.env, at_ps, rank)
            packet = Packet(flow, number, flow.called, size_bytes, flow.origin, sent_ps=at_ps, opens=number == 0)
            packet.journey = queues.Journey(rank, flow.led if number else None) if self.queues else None
            packet.link_delays_ps = self.link_delays_ps
            flow.requests.append(packet)
            if at_ps >= flow.reset_ps:
                packet.end("rejected", "connection reset", at_ps)
                continue
            ended = self.env.process(self.there_and_back(packet, reply_bytes, has_replies))
            if number == 0:
                ended.callbacks.append(lambda _: flow.led.succeed())

    def there_and_back(self, packet, reply_bytes, has_replies):
        yield from self.travel(packet)
        flow, journey = packet.flow, packet.journey
        if packet.verdict == "delivered" and not self.times.runs(packet.place, self.env.now):
            packet.end("rejected", "port closed", self.env.now)
        if packet.verdict == "delivered" and flow.protocol != UDP:
            self.meet_socket(packet)
        packet.is_routed = packet.verdict == "delivered"
        if packet.is_routed:
            packet.visits.append(("serve",))
        if self.queues:
            yield from self.serve(packet)
        if not packet.is_routed or not has_replies:
            return
        reply = Packet(
            flow, packet.number, packet.header.reversed(), reply_bytes, packet.place, is_reply=True, draw=packet.draw,
            connection=packet.connection, opens=packet.opens, sent_ps=self.env.now, journey=journey,
        )  # fmt: skip
        flow.replies.append(reply)
        packet.answer = reply
        yield from self.travel(reply)
        if reply.verdict == "delivered" and (reply.header, reply.place) != (flow.called.reversed(), flow.origin):
            reply.end("dropped", "reply bypassed translation", self.env.now)
        reply.is_routed = reply.verdict == "delivered"
        if journey and journey.lost_at:
            reply.end("dropped", "queue full", journey.lost_ps)

    def meet_socket(self, packet):
        """The first segment that reaches a pod connects the flow; others must fit, and the pod be the one it was."""
        flow, header, now_ps = packet.flow, packet.header, self.env.now
        seen = (packet.place, header.source, header.source_port, header.destination_port)
        if flow.socket is None:
            flow.socket = (seen, now_ps)
        since_ps = self.times.works_since(self.node_of(packet.place), now_ps)
        if flow.socket[0] != seen or flow.socket[1] < since_ps:
            packet.end("rejected", "connection reset", now_ps)
            flow.reset_ps = min(flow.reset_ps, now_ps)
        flow.reset_ps = min(flow.reset_ps, self.times.pod_ends(packet.place, now_ps))

    def serve(self, packet):
        """Let the pod work on a request; what a queue has dropped is undelivered, wherever the tables send it."""
        journey = packet.journey
        if packet.is_routed:
            arrived_ps = self.env.now
            yield from self.queues.serve(packet)
            packet.in_pod_ps = -1 if journey.lost_at else arrived_ps
        if journey.lost_at:
            packet.end("dropped", "queue full", journey.lost_ps)
        elif packet.is_routed:
            packet.ended_ps = self.env.now

    # --- one packet, box by box --------------------------------------------------------------------

    def travel(self, packet):
        """Let a packet leave its sender, then take one box after the other until it has ended."""
        if not self.has_power(packet):
            return
        if packet.place in self.veths:
            if packet.header.source == packet.header.destination:  # over the pod's loopback
                packet.end("delivered", "", self.env.now)
                return
            if packet.size_bytes > self.cluster.fabric.pod_mtu:
                packet.end("dropped", "fragmentation needed", self.env.now)
                return
            pod = self.veths[packet.place]
            wire = forwarding.direction(self.cluster.fabric, pod.link, pod.pod)
            packet.in_interface = pod.interface
            yield from self.cross(packet, (wire,), pod.node)
        else:
            if packet.place in self.host_pods:
                packet.place = self.host_pods[packet.place].node
            if self.devices[packet.place].kind is DeviceKind.NODE:
                yield from self.node(packet, sent_here=True)
            else:
                step = self.route(packet)
                if self.fits(packet, step):
                    yield from self.follow(packet, step)
        while not packet.verdict and self.has_power(packet):
            device = self.devices.get(packet.place)
            if device is None or device.kind is DeviceKind.CLIENTS:
                packet.end("delivered", "", self.env.now)
            elif device.kind is DeviceKind.SWITCH or (packet.outer and not self.comes_out(packet, device)):
                yield from self.switch(packet)
            else:
                yield from self.node(packet, sent_here=False)

    def has_power(self, packet):
        works = not self.changes or self.times.works(self.node_of(packet.place), self.env.now)
        if not works:
            packet.end("lost", "device down", self.env.now)
        return works

    def switch(self, packet):
        """Route a packet, or the outer one that holds it, at a box that looks at nothing else."""
        step = self.route(packet)
        if step[0] == "local" or (self.fits(packet, step) and self.spend_ttl(packet)):
            yield from self.follow(packet, step)

    def comes_out(self, packet, node):
        """Take a packet out of its tunnel if this is the far end."""
        mine = [tunnel for tunnel in node.tunnels if tunnel.kind == packet.tunnel.kind]
        if packet.outer.destination not in node.addresses or not mine:
            return False
        packet.outer = packet.tunnel = None
        packet.in_interface = mine[0].interface
        return True

    def fits(self, packet, step):
        """False, and the packet's end, where it is too large for the interface that it would leave by."""
        kind, following, _, _ = step
        if packet.outer or kind not in ("forward", "tunnel") or packet.ttl <= 1:
            return True
        fabric = self.cluster.fabric
        mtu = fabric.pod_mtu if following in self.veths else fabric.mtu
        if kind == "tunnel":
            mtu = fabric.mtu - following[0].extra_bytes
        if packet.size_bytes > mtu:
            packet.end("dropped", "fragmentation needed", self.env.now)
        return packet.size_bytes <= mtu

    def route(self, packet):
        """(kind, next place, wires, interface), by the FIB of the box where the packet is."""
        header, protocol = packet.header, packet.flow.protocol
        if packet.outer:
            header, protocol = packet.outer, 4 if packet.tunnel.kind == "ipip" else 17
        asked = (
            packet.place, header.source, header.destination, header.source_port, header.destination_port, protocol,
        )  # fmt: skip
        if self.changes:
            return forwarding.decide(self.cluster.fabric, self.times.fibs(self.env.now), *asked, self.seed)
        if asked not in self.routes:
            self.routes[asked] = forwarding.decide(self.cluster.fabric, self.cluster.fibs, *asked, self.seed)
        return self.routes[asked]

    def follow(self, packet, step):
        kind, following, wires, _ = step
        if kind == "tunnel":
            packet.tunnel, far = following
            ports = (0, 0)
            packet.outer_ttl = packet.ttl
            if packet.tunnel.kind == "vxlan":
                inner, node = packet.header, self.devices[packet.place]
                five = (inner.source, inner.destination, inner.source_port, inner.destination_port)
                port = forwarding.vxlan_port(self.cluster.fabric, node, *five, packet.flow.protocol, self.seed)
                ports, packet.outer_ttl = (port, 4789), 64
            packet.outer = Header(packet.tunnel.underlay, ports[0], far, ports[1])
            yield from self.follow(packet, self.route(packet))
            return
        if kind != "forward":
            packet.end(*UNROUTABLE[kind], self.env.now)
            return
        packet.in_interface = self.fabric_interface.get(following, "")
        yield from self.cross(packet, wires, following)

    def cross(self, packet, wires, following):
        for number, wire in enumerate(wires):
            link = self.cluster.fabric.links[wire // 2]
            sender = (link.a, link.b)[wire % 2]
            bridge_works = not number or sender not in self.devices or self.times.works(sender, self.env.now)
            if self.changes and not (self.times.carries(wire // 2, self.env.now) and bridge_works):
                packet.end("lost", "link down", self.env.now)
                return
            extra = packet.tunnel.extra_bytes if packet.outer else 0
            packet.wires.append((wire, extra))
            packet.links += 1
            packet.visits.append(("cross", wire, extra))
            if self.queues:
                yield from self.queues.cross(packet, wire, extra)
                continue
            bits = 8 * (packet.size_bytes + extra) * S
            yield self.env.timeout(link.delay_ps + -(-bits // link.rate_bps))
        packet.place = following

    def spend_ttl(self, packet):
        if (packet.outer_ttl if packet.outer else packet.ttl) <= 1:
            packet.end("lost", "ttl exceeded", self.env.now)
            return False
        if packet.outer:
            packet.outer_ttl -= 1
            return True
        packet.ttl -= 1
        packet.l3_hops += 1
        return True

    # --- a node ------------------------------------------------------------------------------------

    def node(self, packet, sent_here):
        """What the node's tables say when the packet comes, the time that its processor takes, and on."""
        if sent_here and self.route(packet)[0] not in ("forward", "tunnel", "local"):
            yield from self.follow(packet, self.route(packet))
            return
        node, header = packet.place, packet.header
        before = packet.rules_scanned, packet.endpoint_rules_scanned
        step = self.decide(packet, sent_here)
        family = rs.Family.IPV6 if ":" in header.destination else rs.Family.IPV4
        scanned = packet.rules_scanned - before[0], packet.endpoint_rules_scanned - before[1]
        packet.visits.append(("handle", node, header, *scanned, (node, family) in self.host))
        if self.queues:
            yield from self.queues.handle(packet, *packet.visits[-1][1:])
            packet.ended_ps = self.env.now if packet.verdict else packet.ended_ps
        if step is not None:
            yield from self.follow(packet, step)

    def decide(self, packet, sent_here):
        """PREROUTING or OUTPUT, the routing decision, FORWARD or INPUT, POSTROUTING; where to go on, None: nowhere."""
        entry, is_fresh, is_answer = self.recognise(packet)
        step = self.through(packet, entry, is_fresh, is_answer, sent_here)
        if is_fresh and not entry.confirmed:  # dropped here: kept until this node's tables change
            family = rs.Family.IPV6 if ":" in packet.header.destination else rs.Family.IPV4
            entry.gone_ps = self.times.next_tables(packet.place, family, self.env.now)
        return step

    def through(self, packet, entry, is_fresh, is_answer, sent_here):
        """Every hook after conntrack, and the routing decision."""
        if not self.hook("OUTPUT" if sent_here else "PREROUTING", packet, entry, is_fresh, is_answer, ""):
            return None
        step = self.route(packet)
        if not sent_here and step[0] in ("local", "forward", "tunnel") and forwarding.is_martian(
            self.cluster.fabric, self.times.fibs(self.env.now), packet.place, packet.in_interface, packet.header.source
        ):  # fmt: skip
            packet.end("dropped", "reverse path filter", self.env.now)
            return None
        if step[0] == "local":
            if sent_here and not self.hook("POSTROUTING", packet, entry, is_fresh, is_answer, ""):
                return None
            if self.hook("INPUT", packet, entry, is_fresh, is_answer, ""):
                self.leave(packet, entry, is_fresh, is_answer)
                self.deliver(packet)
            return None
        if step[0] in ("forward", "tunnel"):
            if not self.fits(packet, step):
                return None
            if not sent_here and not self.spend_ttl(packet):
                return None
            if not sent_here and not self.hook("FORWARD", packet, entry, is_fresh, is_answer, step[3]):
                return None
            if not self.hook("POSTROUTING", packet, entry, is_fresh, is_answer, step[3]):
                return None
            self.leave(packet, entry, is_fresh, is_answer)
        packet.mark = 0
        return step

    def recognise(self, packet):
        """Find or make the entry; returns (entry or None for INVALID, was it made now, does the packet answer it)."""
        flow, now_ps, table = packet.flow, self.env.now, self.conntrack[packet.place]
        known, is_answer = table.get((flow.made.flow_id, packet.header), (None, False))
        if known is not None and not self.lives(known, packet.place):
            known = None
        is_fresh = known is None
        if packet.connection is None:  # the first node on the way says whether the flow was forgotten
            if is_fresh and flow.tracked:
                flow.rank += 1
                packet.opens = True
            packet.connection, flow.tracked = flow.rank, True
        if is_fresh:
            is_answer = False
            if packet.is_reply and flow.protocol != UDP:
                return None, False, False
            known = Entry(packet.header, now_ps)
            table[flow.made.flow_id, packet.header] = (known, False)
        if is_answer:
            known.replied = True
        lives_ps = 30 * S if flow.protocol == UDP else float("inf")
        if flow.protocol == UDP and known.replied and now_ps > known.created_ps + 2 * S:
            lives_ps = 120 * S
        known.expires_ps = now_ps + lives_ps
        if is_answer:  # the destination is restored before routing, the source on leaving
            packet.header = replace(
                packet.header, destination=known.original.source, destination_port=known.original.source_port
            )
        elif not is_fresh and known.destination:
            self.rewrite_destination(packet, known.destination)
        return known, is_fresh, is_answer

    def lives(self, entry, node):
        now_ps = self.env.now
        return min(entry.expires_ps, entry.gone_ps) > now_ps and entry.created_ps >= self.times.works_since(
            node, now_ps
        )

    def leave(self, packet, entry, is_fresh, is_answer):
        """Rewrite the source as the entry says; a fresh entry now learns what its answers look like."""
        if entry is None:
            return
        if is_answer:
            packet.header = replace(
                packet.header, source=entry.original.destination, source_port=entry.original.destination_port
            )
            return
        if not is_fresh and entry.source:
            self.rewrite_source(packet, entry.source)
        entry.confirmed = True
        if is_fresh:
            key = (packet.flow.made.flow_id, packet.header.reversed())
            held = self.conntrack[packet.place].get(key)
            if held is None or not self.lives(held[0], packet.place):  # a looping reply displaces no entry that lives
                self.conntrack[packet.place][key] = (entry, True)

    def rewrite_destination(self, packet, new):
        packet.header = replace(packet.header, destination=new[0], destination_port=new[1])
        packet.dnat_node = packet.dnat_node or packet.place
        packet.nat_hops += 1

    def rewrite_source(self, packet, new):
        packet.header = replace(packet.header, source=new[0], source_port=new[1])
        packet.snat = True
        packet.nat_hops += 1

    def hook(self, name, packet, entry, is_fresh, is_answer, out_interface):
        """Run a hook's tables; False if a rule stopped the packet. nat is asked once a connection."""
        device = self.devices[packet.place]
        family = rs.Family.IPV6 if ":" in packet.header.destination else rs.Family.IPV4
        host = self.times.host_at(packet.place, family, self.env.now)
        if host is None:
            return True
        own = next(each for each in device.addresses if (":" in each) == (family is rs.Family.IPV6))
        leaving = next((each.address for each in device.tunnels if each.interface == out_interface), own)
        state = 8 if entry is None else 2 if is_answer or entry.replied else 1
        for table in TABLES[name]:
            if (table == "nat" and not is_fresh) or self.rules.rulesets[host].chain(table, name) is None:
                continue
            header = packet.header
            asked = SimpleNamespace(
                host=host, source=self.addresses.intern(header.source),
                destination=self.addresses.intern(header.destination), source_port=header.source_port,
                destination_port=header.destination_port, protocol=packet.flow.protocol,
                in_interface=self.interface(packet.in_interface), out_interface=self.interface(out_interface),
                mark=packet.mark, state=state, source_is_local=header.source in device.addresses,
                destination_is_local=header.destination in device.addresses,
                connection=packet.flow.made.flow_id + (packet.connection << 40), draw=packet.draw,
                length_bytes=packet.size_bytes, packets=1, time_ps=self.env.now,
            )  # fmt: skip
            if entry is None and table == "nat":
                continue
            out = self.rules.run(table, name, asked)
            packet.rules_scanned += out.rules_scanned
            packet.endpoint_rules_scanned += out.endpoint_rules_scanned
            packet.draw, packet.mark = out.draw, out.mark
            if out.destination_port >= 0:
                address = own if out.destination == -2 else self.addresses.text(out.destination)
                entry.destination = (address, out.destination_port)
                self.rewrite_destination(packet, entry.destination)
                if packet.flow.protocol == UDP:
                    entry.gone_ps = self.times.target_gone(packet.place, family, entry.destination, self.env.now)
            if out.snat_kind:
                address = leaving if out.snat_kind == 1 else self.addresses.text(out.snat_source)
                entry.source = (address, self.source_port(packet, out))
                self.rewrite_source(packet, entry.source)
            if out.verdict > 2:
                packet.end("rejected" if out.verdict == 5 else "dropped", self.reason(host, out.rule), self.env.now)
                return False
        return True

    def interface(self, name):
        return self.interfaces.index(name) if name else -1

    def source_port(self, packet, out):
        """The kernel keeps the port if it may; else one at random out of the range."""
        first, last = (1024, 65535) if out.snat_port_first < 0 else (out.snat_port_first, out.snat_port_last)
        port = packet.header.source_port
        if not out.snat_random_fully and (out.snat_port_first < 0 or first <= port <= last):
            return port
        connection = packet.flow.made.flow_id + (packet.connection << 40)
        device = list(self.devices).index(packet.place)
        drawn = one_by_one.bits(self.seed, "netfilter/masquerade-port", connection, device)
        return first + drawn % (last - first + 1)

    def reason(self, host, where):
        table, chain_name, number = where
        rules = self.rules.rulesets[host].chain(table, chain_name).rules
        rule = rules[number] if number < len(rules) else None
        comment = (rule.comment if rule else None) or ""
        if comment.endswith("has no local endpoints"):
            return "no local endpoint"
        if comment.endswith("has no endpoints"):
            return "no endpoints"
        if chain_name == "KUBE-PROXY-FIREWALL":
            return "source range"
        if rule and any(isinstance(m, rs.ConntrackStateMatch) and m.states == ("INVALID",) for m in rule.matches):
            return "invalid state"
        return "filter reject" if rule and isinstance(rule.target, rs.Reject) else "filter drop"

    def deliver(self, packet):
        """To a process of the node: a listening hostNetwork pod, or whoever had sent the request."""
        flow, header = packet.flow, packet.header
        if packet.is_reply:
            node = self.host_pods[flow.origin].node if flow.origin in self.host_pods else flow.origin
            asked = node == packet.place and header.destination_port == flow.called.source_port
            listener = flow.origin if asked and flow.origin not in self.veths else None
        else:
            listener = self.listeners.get((header.destination, flow.protocol, header.destination_port))
        if listener is None:
            packet.end("rejected", "port closed", self.env.now)
        else:
            packet.place = listener
            packet.end("delivered", "", self.env.now)

    def _listeners(self):
        found = {}
        for each in self.cluster.endpoint_slices:
            for endpoint in each.endpoints:
                for address in endpoint.addresses:
                    holders = [key for key, pod in self.host_pods.items() if address in pod.addresses]
                    if not holders:
                        continue
                    reference = endpoint.target_ref
                    named = f"{reference.namespace or each.namespace}/{reference.name}" if reference else ""
                    pod = named if named in self.host_pods else holders[0]
                    for port in each.ports:
                        number = {"TCP": 6, "UDP": 17, "SCTP": 132}[port.protocol]
                        found.setdefault((address, number, port.port), pod)
        return found

    # --- what is measured --------------------------------------------------------------------------

    def node_of(self, place):
        pod = self.veths.get(place) or self.host_pods.get(place)
        return pod.node if pod else place

    def account(self, flow):
        for packet in flow.requests:
            self.totals["sent"] += 1
            self.totals[packet.verdict] += 1
            if packet.reason:
                self.totals[f"{packet.verdict}: {packet.reason}"] += 1
        counted = {packet.number for packet in flow.requests if not self.is_warmup(packet)}
        requests = [packet for packet in flow.requests if packet.number in counted]  # loads and hops leave it out
        replies = [packet for packet in flow.replies if packet.number in counted]
        for packet in requests:
            if packet.dnat_node:
                add(self.entry[packet.dnat_node], packet)
            if packet.is_routed:  # with what queues have dropped: places' loads are what the tables send them
                add(self.pods[packet.place], packet)
                add(self.hops["request", packet.l3_hops, packet.links], packet)
        for packet in replies:
            if packet.is_routed:
                add(self.hops["reply", packet.l3_hops, packet.links], packet)
        for packet in (*requests, *replies):
            for wire, extra in packet.wires:
                add(self.links[wire], packet)
                self.links[wire][2] += extra

    def is_warmup(self, packet):
        """Flows of the warm-up are left out whole, but for connections that wait: those are open for long."""
        start_ps = packet.sent_ps if self.closed_loop else packet.flow.made.start_ps
        return start_ps < self.scenario.run.warmup_ps

    def packet_rows(self):
        """The rows of the packets table."""
        for flow in self.flows:
            answers = {reply.number: reply for reply in flow.replies if reply.verdict == "delivered"}
            for packet in flow.requests:
                arrived = packet.verdict == "delivered"
                answer = answers.get(packet.number)
                yield {
                    "flow_id": flow.made.flow_id, "packet": packet.number, "sent_ps": packet.sent_ps,
                    "size_bytes": packet.size_bytes, "pod": packet.place if arrived else "",
                    "serving_node": self.node_of(packet.place) if arrived else "", "verdict": packet.verdict,
                    "l3_hops": packet.l3_hops, "links": packet.links,
                    "delay_ps": arrived_ps(packet) - packet.sent_ps if arrived else -1,
                    "round_trip_ps": answer.ended_ps - packet.sent_ps if answer else -1,
                    **parts_of(packet, answer),
                }  # fmt: skip

    def flow_rows(self):
        """The rows of the flows table."""
        for flow in self.flows:
            first, last = flow.requests[0], flow.requests[-1]
            arrived_at_all = {packet.number for packet in flow.requests if packet.verdict == "delivered"}
            answers = {reply.number: reply for reply in flow.replies if reply.number in arrived_at_all}
            arrived, reply = first.verdict == "delivered", answers.get(0)
            answered = reply is not None and reply.verdict == "delivered"
            final = answers.get(last.number)
            back = [each for each in flow.replies if each.verdict == "delivered"]
            verdicts = Counter(packet.verdict for packet in flow.requests)
            serving = self.node_of(first.place) if arrived else ""
            yield {
                "flow_id": flow.made.flow_id, "start_ps": flow.made.start_ps,
                "end_ps": final.ended_ps if final and (self.queues or final.verdict == "delivered") else last.ended_ps,
                "warmup": flow.made.start_ps < self.scenario.run.warmup_ps, "client": flow.client,
                "protocol": {6: "tcp", 17: "udp", 132: "sctp"}[flow.protocol], "source_port": flow.called.source_port,
                "destination": flow.target, "destination_port": flow.called.destination_port,
                "entry_node": first.dnat_node or "", "pod": first.place if arrived else "", "serving_node": serving,
                "endpoint_port": first.header.destination_port if arrived else -1,
                "source_seen": first.header.source if arrived else "", "verdict": first.verdict, "reason": first.reason,
                "answered": answered, "reply_reason": reply.reason if reply else "", "snat": first.snat,
                "source_hidden": arrived and first.header.source != flow.called.source,
                "cross_node": arrived and first.dnat_node is not None and serving != first.dnat_node,
                "connections": flow.rank + 1, "l3_hops": first.l3_hops, "links": first.links,
                "reply_l3_hops": reply.l3_hops if answered else -1, "reply_links": reply.links if answered else -1,
                "nat_hops": first.nat_hops, "rules_scanned": first.rules_scanned,
                "delay_ps": arrived_ps(first) - first.sent_ps if arrived else -1,
                "round_trip_ps": reply.ended_ps - first.sent_ps if answered else -1,
                "packets_sent": len(flow.requests), "packets_delivered": verdicts["delivered"],
                "packets_dropped": verdicts["dropped"], "packets_rejected": verdicts["rejected"],
                "packets_lost": verdicts["lost"], "bytes_sent": sum(packet.size_bytes for packet in flow.requests),
                "reply_packets": len(back), "reply_bytes": sum(each.size_bytes for each in back),
            }  # fmt: skip

    def load_rows(self):
        """{(where, name): (connections, packets, bytes)}, places without load left out."""
        serving = defaultdict(lambda: [0, 0, 0])
        for place, load in self.pods.items():
            serving[self.node_of(place)] = [a + b for a, b in zip(serving[self.node_of(place)], load, strict=True)]
        names = self.cluster.fabric.direction_names()
        return {
            **{("entry_node", name): tuple(load) for name, load in self.entry.items()},
            **{("serving_node", name): tuple(load) for name, load in serving.items()},
            **{("pod", name): tuple(load) for name, load in self.pods.items()},
            **{("link", names[wire]): tuple(load) for wire, load in self.links.items()},
        }


def add(load, packet):
    """Count a packet: connections, packets and, where there is a third number, bytes."""
    load[0] += packet.opens
    load[1] += 1
    if len(load) > 2:
        load[2] += packet.size_bytes


def arrived_ps(packet):
    """When a delivered request was in its pod."""
    return packet.ended_ps if packet.in_pod_ps < 0 else packet.in_pod_ps


def parts_of(packet, answer):
    """Where the time of a request and its answer went; without queues the wires are all there is."""
    if packet.journey is None:
        way = [*packet.wires, *(answer.wires if answer else ())]
        propagation_ps = sum(packet.link_delays_ps[wire // 2] for wire, _ in way)
        total_ps = (answer or packet).ended_ps - packet.sent_ps
        spent = Counter(propagation=propagation_ps, link=total_ps - propagation_ps)
        lost_at = ""
    else:
        spent, lost_at = packet.journey.parts, packet.journey.lost_at
    rules_ps = 0 if lost_at else spent["rules"]
    return {
        "propagation_ps": spent["propagation"], "transmission_ps": spent["link"], "link_queue_ps": spent["link queue"],
        "cpu_queue_ps": spent["cpu queue"], "cpu_ps": spent["cpu"] - rules_ps, "rule_scan_ps": rules_ps,
        "pod_queue_ps": spent["pod queue"], "service_ps": spent["pod"], "dropped_at": lost_at,
    }  # fmt: skip
