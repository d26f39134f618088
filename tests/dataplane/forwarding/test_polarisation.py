"""Boxes that hash alike choose alike: with one seed for all, half of the anycast nodes behind a leaf-spine stay empty.

That is what a real kernel did whose switches shared a seed (2 of 4 workers got nothing); a seed a box uses all.
"""

from __future__ import annotations

import numpy as np
import pytest
from engine.scenarios import VIP, cluster, nodes, plain, pod, scenario, service
from engine.test_agreement import assert_agreement

from simnet.engine.simulate import simulate
from simnet.model.calico import FabricSettings, Wiring
from simnet.model.scenario import Entry
from simnet.model.workload import ClientPopulation


def entered(choice, *, shared):
    """Flows that entered at each of four nodes on two leaves, called from a third over two spines."""
    fabric = FabricSettings(
        leaves=2, spines=2, border_leaf=True, ecmp_choice=choice, ecmp_has_shared_seed=shared, ecmp_buckets=64
    )
    web = service(type="NodePort", external_ips=(VIP,), external_traffic_policy="Local")
    pods = [pod(f"p{number}", f"n{number}") for number in range(1, 5)]
    spec = cluster(
        nodes(4), pods, [web], wiring=Wiring.S1, fabric=fabric, calico={"service_external_ips": ("203.0.113.0/24",)}
    )
    made = scenario(spec, Entry.EXTERNAL_IP, clients=ClientPopulation(20, addresses=("198.51.100.0/24",)), flows=800)
    recording = simulate(made, seed=5)
    load = recording.tables["load"]
    rows = zip(plain(load["where"]), plain(load["connections"]), plain(load["expected_share"]), strict=True)
    return made, [(count, share) for where, count, share in rows if where == "entry_node"]


@pytest.mark.parametrize("choice", ["modulo", "hash-threshold", "resilient"])
def test_a_shared_seed_leaves_half_of_the_nodes_empty(choice):
    """Border, spine and leaf each choose one of two by the same bit: of eight ways two are taken."""
    made, loads = entered(choice, shared=True)
    counts = np.array([count for count, _ in loads])
    assert sorted(counts > 0) == [False, False, True, True]
    used = counts[counts > 0]
    assert abs(used[0] - used.sum() / 2) < 4 * (used.sum() / 4) ** 0.5
    assert [share for _, share in loads] == pytest.approx(np.where(counts > 0, 0.5, 0.0))  # the closed form knows it
    assert_agreement(made)
    _, apart = entered(choice, shared=False)
    for count, share in apart:
        assert share == pytest.approx(0.25)
        assert abs(count - counts.sum() / 4) < 4 * (counts.sum() * 3 / 16) ** 0.5


def test_highest_random_weight_ranks_next_hops_and_so_does_not_polarise():
    _, loads = entered("hrw", shared=True)
    assert all(count > 0 for count, _ in loads)
