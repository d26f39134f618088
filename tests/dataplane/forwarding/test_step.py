"""The compiled tables against a plain loop over routes."""

import ipaddress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.clusters import routed_clusters
from reference.forwarding import decide

from simnet.controlplane.bgp.steady import steady_fibs
from simnet.controlplane.fabric import build_fabric
from simnet.dataplane.forwarding.compile import compile_tables
from simnet.dataplane.forwarding.ecmp import choose, flow_hash
from simnet.dataplane.forwarding.step import Step, access, step
from simnet.dataplane.forwarding.tables import EcmpGroups
from simnet.errors import ModelError
from simnet.model.addresses import AddressTable
from simnet.model.calico import CalicoSettings, FabricMode, FabricSettings
from simnet.model.cluster import ClusterNode
from simnet.model.fib import Fib, NextHop, Route, RouteKind

KINDS = {
    "local": Step.LOCAL, "forward": Step.FORWARD, "blackhole": Step.BLACKHOLE, "unreachable": Step.UNREACHABLE,
    "no route": Step.NO_ROUTE, "no neighbour": Step.NO_NEIGHBOUR,
}  # fmt: skip
OTHERS = (
    "8.8.8.8", "192.168.0.63", "192.168.0.255", "203.0.113.9", "203.0.113.10", "203.0.114.7", "10.0.0.250", "127.0.0.1",
    "10.96.0.1", "::1", "fd10::3f", "2001:db8::99", "198.51.100.77",
)  # fmt: skip


def int32(values):
    return np.array(values, dtype=np.int32)


@settings(max_examples=150, deadline=None)
@given(routed_clusters(), st.integers(0, 2**70), st.randoms(use_true_random=False))
def test_every_decision_agrees_with_looking_at_every_route(cluster, seed, random):
    fabric, fibs = cluster.fabric, cluster.fibs
    addresses = AddressTable(random.sample(OTHERS, len(OTHERS)))
    tables = compile_tables(fabric, fibs, addresses)
    names = [device.name for device in fabric.devices] + [pod.pod for pod in fabric.pods]
    rows = []
    for device in range(len(fabric.devices)):
        for destination in range(len(addresses)):
            # ECMP hashes addresses of one family only
            family = ipaddress.ip_address(addresses.text(destination)).version
            source = random.choice([a for a in addresses.texts if ipaddress.ip_address(a).version == family])
            ports = (random.randrange(65536), random.randrange(65536), random.choice([6, 17, 132]))
            rows.append((device, addresses.intern(source), destination, *ports))
    device, source, destination, source_port, destination_port, protocol = (
        int32(column) for column in zip(*rows, strict=True)
    )
    found = step(tables, device, source, destination, source_port, destination_port, protocol.astype(np.uint8), seed)
    for i, (at, src, dst, sport, dport, proto) in enumerate(rows):
        kind, place, wires, interface = decide(
            fabric, fibs, names[at], addresses.text(src), addresses.text(dst), sport, dport, proto, seed
        )
        wires = (*wires, -1, -1)[:2]
        expected = (KINDS[kind], names.index(place) if place else -1, *wires)
        told = (found.kind[i], found.next_place[i], found.first_link[i], found.second_link[i])
        assert told == expected, (names[at], addresses.text(dst), kind)
        assert (tables.interface_names[found.out_interface[i]] if found.out_interface[i] >= 0 else None) == interface


@settings(max_examples=40, deadline=None)
@given(routed_clusters(), st.data())
def test_where_a_batch_is_cut_makes_no_difference(cluster, data):
    addresses = AddressTable(OTHERS)
    tables = compile_tables(cluster.fabric, cluster.fibs, addresses)
    count = 50
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    device = rng.integers(0, tables.device_count, count).astype(np.int32)
    columns = [rng.integers(0, len(addresses), count).astype(np.int32) for _ in range(2)]
    columns += [rng.integers(0, 65536, count).astype(np.int32) for _ in range(2)]
    protocol = rng.choice([6, 17], count).astype(np.uint8)
    whole = step(tables, device, *columns, protocol, 7)
    cut = data.draw(st.integers(0, count))
    for part in (slice(0, cut), slice(cut, count)):
        piece = step(tables, device[part], *(column[part] for column in columns), protocol[part], 7)
        for name in ("kind", "next_place", "first_link", "second_link", "out_interface"):
            np.testing.assert_array_equal(getattr(piece, name), getattr(whole, name)[part])


@settings(max_examples=40, deadline=None)
@given(routed_clusters(), st.randoms(use_true_random=False))
def test_the_order_in_which_addresses_were_interned_changes_no_decision(cluster, random):
    def decisions(order):
        addresses = AddressTable(order)
        tables = compile_tables(cluster.fabric, cluster.fibs, addresses)
        known = sorted(addresses.texts)
        device = np.repeat(np.arange(tables.device_count, dtype=np.int32), len(known))
        destination = np.tile(int32([addresses.intern(a) for a in known]), tables.device_count)
        source = np.full_like(destination, addresses.intern("198.51.100.77"))
        port = np.arange(len(device), dtype=np.int32) % 60000
        return step(tables, device, source, destination, port, port, np.full(len(device), 6, np.uint8), 3)

    one, other = decisions(OTHERS), decisions(random.sample(OTHERS, len(OTHERS)))
    np.testing.assert_array_equal(one.kind, other.kind)
    np.testing.assert_array_equal(one.next_place, other.next_place)


@settings(max_examples=30, deadline=None)
@given(routed_clusters())
def test_an_address_is_local_where_a_device_holds_it_and_loopback_everywhere(cluster):
    addresses = AddressTable(OTHERS)
    tables = compile_tables(cluster.fabric, cluster.fibs, addresses)
    for i, device in enumerate(cluster.fabric.devices):
        every = np.arange(len(addresses), dtype=np.int32)
        local = tables.is_local(np.full(len(every), i, np.int32), every)
        expected = [a in device.addresses or ipaddress.ip_address(a).is_loopback for a in addresses.texts]
        assert local.tolist() == expected
        for family, primary in zip((4, 6), tables.primary_address[i], strict=True):
            own = [a for a in device.addresses if ipaddress.ip_address(a).version == family]
            assert (addresses.text(primary) if primary >= 0 else None) == (own[0] if own else None)


@settings(max_examples=30, deadline=None)
@given(routed_clusters())
def test_a_pods_first_step_is_over_its_veth_to_its_node(cluster):
    addresses = AddressTable()
    tables = compile_tables(cluster.fabric, cluster.fibs, addresses)
    devices = [device.name for device in cluster.fabric.devices]
    for i, pod in enumerate(cluster.fabric.pods):
        own = int32([addresses.intern(pod.addresses[0])])
        zero = int32([0])
        taken = access(tables, int32([len(devices) + i]), own, own, zero, zero, zero.astype(np.uint8), 0)
        link = cluster.fabric.links[pod.link]
        assert devices[taken.next_place[0]] == pod.node
        assert (link.a, link.b)[taken.first_link[0] % 2] == pod.pod
        assert taken.first_link[0] // 2 == pod.link
        assert taken.second_link[0] == -1


def test_a_symmetric_hash_sends_both_directions_of_a_flow_to_the_same_member():
    nodes = [ClusterNode(f"n{i}", (f"10.0.0.{i + 11}",), {}) for i in range(5)]
    agree = {}
    for policy in ("symmetric", "l4"):
        wiring = FabricSettings(mode=FabricMode.BRIDGED, ecmp_hash=policy)
        fabric = build_fabric(nodes, [], [], wiring)
        calico = CalicoSettings(service_external_ips=("203.0.113.0/24", "198.51.100.0/24"))
        fibs = steady_fibs(fabric, nodes, [], (), (), calico, wiring)
        addresses = AddressTable(["203.0.113.1", "198.51.100.1"])
        tables = compile_tables(fabric, fibs, addresses)
        port = np.arange(1000, dtype=np.int32)
        switch, one, other, http = (np.full(1000, value, np.int32) for value in (5, 0, 1, 80))
        protocol = np.full(1000, 6, np.uint8)
        there = step(tables, switch, one, other, port, http, protocol, 3).next_place
        back = step(tables, switch, other, one, http, port, protocol, 3).next_place
        agree[policy] = int((there == back).sum())
    assert agree["symmetric"] == 1000
    assert agree["l4"] < 300  # one in five by chance


def test_ecmp_spreads_flows_evenly_and_boxes_choose_apart():
    """Chi-square over 5 members stays below 4 sigma of its 4 degrees of freedom; two boxes agree one time in five."""
    addresses, size, count = AddressTable(["203.0.113.1", "198.51.100.1"]), 5, 50_000
    fabric = build_fabric([], [], [], FabricSettings(leaves=2, spines=1, border_leaf=False))
    tables = compile_tables(fabric, {}, addresses)
    port = np.arange(count, dtype=np.int32)
    key = tables.address_key
    picked = []
    for box in (0, 1):
        hashed = flow_hash(
            tables.ecmp, np.full(count, box, np.int32), np.full(count, key[0]), np.full(count, key[1]), port,
            np.full(count, 80, np.int32), np.full(count, 6, np.uint8), 1,
        )  # fmt: skip
        none = EcmpGroups(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.uint64))
        modulo, start = np.zeros(count, np.uint8), np.zeros(count, np.int32)
        chosen = choose(modulo, hashed, start, np.full(count, size, np.int32), none)
        seen = np.bincount(chosen, minlength=size)
        assert ((seen - count / size) ** 2 / (count / size)).sum() < 4 + 4 * 8**0.5
        picked.append(chosen)
    same = int((picked[0] == picked[1]).sum())
    assert abs(same - count / size) < 4 * (count * 0.2 * 0.8) ** 0.5


def test_a_route_over_an_interface_that_the_device_lacks_is_refused():
    fabric = build_fabric([ClusterNode("A", ("10.0.0.11",), {})], [], [], FabricSettings())
    route = Route(ipaddress.ip_network("10.0.0.0/8"), RouteKind.VIA, (NextHop("eth7", "10.0.0.1"),))
    with pytest.raises(ModelError, match="A: a route leaves by 'eth7', which the device does not have"):
        compile_tables(fabric, {"A": Fib("A", (route,))}, AddressTable(["10.1.1.1"]))
