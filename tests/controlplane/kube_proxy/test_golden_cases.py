"""kube-proxy's own tests: every flow and every dump, exactly.

The cases are facts taken from kubernetes/kubernetes pkg/proxy/iptables/proxier_test.go (Apache-2.0).
"""

from __future__ import annotations

from reference.kube_proxy import Walk

from simnet.controlplane.kube_proxy import restore_text
from simnet.model.iptables.printer import save_text


def test_every_flow_reaches_the_endpoints_that_kube_proxys_tests_expect(golden_cases):
    checked = 0
    for case in golden_cases:
        ruleset = case.ruleset()
        for flow in case.case["flows"]:
            walk = Walk(
                ruleset,
                case.local_addresses,
                flow["source"],
                (flow.get("protocol") or "TCP").lower(),
                flow["dest"],
                flow["port"],
            )
            outputs, is_masqueraded = walk.run()
            expected = flow["expect"].get("endpoints") or [flow["expect"]["verdict"]]
            assert sorted(outputs) == sorted(expected), (case.case["scenario"], flow["name"])
            assert is_masqueraded == flow["masq"], (case.case["scenario"], flow["name"])
            checked += 1
    assert checked >= 40


def test_the_restore_input_is_the_one_that_kube_proxys_tests_expect(golden_cases):
    dumps = [case for case in golden_cases if "dump" in case.case]
    assert dumps
    for case in dumps:
        sections = _sections(restore_text(case.ruleset()).replace("0x00004000", "0x4000"))
        dump = case.case["dump"]
        for table, expected in dump["expected"].items():
            assert [line for line in sections[table] if line.startswith("-A KUBE-")] == expected
            chains = [line.split()[0][1:] for line in sections[table] if line.startswith(":")]
            assert [chain for chain in chains if chain != "KUBE-PROXY-CANARY"] == dump["expected_chains"][table]


def test_the_saved_text_is_the_one_that_a_kernel_printed(golden_cases):
    for case in golden_cases:
        for table, expected in case.case.get("dump", {}).get("iptables_save", {}).items():
            lines = _sections(save_text(case.ruleset()))[table]
            assert [line for line in lines if line.startswith("-A")] == expected["rules"]
            assert [line.split()[0][1:] for line in lines if line.startswith(":")] == expected["chains"]


def _sections(text: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("*"):
            lines = sections.setdefault(line[1:], [])
        else:
            lines.append(line)
    return sections
