"""Wires, segments and names."""

import pytest
from hypothesis import given, settings
from reference.clusters import routed_clusters

from simnet.controlplane.fabric import build_fabric, interface_names, veth_name
from simnet.errors import InputError
from simnet.model.calico import FabricMode, FabricSettings
from simnet.model.cluster import ClusterNode, ClusterPod
from simnet.model.fabric import DeviceKind

NODES = tuple(ClusterNode(f"n{i}", (f"10.0.0.{i + 11}",), {"rack": "xyx"[i % 3]}) for i in range(4))


@pytest.mark.parametrize(
    "namespace, pod, name",
    [
        ("default", "nginx", "calic440f455693"),
        ("default", "web-0", "cali0d7763386da"),
        ("kube-system", "coredns-5d78c9869d-abcde", "cali4d5f75c480c"),
    ],
)
def test_a_veth_has_calicos_name(namespace, pod, name):
    assert veth_name(namespace, pod) == name


def test_a_long_host_name_gets_a_port_name_that_linux_takes_and_no_other_host_has():
    names = list(interface_names(["ip-10-0-0-11.eu-west-1", "ip-10-0-0-12.eu-west-1", "n1"]))
    assert len(set(names)) == 3
    assert all(len(name) <= 15 for name in names)


def test_a_routed_switch_has_a_link_and_a_segment_of_its_own_for_each_node():
    fabric = build_fabric(NODES, [], [], FabricSettings())
    assert [len(segment.attachments) for segment in fabric.segments] == [2, 2, 2, 2]
    assert all(end.network is None for segment in fabric.segments for end in segment.attachments)
    assert fabric.devices[4].addresses == ("10.0.0.1",)


def test_a_bridged_switch_has_one_segment_with_an_address_of_its_own():
    fabric = build_fabric(NODES, [], ["10.0.0.200"], FabricSettings(mode=FabricMode.BRIDGED))
    (segment,) = fabric.segments
    assert segment.bridge == "tor"
    assert [end.device for end in segment.attachments] == ["tor", "n0", "n1", "n2", "n3", "clients"]
    assert segment.attachments[0].link is None


def test_the_switch_takes_the_first_address_that_nobody_has():
    nodes = [ClusterNode("a", ("10.0.0.1",), {}), ClusterNode("b", ("10.0.0.2",), {})]
    assert build_fabric(nodes, [], [], FabricSettings()).devices[2].addresses == ("10.0.0.3",)


def test_leaves_take_nodes_in_turn_or_by_label():
    def homes(settings):
        fabric = build_fabric(NODES, [], [], settings)
        return {link.a: link.b for link in fabric.links if link.a.startswith("n")}

    assert homes(FabricSettings(leaves=2, spines=1)) == {"n0": "leaf1", "n1": "leaf2", "n2": "leaf1", "n3": "leaf2"}
    by_label = homes(FabricSettings(leaves=2, spines=1, leaf_label="rack"))
    assert by_label == {"n0": "leaf1", "n1": "leaf2", "n2": "leaf1", "n3": "leaf1"}


def test_every_leaf_is_wired_to_every_spine_and_clients_hang_on_the_border():
    fabric = build_fabric(NODES, [], ["198.51.100.10"], FabricSettings(leaves=3, spines=2))
    wires = {(link.a, link.b) for link in fabric.links}
    leaves = ["leaf1", "leaf2", "leaf3", "border"]
    assert {(leaf, spine) for leaf in leaves for spine in ("spine1", "spine2")} <= wires
    assert ("clients", "border") in wires
    assert ("clients", "leaf1") in {
        (link.a, link.b)
        for link in build_fabric(
            NODES, [], ["198.51.100.10"], FabricSettings(leaves=1, spines=1, border_leaf=False)
        ).links
    }


def test_pods_on_the_hosts_network_have_no_wire():
    pods = [ClusterPod("d", "p", "n0", ("10.0.0.11",), True, True)]
    assert build_fabric(NODES, pods, [], FabricSettings()).pods == ()


def test_a_bridged_subnet_on_two_leaves_is_refused():
    with pytest.raises(InputError) as caught:
        build_fabric(NODES, [], [], FabricSettings(mode=FabricMode.BRIDGED, leaves=2, spines=1))
    assert str(caught.value) == (
        "cluster: fabric.mode\n"
        "  found:    10.0.0.0/24 on leaf1 and leaf2\n"
        "  expected: a bridged subnet on one leaf only\n"
        "  fix:      give each leaf a subnet of its own, place nodes by fabric.leafLabel, or use mode: routed"
    )


def test_every_contradiction_is_told_at_once():
    nodes = [*NODES, ClusterNode("n0", ("10.0.0.11",), {})]
    pods = [ClusterPod("d", "p", "nowhere", ("10.0.0.12",), False, True)]
    with pytest.raises(InputError) as caught:
        build_fabric(nodes, pods, ["10.0.0.13"], FabricSettings(leaves=2))
    assert [problem.field for problem in caught.value.problems] == [
        "client 10.0.0.13", "fabric.spines", "node n0", "nodes", "pod d/p", "pod d/p",
    ]  # fmt: skip


@settings(max_examples=60)
@given(routed_clusters())
def test_every_link_has_two_ends_and_every_address_one_holder_a_segment(cluster):
    fabric = cluster.fabric
    names = {device.name for device in fabric.devices} | {pod.pod for pod in fabric.pods}
    assert all(link.a in names and link.b in names and link.delay_ps > 0 for link in fabric.links)
    used = [pod.link for pod in fabric.pods]
    for segment in fabric.segments:
        addresses = [address for end in segment.attachments for address in end.addresses]
        assert len(addresses) == len(set(addresses))
        for end in segment.attachments:
            device = next(device for device in fabric.devices if device.name == end.device)
            assert set(end.addresses) <= set(device.addresses)
            assert end.link is not None or segment.bridge == end.device
            if end.link is not None:
                assert end.device in (fabric.links[end.link].a, fabric.links[end.link].b)
                used.append(end.link)
    assert set(used) == set(range(len(fabric.links)))
    interfaces = {}
    for segment in fabric.segments:
        for end in segment.attachments:
            interfaces.setdefault((end.device, end.interface), set()).add(end.link)
    assert all(len(links) == 1 for links in interfaces.values())
    assert len([device for device in fabric.devices if device.kind is DeviceKind.NODE]) == len(cluster.nodes)
