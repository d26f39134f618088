"""Small networks with short BGP timers, for tests of what events do to tables."""

from dataclasses import replace

from simnet.controlplane.bgp.network import bgp_network
from simnet.controlplane.bgp.steady import steady_fibs
from simnet.controlplane.fabric import build_fabric
from simnet.engine.bgp_processes import run_control_plane
from simnet.model.calico import BgpTimers, CalicoSettings, FabricSettings, Wiring
from simnet.model.cluster import Block, Cluster, ClusterNode, ClusterPod
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


def with_timers(cluster, node, switch):
    """A random cluster of tests/reference with timers of its own, ready to run."""
    calico, wires = replace(cluster.calico, bgp=node), replace(cluster.settings, bgp=switch)
    return given_cluster(cluster.nodes, cluster.pods, cluster.blocks, calico, wires, cluster.fabric)


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


def run_undone(cluster, spec, events, seed):
    """The history of events, and what differs six minutes after the last: device -> (missing, too many)."""
    end_ps = max((event.until_ps for event in events), default=0) + 6 * MINUTE
    history = run_control_plane(cluster, spec, events, until_ps=end_ps, seed=seed)
    found = {}
    for device, fib in history.fibs_at(end_ps).items():
        now, then = set(fib.routes), set(cluster.fibs[device].routes)
        if now != then or fib != cluster.fibs[device]:
            found[device] = ([str(r.prefix) for r in then - now], [str(r.prefix) for r in now - then])
    return history, found


def sessions_of(cluster):
    """The pairs of speakers that have a session in a family."""
    networks = [bgp_network(cluster.fabric, cluster.nodes, cluster.calico, cluster.settings, f) for f in (4, 6)]
    return sorted({(each.local, each.remote) for network in networks for each in network.peerings})
