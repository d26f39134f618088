"""Mesh, reflectors, racks and BGPPeers as a user writes them: what comes of it, and what is told where nothing does."""

from pathlib import Path

import pytest

from simnet.config.cluster_file import load_cluster_spec
from simnet.controlplane.bgp.network import bgp_network
from simnet.engine.materialise import materialise
from simnet.model.calico import Wiring

CALICO = "apiVersion: projectcalico.org/v3"


def cluster_of(tmp_path: Path, text: str):
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    spec = load_cluster_spec(file)
    return spec, materialise(spec)


def sessions(spec, cluster) -> dict[str, set[str]]:
    network = bgp_network(cluster.fabric, cluster.nodes, spec.calico, spec.fabric)
    found: dict[str, set[str]] = {}
    for each in network.peerings:
        found.setdefault(each.local, set()).add(each.remote)
    return found


def numbers(cluster) -> dict[str, int]:
    return {device.name: device.as_number for device in cluster.fabric.devices if device.as_number}


def test_a_mesh_in_short_leaves_the_switch_alone(tmp_path: Path) -> None:
    spec, cluster = cluster_of(tmp_path, "nodes: {count: 3}\ncalico: {wiring: mesh}\nfabric: {mode: bridged}\n")
    assert sessions(spec, cluster) == {f"node-{i}": {f"node-{j}" for j in (1, 2, 3) if j != i} for i in (1, 2, 3)}
    assert not cluster.warnings
    spec, _ = cluster_of(tmp_path, "nodes: {count: 3}\ncalico: {wiring: mesh}\n")
    assert [str(each.where).rsplit("/", 1)[1] for each in spec.warnings] == ["cluster.yaml:2"]  # nobody routes pods


@pytest.mark.parametrize("told", ["2", "[node-1, node-2]"])
def test_reflectors_in_short_take_the_meshs_place(tmp_path: Path, told: str) -> None:
    text = f"nodes: {{count: 4}}\ncalico: {{wiring: mesh, routeReflectors: {told}}}\nfabric: {{mode: bridged}}\n"
    spec, cluster = cluster_of(tmp_path, text)
    assert sessions(spec, cluster) == {
        "node-1": {"node-2", "node-3", "node-4"}, "node-2": {"node-1", "node-3", "node-4"},
        "node-3": {"node-1", "node-2"}, "node-4": {"node-1", "node-2"},
    }  # fmt: skip
    assert [node.route_reflector_cluster_id for node in cluster.nodes] == ["244.0.0.1", "244.0.0.1", "", ""]


def test_an_as_a_rack_and_switches_of_one_as(tmp_path: Path) -> None:
    text = """nodes: {count: 4, asNumbers: [64601, 64602]}
calico: {wiring: S1}
fabric: {leaves: 2, spines: 2, borderLeaf: false, switchAsNumbers: {spine1: 65100, spine2: 65100}}
"""
    spec, cluster = cluster_of(tmp_path, text)
    assert numbers(cluster) == {
        "node-1": 64601, "node-2": 64602, "node-3": 64601, "node-4": 64602, "leaf1": 65001, "leaf2": 65002,
        "spine1": 65100, "spine2": 65100,
    }  # fmt: skip
    assert sessions(spec, cluster)["leaf2"] == {"node-2", "node-4", "spine1", "spine2"}


def test_nodes_hang_where_they_are_told_or_by_a_label(tmp_path: Path) -> None:
    text = """nodes:
  - {name: a, address: 10.0.0.11, labels: {rack: one}}
  - {name: b, address: 10.0.0.12, labels: {rack: two}}
  - {name: c, address: 10.0.0.13, labels: {rack: one}, switch: leaf2}
  - {name: d, address: 10.0.0.14, labels: {rack: one}}
calico: {wiring: S1}
fabric: {leaves: 2, spines: 1, leafLabel: rack}
"""
    found = sessions(*cluster_of(tmp_path, text))
    assert found["leaf1"] - {"spine1"} == {"a", "d"}
    assert found["leaf2"] - {"spine1"} == {"b", "c"}


ANNOTATED = """apiVersion: v1
kind: Node
metadata:
  name: {name}
  labels: {{rack: {rack}}}
  annotations:
    projectcalico.org/IPv4Address: {address}/24
    projectcalico.org/ASNumber: "{number}"
{more}status: {{addresses: [{{type: InternalIP, address: {address}}}]}}
---
"""
MORE = '    projectcalico.org/RouteReflectorClusterID: "244.0.0.9"\n'


def test_annotations_selectors_and_peers_wire_racks(tmp_path: Path) -> None:
    """Rack r1: iBGP with its leaf and a reflector among its nodes; r2: eBGP, and a peer that nobody is."""
    objects = (
        ANNOTATED.format(name="a1", rack="r1", address="10.0.1.11", number=65001, more=MORE)
        + ANNOTATED.format(name="b1", rack="r2", address="10.0.2.11", number=64602, more="")
        + ANNOTATED.format(name="a2", rack="r1", address="10.0.1.12", number=65001, more="")
        + f"""{CALICO}
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{nodeToNodeMeshEnabled: false}}
---
{CALICO}
kind: BGPPeer
metadata: {{name: r1}}
spec: {{nodeSelector: rack == 'r1', peerIP: 10.0.1.1, asNumber: 65001}}
---
{CALICO}
kind: BGPPeer
metadata: {{name: in-r1}}
spec: {{nodeSelector: rack == 'r1', peerSelector: rack == 'r1'}}
---
{CALICO}
kind: BGPPeer
metadata: {{name: r2}}
spec: {{nodeSelector: "rack in {{'r2'}}", peerIP: 10.0.2.254, asNumber: 65009}}
---
{CALICO}
kind: BGPPeer
metadata: {{name: nobody}}
spec: {{node: b1, peerIP: 10.0.2.77, asNumber: 65009}}
"""
    )
    (tmp_path / "objects.yaml").write_text(objects)
    text = "objects: [objects.yaml]\nfabric: {mode: bridged, leaves: 2, spines: 1, leafLabel: rack}\n"
    spec, cluster = cluster_of(tmp_path, text)
    assert spec.calico.wiring is Wiring.PEERS
    found = sessions(spec, cluster)
    assert found["a1"] == {"leaf1", "a2"}
    assert found["b1"] == {"leaf2"}
    assert {name: numbers(cluster)[name] for name in ("a1", "b1", "leaf1", "leaf2")} == {
        "a1": 65001, "b1": 64602, "leaf1": 65001, "leaf2": 65009
    }  # fmt: skip
    network = bgp_network(cluster.fabric, cluster.nodes, spec.calico, spec.fabric)
    clients = {(each.local, each.remote) for each in network.peerings if each.remote_is_client}
    assert clients == {("a1", "a2"), ("a1", "leaf1"), ("leaf1", "a1"), ("leaf1", "a2")}
    (warning,) = cluster.warnings
    assert (warning.field, warning.found) == ("BGPPeer nobody", "10.0.2.77, neighbour of b1")
    line = objects.splitlines().index("metadata: {name: nobody}") - 1
    assert str(warning.where).endswith(f"objects.yaml:{line}")


def test_calicos_own_case_of_a_reflector_loads_without_a_warning(shared_cases: Path) -> None:
    case = shared_cases / "real/calico/confd-explicit-rr/mock_data/calicoctl/explicit_peering/route_reflector"
    spec = load_cluster_spec(case / "input.yaml")
    cluster = materialise(spec)
    assert not cluster.warnings
    assert sessions(spec, cluster) == {
        "kube-master": {"kube-node-1", "kube-node-2", "tor"}, "kube-node-1": {"kube-master"},
        "kube-node-2": {"kube-master"}, "tor": {"kube-master"},
    }  # fmt: skip
    assert numbers(cluster)["tor"] == 64533


@pytest.mark.parametrize(
    "rule, field",
    [
        ("{action: Reject, communities: {values: ['65000:1']}}", "exportV4[0].communities"),
        ("{action: Accept, cidr: 10.0.0.0/8, matchOperator: In, operations: [{setPriority: {value: 1}}]}",
         "exportV4[0].operations"),
        ("{action: Reject, interface: tunl0}", "exportV4[0].interface"),
    ],
)  # fmt: skip
def test_what_a_filter_asks_that_routes_here_do_not_carry_is_told(tmp_path: Path, rule: str, field: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(f"{CALICO}\nkind: BGPFilter\nmetadata: {{name: f}}\nspec: {{exportV4: [{rule}]}}\n")
    spec = load_cluster_spec(file)
    assert [each.field for each in spec.objects.warnings] == [f"BGPFilter f: spec.{field}"]
    assert len(spec.calico.filters[0].export_v4) == ("operations" in field)
