"""The answers in experiments/README.md, held against closed forms within four standard errors.

Nothing here asks the engine what it expects: placement, entry shares and hops are written down from the experiment.
"""

from __future__ import annotations

import numpy as np
import pytest

from simnet.analysis import closed_forms

SWEEP = "{nodes.count: [4, 16], replicas: [2, 6], externalTrafficPolicy: [Cluster, Local], placement: [spread, packed]}"
CLIENTS, SKEW = 200, 1.1
VARIANTS = ["external-ip", "external-ip-elsewhere", "node-port", "load-balancer", "cluster-ip", "pod"]


@pytest.fixture(scope="module")
def runs(run_shipped):
    return run_shipped("entry-points", f"sweep={SWEEP}", "run.repeat=1", "run.duration=3s")


@pytest.fixture(params=VARIANTS)
def runs_of_variant(request, runs):
    found = [run for run in runs if run.variant == request.param]
    assert len(found) == 16
    return found


def endpoints_on_node(run) -> np.ndarray:
    """Spread: in turn from node-1 on. Packed: as many as a node takes, so all of them on node-1."""
    nodes, replicas = run.point["nodes.count"], run.point["replicas"]
    if run.point["placement"] == "packed":
        return np.array([replicas] + [0] * (nodes - 1))
    return np.bincount(np.arange(replicas) % nodes, minlength=nodes)


def entry_shares(run) -> np.ndarray:
    """The share of flows that enter at each node."""
    nodes, endpoints = run.point["nodes.count"], endpoints_on_node(run)
    if run.variant in ("external-ip", "external-ip-elsewhere"):
        return np.eye(nodes)[0 if run.variant == "external-ip" else 3]
    if run.variant == "load-balancer" and run.point["externalTrafficPolicy"] == "Local":
        return (endpoints > 0) / (endpoints > 0).sum()  # only nodes with a pod advertise it
    if run.variant == "cluster-ip":  # where the client pods are, in turn, by a Zipf law over the clients
        demand = np.arange(1, CLIENTS + 1) ** -SKEW
        return np.bincount(np.arange(CLIENTS) % nodes, weights=demand / demand.sum(), minlength=nodes)
    return np.full(nodes, 1 / nodes)


def is_local(run) -> bool:
    return run.point["externalTrafficPolicy"] == "Local" and run.variant not in ("cluster-ip", "pod")


def within_four_standard_errors(found, expected, count) -> bool:
    expected = np.asarray(expected)
    error = np.sqrt(np.maximum(expected * (1 - expected), 0) / count)
    return bool(np.all(np.abs(np.asarray(found) - expected) <= 4 * error + 1e-12))


def test_flows_enter_where_the_entry_point_leads_them(runs_of_variant):
    for run in runs_of_variant:
        if run.variant == "pod":
            continue  # no node translates
        entered, local = run.connections("entry_node"), is_local(run)
        shares = entry_shares(run)
        if local:  # a flow that no rule translates does not count as having entered
            shares = np.where(endpoints_on_node(run) > 0, shares, 0)
        assert within_four_standard_errors(entered / run.measures["flows"], shares, run.measures["flows"]), run.point


def test_the_share_of_flows_that_cross_between_nodes_is_the_closed_form(runs_of_variant):
    for run in runs_of_variant:
        endpoints, delivered = endpoints_on_node(run), run.measures["flows"] * run.measures["delivered_share"]
        if not delivered:
            continue
        expected = 0.0
        if not is_local(run) and run.variant != "pod":
            expected = closed_forms.cluster_cross_node_share(entry_shares(run), endpoints)
        assert within_four_standard_errors(run.measures["cross_node_share"], expected, delivered), run.point


def test_under_cluster_a_uniform_entry_crosses_with_1_minus_1_over_n_whatever_the_placement(runs):
    for run in runs:
        if run.variant in ("node-port", "load-balancer") and run.point["externalTrafficPolicy"] == "Cluster":
            expected = 1 - 1 / run.point["nodes.count"]
            assert within_four_standard_errors(run.measures["cross_node_share"], expected, run.measures["flows"])


def test_each_pod_gets_its_share_in_closed_form(runs_of_variant):
    for run in runs_of_variant:
        pods, endpoints = run.connections("pod"), endpoints_on_node(run)
        shares = np.full(len(pods), closed_forms.cluster_pod_share(len(pods)))
        if is_local(run):
            of_node = closed_forms.local_pod_shares(entry_shares(run), endpoints)
            node_of_pod = np.zeros(len(pods), int)
            if run.point["placement"] == "spread":
                node_of_pod = np.arange(len(pods)) % run.point["nodes.count"]
            shares = of_node[node_of_pod]
        assert within_four_standard_errors(pods / run.measures["flows"], shares, run.measures["flows"]), run.point


def test_a_local_service_loses_what_enters_where_it_has_no_pod(runs_of_variant):
    for run in runs_of_variant:
        lost = closed_forms.local_lost_share(entry_shares(run), endpoints_on_node(run)) if is_local(run) else 0.0
        found = 1 - run.measures["answered_share"]
        assert within_four_standard_errors(found, lost, run.measures["flows"]), run.point
        assert run.measures["failed_no_local_endpoint"] == pytest.approx(found * run.measures["flows"])


def test_an_outside_request_takes_two_router_hops_and_two_more_where_it_crosses(runs_of_variant):
    for run in runs_of_variant:
        flows = run.frames["flows"]
        flows = flows[flows["verdict"] == "delivered"]
        first = 1 if run.variant == "cluster-ip" else 2  # a pod's own node is one; outside clients pass the switch too
        expected = first + 2 * flows["cross_node"].to_numpy() if run.variant != "pod" else np.full(len(flows), 2)
        np.testing.assert_array_equal(flows["l3_hops"], expected)
        np.testing.assert_array_equal(flows["links"], expected + 1)
        np.testing.assert_array_equal(flows["reply_l3_hops"], expected)


def test_the_policy_alone_decides_on_snat(runs_of_variant):
    for run in runs_of_variant:
        if run.measures["delivered_share"] > 0:
            outside = run.variant not in ("cluster-ip", "pod")
            expected = float(outside and run.point["externalTrafficPolicy"] == "Cluster")
            assert run.measures["snat_share"] == expected
            assert run.measures["source_hidden_share"] == expected


def test_the_recorded_expected_shares_are_the_closed_forms_and_zero_where_nothing_can_arrive(runs_of_variant):
    for run in runs_of_variant:
        load = run.frames["load"]
        recorded = load[load["where"] == "entry_node"]["expected_share"].to_numpy()
        shares = entry_shares(run)
        if run.variant == "pod":
            continue
        if is_local(run):
            shares = np.where(endpoints_on_node(run) > 0, shares, 0)
        if shares.sum():
            np.testing.assert_allclose(recorded, shares / shares.sum(), rtol=0, atol=1e-8)
