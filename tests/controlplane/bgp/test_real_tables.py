"""Tables that people posted, where they also said which node holds which block: simnet's are the same."""

from __future__ import annotations

from pathlib import Path

from reference.forwarding import l3_hops, walk

from simnet.config.cluster_file import load_cluster_spec
from simnet.controlplane.bgp.steady import steady_fibs
from simnet.controlplane.fabric import build_fabric
from simnet.controlplane.route_lines import route_lines
from simnet.engine.materialise import materialise
from simnet.model.calico import CalicoSettings, Encapsulation, FabricMode, FabricSettings, Mode, Wiring
from simnet.model.cluster import Block, ClusterNode, ClusterPod
from simnet.model.fib import NextHop, Route, RouteKind
from simnet.model.route_text import parse_routes

YAOBANK = """schema: simnet/v1
objects:
{pods}
- {{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: p}}, spec: {{cidr: 10.48.0.0/16}}}}
- {{apiVersion: projectcalico.org/v3, kind: Node, metadata: {{name: worker1}},
    spec: {{bgp: {{ipv4Address: 10.0.0.11/24}}}}}}
- {{apiVersion: projectcalico.org/v3, kind: Node, metadata: {{name: worker2}},
    spec: {{bgp: {{ipv4Address: 10.0.0.12/24}}}}}}
- {{apiVersion: crd.projectcalico.org/v1, kind: BlockAffinity, metadata: {{name: a}},
    spec: {{cidr: 10.48.0.64/26, node: worker1, state: confirmed, deleted: "false"}}}}
- {{apiVersion: crd.projectcalico.org/v1, kind: BlockAffinity, metadata: {{name: b}},
    spec: {{cidr: 10.48.0.128/26, node: worker2, state: confirmed, deleted: "false"}}}}
calico: {{version: "3.15.0"}}
fabric: {{mode: bridged, routerAddresses: [10.0.0.254]}}
"""
POD = (
    "- {{apiVersion: v1, kind: Pod, metadata: {{name: p{0}}}, spec: {{nodeName: worker1, containers: [{{name: c}}]}},"
    " status: {{phase: Running, podIP: 10.48.0.{0}}}}}"
)


def test_the_yaobank_workers_table_follows_from_its_blocks_and_peers(tmp_path: Path, shared_cases: Path) -> None:
    shown = parse_routes((shared_cases / "real" / "routes" / "yaobank-worker1.ip-route").read_text()).fib
    pods = "\n".join(POD.format(number) for number in (64, 65, 66, 67))
    file = tmp_path / "cluster.yaml"
    file.write_text(YAOBANK.format(pods=pods))
    fib = materialise(load_cluster_spec(file)).fibs["worker1"]

    def plain(name: str) -> str:  # pods' names are not known, so neither are their interfaces'
        return "cali" if name.startswith("cali") else name.replace("ens160", "eth0")

    kept = [route for route in shown.routes if route.protocol != "dhcp" and NextHop("docker0") not in route.next_hops]
    expected = [
        (str(route.prefix), route.kind, [(plain(hop.interface), hop.gateway) for hop in route.next_hops], route.metric)
        for route in kept
    ]
    mine = [
        (str(route.prefix), route.kind, [(plain(hop.interface), hop.gateway) for hop in route.next_hops], route.metric)
        for route in fib.routes
        if route.kind is not RouteKind.LOCAL and route.prefix.prefixlen
    ]
    assert len(expected) == 7
    assert mine == expected  # the order of `ip route` too
    (default,) = [route for route in fib.routes if route.prefix.prefixlen == 0]
    assert default.next_hops[0].gateway == "10.0.0.254"


def test_the_upstream_router_of_two_subnets_and_the_hops_that_traceroute_counted(shared_cases: Path) -> None:
    shown = parse_routes((shared_cases / "real" / "routes" / "ynote-router-route-n.txt").read_text()).fib
    addresses = {"10.244.187.0/26": "11.1.0.250", "10.244.229.192/26": "11.1.0.251",
                 "10.244.223.0/26": "12.1.0.252", "10.244.240.64/26": "12.1.0.253"}  # fmt: skip
    nodes = [ClusterNode(f"n{address[-3:]}", (address,), {}) for address in addresses.values()]
    blocks = [Block(cidr, f"n{address[-3:]}") for cidr, address in addresses.items()]
    called = {"10.244.187.0": "n250", "10.244.229.195": "n251", "10.244.223.0": "n252", "10.244.240.64": "n253"}
    pods = [ClusterPod("d", f"p{i}", node, (pod,), False, True) for i, (pod, node) in enumerate(called.items())]
    settings = FabricSettings(mode=FabricMode.BRIDGED, switch_name="router")
    calico = CalicoSettings(ip_pools=("10.244.0.0/16",), wiring=Wiring.S2, version=(3, 23, 0))
    fabric = build_fabric(nodes, pods, [], settings)
    fibs = steady_fibs(fabric, nodes, pods, blocks, (), calico, settings)
    gateways = {str(r.prefix): r.next_hops[0].gateway for r in fibs["router"].routes if r.kind is RouteKind.VIA}
    assert gateways == addresses
    assert gateways == {
        str(r.prefix): r.next_hops[0].gateway for r in shown.routes if r.kind is RouteKind.VIA and r.prefix.prefixlen
    }
    # traceroute's last line is the pod: boxes that forward, and one
    measured = {
        "n250": {"10.244.240.64": 3, "10.244.187.0": 1, "10.244.223.0": 3, "10.244.229.195": 2},
        "n252": {"10.244.240.64": 2, "10.244.187.0": 3, "10.244.223.0": 1, "10.244.229.195": 3},
    }
    for node, counts in measured.items():
        source = next(each.addresses[0] for each in nodes if each.name == node)
        for pod, count in counts.items():
            places, _, end = walk(fabric, fibs, node, source, pod)
            assert (l3_hops(fabric, places) + 1, end) == (count, "local"), (node, pod)


def test_the_tunnel_routes_of_a_posted_ipip_worker_follow_from_its_blocks(shared_cases: Path) -> None:
    """Twelve blocks of other workers and two addresses of its own block that one of them borrowed, word for word.

    The blocks over two uplinks are left out: simnet's nodes have one.
    """
    text = (shared_cases / "real" / "routes" / "calico-9010-ecmp-borrowed.ip-route").read_text()
    shown = [" ".join(line.split()) for line in text.splitlines()]
    wrapped = [route for route in parse_routes(text).fib.routes if "tunl0" in _interfaces(route)]
    far = {route.next_hops[0].gateway or "" for route in wrapped}
    nodes = [ClusterNode("me", ("10.77.7.185",), {}), *(ClusterNode(f"n{a}", (a,), {}) for a in sorted(far))]
    borrowed = tuple(
        (str(route.prefix.network_address), f"n{route.next_hops[0].gateway}")
        for route in wrapped
        if route.prefix.prefixlen == 32
    )
    blocks = [Block(str(r.prefix), f"n{r.next_hops[0].gateway}") for r in wrapped if r.prefix.prefixlen == 26]
    blocks.append(Block("172.27.198.192/26", "me", borrowed))
    ipip = (Encapsulation("172.27.0.0/16", "ipip", Mode.ALWAYS),)
    calico = CalicoSettings(ip_pools=("172.27.0.0/16",), version=(3, 27, 0), encapsulations=ipip)
    settings = FabricSettings(mode=FabricMode.ROUTED)
    fabric = build_fabric(nodes, [], [], settings)
    mine = route_lines(steady_fibs(fabric, nodes, [], blocks, [], calico, settings)["me"])
    expected = [line for line in shown if "tunl0" in line or line.startswith("blackhole")]
    assert (len(expected), len(borrowed)) == (len(wrapped) + 1, 2)
    assert [line for line in mine if line.startswith(("172.27.", "blackhole"))] == expected


def _interfaces(route: Route) -> set[str]:
    return {hop.interface for hop in route.next_hops}
