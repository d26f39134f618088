"""What must hold for every run, whatever the scenario."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from digests import printed_by, vector_features_found
from engine.scenarios import S, cluster, fingerprint, nodes, plain, pod, scenario, scenarios, service
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from simnet.engine.simulate import prepare, simulate
from simnet.errors import InputError
from simnet.model.kubernetes import LoadBalancerIngress, Pod
from simnet.model.recording import REASONS, VERDICTS
from simnet.model.scenario import Entry, Variant
from simnet.model.workload import (
    TCP,
    UDP,
    ClientOrigin,
    ClientPopulation,
    Constant,
    Deterministic,
    Empirical,
    EntryChoice,
    EntryChoiceKind,
    FlowShape,
    Uniform,
)

ADVERTISED = {"service_external_ips": ("203.0.113.0/24",), "service_load_balancer_ips": ("203.0.114.0/24",)}


def recorded(run, *, seed=3, window_flows=None):
    if window_flows is not None:
        run = replace(run, run=replace(run.run, window_flows=window_flows))
    try:
        return simulate(run, seed=seed)
    except InputError:
        assume(False)


def counting(affinity, mode):
    """Flows that pause longer than conntrack remembers, under rules that remember what came before."""
    web = service(
        external_ips=("203.0.113.80",),
        session_affinity="ClientIP" if affinity else "None",
        session_affinity_timeout_seconds=20,
    )
    pods = [pod(f"p{number}", f"n{1 + number % 2}") for number in range(3)]
    pauses = Empirical((S, 31 * S, 50 * S), (1.0, 1.0, 1.0))
    shape = FlowShape(Uniform(1, 6), Constant(100), pauses, Constant(100))
    return scenario(
        cluster(nodes(2), pods, [web], calico=ADVERTISED),
        Entry.EXTERNAL_IP,
        protocol=UDP,
        shape=shape,
        arrivals=Deterministic(0.73),
        duration_ps=90 * S,
        statistic_mode=mode,
        recent_limit=4,
    )


def called_from_near_and_far(affinity, mode, protocol=TCP):
    """A node port called by that node itself, by a pod on it, and by others that are two hops away."""
    web = service(
        type="NodePort",
        session_affinity="ClientIP" if affinity else "None",
        session_affinity_timeout_seconds=20,
    )
    served = [pod(f"p{number}", f"n{1 + number % 3}") for number in range(3)]
    shape = FlowShape(Constant(1), Constant(100), Constant(0), Constant(100))
    clients = ClientPopulation(6, ClientOrigin.PODS, ("d/at-node", "d/host", "d/far"))
    callers = [
        Pod("d", "at-node", node_name="n2"),
        Pod("d", "host", node_name="n2", host_network=True),
        Pod("d", "far", node_name="n3"),
    ]
    return scenario(
        cluster(nodes(3), [*served, *callers], [web]), Entry.NODE_PORT, protocol=protocol, shape=shape,
        clients=clients, choice=EntryChoice(EntryChoiceKind.FIXED, "n2"), arrivals=Deterministic(37.3),
        duration_ps=4 * S, statistic_mode=mode, recent_limit=2,
    )  # fmt: skip


@given(scenarios(), st.sampled_from([5, 11, 60]))
@example(counting(True, "random"), 3)
@example(counting(False, "nth"), 5)
@example(counting(True, "nth"), 1)
@example(called_from_near_and_far(True, "random"), 7)
@example(called_from_near_and_far(False, "nth"), 1)
@example(called_from_near_and_far(True, "nth", UDP), 5)
@settings(max_examples=20)
def test_where_windows_are_cut_makes_no_difference_to_any_byte(run, window_flows):
    whole = recorded(run, window_flows=65_536)
    assert fingerprint(recorded(run, window_flows=window_flows)) == fingerprint(whole)


def test_rules_that_count_meet_callers_near_and_far_in_the_order_of_sending():
    flows = recorded(called_from_near_and_far(False, "nth")).tables["flows"]
    assert set(plain(flows["client"])) == {"d/at-node", "d/host", "d/far"}
    chosen = plain(flows["pod"])
    # Each rule counts for itself: every third flow of all takes the first pod, every second of the rest the second.
    assert set(chosen[:3]) == {"d/p0", "d/p1", "d/p2"}
    assert chosen == [chosen[number % 3] for number in range(len(chosen))]


@given(scenarios())
@settings(max_examples=25)
def test_packets_sent_are_delivered_dropped_rejected_or_lost_each_for_a_reason(run):
    recording = recorded(run)
    totals, flows = recording.totals, recording.tables["flows"]
    assert totals["sent"] == sum(totals[verdict] for verdict in VERDICTS) == int(flows["packets_sent"].sum())
    for verdict in VERDICTS:
        assert totals[verdict] == int(flows[f"packets_{verdict}"].sum())
        reasons = {name: count for name, count in totals.items() if name.startswith(f"{verdict}: ")}
        assert set(reasons) <= {f"{verdict}: {reason}" for reason in REASONS[1:]}
        assert sum(reasons.values()) == (0 if verdict == "delivered" else totals[verdict])
    assert (flows["reply_packets"] <= flows["packets_delivered"]).all()


@given(scenarios())
@settings(max_examples=15)
def test_the_same_seed_gives_the_same_bytes(run):
    assert fingerprint(recorded(run)) == fingerprint(recorded(run))


def test_another_seed_gives_other_flows():
    run = entry_scenario(Entry.EXTERNAL_IP)
    assert fingerprint(recorded(run, seed=1)) != fingerprint(recorded(run, seed=2))


def entry_scenario(entry, **fields):
    web = service(
        type="LoadBalancer",
        external_ips=("203.0.113.80",),
        load_balancer_ingress=(LoadBalancerIngress("203.0.114.80"),),
    )
    spec = cluster(nodes(3), [pod("a", "n1"), pod("b", "n2")], [web], calico=ADVERTISED)
    return scenario(
        spec, entry, shape=FlowShape(Uniform(1, 9), Uniform(60, 1500), Constant(10**9), Constant(80)), **fields
    )


def test_variants_meet_the_same_clients_arrivals_and_sizes():
    common = ("flow_id", "start_ps", "client", "source_port", "packets_sent", "bytes_sent")
    seen = [
        [plain(recorded(entry_scenario(entry)).tables["flows"][name]) for name in common]
        for entry in (Entry.EXTERNAL_IP, Entry.LOAD_BALANCER_IP, Entry.NODE_PORT, Entry.CLUSTER_IP, Entry.POD)
    ]
    assert all(columns == seen[0] for columns in seen)


def test_variants_with_equally_many_targets_draw_the_same_pod_for_a_flow():
    external = recorded(entry_scenario(Entry.EXTERNAL_IP)).tables["flows"]
    balanced = recorded(entry_scenario(Entry.LOAD_BALANCER_IP)).tables["flows"]
    assert plain(external["pod"]) == plain(balanced["pod"])


def test_a_cluster_made_ready_before_gives_the_same_run():
    run = entry_scenario(Entry.NODE_PORT)
    assert fingerprint(simulate(run, seed=5, compiled=prepare(run, seed=5))) == fingerprint(simulate(run, seed=5))


def test_a_reply_that_the_translating_node_never_sees_does_not_answer_the_client():
    """Pod traffic to a NodePort of a Local service: no masquerade, and so a pod elsewhere answers for itself."""
    web = service(type="NodePort", external_traffic_policy="Local")
    caller = Pod("d", "caller", node_name="n1")
    calico = {"nat_outgoing": False}  # else Calico masquerades at the caller's node, and n2 sees no pod
    spec = cluster(nodes(3), [pod("a", "n2"), pod("b", "n3"), caller], [web], calico=calico)
    run = scenario(spec, Entry.NODE_PORT, protocol=UDP)
    run = replace(run, variant=Variant("v", Entry.NODE_PORT, "d/web", choice=fixed("n2"), clients=pods("d/caller")))
    flows = recorded(run).tables["flows"]
    for pod_name, answered, reason in zip(
        plain(flows["pod"]), plain(flows["answered"]), plain(flows["reply_reason"]), strict=True
    ):
        # n2 translated: what its own pod says passes it, what b on n3 says goes straight to the caller
        assert answered == (pod_name == "d/a")
        assert reason == ("" if answered else "reply bypassed translation")
    assert 0.3 < np.mean(flows["answered"]) < 0.7


def fixed(name):
    return EntryChoice(EntryChoiceKind.FIXED, name)


def pods(*names):
    return ClientPopulation(20, ClientOrigin.PODS, names)


DIGEST = """
import hashlib
from engine.test_laws import counting, entry_scenario
from engine.scenarios import fingerprint
from simnet.engine.simulate import simulate
from simnet.model.scenario import Entry
runs = [entry_scenario(entry) for entry in Entry] + [counting(True, "nth")]
print(hashlib.sha256(repr([fingerprint(simulate(run, seed=11)) for run in runs]).encode()).hexdigest())
"""


@pytest.mark.digest
def test_a_run_has_the_same_bytes_without_vector_instructions():
    features = vector_features_found()
    if not features:
        pytest.skip("numpy uses no instructions beyond its baseline here")
    assert printed_by(DIGEST, without_features=features) == printed_by(DIGEST, without_features=[])
