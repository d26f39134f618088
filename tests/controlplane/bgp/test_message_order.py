"""Where BGP promises one outcome it does not matter which message comes first, and where it does not that is told."""

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from reference.clusters import routed_clusters

from simnet.controlplane.bgp.network import bgp_network
from simnet.controlplane.bgp.origins import originated_by, origins_of
from simnet.controlplane.bgp.sessions import AT_SWITCH
from simnet.controlplane.bgp.settled import depends_on_order
from simnet.controlplane.calico.advertisement import service_advertisements
from simnet.controlplane.fabric import build_fabric
from simnet.model.calico import AdvertisedService, BGPPeer, CalicoSettings, FabricMode, FabricSettings, Wiring
from simnet.model.cluster import ClusterNode


def open_choices(fabric, nodes, blocks, services, calico, wires, family=4):
    origins = origins_of(nodes, blocks, service_advertisements(services, nodes, calico), calico)
    network = bgp_network(fabric, nodes, calico, wires, family, blocks)
    return depends_on_order(network, originated_by(origins, network.topology, family))


@settings(max_examples=40)
@given(routed_clusters(wirings=AT_SWITCH, reflects=False), st.sampled_from([4, 6]))
def test_the_wirings_in_short_have_one_outcome(cluster, family):
    assert open_choices(
        cluster.fabric, cluster.nodes, cluster.blocks, cluster.services, cluster.calico, cluster.settings, family
    ) == {}  # fmt: skip


def reflectors_and_clients(crossed):
    """Two reflectors on a segment each; each one's client sits on its own segment or, `crossed`, on the other's."""
    places = {"r1": 0, "r2": 1, "c1": int(crossed), "c2": int(not crossed)}
    nodes = tuple(
        ClusterNode(
            name, (f"10.0.{rack}.{11 + i}",), {"rack": f"r{rack}"},
            route_reflector_cluster_id=f"0.0.0.{i + 1}" if name[0] == "r" else "",
        )
        for i, (name, rack) in enumerate(places.items())
    )  # fmt: skip
    address = {node.name: node.addresses[0] for node in nodes}
    peers = tuple(BGPPeer(f"{a}-{b}", address[b], 64512, node=a) for a, b in (("r1", "c1"), ("r2", "c2"), ("r1", "r2")))
    vip = AdvertisedService(
        "d/vip", external_ips=("203.0.113.9",), is_local=True, ready_nodes=frozenset({"c1", "c2"}),
        endpoint_nodes=frozenset({"c1", "c2"}),
    )  # fmt: skip
    calico = CalicoSettings(wiring=Wiring.PEERS, peers=peers, service_external_ips=("203.0.113.0/24",))
    wires = FabricSettings(leaves=2, spines=1, leaf_modes=(FabricMode.BRIDGED,) * 2, leaf_label="rack")
    return build_fabric(nodes, (), (), wires), nodes, (), (vip,), calico, wires


def test_reflectors_that_are_nearer_to_each_others_clients_choose_by_what_comes_first():
    """Whichever reflector speaks first makes the other take its client's path, and then says nothing of its own."""
    found = open_choices(*reflectors_and_clients(crossed=True))
    assert found.keys() >= {"r1", "r2"}
    assert {prefix for each in found.values() for prefix in each} == {ipaddress.ip_network("203.0.113.9/32")}


def test_reflectors_near_their_own_clients_do_not():
    assert open_choices(*reflectors_and_clients(crossed=False)) == {}
