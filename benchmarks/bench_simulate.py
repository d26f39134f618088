"""Ten million packets of the first scenario, config to frames, against the plain event-by-event simulation.

Run: python benchmarks/bench_simulate.py [PACKETS]. One core. Prints and writes benchmarks/results/simulate.json:
packets a second, peak resident memory, and the ratio to tests/reference/simulation.py on fewer packets of the same
scenario in the same process; the ratio is what may be compared between machines.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy is loaded
    os.environ.setdefault(library, "1")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

# ruff: noqa: E402

from engine.test_agreement import reference_run

from simnet.config.experiment import load_experiment
from simnet.engine.simulate import prepare, simulate
from simnet.model.scenario import Scenario
from simnet.results.frames import frames
from simnet.units import PS_PER_S

PACKETS_A_SECOND = 24_000  # of the scenario: 2,000 flows of 12 packets
TARGET, TARGET_MB = 2_000_000, 1_500


def lasting(scenario: Scenario, packets: float) -> Scenario:
    """The scenario with about that many packets."""
    duration_ps = int(packets / PACKETS_A_SECOND * PS_PER_S)
    return replace(scenario, run=replace(scenario.run, duration_ps=duration_ps))


def main() -> None:
    """Measure, print, write."""
    wanted = float(sys.argv[1]) if len(sys.argv) > 1 else 10e6
    began = time.perf_counter()
    experiment = load_experiment(str(ROOT / "experiments" / "nginx-demo.yaml"))
    planned = next(run for run in experiment.runs if run.variant == "external-ip")
    scenario = lasting(planned.scenario, wanted)
    recording = simulate(scenario, seed=planned.seed)
    made = frames(recording)
    seconds = time.perf_counter() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    packets = recording.totals["sent"]
    assert int(made["flows"]["packets_sent"].sum()) == packets

    few = lasting(scenario, 20_000)
    compiled = prepare(few, seed=planned.seed)
    began = time.perf_counter()
    reference = reference_run(few, compiled, planned.seed)
    slow = reference.totals["sent"] / (time.perf_counter() - began)
    began = time.perf_counter()
    small = simulate(few, seed=planned.seed, compiled=compiled)
    fast_on_few = small.totals["sent"] / (time.perf_counter() - began)
    assert dict(reference.totals) == {name: count for name, count in small.totals.items() if count}
    result = {
        "packets": packets,
        "flows": len(made["flows"]),
        "seconds": round(seconds, 2),
        "packets_per_second": round(packets / seconds),
        "peak_rss_mb": round(peak_mb),
        "reference_packets_per_second": round(slow),
        "ratio": round(packets / seconds / slow),
        "ratio_on_20000_packets": round(fast_on_few / slow),
        "target_met": packets / seconds >= TARGET and peak_mb < TARGET_MB,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    for name, value in result.items():
        print(f"{name:30} {value}")
    (ROOT / "benchmarks" / "results").mkdir(exist_ok=True)
    (ROOT / "benchmarks" / "results" / "simulate.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
