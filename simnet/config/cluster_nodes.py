"""`cluster.nodes` and `cluster.placement`: which nodes there are, and which of them replicas go to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import replace

from simnet.config.documents import FieldPath
from simnet.config.experiment_models import ClusterModel, NodeModel, NodesModel
from simnet.config.file_problems import read_model
from simnet.config.kubernetes_fields import parse_ip
from simnet.config.kubernetes_source import describe
from simnet.config.reading import Reading
from simnet.config.saved_rules import saved_rules_of
from simnet.model.iptables.ruleset import Family
from simnet.model.kubernetes import ZONE_LABEL
from simnet.model.scenario import ClusterSpec, NodeSpec, Placement


def nodes_of(model: ClusterModel, reading: Reading, path: FieldPath) -> tuple[NodeSpec, ...]:
    """Return the nodes of `nodes:`; none where the key is left out, or something is wrong."""
    if model.nodes is None:
        return ()
    if isinstance(model.nodes, dict):
        short = read_model(NodesModel, model.nodes, reading.document, path, reading.problems)
        return () if short is None else _nodes_in_short(short, reading, path)
    if not isinstance(model.nodes, list) or not model.nodes:
        reading.refuse(path, describe(model.nodes), "{count: N, ...}, or a list of nodes", "write nodes: {count: 4}")
        return ()
    nodes: list[NodeSpec] = []
    for index, item in enumerate(model.nodes):
        entry = read_model(NodeModel, item, reading.document, (*path, index), reading.problems)
        if entry is not None:
            nodes.append(_node(entry, reading, (*path, index)))
    for name in {node.name for node in nodes if sum(other.name == node.name for other in nodes) > 1}:
        reading.refuse(path, f"two nodes named {name}", "a name of its own for every node", "rename one")
    return tuple(_with_addresses(nodes))


def _with_addresses(nodes: Iterable[NodeSpec]) -> Iterable[NodeSpec]:
    nodes = list(nodes)
    taken = {address for node in nodes for address in node.addresses}
    number = int(ipaddress.ip_address("192.168.64.57"))
    for node in nodes:
        if node.addresses:
            yield node
            continue
        while str(ipaddress.ip_address(number)) in taken:
            number += 1
        taken.add(str(ipaddress.ip_address(number)))
        yield replace(node, addresses=(str(ipaddress.ip_address(number)),))


def _nodes_in_short(short: NodesModel, reading: Reading, path: FieldPath) -> tuple[NodeSpec, ...]:
    address, _, length = short.address.partition("/")
    try:
        first = ipaddress.ip_address(parse_ip(address))
        network = ipaddress.ip_network(f"{first}/{length or 24}", strict=False)
    except ValueError:
        reading.refuse(
            (*path, "address"),
            describe(short.address),
            "the first node's address with the length of its subnet",
            "for example 192.168.64.57/24",
        )
        return ()
    last = int(network.broadcast_address) - (first.version == 4)
    if int(first) + short.count - 1 > last:
        room = last - int(first) + 1
        reading.refuse(
            (*path, "count"),
            f"{short.count} nodes from {first} on",
            f"at most {room} nodes, so that all lie in {network}",
            "start lower, or give a larger subnet, for example 10.0.0.1/16",
        )
        return ()
    return tuple(
        NodeSpec(
            name=f"{short.name}-{number + 1}",
            addresses=(str(first + number),),
            labels={ZONE_LABEL: short.zones[number % len(short.zones)]} if short.zones else {},
            cpus=short.cpus,
            as_number=short.as_numbers[number % len(short.as_numbers)] if short.as_numbers else None,
            rp_filter=short.rp_filter,
        )
        for number in range(short.count)
    )


def _node(entry: NodeModel, reading: Reading, path: FieldPath) -> NodeSpec:
    labels = dict(entry.labels)
    if entry.zone:
        labels[ZONE_LABEL] = entry.zone
    addresses = ((entry.address,) if entry.address else ()) + tuple(entry.addresses)
    saved = saved_rules_of(entry.iptables, reading, (*path, "iptables"))
    needed = {Family.IPV6 if ":" in address else Family.IPV4 for address in addresses} or {Family.IPV4}
    for family in needed - {each.family for each in saved} if saved else ():
        program = "ip6tables-save" if family is Family.IPV6 else "iptables-save"
        reading.warn(
            (*path, "iptables"),
            f"no {family.value} rules, on node {entry.name} with an {family.value} address",
            "a file a family",
            f"nothing, if its {family.value} rules are to be generated; else name a file of {program}, too",
        )
    return NodeSpec(
        name=entry.name,
        addresses=addresses,
        labels=labels,
        cpus=entry.cpus,
        pod_cidrs=tuple(entry.pod_cidrs),
        as_number=entry.as_number,
        route_reflector_cluster_id=entry.route_reflector_cluster_id or "",
        saved_rules=saved,
        switch=entry.switch,
        rp_filter=entry.rp_filter,
    )


def placement_of(value: object, reading: Reading, path: FieldPath) -> tuple[Placement, Mapping[str, Mapping[str, int]]]:
    """Return how replicas are placed, and the counts per workload and node where they are given."""
    words = [word.value for word in Placement if word is not Placement.EXPLICIT]
    if value in words:
        return Placement(value), {}
    if isinstance(value, dict):
        counts = value.get("explicit", value)
        if isinstance(counts, dict) and all(
            isinstance(nodes, dict) and all(type(count) is int and count >= 0 for count in nodes.values())
            for nodes in counts.values()
        ):
            return Placement.EXPLICIT, counts
    reading.refuse(
        path,
        describe(value),
        f"{', '.join(words)}, or explicit counts",
        "for example {explicit: {nginx-demo-1: {node-1: 2, node-2: 1}}}",
    )
    return Placement.SPREAD, {}


def check_placement(spec: ClusterSpec, reading: Reading, path: FieldPath) -> None:
    """Report workloads and nodes of an explicit placement that do not exist."""
    names = {node.name for node in spec.nodes} or {node.name for node in spec.objects.nodes}
    workloads = {each.name for each in spec.objects.workloads}
    workloads |= {f"{each.namespace}/{each.name}" for each in spec.objects.workloads}
    for workload, counts in spec.explicit_placement.items():
        if workload not in workloads:
            reading.refuse(
                path, f"the workload {workload}", f"one of {', '.join(sorted(workloads)) or 'none'}", "correct the name"
            )
        for node in counts:
            if names and node not in names:
                reading.refuse(path, f"the node {node}", f"one of {_some(sorted(names))}", "correct the name")


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
