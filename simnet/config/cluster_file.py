"""What stands under `cluster:`, in a file of its own or in an experiment, as a ClusterSpec.

Also reads a bare folder or file of manifests: then everything else has its default.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from simnet.config.documents import Document, FieldPath, gather_documents
from simnet.config.experiment_models import (
    ClusterFileModel,
    ClusterModel,
    KubeProxyModel,
    NodeModel,
    NodesModel,
)
from simnet.config.file_problems import problem_at, read_model
from simnet.config.kubernetes_fields import parse_cidr, parse_ip
from simnet.config.kubernetes_source import describe
from simnet.config.manifests import objects_from
from simnet.errors import InputError, Problem
from simnet.model.calico import CalicoSettings, FabricMode, FabricSettings, Wiring
from simnet.model.kube_proxy import (
    DetectLocalConfiguration,
    DetectLocalMode,
    KubeProxyConfiguration,
    KubeProxyHost,
    KubeProxyIPTablesConfiguration,
)
from simnet.model.kubernetes import ZONE_LABEL, Objects
from simnet.model.scenario import ClusterSpec, NodeSpec, Placement

DEFAULT_IP_POOL = "10.217.0.0/16"
DEFAULT_IPV6_POOL = "fd00:10:217::/48"
DEFAULT_SERVICE_CIDR = "10.96.0.0/12"
DEFAULT_IPV6_SERVICE_CIDR = "fd00:10:96::/108"
MAX_NODES = 10_000


@dataclass(slots=True)
class Reading:
    """One file while it is read: where relative names start, objects already loaded, and what is wrong so far."""

    document: Document
    problems: list[Problem]
    warnings: list[Problem] = field(default_factory=list)
    objects: dict[str, Objects] = field(default_factory=dict)  # by the text of `objects:`, shared by sweep points

    @property
    def folder(self) -> Path:
        """What relative paths in the file start from."""
        return Path(self.document.file).parent

    def refuse(self, path: FieldPath, found: str, expected: str, fix: str) -> None:
        """Report what is wrong at a path of the file."""
        self.problems.append(problem_at(self.document, path, found, expected, fix))


def load_cluster_spec(path: str | os.PathLike[str], *, stdin: BinaryIO | None = None) -> ClusterSpec:
    """Return the cluster of an experiment, a cluster file, or a folder or file of manifests.

    Raises InputError with every mistake.
    """
    documents, problems = gather_documents([path], stdin=stdin)
    if len(documents) == 1 and isinstance(documents[0].data, dict) and "kind" not in documents[0].data:
        document = documents[0]
        data = document.data
        assert isinstance(data, dict)
        reading = Reading(document, problems)
        if "cluster" in data:
            version = data.get("kubernetes", "1.33")
            model = read_model(ClusterModel, data["cluster"], document, ("cluster",), problems)
            if model is not None and not problems:
                return _finish(cluster_spec(model, str(version), reading, ("cluster",)), reading)
        elif data.keys() & {field.alias or name for name, field in ClusterFileModel.model_fields.items()}:
            file_model = read_model(ClusterFileModel, data, document, (), problems)
            if file_model is not None and not problems:
                return _finish(cluster_spec(file_model, file_model.kubernetes, reading, ()), reading)
        if problems:
            raise InputError(problems)
    return cluster_spec_of_objects(objects_from(documents, problems=problems))


def cluster_spec_of_objects(objects: Objects) -> ClusterSpec:
    """Return the cluster that bare manifests or a dump describe; all else by default."""
    pools = _pools_of_dump(objects)
    is_dual = any(
        "IPv6" in (service.ip_families or ()) or service.ip_family_policy == "RequireDualStack"
        for service in objects.services
    )
    if is_dual and not any(":" in pool for pool in pools):
        pools = (*pools, DEFAULT_IPV6_POOL)
    return ClusterSpec(
        objects=objects,
        nodes=(),
        kube_proxy=KubeProxyConfiguration(cluster_cidr=",".join(pools)),
        calico=CalicoSettings(ip_pools=pools),
        fabric=FabricSettings(),
        service_cidrs=(DEFAULT_SERVICE_CIDR, DEFAULT_IPV6_SERVICE_CIDR) if is_dual else (DEFAULT_SERVICE_CIDR,),
        first_node_addresses=("192.168.64.57", "fd00:192:168:64::57") if is_dual else ("192.168.64.57",),
    )


def _pools_of_dump(objects: Objects) -> tuple[str, ...]:
    """The pool that pods of a dump live in: Calico's own word for it, or the /16 (/48) around their addresses."""
    named = [str(each.spec["cidr"]) for each in objects.calico if each.kind == "IPPool" and "cidr" in each.spec]
    if named:
        return tuple(dict.fromkeys(named))
    pods = [ip for pod in objects.pods if not pod.host_network for ip in pod.pod_ips]
    around = [parse_cidr(f"{ip}/{48 if ':' in ip else 16}") for ip in pods]
    return tuple(dict.fromkeys(around)) or (DEFAULT_IP_POOL,)


def _finish(spec: ClusterSpec | None, reading: Reading) -> ClusterSpec:
    if spec is None or reading.problems:
        raise InputError(reading.problems)
    return spec


def cluster_spec(model: ClusterModel, version: str, reading: Reading, path: FieldPath) -> ClusterSpec | None:
    """Return the spec, or None with problems reported."""
    before = len(reading.problems)
    objects = _objects(model, reading, path)
    nodes = _nodes(model, reading, (*path, "nodes"))
    placement, explicit = _placement(model.placement, reading, (*path, "placement"))
    pools = tuple(model.calico.ip_pools) + ((model.calico.ip_pool,) if model.calico.ip_pool else ())
    pools = pools or (DEFAULT_IP_POOL,)
    port_range = _port_range(model.node_port_range, reading, (*path, "nodePortRange"))
    kube_proxy = _kube_proxy(model.kube_proxy, version, pools, reading, (*path, "kubeProxy"))
    calico = _calico(model, pools, reading, path)
    network_length = _check_networks(model, nodes, pools, reading, path)
    if len(reading.problems) > before:
        return None
    overrides = {
        name: value
        for name, value in (
            ("external_traffic_policy", model.external_traffic_policy),
            ("internal_traffic_policy", model.internal_traffic_policy),
            ("session_affinity", model.session_affinity),
        )
        if value is not None
    }
    spec = ClusterSpec(
        objects=objects,
        nodes=nodes,
        kube_proxy=kube_proxy,
        calico=calico,
        fabric=_fabric(model, nodes, network_length),
        placement=placement,
        pods_per_node=model.pods_per_node,
        explicit_placement=explicit,
        replicas=model.replicas,
        service_overrides=overrides,
        service_cidrs=tuple(model.service_cidr),
        node_port_range=port_range,
        load_balancer_pool=model.load_balancer_pool or "",
        kubernetes_version=version,
    )
    _check_placement(spec, reading, (*path, "placement"))
    return spec if len(reading.problems) == before else None


def _objects(model: ClusterModel, reading: Reading, path: FieldPath) -> Objects:
    """The objects of files, folders and inline mappings; read once however many sweep points ask."""
    key = repr(model.objects)
    if key in reading.objects:
        return reading.objects[key]
    documents: list[Document] = []
    problems: list[Problem] = []
    for index, item in enumerate(model.objects):
        if isinstance(item, str):
            found, wrong = gather_documents([reading.folder / item])
            documents += found
            missing = [each for each in wrong if not each.where.line and not each.field]
            for each in missing:  # the file itself: tell where it is asked for
                where = reading.document.locate((*path, "objects", index))
                problems.append(
                    Problem(where, "cluster.objects", f"{item}: {each.found}", each.expected, _relative_fix(reading))
                )
            problems += [each for each in wrong if each not in missing]
        elif isinstance(item, dict):
            documents.append(_inline(reading.document, (*path, "objects", index), item))
        else:
            reading.refuse(
                (*path, "objects", index), describe(item), "a file, a folder, or an object", "name a manifest"
            )
    try:
        objects = objects_from(documents, problems=problems)
    except InputError as error:
        reading.problems += error.problems
        objects = Objects()
    reading.objects[key] = objects
    return objects


def _relative_fix(reading: Reading) -> str:
    return f"paths are relative to the folder of this file, {reading.folder}"


def _inline(document: Document, path: FieldPath, item: Mapping[str, Any]) -> Document:
    """An object that stands in the file itself, with its own part of the file's marks."""
    marks: Any = document.marks
    try:
        for step in path:
            marks = marks[step][2]
    except (KeyError, IndexError, TypeError):
        marks = {}
    return Document(dict(item), document.file, 1, document.locate(path).line, marks)


def _nodes(model: ClusterModel, reading: Reading, path: FieldPath) -> tuple[NodeSpec, ...]:
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
        )
        for number in range(short.count)
    )


def _node(entry: NodeModel, reading: Reading, path: FieldPath) -> NodeSpec:
    labels = dict(entry.labels)
    if entry.zone:
        labels[ZONE_LABEL] = entry.zone
    text = None
    if entry.iptables:
        file = reading.folder / entry.iptables
        try:
            text = file.read_text(encoding="utf-8", errors="strict")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            reading.refuse(
                (*path, "iptables"),
                f"{entry.iptables}: {reason}",
                "a file of iptables-save text",
                _relative_fix(reading),
            )
    return NodeSpec(
        name=entry.name,
        addresses=((entry.address,) if entry.address else ()) + tuple(entry.addresses),
        labels=labels,
        cpus=entry.cpus,
        pod_cidrs=tuple(entry.pod_cidrs),
        as_number=entry.as_number,
        iptables_text=text,
        iptables_file=str(reading.folder / entry.iptables) if entry.iptables else "",
        switch=entry.switch,
    )


def _placement(value: object, reading: Reading, path: FieldPath) -> tuple[Placement, Mapping[str, Mapping[str, int]]]:
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


def _check_placement(spec: ClusterSpec, reading: Reading, path: FieldPath) -> None:
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


def _port_range(text: str, reading: Reading, path: FieldPath) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= 65535:
        return int(first), int(last)
    reading.refuse(path, describe(text), "FIRST-LAST, ports from 1 to 65535", "for example 30000-32767")
    return 30000, 32767


def _kube_proxy(
    model: KubeProxyModel, version: str, pools: tuple[str, ...], reading: Reading, path: FieldPath
) -> KubeProxyConfiguration:
    cluster_cidr = ",".join(pools) if model.cluster_cidr is None else model.cluster_cidr
    for part in filter(None, cluster_cidr.split(",")):
        try:
            parse_cidr(part)
        except ValueError:
            reading.refuse(
                (*path, "clusterCIDR"), describe(part), "a network in CIDR notation", "for example 10.217.0.0/16"
            )
    if not version.removeprefix("v").replace(".", "").isdecimal():
        reading.refuse(("kubernetes",), describe(version), "a release such as 1.33", 'write kubernetes: "1.33"')
        version = "1.33"
    host = KubeProxyHost(
        random_fully=model.host.random_fully, conntrack_tcp_be_liberal=model.host.conntrack_tcp_be_liberal
    )
    if model.host.nfacct_counters is not None:
        host = KubeProxyHost(
            tuple(model.host.nfacct_counters), model.host.random_fully, model.host.conntrack_tcp_be_liberal
        )
    return KubeProxyConfiguration(
        cluster_cidr=cluster_cidr,
        detect_local_mode=DetectLocalMode(model.detect_local_mode or "ClusterCIDR"),
        detect_local=DetectLocalConfiguration(
            model.detect_local.bridge_interface, model.detect_local.interface_name_prefix
        ),
        node_port_addresses=tuple(model.node_port_addresses),
        iptables=KubeProxyIPTablesConfiguration(
            masquerade_bit=model.iptables.masquerade_bit,
            masquerade_all=model.iptables.masquerade_all,
            localhost_node_ports=model.iptables.localhost_node_ports,
            sync_period_ps=model.iptables.sync_period,
            min_sync_period_ps=model.iptables.min_sync_period,
        ),
        feature_gates=tuple(model.feature_gates.items()),
        host=host,
        kubernetes=version,
    )


def _calico(model: ClusterModel, pools: tuple[str, ...], reading: Reading, path: FieldPath) -> CalicoSettings:
    calico = model.calico
    numbers = calico.version.removeprefix("v").split(".")
    if not all(number.isdecimal() for number in numbers) or not 2 <= len(numbers) <= 3:
        reading.refuse((*path, "calico", "version"), describe(calico.version), "a release such as 3.32", "write 3.32")
        numbers = ["3", "32"]
    major, minor, patch = (*map(int, numbers), 2)[:3] if len(numbers) == 2 else tuple(map(int, numbers))
    return CalicoSettings(
        ip_pools=pools,
        block_size=calico.block_size,
        as_number=calico.as_number,
        wiring=Wiring(calico.wiring),
        nat_outgoing=calico.nat_outgoing,
        strict_affinity=calico.strict_affinity,
        max_blocks_per_host=calico.max_blocks_per_host,
        service_cluster_ips=tuple(calico.service_cluster_ips),
        service_external_ips=tuple(calico.service_external_ips),
        service_load_balancer_ips=tuple(calico.service_load_balancer_ips),
        service_load_balancer_aggregation=calico.service_load_balancer_aggregation == "Enabled",
        num_allowed_local_as_numbers=calico.num_allowed_local_as_numbers,
        version=(major, minor, patch),
    )


def _fabric(model: ClusterModel, nodes: tuple[NodeSpec, ...], network_length: int | None) -> FabricSettings:
    fabric = model.fabric
    networks: tuple[str, ...] = ()
    if network_length is not None and nodes:
        networks = (parse_cidr(f"{nodes[0].addresses[0]}/{network_length}"),)
    return FabricSettings(
        mode=FabricMode(fabric.mode),
        leaves=fabric.leaves,
        spines=fabric.spines,
        node_networks=() if fabric.leaves and fabric.mode == "bridged" else networks,
        router_addresses=tuple(fabric.router_addresses),
        switch_as_number=fabric.switch_as_number,
        link_rate_bps=fabric.link.rate,
        link_delay_ps=fabric.link.delay,
        client_link_rate_bps=fabric.client_link.rate,
        client_link_delay_ps=fabric.client_link.delay,
        spine_link_rate_bps=fabric.spine_link.rate,
        spine_link_delay_ps=fabric.spine_link.delay,
        veth_rate_bps=fabric.veth.rate,
        veth_delay_ps=fabric.veth.delay,
        ecmp_hash=fabric.ecmp.hash,
        ecmp_width=fabric.ecmp.width,
        ecmp_choice=fabric.ecmp.choice,
    )


def _check_networks(
    model: ClusterModel, nodes: tuple[NodeSpec, ...], pools: tuple[str, ...], reading: Reading, path: FieldPath
) -> int | None:
    """Report networks that overlap; return the length of the nodes' subnet where the short form gave one."""
    length = None
    if isinstance(model.nodes, dict):
        text = str(model.nodes.get("address", "192.168.64.57/24")).partition("/")[2]
        length = int(text) if text.isdecimal() else 24
    networks: list[tuple[str, str, FieldPath]] = [(pool, "the IP pool", (*path, "calico", "ipPool")) for pool in pools]
    networks += [(cidr, "the service CIDR", (*path, "serviceCIDR")) for cidr in model.service_cidr]
    if model.load_balancer_pool:
        networks.append((model.load_balancer_pool, "the load-balancer pool", (*path, "loadBalancerPool")))
    for number, (cidr, what, where) in enumerate(networks):
        for other, other_what, _ in networks[:number]:
            if _overlap(cidr, other):
                reading.refuse(
                    where, f"{what} {cidr}", f"a network apart from {other_what} {other}", "move one of the two"
                )
        inside = [node for node in nodes for address in node.addresses if _overlap(cidr, f"{address}/{_full(address)}")]
        if inside:
            reading.refuse(
                where,
                f"{what} {cidr}, which holds the address of node {inside[0].name}",
                "a network apart from the nodes'",
                "move one of the two",
            )
    if model.fabric.leaves and not model.fabric.spines:
        reading.refuse((*path, "fabric", "spines"), "0", "at least 1 spine where there are leaves", "write spines: 2")
    return length


def _full(address: str) -> int:
    return 128 if ":" in address else 32


def _overlap(one: str, other: str) -> bool:
    first, second = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return first.version == second.version and first.overlaps(second)
