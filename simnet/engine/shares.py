"""Exact expected shares: which part of the connections each pod and node gets, by arithmetic on the rules' own
probabilities.

Nothing is simulated: every branch of every first packet is followed (`packet_walk`), its probability a fraction of
31-bit thresholds and ECMP widths. Modelled: all that decides a first packet's way. Left out: what depends on packets
before it (`recent` affinity, `nth`), for which there is no closed form.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from simnet.engine.network import PROTOCOL_NUMBERS, CompiledCluster
from simnet.engine.packet_walk import Ending, Request, Surroundings, listening_pods
from simnet.engine.route_walk import RouteWalker
from simnet.engine.rule_walk import Header, IPAddress, RuleWalker, endpoint_text
from simnet.engine.targets import Callers, Targets, service_of, service_port
from simnet.engine.trace import SOURCE_PORT, End, Tracer
from simnet.model.fabric import DeviceKind
from simnet.model.iptables.ruleset import IPNetwork
from simnet.model.kubernetes import Service, ServicePort
from simnet.model.scenario import Entry, Variant

MOST_WALKS = 2_000  # branches that the shares of a run may take (about 0.5 ms each); beyond, there are none
OUTSIDE = {4: "198.51.100.250", 6: "2001:db8:51:100::250"}  # documentation addresses (RFC 5737, RFC 3849)


# --- of a run -----------------------------------------------------------------------------------------


def expected_shares(
    compiled: CompiledCluster, variant: Variant, targets: Targets, callers: Callers, demand: NDArray[np.float64] | None
) -> Mapping[tuple[str, str], float]:
    """Return the expected share of connections of each pod, serving node and entry node of a run.

    Parameters
    ----------
    demand : running sum of the clients' weights, float64[clients]; None: all equal

    Returns
    -------
    ("pod", ns/name) and ("serving_node", name): share of connections that reach a pod; ("entry_node", name): of those
    that are translated. Targets are taken to be called equally often, unless one is fixed.
    Empty where there is no closed form: rules that remember (affinity, nth), ECMP by addresses alone where
    it matters (few clients stay where their hash puts them), or more than MOST_WALKS branches to follow.
    """
    called = (
        variant.entry,
        variant.service,
        variant.port,
        targets.fixed,
        targets.address.tobytes(),
        targets.port.tobytes(),
    )
    calling = (callers.place.tobytes(), callers.address.tobytes(), None if demand is None else demand.tobytes())
    if (called, calling) not in compiled.shares:
        compiled.shares[called, calling] = _expected_shares(compiled, variant, targets, callers, demand)
    return compiled.shares[called, calling]


def _expected_shares(
    compiled: CompiledCluster, variant: Variant, targets: Targets, callers: Callers, demand: NDArray[np.float64] | None
) -> Mapping[tuple[str, str], float]:
    cluster = compiled.cluster
    if compiled.network.program.nth:
        return {}
    chosen = range(len(targets.address)) if targets.fixed is None else [targets.fixed]
    service = service_of(cluster, variant)
    endpoints = sum(
        len(each.endpoints)
        for each in cluster.endpoint_slices
        if (each.namespace, each.service_name) == (service.namespace, service.name)
    )
    branches = 1 if variant.entry is Entry.POD else max(1, endpoints)
    sites = _sites(compiled, callers, demand)
    if len(sites) * len(chosen) * branches > MOST_WALKS:
        return {}
    rules = RuleWalker(record=False, skip_unknown=True)  # what must not be left out, compiling has refused
    around = Surroundings(
        cluster,
        {node: {each.family: each for each in sets} for node, sets in cluster.rulesets.items()},
        RouteWalker(cluster.fabric, cluster.fibs),
        rules,
        listening_pods(cluster),
        {pod.key: pod.node for pod in cluster.pods},
    )
    protocol = PROTOCOL_NUMBERS[_protocol(service, variant, targets)]
    total: dict[tuple[str, str], float] = {}
    of = {"pod": 0.0, "serving_node": 0.0, "entry_node": 0.0}
    for number in chosen:
        to = ipaddress.ip_address(compiled.addresses.text(int(targets.address[number])))
        for site in sites:
            for weight, endings in site.spread(around, to, int(targets.port[number]), protocol):
                if rules.asked_history or not _same_whatever_is_kept(endings) or _choices_hang_together(endings):
                    return {}
                for where, name, probability in _places(around, endings):
                    part = weight * float(probability)
                    of[where] += part
                    total[where, name] = total.get((where, name), 0.0) + part
    return {(where, name): part / of[where] for (where, name), part in total.items()}


def _places(around: Surroundings, endings: Iterable[Ending]) -> Iterator[tuple[str, str, Fraction]]:
    for ending in endings:
        packet, node = ending.packet, around.node_of.get(ending.place)
        if packet.dnat_node:
            yield "entry_node", packet.dnat_node, packet.probability
        if ending.verdict == "delivered" and node is not None:
            yield "pod", ending.place, packet.probability
            yield "serving_node", node, packet.probability


def _same_whatever_is_kept(endings: Sequence[Ending]) -> bool:
    """Whether choices that a client keeps for good (ECMP by addresses alone) lead to the same shares."""
    by_choice: dict[tuple[tuple[str, str], ...], dict[tuple[str, str, str], Fraction]] = {}
    for ending in endings:
        share = by_choice.setdefault(ending.packet.kept, {})
        key = (ending.place, ending.verdict, ending.packet.dnat_node)
        share[key] = share.get(key, Fraction(0)) + ending.packet.probability
    if len(by_choice) < 2:
        return True
    shapes = set()
    for share in by_choice.values():
        whole = sum(share.values(), Fraction(0))
        shapes.add(frozenset((key, part / whole) for key, part in share.items()))
    return len(shapes) == 1


def _choices_hang_together(endings: Sequence[Ending]) -> bool:
    """Whether one hash chose among groups of different sizes, as where boxes share a seed."""
    return any(
        key == other and size != other_size
        for ending in endings
        for i, (key, size, _) in enumerate(ending.packet.chosen)
        for other, other_size, _ in ending.packet.chosen[:i]
    )


def _protocol(service: Service, variant: Variant, targets: Targets) -> str:
    """The protocol of the port that the targets are: the variant's port, of the protocol that has it."""
    for name, number in PROTOCOL_NUMBERS.items():
        try:
            port = service_port(service, variant, number)
        except StopIteration:
            continue
        called = {port.port, port.node_port} | ({int(targets.port[0])} if variant.entry is Entry.POD else set())
        if int(targets.port[0]) in called:
            return name
    return "TCP"


class _Site:
    """The clients on one device, by address: of a client site, of a node, or in the pods of a node."""

    def __init__(self, places: list[str], addresses: list[IPAddress], weight: NDArray[np.float64]) -> None:
        self.places, self.addresses, self.weight = places, addresses, weight
        self._members: dict[IPNetwork, NDArray[np.bool_]] = {}

    def spread(
        self, around: Surroundings, to: IPAddress, port: int, protocol: int
    ) -> Iterator[tuple[float, list[Ending]]]:
        """Yield (weight, all endings) of each class of clients that no rule tells apart.

        One client of a class is followed. Which networks its source was compared with is known then; clients that
        all those networks hold or leave out alike go the same way.
        """
        waiting = np.ones(len(self.addresses), dtype=bool)
        while waiting.any():
            first = int(np.argmax(waiting))
            around.rules.asked_sources.clear()
            header = Header(self.addresses[first], SOURCE_PORT, to, port, protocol)
            endings = list(Request(around, self.places[first], header).endings())
            alike = waiting.copy()
            if len(self.addresses) > 1:
                asked = {*around.rules.asked_sources, ipaddress.ip_network(to)}  # a pod that calls itself stays inside
                for network in asked:
                    held = self._held(network)
                    alike &= held == held[first]
            yield float(self.weight[alike].sum()), endings
            waiting &= ~alike

    def _held(self, network: IPNetwork) -> NDArray[np.bool_]:
        found = self._members.get(network)
        if found is None:
            found = self._members[network] = np.array([address in network for address in self.addresses])
        return found


def _sites(compiled: CompiledCluster, callers: Callers, demand: NDArray[np.float64] | None) -> list[_Site]:
    count = len(callers.place)
    weight = np.full(count, 1 / count) if demand is None else np.diff(demand, prepend=0.0) / demand[-1]
    keys, inverse = np.unique(callers.place.astype(np.int64) << 32 | callers.address, return_inverse=True)
    weights = np.bincount(inverse, weights=weight).astype(np.float64)
    network = compiled.network
    places = keys >> 32
    site = 2 * network.place_device[places].astype(np.int64) + (network.pod_link[places] >= 0)
    found = []
    for number in np.unique(site).tolist():
        rows = np.flatnonzero(site == number)
        addresses = [ipaddress.ip_address(compiled.addresses.text(int(key) & 0xFFFFFFFF)) for key in keys[rows]]
        found.append(_Site([compiled.place_names[place] for place in places[rows]], addresses, weights[rows]))
    return found


# --- of a cluster -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShareRow:
    """One line of the table of shares; the shares of one (service, port, entry, address, client) sum to 1."""

    service: str  # namespace/name
    port: str  # name, or number where it has none
    protocol: str  # tcp, udp, sctp
    entry: str  # ClusterIP, ExternalIP, LoadBalancerIP, NodePort
    address: str  # "ip:port" that is called
    client: str  # "outside", "outside in CIDR", "pod", "endpoint" (a pod of the service itself), "node"
    client_node: str  # where that pod or node is; empty: outside
    entry_node: str  # that translates; empty: none does
    serving_node: str  # of the pod; empty: not delivered
    pod: str  # namespace/name; empty: not delivered
    endpoint: str  # "ip:port" of the pod; empty: not delivered
    verdict: str  # delivered, rejected, dropped, lost
    reason: str  # why not delivered
    masquerade: bool  # the pod sees another source
    share: float  # of the connections that this class of clients opens at this address
    exact: str  # the same as a fraction

    def to_dict(self) -> dict[str, object]:
        """Return the row by column."""
        return {name: getattr(self, name) for name in self.__slots__}


def share_rows(tracer: Tracer, only: str | None = None) -> Iterator[ShareRow]:
    """Yield the shares of every entry point of every Service, for clients outside, in pods, and on nodes.

    Outside stands an address that the cluster does not know; where a load balancer has source ranges, also one
    address in each range. A pod stands for all pods of its node (one that is no endpoint of the Service, if there is
    one); nodes without pods have none. `recent` lists are empty: the shares of first connections.
    """
    services = tracer.cluster.services
    if only is not None:
        services = (tracer.service(only, "--service"),)
    for service in services:
        for port in service.ports:
            for entry, address, number in entry_points(tracer, service, port):
                for client, node, sender in _clients(tracer, service, entry, address):
                    yield from _rows(tracer, service, port, entry, address, number, client, node, sender)


def entry_points(tracer: Tracer, service: Service, port: ServicePort) -> list[tuple[str, IPAddress, int]]:
    """Return (entry, address, port number) of everything that a Service's port can be called at."""
    if service.is_headless or service.type == "ExternalName":
        return []
    cluster_ips = service.cluster_ips or ((service.cluster_ip,) if service.cluster_ip else ())
    texts = [("ClusterIP", each, port.port) for each in cluster_ips]
    texts += [("ExternalIP", each, port.port) for each in service.external_ips]
    texts += [("LoadBalancerIP", each.ip, port.port) for each in service.load_balancer_ingress if each.ip]
    if port.node_port:
        texts += [
            ("NodePort", address, port.node_port)
            for node in tracer.cluster.nodes
            for address in dict.fromkeys(str(each) for each in tracer.primary_addresses(node.name))
        ]
    held = {family for sets in tracer.cluster.rulesets.values() for family in (each.family.value for each in sets)}
    found = [(entry, ipaddress.ip_address(text), number) for entry, text, number in texts]
    return [row for row in found if f"ipv{row[1].version}" in held]


def _clients(tracer: Tracer, service: Service, entry: str, to: IPAddress) -> Iterator[tuple[str, str, End]]:
    """Yield (class, node, sender) of each class of clients."""
    yield "outside", "", End(None, ipaddress.ip_address(_outside(tracer, to.version)), None)
    if entry == "LoadBalancerIP":
        for text in service.load_balancer_source_ranges:
            network = ipaddress.ip_network(text.strip(), strict=False)
            first = network.network_address + (1 if network.num_addresses > 2 else 0)
            if network.version == to.version and tracer.end(str(first), "sourceRanges").place is None:
                yield f"outside in {network}", "", End(None, first, None)
    endpoints = {
        text
        for each in tracer.cluster.endpoint_slices
        if (each.namespace, each.service_name) == (service.namespace, service.name)
        for endpoint in each.endpoints
        for text in endpoint.addresses
    }
    chosen: dict[str, tuple[bool, str, IPAddress]] = {}
    for pod in tracer.cluster.pods:
        own = [each for each in map(ipaddress.ip_address, pod.addresses) if each.version == to.version]
        if own and not pod.host_network:
            is_endpoint = str(own[0]) in endpoints
            if pod.node not in chosen or (chosen[pod.node][0] and not is_endpoint):
                chosen[pod.node] = (is_endpoint, pod.key, own[0])
    for node in tracer.cluster.nodes:
        if node.name in chosen:
            is_endpoint, place, address = chosen[node.name]  # an endpoint only where the node has no other pod
            yield "endpoint" if is_endpoint else "pod", node.name, End(place, address, None)
        own = [each for each in tracer.primary_addresses(node.name) if each.version == to.version]
        if own:
            yield "node", node.name, End(node.name, own[0], None)


def _outside(tracer: Tracer, version: int) -> str:
    """An address that the cluster does not know: of its clients' subnet, if it names one."""
    for text in tracer.spec.fabric.client_networks:
        network = ipaddress.ip_network(text)
        if network.version == version and network.num_addresses > 8:
            return str(network.broadcast_address - 5)
    for device in tracer.cluster.fabric.devices:
        for address in device.addresses if device.kind is DeviceKind.CLIENTS else ():
            if ipaddress.ip_address(address).version == version:
                return address
    return OUTSIDE[version]


def _rows(
    tracer: Tracer, service: Service, port: ServicePort, entry: str, to: IPAddress, number: int, client: str, node: str,
    sender: End,
) -> Iterator[ShareRow]:  # fmt: skip
    around, origin = tracer.surroundings(sender, tracer.share_rules)
    header = Header(sender.address, SOURCE_PORT, to, number, PROTOCOL_NUMBERS[port.protocol])
    parts: dict[tuple[str, str, str, str, str, str, bool], Fraction] = {}
    for ending in Request(around, origin, header).endings():
        packet = ending.packet
        is_pod = ending.verdict == "delivered" and ending.place in around.node_of
        key = (
            packet.dnat_node,
            around.node_of[ending.place] if is_pod else "",
            ending.place if is_pod else "",
            endpoint_text(packet.header.destination, packet.header.destination_port) if is_pod else "",
            ending.verdict,
            ending.reason,
            packet.snat,
        )
        parts[key] = parts.get(key, Fraction(0)) + packet.probability
    named = (f"{service.namespace}/{service.name}", port.name or str(port.port), port.protocol.lower(), entry)
    for key, share in parts.items():
        yield ShareRow(
            *named,
            address=endpoint_text(to, number),
            client=client,
            client_node=node,
            entry_node=key[0],
            serving_node=key[1],
            pod=key[2],
            endpoint=key[3],
            verdict=key[4],
            reason=key[5],
            masquerade=key[6],
            share=float(share),
            exact=str(share),
        )
