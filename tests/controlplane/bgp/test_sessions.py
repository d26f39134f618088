"""Who peers with whom: as Calico's own tests rendered it, and the wirings in short as BGPPeers."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from reference.clusters import routed_clusters

from simnet.config.cluster_file import load_cluster_spec
from simnet.controlplane.bgp.network import bgp_network
from simnet.controlplane.bgp.origins import speaker_as_numbers
from simnet.controlplane.bgp.steady import steady_fibs
from simnet.controlplane.bgp.topology import Topology
from simnet.engine.materialise import materialise
from simnet.model.calico import BGPFilter, BGPFilterRule, BGPPeer, Wiring

LEARNED = BGPFilterRule("Reject", source="RemotePeers")
OWN_ONLY = BGPFilter("own-only", export_v4=(LEARNED,), export_v6=(LEARNED,))


@pytest.mark.parametrize(
    "case", ["explicit_peering/global", "explicit_peering/specific_node", "explicit_peering/route_reflector"]
)
@pytest.mark.parametrize("family, file", [(4, "bird.cfg"), (6, "bird6.cfg")])
def test_a_node_has_the_neighbours_that_calicos_own_tests_rendered(shared_cases, case, family, file):
    """Neighbour, AS, reflector's client and who waits, of calico/node's kube-master; ports aside."""
    real = shared_cases / "real/calico/confd-explicit-rr"
    spec = load_cluster_spec(real / "mock_data/calicoctl" / case / "input.yaml")
    cluster = materialise(spec)
    text = (real / "compiled_templates" / case / file).read_text()
    rendered = {}
    for protocol in re.findall(r"protocol bgp \S+ from bgp_template \{(.*?)\n\}", text, re.S):
        address, number = re.search(r"neighbor (\S+)(?: port \d+)? as (\d+)", protocol).groups()
        rendered[address] = int(number), "rr client" in protocol, "passive on" in protocol
    network = bgp_network(cluster.fabric, cluster.nodes, spec.calico, spec.fabric, family)
    found = {
        each.remote_address: (each.remote_as, each.remote_is_client, each.is_passive)
        for each in network.peerings
        if each.local == "kube-master"
    }
    unanswered = {each.address for each in network.unanswered if each.node == "kube-master"}
    assert found == {address: told for address, told in rendered.items() if address not in unanswered}
    assert rendered.keys() == found.keys() | unanswered


def in_peers(cluster):
    """The same cluster, its wiring in short written out as BGPPeers, filter and mesh."""
    calico, topology = cluster.calico, Topology(cluster.fabric)
    numbers = speaker_as_numbers(cluster.nodes, cluster.fabric, calico.wiring)
    of_switch = {device.name: device.as_number for device in cluster.fabric.devices}
    nodes = tuple(replace(node, as_number=numbers[node.name]) for node in cluster.nodes)
    peers = [
        BGPPeer(
            f"{node.name}-{family}", topology.gateway(node.name, family).gateway,
            of_switch[topology.switch_of(node.name)], node=node.name,
            filters=("own-only",) if calico.wiring is Wiring.S2 else (),
            num_allowed_local_as_numbers=calico.num_allowed_local_as_numbers,
        )
        for node in nodes
        for family in (4, 6)
        if calico.wiring is not Wiring.MESH and topology.gateway(node.name, family)
    ]  # fmt: skip
    has_mesh = calico.wiring in (Wiring.S2, Wiring.S3, Wiring.MESH)
    if any(node.route_reflector_cluster_id for node in nodes):
        has_mesh = False
        peers.append(BGPPeer("reflectors", peer_selector="has(reflects)"))
    told = replace(calico, wiring=Wiring.PEERS, peers=tuple(peers), filters=(OWN_ONLY,), has_mesh=has_mesh)
    return nodes, told


@settings(max_examples=60, deadline=None)
@given(routed_clusters(wirings=tuple(set(Wiring) - {Wiring.PEERS})))
def test_a_wiring_in_short_gives_the_tables_of_its_peers_written_out(cluster):
    nodes, told = in_peers(cluster)
    fibs = steady_fibs(cluster.fabric, nodes, cluster.pods, cluster.blocks, cluster.services, told, cluster.settings)
    assert fibs == dict(cluster.fibs)
