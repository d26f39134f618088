"""Every real manifest and dump that loads can be materialised, compiled and called, as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from simnet.config.cluster_file import load_cluster_spec
from simnet.engine.network import PROTOCOL_NUMBERS
from simnet.engine.simulate import prepare, simulate
from simnet.errors import InputError, Problem
from simnet.model.kubernetes import Service, ServicePort
from simnet.model.scenario import ClusterSpec, Entry, RunSpec, Scenario, Variant
from simnet.model.workload import ClientOrigin, ClientPopulation, Constant, Deterministic, FlowShape, Workload

DATA = Path(__file__).parents[1] / "data" / "manifests"
REFUSED = {  # for the reasons that tests/config asserts word for word
    "istio-analyzers-several-services--deployment-multi-service.yaml",
    "kubeconform--duplicate_property.yaml",
    "troubleshoot-broken--multidoc-spec-with-invalids.yaml",
}


def _entries(service: Service, port: ServicePort) -> list[Entry]:
    """The ways in which a service port of the materialised cluster can be called."""
    callable_ip = service.type != "ExternalName" and service.cluster_ip not in ("", "None")
    found = [Entry.CLUSTER_IP] if callable_ip else []
    found += [Entry.NODE_PORT] if callable_ip and port.node_port else []
    found += [Entry.EXTERNAL_IP] if callable_ip and service.external_ips else []
    found += [Entry.LOAD_BALANCER_IP] if any(each.ip for each in service.load_balancer_ingress) else []
    return found


def _scenario(spec: ClusterSpec, service: str, port: ServicePort | None, entry: Entry) -> Scenario:
    shape = FlowShape(Constant(2), Constant(500), Constant(1_000), Constant(100))
    protocol = PROTOCOL_NUMBERS[port.protocol] if port else 6
    workload = Workload(Deterministic(1000.0), ClientPopulation(3, ClientOrigin.NODES), shape, protocol)
    variant = Variant("real", entry, service, port=(port.name or port.port) if port else None)
    return Scenario(spec, workload, variant, RunSpec(duration_ps=20_000_000_000))


def _simulate_all_of(path: Path) -> int:
    """Call every port of every service of an input at every entry that it has; return how many calls were simulated."""
    spec = load_cluster_spec(path)
    calls = 0
    compiled = prepare(_scenario(spec, "", None, Entry.CLUSTER_IP), seed=1)
    for service in compiled.cluster.services:
        for port in service.ports:
            for entry in _entries(service, port):
                scenario = _scenario(spec, f"{service.namespace}/{service.name}", port, entry)
                totals = simulate(scenario, seed=1, compiled=compiled).totals
                assert totals["sent"] == 40
                assert totals["delivered"] + totals["dropped"] + totals["rejected"] + totals["lost"] == 40
                calls += 1
    return calls


def _inputs(folder: Path) -> list[Path]:
    found = []
    for kind in ("manifests", "dumps"):
        for path in sorted((folder / kind).iterdir()):
            found.append(path)
            if path.is_dir():
                found += sorted(each for each in path.rglob("*") if each.is_file())
    return found


def test_every_real_manifest_and_dump_that_loads_is_simulated(shared_cases: Path) -> None:
    loaded, calls = 0, 0
    refused: list[Problem] = []
    for path in _inputs(shared_cases / "real"):
        try:
            calls += _simulate_all_of(path)
            loaded += 1
        except InputError as error:
            refused += error.problems
    assert all(problem.found and problem.fix and problem.where.file for problem in refused)
    assert loaded >= 68  # the others are refused; tests/config says which, and why
    assert calls > 150


@pytest.mark.parametrize(
    "name", sorted(path.name for path in DATA.iterdir() if path.suffix in (".yaml", ".yml", ".json"))
)
def test_the_manifests_kept_here_run_too(name: str) -> None:
    if name in REFUSED:
        with pytest.raises(InputError):
            load_cluster_spec(DATA / name)
    else:
        _simulate_all_of(DATA / name)  # asserts that no packet is lost from the books
