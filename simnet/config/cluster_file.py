"""What stands under `cluster:`, in a file of its own or in an experiment, as a ClusterSpec.

Also reads a bare folder or file of manifests: then everything else has its default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, BinaryIO

from simnet.config.calico_inputs import pools_of, with_calico_resources
from simnet.config.cluster_nodes import check_placement, nodes_of, placement_of
from simnet.config.cluster_settings import (
    calico_of,
    check_networks,
    cpu_of,
    fabric_of,
    kube_proxy_of,
    node_lifecycle_of,
    port_range_of,
)
from simnet.config.documents import Document, FieldPath, gather_documents
from simnet.config.experiment_models import ClusterFileModel, ClusterModel
from simnet.config.file_problems import read_model
from simnet.config.kubernetes_fields import parse_cidr
from simnet.config.kubernetes_source import describe
from simnet.config.manifests import objects_from
from simnet.config.racks import with_reflectors_and_racks
from simnet.config.reading import Reading
from simnet.errors import InputError, Problem
from simnet.model.calico import CalicoSettings, FabricSettings
from simnet.model.kube_proxy import KubeProxyConfiguration
from simnet.model.kubernetes import Objects
from simnet.model.scenario import ClusterSpec

DEFAULT_IP_POOL = "10.217.0.0/16"
DEFAULT_IPV6_POOL = "fd00:10:217::/48"
DEFAULT_SERVICE_CIDR = "10.96.0.0/12"
DEFAULT_IPV6_SERVICE_CIDR = "fd00:10:96::/108"


def load_cluster_spec(
    path: str | os.PathLike[str], *, stdin: BinaryIO | None = None, skip_unknown: bool = False
) -> ClusterSpec:
    """Return the cluster of an experiment, a cluster file, or a folder or file of manifests.

    `skip_unknown` leaves out what nodes' saved rules hold that simnet does not model (`ClusterSpec.left_out_rules`).

    Raises InputError with every mistake.
    """
    documents, problems = gather_documents([path], stdin=stdin)
    if len(documents) == 1 and isinstance(documents[0].data, dict) and "kind" not in documents[0].data:
        document = documents[0]
        data = document.data
        assert isinstance(data, dict)
        reading = Reading(document, problems, skip_unknown=skip_unknown)
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
    spec = ClusterSpec(
        objects=objects,
        nodes=(),
        kube_proxy=KubeProxyConfiguration(cluster_cidr=",".join(pools)),
        calico=CalicoSettings(ip_pools=pools),
        fabric=FabricSettings(),
        service_cidrs=(DEFAULT_SERVICE_CIDR, DEFAULT_IPV6_SERVICE_CIDR) if is_dual else (DEFAULT_SERVICE_CIDR,),
        first_node_addresses=("192.168.64.57", "fd00:192:168:64::57") if is_dual else ("192.168.64.57",),
    )
    return with_calico_resources(spec)


def _pools_of_dump(objects: Objects) -> tuple[str, ...]:
    """The pool that pods of a dump live in: Calico's own word for it, or the /16 (/48) around their addresses."""
    named = pools_of(objects)
    if named:
        return named
    pods = [ip for pod in objects.pods if not pod.host_network for ip in pod.pod_ips]
    around = [parse_cidr(f"{ip}/{48 if ':' in ip else 16}") for ip in pods]
    return tuple(dict.fromkeys(around)) or (DEFAULT_IP_POOL,)


def _finish(spec: ClusterSpec | None, reading: Reading) -> ClusterSpec:
    if spec is None or reading.problems:
        raise InputError(reading.problems)
    return spec


def cluster_spec(model: ClusterModel, version: str, reading: Reading, path: FieldPath) -> ClusterSpec | None:
    """Return the spec, or None with problems reported."""
    before, warned = len(reading.problems), len(reading.warnings)
    objects = _objects(model, reading, path)
    nodes = nodes_of(model, reading, (*path, "nodes"))
    placement, explicit = placement_of(model.placement, reading, (*path, "placement"))
    pools = tuple(model.calico.ip_pools) + ((model.calico.ip_pool,) if model.calico.ip_pool else ())
    pools = pools or pools_of(objects) or (DEFAULT_IP_POOL,)
    port_range = port_range_of(model.node_port_range, reading, (*path, "nodePortRange"))
    kube_proxy = kube_proxy_of(model.kube_proxy, version, pools, reading, (*path, "kubeProxy"))
    calico = calico_of(model, pools, reading, path)
    network_length = check_networks(model, nodes, pools, reading, path)
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
        fabric=fabric_of(model, nodes, network_length, reading, path),
        cpu=cpu_of(model.cpu),
        node_lifecycle=node_lifecycle_of(model, version),
        queues=model.queues,
        placement=placement,
        pods_per_node=model.pods_per_node,
        explicit_placement=explicit,
        replicas=model.replicas,
        service_overrides=overrides,
        service_cidrs=tuple(model.service_cidr),
        node_port_range=port_range,
        load_balancer_pool=model.load_balancer_pool or "",
        kubernetes_version=version,
        warnings=tuple(reading.warnings[warned:]),
    )
    spec = with_calico_resources(spec, _written_out(model))
    spec = with_reflectors_and_racks(spec, model, reading, path)
    check_placement(spec, reading, (*path, "placement"))
    return spec if len(reading.problems) == before else None


def _written_out(model: ClusterModel) -> frozenset[str]:
    """The settings that the file itself names: they count before Calico's resources."""
    names = set(model.calico.model_fields_set | model.fabric.model_fields_set)
    return frozenset(names | ({"ip_pools"} if names & {"ip_pool", "ip_pools"} else set()))


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
            reading.files |= dict.fromkeys(each.file for each in found)
            missing = [each for each in wrong if not each.where.line and not each.field]
            for each in missing:  # the file itself: tell where it is asked for
                where = reading.document.locate((*path, "objects", index))
                problems.append(
                    Problem(where, "cluster.objects", f"{item}: {each.found}", each.expected, reading.relative_fix)
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


def _inline(document: Document, path: FieldPath, item: Mapping[str, Any]) -> Document:
    """An object that stands in the file itself, with its own part of the file's marks."""
    marks: Any = document.marks
    try:
        for step in path:
            marks = marks[step][2]
    except (KeyError, IndexError, TypeError):
        marks = {}
    return Document(dict(item), document.file, 1, document.locate(path).line, marks)
