"""Flows and packets a second, and how much faster that is than the plain loop in tests/reference/workload.py.

Run: python benchmarks/bench_workload.py. Fixed size and seed, one core; the ratio is what may be compared
between machines. Workload: Poisson arrivals, Zipf clients, Pareto packet counts (mean 12, alpha 1.5),
constant sizes, exponential gaps. The loop is slow also because it asks exact_math for one number at a time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from reference import workload as one_by_one

from simnet.model.workload import (
    ClientPopulation,
    Constant,
    EntryChoice,
    Exponential,
    FlowShape,
    Pareto,
    Poisson,
    Workload,
    Zipf,
)
from simnet.units import PS_PER_S
from simnet.workload.generation import Generator, flows_in_window, generator, packets_of, start_of_run

SEED = 1
RATE_HZ = 2_000.0
WORKLOAD = Workload(
    Poisson(RATE_HZ),
    ClientPopulation(500, skew=Zipf(1.1)),
    FlowShape(Pareto(12.0, 1.5), Constant(1000), Exponential(1e9), Constant(1000)),
)


def in_blocks(made: Generator, *, flows: int, flows_a_block: int) -> int:
    """Make that many flows with their packets, block by block; return how many packets there were."""
    state, packets = start_of_run(WORKLOAD), 0
    while state.arrivals.next_flow < flows:
        batch, state = flows_in_window(
            made, SEED, state, until_ps=2**60, limit=flows_a_block, choice=EntryChoice(), target_count=8
        )
        packets += len(packets_of(made, SEED, batch))
    return packets


def plain_loop(made: Generator, *, flows: int) -> int:
    """Make about that many flows one by one; return how many packets there were."""
    made_flows = one_by_one.generate(
        made, SEED, until_ps=int(flows / RATE_HZ * PS_PER_S), choice=EntryChoice(), target_count=8
    )
    return sum(flow.packet_count for flow in made_flows)


def packets_a_second(run: Callable[[], int], rounds: int) -> float:
    """Return the rate of the best round."""
    best = 0.0
    for _ in range(rounds):
        begin = time.perf_counter()
        packets = run()
        best = max(best, packets / (time.perf_counter() - begin))
    return best


def main() -> None:
    """Print one line per block size."""
    made = generator(WORKLOAD)
    loop = packets_a_second(lambda: plain_loop(made, flows=1_000), rounds=3)
    print(f"{'plain loop':24} {loop / 1e6:8.3f} M packets/s")
    for flows_a_block in (1_000, 5_000, 20_000):
        rate = packets_a_second(
            lambda size=flows_a_block: in_blocks(made, flows=500_000, flows_a_block=size),  # type: ignore[misc]
            rounds=3,
        )
        print(f"blocks of {flows_a_block:6} flows   {rate / 1e6:8.1f} M packets/s, {rate / loop:6.0f} times the loop")


if __name__ == "__main__":
    main()
