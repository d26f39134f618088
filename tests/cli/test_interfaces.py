"""`simnet interfaces`: veth pairs as `ip addr` shows them, and as a real kernel numbers them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from bird.namespaces import Namespaces
from click.testing import CliRunner, Result

from simnet.cli.interfaces import command
from simnet.cli.main import exit_code

SEED = Path(__file__).parent / "seed_cluster.yaml"


def interfaces(*args: str) -> Result:
    return CliRunner().invoke(command, [str(SEED), *args], catch_exceptions=False)


def test_a_node_shows_its_uplink_and_the_host_ends_of_its_pods() -> None:
    lines = interfaces("--node", "B").stdout.splitlines()
    assert lines[6].startswith("2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500")
    assert lines[8] == "    inet 10.0.0.12/24 brd 10.0.0.255 scope global eth0"
    assert lines[10:] == [
        "3: cali0d7763386da@if3: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP"
        " group default qlen 1000",
        "    link/ether ee:ee:ee:ee:ee:ee brd ff:ff:ff:ff:ff:ff link-netnsid 0",
        "# veth pairs:",
        "#   3: cali0d7763386da@if3 is pod default/web-0's 3: eth0@if3",
    ]


def test_a_pod_shows_its_address_the_index_of_its_other_end_and_its_gateway() -> None:
    lines = interfaces("--pod", "nginx").stdout.splitlines()
    assert lines[6].startswith("3: eth0@if3: ")
    assert lines[8:] == [
        "    inet 192.168.10.5/32 scope global eth0",
        "       valid_lft forever preferred_lft forever",
        "# eth0@if3 is 3: calic440f455693@if3 of node A",
        "# ip route:",
        "#   default via 169.254.1.1 dev eth0",
        "#   169.254.1.1 dev eth0 scope link",
        "# 169.254.1.1 answers with ee:ee:ee:ee:ee:ee",
    ]


def test_both_ends_of_every_pair_name_each_other(tmp_path: Path) -> None:
    file = tmp_path / "deployment.yaml"
    file.write_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n"
        "spec: {replicas: 11, selector: {matchLabels: {a: b}},"
        " template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c}]}}}\n"
    )

    def told(*args: str) -> list[dict[str, object]]:
        text = CliRunner().invoke(command, [str(file), *args, "--json"], catch_exceptions=False).stdout
        return json.loads(text)["interfaces"]

    seen = 0
    for node in ("node-1", "node-2", "node-3"):
        host_ends = [each for each in told("--node", node) if each["peer"]]
        assert len({each["ifindex"] for each in host_ends}) == len(host_ends)
        for end in host_ends:
            eth0 = told("--pod", str(end["peer"]))[-1]
            assert (eth0["linkIndex"], eth0["peer"]) == (end["ifindex"], node)
            assert end["linkIndex"] == eth0["ifindex"]
            assert end["address"] == "ee:ee:ee:ee:ee:ee"
            seen += 1
    assert seen == 11


def test_a_pod_on_its_hosts_network_is_refused_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["interfaces", str(SEED), "--pod", "default/agent"]) == 2
    assert "ask for --node B, whose interfaces it has" in capsys.readouterr().err


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("ip"), reason="needs iproute2")
def test_a_real_kernel_shows_a_pods_veth_in_the_same_words() -> None:
    """The pair is made in the pod's namespace and its host end moved out, as Calico's CNI plugin does."""
    with Namespaces() as net:
        try:
            net.add("host")
            net.add("pod")
        except (RuntimeError, OSError) as error:
            pytest.skip(f"this process may not make network namespaces: {error}")
        name = "calic440f455693"
        net.ip("host", ["link add eth0 type bridge"])  # takes index 2
        net.ip("pod", [f"link add eth0 type veth peer name {name}", f"link set {name} netns {net.name('host')}"])
        net.ip("host", [f"link set {name} up", f"link set {name} address ee:ee:ee:ee:ee:ee"])
        net.ip("pod", ["link set eth0 up", "addr add 192.168.10.5/32 dev eth0"])
        net.ip("pod", ["route add 169.254.1.1 dev eth0 scope link", "route add default via 169.254.1.1"])
        pod = subprocess.run(["ip", "-n", net.name("pod"), "addr"], capture_output=True, text=True, check=True).stdout
        host = subprocess.run(["ip", "-n", net.name("host"), "addr"], capture_output=True, text=True, check=True).stdout
        table = [line.rstrip() for line in net.routes("pod").splitlines()]

    def plain(text: str, first: str) -> list[str]:
        """The lines from an interface on, without MAC addresses and the name that `ip netns` gave a namespace."""
        lines = [re.sub(r" link-netns.*", "", line).rstrip() for line in text.splitlines()]
        start = next(i for i, line in enumerate(lines) if f": {first}@" in line)
        kept = [line for line in lines[start:] if not line.startswith("#")]
        return [re.sub(r"ether (?!ee:ee)[0-9a-f:]+", "ether MAC", line) for line in kept]

    mine = interfaces("--pod", "nginx").stdout
    assert plain(pod, "eth0") == plain(mine, "eth0")
    assert plain(host, name) == plain(interfaces("--node", "A").stdout, name)
    assert table == [line.removeprefix("#   ") for line in mine.splitlines() if line.startswith("#   ")]


@pytest.mark.parametrize(
    ("mode", "lines"),
    [
        (
            "ipipMode",
            [
                "3: tunl0@NONE: <NOARP,UP,LOWER_UP> mtu 1480 qdisc noqueue state UNKNOWN group default qlen 1000",
                "    link/ipip 0.0.0.0 brd 0.0.0.0",
                "    inet 10.244.179.0/32 scope global tunl0",
            ],
        ),
        (
            "vxlanMode",
            [
                "3: vxlan.calico: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue state UNKNOWN"
                " group default qlen 1000",
                None,
                "    inet 10.244.179.0/32 scope global vxlan.calico",
            ],
        ),
    ],
)
def test_a_node_shows_its_tunnel_and_everyones_mtu(tmp_path: Path, mode: str, lines: list[str | None]) -> None:
    file = tmp_path / "cluster.yaml"
    pod = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: d}, spec: {nodeName: A, containers: [{name: c}]}}"
    file.write_text(
        "schema: simnet/v1\nnodes: [{name: A, address: 10.0.0.11}, {name: B, address: 10.0.0.12}]\n"
        f"calico: {{ipPool: 10.244.0.0/16, {mode}: Always}}\nobjects:\n  - {pod}\n"
    )
    shown = CliRunner().invoke(command, [str(file), "--node", "A"], catch_exceptions=False).stdout.splitlines()
    assert [line for line, wanted in zip(shown[10:13], lines, strict=True) if wanted is not None] == [
        wanted for wanted in lines if wanted is not None
    ]
    assert f"mtu {1480 if mode == 'ipipMode' else 1450}" in shown[14]
    assert "mtu 1500" in shown[6]
