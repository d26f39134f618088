"""The first scenario, its bridged form, and the cluster of many Services."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="module")
def by_variant(run_shipped):
    return {run.variant: run for run in run_shipped("nginx-demo", "run.repeat=1")}


@pytest.fixture(scope="module")
def bridged(run_shipped):
    return {run.variant: run for run in run_shipped("nginx-demo-bridged", "run.repeat=1", "run.duration=2s")}


@pytest.fixture(scope="module")
def many_services(run_shipped):
    found = run_shipped("many-services", "run.repeat=1", "run.duration=1s")
    return {run.variant: run.frames["flows"] for run in found}


def hops(run) -> list[int]:
    return sorted(run.frames["flows"]["l3_hops"].unique())


def test_both_pods_get_half_of_the_connections_at_every_entry_point(by_variant):
    for run in by_variant.values():
        first, second = run.connections("pod")
        assert abs(first - second) <= 4 * np.sqrt(first + second)


def test_on_a_routed_switch_the_local_pod_is_two_router_hops_away_and_the_other_four(by_variant):
    assert hops(by_variant["external-ip"]) == hops(by_variant["node-port"]) == [2, 4]
    assert hops(by_variant["cluster-ip"]) == [1, 3]


def test_on_a_bridged_segment_the_local_pod_is_one_router_hop_away_and_the_other_two(bridged):
    assert {name: hops(run) for name, run in bridged.items()} == {name: [1, 2] for name in bridged}


def test_replies_go_back_the_way_that_requests_came(by_variant, bridged):
    for run in (*by_variant.values(), *bridged.values()):
        flows = run.frames["flows"]
        np.testing.assert_array_equal(flows["l3_hops"], flows["reply_l3_hops"])
        assert flows["answered"].all()


def test_an_external_ip_loads_one_worker_and_a_node_port_both(by_variant):
    assert by_variant["external-ip"].measures["entry_node_max_over_mean"] == 2
    node_port = by_variant["node-port"].connections("entry_node")
    assert abs(node_port[0] - node_port[1]) <= 4 * np.sqrt(node_port.sum())


def test_between_the_first_and_the_last_service_lie_the_rules_of_all_others(many_services):
    # After a-web's last rule: 200 other Services, web-node-port's ClusterIP, z-web's ClusterIP and its ExternalIP.
    difference = (
        many_services["external-ip-last"]["rules_scanned"] - many_services["external-ip-first"]["rules_scanned"]
    )
    assert set(difference) == {200 + 1 + 1 + 1}


def test_a_node_port_stands_behind_every_service(many_services):
    # The jump to KUBE-NODEPORTS, and there the rule for localhost before the one for everybody else.
    difference = many_services["node-port"]["rules_scanned"] - many_services["external-ip-last"]["rules_scanned"]
    assert set(difference) == {3}


def test_the_second_node_reads_the_rules_of_all_services_in_vain(many_services):
    flows = many_services["external-ip-first"]
    near, far = (flows.loc[flows["cross_node"] == crossed, "rules_scanned"].mean() for crossed in (False, True))
    assert far - near > 200
