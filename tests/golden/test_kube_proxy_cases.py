"""kube-proxy's own tests through the public API: a cluster file per case, every flow and every dump exactly.

The cases are facts taken from kubernetes/kubernetes pkg/proxy/iptables/proxier_test.go (Apache-2.0).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import simnet

VERDICTS = {"DROP": "dropped", "REJECT": "rejected", "ACCEPT": "accepted", "none": "none"}


@pytest.fixture(scope="module")
def golden(shared_cases: Path) -> dict[str, Any]:
    return json.loads((shared_cases / "kube-proxy-cases.json").read_text())


def cluster_of(case: dict[str, Any], defaults: dict[str, Any], folder: Path) -> simnet.Cluster:
    """Write the case as a cluster file and load it."""
    settings = {**defaults, **case["config"]}
    detector = settings["localDetector"]
    content = {
        "nodes": [{"name": settings["nodeName"], "addresses": settings["localAddresses"]}],
        "objects": case["objects"],
        "kubeProxy": {
            "clusterCIDR": "" if detector["mode"] == "none" else detector["cidr"],
            "iptables": {
                "masqueradeAll": settings["masqueradeAll"],
                "localhostNodePorts": settings["localhostNodePorts"],
            },
            "nodePortAddresses": settings["nodePortAddresses"],
        },
    }
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(content))
    return simnet.load_cluster(file)


def test_every_flow_reaches_the_endpoints_that_kube_proxys_tests_expect(golden, tmp_path):
    checked = 0
    for case in golden["cases"]:
        cluster = cluster_of(case, golden["defaults"], tmp_path)
        for flow in case["flows"]:
            host = f"[{flow['dest']}]" if ":" in flow["dest"] else flow["dest"]
            trace = cluster.trace(
                flow["source"],
                f"{host}:{flow['port']}",
                protocol=(flow.get("protocol") or "TCP").lower(),
                node=golden["defaults"]["nodeName"],
                all=True,
            )
            outcomes = trace.to_dict()["outcomes"]
            what = (case["scenario"], flow["name"])
            if "endpoints" in flow["expect"]:
                assert {each["verdict"] for each in outcomes} == {"translated"}, what
                assert sorted({each["endpoint"] for each in outcomes}) == sorted(flow["expect"]["endpoints"]), what
            else:
                assert {each["verdict"] for each in outcomes} == {VERDICTS[flow["expect"]["verdict"]]}, what
            assert {each["masquerade"] for each in outcomes} == {flow["masq"]}, what
            assert sum(each["probability"] for each in outcomes) == pytest.approx(1, abs=1e-12), what
            checked += 1
    assert checked >= 40


def test_every_dump_is_the_one_that_kube_proxys_tests_and_a_kernel_printed(golden, tmp_path):
    dumps = [case for case in golden["cases"] if "dump" in case]
    assert dumps
    for case in dumps:
        rules = cluster_of(case, golden["defaults"], tmp_path).rules(golden["defaults"]["nodeName"])
        restore = sections(rules.to_restore().replace("0x00004000", golden["defaults"]["masqueradeMark"]))
        for table, expected in case["dump"]["expected"].items():
            assert [line for line in restore[table] if line.startswith("-A KUBE-")] == expected
            chains = [line.split()[0][1:] for line in restore[table] if line.startswith(":")]
            assert [name for name in chains if name != "KUBE-PROXY-CANARY"] == case["dump"]["expected_chains"][table]
        saved = sections(rules.to_save())
        for table, expected in case["dump"]["iptables_save"].items():
            assert [line for line in saved[table] if line.startswith("-A")] == expected["rules"]
            assert [line.split()[0][1:] for line in saved[table] if line.startswith(":")] == expected["chains"]


def sections(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("*"):
            lines = found.setdefault(line[1:], [])
        else:
            lines.append(line)
    return found
