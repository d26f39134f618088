"""simnet held against what a real Linux kernel and a real BIRD did in network namespaces, entry by entry."""

from __future__ import annotations

import json
from pathlib import Path

from kernel.entries import assert_entry_is_as_simulated

SCENARIOS = ("seed", "hairpin")


def test_every_entry_of_the_kernel_cases_has_the_same_pods_hops_snat_and_timeouts(shared_cases: Path) -> None:
    checked = 0
    for name in SCENARIOS:
        lab = json.loads((shared_cases.parent / "lab" / "scenarios" / f"{name}.json").read_text())
        for entry in json.loads((shared_cases / "kernel" / name / "summary.json").read_text())["entries"]:
            assert_entry_is_as_simulated(lab, entry)
            checked += 1
    assert checked > 80  # all of them: none skipped in silence
