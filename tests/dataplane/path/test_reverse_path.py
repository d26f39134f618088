"""Martian sources: a node's own address that comes back, and rp_filter where the way there is not the way back."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import numpy as np
import pytest
from engine.scenarios import cluster, nodes, plain, pod, scenario, service
from engine.test_agreement import assert_agreement

from simnet.controlplane.fabric import build_fabric
from simnet.dataplane.forwarding.compile import compile_tables
from simnet.dataplane.forwarding.reverse_path import is_martian
from simnet.engine.simulate import simulate
from simnet.model.addresses import AddressTable
from simnet.model.calico import FabricMode, FabricSettings, Wiring
from simnet.model.cluster import ClusterNode, ClusterPod
from simnet.model.fib import Fib, NextHop, Route, RouteKind
from simnet.model.scenario import Entry
from simnet.model.workload import ClientPopulation

OUTSIDE = ClientPopulation(20, addresses=("198.51.100.0/24",))


def route(prefix, *hops, kind=RouteKind.VIA):
    return Route(ipaddress.ip_network(prefix), kind, hops)


@pytest.mark.parametrize(
    ("source", "routes", "none", "strict", "loose"),
    [
        ("10.0.0.11", (), True, True, True),  # the node's own
        ("8.8.8.8", (), False, True, True),  # no route back
        ("8.8.8.8", (route("8.0.0.0/8", kind=RouteKind.BLACKHOLE),), False, True, True),
        ("8.8.8.8", (route("0.0.0.0/0", NextHop("eth0", "10.0.0.1")),), False, False, False),
        ("192.168.0.5", (route("192.168.0.5/32", NextHop("cali7"), kind=RouteKind.DIRECT),), False, True, False),
        (
            "8.8.8.8",
            (route("8.0.0.0/8", NextHop("eth0", "10.0.0.1"), NextHop("eth0", "10.0.0.7")),),
            False, False, False,
        ),
    ],
)  # fmt: skip
def test_what_a_node_makes_of_a_source_that_comes_in_on_eth0(source, routes, none, strict, loose):
    """The answers that fib_validate_source gives, case by case."""
    pods = [ClusterPod("d", "p", "A", ("192.168.0.5",), False, True)]
    for mode, expected in (("none", none), ("strict", strict), ("loose", loose)):
        nodes_ = [ClusterNode("A", ("10.0.0.11",), {}, rp_filter=mode)]
        fabric = build_fabric(nodes_, pods, [], FabricSettings())
        fabric = replace(fabric, pods=tuple(replace(each, interface="cali7") for each in fabric.pods))
        addresses = AddressTable([source])
        tables = compile_tables(fabric, {"A": Fib("A", routes)}, addresses)
        eth0 = tables.interface_names.index("eth0")
        at = [np.array([value], np.int32) for value in (0, eth0, addresses.intern(source))]
        assert is_martian(tables, *at).tolist() == [expected], mode


def looping(mode="none", *, policy="Cluster"):
    """S3 on routed links: the switch sends packets for a block back to nodes that do not hold it."""
    web = service(type="NodePort", external_ips=("10.0.0.11",), external_traffic_policy=policy)
    node_specs = tuple(replace(node, rp_filter=mode) for node in nodes(3))
    spec = cluster(node_specs, [pod("b", "n2")], [web], wiring=Wiring.S3, fabric=FabricSettings(mode=FabricMode.ROUTED))
    entry = Entry.EXTERNAL_IP if policy == "Cluster" else Entry.POD
    return scenario(spec, entry, clients=OUTSIDE, flows=300)


def test_a_masqueraded_packet_that_loops_back_to_its_node_is_martian():
    """n1 has made itself the source; the switch's hash sends a third back to it and a third to n3, to loop."""
    made = looping()
    table = simulate(made, seed=7).tables["flows"]
    reasons, hops = np.array(plain(table["reason"])), np.array(plain(table["l3_hops"]))
    dropped, looped = reasons == "reverse path filter", reasons == "ttl exceeded"
    four_sigma = 4 * (len(reasons) * 2 / 9) ** 0.5
    assert abs(dropped.sum() - len(reasons) / 3) < four_sigma
    assert abs(looped.sum() - len(reasons) / 3) < four_sigma
    assert set(hops[dropped].tolist()) == {3}  # switch, n1, switch; n1 drops it before its TTL goes down
    assert_agreement(made)


@pytest.mark.parametrize("mode", ["strict", "loose"])
def test_a_packet_that_loops_with_its_own_source_passes_rp_filter(mode):
    """Client to pod: the way back to the client is eth0, where the packet came from, on every node."""
    made = looping(mode, policy="Local")
    reasons = set(plain(simulate(made, seed=7).tables["flows"]["reason"]))
    assert "reverse path filter" not in reasons
    assert_agreement(made)
