"""Cold starts at other jitters end in the same tables, except where a warning says that they may not."""

from dataclasses import replace

from engine.bgp_networks import LAB, given_cluster
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference.clusters import routed_clusters

from simnet.controlplane.bgp.network import bgp_network
from simnet.controlplane.bgp.origins import originated_by, origins_of
from simnet.controlplane.bgp.settled import depends_on_order
from simnet.controlplane.fabric import build_fabric
from simnet.engine.bgp_processes import run_control_plane
from simnet.errors import ModelError
from simnet.model.calico import BGPPeer, CalicoSettings, FabricMode, FabricSettings, Wiring
from simnet.model.cluster import Block, ClusterNode
from simnet.units import PS_PER_S


def is_open(cluster, spec):
    """Whether it is reported that tables depend on the order of messages."""
    origins = origins_of(cluster.nodes, cluster.blocks, (), spec.calico)
    for family in (4, 6):
        network = bgp_network(cluster.fabric, cluster.nodes, spec.calico, spec.fabric, family, cluster.blocks)
        if depends_on_order(network, originated_by(origins, network.topology, family)):
            return True
    return False


@settings(max_examples=25)
@given(routed_clusters(wirings=(Wiring.PEERS, Wiring.MESH), most_nodes=5), st.integers(0, 2**32))
def test_cold_starts_of_reflectors_and_filters_end_in_one_set_of_tables_unless_told_otherwise(cluster, seed):
    calico, wires = replace(cluster.calico, bgp=LAB), replace(cluster.settings, bgp=LAB)
    try:
        ready, spec = given_cluster(cluster.nodes, cluster.pods, cluster.blocks, calico, wires, cluster.fabric)
        assume(not is_open(ready, spec))
    except ModelError:  # it does not settle at all, and that is told too
        assume(False)
    first, other = (
        run_control_plane(ready, spec, (), until_ps=15 * PS_PER_S, seed=each, start="cold").fibs_at(15 * PS_PER_S)
        for each in (seed, seed + 1)
    )
    assert first == other == dict(ready.fibs)


def test_where_it_is_told_seeds_do_end_in_different_tables():
    """A block that two nodes hold, each the client of the reflector that is nearer to the other."""
    places = {"r1": 0, "r2": 1, "c1": 1, "c2": 0}
    nodes = tuple(
        ClusterNode(
            name, (f"10.0.{rack}.{11 + i}",), {"rack": f"r{rack}"},
            route_reflector_cluster_id=f"0.0.0.{i + 1}" if name[0] == "r" else "",
        )
        for i, (name, rack) in enumerate(places.items())
    )  # fmt: skip
    address = {node.name: node.addresses[0] for node in nodes}
    peers = tuple(BGPPeer(f"{a}-{b}", address[b], 64512, node=a) for a, b in (("r1", "c1"), ("r2", "c2"), ("r1", "r2")))
    blocks = (Block("192.168.9.0/26", "c1"), Block("192.168.9.0/26", "c2"))
    wires = FabricSettings(leaves=2, spines=1, leaf_modes=(FabricMode.BRIDGED,) * 2, leaf_label="rack", bgp=LAB)
    calico = CalicoSettings(wiring=Wiring.PEERS, peers=peers, bgp=LAB)
    ready, spec = given_cluster(nodes, (), blocks, calico, wires, build_fabric(nodes, (), (), wires))
    assert is_open(ready, spec)
    outcomes = set()
    for seed in range(12):
        history = run_control_plane(ready, spec, (), until_ps=2 * PS_PER_S, seed=seed, start="cold")
        if history.converged_ps < 19 * PS_PER_S // 10:  # else both change their minds at once, and again
            fibs = history.fibs_at(2 * PS_PER_S)
            outcomes.add(tuple(fibs[name].routes for name in ("r1", "r2")))
    assert len(outcomes) > 1
