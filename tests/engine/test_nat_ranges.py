"""Ranges in DNAT and SNAT of a node's own rules: trace, shares and the machine's traffic in one cluster."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

import simnet
from simnet.dataplane.netfilter.compiler import compile_program
from simnet.dataplane.netfilter.counters import Counters
from simnet.dataplane.netfilter.executor import run_hook
from simnet.dataplane.netfilter.packets import PacketColumns
from simnet.dataplane.netfilter.state import NetfilterState
from simnet.errors import InputError
from simnet.model.addresses import AddressTable
from simnet.model.iptables.parser import parse_rules

CLUSTER = """
nodes: [{{name: a, addresses: [10.0.0.11], iptables: {file}}}]
calico: {{ipPool: 10.244.0.0/16}}
objects:
{pods}
  - apiVersion: v1
    kind: Service
    metadata: {{name: web}}
    spec: {{clusterIP: 10.96.0.80, externalIPs: [10.0.0.11], selector: {{app: web}}, ports: [{{port: 80}}]}}
"""
POD = """  - apiVersion: v1
    kind: Pod
    metadata: {{name: web-{i}, labels: {{app: web}}}}
    spec: {{nodeName: a, containers: [{{name: web, image: web, ports: [{{containerPort: 80}}]}}]}}
    status: {{podIP: 10.244.0.{at}, phase: Running, conditions: [{{type: Ready, status: "True"}}]}}
"""


def cluster_with(target: str, tmp_path) -> simnet.Cluster:
    """One node, three pods 10.244.0.4 to .6, and one rule for the Service's external address."""
    (tmp_path / "a.rules").write_text(
        f"*nat\n-A PREROUTING -d 10.0.0.11/32 -p tcp -m tcp --dport 80 -j {target}\nCOMMIT\n"
    )
    pods = "".join(POD.format(i=i, at=4 + i) for i in range(3)).rstrip()
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.format(file=tmp_path / "a.rules", pods=pods))
    return simnet.load_cluster(file)


def test_each_client_has_one_pod_of_the_range_and_shares_are_the_hashs(tmp_path):
    cluster = cluster_with("DNAT --to-destination 10.244.0.4-10.244.0.6", tmp_path)
    reached = Counter()
    for host in range(1, 91):
        (outcome,) = cluster.trace(f"198.51.100.{host}", "10.0.0.11:80", all=True).outcomes
        assert outcome.verdict == "delivered"
        reached[outcome.pod] += 1
    assert set(reached) == {"default/web-0", "default/web-1", "default/web-2"}
    rows = [each for each in cluster.share_rows("default/web") if each.entry == "ExternalIP"]
    outside = [each for each in rows if each.client == "outside"]
    assert sum(Fraction(each.exact) for each in outside) == 1
    assert {each.pod for each in outside} == set(reached)
    for each in outside:
        assert abs(Fraction(each.exact) - Fraction(1, 3)) < Fraction(1, 1 << 32)


def test_ports_drawn_from_a_range_are_told_one_by_one_with_the_bias_of_16_bits(tmp_path):
    cluster = cluster_with("DNAT --to-destination 10.244.0.4:80-82 --random", tmp_path)
    outcomes = cluster.trace("198.51.100.1", "10.0.0.11:80", all=True).outcomes
    assert {each.endpoint: each.probability for each in outcomes} == {
        "10.244.0.4:80": Fraction(21846, 65536),
        "10.244.0.4:81": Fraction(21845, 65536),
        "10.244.0.4:82": Fraction(21845, 65536),
    }
    (one,) = cluster.trace("198.51.100.1", "10.0.0.11:80").outcomes
    assert one.endpoint in {"10.244.0.4:80", "10.244.0.4:81", "10.244.0.4:82"}


def test_a_range_that_is_too_large_is_named_with_its_line(tmp_path):
    with pytest.raises(InputError, match=r"a\.rules:2: (?s:.*)range of more than 65536 addresses"):
        cluster_with("DNAT --to-destination 10.0.0.0-10.200.0.0", tmp_path)


def test_random_ports_come_as_often_as_trace_says():
    text = "*nat\n-A PREROUTING -p tcp -j DNAT --to-destination 10.244.0.4:80-86 --random\nCOMMIT\n"
    addresses = AddressTable(["198.51.100.1", "203.0.113.9"])
    program = compile_program([parse_rules(text, file="rules").ruleset], addresses, ())
    packets = PacketColumns.of(70_000, source=0, destination=1, destination_port=80)
    out = run_hook(program, "PREROUTING", packets, seed=3, state=NetfilterState(), counters=Counters(program))
    seen = np.bincount(out.destination_port, minlength=87)[80:]
    assert seen.sum() == 70_000
    assert (abs(seen - 10_000) < 4 * np.sqrt(70_000 * 6 / 49)).all()
