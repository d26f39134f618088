"""What an experiment file says about clients that wait, and what a reader is told when it says it wrongly."""

from __future__ import annotations

import pytest
import yaml

from simnet.config.experiment import load_experiment
from simnet.config.resolved import as_yaml
from simnet.engine.precheck import problems_of
from simnet.errors import InputError
from simnet.model.workload import ClosedLoop, Constant, Exponential, KeepAlive

FILE = """
name: waiting
cluster:
  objects:
    - {{apiVersion: v1, kind: Service, metadata: {{name: web}},
        spec: {{type: NodePort, ports: [{{port: 80}}], sessionAffinity: {affinity}}}}}
  nodes: {{count: 2}}
workload:
  requests: {{{requests}}}
  flows: {{{flows}}}
variants: {{node-port: {{entry: NodePort, service: web}}}}
run: {{duration: 1s}}
"""


def experiment(tmp_path, requests, flows="packetSize: 300B", affinity="None"):
    file = tmp_path / "experiment.yaml"
    file.write_text(FILE.format(requests=requests, flows=flows, affinity=affinity))
    return load_experiment(file)


def workload(tmp_path, requests):
    return experiment(tmp_path, requests).runs[0].scenario.workload


def test_clients_wait_only_where_the_file_says_so(tmp_path):
    assert type(workload(tmp_path, "thinkTime: 1ms").arrivals) is KeepAlive
    waiting = workload(tmp_path, "thinkTime: 1ms, closedLoop: true")
    assert waiting.arrivals == ClosedLoop(1, 10**12)
    assert waiting.shape.gap_ps == Constant(10**9)


def test_every_key_of_clients_that_wait_is_read(tmp_path):
    found = workload(
        tmp_path,
        "closedLoop: true, connections: 3, perConnection: 100, maxConnectionAge: 10s, thinkTime: 1ms,"
        " timeout: 50ms, retries: 2, backoff: {exponential: 5ms}",
    ).arrivals
    assert found == ClosedLoop(3, 10**12, 100, 10**13, 5 * 10**10, 2, Exponential(5e9))


@pytest.mark.parametrize("more", ["", ", closedLoop: true", ", closedLoop: true, timeout: 1s, retries: 1"])
def test_the_resolved_file_asks_for_the_same(tmp_path, more):
    first = experiment(tmp_path, f"thinkTime: 1ms{more}")
    again = tmp_path / "again.yaml"
    again.write_text(as_yaml(first.resolved))
    assert load_experiment(again).runs[0].scenario.workload == first.runs[0].scenario.workload
    assert yaml.safe_load(again.read_text())["workload"]["requests"]["closedLoop"] is bool(more)


@pytest.mark.parametrize(
    ("requests", "flows", "told"),
    [
        (
            "thinkTime: 1ms, timeout: 1s",
            "packetSize: 300B",
            "experiment.yaml:9: workload.requests.timeout\n"
            "  found:    timeout without closedLoop\n"
            "  expected: clients that wait for answers\n"
            "  fix:      add `closedLoop: true`, or remove timeout",
        ),
        (
            "thinkTime: 1ms, closedLoop: true, retries: 2",
            "packetSize: 300B",
            "experiment.yaml:9: workload.requests.retries\n"
            "  found:    retries without timeout\n"
            "  expected: a client that gives up\n"
            "  fix:      add for example `timeout: 1s`, or remove retries",
        ),
        (
            "ratePerClient: 10/s, closedLoop: true",
            "packetSize: 300B",
            "experiment.yaml:9: workload.requests.ratePerClient\n"
            "  found:    ratePerClient beside closedLoop\n"
            "  expected: thinkTime: clients that wait have no rate of their own\n"
            "  fix:      for example thinkTime: {exponential: 1ms}",
        ),
        (
            "thinkTime: 1ms, closedLoop: true",
            "protocol: udp",
            "experiment.yaml:10: workload.flows.protocol\n"
            "  found:    udp beside closedLoop\n"
            "  expected: tcp or sctp: clients that wait keep connections\n"
            "  fix:      remove `protocol: udp`, or closedLoop",
        ),
    ],
)
def test_a_wrong_key_is_told_with_its_line(tmp_path, requests, flows, told):
    with pytest.raises(InputError) as refused:
        experiment(tmp_path, requests, flows)
    assert str(refused.value).replace(f"{tmp_path}/", "") == told


def test_services_that_remember_their_callers_are_refused_before_anything_runs(tmp_path):
    runs = experiment(tmp_path, "thinkTime: 1ms, closedLoop: true", affinity="ClientIP").runs
    (problem,) = problems_of(runs)
    assert problem.field == "workload.requests.closedLoop"
    assert problem.found.startswith("default/web: who called before decides")
    assert not problems_of(experiment(tmp_path, "thinkTime: 1ms, closedLoop: true").runs)
