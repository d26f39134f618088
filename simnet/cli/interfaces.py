"""`simnet interfaces`: a node's or a pod's interfaces as `ip addr` prints them, veth pairs by index."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from simnet.cli.boxes import load, named
from simnet.errors import InputError, Position, Problem

if TYPE_CHECKING:
    from simnet.controlplane.calico.interfaces import Interface
    from simnet.model.cluster import Cluster


@click.command(name="interfaces", short_help="A node's or a pod's interfaces, as `ip addr` shows them.")
@click.argument("file", metavar="FILE")
@click.option("--node", metavar="NODE", help="A node's interfaces.")
@click.option("--pod", metavar="NAMESPACE/NAME", help="A pod's interfaces; without a namespace: of default.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of the text of `ip addr`.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="Of random placement.")
def command(file: str, node: str | None, pod: str | None, as_json: bool, seed: int) -> None:
    """Print the interfaces of a node or pod as `ip addr` does.

    FILE is an experiment, a cluster file, or a folder or file of Kubernetes manifests. A veth names the index of its
    other end: `eth0@if13` in a pod is interface 13 of its node. Lines that begin with # tell whose the other end is.
    """
    from simnet.controlplane.calico.interfaces import (
        CALICO_MAC,
        GATEWAYS,
        addr_lines,
        node_interfaces,
        pod_interfaces,
        pod_route_lines,
    )
    from simnet.engine.route_view import boxes
    from simnet.model.fabric import DeviceKind

    if (node is None) == (pod is None):
        raise click.UsageError("give --node NODE or --pod NAMESPACE/NAME")
    cluster, _ = load(file, seed)
    if node is not None:
        name = named(node, "--node", "node", boxes(cluster, DeviceKind.NODE))
        interfaces = node_interfaces(cluster.fabric, name)
        notes = [
            f"#   {each.index}: {each.name}@if{each.peer_index} is pod {each.peer}'s "
            f"{each.peer_index}: eth0@if{each.index}"
            for each in interfaces
            if each.peer_index is not None
        ]
        notes = ["# veth pairs:", *notes] if notes else []
        routes: list[str] = []
    else:
        name = _pod(cluster, pod or "")
        interfaces = pod_interfaces(cluster.fabric, name)
        eth0 = interfaces[-1]
        host = next(each for each in cluster.fabric.pods if each.pod == name)
        routes = list(pod_route_lines(cluster.fabric, name))
        notes = [
            f"# eth0@if{eth0.peer_index} is {eth0.peer_index}: {host.interface}@if{eth0.index} of node {host.node}",
            "# ip route:",
            *(f"#   {line}" for line in routes),
            *(f"# {GATEWAYS[family]} answers with {CALICO_MAC}" for family in _families(host.addresses)),
        ]
    if as_json:
        told = {"name": name, "interfaces": [_as_json(each) for each in interfaces], "routes": routes}
        click.echo(json.dumps(told, indent=1))
        return
    click.echo("\n".join([*addr_lines(interfaces), *notes]))


def _families(addresses: tuple[str, ...]) -> list[int]:
    return sorted({6 if ":" in address else 4 for address in addresses})


def _pod(cluster: Cluster, name: str) -> str:
    key = name if "/" in name else f"default/{name}"
    found = named(key, "--pod", "pod", (pod.key for pod in cluster.pods))
    pod = next(pod for pod in cluster.pods if pod.key == found)
    if pod.host_network:
        fix = f"ask for --node {pod.node}, whose interfaces it has"
        raise InputError(
            [
                Problem(
                    Position("command line"), "--pod", f"{found}, on the network of its host", "a pod with a veth", fix
                )
            ]
        )
    return found


def _as_json(interface: Interface) -> dict[str, Any]:
    return {
        "ifindex": interface.index,
        "ifname": interface.name,
        "address": interface.mac,
        "mtu": interface.mtu if interface.mac else 65536,
        "linkIndex": interface.peer_index,
        "peer": interface.peer or None,
        "addresses": [
            {"local": held.address, "prefixlen": held.length, "peer": held.peer} for held in interface.addresses
        ],
    }
