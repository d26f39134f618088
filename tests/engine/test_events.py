"""Events of a file, from its text to the packets: what fails, what is lost meanwhile, and that all comes back."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import simnet
from simnet.engine.failures import random_events
from simnet.engine.materialise import materialise
from simnet.model.events import EventKind, RandomFailures
from simnet.units import PS_PER_S

MANIFEST = Path(__file__).parents[2] / "experiments" / "manifests" / "nginx-demo.yaml"


def experiment(folder: Path, events: str, *, bgp: str = "", repeat: int = 1):
    file = folder / "experiment.yaml"
    file.write_text(f"""
name: failures
cluster:
  objects: [{MANIFEST}]
  nodes: {{count: 2}}
  calico: {{bgp: {{{bgp}}}}}
workload:
  clients: {{count: 50, from: 198.51.100.0/24}}
  flows: {{arrivals: {{poisson: 1000/s}}, packets: 4, packetSize: 1000B, gap: {{exponential: 1ms}}}}
variants:
  external-ip: {{entry: ExternalIP, service: nginx-demo-1}}
run: {{duration: 6s, repeat: {repeat}, seed: 1}}
events: [{events}]
""")
    return simnet.load_experiment(file)


def flows_of(planned):
    recording = simnet.simulate(planned.scenario, seed=planned.seed)
    flows = recording.tables["flows"]
    seconds = flows["start_ps"] / PS_PER_S
    return seconds, flows["answered"], flows["reason"], recording


def test_a_worker_loses_power_and_its_flows_are_lost_until_it_is_back(tmp_path):
    plan = experiment(tmp_path, "{at: 2s, node: node-2, do: die, for: 2s}")
    seconds, answered, _, recording = flows_of(plan.runs[0])
    before, during = seconds < 1.9, (seconds > 2.1) & (seconds < 3.9)
    assert answered[before].all()
    half = answered[during].mean()  # the pod on node-1 still answers: a half, within 4 standard errors
    assert abs(half - 0.5) < 4 * 0.5 / np.sqrt(during.sum())
    flows = recording.tables["flows"]
    ended = sum(flows[f"packets_{verdict}"] for verdict in ("delivered", "dropped", "rejected", "lost"))
    assert np.array_equal(ended, flows["packets_sent"])


def test_without_events_nothing_is_lost(tmp_path):
    seconds, answered, reason, _ = flows_of(experiment(tmp_path, "").runs[0])
    assert len(seconds) > 5_000
    assert answered.all()
    assert not reason.codes.any()


@pytest.mark.parametrize(
    ("event", "hold", "least_s", "most_s"),
    [
        ("{at: 1s, link: [tor, node-2], do: down}", "9s", 0.0, 0.1),  # the carrier tells
        ("{at: 1s, bgp: node-2, do: stop}", "9s", 0.0, 0.01),  # the NOTIFICATION does
    ],
)
def test_how_soon_the_switch_withdraws_the_block(tmp_path, event, hold, least_s, most_s):
    from simnet.engine.simulate import history_of

    planned = experiment(tmp_path, event, bgp=f"holdTime: {hold}, gracefulRestart: none").runs[0]
    cluster = materialise(planned.scenario.cluster, clients=planned.scenario.workload.clients, seed=planned.seed)
    history = history_of(planned.scenario, cluster, seed=planned.seed)
    block = next(block.cidr for block in cluster.blocks if block.node == "node-2")
    gone = next(
        change.time_ps
        for change in history.fibs
        if change.device == "tor" and all(str(route.prefix) != block for route in change.fib.routes)
    )
    assert least_s <= gone / PS_PER_S - 1 <= most_s


def test_random_failures_are_a_function_of_the_seed_with_the_means_that_were_asked_for(tmp_path):
    cluster = materialise(experiment(tmp_path, "").runs[0].scenario.cluster, seed=1)
    failures = RandomFailures(EventKind.BGP_KILLED, (), 10 * PS_PER_S, 2 * PS_PER_S)
    events = random_events((failures,), cluster, 20_000 * PS_PER_S, 7)
    assert events == random_events((failures,), cluster, 20_000 * PS_PER_S, 7)
    assert events != random_events((failures,), cluster, 20_000 * PS_PER_S, 8)
    assert {event.subject for event in events} == {("node-1",), ("node-2",)}
    lasted = np.array([event.until_ps - event.at_ps for event in events]) / PS_PER_S
    assert abs(lasted.mean() - 2) < 4 * 2 / np.sqrt(len(lasted))
    expected = 2 * 20_000 / 12  # renewal: one failure in a mean of up and down time
    spread = np.sqrt(2 * 20_000 * (10**2 + 2**2) / 12**3)
    assert abs(len(events) - expected) < 4 * spread
    for node in ("node-1", "node-2"):
        mine = [event for event in events if event.subject == (node,)]
        assert all(one.until_ps < two.at_ps for one, two in itertools.pairwise(mine))


def test_same_seed_same_bytes_and_repeats_differ(tmp_path):
    plan = experiment(tmp_path, "{every: {mtbf: 2s, mttr: 500ms}, link: any, do: silent}", repeat=2)
    one, again, other = (flows_of(plan.runs[number])[1] for number in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
