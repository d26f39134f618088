"""Which AS each speaker has, and which prefixes it puts into BGP by itself.

Source: docs/models/routing.md for the wirings; projectcalico/calico, confd templates bird_aggr.cfg and bird_ipam.cfg.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from simnet.controlplane.bgp.prefixes import prefix_of
from simnet.controlplane.bgp.topology import Topology
from simnet.controlplane.calico.advertisement import Advertisement
from simnet.model.calico import CalicoSettings, Wiring
from simnet.model.cluster import Block, ClusterNode
from simnet.model.fabric import Fabric
from simnet.model.iptables.ruleset import IPNetwork


@dataclass(frozen=True, slots=True)
class Origin:
    """A prefix that nodes put into BGP, and which nodes."""

    prefix: IPNetwork
    nodes: tuple[str, ...]
    why: str
    is_service: bool = False
    block_of: str = ""  # of a borrowed address: the node whose block it is from; that one passes it on to nobody


def speaker_as_numbers(nodes: Sequence[ClusterNode], fabric: Fabric, wiring: Wiring) -> dict[str, int]:
    """Return each node's AS: its own; under S4 its switch's; under S5, where they repeat, counted up from the first."""
    numbers = [node.as_number for node in nodes]
    if wiring is Wiring.S4:
        topology, of_device = Topology(fabric), {device.name: device.as_number for device in fabric.devices}
        return {node.name: of_device.get(topology.switch_of(node.name)) or node.as_number for node in nodes}
    if wiring is Wiring.S5 and len(set(numbers)) < len(numbers):
        return {node.name: numbers[0] + i for i, node in enumerate(nodes)}
    return dict(zip((node.name for node in nodes), numbers, strict=True))


def origins_of(
    nodes: Sequence[ClusterNode],
    blocks: Sequence[Block],
    advertisements: Iterable[Advertisement],
    calico: CalicoSettings,
) -> tuple[Origin, ...]:
    """Return what the nodes originate: blocks inside a pool, borrowed addresses, service prefixes."""
    pools = [ipaddress.ip_network(text) for text in calico.ip_pools]
    unexported = [ipaddress.ip_network(text) for text in calico.unexported_pools]
    known = {node.name for node in nodes}
    origins: list[Origin] = []
    for block in blocks:
        prefix = prefix_of(block.cidr)
        if pools and not any(pool.version == prefix.version and prefix.subnet_of(pool) for pool in pools):  # type: ignore[arg-type]
            continue  # the export filter accepts what lies within an enabled pool
        if any(pool.version == prefix.version and prefix.subnet_of(pool) for pool in unexported):  # type: ignore[arg-type]
            continue  # disableBGPExport
        if block.node in known:
            origins.append(Origin(prefix, (block.node,), f"block of {block.node}, told as one aggregate"))
        for address, holder in block.borrowed:
            if holder in known:
                why = f"address borrowed by {holder}: not in a block of its own, so its /32 is told"
                origins.append(Origin(prefix_of(address), (holder,), why, block_of=block.node))
    origins += [Origin(told.prefix, told.nodes, told.why, is_service=True) for told in advertisements]
    return tuple(origins)


def originated_by(origins: Iterable[Origin], topology: Topology, family: int) -> dict[str, list[IPNetwork]]:
    """Return what each speaker tells of by itself: nodes' origins, and where there are several switches their own."""
    originated: dict[str, list[IPNetwork]] = {}
    for origin in origins:
        if origin.prefix.version == family:
            for node in origin.nodes:
                originated.setdefault(node, []).append(origin.prefix)
    if any(True for _ in topology.switch_links(family)):
        for switch, prefix in topology.underlay():
            if prefix.version == family:
                originated.setdefault(switch, []).append(prefix)
    return originated
