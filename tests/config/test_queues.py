"""What an experiment file says about queues, and what a reader is told when it says it wrongly."""

from __future__ import annotations

import pytest

from simnet.config.experiment import load_experiment
from simnet.errors import InputError
from simnet.model.queues import CpuCosts, LinkQueue
from simnet.model.workload import Exponential, PodService

FILE = """
name: queues
cluster:
  objects: [{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{type: NodePort, ports: [{{port: 80}}]}}}}]
  nodes: {{count: 2}}
{cluster}
workload:
  flows: {{arrivals: {{poisson: 10/s}}}}
{workload}
variants: {{node-port: {{entry: NodePort, service: web}}}}
run: {{duration: 1s}}
"""


def scenario(tmp_path, cluster="", workload=""):
    file = tmp_path / "experiment.yaml"
    file.write_text(FILE.format(cluster=cluster, workload=workload))
    return load_experiment(file).runs[0].scenario


def test_without_a_word_about_queues_there_are_none(tmp_path):
    assert not scenario(tmp_path).has_queues
    assert not scenario(tmp_path, "  cpu: none").has_queues


@pytest.mark.parametrize(
    ("text", "queue"),
    [
        ("queue: 1MB", LinkQueue(limit_bytes=10**6)),
        ("queue: 100 packets", LinkQueue(limit_packets=100)),
        ("queue: 1 packet, header: 38B", LinkQueue(limit_packets=1, header_bytes=38)),
        ("header: 18B", LinkQueue(header_bytes=18)),
    ],
)
def test_a_links_queue_is_a_size_or_a_number_of_packets(tmp_path, text, queue):
    found = scenario(tmp_path, f"  fabric: {{link: {{{text}}}}}")
    assert found.has_queues
    assert found.cluster.fabric.link_queue == queue
    assert found.cluster.fabric.client_link_queue is None


def test_costs_of_a_back_end_are_those_that_were_measured_where_none_is_given(tmp_path):
    assert scenario(tmp_path, "  cpu: {}").cluster.cpu == CpuCosts()
    legacy = scenario(tmp_path, "  cpu: {backend: legacy, cores: 2, new: 4us}").cluster.cpu
    assert legacy == CpuCosts(per_rule_ps=5_500, per_endpoint_rule_ps=69_000, cores=2, new_ps=4_000_000)


def test_a_pods_service_is_read_and_turns_queues_on(tmp_path):
    found = scenario(tmp_path, workload="  service: {time: {exponential: 1ms}, workers: 2, queueLimit: 50}")
    assert found.has_queues
    assert found.workload.service == PodService(Exponential(1e9), 2, 50)
    assert scenario(tmp_path, "  queues: true").has_queues


def test_a_queue_without_a_unit_is_refused(tmp_path):
    with pytest.raises(InputError) as error:
        scenario(tmp_path, "  fabric: {link: {queue: 100}}")
    assert "cluster.fabric.link.queue" in str(error.value)
    assert "1MB, or 100 packets" in str(error.value)
