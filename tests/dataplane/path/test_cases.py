"""The six ways through a cluster that facts on Calico's host datapath describe: TTL and rewrites, there and back."""

from __future__ import annotations

import numpy as np
import pytest
from engine.scenarios import cluster, nodes, plain, pod, scenario, service

from simnet.engine.simulate import simulate
from simnet.model.calico import FabricMode, FabricSettings, Wiring
from simnet.model.kubernetes import Pod
from simnet.model.scenario import Entry
from simnet.model.workload import ClientOrigin, ClientPopulation, EntryChoice, EntryChoiceKind

OUTSIDE = ClientPopulation(1, addresses=("198.51.100.10",))
A, B = "10.0.0.11", "10.0.0.12"


def seen(entry, clients, target=None, *, policy="Cluster", routed=True):
    """By pod reached: the set of (TTL at the pod, TTL at the client, source seen, SNAT)."""
    web = service(type="NodePort", external_ips=(A,), external_traffic_policy=policy)
    mode = FabricMode.ROUTED if routed else FabricMode.BRIDGED
    caller = Pod("d", "caller", node_name="n1")
    pods = [pod("a", "n1"), pod("b", "n2"), caller]
    spec = cluster(nodes(2), pods, [web], wiring=Wiring.S2, fabric=FabricSettings(mode=mode))
    choice = EntryChoice(EntryChoiceKind.FIXED, target) if target else EntryChoice()
    table = simulate(scenario(spec, entry, clients=clients, choice=choice, flows=200), seed=1).tables["flows"]
    assert np.all(table["answered"])
    found: dict[str, set] = {}
    columns = (plain(table[name]) for name in ("pod", "l3_hops", "reply_l3_hops", "source_seen", "snat"))
    for name, there, back, source, snat in zip(*columns, strict=True):
        found.setdefault(name, set()).add((64 - there, 64 - back, source, snat))
    return found


@pytest.mark.parametrize("routed", [True, False])
def test_a_b_from_outside_to_an_external_ip(routed):
    x = int(routed)
    assert seen(Entry.EXTERNAL_IP, OUTSIDE, A, routed=routed) == {
        "d/a": {(62, 62, A, True)},
        "d/b": {(61 - x, 61 - x, A, True)},
    }


@pytest.mark.parametrize("routed", [True, False])
def test_c_from_outside_to_a_node_port(routed):
    x = int(routed)
    assert seen(Entry.NODE_PORT, OUTSIDE, "n1", routed=routed) == {
        "d/a": {(62, 62, A, True)},
        "d/b": {(61 - x, 61 - x, A, True)},
    }
    local = seen(Entry.NODE_PORT, OUTSIDE, "n1", policy="Local", routed=routed)
    assert local == {"d/a": {(62, 62, "198.51.100.10", False)}}


@pytest.mark.parametrize("routed", [True, False])
def test_d_e_from_a_pod_to_a_cluster_ip_and_back_to_itself(routed):
    x = int(routed)
    other = seen(Entry.CLUSTER_IP, ClientPopulation(1, ClientOrigin.PODS, ("d/caller",)), routed=routed)
    (at_b,) = other["d/b"]
    assert at_b[:2] == (62 - x, 62 - x)
    assert at_b[2].startswith("192.168.")
    assert not at_b[3]
    itself = seen(Entry.CLUSTER_IP, ClientPopulation(1, ClientOrigin.PODS, ("d/a",)), routed=routed)
    assert itself["d/a"] == {(63, 63, A, True)}


@pytest.mark.parametrize("routed", [True, False])
def test_f_from_a_process_of_a_node_to_a_cluster_ip(routed):
    x = int(routed)
    assert seen(Entry.CLUSTER_IP, ClientPopulation(1, ClientOrigin.NODES, ("n1",)), routed=routed) == {
        "d/a": {(64, 64, A, True)},
        "d/b": {(63 - x, 63 - x, A, True)},
    }
