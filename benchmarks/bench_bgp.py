"""BGP speakers that come up cold: what a full mesh, a route reflector and racks of an AS each take until all is quiet.

Run: python benchmarks/bench_bgp.py [--case NAME] [--share PART] [--seed SEED]. Each case runs in a process of its own,
one block a node, all sessions down at the start: a full mesh of 100 nodes (S2), 1,000 nodes that their switch reflects
to each other (S4), and 5,000 nodes in 125 racks, each an AS and a subnet of its own with its leaf as reflector, under 4
spines that speak eBGP (S4 on leaf-spine). `--share 0.1` takes a tenth of the nodes and racks. Every table at the end is
compared with the steady one. Writes benchmarks/results/bgp.json: wall and CPU seconds of the run alone and with the
steady tables, and the peak resident set of it all; a shared machine says little by wall seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from simnet.controlplane.bgp.steady import steady_fibs
from simnet.controlplane.fabric import build_fabric
from simnet.engine.bgp_processes import run_control_plane
from simnet.model.calico import CalicoSettings, FabricMode, FabricSettings, Wiring
from simnet.model.cluster import Block, Cluster, ClusterNode
from simnet.model.fib import Fib
from simnet.model.kube_proxy import KubeProxyConfiguration
from simnet.model.kubernetes import Objects
from simnet.model.scenario import ClusterSpec
from simnet.units import PS_PER_S

RESULTS = Path(__file__).parent / "results" / "bgp.json"
UNTIL_PS = 30 * PS_PER_S
CASES = {  # wiring, nodes, racks, spines; the target of wall seconds and of bytes
    "full mesh": (Wiring.S2, 100, 0, 0, 10, None),
    "route reflector": (Wiring.S4, 1_000, 0, 0, 30, None),
    "AS per rack": (Wiring.S4, 5_000, 125, 4, 120, 8 * 10**9),
}


def network(wiring: Wiring, count: int, racks: int, spines: int) -> tuple[Cluster, ClusterSpec, float]:
    """Return nodes of one block each, ready to come up, and the CPU seconds that the steady tables took."""
    at = [(i % racks, i // racks) if racks else (i // 200, i % 200) for i in range(count)]
    nodes = tuple(
        ClusterNode(f"n{i}", (f"10.{net // 256}.{net % 256}.{host + 2}",), {}) for i, (net, host) in enumerate(at)
    )
    blocks = tuple(Block(f"10.{128 + i // 1024}.{i // 4 % 256}.{i % 4 * 64}/26", f"n{i}") for i in range(count))
    calico = CalicoSettings(ip_pools=("10.128.0.0/9",), wiring=wiring)
    wires = FabricSettings()
    if racks:
        wires = FabricSettings(mode=FabricMode.BRIDGED, leaves=racks, spines=spines, border_leaf=False)
    fabric = build_fabric(nodes, (), (), wires)
    began = time.process_time()
    fibs = steady_fibs(fabric, nodes, (), blocks, (), calico, wires)
    took = time.process_time() - began
    cluster = Cluster(nodes, (), (), (), blocks, KubeProxyConfiguration(), fabric, fibs, {})
    return cluster, ClusterSpec(Objects(), (), KubeProxyConfiguration(), calico, wires), took


def difference(found: Mapping[str, Fib], expected: Mapping[str, Fib]) -> str | None:
    """Return the first device whose tables differ, None if there is none; equal pairs of routes are compared once."""
    equal: dict[tuple[int, int], bool] = {}
    for device, fib in expected.items():
        mine = found[device].routes
        if len(mine) != len(fib.routes):
            return device
        for one, other in zip(mine, fib.routes, strict=True):
            key = id(one), id(other)
            if key not in equal:
                equal[key] = one == other
            if not equal[key]:
                return device
    return None


def measure(case: str, share: float, seed: int) -> dict[str, object]:
    """Let one network come up."""
    wiring, count, racks, spines, target_s, target_bytes = CASES[case]
    count, racks = round(count * share), round(racks * share)
    cluster, spec, steady_s = network(wiring, count, racks, spines)
    wall, cpu = time.perf_counter(), time.process_time()
    history = run_control_plane(cluster, spec, (), until_ps=UNTIL_PS, seed=seed, start="cold")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    differs = difference(history.fibs_at(UNTIL_PS), cluster.fibs)
    if differs is not None:
        raise SystemExit(f"{case}: the table of {differs} is not the steady one")
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "nodes": count,
        "racks": racks,
        "spines": spines,
        "messages": sum(history.messages.values()),
        "table_changes": len(history.fibs),
        "converged_at_s": round((history.converged_ps or 0) / PS_PER_S, 3),
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "steady_tables_cpu_s": round(steady_s, 1),
        "peak_rss_mb": peak_bytes // 10**6,
        "target_wall_s": target_s,
        "target_met": share == 1 and wall < target_s and (target_bytes is None or peak_bytes < target_bytes),
    }


def main() -> None:
    """Run the cases and write what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--share", type=float, default=1.0, help="part of the nodes and racks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--here", action="store_true", help="measure the case in this process and print JSON")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measure(asked.case, asked.share, asked.seed)))
        return
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for case in [asked.case] if asked.case else CASES:
        command = [sys.executable, __file__, "--here", "--case", case, "--share", str(asked.share)]
        answer = subprocess.run([*command, "--seed", str(asked.seed)], check=True, capture_output=True, text=True)
        known[case] = json.loads(answer.stdout)
        print(case, json.dumps(known[case]), flush=True)
    known["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
    if asked.share == 1:
        RESULTS.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
