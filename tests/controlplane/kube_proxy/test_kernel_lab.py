"""The rules that a kernel held in the lab's two scenarios.

The lab's own writer of rules differs in what these tests leave out: it makes no canary chains, no table mangle, no
jump of KUBE-FIREWALL at the head, no nfacct matches, and visits Services in the order of the scenario. Where a Service
of policy Local has no endpoint on the node, it jumps into an empty chain and words its DROP rules for node ports in
another order. Every chain of nat and filter that kube-proxy fills is compared.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from simnet.controlplane.kube_proxy import ProxiedNode, RuleGenerator
from simnet.model.iptables.printer import save_text
from simnet.model.iptables.ruleset import Family
from simnet.model.kube_proxy import KubeProxyConfiguration, KubeProxyHost
from simnet.model.kubernetes import Endpoint, EndpointPort, EndpointSlice, Service, ServicePort


@pytest.mark.parametrize("scenario", ["seed", "hairpin"])
def test_each_nodes_chains_are_those_that_the_kernel_held(shared_cases: Path, scenario: str):
    described = json.loads((shared_cases.parent / "lab" / "scenarios" / f"{scenario}.json").read_text())
    dumps = re.split(r"^#{8} (.*)\n", (shared_cases / "kernel" / scenario / "counters.txt").read_text(), flags=re.M)
    held = dict(zip(dumps[1::2], dumps[2::2], strict=True))
    generator = RuleGenerator(
        *objects_of(described),
        KubeProxyConfiguration(
            cluster_cidr=described["cluster_cidr"],
            host=KubeProxyHost(nfacct_counters=(), random_fully=True),
            kubernetes="1.33",
        ),
        Family.IPV4,
    )
    assert described["workers"]
    for worker in described["workers"]:
        address = worker["ip"].partition("/")[0]
        rules = generator.for_node(ProxiedNode(worker["name"], address, {}, (address,)))
        expected = own_rules(held[f"{worker['name']} before"])
        assert own_rules(save_text(rules)) == expected
        assert len(expected) > 20


def own_rules(text: str) -> dict[tuple[str, str], list[str]]:
    """Rules by table and chain, of the chains that kube-proxy fills; counters dropped, an empty chain is no chain."""
    table, rules = "", {}
    for line in text.splitlines():
        line = re.sub(r"^\[\d+:\d+\] ", "", line)
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A KUBE-"):
            rules.setdefault((table, line.split()[1]), []).append(line)
    held = {chain for _, chain in rules}
    for (table, chain), lines in rules.items():
        rules[table, chain] = [line for line in lines if not is_jump_into_an_empty_chain(line, held)]
    refused = rules.get(("filter", "KUBE-EXTERNAL-SERVICES"), [])
    refused[:] = [" ".join(re.findall(r"-[dpj] \S+|--dport \d+|--dst-type LOCAL", line)) for line in refused]
    for chain in ("KUBE-SERVICES", "KUBE-NODEPORTS"):  # Services come in any order, the rules of each in their own
        if ("nat", chain) in rules:
            rules["nat", chain].sort(key=service_of)
    return rules


def is_jump_into_an_empty_chain(line: str, held: set[str]) -> bool:
    target = line.rpartition(" -j ")[2]
    return target.startswith("KUBE-SVL-") and target not in held


def service_of(line: str) -> tuple[bool, str]:
    """Sort key: the Service of a rule's comment, the rule that must be the last one last."""
    comment = line.split('--comment "')[1]
    return (comment.startswith("kubernetes service nodeports"), re.split("[: ]", comment)[0])


def objects_of(described: dict) -> tuple[list[Service], list[EndpointSlice]]:
    pods = {pod["name"]: pod for pod in described["pods"]}
    services, slices = [], []
    for given in described["services"]:
        ports = given["ports"]
        services.append(
            Service(
                given.get("namespace", "default"),
                given["name"],
                type=given.get("type", "ClusterIP"),
                cluster_ip=given["clusterIP"],
                ports=tuple(
                    ServicePort(
                        port.get("name", ""), port.get("protocol", "TCP"), port["port"], port["targetPort"],
                        port.get("nodePort", 0),
                    )
                    for port in ports
                ),
                external_ips=tuple(given.get("externalIPs", ())),
                external_traffic_policy=given.get("externalTrafficPolicy", "Cluster"),
                session_affinity=given.get("sessionAffinity", "None"),
                session_affinity_timeout_seconds=given.get("affinityTimeoutSeconds", 10800),
            )
        )  # fmt: skip
        slices.append(
            EndpointSlice(
                given.get("namespace", "default"),
                f"{given['name']}-1",
                given["name"],
                "IPv4",
                tuple(Endpoint((pods[pod]["ip"],), node_name=pods[pod]["node"]) for pod in given["endpoints"]),
                tuple(
                    EndpointPort(port.get("name", ""), port.get("protocol", "TCP"), port["targetPort"])
                    for port in ports
                ),
            )
        )
    return services, slices
