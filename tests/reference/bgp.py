"""BGP, slow and plain: one object per route, one message per change of a route, every list searched from its start.

Written from RFC 4271, 4456, 7911, the description of Calico's BIRD (what its export filters let pass) and
docs/models/routing.md (who peers with whom), not from `simnet.controlplane`. Of simnet it knows only the wires:
devices, segments, addresses. Sessions deliver in order; which session delivers next is the caller's choice (`order`).
"""

import ipaddress
import random
from dataclasses import dataclass, field

OWN_STATIC, BGP, OWN_KERNEL = 200, 100, 10  # BIRD's protocol preferences
CALICO_PREFERENCE = 2147483647 - 1024
FAR = 0x80000000  # BIRD's metric of a next hop behind a gateway


class DoesNotSettle(Exception):
    """More messages than any of these networks needs."""


@dataclass(eq=False)
class Route:
    """A route as one router holds it."""

    prefix: object
    next_hop: str | None = None  # None: this router itself
    as_path: list = field(default_factory=list)
    origin: int = 0
    local_pref: int | None = None
    med: int = 0
    originator: int | None = None
    clusters: list = field(default_factory=list)
    preference: int = BGP
    session: object = None  # the end that it came in on; None: its own
    path_id: object = 0  # as the sender numbers it

    def attributes(self):
        """What a receiver sees of it."""
        return (
            self.next_hop, tuple(self.as_path), self.origin, self.local_pref, self.med, self.originator,
            tuple(self.clusters),
        )  # fmt: skip


@dataclass(eq=False)
class End:
    """One router's end of a session."""

    router: object
    peer: object  # Router
    address: str  # its own
    peer_address: str
    is_client: bool = False  # the peer is a client of this reflector
    third_party: frozenset = frozenset()  # next hops that the peer reaches on the segment that both share
    next_hop: str = "Auto"  # "Auto", "Self", "Keep"
    allowed_own_as: int = 0
    add_path: bool = False
    may_send: object = None  # (prefix, is learned) -> bool
    may_take: object = None  # prefix -> bool
    far: object = None
    told: list = field(default_factory=list)  # (prefix, path id, attributes) that the peer has been told

    @property
    def is_internal(self):
        return self.router.number == self.peer.number


@dataclass(eq=False)
class Router:
    """A BGP speaker; `metric(next hop)` is 0 on its segments, FAR behind its gateway, None out of reach."""

    name: str
    number: int  # its AS
    router_id: int
    metric: object
    cluster: int | None = None
    width: int = 16
    relax: bool = True
    own: list = field(default_factory=list)
    ends: list = field(default_factory=list)
    learned: list = field(default_factory=list)

    def routes_to(self, prefix):
        return [route for route in self.own + self.learned if route.prefix == prefix]

    def usable(self, prefix):
        """All routes to a prefix that could be used, best first."""
        found = [r for r in self.routes_to(prefix) if r.session is None or self.metric(r.next_hop) is not None]
        ordered = []
        while found:  # the one that no other beats
            best = found[0]
            for route in found[1:]:
                if self.is_better(route, best):
                    best = route
            ordered.append(best)
            found.remove(best)
        return ordered

    def is_better(self, a, b):
        """Does BIRD prefer `a`? projectcalico/bird: preference, then RFC 4271, 9.1.2.2 in BIRD's order."""
        if a.preference != b.preference:
            return a.preference > b.preference
        if a.session is None or b.session is None:
            return False
        if a.local_pref != b.local_pref:
            return a.local_pref > b.local_pref
        if len(a.as_path) != len(b.as_path):
            return len(a.as_path) < len(b.as_path)
        if a.origin != b.origin:
            return a.origin < b.origin
        if a.as_path[:1] == b.as_path[:1] and a.med != b.med:
            return a.med < b.med
        if a.session.is_internal != b.session.is_internal:
            return b.session.is_internal
        if self.metric(a.next_hop) != self.metric(b.next_hop):
            return self.metric(a.next_hop) < self.metric(b.next_hop)
        ids = [r.session.peer.router_id if r.originator is None else r.originator for r in (a, b)]
        if ids[0] != ids[1]:
            return ids[0] < ids[1]
        if len(a.clusters) != len(b.clusters):
            return len(a.clusters) < len(b.clusters)
        first, second = (int(ipaddress.ip_address(r.session.peer_address)) for r in (a, b))
        return first < second

    def merged(self, prefix):
        """The best route and those that one ECMP route takes with it."""
        ordered = self.usable(prefix)
        if not ordered or ordered[0].session is None:
            return ordered[:1]
        best = ordered[0]
        kept = [best]
        for route in ordered[1:]:
            alike = (
                route.session is not None
                and route.local_pref == best.local_pref
                and len(route.as_path) == len(best.as_path)
                and route.origin == best.origin
                and (route.as_path[:1] != best.as_path[:1] or route.med == best.med)
                and route.session.is_internal == best.session.is_internal
                and self.metric(route.next_hop) == self.metric(best.next_hop)
            )
            if alike and (self.relax or route.as_path == best.as_path) and len(kept) < self.width:
                kept.append(route)
        return kept

    # --- what a peer is told

    def exported(self, end, route):
        """The route as the peer is told it, or None."""
        if route.session is end:
            return None  # never back to where it came from
        if end.may_send is not None and not end.may_send(route.prefix, route.session is not None):
            return None
        if not end.is_internal:
            hop = end.address
            if end.next_hop == "Keep" and route.next_hop is not None:
                hop = route.next_hop
            if end.next_hop == "Auto" and route.next_hop in end.third_party:
                hop = route.next_hop
            return Route(route.prefix, hop, [self.number, *route.as_path], route.origin)
        told = Route(
            route.prefix, route.next_hop or end.address, list(route.as_path), route.origin, route.local_pref, route.med,
            route.originator, list(route.clusters),
        )  # fmt: skip
        if end.next_hop == "Self":
            told.next_hop = end.address
        if route.session is None:
            told.local_pref = CALICO_PREFERENCE
        elif route.session.is_internal:
            if self.cluster is None or not (route.session.is_client or end.is_client):
                return None
            if told.originator is None:
                told.originator = route.session.peer.router_id
            told.clusters = [self.cluster, *told.clusters]
        return told

    def now_told(self, end, prefix):
        """(path id, route) of all that a peer is told of a prefix: the best, or under add-path every usable one."""
        found = []
        ordered = self.usable(prefix)
        for route in ordered if end.add_path else ordered[:1]:
            told = self.exported(end, route)
            if told is not None:
                source = "own" if route.session is None else (route.session.peer.name, route.path_id)
                found.append((source if end.add_path else 0, told))
        return found

    # --- what comes in

    def takes(self, end, route):
        """Whether a route that came in is held."""
        if route.as_path.count(self.number) > end.allowed_own_as:
            return False
        if route.originator == self.router_id:
            return False
        if self.cluster is not None and self.cluster in route.clusters:
            return False
        return end.may_take is None or end.may_take(route.prefix)

    def hear(self, end, prefix, path_id, route):
        """A peer told a route, or (None) that it is gone."""
        for old in list(self.learned):
            if old.session is end and old.prefix == prefix and old.path_id == path_id:
                self.learned.remove(old)
        if route is not None and self.takes(end, route):
            mine = Route(route.prefix, *[_copy(each) for each in route.attributes()])
            mine.session, mine.path_id = end, path_id
            if not end.is_internal:
                mine.local_pref = 100
            self.learned.append(mine)


def _copy(value):
    return list(value) if isinstance(value, tuple) else value


def connect(a, b, address_a, address_b, **of_a_and_b):
    """Join two routers; keyword arguments come in pairs, `name=(of a's end, of b's end)`."""
    ends = [End(a, b, address_a, address_b), End(b, a, address_b, address_a)]
    for name, values in of_a_and_b.items():
        for end, value in zip(ends, values, strict=True):
            setattr(end, name, value)
    ends[0].far, ends[1].far = ends[1], ends[0]
    a.ends.append(ends[0])
    b.ends.append(ends[1])
    return ends


def settle(routers, *, order=None, most=50_000):
    """Pass messages until there are none; `order`: a seed for which session delivers next, None: first come."""
    choose = random.Random(order)
    waiting = []  # (end that receives, prefix, path id, route or None), oldest first

    def tell(router, prefix):
        for end in router.ends:
            now = router.now_told(end, prefix)
            before = [told for told in end.told if told[0] == prefix]
            for _, path_id, _ in before:
                if path_id not in [each for each, _ in now]:
                    end.told = [told for told in end.told if told[:2] != (prefix, path_id)]
                    waiting.append((end.far, prefix, path_id, None))
            for path_id, route in now:
                if (prefix, path_id, route.attributes()) not in before:
                    end.told = [told for told in end.told if told[:2] != (prefix, path_id)]
                    end.told.append((prefix, path_id, route.attributes()))
                    waiting.append((end.far, prefix, path_id, route))

    for router in routers:
        for route in router.own:
            tell(router, route.prefix)
    for _ in range(most):
        if not waiting:
            return
        at = 0
        if order is not None:
            end = choose.choice(waiting)[0]
            at = next(i for i, message in enumerate(waiting) if message[0] is end)
        end, prefix, path_id, route = waiting.pop(at)
        end.router.hear(end, prefix, path_id, route)
        tell(end.router, prefix)
    raise DoesNotSettle


# --- a cluster's routers: docs/models/routing.md, and Calico's export filter


def routers_of(cluster, family, *, mesh_has_add_path=False):
    """Routers by name, for nodes and switches of a cluster in one of the wirings S1 to S5."""
    fabric, calico, settings = cluster.fabric, cluster.calico, cluster.settings
    wiring = calico.wiring.value
    names = {node.name for node in cluster.nodes}
    switches = [device.name for device in fabric.devices if device.kind.value == "switch"]
    device = {each.name: each for each in fabric.devices}
    number = _as_numbers(cluster, wiring, device, switches)
    routers = {}
    for name in [*switches, *(node.name for node in cluster.nodes)]:
        primary = _address(device[name].addresses, family)
        if primary is None:
            continue
        has_gateway = name in names
        routers[name] = Router(
            name, number[name], int(ipaddress.ip_address(primary)), _metric(fabric, name, has_gateway),
            width=16 if has_gateway else settings.ecmp_width, relax=has_gateway or settings.multipath_relax,
        )  # fmt: skip
        if wiring == "S4" and name in switches:
            routers[name].cluster = routers[name].router_id
    _originate(cluster, routers, family)
    cluster_prefixes = _cluster_prefixes(cluster)
    underlay = _underlay(fabric, switches, routers, family)
    if len(switches) > 1:
        for name, prefixes in underlay.items():
            routers[name].own += [Route(prefix, preference=OWN_STATIC) for prefix in prefixes]

    def to_node(prefix, learned):
        return any(prefix.version == each.version and prefix.subnet_of(each) for each in cluster_prefixes)

    for node in cluster.nodes:
        if node.name not in routers:
            continue
        switch, mine, theirs, segment = _uplink(fabric, node.name, switches, family)
        beside = {a for end in segment.attachments for a in end.addresses} if segment.bridge is not None else set()
        third = frozenset(beside) if settings.third_party_next_hop else frozenset()
        internal = number[node.name] == number[switch]
        connect(
            routers[switch], routers[node.name], theirs, mine,
            is_client=(internal, False), third_party=(third, frozenset()),
            allowed_own_as=(0, calico.num_allowed_local_as_numbers),
            may_send=(to_node, _calico_filter(cluster, node.name, withholds_learned=wiring == "S2")),
        )  # fmt: skip
    if wiring in ("S2", "S3"):
        for i, a in enumerate(cluster.nodes):
            for b in cluster.nodes[i + 1 :]:
                if a.name in routers and b.name in routers:
                    connect(
                        routers[a.name], routers[b.name], *(_address(n.addresses, family) for n in (a, b)),
                        may_send=(_calico_filter(cluster, a.name), _calico_filter(cluster, b.name)),
                        add_path=(mesh_has_add_path, mesh_has_add_path),
                    )  # fmt: skip
    for segment in fabric.segments:
        ends = [end for end in segment.attachments if end.device in switches and _address(end.addresses, family)]
        if len(ends) == 2 and segment.bridge is None:
            here, there = ends
            connect(
                routers[here.device], routers[there.device],
                _address(here.addresses, family), _address(there.addresses, family),
            )  # fmt: skip
    return routers


def _as_numbers(cluster, wiring, device, switches):
    number = {name: device[name].as_number for name in switches}
    of_nodes = [node.as_number for node in cluster.nodes]
    for i, node in enumerate(cluster.nodes):
        number[node.name] = node.as_number
        if wiring == "S4":
            number[node.name] = number[_uplink(cluster.fabric, node.name, switches, None)[0]]
        elif wiring == "S5" and len(set(of_nodes)) < len(of_nodes):
            number[node.name] = of_nodes[0] + i
    return number


def _address(addresses, family):
    return next((a for a in addresses if family in (None, ipaddress.ip_address(a).version)), None)


def _uplink(fabric, node, switches, family):
    """(switch, the node's address, the switch's, segment)."""
    for segment in fabric.segments:
        for end in segment.attachments:
            if end.device == node and _address(end.addresses, family):
                for other in segment.attachments:
                    if other.device in switches and _address(other.addresses, family):
                        return other.device, _address(end.addresses, family), _address(other.addresses, family), segment
    raise AssertionError(node)


def _metric(fabric, name, has_gateway):
    """How far a next hop is: on a connected subnet, the far end of an unnumbered link, or behind the gateway."""

    def metric(hop):
        address = ipaddress.ip_address(hop)
        for segment in fabric.segments:
            for end in segment.attachments:
                if end.device != name:
                    continue
                if end.network is not None and address in end.network:
                    return 0
                if end.network is None and any(hop in other.addresses for other in segment.attachments):
                    return 0
        return FAR if has_gateway else None

    return metric


def _originate(cluster, routers, family):
    for block in cluster.blocks:
        prefix = ipaddress.ip_network(block.cidr)
        if prefix.version == family:
            routers[block.node].own.append(Route(prefix, preference=OWN_STATIC))
            for address, holder in block.borrowed:
                routers[holder].own.append(Route(ipaddress.ip_network(address), preference=OWN_KERNEL))
    for prefix, holders in _service_prefixes(cluster).items():
        for name in holders if prefix.version == family else ():
            routers[name].own.append(Route(prefix, preference=OWN_STATIC))


def _service_prefixes(cluster):
    """Prefix -> nodes that tell of it: facts on service advertisement, for lists of external addresses."""
    everyone = [node.name for node in cluster.nodes]
    found = {}
    for text in cluster.calico.service_external_ips:
        listed = ipaddress.ip_network(text)
        if listed.num_addresses > 1:
            found[listed] = everyone
        for service in cluster.services:
            for address in service.external_ips:
                prefix = ipaddress.ip_network(address)
                if prefix.version == listed.version and prefix.subnet_of(listed):
                    if service.is_local:
                        found[prefix] = [name for name in everyone if name in service.ready_nodes]
                    elif prefix == listed:
                        found[prefix] = everyone
    return found


def _cluster_prefixes(cluster):
    return [
        *(ipaddress.ip_network(pool) for pool in cluster.calico.ip_pools),
        *(ipaddress.ip_network(text) for text in cluster.calico.service_external_ips),
    ]


def _calico_filter(cluster, name, *, withholds_learned=False):
    """Calico's export filter of a node: own blocks as one, service prefixes, pools, nothing else."""
    blocks = [ipaddress.ip_network(block.cidr) for block in cluster.blocks if block.node == name]
    told = [prefix for prefix, holders in _service_prefixes(cluster).items() if name in holders]
    pools = [ipaddress.ip_network(pool) for pool in cluster.calico.ip_pools]

    def inside(prefix, others):
        return any(prefix.version == each.version and prefix.subnet_of(each) for each in others)

    def may_send(prefix, is_learned):
        if withholds_learned and is_learned:
            return False
        if prefix in blocks:
            return True
        if inside(prefix, blocks):
            return False
        return inside(prefix, told) or inside(prefix, pools)

    return may_send


def _underlay(fabric, switches, routers, family):
    """What switches tell each other of themselves: connected subnets, but those between switches, and addresses."""
    found = {name: [] for name in switches if name in routers}
    for name in found:
        between = set()
        for segment in fabric.segments:
            mine = [end for end in segment.attachments if end.device == name]
            others = [end for end in segment.attachments if end.device != name]
            for end in mine:
                if segment.bridge is None and others and all(other.device in switches for other in others):
                    between.update(end.addresses)
                    continue
                if end.network is not None:
                    networks = [end.network]
                else:
                    networks = [ipaddress.ip_network(a) for other in others for a in other.addresses]
                found[name] += [n for n in networks if n.version == family and n not in found[name]]
        held = next(each for each in fabric.devices if each.name == name).addresses
        for address in held:
            parsed = ipaddress.ip_address(address)
            if parsed.version == family and address not in between and not any(parsed in n for n in found[name]):
                found[name].append(ipaddress.ip_network(address))
    return found
