"""Workloads to test with: every kind of arrival and distribution at least once, and strategies over them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from simnet.model.workload import (
    ClientPopulation,
    Constant,
    Deterministic,
    Empirical,
    Exponential,
    FlowShape,
    KeepAlive,
    Lognormal,
    OnOff,
    Pareto,
    PeriodKind,
    Poisson,
    Trace,
    Uniform,
    Workload,
    Zipf,
)

MS = 10**9

PLAIN_SHAPE = FlowShape(Constant(3), Constant(1000), Constant(MS), Constant(1500))
HEAVY_SHAPE = FlowShape(
    Pareto(12.0, 1.5, 5000), Lognormal(600.0, 1.0), Exponential(1e9), Empirical((40, 1500, 576), (1.0, 0.0, 3.0))
)
MIXED_SHAPE = FlowShape(Lognormal(4.0, 1.2), Uniform(64, 1500), Pareto(2e8, 1.2, 10**10), None)
SMALL_SHAPE = FlowShape(Exponential(1.7), Pareto(400.0, 1.1, 9000), Uniform(0, 5), Constant(40))
POOL_SHAPE = FlowShape(Constant(1), Lognormal(600.0, 1.0), Exponential(2e9), Constant(1500))
BUNCHED_SHAPE = FlowShape(Constant(1), Constant(100), Empirical((0, MS, 3 * MS), (2.0, 1.0, 1.0)), None)

RECORDED = Trace(
    start_ps=np.array([0, 0, 5, MS, MS, 2 * MS, 30 * MS], np.int64),
    client=np.array([3, 3, 0, 3, 1, 2, 3], np.int32),
    packet_count=np.array([1, 4, 2, 1, 30, 1, 2], np.int32),
    packet_size_bytes=np.array([40, 1500, 64, 64, 1000, 20, 65535], np.int32),
)
STARTS_ONLY = Trace(start_ps=np.arange(0, 40 * MS, MS, dtype=np.int64))

WORKLOADS = {
    "poisson, heavy tails": Workload(Poisson(2000.0), ClientPopulation(50, skew=Zipf(1.1)), HEAVY_SHAPE),
    "poisson, mixed": Workload(Poisson(900.5), ClientPopulation(7), MIXED_SHAPE, protocol=17),
    "evenly spaced": Workload(Deterministic(1500.0), ClientPopulation(3, skew=Zipf(0.5)), SMALL_SHAPE),
    "bursts, exponential": Workload(OnOff(5000.0, 4 * MS, 9 * MS), ClientPopulation(20), PLAIN_SHAPE),
    "bursts, constant": Workload(OnOff(5000.0, 3 * MS, 2 * MS, PeriodKind.CONSTANT), ClientPopulation(20), SMALL_SHAPE),
    "short bursts": Workload(OnOff(300.0, 10**8, 10**8), ClientPopulation(1), PLAIN_SHAPE),
    "a trace with all columns": Workload(RECORDED, ClientPopulation(4), PLAIN_SHAPE),
    "pools, a request a connection": Workload(KeepAlive(2, 55 * MS, 1), ClientPopulation(3), POOL_SHAPE),
    "pools, limit of requests": Workload(KeepAlive(4, 100 * MS, 7), ClientPopulation(5), POOL_SHAPE),
    "pools, limit of age": Workload(KeepAlive(1, 50 * MS, max_age_ps=9 * MS), ClientPopulation(4), HEAVY_SHAPE),
    "pools, both limits": Workload(KeepAlive(3, 80 * MS, 5, 4 * MS), ClientPopulation(2), BUNCHED_SHAPE, protocol=17),
    "pools, no limit": Workload(KeepAlive(2, 70 * MS), ClientPopulation(3), PLAIN_SHAPE),
    "a trace of starts": Workload(STARTS_ONLY, ClientPopulation(9, skew=Zipf(1.0)), HEAVY_SHAPE),
}

seeds = st.integers(0, 2**63)
instants_ps = st.integers(0, 60 * MS)
