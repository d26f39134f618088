"""simnet held against what a real Linux kernel and a real BIRD did in network namespaces, entry by entry."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from kernel.lab import scenario_of

from simnet.engine.simulate import simulate
from simnet.results.frames import frames

FLOWS = 20_000  # of each simulated entry; the kernel's own counts set the error
SCENARIOS = ("seed", "hairpin")


def _cases(shared: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    found = []
    for name in SCENARIOS:
        lab = json.loads((shared.parent / "lab" / "scenarios" / f"{name}.json").read_text())
        summary = json.loads((shared / "kernel" / name / "summary.json").read_text())
        found += [(lab, entry) for entry in summary["entries"]]
    return found


def _within_four_sigma(seen: int, of: int, share: float, what: str) -> None:
    """Fail unless `seen` of `of` trials in the kernel agree with simnet's share, itself measured on FLOWS flows."""
    pooled = (seen + share * FLOWS) / (of + FLOWS)
    error = math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / FLOWS))
    assert abs(seen / of - share) <= 4 * error + 1e-12, f"{what}: kernel {seen / of:.4f}, simnet {share:.4f}"


@pytest.fixture(scope="module")
def kernel_entries(shared_cases: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    entries = _cases(shared_cases)
    assert len(entries) > 80  # all of them: none skipped in silence
    return entries


def test_every_entry_of_the_kernel_cases_has_the_same_pods_hops_snat_and_timeouts(
    kernel_entries: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    for lab, entry in kernel_entries:
        what = f"{lab['name']}: {entry['source']} -> {entry['entry']}"
        flows = frames(simulate(scenario_of(lab, entry, flows=FLOWS), seed=11))["flows"]
        answered = flows[flows.answered]
        _within_four_sigma(entry["answered"], entry["flows"], len(answered) / FLOWS, f"{what}: answered")
        if not entry["answered"]:
            assert answered.empty, what
            continue
        kernel_pods = {name: each["flows"] for name, each in entry["pods"].items() if each["flows"]}
        counts = answered.pod.value_counts()
        pods = {name.removeprefix("default/"): int(n) for name, n in counts.items() if n}
        assert pods.keys() == kernel_pods.keys(), what
        for name, seen in kernel_pods.items():
            _within_four_sigma(seen, entry["answered"], pods[name] / len(answered), f"{what}: share of {name}")
            mine = answered[answered.pod == f"default/{name}"]
            assert set(mine.l3_hops) == {int(hops) for hops in entry["fwd_hops"][name]}, what
            replies = {int(hops) for hops in entry["reply_hops"][name] if hops != "None"}  # TCP replies are not read
            assert not replies or set(mine.reply_l3_hops) == replies, what
        _within_four_sigma(
            round(entry["snat_share"] * entry["answered"]),
            entry["answered"],
            answered.source_hidden.mean(),
            f"{what}: source hidden",
        )
        sources = {name for name, each in entry["seen_sources"].items() if each["flows"]}
        assert {str(name) for name in answered.source_seen.unique()} == sources, what
