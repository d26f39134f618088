"""A trace at an instant of a run: the fates that the run's own packets have there, and the tables of that instant."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

import simnet
from simnet.engine.simulate import history_of
from simnet.model.fib import Fib
from simnet.model.history import DeviceChange, FibChange, LinkChange, RulesChange, TableHistory
from simnet.units import PS_PER_MS

MANIFEST = Path(__file__).parents[2] / "experiments" / "manifests" / "nginx-demo.yaml"
EVENTS = (
    "{at: 300ms, link: [tor, node-2], do: silent, for: 200ms}, {at: 700ms, node: node-2, do: die, for: 800ms},"
    "{at: 300ms, link: [tor, node-1], do: silent, for: 100ms}"
)
# Between two changes each, further from both than a packet's whole way: (from, to) in milliseconds
STRETCHES = [(0, 299), (302, 398), (402, 498), (502, 698), (702, 748), (754, 1498)]


@pytest.fixture(scope="module", params=["routed", "bridged"])
def experiment(request, tmp_path_factory):
    file = tmp_path_factory.mktemp("instants") / "experiment.yaml"
    file.write_text(f"""
name: failures
cluster:
  objects: [{MANIFEST}]
  nodes: {{count: 2}}
  fabric: {{mode: {request.param}}}
  calico: {{bgp: {{gracefulRestart: none}}}}
workload:
  clients: {{count: 50, from: 198.51.100.0/24}}
  flows: {{arrivals: {{poisson: 10000/s}}, packets: 1, packetSize: 1000B}}
variants:
  external-ip: {{entry: ExternalIP, service: nginx-demo-1}}
run: {{duration: 2s, repeat: 2, seed: 1}}
events: [{EVENTS}]
""")
    return simnet.load_experiment(file)


@pytest.fixture(scope="module")
def flows(experiment):
    run = experiment.runs[0]
    return simnet.simulate(run.scenario, seed=run.seed).tables["flows"]


@pytest.mark.parametrize(("begin_ms", "end_ms"), STRETCHES)
def test_the_fates_of_a_trace_are_those_of_the_runs_flows(experiment, flows, begin_ms, end_ms):
    history = history_of(experiment.runs[0].scenario, simnet.cluster_at(experiment, "0s").steady,
                         seed=experiment.runs[0].seed)  # fmt: skip
    changes = {each.time_ps for each in (*history.fibs, *history.links, *history.devices)}
    assert not any(begin_ms * PS_PER_MS < time_ps <= end_ms * PS_PER_MS for time_ps in changes)
    sent = np.flatnonzero((flows["start_ps"] > begin_ms * PS_PER_MS) & (flows["start_ps"] < (end_ms - 1) * PS_PER_MS))
    names = ("verdict", "reason", "pod", "reply_reason")
    rows = zip(*([flows[name].names[code] for code in flows[name].codes[sent]] for name in names), strict=True)
    counted = Counter(zip(rows, flows["answered"][sent].tolist(), strict=True))
    cluster = simnet.cluster_at(experiment, f"{(begin_ms + end_ms) // 2}ms")
    [number] = {int(code) for code in flows["destination"].codes}
    called = f"{flows['destination'].names[number]}:{int(flows['destination_port'][0])}"
    expected: Counter = Counter()
    for each in cluster.trace("198.51.100.0", called, all=True).outcomes:
        reason = each.reply_reason if each.verdict == "delivered" else ""
        expected[(each.verdict, each.reason, each.pod or "", reason), each.answered] += each.probability
    assert sum(expected.values()) == 1
    assert set(counted) == set(expected)
    for key, probability in expected.items():
        sigma = sqrt(len(sent) * float(probability) * (1 - float(probability)))
        assert abs(counted[key] - len(sent) * float(probability)) <= 4 * sigma + 1e-9


def test_a_client_that_the_file_does_not_name_meets_the_same_instant(experiment):
    cluster = simnet.cluster_at(experiment, "1s")
    called = "node:node-1:80"
    known = cluster.trace("198.51.100.0", called, all=True).outcomes
    other = cluster.trace("203.0.113.7", called, all=True).outcomes
    assert [(each.verdict, each.reason, each.place) for each in other] == [
        (each.verdict, each.reason, each.place) for each in known
    ]
    (outcome,) = cluster.trace("203.0.113.7", "node:node-2:80", all=True).outcomes
    assert outcome.verdict == "lost"


def test_a_sender_without_power_sends_nothing(experiment):
    for at, verdict in (("699ms", "delivered"), ("700ms", "lost"), ("1499ms", "lost")):
        cluster = simnet.cluster_at(experiment, at)
        pod = next(pod.key for pod in cluster.model.pods if pod.node == "node-2" and not pod.host_network)
        (outcome,) = cluster.trace(f"pod:{pod}", f"pod:{pod}:80", all=True).outcomes
        assert (outcome.verdict, outcome.reason) == (verdict, "device down" if verdict == "lost" else "")


def test_an_instant_has_the_changes_up_to_it_and_no_later_ones():
    before, after = Fib("a", ()), Fib("a", ())
    history = TableHistory(
        start={"a": before},
        fibs=(FibChange(5, "a", after),),
        rules=(RulesChange(6, "a", ()),),
        links=(LinkChange(3, 0, False), LinkChange(3, 1, False), LinkChange(7, 0, True)),
        devices=(DeviceChange(4, "a", False), DeviceChange(8, "a", True)),
    )
    seen = [history.at(time_ps) for time_ps in range(10)]
    assert [each.fibs["a"] is after for each in seen] == [time_ps >= 5 for time_ps in range(10)]
    assert [set(each.rulesets) for each in seen] == [set()] * 6 + [{"a"}] * 4
    assert [set(each.broken_links) for each in seen] == [set()] * 3 + [{0, 1}] * 4 + [{1}] * 3
    assert [set(each.dead_devices) for each in seen] == [set()] * 4 + [{"a"}] * 4 + [set()] * 2


def test_a_repetition_has_its_own_run_and_unknown_ones_are_refused(experiment):
    assert simnet.cluster_at(experiment, "1s", repeat=1).seed == experiment.runs[1].seed
    for wrong in ({"variant": "no"}, {"repeat": 2}, {"at": "3s"}, {"at": "1"}):
        with pytest.raises(simnet.InputError):
            simnet.cluster_at(experiment, **{"at": "1s", **wrong})
