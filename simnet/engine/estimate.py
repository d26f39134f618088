"""How much an experiment will be: flows, packets, time and disk, before anything runs.

Expected values of the workload; speeds and sizes measured with benchmarks/ on one core of an x86 server of 2020, so
the time is an order of magnitude and no promise.
"""

from __future__ import annotations

from dataclasses import dataclass

from simnet.model.scenario import Experiment, PlannedRun
from simnet.model.workload import Deterministic, KeepAlive, OnOff, Poisson, Trace
from simnet.units import PS_PER_S
from simnet.workload.distributions import mean_of

PACKETS_PER_SECOND = 2_000_000
FLOWS_PER_SECOND = 500_000
SECONDS_PER_RUN = 0.05  # writing, and what does not depend on the packets
SECONDS_PER_TABLE = 2e-6  # node times endpoint: rules and routes of a cluster
BYTES_PER_FLOW = 25
BYTES_PER_PACKET = 10
BYTES_PER_RUN = 12_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected size of one run, or of many."""

    flows: float
    packets: float
    seconds: float  # of one worker
    disk_bytes: float

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.flows + other.flows,
            self.packets + other.packets,
            self.seconds + other.seconds,
            self.disk_bytes + other.disk_bytes,
        )


def estimate(planned: PlannedRun) -> Estimate:
    """Return the expected size of a run."""
    scenario = planned.scenario
    arrivals, shape = scenario.workload.arrivals, scenario.workload.shape
    duration_s = scenario.run.duration_ps / PS_PER_S
    if isinstance(arrivals, Trace):
        inside = arrivals.start_ps < scenario.run.duration_ps
        flows = float(inside.sum())
        counted = arrivals.packet_count
        packets = flows * mean_of(shape.packet_count) if counted is None else float(counted[inside].sum())
    elif isinstance(arrivals, KeepAlive):
        slots = scenario.workload.clients.count * arrivals.connections_per_client
        gap_ps = max(mean_of(shape.gap_ps), 1.0)
        packets = slots * scenario.run.duration_ps / gap_ps
        by_age = packets if arrivals.max_age_ps is None else arrivals.max_age_ps / gap_ps + 1
        flows = min(packets, max(float(slots), packets / min(arrivals.requests_per_connection, by_age)))
    else:
        flows = _rate_hz(arrivals) * duration_s
        packets = flows * mean_of(shape.packet_count)
    disk = float(BYTES_PER_RUN)
    if scenario.record != "summary":
        disk += flows * BYTES_PER_FLOW
    if scenario.record == "packets":
        disk += packets * BYTES_PER_PACKET
    cluster = scenario.cluster
    tables = max(len(cluster.nodes), len(cluster.objects.nodes), 3) * max(len(cluster.objects.services), 1)
    seconds = packets / PACKETS_PER_SECOND + flows / FLOWS_PER_SECOND + tables * SECONDS_PER_TABLE + SECONDS_PER_RUN
    return Estimate(flows, packets, seconds, disk)


def estimate_all(experiment: Experiment) -> Estimate:
    """Return the expected size of all runs of an experiment."""
    total = Estimate(0.0, 0.0, 0.0, 0.0)
    for planned in experiment.runs:
        total += estimate(planned)
    return total


def _rate_hz(arrivals: Poisson | Deterministic | OnOff) -> float:
    if isinstance(arrivals, OnOff):
        return arrivals.rate_hz * arrivals.on_ps / (arrivals.on_ps + arrivals.off_ps)
    return arrivals.rate_hz
