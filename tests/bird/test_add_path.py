"""What nodes with add-path learn of each other, on real BIRDs and by the reference: every path, not the best only."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from bird.birds import converged_routes, lay_out, start_birds
from bird.namespaces import Namespaces
from bird.timelines import network
from reference.bgp import routers_of, settle

from simnet.controlplane.bgp.steady import speaker_as_numbers

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not (shutil.which("bird") and shutil.which("birdc") and shutil.which("ip")), reason="needs bird2 and iproute2"
    ),
]


def test_three_nodes_of_an_as_each_learn_the_paths_of_the_reference() -> None:
    case = network("mesh")
    nodes = tuple(replace(node, as_number=64512 + i) for i, node in enumerate(case.nodes))
    case = replace(case, nodes=nodes, as_number=speaker_as_numbers(nodes, case.fabric, case.calico.wiring))
    calico = replace(case.calico, service_external_ips=("203.0.113.0/24",))
    described = SimpleNamespace(
        fabric=case.fabric, calico=calico, settings=case.settings, nodes=nodes, blocks=case.blocks, services=()
    )
    routers = routers_of(described, 4, mesh_has_add_path=True)
    settle(list(routers.values()))
    with Namespaces() as net:
        lay_out(case, net)
        start_birds(case, net)
        converged_routes(case, net, quiet_s=2.5)
        for node in nodes:
            for block in case.blocks:
                shown = net.birdc(node.name, "show", "route", block.cidr, "all")
                real = Counter(
                    (tuple(map(int, path.split())), hop)
                    for path, hop in re.findall(r"BGP\.as_path: ([\d ]*)\n\s*BGP\.next_hop: (\S+)", shown)
                )
                mine = Counter(
                    (tuple(route.as_path), route.next_hop)
                    for route in routers[node.name].learned
                    if str(route.prefix) == block.cidr
                )
                assert real == mine, (node.name, block.cidr)
    assert max(len([r for r in router.learned if r.session.peer.name == "n1"]) for router in routers.values()) > 2
