"""Random small clusters for a real BIRD: a pure function of a number, so that a topology that differs can be named."""

from __future__ import annotations

import random
from dataclasses import replace

from bird.birds import SERVICE_CIDR, Case

from simnet.controlplane.bgp.steady import speaker_as_numbers
from simnet.controlplane.fabric import build_fabric
from simnet.model.calico import AdvertisedService, CalicoSettings, FabricMode, FabricSettings, Wiring
from simnet.model.cluster import Block, ClusterNode, ClusterPod


def topology(number: int) -> Case:
    """Return 2 to 12 nodes on 1 to 4 switches, in a wiring and a mode that the number decides; a third has 12."""
    rng = random.Random(f"simnet bird topology {number}")
    wiring = list(Wiring)[number % 5]
    leaves, spines, border = rng.choice(
        [(0, 0, False)] * 3 + [(1, 1, True), (2, 1, False), (2, 2, False), (3, 1, False)]
    )
    modes = tuple(rng.choice(list(FabricMode)) for _ in range(leaves))
    settings = FabricSettings(
        mode=rng.choice(list(FabricMode)), leaves=leaves, leaf_modes=modes, spines=spines, border_leaf=border,
        third_party_next_hop=rng.random() < 0.7,
    )  # fmt: skip
    count = rng.choice([rng.randint(2, 6), rng.randint(7, 11), 12]) if number >= 5 else rng.randint(2, 5)
    own_as = wiring is not Wiring.S4 and rng.random() < 0.3
    nodes = tuple(
        ClusterNode(
            f"n{i}", (f"10.0.{i % leaves if leaves else 0}.{i + 11}",), {}, as_number=64512 + (i if own_as else 0)
        )
        for i in range(count)
    )
    blocks, pods = [], []
    for i, node in enumerate(nodes):
        for j in range(rng.randint(1, 2)):
            base = f"192.168.{10 * i + j}"
            guest = rng.choice([None, None, *nodes]) if wiring is not Wiring.S3 else None
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
    fabric = build_fabric(nodes, pods, [], settings)
    return Case(nodes, tuple(blocks), vips, calico, settings, fabric, speaker_as_numbers(nodes, fabric, wiring))


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
