"""From FIBs as people read them to the arrays of `tables.py`.

Addresses are sorted by value, so that every prefix is one range of them and longest prefix match is painting: each
device's row is painted route by route, shorter prefixes first, own addresses last (Linux asks the local table first).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.forwarding import tables as codes
from simnet.dataplane.forwarding.ecmp import CHOICES, HASH_BITS, HASHES
from simnet.dataplane.forwarding.groups import bucket_table, hop_key, upper_bounds
from simnet.dataplane.forwarding.reverse_path import MODES
from simnet.dataplane.forwarding.tables import EcmpGroups, EcmpPolicy, FibVersions, ForwardingTables, Tunnels
from simnet.dataplane.versions import NEVER, versions_of
from simnet.errors import ModelError
from simnet.model.addresses import AddressTable
from simnet.model.fabric import Attachment, Device, Fabric
from simnet.model.fib import Fib, NextHop, Route, RouteKind
from simnet.model.history import FibChange
from simnet.model.iptables.ruleset import IPNetwork
from simnet.random_streams import mix_in_place

_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_LOW_64 = (1 << 64) - 1
_VERDICTS = range(codes.ECMP_GROUP)  # the first actions stand for the kinds themselves; that of FORWARD is unused


def compile_tables(
    fabric: Fabric, fibs: Mapping[str, Fib], addresses: AddressTable, changes: Sequence[FibChange] = ()
) -> ForwardingTables:
    """Compile the FIBs of all devices for the addresses in play.

    Parameters
    ----------
    fibs : by device name; a device without one has only its own addresses
    addresses : the addresses in play; those of devices and pods are added to it
    changes : later FIBs, in order of time

    Raises ModelError for a route over an interface that the device does not have.
    """
    for device in fabric.devices:
        for address in device.addresses:
            addresses.intern(address)
    for pod in fabric.pods:
        for address in pod.addresses:
            addresses.intern(address)
    return _Compiler(fabric, fibs, addresses, changes).compile()


class _Ranges:
    """Prefixes as ranges of the addresses in order of value, IPv4 before IPv6."""

    def __init__(self, addresses: AddressTable) -> None:
        version, high, low = addresses.columns()
        self.order = np.lexsort((low, high, version))  # stable
        self._families: dict[int, tuple[int, NDArray[np.uint64]]] = {}  # (first position, [m, 2] words)
        for family in (4, 6):
            at = np.flatnonzero(version[self.order] == family)
            rows = self.order[at]
            self._families[family] = (int(at[0]) if at.size else 0, np.stack([high[rows], low[rows]], axis=1))

    def of(self, prefixes: Sequence[IPNetwork]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (first, past the last) position of each prefix: int64[k] twice."""
        first = np.zeros(len(prefixes), dtype=np.int64)
        last = np.zeros(len(prefixes), dtype=np.int64)
        for family, (offset, words) in self._families.items():
            rows = np.array([i for i, p in enumerate(prefixes) if p.version == family], dtype=np.int64)
            if rows.size and len(words):
                first[rows] = offset + _search(words, [int(prefixes[i].network_address) for i in rows], "left")
                last[rows] = offset + _search(words, [int(prefixes[i].broadcast_address) for i in rows], "right")
        return first, last


def _search(words: NDArray[np.uint64], values: list[int], side: str) -> NDArray[np.int64]:
    """`searchsorted` of 128-bit numbers, as pairs of words ranked together."""
    wanted = np.array([(value >> 64, value & _LOW_64) for value in values], dtype=np.uint64).reshape(-1, 2)
    everything = np.concatenate([words, wanted])
    tie = np.concatenate([np.ones(len(words), np.int8), np.full(len(wanted), 0 if side == "left" else 2, np.int8)])
    ranked = np.lexsort((tie, everything[:, 1], everything[:, 0]))
    is_word = ranked < len(words)
    before = np.cumsum(is_word)  # words up to each rank
    result = np.empty(len(wanted), dtype=np.int64)
    result[ranked[~is_word] - len(words)] = before[~is_word]
    return result


class _Compiler:
    """Holds what the steps of one compilation share."""

    def __init__(
        self, fabric: Fabric, fibs: Mapping[str, Fib], addresses: AddressTable, changes: Sequence[FibChange] = ()
    ) -> None:
        self.fabric, self.fibs, self.addresses, self.changes = fabric, fibs, addresses, changes
        self.device_id = {device.name: i for i, device in enumerate(fabric.devices)}
        self.interfaces: dict[str, int] = {}
        self.kind = [np.array(_VERDICTS, dtype=np.uint8)]
        none = np.full(len(_VERDICTS), -1, dtype=np.int32)
        self.next_place, self.first_link, self.second_link, self.out_interface = [none], [none], [none], [none]
        self.tunnel, self.mtu = [none], [np.full(len(_VERDICTS), fabric.mtu, dtype=np.int32)]
        self.tunnel_device = {
            (device.name, tunnel.interface): tunnel for device in fabric.devices for tunnel in device.tunnels
        }
        self.far_end = {tunnel.address: tunnel.underlay for device in fabric.devices for tunnel in device.tunnels}
        self.tunnels: list[tuple[int, int, int, int, int]] = []  # the columns of `Tunnels`
        self.group_start = [np.zeros(len(_VERDICTS), dtype=np.int32)]
        self.group_size = [np.zeros(len(_VERDICTS), dtype=np.int32)]
        self.members: list[tuple[int, int, int]] = []  # of all groups: action, bound, key
        self.ecmp_of = {device.name: fabric.ecmp_of(device.kind) for device in fabric.devices}
        self._buckets: dict[tuple[str, IPNetwork], tuple[NextHop, ...]] = {}  # of resilient groups, as last painted
        self.action_count = len(_VERDICTS)
        # (device, interface) -> [(segment, first action)]; a veth: its action and the pod's addresses
        self.egress: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self.veth: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}
        self.target_in: list[dict[str, int]] = []  # by segment: address -> position of its attachment

    # --- actions

    def _interface(self, name: str) -> int:
        return self.interfaces.setdefault(name, len(self.interfaces))

    def _add_actions(
        self,
        kind: int,
        place: NDArray[np.int32],
        first: NDArray[np.int32],
        second: NDArray[np.int32],
        interface: int,
        tunnel: int = -1,
        mtu: int | None = None,
    ) -> int:
        start, count = self.action_count, len(place)
        self.kind.append(np.full(count, kind, dtype=np.uint8))
        self.next_place.append(place)
        self.first_link.append(first)
        self.second_link.append(second)
        self.out_interface.append(np.full(count, interface, dtype=np.int32))
        self.tunnel.append(np.full(count, tunnel, dtype=np.int32))
        self.mtu.append(np.full(count, self.fabric.mtu if mtu is None else mtu, dtype=np.int32))
        self.group_start.append(np.zeros(count, dtype=np.int32))
        self.group_size.append(np.zeros(count, dtype=np.int32))
        self.action_count += count
        return start

    def _direction(self, attachment: Attachment, *, outward: bool) -> int:
        """The direction of an attachment's wire, away from its device or toward it; -1 without a wire."""
        if attachment.link is None:
            return -1
        from_a = self.fabric.links[attachment.link].a == attachment.device
        return 2 * attachment.link + (0 if from_a == outward else 1)

    def _wire_segments(self) -> None:
        for number, segment in enumerate(self.fabric.segments):
            ends = segment.attachments
            self.target_in.append({address: i for i, end in enumerate(ends) for address in end.addresses})
            place = np.array([self.device_id[end.device] for end in ends], dtype=np.int32)
            inward = np.array([self._direction(end, outward=False) for end in ends], dtype=np.int32)
            for end in ends:
                out = self._direction(end, outward=True)
                if segment.bridge is None:  # one wire: what leaves here arrives there
                    first, second = np.full(len(ends), out, np.int32), np.full(len(ends), -1, np.int32)
                elif end.link is None:  # the bridging switch itself: only the wire to the target
                    first, second = inward, np.full(len(ends), -1, np.int32)
                else:  # over the bridge; its switch as target: one wire
                    first, second = np.full(len(ends), out, np.int32), inward
                start = self._add_actions(codes.FORWARD, place, first, second, self._interface(end.interface))
                self.egress.setdefault((end.device, end.interface), []).append((number, start))

    def _wire_pods(self) -> None:
        fabric, devices = self.fabric, len(self.fabric.devices)
        for i, pod in enumerate(fabric.pods):
            down = 2 * pod.link + (0 if fabric.links[pod.link].a == pod.node else 1)
            place, first, second = (np.array([value], dtype=np.int32) for value in (devices + i, down, -1))
            interface = self._interface(pod.interface)
            start = self._add_actions(codes.FORWARD, place, first, second, interface, mtu=fabric.pod_mtu)
            self.veth[pod.node, pod.interface] = (start, pod.addresses)

    # --- classes

    def _classes(
        self, prefixes: Sequence[IPNetwork]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (class of each address, first and past-the-last class of each prefix, an address of each class)."""
        ranges = _Ranges(self.addresses)
        count = len(self.addresses)
        first, last = ranges.of(prefixes)
        holder = self._holders()[ranges.order]
        begins = np.zeros(count + 1, dtype=bool)
        begins[0] = True
        begins[first] = True
        begins[last] = True
        begins[1:count] |= holder[1:] != holder[:-1]
        sorted_class = np.cumsum(begins[:count]) - 1
        bounded = np.append(sorted_class, sorted_class[-1] + 1 if count else 0)
        address_class = np.empty(count, dtype=np.int32)
        address_class[ranges.order] = sorted_class
        return address_class, bounded[first], bounded[last], ranges.order[np.flatnonzero(begins[:count])]

    def _holders(self) -> NDArray[np.int64]:
        """A number for the set of attachments and devices that hold each address; 0: nobody."""
        held: dict[str, list[tuple[str, int]]] = {}
        for number, segment in enumerate(self.fabric.segments):
            for i, end in enumerate(segment.attachments):
                for address in end.addresses:
                    held.setdefault(address, []).append((f"segment {number}", i))
        for i, device in enumerate(self.fabric.devices):
            for address in device.addresses:
                held.setdefault(address, []).append(("device", i))
        for i, pod in enumerate(self.fabric.pods):
            for address in pod.addresses:
                held.setdefault(address, []).append(("pod", i))
        numbers: dict[tuple[tuple[str, int], ...], int] = {}
        holder = np.zeros(len(self.addresses), dtype=np.int64)
        for address, holders in held.items():
            holder[self.addresses.intern(address)] = numbers.setdefault(tuple(holders), len(numbers) + 1)
        return holder

    # --- rows

    def compile(self) -> ForwardingTables:
        fabric = self.fabric
        self._wire_segments()
        self._wire_pods()
        number_of: dict[int, int] = {}  # id(route) -> its number; routes shared between FIBs count once
        distinct: list[Route] = []
        for fib in (*self.fibs.values(), *(change.fib for change in self.changes)):
            for route in fib.routes:
                if number_of.setdefault(id(route), len(distinct)) == len(distinct):
                    distinct.append(route)
        prefixes = [route.prefix for route in distinct]
        address_class, first, last, class_address = self._classes([*prefixes, *_LOOPBACK])
        classes = len(class_address)
        self._neighbour_rows = self._neighbours(address_class, classes)
        loopback = [slice(int(a), int(b)) for a, b in zip(first[-2:], last[-2:], strict=True)]
        span = list(zip(first.tolist(), last.tolist(), strict=True))
        length = [prefix.prefixlen for prefix in prefixes]
        owner, shared = self._owners()
        self._groups: dict[tuple[str, tuple[NextHop, ...], tuple[NextHop, ...]], int] = {}
        self._hop_actions: dict[tuple[str, NextHop], int] = {}

        def painted(device: Device, held: Fib | None) -> NDArray[np.int32]:
            row = np.full(classes, codes.NO_ROUTE, dtype=np.int32)
            numbers = [] if held is None else [number_of[id(route)] for route in held.routes]
            numbers.sort(key=length.__getitem__)
            for number in numbers:
                start, end = span[number]
                if start < end:
                    self._paint(row, start, end, device.name, distinct[number], address_class)
            for part in loopback:
                row[part] = codes.LOCAL
            own = [self.addresses.intern(address) for address in device.addresses]
            row[address_class[own]] = codes.LOCAL
            return row

        rows = [painted(device, self.fibs.get(device.name)) for device in fabric.devices]
        later = sorted(self.changes, key=lambda change: (self.device_id[change.device], change.time_ps))
        rows += [painted(fabric.devices[self.device_id[change.device]], change.fib) for change in later]
        lookup = np.array(rows, dtype=np.int32).reshape(-1, classes)
        made = self._tables(address_class, lookup, owner, shared)
        return replace(made, versions=self._versions(lookup, later)) if later else made

    def _versions(self, lookup: NDArray[np.int32], later: Sequence[FibChange]) -> FibVersions:
        """When each device goes by which row, given the changes whose rows follow those of the start."""
        devices = len(self.fabric.devices)
        versions = versions_of(
            np.arange(devices),
            [(change.time_ps, self.device_id[change.device], devices + i) for i, change in enumerate(later)],
        )
        until_ps = np.full(lookup.shape, NEVER, dtype=np.int64)
        row, end_ps = versions.value, versions.end_ps
        for i in range(len(row) - 2, -1, -1):
            if end_ps[i] != NEVER:
                same = lookup[row[i]] == lookup[row[i + 1]]
                until_ps[row[i]] = np.where(same, until_ps[row[i + 1]], end_ps[i])
        until_ps.setflags(write=False)
        return FibVersions(versions, until_ps)

    def _paint(
        self, row: NDArray[np.int32], start: int, end: int, device: str, route: Route, address_class: NDArray[np.int32]
    ) -> None:
        if route.kind is RouteKind.LOCAL:
            row[start:end] = codes.LOCAL
        elif route.kind is RouteKind.BLACKHOLE:
            row[start:end] = codes.BLACKHOLE
        elif route.kind is RouteKind.UNREACHABLE:
            row[start:end] = codes.UNREACHABLE
        elif route.kind is RouteKind.VIA:
            row[start:end] = self._via(device, route)
        else:
            self._paint_direct(row, start, end, device, route, address_class)

    def _paint_direct(
        self, row: NDArray[np.int32], start: int, end: int, device: str, route: Route, address_class: NDArray[np.int32]
    ) -> None:
        """On-link: whoever holds the address on that interface answers; nobody else does."""
        interface = route.next_hops[0].interface
        row[start:end] = codes.NO_NEIGHBOUR
        veth = self.veth.get((device, interface))
        if veth is not None:
            action, held = veth
            for address in held:
                at = int(address_class[self.addresses.intern(address)])
                if start <= at < end:
                    row[at] = action
            return
        for segment, base in self._egress(device, interface):
            held_class, target = self._neighbour_rows[segment]
            inside = slice(*np.searchsorted(held_class, (start, end)))
            row[held_class[inside]] = base + target[inside]

    def _egress(self, device: str, interface: str) -> list[tuple[int, int]]:
        found = self.egress.get((device, interface))
        if found is None:
            raise ModelError(f"{device}: a route leaves by {interface!r}, which the device does not have")
        return found

    def _via(self, device: str, route: Route) -> int:
        """The action of a route over gateways. A prefix painted again keeps its resilient buckets where it can."""
        hops, ecmp = route.next_hops, self.ecmp_of[device]
        buckets: tuple[NextHop, ...] = ()
        if ecmp.choice == "resilient":
            buckets = bucket_table(self._buckets.get((device, route.prefix), ()), hops, ecmp.buckets)
            self._buckets[device, route.prefix] = buckets
        if len(hops) == 1:
            return self._hop(device, hops[0])
        group = self._groups.get((device, hops, buckets))
        if group is None:
            none = np.array([-1], dtype=np.int32)
            group = self._groups[device, hops, buckets] = self._add_actions(codes.ECMP_GROUP, none, none, none, -1)
            start = len(self.members)
            self.members += self._members(device, ecmp.choice, hops, buckets, start)
            self.group_start[-1][0], self.group_size[-1][0] = start, len(self.members) - start
        return group

    def _members(
        self, device: str, choice: str, hops: tuple[NextHop, ...], buckets: tuple[NextHop, ...], start: int
    ) -> list[tuple[int, int, int]]:
        """(action, bound, key) of each member of a group that begins at `start`; what a choice does not use is last."""
        last = (start << HASH_BITS) + (1 << HASH_BITS) - 1
        if choice == "resilient":
            return [(self._hop(device, hop), last, 0) for hop in buckets]
        if choice == "hash-threshold":
            bounds = upper_bounds([hop.weight for hop in hops])
            return [
                (self._hop(device, hop), (start << HASH_BITS) + bound, 0)
                for hop, bound in zip(hops, bounds, strict=True)
            ]
        return [(self._hop(device, hop), last, hop_key(hop, copy)) for hop in hops for copy in range(hop.weight)]

    def _hop(self, device: str, hop: NextHop) -> int:
        action = self._hop_actions.get((device, hop))
        if action is None:
            action = codes.NO_NEIGHBOUR
            if (device, hop.interface) in self.tunnel_device:
                action = self._through(device, hop)
            elif hop.gateway is not None:
                for segment, base in self._egress(device, hop.interface):
                    target = self.target_in[segment].get(hop.gateway)
                    if target is not None:
                        action = base + target
            self._hop_actions[device, hop] = action
        return action

    def _through(self, device: str, hop: NextHop) -> int:
        """The action of a next hop in a tunnel: IPIP names the far end's node, VXLAN its tunnel's address."""
        tunnel = self.tunnel_device[device, hop.interface]
        far = hop.gateway if tunnel.kind == "ipip" else self.far_end.get(hop.gateway or "")
        if far is None:
            return codes.NO_NEIGHBOUR
        protocol = 4 if tunnel.kind == "ipip" else 17
        near, interface = self.addresses.intern(tunnel.underlay), self._interface(tunnel.interface)
        self.tunnels.append((near, self.addresses.intern(far), protocol, tunnel.extra_bytes, interface))
        none = np.array([-1], dtype=np.int32)
        mtu = self.fabric.mtu - tunnel.extra_bytes
        return self._add_actions(codes.FORWARD, none, none, none, interface, len(self.tunnels) - 1, mtu)

    def _neighbours(
        self, address_class: NDArray[np.int32], classes: int
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """By segment: (classes that someone there holds, ascending; position of the holder)."""
        rows = []
        for held in self.target_in:
            target_of = {int(address_class[self.addresses.intern(address)]): i for address, i in held.items()}
            at = np.array(sorted(target_of), dtype=np.int64)
            rows.append((at, np.array([target_of[int(c)] for c in at], dtype=np.int64)))
        return rows

    # --- the rest

    def _owners(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        count = len(self.addresses)
        owner = np.full(count, codes.HELD_BY_NONE, dtype=np.int32)
        holders: dict[int, list[int]] = {}
        for i, device in enumerate(self.fabric.devices):
            for address in device.addresses:
                holders.setdefault(self.addresses.intern(address), []).append(i)
        shared = []
        for number, devices in holders.items():
            owner[number] = devices[0] if len(devices) == 1 else codes.HELD_BY_SEVERAL
            shared += [at * count + number for at in devices] if len(devices) > 1 else []
        for network in _LOOPBACK:
            owner[self.addresses.members(network)] = codes.HELD_BY_ALL
        return owner, np.array(sorted(shared), dtype=np.int64)

    def _tunnels(self) -> Tunnels:
        columns = list(zip(*self.tunnels, strict=True)) or [()] * 5
        near, far, protocol, extra, interface = columns
        names = dict.fromkeys(name for _, name in self.tunnel_device)
        on = []
        for name in names:
            held = [self.tunnel_device.get((device.name, name)) for device in self.fabric.devices]
            on.append(np.array([-1 if t is None else self.addresses.intern(t.address) for t in held], dtype=np.int32))
        return Tunnels(
            np.array(near, dtype=np.int32),
            np.array(far, dtype=np.int32),
            np.array(protocol, dtype=np.uint8),
            np.array(extra, dtype=np.int32),
            np.array(interface, dtype=np.int32),
            tuple(self._interface(name) for name in names),
            tuple(on),
        )

    def _tables(
        self,
        address_class: NDArray[np.int32],
        lookup: NDArray[np.int32],
        owner: NDArray[np.int32],
        shared: NDArray[np.int64],
    ) -> ForwardingTables:
        fabric = self.fabric
        ecmp = [self.ecmp_of[device.name] for device in fabric.devices]
        keys = [
            0 if each.has_shared_seed else _name_key(device.name)
            for device, each in zip(fabric.devices, ecmp, strict=True)
        ]
        policy = EcmpPolicy(
            np.array([HASHES.index(each.hash) for each in ecmp], dtype=np.uint8),
            np.array([CHOICES.index(each.choice) for each in ecmp], dtype=np.uint8),
            np.array(keys, dtype=np.uint64),
        )
        groups = EcmpGroups(
            np.array([action for action, _, _ in self.members], dtype=np.int32),
            np.array([bound for _, bound, _ in self.members], dtype=np.int64),
            np.array([key for _, _, key in self.members], dtype=np.uint64),
        )
        pods = fabric.pods
        uplink = [2 * pod.link + (1 if fabric.links[pod.link].a == pod.node else 0) for pod in pods]
        interface = [self._interface(pod.interface) for pod in pods]
        made = ForwardingTables(
            address_class=address_class,
            lookup=lookup,
            kind=np.concatenate(self.kind),
            next_place=np.concatenate(self.next_place),
            first_link=np.concatenate(self.first_link),
            second_link=np.concatenate(self.second_link),
            out_interface=np.concatenate(self.out_interface),
            tunnel=np.concatenate(self.tunnel),
            mtu=np.concatenate(self.mtu),
            pod_mtu=fabric.pod_mtu,
            tunnels=self._tunnels(),
            group_start=np.concatenate(self.group_start),
            group_size=np.concatenate(self.group_size),
            groups=groups,
            has_groups=bool(self.members),
            ecmp=policy,
            address_key=_address_keys(self.addresses),
            local_owner=owner,
            shared_owner=shared,
            primary_address=np.array(
                [_primary(device.addresses, self.addresses) for device in fabric.devices], dtype=np.int32
            ).reshape(-1, 2),
            interface_names=tuple(self.interfaces),
            rp_filter=np.array([MODES.index(device.rp_filter) for device in fabric.devices], dtype=np.uint8),
            pod_device=np.array([self.device_id[pod.node] for pod in pods], dtype=np.int32),
            pod_uplink=np.array(uplink, dtype=np.int32),
            pod_interface=np.array(interface, dtype=np.int32),
        )
        for value in (made, policy, groups, made.tunnels):
            for name in value.__slots__:
                column = getattr(value, name)
                if isinstance(column, np.ndarray):
                    column.setflags(write=False)
        return made


def _address_keys(addresses: AddressTable) -> NDArray[np.uint64]:
    _, high, low = addresses.columns()
    keys = high.copy()
    mix_in_place(keys)
    keys ^= low
    mix_in_place(keys)
    return keys


def _name_key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, person=b"simnet").digest(), "little")


def _primary(own: Iterable[str], addresses: AddressTable) -> tuple[int, int]:
    first = {6 if ":" in address else 4: addresses.intern(address) for address in reversed(tuple(own))}
    return first.get(4, -1), first.get(6, -1)
