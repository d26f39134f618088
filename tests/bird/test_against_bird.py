"""simnet's tables held against those that BIRD daemons in network namespaces wrote into a real kernel."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

import pytest
from bird.birds import Case, converged_routes, lay_out, start_birds
from bird.namespaces import Namespaces
from bird.topologies import KINDS, pods_of, services_of, topology

from simnet.controlplane.bgp.steady import steady_fibs
from simnet.model.fib import Fib, RouteKind
from simnet.model.route_text import parse_routes

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not (shutil.which("bird") and shutil.which("birdc") and shutil.which("ip")), reason="needs bird2 and iproute2"
    ),
]


def _table(fib: Fib) -> dict[str, tuple[object, ...]]:
    """What a packet and an operator see of a table: kind, next hops as a set, who wrote it and with which metric."""
    return {
        str(route.prefix): (route.kind.value, frozenset(route.next_hops), route.protocol, route.metric)
        for route in fib.routes
        if route.kind is not RouteKind.LOCAL
    }


def differences(case: Case) -> dict[str, dict[str, tuple[object, object]]]:
    """By box and prefix: what BIRD and the kernel have, and what simnet says; empty where they agree."""
    fibs = steady_fibs(
        case.fabric, case.nodes, pods_of(case), case.blocks, services_of(case), case.calico, case.settings
    )
    with Namespaces() as net:
        lay_out(case, net)
        start_birds(case, net)
        found = _compared(converged_routes(case, net, quiet_s=2.5), fibs)  # over two scans of the kernel's table
        if found:  # on a busy machine speakers pause for longer while they still exchange paths
            found = _compared(converged_routes(case, net, quiet_s=12), fibs)
    return found


def _compared(shown: Mapping[str, str], fibs: Mapping[str, Fib]) -> dict[str, dict[str, tuple[object, object]]]:
    found: dict[str, dict[str, tuple[object, object]]] = {}
    for box, text in shown.items():
        real, mine = _table(parse_routes(text, device=box, file=f"{box}: ip route").fib), _table(fibs[box])
        for prefix in real.keys() | mine.keys():
            if real.get(prefix) != mine.get(prefix):
                found.setdefault(box, {})[prefix] = (real.get(prefix), mine.get(prefix))
    return found


@pytest.fixture(scope="module", autouse=True)
def _namespaces_can_be_made() -> None:
    with Namespaces() as net:
        try:
            net.add("probe")
        except (RuntimeError, OSError) as error:
            pytest.skip(f"this process may not make network namespaces: {error}")


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_bird_writes_the_routes_that_simnet_says(number: int) -> None:
    """One topology of each kind."""
    assert differences(topology(number)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(KINDS), int(os.environ.get("SIMNET_BIRD_TOPOLOGIES", "40"))))
def test_bird_writes_the_routes_that_simnet_says_in_many_more(number: int) -> None:
    assert differences(topology(number)) == {}


def test_nothing_is_left_behind() -> None:
    with Namespaces() as net:
        net.add("left")
        net.start_bird("left", "protocol device {}")
        name, folder = net.name("left"), net.folder
        assert (net.folder / "left.conf").exists()
    with Namespaces() as other:
        other.add("right")
        assert name not in other.run("right", "ip", "netns", "list").split()
    assert not folder.exists()
