"""The rules that simnet writes, loaded by a real iptables into the kernel lab, do what simnet says they do.

Needs root, the lab beside the repository, and its programs; one cluster in every run, others under the `slow` marker.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kernel.entries import assert_entry_is_as_simulated
from kernel.lab import cluster_of

from simnet.controlplane.kube_proxy.restore_text import restore_text
from simnet.engine.materialise import materialise

FLOWS = 400  # sent through the kernel for each entry
PROGRAMS = ("ip", "iptables-restore", "conntrack", "bird")
BRIDGED = {
    "name": "bridged",
    "fabric": "bridged",
    "iptables": "nft",
    "cluster_cidr": "10.244.0.0/16",
    "bgp": {"hold_time": 9},
    "switches": [{"name": "tor", "ip": "192.168.64.1", "asn": 65001, "subnet": "192.168.64.0/24"}],
    "clients": [{"name": "client", "ip": "192.168.64.200/24", "gateway": "192.168.64.1", "switch": "tor"}],
    "workers": [
        {"name": name, "ip": f"192.168.64.{57 + i}", "switch": "tor",
         "pod_block": f"10.244.{i + 1}.0/26", "asn": 64512 + i}
        for i, name in enumerate("ABC")
    ],
    "pods": [
        {"name": "web-a", "ip": "10.244.1.2", "node": "A"},
        {"name": "web-b", "ip": "10.244.2.2", "node": "B"},
        {"name": "web-c", "ip": "10.244.2.3", "node": "B"},
    ],
    "services": [
        {
            "name": name,
            "type": "NodePort",
            "clusterIP": f"10.96.0.{number}",
            "externalIPs": ["192.168.64.58"],
            "externalTrafficPolicy": policy,
            "ports": [
                {"name": "udp", "port": 8000 + number, "targetPort": 80, "protocol": "UDP", "nodePort": 30000 + number}
            ],
            "endpoints": ["web-a", "web-b", "web-c"],
        }
        for number, name, policy in ((20, "spread", "Cluster"), (21, "near", "Local"))
    ],
    "traffic": [
        {"sources": ["client:client"], "to": ["external", "nodeport"], "proto": "udp", "flows": 400, "packets": 1,
         "timeout": 0.5, "window": 200},
        {"sources": ["pod:web-a", "node:C"], "to": ["cluster", "external"], "proto": "udp", "flows": 400, "packets": 1,
         "timeout": 0.5, "window": 200},
    ],
}  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize(
    "name", ["seed", pytest.param("hairpin", marks=pytest.mark.slow), pytest.param("bridged", marks=pytest.mark.slow)]
)
def test_a_kernel_that_holds_simnets_rules_does_what_simnet_says(name: str, shared_cases: Path, tmp_path: Path) -> None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"the lab needs {', '.join(missing)}")
    folder = shared_cases.parent / "lab"
    lab: dict[str, Any] = (
        BRIDGED if name == "bridged" else json.loads((folder / "scenarios" / f"{name}.json").read_text())
    )
    lab = {
        **lab,
        "trace_flows": 0,
        "traffic": [{**each, "flows": min(each["flows"], FLOWS)} for each in lab["traffic"]],
    }
    lab["nat_rules"] = {}
    for node, (ruleset,) in materialise(cluster_of(lab)).rulesets.items():
        file = tmp_path / f"{node}.rules"
        file.write_text(restore_text(ruleset))
        lab["nat_rules"][node] = str(file)
    (tmp_path / "cluster.json").write_text(json.dumps(lab))
    command = [
        sys.executable,
        "-m",
        "kernel_lab",
        "run",
        str(tmp_path / "cluster.json"),
        "--out",
        str(tmp_path / "out"),
    ]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert told.returncode == 0, told.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["warnings"] == []  # nothing added to the rules, none refused
    assert len(summary["entries"]) >= 10
    for entry in summary["entries"]:
        assert_entry_is_as_simulated(lab, entry)
