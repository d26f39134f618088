"""One cluster of 1,000 nodes, 2,000 Services and 20,000 pods, from objects to ready to forward.

Run: python benchmarks/bench_cluster.py [NODES SERVICES PODS]. One core. Prints and writes
benchmarks/results/cluster.json: the seconds of each step, peak resident memory; a small run proves that it forwards.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

from simnet.engine.materialise import materialise
from simnet.engine.network import compile_cluster
from simnet.engine.simulate import simulate
from simnet.model.calico import CalicoSettings, FabricSettings
from simnet.model.kube_proxy import KubeProxyConfiguration
from simnet.model.kubernetes import ContainerPort, Objects, Service, ServicePort, Workload
from simnet.model.scenario import ClusterSpec, Entry, NodeSpec, RunSpec, Scenario, Variant
from simnet.model.workload import ClientPopulation, Constant, FlowShape, Poisson
from simnet.model.workload import Workload as Traffic
from simnet.units import PS_PER_S

ROOT = Path(__file__).parents[1]
TARGET_S, TARGET_MB = 60, 4096


def specification(nodes: int, services: int, pods: int) -> ClusterSpec:
    """Every fourth Service a NodePort, every tenth policy Local; leaf-spine with 32 leaves."""
    workloads, made = [], []
    for number in range(services):
        labels = (("app", f"app-{number}"),)
        workloads.append(
            Workload(
                "Deployment",
                "load",
                f"app-{number}",
                replicas=pods // services,
                selector=labels,
                pod_labels=labels,
                container_ports=(ContainerPort("", 8080),),
            )
        )
        made.append(
            Service(
                "load",
                f"app-{number}",
                type="NodePort" if number % 4 == 0 else "ClusterIP",
                ports=(ServicePort("", "TCP", 80, 8080),),
                selector=labels,
                external_traffic_policy="Local" if number % 20 == 0 else "Cluster",
            )
        )
    return ClusterSpec(
        objects=Objects(services=tuple(made), workloads=tuple(workloads)),
        nodes=tuple(NodeSpec(f"node-{n}", (f"10.{n // 200 + 1}.0.{n % 200 + 10}",)) for n in range(nodes)),
        kube_proxy=KubeProxyConfiguration(cluster_cidr="172.16.0.0/12"),
        calico=CalicoSettings(ip_pools=("172.16.0.0/12",)),
        fabric=FabricSettings(leaves=32, spines=4) if nodes > 32 else FabricSettings(),
    )


def main() -> None:
    """Measure, print, write."""
    sizes = [int(word) for word in sys.argv[1:4]] or [1_000, 2_000, 20_000]
    spec = specification(*sizes)
    clients = ClientPopulation(100, addresses=("198.51.100.0/24",))
    began = time.perf_counter()
    cluster = materialise(spec, clients=clients)
    materialised = time.perf_counter()
    compiled = compile_cluster(cluster, spec)
    ready = time.perf_counter()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = Constant(1000)
    traffic = Traffic(Poisson(10_000.0), clients, FlowShape(Constant(1), size, Constant(0), size))
    variant = Variant("node-port", Entry.NODE_PORT, "load/app-4")
    scenario = Scenario(spec, traffic, variant, RunSpec(PS_PER_S))
    recording = simulate(replace(scenario), seed=1, compiled=compiled)
    assert recording.totals["delivered"] == recording.totals["sent"] > 9_000, recording.totals
    result = {
        "nodes": sizes[0],
        "services": sizes[1],
        "pods": sizes[2],
        "materialise_s": round(materialised - began, 2),
        "compile_s": round(ready - materialised, 2),
        "ready_s": round(ready - began, 2),
        "peak_rss_mb": round(peak_mb),
        "distinct_chains": len(compiled.network.program.units),
        "target_met": ready - began < TARGET_S and peak_mb < TARGET_MB,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    for name, value in result.items():
        print(f"{name:20} {value}")
    (ROOT / "benchmarks" / "results").mkdir(exist_ok=True)
    (ROOT / "benchmarks" / "results" / "cluster.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
