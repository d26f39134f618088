"""The golden cases of kube-proxy's own tests as generators and nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simnet.config.documents import parse_documents
from simnet.config.manifests import objects_from
from simnet.controlplane.kube_proxy import ProxiedNode, RuleGenerator
from simnet.model.iptables.ruleset import Family, Ruleset
from simnet.model.kube_proxy import KubeProxyConfiguration, KubeProxyHost, KubeProxyIPTablesConfiguration
from simnet.model.kubernetes import Objects


class GoldenCase:
    """One case with its settings: `config` lists what differs from the file's `defaults`."""

    def __init__(self, case: dict[str, Any], defaults: dict[str, Any]) -> None:
        self.case = case
        self.settings = {**defaults, **case["config"]}
        settings = self.settings
        detector = settings["localDetector"]
        self.family = Family(settings["ipFamily"].lower())
        self.configuration = KubeProxyConfiguration(
            cluster_cidr="" if detector["mode"] == "none" else detector["cidr"],
            node_port_addresses=tuple(settings["nodePortAddresses"] or ()),
            iptables=KubeProxyIPTablesConfiguration(
                masquerade_all=settings["masqueradeAll"], localhost_node_ports=settings["localhostNodePorts"]
            ),
            host=KubeProxyHost(
                nfacct_counters=tuple(settings["nfacctCounters"]),
                random_fully=settings["randomFully"],
                conntrack_tcp_be_liberal=settings["conntrackTCPLiberal"],
            ),
        )
        self.node = ProxiedNode(
            settings["nodeName"],
            settings["nodeIP"],
            settings["nodeLabels"],
            tuple(address for interface in settings["interfaceAddresses"].values() for address in interface),
        )
        self.local_addresses = frozenset(settings["localAddresses"])

    @property
    def objects(self) -> Objects:
        """The case's manifests as model objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": self.case["objects"]}
        documents, problems = parse_documents(json.dumps(items).encode(), self.case["scenario"])
        return objects_from(documents, problems=problems)

    def ruleset(self) -> Ruleset:
        """The rules of the case's node."""
        objects = self.objects
        generator = RuleGenerator(objects.services, objects.endpoint_slices, self.configuration, self.family)
        return generator.for_node(self.node)


@pytest.fixture(scope="session")
def golden_cases(shared_cases: Path) -> list[GoldenCase]:
    """All cases of kube-proxy-cases.json."""
    content = json.loads((shared_cases / "kube-proxy-cases.json").read_text())
    return [GoldenCase(case, content["defaults"]) for case in content["cases"]]
