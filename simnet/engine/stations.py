"""The stations of a cluster: link directions, cores of nodes that take packets, pods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simnet.dataplane.path.itineraries import StationNumbers
from simnet.dataplane.path.network import NODE
from simnet.dataplane.queueing.stations import CPU, LINK, POD, UNLIMITED, Stations
from simnet.engine.network import CompiledCluster
from simnet.model.queues import CpuCosts
from simnet.model.workload import PodService


@dataclass(frozen=True, slots=True, eq=False)
class ClusterStations:
    """The stations with their numbers and names; a name is `a->b`, `node cpu 0` or namespace/name of a pod."""

    stations: Stations
    numbers: StationNumbers
    names: tuple[str, ...]


def stations_of(compiled: CompiledCluster, cpu: CpuCosts | None, service: PodService | None) -> ClusterStations:
    """Return the stations of a cluster. Without `cpu` its nodes have none; without `service` pods serve at once."""
    links, network, cluster = compiled.cluster.fabric.links, compiled.network, compiled.cluster
    names = list(compiled.direction_names)
    directions = [link for link in links for _ in range(2)]
    first_core = np.full(network.device_count, -1, np.int32)
    cores = np.zeros(network.device_count, np.int32)
    if cpu is not None:
        of_node = {node.name: node.cpus for node in cluster.nodes}
        for device in np.flatnonzero(network.device_kind == NODE).tolist():
            name = compiled.place_names[device]
            first_core[device] = len(names)
            cores[device] = of_node[name] if cpu.cores is None else cpu.cores
            names += [f"{name} cpu {core}" for core in range(cores[device])]
    pods = compiled.place_names[network.device_count :]
    pod = np.full(len(compiled.place_names), -1, np.int32)
    pod[network.device_count :] = np.arange(len(names), len(names) + len(pods))
    core_count = len(names) - len(directions)
    names += pods
    limits = [
        (UNLIMITED if each is None else each)
        for link in directions
        for each in (link.queue.limit_packets, link.queue.limit_bytes)
    ]
    n = len(names)
    limit_packets, limit_bytes = np.full(n, UNLIMITED, np.int64), np.full(n, UNLIMITED, np.int64)
    limit_packets[: len(directions)], limit_bytes[: len(directions)] = limits[::2], limits[1::2]
    rate_bps, delay_ps = np.zeros(n, np.int64), np.zeros(n, np.int64)
    rate_bps[: len(directions)] = [link.rate_bps for link in directions]
    delay_ps[: len(directions)] = [link.delay_ps for link in directions]
    servers = np.ones(n, np.int32)
    first_pod = n - len(pods)
    if service is not None:
        servers[first_pod:] = service.workers
        limit_packets[first_pod:] = UNLIMITED if service.queue_limit is None else service.queue_limit
    kind = np.repeat(np.array([LINK, CPU, POD], np.uint8), [len(directions), core_count, len(pods)])
    header_bytes = np.array([link.queue.header_bytes for link in directions], np.int32)
    return ClusterStations(
        Stations(kind, servers, rate_bps, delay_ps, limit_packets, limit_bytes),
        StationNumbers(header_bytes, first_core, cores, pod, cpu),
        tuple(names),
    )
