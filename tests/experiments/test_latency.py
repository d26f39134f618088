"""What experiments/README.md says of latency and rules, on smaller runs."""

from __future__ import annotations

import numpy as np
import pytest

from simnet.config.experiment import load_experiment
from simnet.engine.simulate import simulate
from simnet.model.recording import Categories


def recordings(repository, name, *settings):
    experiment = load_experiment(repository / "experiments" / f"{name}.yaml", settings=settings)
    return [(run.variant, simulate(run.scenario, seed=run.seed)) for run in experiment.runs]


def part_us(recording, part):
    latency = recording.tables["latency"]
    names = [(latency["of"].names[of], latency["part"].names[code])
             for of, code in zip(latency["of"].codes, latency["part"].codes, strict=True)]  # fmt: skip
    return float(latency["mean_ps"][names.index(("response", part))]) / 1e6


def test_a_first_packet_pays_for_every_rule_that_it_is_held_against(repository):
    settings = ("sweep={}", "objects=[manifests/rules-100.yaml]", "run.repeat=1", "run.duration=200ms")
    for backend, rule_us, endpoint_us in (("nft", 0.0183, 0.118), ("legacy", 0.0055, 0.069)):
        found = recordings(repository, "rules-cost", *settings, f"cpu.backend={backend}")
        scans = []
        for _, recording in found:
            rules = recording.tables["flows"]["rules_scanned"].mean()
            # two endpoints: one rule with `statistic` a connection
            assert part_us(recording, "rule_scan_ps") == pytest.approx((rules - 1) * rule_us + endpoint_us, rel=1e-9)
            scans.append(part_us(recording, "rule_scan_ps"))
        first, last, node_port = scans
        assert last - first == pytest.approx(102 * rule_us, rel=1e-6)  # the 100 ports and a rule each between them
        assert node_port - last == pytest.approx(3 * rule_us, rel=1e-6)


def test_the_entry_workers_link_carries_what_the_detours_bring_back(repository):
    settings = ("sweep={}", "run.repeat=1", "workload.flows.arrivals.poisson=4000/s", "run.duration=1s")
    found = recordings(repository, "latency-under-load", *settings)
    for variant, recording in found:
        stations, flows = recording.tables["stations"], recording.tables["flows"]
        assert isinstance(stations["station"], Categories)
        mine = stations["station"].codes == stations["station"].names.index("tor->node-1")
        busy = float(stations["utilisation"][mine].mean())
        rate = len(flows["flow_id"])  # a second
        share = {"external-ip": 1.75, "node-port": 0.625, "pod": 0.25}[variant]
        assert busy == pytest.approx(share * rate * 100e-6, abs=4 * np.sqrt(2 * share * rate) * 100e-6)
    external, node_port, pod = (part_us(recording, "link_queue_ps") for _, recording in found)
    assert external > 4 * node_port > 8 * pod
