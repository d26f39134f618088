"""Traces: which way packets of a connection take, through which rules, with what probability.

`Tracer.trace` sends one packet through the whole cluster and its answer back; `Tracer.ask_node` asks one node's rules
alone.
Modelled and left out: as in `rule_walk` and `packet_walk`. A trace without `all` follows one branch, drawn from the
seed; with `all` every branch is told, ECMP next hops at 1/n each, and the probabilities sum to 1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from simnet.controlplane.calico.felix_rules import NatOutgoing
from simnet.dataplane.path.columns import TTL_AT_START
from simnet.engine.network import PROTOCOL_NUMBERS
from simnet.engine.outside import with_outside_client
from simnet.engine.packet_walk import (
    Ending,
    Moving,
    Reply,
    Request,
    Surroundings,
    TraceStep,
    listening_pods,
)
from simnet.engine.route_walk import RouteWalker
from simnet.engine.rule_walk import (
    ONE,
    Chance,
    Header,
    HookPacket,
    Host,
    IPAddress,
    RuleWalker,
    endpoint_text,
    unlinked,
)
from simnet.errors import InputError, Position, Problem, unknown_name
from simnet.model.cluster import Cluster
from simnet.model.fabric import DeviceKind
from simnet.model.history import Instant
from simnet.model.iptables.ruleset import Family, Ruleset
from simnet.model.kubernetes import Service
from simnet.model.scenario import ClusterSpec

SOURCE_PORT = 40000  # of the traced packet, unless the user gives one


@dataclass(frozen=True, slots=True)
class Hops:
    """How long a way was."""

    l3: int  # boxes that decremented the TTL
    links: int  # wires crossed

    def to_dict(self) -> dict[str, int]:
        """Return the JSON form."""
        return {"l3": self.l3, "links": self.links}


@dataclass(frozen=True, slots=True)
class TraceOutcome:
    """One branch, from the client's packet to the end of its answer."""

    probability: Fraction
    verdict: str  # delivered, rejected, dropped, lost; of one node: translated, rejected, dropped, accepted, none
    reason: str
    endpoint: str | None  # "ip:port" reached or translated to
    pod: str | None  # namespace/name
    node: str | None  # of that pod
    masquerade: bool  # the source was rewritten
    source_seen: str | None  # by the pod
    hops: Hops
    ttl: int  # on arrival, or where it was stopped
    steps: tuple[TraceStep, ...]
    reply_hops: Hops | None = None  # None: no answer came back
    answered: bool = False
    reply_reason: str = ""  # why a delivered packet was not answered
    rules_scanned: int = 0  # by the request, in all hooks of all nodes
    entry_node: str | None = None  # that translated the destination
    place: str = ""  # device or pod where the request ended
    keeps_choice: bool = False  # an ECMP choice by addresses alone led here: all connections of the pair share it

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form of design 4.1."""
        return {
            "verdict": self.verdict,
            "reason": self.reason or None,
            "endpoint": self.endpoint,
            "pod": self.pod,
            "node": self.node,
            "probability": float(self.probability),
            "masquerade": self.masquerade,
            "source_seen": self.source_seen,
            "hops": self.hops.to_dict(),
            "reply_hops": self.reply_hops.to_dict() if self.reply_hops else None,
            "ttl": self.ttl,
            "answered": self.answered,
            "reply_reason": self.reply_reason or None,
            "rules_scanned": self.rules_scanned,
            "entry_node": self.entry_node,
            "steps": [step.to_dict() for step in self.steps],
        }


@dataclass(frozen=True, slots=True)
class Trace:
    """What was asked, and its outcomes."""

    source: str
    destination: str
    protocol: str
    node: str | None
    all: bool
    seed: int
    outcomes: tuple[TraceOutcome, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form: one object with `outcomes`."""
        return {"outcomes": [outcome.to_dict() for outcome in self.outcomes]}

    def __str__(self) -> str:
        from simnet.engine.trace_text import trace_text

        return trace_text(self)

    def _repr_html_(self) -> str:
        from simnet.engine.trace_text import trace_html

        return trace_html(self)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection as the user named it."""

    place: str | None  # device or pod; None: an address that the cluster does not know
    address: IPAddress
    port: int | None


def whole(cluster: Cluster) -> Instant:
    """Return the tables of a cluster's steady state, in which everything works."""
    return Instant(cluster.fibs, {}, frozenset(), frozenset())


class Tracer:
    """Traces through one cluster; keeps what it has indexed between questions."""

    def __init__(self, cluster: Cluster, spec: ClusterSpec, instant_of: Callable[[Cluster], Instant] = whole) -> None:
        """`cluster` in its steady state; `instant_of` says what becomes of it, or of it with one more client."""
        self._instant_of = instant_of
        self.cluster, self.spec, self.skip_unknown = cluster, spec, bool(spec.left_out_rules)
        self._nat_outgoing = NatOutgoing(spec.calico)
        self._pods = {pod.key: pod for pod in cluster.pods}
        self._nodes = {node.name: node for node in cluster.nodes}
        self._pod_at = {
            ipaddress.ip_address(address): pod.key
            for pod in cluster.pods
            if not pod.host_network
            for address in pod.addresses
        }
        self._node_at = {
            ipaddress.ip_address(address): node.name
            for node in reversed(cluster.nodes)
            for address in node.addresses
            if not ipaddress.ip_address(address).is_loopback
        }
        self._site_at = {
            ipaddress.ip_address(address): device.name
            for device in cluster.fabric.devices
            if device.kind is DeviceKind.CLIENTS
            for address in device.addresses
        }
        self._listening = listening_pods(cluster)
        self._ended: frozenset[str] = frozenset()  # pods whose processes do not run; known with the first rules
        self._around: dict[str, tuple[Cluster, RouteWalker]] = {}
        self._rulesets: dict[str, dict[Family, Ruleset]] = {}  # all nodes' rules with what Felix adds to kube-proxy's

    @cached_property
    def share_rules(self) -> RuleWalker:
        """Walks all branches and tells no steps; a client stands for all of its class."""
        return RuleWalker(record=False, skip_unknown=self.skip_unknown, any_client=True)

    def primary_addresses(self, node: str) -> list[IPAddress]:
        """Return a node's first address of each family."""
        host = Host(self._nodes[node].addresses)
        return [address for version in (4, 6) if (address := host.primary(version)) is not None]

    # --- the whole way ----------------------------------------------------------------------------------

    def trace(self, source: str, destination: str, *, protocol: str = "tcp", all: bool = False, seed: int = 1) -> Trace:
        """Send a packet from SRC to DST:PORT and its answer back.

        SRC is an address (one that the cluster does not know is an outside client's), `pod:NAMESPACE/NAME` or
        `node:NAME`, with `:PORT` or without; DST likewise, or `service:NAMESPACE/NAME`, with its port. Raises
        InputError.
        """
        number = protocol_number(protocol)
        to = self.destination(destination)
        sender = self.end(source, "--from", version=to.address.version)
        self._check_families(sender, to)
        header = Header(sender.address, sender.port or SOURCE_PORT, to.address, to.port or 0, number)
        chance = Chance(None if all else seed)
        around, origin = self.surroundings(sender, RuleWalker(chance, skip_unknown=self.skip_unknown))
        header = header._replace(source=around.own_source(origin, header))
        outcomes = tuple(self._connections(around, origin, header))
        return Trace(source, destination, protocol, None, all, seed, outcomes)

    def _connections(self, around: Surroundings, origin: str, header: Header) -> Iterator[TraceOutcome]:
        for ending in Request(around, origin, header).endings():
            if ending.verdict != "delivered":
                yield self._outcome(ending, None)
                continue
            for answer in Reply(around, origin, header, ending).endings():
                yield self._outcome(ending, answer)

    def _outcome(self, ending: Ending, answer: Ending | None) -> TraceOutcome:
        packet = ending.packet
        is_delivered = ending.verdict == "delivered"
        pod = self._pods.get(ending.place) if is_delivered else None
        steps = unlinked(packet.steps) + (unlinked(answer.packet.steps) if answer else [])
        is_answered = answer is not None and answer.verdict == "delivered"
        return TraceOutcome(
            probability=packet.probability * (answer.packet.probability if answer else 1),
            verdict=ending.verdict,
            reason=ending.reason,
            endpoint=endpoint_text(packet.header.destination, packet.header.destination_port) if is_delivered else None,
            pod=pod.key if pod else None,
            node=pod.node if pod else None,
            masquerade=packet.snat,
            source_seen=str(packet.header.source) if is_delivered else None,
            hops=Hops(packet.l3_hops, packet.links),
            ttl=packet.ttl,
            steps=tuple(step for step in steps if isinstance(step, TraceStep)),
            reply_hops=Hops(answer.packet.l3_hops, answer.packet.links) if answer and is_answered else None,
            answered=is_answered,
            reply_reason=answer.reason if answer and not is_answered else "",
            rules_scanned=packet.rules_scanned,
            entry_node=packet.dnat_node or None,
            place=ending.place,
            keeps_choice=bool(packet.kept or (answer and answer.packet.kept)),
        )

    def surroundings(self, sender: End, rules: RuleWalker) -> tuple[Surroundings, str]:
        """Return what a packet of this sender meets, and the place where it starts."""
        place, outside = sender.place, ""
        if place is None:
            if sender.address.is_loopback:
                raise InputError([_loopback(sender.address)])
            place, outside = "", str(sender.address)
        if outside not in self._around:
            cluster = with_outside_client(self.cluster, self.spec, outside) if outside else self.cluster
            now = self._instant_of(cluster)
            routes = RouteWalker(cluster.fabric, now.fibs, broken_links=now.broken_links, dead_devices=now.dead_devices)
            self._around[outside] = (cluster, routes)
            if not self._rulesets:  # a client more changes no rule
                self._ended = now.ended_pods
                for node, sets in {**cluster.rulesets, **now.rulesets}.items():
                    self._rulesets[node] = {each.family: self._nat_outgoing(each) for each in sets}
        cluster, routes = self._around[outside]
        if outside:
            place = next(device.name for device in cluster.fabric.devices if outside in device.addresses)
        node_of = {pod.key: pod.node for pod in cluster.pods}
        listening = {end: pod for end, pod in self._listening.items() if pod not in self._ended}
        return Surroundings(cluster, self._rulesets, routes, rules, listening, node_of), place

    # --- one node's rules --------------------------------------------------------------------------------

    def ask_node(
        self, node: str, source: str, destination: str, *, protocol: str = "tcp", all: bool = False, seed: int = 1
    ) -> Trace:
        """Ask one node's rules alone, as if the packet had just arrived there.

        A source that is the node's own takes OUTPUT, any other PREROUTING; kube-proxy's rules (or the node's imported
        ones) without those that Calico adds. Verdicts: translated, rejected, dropped, accepted (an explicit ACCEPT),
        none.
        """
        held = self._nodes.get(node)
        if held is None:
            raise InputError([_no_such("--node", node, "node", self._nodes)])
        number = protocol_number(protocol)
        to = self.destination(destination)
        sender = self.end(source, "--from", version=to.address.version)
        self._check_families(sender, to)
        header = Header(sender.address, sender.port or SOURCE_PORT, to.address, to.port or 0, number)
        family = Family.IPV6 if to.address.version == 6 else Family.IPV4
        ruleset = next((each for each in self.cluster.rulesets[node] if each.family is family), None)
        rules = RuleWalker(Chance(None if all else seed), skip_unknown=self.skip_unknown)
        asked = _NodeRules(node, Host(held.addresses), ruleset, rules, self)
        return Trace(source, destination, protocol, node, all, seed, tuple(asked.outcomes(header)))

    def interface_towards(self, node: str, address: IPAddress) -> str:
        """Return the node's interface on which an address is: a pod's veth, or the one towards the fabric."""
        pod = self._pod_at.get(address)
        for attached in self.cluster.fabric.pods:
            if attached.pod == pod and attached.node == node:
                return attached.interface
        ends = (end for segment in self.cluster.fabric.segments for end in segment.attachments)
        return next((end.interface for end in ends if end.device == node), "eth0")

    def pod_at(self, address: IPAddress, protocol: int, port: int) -> str | None:
        """Return the pod that has an address, or listens at a node's."""
        return self._pod_at.get(address) or self._listening.get((address, protocol, port))

    def node_of(self, pod: str | None) -> str | None:
        """Return the node of a pod."""
        return self._pods[pod].node if pod in self._pods else None

    # --- what the user named -----------------------------------------------------------------------------

    def destination(self, text: str) -> End:
        """Read DST:PORT. Raises InputError without a port."""
        found = self.end(text, "--to")
        if found.port is None:
            raise InputError(
                [
                    _problem(
                        "--to", repr(text), "an address and a port, such as 10.96.0.80:80 or [fd00::1]:80", "add :PORT"
                    )
                ]
            )
        return found

    def end(self, text: str, option: str, *, version: int | None = None) -> End:
        """Read one end of a connection; `version` is the family to take of a pod or node that has two."""
        kind, _, rest = text.partition(":")
        if kind in ("pod", "node", "service", "svc") and rest and not _is_address(text):
            name, _, port = rest.partition(":")
            addresses, place = self._named(kind, name, option)
            fitting = [each for each in addresses if version in (None, each.version)]
            if not fitting:
                raise InputError(
                    [_problem(option, text, f"something with an IPv{version} address", "use the other family")]
                )
            return End(place, fitting[0], _port(port, option, text) if port else None)
        host, port = _split_address(text)
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            expected = "an address, pod:NAMESPACE/NAME, node:NAME or service:NAMESPACE/NAME"
            raise InputError([_problem(option, repr(text), expected, "correct the spelling")]) from None
        place = self._pod_at.get(address) or self._node_at.get(address) or self._site_at.get(address)
        return End(place, address, _port(port, option, text) if port else None)

    def _named(self, kind: str, name: str, option: str) -> tuple[list[IPAddress], str | None]:
        if kind == "pod":
            pod = self._pods.get(name)
            if pod is None:
                raise InputError([_no_such(option, name, "pod", self._pods)])
            return [ipaddress.ip_address(each) for each in pod.addresses], pod.key
        if kind == "node":
            node = self._nodes.get(name)
            if node is None:
                raise InputError([_no_such(option, name, "node", self._nodes)])
            own = [ipaddress.ip_address(each) for each in node.addresses]
            return [each for each in own if not each.is_loopback] or own, node.name
        service = self.service(name, option)
        texts = [each for each in service.cluster_ips or (service.cluster_ip,) if each not in ("", "None")]
        if not texts:
            raise InputError([_problem(option, name, "a Service with a cluster IP", "name one of its endpoints")])
        return [ipaddress.ip_address(each) for each in texts], None

    def service(self, name: str, option: str) -> Service:
        """Return the Service of that namespace/name. Raises InputError if there is none."""
        services = {f"{each.namespace}/{each.name}": each for each in self.cluster.services}
        if name not in services:
            raise InputError([_no_such(option, name, "Service", services)])
        return services[name]

    @staticmethod
    def _check_families(sender: End, to: End) -> None:
        if sender.address.version != to.address.version:
            found = f"from {sender.address} to {to.address}"
            raise InputError([_problem("--from", found, "two addresses of one family", "change one of them")])


class _NodeRules:
    """One node's rules and one packet."""

    def __init__(self, node: str, host: Host, ruleset: Ruleset | None, rules: RuleWalker, tracer: Tracer) -> None:
        self.node, self.host, self.ruleset, self.rules, self.tracer = node, host, ruleset, rules, tracer

    def outcomes(self, header: Header) -> Iterator[TraceOutcome]:
        """Yield every outcome."""
        is_own = self.host.is_local(header.source)
        arrives = "lo" if is_own else self.tracer.interface_towards(self.node, header.source)
        packet = HookPacket(header, in_interface="" if is_own else arrives)
        start = Moving(ONE, self.node, header, header, in_interface=packet.in_interface)
        for now in self._hook("OUTPUT" if is_own else "PREROUTING", start):
            yield from (now,) if isinstance(now, TraceOutcome) else self._go_on(now, header, is_own)

    def _go_on(self, now: Moving, called: Header, is_own: bool) -> Iterator[TraceOutcome]:
        is_local = self.host.is_local(now.header.destination)
        if is_own:
            hooks = ("POSTROUTING", "INPUT") if is_local else ("POSTROUTING",)
        else:
            hooks = ("INPUT",) if is_local else ("FORWARD", "POSTROUTING")
        yield from self._through(hooks, now, called)

    def _through(self, hooks: tuple[str, ...], now: Moving, called: Header) -> Iterator[TraceOutcome]:
        if not hooks:
            yield self._ended(now, called)
            return
        out = "" if hooks[0] == "INPUT" else self.tracer.interface_towards(self.node, now.header.destination)
        for following in self._hook(hooks[0], now, out):
            if isinstance(following, TraceOutcome):
                yield following
            else:
                yield from self._through(hooks[1:], following, called)

    def _hook(self, hook: str, now: Moving, out_interface: str = "") -> Iterator[Moving | TraceOutcome]:
        around = _alone(self.node, self.host, self.ruleset, self.rules)
        for passed in Request(around, self.node, now.header).hook(hook, now, out_interface):
            if isinstance(passed, Ending):
                yield self._outcome(passed.packet, passed.verdict, passed.reason)
            else:
                yield passed

    def _ended(self, now: Moving, called: Header) -> TraceOutcome:
        if now.dnat_node:
            return self._outcome(now, "translated", "")
        return self._outcome(now, "accepted" if now.accepted else "none", "")

    def _outcome(self, now: Moving, verdict: str, reason: str) -> TraceOutcome:
        header = now.header
        endpoint = pod = None
        if verdict == "translated":
            endpoint = endpoint_text(header.destination, header.destination_port)
            pod = self.tracer.pod_at(header.destination, header.protocol, header.destination_port)
        return TraceOutcome(
            probability=now.probability,
            verdict=verdict,
            reason=reason,
            endpoint=endpoint,
            pod=pod,
            node=self.tracer.node_of(pod),
            masquerade=now.snat,
            source_seen=str(header.source) if verdict == "translated" else None,
            hops=Hops(0, 0),
            ttl=TTL_AT_START,
            steps=tuple(step for step in unlinked(now.steps) if isinstance(step, TraceStep)),
            rules_scanned=now.rules_scanned,
            entry_node=now.dnat_node or None,
            place=self.node,
        )


class _OneNode:
    """The part of a RouteWalker that a hook reads: whose addresses are local."""

    def __init__(self, node: str, host: Host) -> None:
        self.hosts = {node: host}


def _alone(node: str, host: Host, ruleset: Ruleset | None, rules: RuleWalker) -> Surroundings:
    rulesets = {node: {ruleset.family: ruleset}} if ruleset is not None else {}
    return Surroundings(None, rulesets, _OneNode(node, host), rules, {}, {})  # type: ignore[arg-type]


def protocol_number(text: str) -> int:
    """Return the IANA number of tcp, udp or sctp. Raises InputError for any other."""
    number = PROTOCOL_NUMBERS.get(text.upper())
    if number is None:
        raise InputError([_problem("--proto", repr(text), "tcp, udp or sctp", "choose one of them")])
    return number


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _split_address(text: str) -> tuple[str, str]:
    """Split `a:p`, `[a]:p`, `a`; a bare IPv6 address keeps its colons."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    if text.count(":") > 1:
        return text, ""
    host, _, port = text.partition(":")
    return host, port


def _port(text: str, option: str, whole: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise InputError([_problem(option, repr(whole), "a port from 1 to 65535 after the last colon", "correct the port")])


def _problem(field: str, found: str, expected: str, fix: str) -> Problem:
    return Problem(Position("command line"), field, found, expected, fix)


def _no_such(option: str, name: str, what: str, known: Collection[str]) -> Problem:
    if not known:
        return _problem(option, name, f"a cluster with a {what}", "correct the name")
    return unknown_name(Position("command line"), option, name, f"a {what} of the cluster", known)


def _loopback(address: IPAddress) -> Problem:
    fix = "name the sender as node:NAME, or ask one node's rules with --node NAME"
    return _problem("--from", str(address), "an address that tells one sender from another", fix)
