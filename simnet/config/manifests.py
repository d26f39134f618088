"""Manifests and cluster dumps -> Objects: every file, every document, every mistake at once.

An object's API group is looked at before its kind: a BGPPeer of metallb.io or a Service of serving.knative.dev is
none of ours. Lists may be `kind: List`, typed (PodList, whose items often lack a kind), or bare arrays. Kinds that
simnet does not read are listed as ignored. Odd things that clusters do hold load with a warning; what the API server
would never accept is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

from simnet.config.calico_node import check_annotations
from simnet.config.calico_resources import read_calico
from simnet.config.documents import Document, FieldPath, gather_documents
from simnet.config.kubernetes_fields import pairs
from simnet.config.kubernetes_services import read_endpoint_slice, read_endpoints, read_service
from simnet.config.kubernetes_source import Report, Source, describe, nearest_name, type_words
from simnet.config.kubernetes_workloads import read_namespace, read_node, read_pod, read_workload
from simnet.errors import InputError, Position, Problem
from simnet.garbage import paused_garbage_collector
from simnet.model.kubernetes import CalicoResource, IgnoredObject, Objects, Service

Reader = Callable[[Source, str, str], Any]

# kind -> (field of Objects, API group, the group's apiVersion today, namespaced, reader)
_KINDS: dict[str, tuple[str, frozenset[str], str, bool, Reader]] = {
    "Service": ("services", frozenset({""}), "v1", True, read_service),
    "Endpoints": ("endpoints", frozenset({""}), "v1", True, read_endpoints),
    "Pod": ("pods", frozenset({""}), "v1", True, read_pod),
    "Node": ("nodes", frozenset({""}), "v1", False, read_node),
    "Namespace": ("namespaces", frozenset({""}), "v1", False, read_namespace),
    "ReplicationController": ("workloads", frozenset({""}), "v1", True, read_workload),
    "EndpointSlice": (
        "endpoint_slices",
        frozenset({"discovery.k8s.io"}),
        "discovery.k8s.io/v1",
        True,
        read_endpoint_slice,
    ),
    "Deployment": ("workloads", frozenset({"apps", "extensions"}), "apps/v1", True, read_workload),
    "ReplicaSet": ("workloads", frozenset({"apps", "extensions"}), "apps/v1", True, read_workload),
    "DaemonSet": ("workloads", frozenset({"apps", "extensions"}), "apps/v1", True, read_workload),
    "StatefulSet": ("workloads", frozenset({"apps"}), "apps/v1", True, read_workload),
}
_KUBERNETES_GROUPS = frozenset({"", "apps", "extensions", "discovery.k8s.io"})
_OTHER_KINDS = frozenset(
    [
        "Binding",
        "ComponentStatus",
        "ConfigMap",
        "ControllerRevision",
        "Event",
        "LimitRange",
        "List",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "PodTemplate",
        "ResourceQuota",
        "Secret",
        "ServiceAccount",
        "Ingress",
        "NetworkPolicy",
        "PodSecurityPolicy",
        "Scale",
        "Status",
    ]
)  # of the same groups
_CALICO_GROUPS = frozenset({"projectcalico.org", "crd.projectcalico.org"})
_CALICO_KINDS = frozenset(["IPPool", "BGPConfiguration", "BGPPeer", "BGPFilter", "BlockAffinity", "IPAMBlock", "Node"])
_OBJECT_FIX = "give Kubernetes objects, as `kubectl get -o yaml` prints them"


def load_objects(paths: Iterable[str | os.PathLike[str]], *, stdin: BinaryIO | None = None) -> Objects:
    """Return the objects in files and folders of manifests ("-": `stdin`).

    Raises InputError with every problem of every file.
    """
    documents, problems = gather_documents(paths, stdin=stdin)
    return objects_from(documents, problems=problems)


def objects_from(documents: Iterable[Document], *, problems: Iterable[Problem] = ()) -> Objects:
    """Return the objects of documents already read; `problems` are those that reading them found.

    Raises InputError with every problem.
    """
    reading = _Reading(Report(problems=list(problems)))
    with paused_garbage_collector():
        for document in documents:
            reading.take(document, document.data, (), Position(document.file, document.line))
        objects = reading.objects()
    if reading.report.problems:
        raise InputError(reading.report.problems)
    return objects


class _Reading:
    """The objects found so far."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.found: dict[
            str, dict[tuple[str, str, str], Any]
        ] = {}  # field of Objects -> (kind, namespace, name) -> object
        self.raw: dict[tuple[str, str, str], tuple[Any, Source]] = {}
        self.ignored: list[IgnoredObject] = []
        self.generated: dict[tuple[str, str, str], int] = {}

    def objects(self) -> Objects:
        """Check objects against one another and return all."""
        kinds = {name: tuple(found.values()) for name, found in self.found.items()}
        self._check_services(kinds.get("services", ()))
        warnings = sorted(self.report.warnings, key=lambda problem: (problem.where, problem.field))
        return Objects(**kinds, ignored=tuple(self.ignored), warnings=tuple(warnings))

    def take(
        self,
        document: Document,
        data: Any,
        path: FieldPath,
        position: Position,
        kind: str = "",
        api_version: str = "",
    ) -> None:
        """Read one value of a document: nothing, an array or List of objects, or an object."""
        if data is None:
            return
        if isinstance(data, list) and not path:
            self._take_items(document, data, path)
            return
        if not isinstance(data, dict):
            self.report.problems.append(
                Problem(
                    position,
                    f"document {document.number}",
                    describe(data),
                    "a Kubernetes object",
                    _OBJECT_FIX,
                )
            )
            return
        found_kind: Any = data.get("kind", kind)
        found_version: Any = data.get("apiVersion", api_version)
        if not found_kind and len(path) == 1:  # an item of a bare array, as support bundles write them
            found_kind, found_version = _kind_by_shape(data)
        kind = found_kind if isinstance(found_kind, str) else ""
        source = Source(document, path, kind, position, data, self.report)
        if not kind:
            self._refuse_without_kind(source)
        elif not isinstance(found_version, str):
            source.refuse(("apiVersion",), describe(found_version), "text such as v1", "write apiVersion: v1")
        elif kind.endswith("List") and (kind == "List" or "items" in data):
            items = data.get("items")
            if items is not None and not isinstance(items, list):
                source.refuse(
                    ("items",),
                    describe(items),
                    "a list",
                    "write a list: each item on its own line after a dash",
                )
                return
            inherited = (kind[:-4], found_version) if kind != "List" else ("", "")
            self._take_items(document, items or [], (*path, "items"), *inherited)
        else:
            self._take_object(source, found_version)

    def _take_items(
        self, document: Document, items: list[Any], path: FieldPath, kind: str = "", api_version: str = ""
    ) -> None:
        if items:
            for index, (item, position) in enumerate(zip(items, document.item_positions(path), strict=True)):
                self.take(document, item, (*path, index), position, kind, api_version)

    def _take_object(self, source: Source, api_version: str) -> None:
        kind, data = source.kind, source.data
        group = api_version.rpartition("/")[0]
        if group in _CALICO_GROUPS and kind in _CALICO_KINDS:
            self._take_calico(source, api_version)
        elif kind in _KINDS and (group in _KINDS[kind][1] and (group or api_version == "v1")):
            field, _, _, is_namespaced, reader = _KINDS[kind]
            identity = self._identity(source, is_namespaced)
            if identity is not None:
                self._keep(field, (kind, *identity), reader(source, *identity), source)
                if kind == "Node":
                    check_annotations(source)
        elif kind in _KINDS and group in _KUBERNETES_GROUPS:
            found = f"apiVersion {api_version}" if api_version else "no apiVersion"
            source.refuse(
                ("apiVersion",),
                found,
                f"apiVersion {_KINDS[kind][2]} for kind {kind}",
                f"write apiVersion: {_KINDS[kind][2]}",
            )
        else:
            nearest = None
            if group in _KUBERNETES_GROUPS and api_version and kind not in _OTHER_KINDS:
                nearest = nearest_name(kind, [*_KINDS, *_OTHER_KINDS])
            if nearest in _KINDS:
                source.refuse(("kind",), f"kind {kind}", "a kind of the Kubernetes API", f"did you mean {nearest}?")
                return
            metadata = data.get("metadata")
            name = metadata.get("name") if isinstance(metadata, dict) else None
            self.ignored.append(
                IgnoredObject(kind, api_version, name if isinstance(name, str) else "", source.position)
            )

    def _refuse_without_kind(self, source: Source) -> None:
        if os.path.basename(source.document.file).startswith("kustomization.y"):
            self.ignored.append(IgnoredObject("Kustomization", "", "", source.position))
            return
        nearest = next((key for key in source.data if nearest_name(key, ["kind"])), None)
        problem = Problem(
            source.position if nearest is None else source.document.locate((*source.path, nearest), of_key=True),
            f"document {source.document.number}",
            "a mapping without kind"
            if nearest is None or nearest == "kind"
            else f"a mapping without kind, and the unknown field {nearest}",
            "a Kubernetes object with apiVersion and kind",
            _OBJECT_FIX if nearest is None or nearest == "kind" else f"did you mean kind instead of {nearest}?",
        )
        self.report.problems.append(problem)

    def _identity(self, source: Source, is_namespaced: bool) -> tuple[str, str] | None:
        """Return namespace and name, or report that there is no name and return None."""
        metadata = source.data.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            source.refuse(("metadata",), describe(metadata), "a mapping", "write fields as `name: value`")
            return None
        metadata = metadata or {}
        name, namespace = metadata.get("name"), metadata.get("namespace")
        is_text = True
        for key, value in (("name", name), ("namespace", namespace)):
            if value is not None and not isinstance(value, str):
                source.refuse(("metadata", key), describe(value), *type_words("string_type", value))
                is_text = False
        if not is_text:
            return None
        space = (namespace or "default") if is_namespaced else ""
        prefix = metadata.get("generateName")
        if not name and isinstance(prefix, str) and prefix:
            number = self.generated[source.kind, space, prefix] = (
                self.generated.get((source.kind, space, prefix), 0) + 1
            )
            name = f"{prefix}{number}"
        if not name:
            source.refuse(("metadata", "name"), "no name", "metadata.name", "name the object")
            return None
        return space, name

    def _keep(self, field: str, identity: tuple[str, str, str], value: Any, source: Source) -> None:
        if value is None:
            return
        earlier = self.raw.get(identity)
        if earlier is not None:
            data, other = earlier
            kind, namespace, name = identity
            title = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
            found = f"{title} twice, first at {other.position}"
            if data == source.data:
                source.warn((), found + ", both the same", "each object once", "remove one of the two")
            elif other.document.file == source.document.file:
                source.refuse((), found, "each object once", "rename or remove one of the two")
                return
            else:
                source.warn((), found, "each object once", "the later file counts, as with kubectl apply -f")
        self.raw[identity] = source.data, source
        self.found.setdefault(field, {})[identity] = value

    def _take_calico(self, source: Source, api_version: str) -> None:
        identity = self._identity(source, is_namespaced=False)
        if identity is None:
            return
        metadata, spec = source.data.get("metadata") or {}, source.data.get("spec")
        if spec is not None and not isinstance(spec, dict):
            source.refuse(("spec",), describe(spec), "a mapping", "write fields as `name: value`")
            return
        namespace = metadata.get("namespace")
        labels = pairs(_as_text(metadata.get("labels")))
        resource = CalicoResource(
            kind=source.kind,
            api_version=api_version,
            name=identity[1],
            namespace=namespace if isinstance(namespace, str) else "",
            spec=spec or {},
            labels=labels,
            annotations=pairs(_as_text(metadata.get("annotations"))),
            position=source.position,
            value=read_calico(source, identity[1], labels),
        )
        self._keep("calico", (f"{source.kind} (Calico)", resource.namespace, resource.name), resource, source)

    def _check_services(self, services: tuple[Service, ...]) -> None:
        """Report what two Services cannot share: a nodePort; and warn of what only edited dumps share, a clusterIP."""
        node_ports: dict[tuple[str, int], Service] = {}
        cluster_ips: dict[tuple[str, str, int], Service] = {}
        for service in services:
            source = self.raw["Service", service.namespace, service.name][1]
            for index, port in enumerate(service.ports):
                if port.node_port and service.type in ("NodePort", "LoadBalancer"):
                    first = node_ports.setdefault((port.protocol, port.node_port), service)
                    if first is not service:
                        source.refuse(
                            ("spec", "ports", index, "nodePort"),
                            f"{port.protocol} nodePort {port.node_port}, which "
                            f"{first.namespace}/{first.name} has ({first.position})",
                            "each nodePort in one Service only",
                            "choose another, or leave it out",
                        )
                if service.type == "ExternalName" or service.is_headless:
                    continue
                for address in service.cluster_ips:
                    first = cluster_ips.setdefault((address, port.protocol, port.port), service)
                    if first is not service:
                        source.warn(
                            ("spec", "clusterIP"),
                            f"{address} port {port.port}/{port.protocol}, which "
                            f"{first.namespace}/{first.name} has ({first.position})",
                            "each clusterIP in one Service only",
                            "no API server gives one address twice; "
                            "kube-proxy's rules for the first in its order take the traffic",
                        )


def _kind_by_shape(data: dict[str, Any]) -> tuple[str, str]:
    """Return kind and apiVersion of an object without them, by fields that only one kind has, or two empty texts."""
    spec, status = data.get("spec"), data.get("status")
    if "metadata" not in data:
        return "", ""
    if isinstance(status, dict) and "nodeInfo" in status:
        return "Node", "v1"
    if isinstance(spec, dict) and "containers" in spec:
        return "Pod", "v1"
    if isinstance(spec, dict) and "clusterIP" in spec:
        return "Service", "v1"
    if "subsets" in data:
        return "Endpoints", "v1"
    return ("EndpointSlice", "discovery.k8s.io/v1") if "addressType" in data else ("", "")


def _as_text(mapping: Any) -> dict[str, str]:
    """Return a map with its values as text: calicoctl takes `routeReflector: true`."""
    if not isinstance(mapping, dict):
        return {}
    return {
        key: value if isinstance(value, str) else "" if value is None else describe(value)
        for key, value in mapping.items()
    }
