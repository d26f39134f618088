"""A routing decision for one packet, slow and plain: every route, the longest prefix, then who answers."""

import hashlib
import ipaddress
from dataclasses import replace
from fractions import Fraction

from simnet.model.fabric import DeviceKind
from simnet.model.fib import RouteKind

WORD = 2**64


def decide(fabric, fibs, device, source, destination, source_port, destination_port, protocol, seed):
    """Return (kind, next place's name, wires, interface): what the device does with this packet.

    Wires are link directions; kind is one of local, forward, tunnel, blackhole, unreachable, no route, no neighbour. Of
    a tunnel the place is (the device's end, address of the far end's node).
    """
    held = next(each for each in fabric.devices if each.name == device)
    address = ipaddress.ip_address(destination)
    if destination in held.addresses or address.is_loopback:
        return "local", None, (), None
    matching = [route for route in fibs[device].routes if address in route.prefix]
    if not matching:
        return "no route", None, (), None
    route = max(matching, key=lambda route: route.prefix.prefixlen)
    if route.kind is not RouteKind.VIA and route.kind is not RouteKind.DIRECT:
        return route.kind.value, None, (), None
    hop = route.next_hops[0]
    if len(route.next_hops) > 1:
        five = (source, destination, source_port, destination_port, protocol)
        number = flow_hash(fabric, held, *five, seed)
        hop = choose(fabric.ecmp_of(held.kind), number, route.next_hops)
    for tunnel in held.tunnels:
        if tunnel.interface == hop.interface:
            far = hop.gateway
            if tunnel.kind == "vxlan":
                ends = {end.address: end.underlay for each in fabric.devices for end in each.tunnels}
                far = ends[hop.gateway]
            return "tunnel", (tunnel, far), (), hop.interface
    answers = hop.gateway or destination
    for pod in fabric.pods:
        if pod.node == device and pod.interface == hop.interface and answers in pod.addresses:
            return "forward", pod.pod, (direction(fabric, pod.link, device),), hop.interface
    for segment in fabric.segments:
        for mine in segment.attachments:
            if mine.device == device and mine.interface == hop.interface:
                for other in segment.attachments:
                    if answers in other.addresses:
                        wires = []
                        if mine.link is not None:
                            wires.append(direction(fabric, mine.link, device))
                        if segment.bridge is not None and other.link is not None:
                            wires.append(direction(fabric, other.link, segment.bridge))
                        return "forward", other.device, tuple(wires), hop.interface
    return "no neighbour", None, (), None


def is_martian(fabric, fibs, device, in_interface, source):
    """Does a node drop a packet for its source, once it knows where the packet would go?"""
    held = next(each for each in fabric.devices if each.name == device)
    address = ipaddress.ip_address(source)
    if address.version == 6:
        return False
    if source in held.addresses or address.is_loopback:
        return True
    matching = [route for route in fibs[device].routes if address in route.prefix]
    route = max(matching, key=lambda route: route.prefix.prefixlen, default=None)
    is_unicast = route is not None and route.kind in (RouteKind.VIA, RouteKind.DIRECT)
    if held.rp_filter == "strict":
        return not is_unicast or in_interface not in {hop.interface for hop in route.next_hops}
    return held.rp_filter == "loose" and not is_unicast


def direction(fabric, link, sender):
    return 2 * link if fabric.links[link].a == sender else 2 * link + 1


def walk(fabric, fibs, start, source, destination, *, most=64, seed=0, ports=(4000, 80), protocol=17):
    """Return (places visited, wires crossed, how it ended) of a packet that no box rewrites."""
    pods = {pod.pod: pod for pod in fabric.pods}
    place, places, wires = start, [start], []
    if place in pods:
        wires.append(direction(fabric, pods[place].link, place))
        place = pods[place].node
        places.append(place)
    for _ in range(most):
        kind, following, crossed, _ = decide(fabric, fibs, place, source, destination, *ports, protocol, seed)
        if kind != "forward":
            return places, wires, kind
        wires.extend(crossed)
        places.append(following)
        if following in pods:
            return places, wires, "local"
        place = following
    return places, wires, "ttl exceeded"


def l3_hops(fabric, places):
    """How many boxes forwarded: nodes and switches between the two ends."""
    routers = {device.name for device in fabric.devices if device.kind is not DeviceKind.CLIENTS}
    return sum(place in routers for place in places[1:-1])


def mix(value):
    """The splitmix64 finaliser on one integer."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % WORD
    value = (value ^ value >> 27) * 0x94D049BB133111EB % WORD
    return value ^ value >> 31


def address_hash(address):
    number = int(ipaddress.ip_address(address))
    return mix(mix(number >> 64) ^ number % WORD)


def flow_hash(fabric, device, source, destination, source_port, destination_port, protocol, seed):
    ecmp = fabric.ecmp_of(device.kind)
    policy = ecmp.hash
    ends = [address_hash(source), address_hash(destination)]
    if policy != "l3":
        ends[0] = (ends[0] + (source_port + 1) * 0xD1B54A32D192ED03) % WORD
        ends[1] = (ends[1] + (destination_port + 1) * 0xD1B54A32D192ED03) % WORD
    if policy == "symmetric":
        ends.sort()
    number = (mix(ends[0]) + ends[1]) % WORD
    if policy != "l3":
        number = (number + protocol * 0x9E3779B97F4A7C15) % WORD
    key = 0 if ecmp.has_shared_seed else named(device.name)
    return mix(number ^ mix(key ^ seed % WORD))


def vxlan_port(fabric, device, source, destination, source_port, destination_port, protocol, seed):
    """The outer UDP source port that a flow has, the same for both its directions but for the node's own seed."""
    both_ways = replace(fabric, node_ecmp=replace(fabric.node_ecmp, hash="symmetric"))
    five = (source, destination, source_port, destination_port, protocol)
    return 32768 + (flow_hash(both_ways, device, *five, seed) >> 32) % 28232


def named(text):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=b"simnet").digest(), "little")


def choose(ecmp, number, hops, buckets=None):
    """The next hop that a hash takes; `buckets` of a resilient group whose members have changed."""
    copies = [hop for hop in hops for _ in range(hop.weight)]
    if ecmp.choice == "modulo":
        return copies[(number >> 32) % len(copies)]
    if ecmp.choice == "resilient":
        buckets = buckets or new_buckets(hops, ecmp.buckets)
        return buckets[(number >> 32) % len(buckets)]
    if ecmp.choice == "hrw":
        weights = []
        for hop in hops:
            for copy in range(hop.weight):
                weights.append((mix(number ^ named(f"{hop.interface} {hop.gateway or ''} {copy}")), hop))
        return max(weights, key=lambda pair: pair[0])[1]
    for i, hop in enumerate(hops):  # ranges of 31 bits, whose ends Linux rounds to the nearest number
        end = Fraction(sum(each.weight for each in hops[: i + 1]), len(copies)) * 2**31
        if number >> 33 < int(end + Fraction(1, 2)):
            return hop
    raise AssertionError


def new_buckets(hops, count):
    """Runs of buckets, the last member's first, each as long as the member's share, rounded as above."""
    total, runs = sum(hop.weight for hop in hops), []
    for i, hop in enumerate(hops):
        end = int(Fraction(sum(each.weight for each in hops[: i + 1]) * count, total) + Fraction(1, 2))
        runs.append([hop] * (end - sum(map(len, runs))))
    return [hop for run in reversed(runs) for hop in run]
