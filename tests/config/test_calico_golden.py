"""What a node tells of services, against the static routes that Calico's own confd wrote for the same resources."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simnet.config.cluster_file import cluster_spec_of_objects
from simnet.config.manifests import load_objects
from simnet.controlplane.calico.advertisement import service_advertisements
from simnet.engine.materialise import advertised_services, placed_objects

BLOCKS_OF_THE_TEST_RIG = ("10.0.0.0/30", "10.1.0.0/24", "192.168.221.192/26", "192.168.221.64/26")  # not in the inputs


@pytest.mark.parametrize(("case", "count"), [("static-routes", 5), ("static-routes-exclude-node", 0)])
def test_a_node_tells_of_the_service_prefixes_that_confd_rendered(shared_cases: Path, case: str, count: int) -> None:
    """Both families; an IPv6 Service with IPv4 endpoints only is not told, and an excluded node tells nothing."""
    real = shared_cases / "real" / "calico" / "confd-static-routes"
    inputs = real / "mock_data" / "calicoctl" / "mesh" / case
    rendered = real / "compiled_templates" / "mesh" / case
    golden = {
        prefix
        for file in rendered.glob("bird*_aggr.cfg")
        for prefix in re.findall(r"route (\S+) blackhole;", file.read_text())
    } - set(BLOCKS_OF_THE_TEST_RIG)
    spec = cluster_spec_of_objects(load_objects([inputs / "input.yaml", inputs / "kubectl-input.yaml"]))
    placed = placed_objects(spec)
    services = advertised_services(placed.services, placed.endpoint_slices)
    told = service_advertisements(services, placed.nodes, spec.calico)
    assert {str(each.prefix) for each in told if "kube-master" in each.nodes} == golden
    assert len(golden) == count
