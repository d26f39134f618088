"""Exact shares: sums of branches, equal to closed forms and to what runs count."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import sqrt

import pytest
from engine.scenarios import VIP, cluster, nodes, pod, scenario, scenarios, service
from hypothesis import Phase, assume, given, settings

from simnet.cluster import Cluster
from simnet.engine.simulate import simulate
from simnet.errors import InputError
from simnet.model.calico import FabricSettings, Wiring
from simnet.model.scenario import Entry
from simnet.model.workload import ClientOrigin, ClientPopulation, Constant, EntryChoice, EntryChoiceKind, FlowShape
from simnet.results.frames import frames

ADVERTISED = {"service_external_ips": ("203.0.113.0/24",)}


def expected(run, **options):
    load = frames(simulate(run, seed=2, **options))["load"]
    return {
        (row.where, row.name): row.expected_share
        for row in load.itertuples()
        if row.expected_share == row.expected_share
    }


def web(pods, *, count=3, **fields):
    placed = [pod(f"p{number}", node) for number, node in enumerate(pods)]
    return cluster(nodes(count), placed, [service(external_ips=(VIP,), **fields)], wiring=Wiring.S2, calico=ADVERTISED)


def test_local_policy_gives_each_pod_one_of_its_nodes_share():
    # 2 + 1 pods behind ECMP over two nodes: 25, 25 and 50 % (facts of kubernetes#97147)
    shares = expected(scenario(web(["n1", "n1", "n2"], external_traffic_policy="Local"), Entry.EXTERNAL_IP))
    assert [shares["pod", f"d/p{number}"] for number in range(3)] == pytest.approx([0.25, 0.25, 0.5], abs=1e-8)
    assert shares["entry_node", "n1"] == pytest.approx(0.5)
    assert shares.get(("entry_node", "n3"), 0.0) == 0.0


def test_cluster_policy_gives_each_pod_the_same_wherever_it_is():
    shares = expected(scenario(web(["n1", "n1", "n2"]), Entry.EXTERNAL_IP))
    assert [shares["pod", f"d/p{number}"] for number in range(3)] == pytest.approx([1 / 3] * 3, abs=1e-8)
    assert shares["serving_node", "n1"] == pytest.approx(2 / 3, abs=1e-8)
    assert [shares["entry_node", f"n{number}"] for number in (1, 2, 3)] == pytest.approx([1 / 3] * 3, abs=1e-8)


def test_rules_that_remember_have_no_closed_form():
    assert not expected(scenario(web(["n1", "n2"], session_affinity="ClientIP"), Entry.EXTERNAL_IP))
    assert not expected(scenario(web(["n1", "n2"]), Entry.EXTERNAL_IP, statistic_mode="nth"))


def test_ecmp_by_addresses_has_none_where_the_entry_node_matters():
    spec = replace(web(["n1", "n1", "n2"], external_traffic_policy="Local"), fabric=FabricSettings(ecmp_hash="l3"))
    assert not expected(scenario(spec, Entry.EXTERNAL_IP))


def test_a_fixed_node_is_the_only_entry():
    spec = cluster(nodes(2), [pod("a", "n1"), pod("b", "n2")], [service(type="NodePort")])
    run = scenario(spec, Entry.NODE_PORT, choice=EntryChoice(EntryChoiceKind.FIXED, "n2"))
    shares = expected(run)
    assert {name: share for (where, name), share in shares.items() if where == "entry_node" and share} == {"n2": 1.0}


def test_source_ranges_split_the_clients_by_weight():
    # half of the clients are inside the range; the others never reach a pod and count nowhere
    from simnet.model.kubernetes import LoadBalancerIngress

    balanced = service(
        type="LoadBalancer", load_balancer_ingress=(LoadBalancerIngress("203.0.114.80"),),
        load_balancer_source_ranges=("198.51.100.10/32",),
    )  # fmt: skip
    spec = cluster(
        nodes(1), [pod("a", "n1"), pod("b", "n1")], [balanced],
        calico={"service_load_balancer_ips": ("203.0.114.0/24",)},
    )  # fmt: skip
    clients = ClientPopulation(2, ClientOrigin.OUTSIDE, ("198.51.100.10", "198.51.100.20"))
    shares = expected(scenario(spec, Entry.LOAD_BALANCER_IP, clients=clients))
    assert shares["pod", "d/a"] == pytest.approx(0.5, abs=1e-9)
    assert shares["entry_node", "n1"] == 1.0


@given(scenarios())
@settings(max_examples=40, derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_shares_sum_to_one_and_runs_count_them(run):
    one = FlowShape(Constant(1), Constant(200), Constant(0), Constant(300))
    choice = run.variant.choice
    if choice.kind is not EntryChoiceKind.FIXED:  # targets drawn once a client differ from equal shares by design
        choice = EntryChoice(EntryChoiceKind.RANDOM)
    workload = replace(run.workload, shape=one)
    run = replace(run, workload=workload, variant=replace(run.variant, choice=choice))
    try:
        recording = simulate(run, seed=4)
    except InputError:
        assume(False)
    load = frames(recording)["load"]
    told = load[load.expected_share.notna()]
    for where in ("pod", "serving_node", "entry_node"):
        shares = told[told["where"] == where].expected_share
        assert shares.empty or shares.sum() == pytest.approx(1, abs=1e-9)
    pods = load[(load["where"] == "pod")]
    total = pods.connections.sum()
    if told.empty or not total:
        return
    for row in told[told["where"] == "pod"].itertuples():
        sigma = sqrt(total * row.expected_share * (1 - row.expected_share))
        assert abs(row.connections - total * row.expected_share) <= 4 * sigma + 1e-6


def test_the_table_of_a_cluster_sums_to_one_for_each_class_of_clients_exactly():
    frame = Cluster(web(["n1", "n1", "n2"], type="NodePort")).shares()
    keys = ["service", "port", "protocol", "entry", "address", "client", "client_node"]
    sums = frame.groupby(keys).exact.agg(lambda parts: sum(map(Fraction, parts)))
    assert len(sums) > 10
    assert set(sums) == {Fraction(1)}
    assert set(frame.entry) == {"ClusterIP", "ExternalIP", "NodePort"}
    assert set(frame.client) == {"outside", "endpoint", "node"}
