"""What a switch sends to a node: only what the node holds, except where the wiring makes it otherwise."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from engine.scenarios import cluster, nodes, pod, scenario, scenarios, service
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from simnet.dataplane.forwarding.step import Step
from simnet.dataplane.path import tunnelling
from simnet.dataplane.path.hop_by_hop import Walk
from simnet.dataplane.path.network import NODE, SWITCH
from simnet.engine.simulate import prepare, simulate
from simnet.errors import InputError
from simnet.model.calico import FabricMode, FabricSettings, Wiring
from simnet.model.scenario import Entry


def sent_to_nodes(chosen, seed):
    """(switch, node, destination on the wire) of every packet of a run that a switch routes to a node."""
    made = prepare(chosen, seed=seed)
    sent = set()
    follow = Walk.follow

    def noted(walk, rows, step):
        here, there = walk.way.place[rows], step.next_place
        is_device = (step.kind == Step.FORWARD) & (step.tunnel < 0) & (there < walk.network.device_count)
        at = np.flatnonzero(is_device)
        kind = walk.network.device_kind
        at = at[(kind[walk.network.place_device[here[at]]] == SWITCH) & (kind[there[at]] == NODE)]
        seen = tunnelling.seen(walk.network.forwarding, walk.way, rows[at]).destination
        sent.update(zip(here[at].tolist(), there[at].tolist(), seen.tolist(), strict=True))
        return follow(walk, rows, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Walk, "follow", noted)
        simulate(chosen, seed=seed)
    names = made.place_names
    return made.cluster, {(names[a], names[b], made.addresses.text(number)) for a, b, number in sent}


def holds(made, calico, node, address):
    """Whether a node holds an address, a block around it or (as everyone) an advertised service address."""
    parsed = ipaddress.ip_address(address)
    device = next(each for each in made.fabric.devices if each.name == node)
    blocks = [ipaddress.ip_network(block.cidr) for block in made.blocks if block.node == node]
    pods = [own for each in made.fabric.pods if each.node == node for own in each.addresses]
    advertised = (*calico.service_cluster_ips, *calico.service_external_ips, *calico.service_load_balancer_ips)
    return (
        address in (*device.addresses, *pods)
        or any(parsed in block for block in blocks)
        or any(parsed in ipaddress.ip_network(cidr) for cidr in advertised)
    )


@given(scenarios(), st.integers(0, 2**32))
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_no_packet_leaves_a_switch_towards_a_node_that_holds_neither_its_block_nor_its_address(chosen, seed):
    """In any scenario but S3, where every node tells the switch every block (facts on Calico's BGP, 7.2)."""
    assume(chosen.cluster.calico.wiring is not Wiring.S3)
    try:
        made, sent = sent_to_nodes(chosen, seed)
    except InputError:
        return
    assert [each for each in sent if not holds(made, chosen.cluster.calico, *each[1:])] == []


def test_s3_is_the_wiring_that_does_it():
    web = service(type="NodePort")
    spec = cluster(nodes(3), [pod("a", "n1")], [web], wiring=Wiring.S3, fabric=FabricSettings(mode=FabricMode.BRIDGED))
    made, sent = sent_to_nodes(scenario(spec, Entry.POD), 1)
    assert {node for _, node, _ in sent} == {"n1", "n2", "n3"}
    assert any(not holds(made, spec.calico, node, address) for _, node, address in sent)
