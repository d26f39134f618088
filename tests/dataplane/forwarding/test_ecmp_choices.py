"""What becomes of flows when a next hop goes or comes, for each way to choose: laws, and a kernel's own buckets."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.forwarding import choose as choose_one
from reference.forwarding import flow_hash as hash_one

from simnet.controlplane.fabric import build_fabric
from simnet.dataplane.forwarding.compile import compile_tables
from simnet.dataplane.forwarding.ecmp import CHOICES
from simnet.dataplane.forwarding.groups import bucket_table, member_shares, upper_bounds
from simnet.dataplane.forwarding.step import step
from simnet.model.addresses import AddressTable
from simnet.model.calico import FabricMode, FabricSettings
from simnet.model.cluster import ClusterNode
from simnet.model.fabric import Ecmp
from simnet.model.fib import Fib, NextHop, Route, RouteKind

VIP, CLIENT = "203.0.113.80", "198.51.100.1"
FLOWS = 40_000


def hops(*numbers, weights=()):
    return tuple(
        NextHop("br0", f"10.0.0.{number + 11}", weight)
        for number, weight in zip(numbers, weights or [1] * len(numbers), strict=True)
    )


def taken(choice, *groups, buckets=128, seed=1, flows=FLOWS):
    """[group, flow] the next hop (node's number) that each flow takes; the last group is that of the table's now.

    Groups before the last are those that the prefix had earlier: they matter to resilient buckets only.
    """
    nodes = [ClusterNode(f"n{i}", (f"10.0.0.{i + 11}",), {}) for i in range(9)]
    settings = FabricSettings(mode=FabricMode.BRIDGED, ecmp_choice=choice, ecmp_buckets=buckets)
    fabric = build_fabric(nodes, [], [], settings)
    prefix = ipaddress.ip_network("203.0.113.0/24")
    rows = []
    for number in range(len(groups)):
        routes = tuple(Route(prefix, RouteKind.VIA, group) for group in groups[: number + 1])
        addresses = AddressTable([VIP, CLIENT])
        # routes of one prefix are painted one after the other, as the versions of a table are
        tables = compile_tables(fabric, {"tor": Fib("tor", routes)}, addresses)
        port = np.arange(flows, dtype=np.int32)
        tor, client, vip, http = (np.full(flows, value, np.int32) for value in (9, 1, 0, 80))
        found = step(tables, tor, client, vip, port, http, np.full(flows, 6, np.uint8), seed)
        rows.append(found.next_place)
    return np.array(rows)


def moved(choice, count, gone):
    before, after = taken(choice, hops(*range(count)), hops(*(i for i in range(count) if i != gone)))
    return float((before != after).mean()), before, after


@pytest.mark.parametrize("count", [2, 3, 4, 8])
@pytest.mark.parametrize("choice", CHOICES)
def test_the_share_of_flows_that_move_when_a_next_hop_goes(choice, count):
    for gone in (0, count // 2, count - 1):
        share, before, after = moved(choice, count, gone)
        left = count - 1
        if choice == "modulo":  # hash % n and hash % (n - 1), the members after it one place up
            period = np.arange(count * left)
            place = period % left
            expected = float(np.mean(period % count != place + (place >= gone)))
            if gone == left:
                assert expected == pytest.approx(1 - 1 / count)
        elif choice == "hash-threshold":
            # [i/n, (i+1)/n) shrinks to n-1 wider ranges; what stays: the overlap of each member's old and new range
            old = [(Fraction(i, count), Fraction(i + 1, count)) for i in range(count) if i != gone]
            new = [(Fraction(i, left), Fraction(i + 1, left)) for i in range(left)]
            stays = sum(max(Fraction(0), min(a[1], b[1]) - max(a[0], b[0])) for a, b in zip(old, new, strict=True))
            expected = float(1 - stays)
            assert 0.25 <= expected <= 0.5
        else:
            expected = 1 / count
            assert set(before[before != after]) == {gone}, "only flows of the next hop that went move"
        rounding = 1 / 128 if choice == "resilient" else 0  # 128 buckets are no multiple of every n
        assert abs(share - expected) <= 4 * (expected * (1 - expected) / FLOWS) ** 0.5 + rounding


@pytest.mark.parametrize("choice", ["resilient", "hrw"])
def test_a_next_hop_that_comes_takes_its_share_and_moves_nothing_else(choice):
    before, after = taken(choice, hops(0, 1, 2), hops(0, 1, 2, 3))
    assert set(after[before != after]) == {3}
    assert abs(float((before != after).mean()) - 0.25) <= 4 * (0.25 * 0.75 / FLOWS) ** 0.5


def test_resilient_buckets_remember_what_was_before():
    """A next hop that went and came back has other buckets than one that was always there."""
    there_and_back = taken("resilient", hops(0, 1, 2), hops(1, 2), hops(0, 1, 2))
    assert (there_and_back[0] != there_and_back[2]).any()
    stays = taken("resilient", hops(0, 1, 2), hops(0, 1, 2), hops(0, 1, 2))
    np.testing.assert_array_equal(stays[0], stays[2])


@given(
    st.sampled_from(CHOICES), st.lists(st.integers(1, 5), min_size=2, max_size=6), st.integers(5, 60),
    st.integers(0, 2**40),
)  # fmt: skip
def test_each_choice_agrees_with_a_plain_loop_weights_included(choice, weights, buckets, seed):
    group = hops(*range(len(weights)), weights=weights)
    (found,) = taken(choice, group, buckets=buckets, seed=seed, flows=40)
    ecmp = Ecmp("l4", choice, False, buckets)
    fabric = build_fabric([], [], [], FabricSettings(ecmp_choice=choice))
    for port in range(40):
        number = hash_one(fabric, fabric.devices[0], CLIENT, VIP, port, 80, 6, seed)
        assert f"10.0.0.{found[port] + 11}" == choose_one(ecmp, number, group).gateway


@pytest.mark.parametrize("choice", CHOICES)
def test_flows_spread_by_weight(choice):
    weights = (1, 2, 5)
    group = hops(0, 1, 2, weights=weights)
    (found,) = taken(choice, group)
    shares = member_shares(choice, group, bucket_table((), group, 128))
    assert sum(Fraction(*share) for share in shares) == 1
    for number, share in enumerate(shares):
        expected = share[0] / share[1]
        assert abs(expected - weights[number] / 8) <= 1 / 128
        assert abs(float((found == number).mean()) - expected) <= 4 * (expected * (1 - expected) / FLOWS) ** 0.5


@given(st.lists(st.integers(1, 255), min_size=1, max_size=40))
def test_ranges_of_hashes_cover_31_bits_in_proportion(weights):
    bounds = [-1, *upper_bounds(weights)]
    assert bounds[-1] == 2**31 - 1
    for number, weight in enumerate(weights):
        assert abs(bounds[number + 1] - bounds[number] - 2**31 * weight / sum(weights)) <= 1


@st.composite
def histories(draw):
    """Groups that a prefix had one after the other, as (next hop, weight) of each member, and a count of buckets."""
    weights = st.dictionaries(st.integers(0, 5), st.integers(1, 4), min_size=1, max_size=5)
    return draw(st.lists(weights, min_size=1, max_size=5)), draw(st.integers(8, 64))


@given(histories())
def test_a_bucket_moves_only_from_a_next_hop_that_went_or_has_too_many(history):
    groups, buckets = history
    table = ()
    for group in groups:
        members = hops(*group, weights=list(group.values()))
        before, table = table, bucket_table(table, members, buckets)
        assert len(table) == buckets
        gateways = [hop.gateway for hop in table]
        for hop, (numerator, denominator) in zip(members, member_shares("hrw", members, ()), strict=True):
            exact = Fraction(numerator * buckets, denominator)
            assert abs(gateways.count(hop.gateway) - exact) <= 1
        alive = {hop.gateway for hop in members}
        old = [hop.gateway for hop in before]
        for was, now in zip(old, gateways, strict=False):
            if was != now and was in alive:
                assert old.count(was) > gateways.count(was)


KERNEL_HISTORIES = (
    ((({1: 1, 2: 1, 3: 2}), ({1: 1, 3: 2}), ({1: 1, 2: 1, 3: 2})), 12),
    ((({1: 1, 2: 1, 3: 1}), ({2: 1, 3: 1}), ({2: 1, 3: 1, 4: 1}), ({4: 1})), 16),
    ((({1: 3, 2: 1}), ({1: 1, 2: 3}), ({1: 1, 2: 3, 3: 4, 4: 1})), 31),
    ((({5: 1}), ({5: 1, 4: 1}), ({1: 1, 2: 1, 3: 1, 4: 1, 5: 1}), ({1: 1, 3: 1, 5: 1})), 128),
)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
@pytest.mark.parametrize(("groups", "buckets"), KERNEL_HISTORIES)
def test_buckets_are_those_of_the_kernels_nexthop_groups(groups, buckets):
    """All buckets idle: an idle timer of 0 lets the kernel move whichever it wants to at once."""
    name = f"simnet{os.getpid()}-nh"

    def ip(*words):
        done = subprocess.run(["ip", "-n", name, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("this process may not make network namespaces")
    try:
        for words in ("link add d0 type veth peer name d1", "addr add 10.0.0.1/24 dev d0", "link set d1 up"):
            ip(*words.split())
        ip("link", "set", "d0", "up")
        for number in range(1, 6):
            ip("nexthop", "add", "id", str(number), "via", f"10.0.0.{number + 11}", "dev", "d0")
        table = ()
        for step_number, group in enumerate(groups):
            text = "/".join(f"{number},{weight}" for number, weight in group.items())
            how = ["type", "resilient", "buckets", str(buckets), "idle_timer", "0"]
            ip("nexthop", "replace" if step_number else "add", "id", "10", "group", text, *how)
            table = bucket_table(table, hops(*group, weights=list(group.values())), buckets)
            expected = [int(hop.gateway.rpartition(".")[2]) - 11 for hop in table]
            shown: list[int] = []
            for _ in range(50):  # the kernel moves idle buckets in a work queue
                shown = [int(line.split()[-1]) for line in ip("nexthop", "bucket", "show", "id", "10").splitlines()]
                if shown == expected:
                    break
            assert shown == expected
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
