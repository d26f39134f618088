"""Reflectors among nodes, leaves that nodes hang on and switches' ASes, as the short form names them: do they exist?"""

from __future__ import annotations

from dataclasses import replace

from simnet.config.documents import FieldPath
from simnet.config.experiment_models import ClusterModel
from simnet.config.file_problems import problem_at
from simnet.config.kubernetes_source import spell
from simnet.config.reading import Reading
from simnet.errors import unknown_name
from simnet.model.calico import Wiring
from simnet.model.scenario import ClusterSpec

WITH_REFLECTORS = (Wiring.S2, Wiring.S3, Wiring.MESH)


def with_reflectors_and_racks(spec: ClusterSpec, model: ClusterModel, reading: Reading, path: FieldPath) -> ClusterSpec:
    """Return the spec with what the short form says of single nodes and switches; what is not there is reported."""
    fabric, wanted = model.fabric, model.calico.route_reflectors
    names = [node.name for node in spec.nodes] or [node.name for node in spec.objects.nodes]
    names = names or [node.name for node in spec.calico_nodes]
    leaves = [f"leaf{i + 1}" for i in range(fabric.leaves)]
    switches = [*leaves, *(["border"] if leaves and fabric.border_leaf else []),
                *(f"spine{i + 1}" for i in range(fabric.spines))] if leaves else [spec.fabric.switch_name]  # fmt: skip

    def refuse_unknown(where: FieldPath, name: str, what: str, known: list[str], *, of_key: bool = False) -> None:
        position = reading.document.locate(where, of_key=of_key)
        reading.problems.append(unknown_name(position, spell(where), name, what, known))

    at = (*path, "calico", "routeReflectors")
    if isinstance(wanted, int):
        if names and wanted > len(names):
            reading.refuse(at, str(wanted), f"at most {len(names)}, as there are nodes", "name fewer")
        reflectors = tuple(names[:wanted]) or tuple(f"node-{i + 1}" for i in range(wanted))
    else:
        reflectors = tuple(wanted)
        for number, name in enumerate(reflectors):
            if names and name not in names:
                refuse_unknown((*at, number), name, "a node", names)
    if reflectors and spec.calico.wiring not in WITH_REFLECTORS:
        found = (
            f"routeReflectors beside wiring {spec.calico.wiring.value}, which has no mesh in whose place they could be"
        )
        reading.refuse(
            at, found, "wiring S2, S3 or mesh", "for BGPPeers of your own give nodes a routeReflectorClusterID"
        )
    for switch in fabric.switch_as_numbers:
        if switch not in switches:
            where = (*path, "fabric", "switchAsNumbers", switch)
            refuse_unknown(where, switch, "a switch", switches, of_key=True)
    told = []
    for number, node in enumerate(spec.nodes):
        if node.switch is None:
            continue
        if node.switch not in (leaves or switches):
            refuse_unknown((*path, "nodes", number, "switch"), node.switch, "a leaf", leaves or switches)
        told.append((node.name, node.switch))
    warnings = list(spec.warnings)
    if spec.calico.wiring is Wiring.MESH and fabric.mode == "routed" and not spec.calico.encapsulations:
        warnings.append(
            problem_at(
                reading.document, (*path, "calico", "wiring"), "mesh, on routed links, without a tunnel",
                "switches that know where pods are, or need not", "packets between pods of two nodes end at the switch;"
                " write fabric.mode: bridged, or calico.ipipMode or vxlanMode: Always",
            )
        )  # fmt: skip
    return replace(
        spec,
        warnings=tuple(warnings),
        calico=replace(
            spec.calico,
            route_reflectors=reflectors,
            route_reflector_cluster_id=model.calico.route_reflector_cluster_id,
        ),
        fabric=replace(
            spec.fabric,
            switch_as_numbers=tuple(fabric.switch_as_numbers.items()),
            node_switches=tuple(told) if leaves else (),
            leaf_label=fabric.leaf_label,
            border_leaf=fabric.border_leaf,
        ),
    )
