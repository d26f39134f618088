"""One traffic entry of the kernel lab's summary against simnet: pods, hops, SNAT, sources, time-outs, shares."""

from __future__ import annotations

import math
from typing import Any

from kernel.lab import scenario_of

from simnet.engine.simulate import simulate
from simnet.results.frames import frames

FLOWS = 20_000  # of each simulated entry; the kernel's own counts set the error


def assert_entry_is_as_simulated(lab: dict[str, Any], entry: dict[str, Any]) -> None:
    """Fail, naming the entry, where the kernel did anything that simnet does not say."""
    what = f"{lab['name']}: {entry['source']} -> {entry['entry']}"
    flows = frames(simulate(scenario_of(lab, entry, flows=FLOWS), seed=11))["flows"]
    answered = flows[flows.answered]
    _within_four_sigma(entry["answered"], entry["flows"], len(answered) / FLOWS, f"{what}: answered")
    if not entry["answered"]:
        assert answered.empty, what
        return
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
    hidden = answered.source_hidden.mean()
    rewritten = round(entry["snat_share"] * entry["answered"])
    _within_four_sigma(rewritten, entry["answered"], hidden, f"{what}: source hidden")
    sources = {name for name, each in entry["seen_sources"].items() if each["flows"]}
    assert {str(name) for name in answered.source_seen.unique()} == sources, what


def _within_four_sigma(seen: int, of: int, share: float, what: str) -> None:
    """Fail unless `seen` of `of` trials in the kernel agree with simnet's share, itself measured on FLOWS flows."""
    pooled = (seen + share * FLOWS) / (of + FLOWS)
    error = math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / FLOWS))
    assert abs(seen / of - share) <= 4 * error + 1e-12, f"{what}: kernel {seen / of:.4f}, simnet {share:.4f}"
