"""What experiments/README.md says of the wirings S1 to S5, each number from its closed form."""

from __future__ import annotations

import numpy as np
import pytest

N = 8
C = 1 - 1 / N  # served on another node than entered


@pytest.fixture(scope="module")
def ran(run_shipped):
    found = run_shipped("wiring", "run.repeat=1", "run.duration=1s", "record=flows")
    return {(run.variant, run.point["calico.wiring"], run.point["fabric.mode"]): run for run in found}


def near(seen, expected, spread, count):
    """Within four standard errors of a mean."""
    return abs(seen - expected) <= 4 * spread / count**0.5


@pytest.mark.parametrize("mode", ["routed", "bridged"])
@pytest.mark.parametrize("wiring", ["S1", "S2", "S4", "S5"])
def test_hops_follow_from_where_the_next_hop_leads(ran, wiring, mode):
    step = 1 if mode == "bridged" and wiring != "S1" else 2  # hops that a detour adds: the other node, the switch
    for variant, least, detours in (
        ("load-balancer", 2, C), ("pod-from-outside", 2, 0), ("pod-from-pod", 1, C), ("cluster-ip", 1, C),
    ):  # fmt: skip
        flows = ran[variant, wiring, mode].frames["flows"]
        assert flows["answered"].all()
        assert set(flows["l3_hops"]) == ({least, least + step} if detours else {least})
        spread = step * (detours * (1 - detours)) ** 0.5
        assert near(flows["l3_hops"].mean(), least + step * detours, spread, len(flows))


def test_on_routed_links_s3_loses_what_the_switch_sends_to_another_node_than_the_owner(ran):
    expected = {
        "pod-from-outside": 1 / N,
        "load-balancer": 1 / N + C / N,  # the answer goes to the node that the pod saw, and finds it
        "pod-from-pod": 1 / N + C / N**2,  # the answer must be as lucky as the call
        "cluster-ip": 1 / N + C / N**2,
    }
    for variant, share in expected.items():
        flows = ran[variant, "S3", "routed"].frames["flows"]
        assert near(flows["answered"].mean(), share, (share * (1 - share)) ** 0.5, len(flows)), variant
        lost = flows[flows["verdict"] != "delivered"]
        assert set(lost["reason"]) <= {"ttl exceeded", "reverse path filter"}


def test_on_a_segment_s3_adds_a_hop_for_calls_that_enter_at_another_node(ran):
    flows = ran["pod-from-outside", "S3", "bridged"].frames["flows"]
    assert flows["answered"].all()
    assert set(flows["reply_l3_hops"]) == {2}
    assert near(flows["l3_hops"].mean(), 2 + C, (C * (1 - C)) ** 0.5, len(flows))


def test_every_wiring_spreads_the_services_address_over_all_nodes_alike(ran):
    loads = [run.connections("entry_node") for (variant, _, _), run in ran.items() if variant == "load-balancer"]
    assert len(loads) == 10
    for load in loads:
        np.testing.assert_array_equal(load, loads[0])
    total = loads[0].sum()
    assert ((loads[0] - total / N) ** 2 / (total / N)).sum() < (N - 1) + 4 * (2 * (N - 1)) ** 0.5
