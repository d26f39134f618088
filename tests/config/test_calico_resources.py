"""Calico's resources: every real file loads, every field lands where the simulation looks, every mistake is told."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest

from simnet.config.cluster_file import load_cluster_spec
from simnet.config.manifests import load_objects
from simnet.controlplane.route_lines import route_lines
from simnet.engine.materialise import materialise
from simnet.errors import InputError
from simnet.model.calico import (
    BGPConfiguration,
    BGPFilter,
    BGPFilterRule,
    BGPPeer,
    BlockAffinity,
    CalicoNode,
    Encapsulation,
    IPAMBlock,
    IPPool,
    Mode,
    Wiring,
)
from simnet.model.cluster import Block
from simnet.model.kubernetes import Pod


def _file(folder: Path, text: str, name: str = "calico.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _resource(kind: str, name: str, spec: str, group: str = "projectcalico.org/v3") -> str:
    return f"---\napiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


NODES = "".join(
    _resource("Node", name, f"{{bgp: {{ipv4Address: 10.0.0.{number}/24, asNumber: {number_as}}}}}")
    for name, number, number_as in (("a", 11, 64512), ("b", 12, 64512))
)
POOL = _resource("IPPool", "pool", "{cidr: 192.168.0.0/16, blockSize: 27, natOutgoing: true}")


def test_every_real_resource_loads_as_a_typed_value(shared_cases: Path) -> None:
    files = sorted((shared_cases / "real" / "calico").rglob("*.yaml"))
    assert len(files) >= 20
    kinds: dict[str, int] = {}
    for file in files:
        for resource in load_objects([file]).calico:
            if resource.value is None:
                assert not resource.spec  # named only, for kubectl delete
                continue
            kinds[resource.kind] = kinds.get(resource.kind, 0) + 1
            assert resource.value.name == resource.name
    assert kinds == {"BGPConfiguration": 11, "BGPPeer": 14, "IPPool": 30, "Node": 28}


def test_the_fields_of_real_resources_are_read_as_written(shared_cases: Path) -> None:
    real = shared_cases / "real" / "calico"
    found = {}
    for case in ("confd-explicit-rr", "confd-bgp-export", "confd-static-routes"):
        for file in sorted((real / case).rglob("*input.yaml")):
            for each in load_objects([file]).calico:
                found[file.parent.name, each.name] = each.value
    assert found["route_reflector", "bgppeer-v6"] == BGPPeer(
        "bgppeer-v6", "ac13::57", 64533, node_selector="has(routeReflector)"
    )
    assert found["route_reflector", "bgppeer-other-nodes"] == BGPPeer(
        "bgppeer-other-nodes", node_selector="has(routeReflector)", peer_selector="!has(routeReflector)"
    )
    assert found["route_reflector", "kube-master"] == CalicoNode(
        "kube-master", ("10.192.0.2", "fe0a::2"), ("10.192.0.0/16", "fe0a::/96"), None, "10.0.0.1",
        (("routeReflector", "true"),),
    )  # fmt: skip
    assert found["global", "default"] == BGPConfiguration("default", 64567, False, is_mesh_told=True)
    assert found["global", "bgppeer-2"] == BGPPeer("bgppeer-2", "10.192.0.1", 64567)  # its port left out
    assert found["bgp-export", "ippool-v6-2"] == IPPool(
        "ippool-v6-2", "2002:102::/64", 122, nat_outgoing=True, disable_bgp_export=True
    )
    assert found["static-routes", "default"] == BGPConfiguration(
        "default",
        service_cluster_ips=("10.101.0.0/16", "fd00:96::/112"),
        service_load_balancer_ips=("80.15.0.0/24",),
    )


def test_blocks_and_affinities_as_kubectl_prints_them(tmp_path: Path) -> None:
    crd = "crd.projectcalico.org/v1"
    text = (
        _resource("BlockAffinity", "a-1", '{cidr: 192.168.1.0/26, node: a, state: confirmed, deleted: "false"}', crd)
        + _resource("BlockAffinity", "a-2", '{cidr: 192.168.2.0/26, node: a, state: pending, deleted: "false"}', crd)
        + _resource("BlockAffinity", "v", '{cidr: 192.168.3.0/26, node: lb, type: virtual, deleted: "false"}', crd)
        + _resource(
            "IPAMBlock", "192-168-1-0-26",
            '{affinity: "host:a", cidr: 192.168.1.0/26, allocations: [0, null, 1, 0], strictAffinity: false,'
            " unallocated: [1], deleted: false, attributes: [{handle_id: x, secondary: {node: a, pod: p}},"
            " {handle_id: y, secondary: {node: b}}]}", crd,
        )
        + _resource("BGPFilter", "f", "{exportV4: [{action: Reject, source: RemotePeers}]}")
    )  # fmt: skip
    values = [each.value for each in load_objects([_file(tmp_path, text)]).calico]
    assert values == [
        BlockAffinity("a-1", "192.168.1.0/26", "a"),
        BlockAffinity("a-2", "192.168.2.0/26", "a", "pending"),
        BlockAffinity("v", "192.168.3.0/26", "lb", is_of_host=False),
        IPAMBlock(
            "192-168-1-0-26", "192.168.1.0/26", "a", (("192.168.1.0", "a"), ("192.168.1.2", "b"), ("192.168.1.3", "a"))
        ),
        BGPFilter("f", (BGPFilterRule("Reject", source="RemotePeers"),)),
    ]
    spec = load_cluster_spec(_file(tmp_path, text + NODES))
    assert spec.blocks == (Block("192.168.1.0/26", "a"),)  # a pending affinity never reaches BIRD


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = """apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec:
  cidr: 192.168.0.0/33
  ipipMode: always
  natOutgoing: "yes"
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: peer}
spec:
  peerIP: 10.0.0.1:99999
  asNumber: 0
  nodeselector: all()
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: small}
spec: {cidr: 10.0.0.0/27, blockSize: 26}
"""
    with pytest.raises(InputError) as error:
        load_objects([_file(tmp_path, text)])
    found = [(problem.where.line, problem.field) for problem in error.value.problems]
    assert found == [
        (5, "IPPool pool: spec.cidr"),
        (6, "IPPool pool: spec.ipipMode"),
        (7, "IPPool pool: spec.natOutgoing"),
        (13, "BGPPeer peer: spec.peerIP"),
        (14, "BGPPeer peer: spec.asNumber"),
        (15, "BGPPeer peer: spec.nodeselector"),
        (20, "IPPool small: spec"),
    ]
    last = error.value.problems[-1]
    assert last.expected == "a blockSize from 27 to 32 in 10.0.0.0/27, whose default is 26"


def test_pools_numbers_services_and_blocks_reach_the_tables(tmp_path: Path) -> None:
    text = (
        NODES
        + POOL
        + _resource("IPPool", "six", "{cidr: 'fd10::/64', disableBGPExport: true}")
        + _resource("BGPConfiguration", "default", "{asNumber: 64600, serviceExternalIPs: [{cidr: 203.0.113.0/24}]}")
        + _resource("BlockAffinity", "b", "{cidr: 192.168.7.32/27, node: b, state: confirmed}")
        + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {nodeName: b, containers: [{name: c}]}\n"
    )
    spec = load_cluster_spec(_file(tmp_path, text))
    assert spec.calico.ip_pools == ("192.168.0.0/16", "fd10::/64")
    assert (spec.calico.block_size, spec.calico.as_number) == (27, 64600)
    assert spec.calico.nat_outgoing_pools == ("192.168.0.0/16",)
    assert spec.calico.unexported_pools == ("fd10::/64",)
    cluster = materialise(spec)
    pod = next(pod for pod in cluster.pods if pod.name == "p")
    assert pod.addresses[0] == "192.168.7.32"  # the first of the block that its node holds
    assert [node.as_number for node in cluster.nodes] == [64512, 64512]
    assert [node.addresses[0] for node in cluster.nodes] == ["10.0.0.11", "10.0.0.12"]
    prefixes = {str(route.prefix) for route in cluster.fibs["a"].routes}
    assert "192.168.7.32/27" in prefixes
    assert not any(prefix.startswith("fd10") for prefix in prefixes)  # disableBGPExport
    assert "203.0.113.0/24" in {str(route.prefix) for route in cluster.fibs["tor"].routes}


def test_addresses_that_a_block_lists_are_not_given_twice_and_borrowed_ones_are_told_by_their_holder(
    tmp_path: Path,
) -> None:
    block = (
        '{affinity: "host:a", cidr: 192.168.1.0/27, allocations: [0, 1, null],'
        " attributes: [{secondary: {node: a}}, {secondary: {node: b}}]}"
    )
    pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {nodeName: a, containers: [{name: c}]}\n"
    cluster = materialise(load_cluster_spec(_file(tmp_path, NODES + POOL + _resource("IPAMBlock", "x", block) + pod)))
    assert next(pod for pod in cluster.pods if pod.name == "p").addresses == ("192.168.1.2",)
    assert cluster.blocks == (Block("192.168.1.0/27", "a", (("192.168.1.1", "b"),)),)
    via = next(r for r in cluster.fibs["a"].routes if r.prefix == ipaddress.ip_network("192.168.1.1/32"))
    assert "borrowed by b" in via.why


def test_annotations_of_a_v1_node_give_address_and_as_number(tmp_path: Path) -> None:
    text = """apiVersion: v1
kind: Node
metadata:
  name: a
  annotations:
    projectcalico.org/IPv4Address: 10.9.0.1/16
    projectcalico.org/ASNumber: "64700"
status: {addresses: [{type: InternalIP, address: 10.9.0.1}]}
"""
    spec = load_cluster_spec(_file(tmp_path, text))
    assert spec.calico_nodes == (CalicoNode("a", ("10.9.0.1",), ("10.9.0.0/16",), 64700),)
    assert spec.fabric.node_networks == ("10.9.0.0/16",)
    (node,) = materialise(spec).nodes
    assert (node.addresses, node.as_number) == (("10.9.0.1",), 64700)
    odd = load_objects([_file(tmp_path, text.replace('"64700"', "sixty"))])
    assert "metadata.annotations.projectcalico.org/ASNumber" in str(odd.warnings[0])


OWN_AS = NODES.replace("10.0.0.12/24, asNumber: 64512", "10.0.0.12/24, asNumber: 64513")
MESH_OFF = _resource("BGPConfiguration", "default", "{nodeToNodeMeshEnabled: false}")
FILTER = _resource("BGPFilter", "own-only", "{exportV4: [{action: Reject, source: RemotePeers}]}")


def _peer(number: int, more: str = "") -> str:
    return _resource("BGPPeer", "tor", f"{{peerIP: 10.0.0.1, asNumber: {number}{more}}}")


@pytest.mark.parametrize(
    ("text", "wiring"),
    [
        (NODES + MESH_OFF + _peer(65001), Wiring.S1),
        (NODES + FILTER + _peer(65001, ", filters: [own-only]"), Wiring.S2),
        (NODES + _peer(65001, ", nextHopMode: Keep"), Wiring.S2),
        (NODES + _peer(65001), Wiring.S3),
        (NODES + MESH_OFF + _peer(64512), Wiring.S4),
        (OWN_AS + MESH_OFF + _peer(65001), Wiring.S5),
    ],
)
def test_mesh_peers_and_numbers_make_the_wiring(tmp_path: Path, text: str, wiring: Wiring) -> None:
    spec = load_cluster_spec(_file(tmp_path, text))
    assert spec.calico.wiring is wiring
    assert spec.fabric.router_addresses == ("10.0.0.1",)
    assert spec.objects.warnings == ()


def test_what_is_read_and_not_modelled_is_a_warning(tmp_path: Path) -> None:
    peer = load_objects([_file(tmp_path, _peer(65001, ", localASNumber: 64999"))])
    assert [warning.field for warning in peer.warnings] == ["BGPPeer tor: spec.localASNumber"]
    pool = _resource("IPPool", "p", "{cidr: 10.1.0.0/16, vxlanMode: CrossSubnet, nodeSelector: zone == 'x'}")
    spec = load_cluster_spec(_file(tmp_path, pool))
    assert [warning.field for warning in spec.objects.warnings] == ["IPPool p: spec.nodeSelector"]
    six = _resource("IPPool", "six", "{cidr: 'fd10::/64', vxlanMode: Always}")
    assert [w.field for w in load_objects([_file(tmp_path, six)]).warnings] == ["IPPool six: spec.vxlanMode"]
    assert next(each.value for each in spec.objects.calico).vxlan_mode is Mode.CROSS_SUBNET  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("case", "tunnel"), [("ipip-always", "dev tunl0"), ("ipip-cross-subnet", "dev eth0"), ("ipip-off", "dev eth0")]
)
def test_a_pools_modes_make_tunnels(shared_cases: Path, case: str, tunnel: str) -> None:
    """Three nodes of one /16, for which calico/node's own tests rendered the three modes."""
    real = shared_cases / "real/calico/confd-mesh-ipip/mock_data/calicoctl/mesh" / case / "input.yaml"
    spec = load_cluster_spec(real)
    assert not [w for w in spec.objects.warnings if "ipip" in w.field]
    pods = tuple(
        Pod("d", f"p{i}", node_name=name) for i, name in enumerate(("kube-master", "kube-node-1", "kube-node-2"))
    )
    cluster = materialise(replace(spec, objects=replace(spec.objects, pods=pods)))
    far = [line for line in route_lines(cluster.fibs["kube-master"]) if "/26 via" in line]
    assert len(far) == 2
    assert all(tunnel in line for line in far)


@pytest.mark.parametrize("key", ["ipipMode", "vxlanMode"])
def test_the_short_form_has_the_modes_too(tmp_path: Path, key: str) -> None:
    text = "schema: simnet/v1\nnodes: {{count: 2}}\ncalico: {{ipPool: 10.244.0.0/16, {}}}\n"
    spec = load_cluster_spec(_file(tmp_path, text.format(f"{key}: CrossSubnet"), "short.yaml"))
    assert spec.calico.encapsulations == (Encapsulation("10.244.0.0/16", key[:-4].lower(), Mode.CROSS_SUBNET),)
    both = _file(tmp_path, text.format("ipipMode: Always, vxlanMode: Always"), "both.yaml")
    with pytest.raises(InputError, match=r"both.yaml:3: calico.vxlanMode\n  found:    Always beside ipipMode: Always"):
        load_cluster_spec(both)


def test_what_the_short_form_writes_out_counts_before_the_resources(tmp_path: Path) -> None:
    _file(tmp_path, NODES + POOL + MESH_OFF + _peer(65001))
    short = "schema: simnet/v1\nobjects: [calico.yaml]\nnodes: {count: 2, address: 10.0.0.11/24}\n"
    plain = load_cluster_spec(_file(tmp_path, short, "plain.yaml"))
    assert (plain.calico.ip_pools, plain.calico.wiring) == (("192.168.0.0/16",), Wiring.S1)
    what_if = load_cluster_spec(
        _file(tmp_path, short + "calico: {ipPool: 10.50.0.0/16, wiring: S5, natOutgoing: false}\n", "what-if.yaml")
    )
    assert (what_if.calico.ip_pools, what_if.calico.wiring) == (("10.50.0.0/16",), Wiring.S5)
    assert not what_if.calico.nat_outgoing
    assert what_if.kube_proxy.cluster_cidr == "10.50.0.0/16"
