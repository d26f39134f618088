"""BGP in simulated time: where it ends, what it undoes, and how long failures last on a real BIRD."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.clusters import routed_clusters

from simnet.controlplane.bgp.steady import steady_fibs
from simnet.controlplane.fabric import build_fabric
from simnet.engine.bgp_processes import run_control_plane
from simnet.errors import ModelError
from simnet.model.calico import BgpTimers, CalicoSettings, FabricSettings, Wiring
from simnet.model.cluster import Block, Cluster, ClusterNode, ClusterPod
from simnet.model.events import Event, EventKind
from simnet.model.fib import RouteKind
from simnet.model.kube_proxy import KubeProxyConfiguration
from simnet.model.kubernetes import Objects
from simnet.model.scenario import ClusterSpec
from simnet.units import PS_PER_MS, PS_PER_S

MINUTE = 60 * PS_PER_S
# Hold time 9 s and connect and error times as on the real BIRD of facts/kernel.md; a veth's carrier takes 6 ms
LAB = BgpTimers(
    hold_ps=9 * PS_PER_S, connect_delay_ps=PS_PER_S, connect_retry_ps=2 * PS_PER_S,
    error_wait_ps=(PS_PER_S, 4 * PS_PER_S), restart_ps=None, carrier_ps=6 * PS_PER_MS, loop_ps=13 * PS_PER_S // 10,
)  # fmt: skip


def given_cluster(nodes, pods, blocks, calico, wires, fabric=None):
    fabric = fabric or build_fabric(nodes, pods, ("198.51.100.10",), wires)
    fibs = steady_fibs(fabric, nodes, pods, blocks, (), calico, wires)
    spec = ClusterSpec(Objects(), (), KubeProxyConfiguration(), calico, wires)
    return Cluster(nodes, pods, (), (), blocks, KubeProxyConfiguration(), fabric, fibs, {}), spec


def three_nodes(wiring=Wiring.S1, timers=LAB, switch=LAB, **wires):
    nodes = tuple(ClusterNode(f"n{i}", (f"10.0.0.{11 + i}",), {}) for i in range(3))
    pods = tuple(ClusterPod("d", f"p{i}", f"n{i}", (f"192.168.{i}.5",), False, True) for i in range(3))
    blocks = tuple(Block(f"192.168.{i}.0/26", f"n{i}") for i in range(3))
    return given_cluster(
        nodes, pods, blocks, CalicoSettings(wiring=wiring, bgp=timers), FabricSettings(bgp=switch, **wires)
    )


def when(history, device, prefix, after_ps=0):
    """(time, present) of every change of a prefix in a device's table."""
    found, had = [], True
    for change in history.fibs:
        if change.device == device and change.time_ps >= after_ps:
            has = any(str(r.prefix) == prefix and r.kind is RouteKind.VIA for r in change.fib.routes)
            if has != had:
                found.append((change.time_ps, has))
            had = has
    return found


@settings(max_examples=60, deadline=None)
@given(routed_clusters(most_nodes=4), st.integers(0, 2**32))
def test_speakers_that_come_up_at_jittered_times_end_with_the_steady_tables(cluster, seed):
    ready, spec = given_cluster(
        cluster.nodes, cluster.pods, cluster.blocks, cluster.calico, cluster.settings, cluster.fabric
    )
    history = run_control_plane(ready, spec, (), until_ps=MINUTE, seed=seed, start="cold")
    assert history.fibs_at(MINUTE) == dict(ready.fibs)
    assert {change.state for change in history.sessions} >= {"Established"}
    assert history.converged_ps > PS_PER_S
    steady = run_control_plane(ready, spec, (), until_ps=MINUTE, seed=seed)
    assert steady.start == ready.fibs
    assert not steady.fibs
    assert not sum(steady.messages.values())
