"""Real `iptables-restore` takes the restore input, and real `iptables-save` prints what the printer prints."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import pytest
from controlplane.kube_proxy.clusters import NO_COUNTERS, clusters
from hypothesis import HealthCheck, given, settings

from simnet.controlplane.kube_proxy import RuleGenerator, restore_text
from simnet.model.iptables.printer import save_text
from simnet.model.iptables.ruleset import Family, Ruleset

BACKENDS = ("nft", "legacy")
COMMAND = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    for tool in ("unshare", "iptables-nft-restore", "iptables-legacy-restore"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this process may not make network namespaces")


def saved_after_restore(ruleset: Ruleset, backend: str) -> str:
    """Load the restore input into an empty network namespace and return what iptables-save prints, less comments."""
    command = f"{COMMAND[ruleset.family]}-{backend}"
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", f"{command}-restore && {command}-save"],
        input=restore_text(ruleset),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = (line for line in done.stdout.splitlines() if not line.startswith("#"))
    return "".join(_without_counters(line) + "\n" for line in lines)


def _without_counters(line: str) -> str:
    # The kernel counts its own packets in built-in chains from the first moment on.
    return line.rpartition(" ")[0] + " [0:0]" if line.startswith(":") else line


@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_cases_load_and_save_byte_for_byte(golden_cases, backend):
    for case in golden_cases:
        ruleset = _without_nfacct(case)
        assert saved_after_restore(ruleset, backend) == save_text(ruleset)


def _without_nfacct(case) -> Ruleset:
    objects = case.objects
    configuration = replace(case.configuration, host=NO_COUNTERS)
    generator = RuleGenerator(objects.services, objects.endpoint_slices, configuration, case.family)
    return generator.for_node(case.node)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cluster=clusters(host=NO_COUNTERS))
def test_random_clusters_load_and_save_byte_for_byte(backend, cluster):
    ruleset = cluster.rulesets()[0]
    assert saved_after_restore(ruleset, backend) == save_text(ruleset)
