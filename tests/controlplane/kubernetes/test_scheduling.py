"""Which pods run where: what is given stays, what is missing is made and placed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from simnet.controlplane.kubernetes.scheduling import Schedule, schedule
from simnet.model.cluster import ClusterNode
from simnet.model.kubernetes import ObjectReference, Objects, Pod, Workload
from simnet.model.scenario import Placement

LABELS = (("app", "web"),)
WEB = Workload("Deployment", "default", "web", replicas=7, selector=LABELS, pod_labels=LABELS)
NODES = [ClusterNode(f"node-{i}", (f"10.0.0.{i}",), {"disk": "ssd" if i < 3 else "hdd"}) for i in range(1, 5)]


def run(objects: Objects, placement: Placement = Placement.SPREAD, **changes: object) -> Schedule:
    arguments = {
        "placement": placement,
        "explicit": {},
        "replicas": None,
        "pods_per_node": 110,
        "seed": 1,
    } | changes
    return schedule(objects, NODES, **arguments)  # type: ignore[arg-type]


def on_nodes(made: Schedule) -> dict[str, int]:
    return dict(Counter(pod.node for pod in made.pods))


def test_spread_puts_one_after_the_other_over_all_nodes() -> None:
    assert on_nodes(run(Objects(workloads=(WEB,)))) == {"node-1": 2, "node-2": 2, "node-3": 2, "node-4": 1}


def test_packed_fills_a_node_before_it_takes_the_next() -> None:
    packed = run(Objects(workloads=(WEB,)), Placement.PACKED, pods_per_node=4)
    assert on_nodes(packed) == {"node-1": 4, "node-2": 3}


def test_explicit_counts_win_and_the_replica_count_gives_way() -> None:
    assert on_nodes(run(Objects(workloads=(WEB,)), explicit={"web": {"node-1": 2, "node-3": 1}})) == {
        "node-1": 2,
        "node-3": 1,
    }


def test_random_placement_is_a_function_of_seed_and_name_alone() -> None:
    other = replace(WEB, name="other", pod_labels=(("app", "other"),), selector=(("app", "other"),))
    alone = {pod.name: pod.node for pod in run(Objects(workloads=(WEB,)), Placement.RANDOM).pods}
    both = {pod.name: pod.node for pod in run(Objects(workloads=(other, WEB)), Placement.RANDOM).pods}
    assert alone.items() <= both.items()
    seeds = {tuple(pod.node for pod in run(Objects(workloads=(WEB,)), Placement.RANDOM, seed=s).pods) for s in range(9)}
    assert len(seeds) > 1


def test_a_daemon_set_runs_once_on_every_open_node_that_its_selector_matches() -> None:
    daemon = replace(WEB, kind="DaemonSet", replicas=None)
    assert on_nodes(run(Objects(workloads=(daemon,)))) == dict.fromkeys([node.name for node in NODES], 1)
    chosen = replace(daemon, node_selector=(("disk", "ssd"),))
    assert on_nodes(run(Objects(workloads=(chosen,)))) == {"node-1": 1, "node-2": 1}
    assert on_nodes(run(Objects(workloads=(daemon,)), unschedulable=frozenset({"node-2"}))).keys() == {
        "node-1",
        "node-3",
        "node-4",
    }


def test_pods_of_the_input_stay_and_their_workload_makes_no_more() -> None:
    given = Pod("default", "web-abc", labels=LABELS, node_name="node-4", pod_ips=("10.9.9.9",), phase="Running")
    made = run(Objects(workloads=(WEB,), pods=(given,)))
    assert [(pod.name, pod.node, pod.addresses) for pod in made.pods] == [("web-abc", "node-4", ("10.9.9.9",))]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_finished_pods_do_not_run(phase: str) -> None:
    assert run(Objects(pods=(Pod("default", "job", phase=phase, node_name="node-1"),))) == Schedule((), ())


def test_a_pod_without_a_place_is_pending_with_its_reason() -> None:
    lost = Pod("default", "lost", node_name="gone", phase="Running")
    waiting = Pod("default", "waiting", phase="Pending")
    assert dict(run(Objects(pods=(lost, waiting))).pending) == {
        "default/lost": "its node 'gone' is not in the cluster",
        "default/waiting": "its phase is Pending",
    }
    nowhere = replace(WEB, replicas=1, node_selector=(("disk", "tape"),))
    assert run(Objects(workloads=(nowhere,))).pending == (("default/web-0", "no node can take it"),)


def test_a_replica_set_of_a_deployment_in_the_input_makes_no_pods_of_its_own() -> None:
    repeated = replace(WEB, kind="ReplicaSet", name="web-5d", owner=ObjectReference("Deployment", "web"))
    assert len(run(Objects(workloads=(WEB, repeated))).pods) == 7
    assert len(run(Objects(workloads=(repeated,))).pods) == 7


def test_replicas_override_every_count_but_that_of_daemon_sets() -> None:
    daemon = replace(WEB, kind="DaemonSet", name="d", replicas=None, pod_labels=(("app", "d"),), selector=())
    assert len(run(Objects(workloads=(WEB, daemon)), replicas=3).pods) == 3 + len(NODES)
