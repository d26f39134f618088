"""simnet's speakers in time against real BIRDs: tests/data/bird_timelines.json, recorded by tests/bird/timelines.py.

Three networks, seven failures, six runs of each, with BIRD 2.0.12 on a machine that other work kept busy. Every change
of a route was read from the kernel's own notices (`ip monitor`), in every box that had the route.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from bird.timelines import OUTAGE_S, RESTART_S, WATCHED, network
from engine.bgp_networks import LAB, MINUTE, given_cluster, when

from simnet.engine.bgp_processes import run_control_plane
from simnet.model.events import Event, EventKind
from simnet.units import PS_PER_S

RECORD = json.loads((Path(__file__).parents[1] / "data" / "bird_timelines.json").read_text())
KINDS = {
    "killed": EventKind.BGP_KILLED,
    "stopped": EventKind.BGP_STOPS,
    "frozen": EventKind.BGP_FREEZES,
    "link down": EventKind.LINK_DOWN,
}
AT_S = 60
SEEDS = range(60)
LATE_S = 1.3  # BIRD's loop acts on a timer up to so much later (facts on a real kernel; docs/models/bgp.md, `loop`)


def measured(name, failure):
    """Box -> [(seconds until its route went, seconds from the end of the outage until it was back)]; None: never."""
    found = defaultdict(list)
    for run in RECORD:
        if (run["network"], run["failure"]) == (name, failure):
            for box, (gone, back) in run["boxes"].items():
                found[box].append((gone, None if back is None else back - run["outage_s"]))
    return found


def simulated(name, failure, boxes):
    case = network(name)
    node = replace(LAB, restart_ps=RESTART_S * PS_PER_S if "graceful" in failure else None)
    calico, wires = replace(case.calico, bgp=node), replace(case.settings, bgp=LAB)
    ready, spec = given_cluster(case.nodes, (), case.blocks, calico, wires, case.fabric)
    switch = "leaf1" if name == "leaf-spine" else "tor"
    kind = KINDS[failure.split(",")[0]]
    subject = ("n0", switch) if kind is EventKind.LINK_DOWN else ("n0",)
    end_s = AT_S + OUTAGE_S[failure]
    found = defaultdict(list)
    for seed in SEEDS:
        event = Event(AT_S * PS_PER_S, kind, subject, end_s * PS_PER_S)
        history = run_control_plane(ready, spec, (event,), until_ps=event.until_ps + MINUTE // 2, seed=seed)
        for box in boxes:
            changes = [time / PS_PER_S for time, _ in when(history, box, WATCHED)]
            found[box].append((changes[0] - AT_S, changes[1] - end_s) if changes else (None, None))
    return found


NAMES = {"switch": "tor", "mesh": "tor", "leaf-spine": "leaf2"}  # and a box of each: others hear what it hears
# A box whose own interface goes down loses the route with it, of which the kernel gives no notice
UNSEEN = {("switch", "link down"): "tor", ("leaf-spine", "link down"): "leaf1"}


SHORT = ("killed", "frozen", "stopped, graceful")  # the others take longer together than they find


@pytest.mark.parametrize(
    "failure", [each if each in SHORT else pytest.param(each, marks=pytest.mark.slow) for each in OUTAGE_S]
)
def test_routes_go_and_come_back_when_they_did_on_real_birds(failure):
    pooled = {which: ([], []) for which in (0, 1)}
    for name in NAMES:
        real = measured(name, failure)
        assert {len(times) for times in real.values()} == {6}
        real.pop(UNSEEN.get((name, failure)), None)
        mine = simulated(name, failure, real)
        for box, times in real.items():
            for which in (0, 1):
                seen = sorted(each[which] for each in times if each[which] is not None)
                said = sorted(each[which] for each in mine[box] if each[which] is not None)
                if failure == "killed, graceful, back in 3 s":
                    assert (seen, said) == ([], [])
                    continue
                assert (len(seen), len(said)) == (6, len(SEEDS)), (name, box)
                _agree(seen, said, (name, box, which))
                if box == NAMES[name]:
                    pooled[which][0].extend(seen)
                    pooled[which][1].extend(said)
    for seen, said in pooled.values():
        assert not seen or abs(median(seen) - median(said)) <= LATE_S / 2


def _agree(seen, said, where):
    """Every measured time is one that simnet says, or later by BIRD's loop; what waits for no timer takes no time."""
    if said[-1] < 0.01:
        assert seen[0] < 0.01, where
        assert seen[-1] < 0.05, where
    else:
        assert said[0] - 0.1 <= seen[0], (where, seen, said)  # the smallest of sixty draws
        assert seen[-1] <= said[-1] + LATE_S, (where, seen, said)
