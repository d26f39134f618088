"""Nodes that share their tables hold what each would hold alone; and what sharing saves stays saved."""

import pytest
from engine.bgp_networks import LAB, MINUTE, given_cluster, with_timers
from engine.test_bgp_undone import HALF_S, events_that_end, timers
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.clusters import routed_clusters

from simnet.controlplane.bgp.decision import Decisions
from simnet.engine import bgp_network
from simnet.engine.bgp_processes import ControlPlane, run_control_plane
from simnet.model.calico import CalicoSettings, FabricMode, FabricSettings, Wiring
from simnet.model.cluster import Block, ClusterNode
from simnet.model.events import Event, EventKind
from simnet.model.fabric import DeviceKind
from simnet.units import PS_PER_S


def network(nodes, wiring, **wires):
    leaves = wires.get("leaves", 1)
    held = tuple(ClusterNode(f"n{i}", (f"10.0.{i % leaves}.{i // leaves + 2}",), {}) for i in range(nodes))
    blocks = tuple(Block(f"10.200.{i // 4}.{i % 4 * 64}/26", f"n{i}") for i in range(nodes))
    calico = CalicoSettings(ip_pools=("10.200.0.0/16",), wiring=wiring, bgp=LAB)
    return given_cluster(held, (), blocks, calico, FabricSettings(bgp=LAB, **wires))


def alone_and_shared(cluster, spec, events, until_ps, seed):
    """The history where nobody shares a table, and the history."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bgp_network, "let_share", lambda boxes, plan: None)
        alone = run_control_plane(cluster, spec, events, until_ps=until_ps, seed=seed, start="cold")
    return alone, run_control_plane(cluster, spec, events, until_ps=until_ps, seed=seed, start="cold")


def logs(history):
    """The logs of changes behind the tables."""
    return {id(change.table.log) for change in history.fibs}


@settings(max_examples=25)
@given(st.data(), routed_clusters(most_nodes=4), st.integers(0, 2**32), timers(), timers())
def test_tables_that_nodes_share_are_those_that_each_would_have_alone(data, cluster, seed, node, switch):
    ready, spec = with_timers(cluster, node, switch)
    events = data.draw(events_that_end(cluster))
    alone, shared = alone_and_shared(ready, spec, events, 80 * HALF_S + MINUTE, seed)
    assert shared == alone


RACKS = {"leaves": 3, "spines": 2, "border_leaf": False, "mode": FabricMode.BRIDGED}
REFLECTED = [("one switch", {}), ("racks of an AS each", RACKS)]


@pytest.mark.parametrize("wires", [wires for _, wires in REFLECTED], ids=[name for name, _ in REFLECTED])
def test_a_reflectors_clients_share_one_log_and_part_from_it_where_something_happens_to_them(wires):
    cluster, spec = network(12, Wiring.S4, **wires)
    quiet = run_control_plane(cluster, spec, (), until_ps=MINUTE, seed=3, start="cold")
    switches = sum(device.kind is DeviceKind.SWITCH for device in cluster.fabric.devices)
    assert len(logs(quiet)) == switches + wires.get("leaves", 1)
    happens = (
        Event(20 * PS_PER_S, EventKind.BLOCK_CLAIMED, ("n1", "10.200.9.0/26"), 30 * PS_PER_S),
        Event(40 * PS_PER_S, EventKind.BGP_KILLED, ("n2",), 50 * PS_PER_S),
    )
    alone, shared = alone_and_shared(cluster, spec, happens, 2 * MINUTE, 3)
    assert shared == alone
    assert shared.fibs_at(2 * MINUTE) == dict(cluster.fibs)
    assert len(logs(quiet)) < len(logs(shared)) < len(logs(alone))


def work_of(monkeypatch, cluster, spec):
    """How many events the clock had and how many choices were made until everything is up."""
    done = {"events": 0, "choices": 0}
    after, choose = ControlPlane.after, Decisions.choose

    def counted_after(plane, *arguments):
        done["events"] += 1
        return after(plane, *arguments)

    def counted_choose(decisions, paths):
        done["choices"] += 1
        return choose(decisions, paths)

    monkeypatch.setattr(ControlPlane, "after", counted_after)
    monkeypatch.setattr(Decisions, "choose", counted_choose)
    history = run_control_plane(cluster, spec, (), until_ps=MINUTE, seed=1, start="cold")
    assert history.fibs_at(MINUTE) == dict(cluster.fibs)
    return history, done


def test_a_reflector_costs_work_per_session_and_not_per_pair_of_nodes(monkeypatch):
    """So that 1,000 nodes come up in seconds: each message of the 10,200 used to be events of its own."""
    history, done = work_of(monkeypatch, *network(100, Wiring.S4))
    assert history.messages["UPDATE"] > 100 * 99
    assert done["events"] < 20 * 100
    assert done["choices"] < 3 * 100


def test_racks_of_an_as_each_cost_the_switches_choices_only(monkeypatch):
    leaves, spines, nodes = 6, 2, 60
    wires = {"leaves": leaves, "spines": spines, "border_leaf": False, "mode": FabricMode.BRIDGED}
    history, done = work_of(monkeypatch, *network(nodes, Wiring.S4, **wires))
    assert len(logs(history)) == 2 * leaves + spines
    assert done["choices"] < 3 * (leaves + spines) * nodes
    assert done["events"] < 30 * nodes


def test_a_mesh_costs_work_per_session(monkeypatch):
    history, done = work_of(monkeypatch, *network(40, Wiring.S2))
    sessions = 40 * 39 // 2 + 40
    assert done["events"] < 15 * sessions
    assert done["choices"] < 2 * sessions
    assert len(history.fibs) < 40 * 41
