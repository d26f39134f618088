"""Which nodes a cluster has, with their addresses, labels, AS numbers and part in BGP."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import replace

from simnet.model.calico import CalicoNode
from simnet.model.cluster import ClusterNode
from simnet.model.kubernetes import ZONE_LABEL, Objects
from simnet.model.scenario import ClusterSpec, NodeSpec

DEFAULT_NODE_COUNT = 3


def cluster_nodes(spec: ClusterSpec) -> tuple[ClusterNode, ...]:
    """Return the nodes: those of the short form, else the Node objects, else those that pods and slices name."""
    reflectors, cluster_id = spec.calico.route_reflectors, spec.calico.route_reflector_cluster_id
    return tuple(
        replace(node, route_reflector_cluster_id=cluster_id) if node.name in reflectors else node
        for node in _nodes(spec)
    )


def _nodes(spec: ClusterSpec) -> tuple[ClusterNode, ...]:
    noted = {node.name: node for node in spec.calico_nodes}
    if spec.nodes:
        return tuple(_from_short_form(node, spec, noted.get(node.name)) for node in spec.nodes)
    objects = spec.objects
    known: dict[str, ClusterNode] = {}
    for node in objects.nodes:
        labels = dict(node.labels)
        if node.zone:
            labels.setdefault(ZONE_LABEL, node.zone)
        known[node.name] = ClusterNode(
            name=node.name,
            addresses=node.internal_ips or tuple(address for kind, address in node.addresses if _is_ip(address)),
            labels=_labels(node.name, labels),
            pod_cidrs=node.pod_cidrs,
            cpus=max(1, int(node.cpus or 4)),
            as_number=spec.calico.as_number,
        )
    if not known:
        for each in spec.calico_nodes:
            known[each.name] = ClusterNode(
                each.name, (), _labels(each.name, dict(each.labels)), as_number=spec.calico.as_number
            )
    known = {name: _as_calico_notes(node, noted.get(name)) for name, node in known.items()}
    if not known:
        for name, address in _named_nodes(objects):
            held = known.get(name)
            addresses = (address,) if address and not (held and held.addresses) else (held.addresses if held else ())
            known[name] = ClusterNode(name, addresses, _labels(name, {}), as_number=spec.calico.as_number)
    if not known:
        names = [f"node-{number}" for number in range(1, DEFAULT_NODE_COUNT + 1)]
        known = {name: ClusterNode(name, (), _labels(name, {}), as_number=spec.calico.as_number) for name in names}
    for first in spec.first_node_addresses:
        known = {node.name: node for node in _with_addresses(known.values(), first)}
    return tuple(known.values())


def _as_calico_notes(node: ClusterNode, noted: CalicoNode | None) -> ClusterNode:
    """Give a node the AS number and, first, the addresses that Calico noted of it."""
    if noted is None:
        return node
    return replace(
        node,
        addresses=tuple(dict.fromkeys((*noted.addresses, *node.addresses))),
        labels={**node.labels, **dict(noted.labels)},
        as_number=noted.as_number or node.as_number,
        route_reflector_cluster_id=noted.route_reflector_cluster_id,
    )


def _from_short_form(node: NodeSpec, spec: ClusterSpec, noted: CalicoNode | None) -> ClusterNode:
    return ClusterNode(
        name=node.name,
        addresses=node.addresses,
        labels=_labels(node.name, {**(dict(noted.labels) if noted else {}), **node.labels}),
        pod_cidrs=node.pod_cidrs,
        cpus=node.cpus,
        as_number=node.as_number or (noted.as_number if noted else None) or spec.calico.as_number,
        route_reflector_cluster_id=node.route_reflector_cluster_id
        or (noted.route_reflector_cluster_id if noted else ""),
        rp_filter=node.rp_filter,
    )


def _labels(name: str, given: Mapping[str, str]) -> dict[str, str]:
    """The labels that every kubelet sets, then the given ones."""
    return {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        **given,
    }


def _named_nodes(objects: Objects) -> Iterable[tuple[str, str]]:
    for pod in objects.pods:
        if pod.node_name:
            yield pod.node_name, pod.host_ip
    for each in objects.endpoint_slices:
        for endpoint in each.endpoints:
            if endpoint.node_name:
                yield endpoint.node_name, ""


def _with_addresses(nodes: Iterable[ClusterNode], first: str) -> Iterable[ClusterNode]:
    """Give every node without an address of the family of `first` the next free one, counting up from there."""
    nodes = list(nodes)
    taken = {address for node in nodes for address in node.addresses}
    number = int(ipaddress.ip_address(first))
    for node in nodes:
        if any((":" in address) == (":" in first) for address in node.addresses):
            yield node
            continue
        while str(ipaddress.ip_address(number)) in taken:
            number += 1
        address = str(ipaddress.ip_address(number))
        taken.add(address)
        yield replace(node, addresses=(*node.addresses, address))


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
