"""Random small clusters for a real BIRD: a pure function of a number, so that a topology that differs can be named."""

from __future__ import annotations

import random
from dataclasses import replace

from bird.birds import SERVICE_CIDR, Case, Neighbour, gateway_of

from simnet.controlplane.bgp.origins import speaker_as_numbers
from simnet.controlplane.fabric import build_fabric
from simnet.model.calico import (
    AdvertisedService,
    BGPFilter,
    BGPFilterRule,
    BGPPeer,
    CalicoSettings,
    FabricMode,
    FabricSettings,
    Wiring,
)
from simnet.model.cluster import Block, ClusterNode, ClusterPod

KINDS = ("S1", "S2", "S3", "S4", "S5", "mesh", "reflectors", "racks")


def topology(number: int) -> Case:
    """Return 2 to 12 nodes on 1 to 4 switches, of a kind and in a mode that the number decides; a third has 12."""
    rng = random.Random(f"simnet bird topology {number}")
    kind = KINDS[number % len(KINDS)]
    is_first = number < len(KINDS)
    leaves, spines, border = rng.choice(
        [(0, 0, False)] * 3 + [(1, 1, True), (2, 1, False), (2, 2, False), (3, 1, False)]
    )
    if kind == "racks":
        leaves, spines = rng.choice([(2, 1), (2, 2), (3, 1)])
    modes = tuple(rng.choice(list(FabricMode)) for _ in range(leaves))
    settings = FabricSettings(
        mode=rng.choice(list(FabricMode)), leaves=leaves, leaf_modes=modes, spines=spines, border_leaf=border,
        third_party_next_hop=rng.random() < 0.7,
    )  # fmt: skip
    count = rng.randint(3, 5) if is_first else rng.choice([rng.randint(2, 6), rng.randint(7, 11), 12])
    reflecting = rng.randint(1, 2) if kind == "reflectors" or (kind in ("S2", "S3") and rng.random() < 0.5) else 0
    own_as = kind in ("S1", "S2", "S3", "S5", "mesh") and not reflecting and rng.random() < 0.3
    is_internal = rng.random() < 0.5  # the switch of a rack is of its nodes' AS
    nodes = []
    for i in range(count):
        rack = i % leaves if leaves else 0
        offset = i if own_as else 0
        if kind == "racks":
            offset = 65001 + rack - 64512 if is_internal else rack
        labels = {"rack": f"r{rack}"} | ({"reflects": "yes"} if i < reflecting else {})
        nodes.append(
            ClusterNode(
                f"n{i}", (f"10.0.{rack}.{i + 11}",), labels, as_number=64512 + offset,
                route_reflector_cluster_id=f"244.0.0.{rng.randint(1, 2)}" if i < reflecting else "",
            )
        )  # fmt: skip
    nodes = tuple(nodes)
    wiring = {"mesh": Wiring.MESH, "reflectors": Wiring.PEERS, "racks": Wiring.PEERS}.get(kind) or Wiring(kind)
    blocks, pods = [], []
    for i, node in enumerate(nodes):
        for j in range(rng.randint(1, 2)):
            base = f"192.168.{10 * i + j}"
            guest = rng.choice([None, None, *nodes])
            borrowed = ()
            pods.append(ClusterPod("d", f"p{i}-{j}", node.name, (f"{base}.5",), False, True))
            if guest is not None and guest is not node:
                borrowed = ((f"{base}.9", guest.name),)
                pods.append(ClusterPod("d", f"g{i}-{j}", guest.name, (f"{base}.9",), False, True))
            blocks.append(Block(f"{base}.0/26", node.name, borrowed))
    vips = {
        f"203.0.113.{80 + k}": tuple(sorted(rng.sample([node.name for node in nodes], rng.randint(1, count))))
        for k in range(2)
    }
    calico = CalicoSettings(
        ip_pools=("192.168.0.0/16",), wiring=wiring, service_external_ips=(SERVICE_CIDR,),
        num_allowed_local_as_numbers=int(wiring in (Wiring.S1, Wiring.S5) and rng.random() < 0.4),
        version=rng.choice([(3, 32, 2), (3, 31, 7)]),
    )  # fmt: skip
    settings = replace(settings, ecmp_width=rng.choice([2, 16, 16]))
    neighbours: dict[str, list[Neighbour]] = {}
    if wiring is Wiring.PEERS:
        fabric = build_fabric(nodes, pods, [], settings)
        drawn = _Drawn(rng, Case(nodes, (), {}, calico, settings, fabric, {}))
        peers, filters = drawn.reflectors() if kind == "reflectors" else drawn.racks(is_internal=is_internal)
        calico = replace(calico, has_mesh=False, peers=tuple(peers), filters=tuple(filters))
        neighbours = drawn.neighbours
    fabric = build_fabric(nodes, pods, [], settings)
    numbers = speaker_as_numbers(nodes, fabric, wiring)
    return Case(nodes, tuple(blocks), vips, calico, settings, fabric, numbers, neighbours)


class _Drawn:
    """BGPPeers and BGPFilters, and what they come to for each node in BIRD's words: two ways to say one thing."""

    def __init__(self, rng: random.Random, case: Case) -> None:
        self.rng, self.case = rng, case
        self.neighbours: dict[str, list[Neighbour]] = {node.name: [] for node in case.nodes}

    def reflectors(self) -> tuple[list[BGPPeer], list[BGPFilter]]:
        """Clients with reflectors, reflectors with each other, and some of them with the switch they hang on."""
        rng, nodes = self.rng, self.case.nodes
        reflecting = [node.name for node in nodes if node.route_reflector_cluster_id]
        told, hop = self._filter("clients")
        peers = [BGPPeer("clients", peer_selector="has(reflects)", filters=("clients",), next_hop_mode=hop[0])]
        for one in nodes:
            for other in nodes:
                if one is not other and {one.name, other.name} & set(reflecting):
                    self._tell(one.name, other.name, told, hop[1])
        filters = [told[0]]
        upward, up_hop = self._filter("up")
        filters.append(upward[0])
        for node in nodes if rng.random() < 0.5 else [n for n in nodes if n.name in reflecting]:
            switch, address, _ = gateway_of(self.case, node.name)
            number = next(device.as_number for device in self.case.fabric.devices if device.name == switch)
            peers.append(
                BGPPeer(
                    f"up-{node.name}", address, number, node=node.name, filters=("up",), next_hop_mode=up_hop[0]
                )
            )  # fmt: skip
            self._tell(node.name, switch, upward, up_hop[1])
        return peers, filters

    def racks(self, *, is_internal: bool) -> tuple[list[BGPPeer], list[BGPFilter]]:
        """Every node with the switch of its rack, and perhaps with the other nodes of it."""
        rng, nodes = self.rng, self.case.nodes
        told, hop = self._filter("racks")
        peers, seen = [], set()
        allowed = rng.randint(0, 1)
        is_meshed = rng.random() < 0.5
        for node in nodes:
            switch, address, _ = gateway_of(self.case, node.name)
            number = next(device.as_number for device in self.case.fabric.devices if device.name == switch)
            rack = node.labels["rack"]
            if rack not in seen:
                seen.add(rack)
                peers.append(
                    BGPPeer(
                        rack, address, number, node_selector=f"rack == '{rack}'", filters=("racks",),
                        next_hop_mode=hop[0], num_allowed_local_as_numbers=allowed,
                    )
                )  # fmt: skip
                if is_meshed:
                    beside = f"rack in {{'{rack}'}}"
                    peers.append(BGPPeer(f"in-{rack}", node_selector=beside, peer_selector=beside))
            self._tell(node.name, switch, told, hop[1], allowed)
            for other in nodes:
                if is_meshed and other is not node and other.labels["rack"] == rack:
                    self._tell(node.name, other.name, (None, (), ()), "")
        return peers, [told[0]]

    def _tell(self, node: str, box: str, told: tuple, next_hop: str, allowed: int = 0) -> None:
        self.neighbours[node].append(Neighbour(box, told[1], told[2], next_hop, allowed))

    def _filter(self, name: str) -> tuple[tuple[BGPFilter, tuple[str, ...], tuple[str, ...]], tuple[str, str]]:
        """A filter of up to one rule a direction, as BGPFilter and as BIRD's conditions; and a next hop mode."""
        rng = self.rng
        choices = [
            (BGPFilterRule("Reject", source="RemotePeers"), "source = RTS_BGP"),
            (BGPFilterRule("Reject", "192.168.0.0/17", "In"), "net ~ [ 192.168.0.0/17+ ]"),
            (BGPFilterRule("Reject", "192.168.10.0/26", "Equal"), "net = 192.168.10.0/26"),
            (
                BGPFilterRule("Reject", "192.168.0.0/16", "In", prefix_length=(27, 32)),
                "net ~ [ 192.168.0.0/16{27,32} ]",
            ),
            (BGPFilterRule("Reject", "203.0.113.0/24", "NotIn"), "! ( net ~ [ 203.0.113.0/24+ ] )"),
        ]
        exports = rng.sample(choices, rng.randint(0, 1))
        imports = rng.sample(choices[1:4], rng.randint(0, 1))
        value = BGPFilter(name, tuple(rule for rule, _ in exports), tuple(rule for rule, _ in imports))
        hop = rng.choice([("Auto", ""), ("Auto", ""), ("Self", "next hop self"), ("Keep", "next hop keep")])
        return (value, tuple(text for _, text in exports), tuple(text for _, text in imports)), hop


def services_of(case: Case) -> tuple[AdvertisedService, ...]:
    """The services behind the addresses that nodes tell of one by one."""
    return tuple(
        AdvertisedService(
            f"d/{vip}",
            external_ips=(vip,),
            is_local=True,
            ready_nodes=frozenset(nodes),
            endpoint_nodes=frozenset(nodes),
        )
        for vip, nodes in case.vips.items()
    )


def pods_of(case: Case) -> tuple[ClusterPod, ...]:
    """The pods as the fabric has them."""
    return tuple(ClusterPod(*pod.pod.split("/"), pod.node, pod.addresses, False, True) for pod in case.fabric.pods)
