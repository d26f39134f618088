"""Runs against the closed forms of load balancing, within four standard errors at a fixed seed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from engine.scenarios import cluster, nodes, plain, pod, scenario, service

from simnet.engine.simulate import simulate
from simnet.model.calico import FabricMode, FabricSettings, Wiring
from simnet.model.kubernetes import Pod
from simnet.model.scenario import Entry
from simnet.model.workload import ClientOrigin, ClientPopulation, EntryChoice, EntryChoiceKind

FLOWS = 20_000
EXTERNAL = {"service_external_ips": ("203.0.113.0/24",)}


def flows_of(run, seed=1):
    """The flows table, columns as arrays or lists of names."""
    table = simulate(run, seed=seed).tables["flows"]
    return {name: plain(data) for name, data in table.items()}


def assert_share(hits, expected, *, sigmas=4):
    """The share of true values is the expected probability, within so many standard errors of it."""
    n = len(hits)
    error = math.sqrt(expected * (1 - expected) / n)
    assert n > 5_000
    assert abs(np.mean(hits) - expected) <= sigmas * error, (np.mean(hits), expected, error)


def placed(*counts):
    """Pods a-1, a-2 ...: so many on each node in turn."""
    return [pod(f"p{n}-{k}", f"n{n}") for n, count in enumerate(counts, start=1) for k in range(count)]


@pytest.mark.parametrize("counts", [(1, 1), (3, 0, 0), (2, 1, 0, 5), (1, 1, 1, 1, 1)])
def test_under_cluster_policy_the_cross_node_share_is_one_less_one_over_the_nodes_whatever_the_placement(counts):
    spec = cluster(nodes(len(counts)), placed(*counts), [service(type="NodePort")])
    flows = flows_of(scenario(spec, Entry.NODE_PORT, flows=FLOWS))
    assert_share(flows["cross_node"], 1 - 1 / len(counts))
    assert all(flows["snat"])
    assert all(flows["source_hidden"])
    for name, count in Counter(flows["pod"]).items():
        assert name
        assert_share([each == name for each in flows["pod"]], 1 / sum(counts))
        assert count


def test_under_local_policy_two_pods_and_one_get_25_25_and_50_percent():
    web = service(type="NodePort", external_ips=("203.0.113.80",), external_traffic_policy="Local")
    spec = cluster(nodes(3), placed(2, 1, 0), [web], calico=EXTERNAL)
    flows = flows_of(scenario(spec, Entry.EXTERNAL_IP, flows=FLOWS))
    assert set(flows["verdict"]) == {"delivered"}
    for name, share in (("d/p1-0", 0.25), ("d/p1-1", 0.25), ("d/p2-0", 0.5)):
        assert_share([each == name for each in flows["pod"]], share)
    assert not any(flows["snat"])
    assert not any(flows["cross_node"])


def test_a_client_that_keeps_to_one_node_crosses_nodes_unless_its_pod_is_there():
    spec = cluster(nodes(3), placed(2, 1, 4), [service(type="NodePort")])
    choice = EntryChoice(EntryChoiceKind.FIXED, "n1")
    flows = flows_of(scenario(spec, Entry.NODE_PORT, choice=choice, flows=FLOWS))
    assert_share(flows["cross_node"], 1 - 2 / 7)
    assert set(flows["entry_node"]) == {"n1"}


def test_a_local_service_loses_the_random_picks_of_nodes_without_a_pod():
    web = service(type="NodePort", external_traffic_policy="Local")
    spec = cluster(nodes(5), placed(1, 0, 3, 0, 0), [web])
    flows = flows_of(scenario(spec, Entry.NODE_PORT, flows=FLOWS))
    assert_share([verdict == "dropped" for verdict in flows["verdict"]], 1 - 2 / 5)
    assert set(flows["reason"]) == {"", "no local endpoint"}


def test_from_pods_a_cluster_ip_hides_no_source_but_that_of_a_pod_that_meets_itself():
    spec = cluster(nodes(2), placed(1, 2), [service()])
    clients = ClientPopulation(3, ClientOrigin.PODS, ("d/p1-0", "d/p2-0", "d/p2-1"))
    flows = flows_of(scenario(spec, Entry.CLUSTER_IP, clients=clients, flows=FLOWS))
    hairpin = [client == reached for client, reached in zip(flows["client"], flows["pod"], strict=True)]
    assert flows["snat"] == hairpin
    assert flows["source_hidden"] == hairpin
    assert_share(hairpin, 1 / 3)


def test_from_a_pod_outside_the_service_no_source_is_hidden():
    spec = cluster(nodes(2), [*placed(1, 1), Pod("d", "caller", node_name="n1")], [service()])
    clients = ClientPopulation(3, ClientOrigin.PODS, ("d/caller",))
    flows = flows_of(scenario(spec, Entry.CLUSTER_IP, clients=clients, flows=FLOWS))
    assert not any(flows["snat"])
    assert_share(flows["cross_node"], 1 / 2)


@pytest.mark.parametrize("entry", [Entry.EXTERNAL_IP, Entry.NODE_PORT])
@pytest.mark.parametrize("mode", list(FabricMode))
def test_two_replicas_are_two_and_four_router_hops_away_and_one_and_two_on_a_shared_segment(mode, entry):
    web = service(type="NodePort", external_ips=("10.0.0.11",))
    spec = cluster(nodes(2), placed(1, 1), [web], fabric=FabricSettings(mode=mode), wiring=Wiring.S2)
    source = "10.0.0.200" if mode is FabricMode.BRIDGED else "198.51.100.10"
    run = scenario(
        spec, entry, clients=ClientPopulation(1, addresses=(source,)), flows=FLOWS,
        choice=EntryChoice(EntryChoiceKind.FIXED, "n1" if entry is Entry.NODE_PORT else "10.0.0.11"),
    )  # fmt: skip
    flows = flows_of(run)
    near, far = (1, 2) if mode is FabricMode.BRIDGED else (2, 4)
    for name, hops, back in zip(flows["pod"], flows["l3_hops"], flows["reply_l3_hops"], strict=True):
        assert hops == back == (near if name == "d/p1-0" else far)
    assert_share([name == "d/p1-0" for name in flows["pod"]], 1 / 2)
    assert set(flows["entry_node"]) == {"n1"}


def test_taking_turns_spreads_evenly_to_the_connection():
    spec = cluster(nodes(1), placed(3), [service(type="NodePort")])
    run = scenario(spec, Entry.NODE_PORT, flows=3_000, statistic_mode="nth")
    loads = Counter(flows_of(run)["pod"])
    assert max(loads.values()) - min(loads.values()) <= 1


def test_a_client_keeps_its_pod_while_the_recent_list_has_room_and_loses_it_when_it_has_not():
    web = service(type="NodePort", session_affinity="ClientIP")
    spec = cluster(nodes(1), placed(2), [web])
    run = scenario(spec, Entry.NODE_PORT, flows=4_000, clients=ClientPopulation(100, addresses=("198.51.100.0/24",)))

    def faithful(run):
        seen = {}
        flows = flows_of(run)
        for client, name in zip(flows["client"], flows["pod"], strict=True):
            seen.setdefault(client, set()).add(name)
        return sum(len(names) == 1 for names in seen.values()) / len(seen)

    assert faithful(run) == 1.0
    assert faithful(replace(run, run=replace(run.run, recent_limit=10))) < 0.2
