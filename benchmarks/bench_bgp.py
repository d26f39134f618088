"""How long BGP speakers take to converge from cold, in wall time: `python benchmarks/bench_bgp.py [NODES]`.

A full mesh (S2) of NODES, 100 unless told, and the same nodes with a reflecting switch (S4), one block a node; at the
end every table is compared with the steady one.
"""

from __future__ import annotations

import sys
import time

from simnet.controlplane.bgp.steady import steady_fibs
from simnet.controlplane.fabric import build_fabric
from simnet.engine.bgp_processes import run_control_plane
from simnet.model.calico import CalicoSettings, FabricSettings, Wiring
from simnet.model.cluster import Block, Cluster, ClusterNode
from simnet.model.kube_proxy import KubeProxyConfiguration
from simnet.model.kubernetes import Objects
from simnet.model.scenario import ClusterSpec
from simnet.units import PS_PER_S


def converge(wiring: Wiring, count: int) -> str:
    """Let a network come up and say what it took."""
    nodes = tuple(ClusterNode(f"n{i}", (f"10.0.{i // 250}.{i % 250 + 2}",), {}) for i in range(count))
    blocks = tuple(Block(f"10.200.{i // 4}.{i % 4 * 64}/26", f"n{i}") for i in range(count))
    calico, wires = CalicoSettings(ip_pools=("10.200.0.0/15",), wiring=wiring), FabricSettings()
    fabric = build_fabric(nodes, (), (), wires)
    fibs = steady_fibs(fabric, nodes, (), blocks, (), calico, wires)
    cluster = Cluster(nodes, (), (), (), blocks, KubeProxyConfiguration(), fabric, fibs, {})
    spec = ClusterSpec(Objects(), (), KubeProxyConfiguration(), calico, wires)
    began = time.perf_counter()
    history = run_control_plane(cluster, spec, (), until_ps=30 * PS_PER_S, seed=1, start="cold")
    took = time.perf_counter() - began
    assert history.fibs_at(30 * PS_PER_S) == dict(fibs)
    sent = sum(history.messages.values())
    return (
        f"{wiring.value} {count} nodes: {sent} messages, {len(history.fibs)} tables, "
        f"converged at {(history.converged_ps or 0) / PS_PER_S:.3f} s, {took:.1f} s of wall time"
    )


if __name__ == "__main__":
    for each in (Wiring.S2, Wiring.S4):
        print(converge(each, int(sys.argv[1]) if len(sys.argv) > 1 else 100), flush=True)
