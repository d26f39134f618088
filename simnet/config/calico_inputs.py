"""What Calico's resources say, where the simulation looks for it: pools, AS numbers, blocks, nodes, the wiring.

A field that the short form (`calico:`, `fabric:`) writes out counts before the resources, so that an experiment can
ask what if. Which wiring the peers make: `calico_wiring`.
Source: docs/models/routing.md; Calico's defaults as in `model.calico`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from simnet.config.calico_node import node_of_annotations
from simnet.config.calico_wiring import Wired, wired
from simnet.config.cluster_settings import encapsulations_of
from simnet.errors import Problem
from simnet.model.calico import (
    BGPConfiguration,
    BlockAffinity,
    CalicoNode,
    CalicoSettings,
    FabricSettings,
    IPAMBlock,
    IPPool,
    Wiring,
)
from simnet.model.cluster import Block
from simnet.model.kubernetes import Objects
from simnet.model.scenario import ClusterSpec

Value = TypeVar("Value")


def pools_of(objects: Objects) -> tuple[str, ...]:
    """Return the CIDRs that pods take addresses from, as IPPools name them; none without such an object."""
    return tuple(dict.fromkeys(pool.cidr for pool in _all(objects, IPPool) if pool.is_for_pods))


def with_calico_resources(spec: ClusterSpec, explicit: Collection[str] = ()) -> ClusterSpec:
    """Return the spec with what its Calico resources say; `explicit` names the settings that count before them."""
    objects = spec.objects
    nodes = calico_nodes(objects)
    if not objects.calico and not nodes:
        return spec
    inputs = _Inputs(spec.calico, spec.fabric, frozenset(explicit))
    inputs.take_pools(_all(objects, IPPool))
    configuration = next((each for each in _all(objects, BGPConfiguration) if each.name == "default"), None)
    if configuration is not None:
        inputs.take_configuration(configuration)
    inputs.take_nodes(nodes)
    inputs.take_peers(wired(objects, nodes, inputs.calico, configuration))
    blocks, used = blocks_of(objects)
    return replace(
        spec,
        objects=replace(objects, warnings=(*objects.warnings, *inputs.warnings)),
        calico=inputs.calico,
        fabric=inputs.fabric,
        blocks=blocks,
        used_addresses=used,
        calico_nodes=nodes,
    )


def calico_nodes(objects: Objects) -> tuple[CalicoNode, ...]:
    """Return what is known of nodes: Calico's own Node objects, and annotations of v1 Nodes where there is none."""
    found = {node.name: node for node in _all(objects, CalicoNode)}
    for node in objects.nodes:
        noted = node_of_annotations(node.name, node.annotations)
        if noted is not None:
            found.setdefault(node.name, noted)
    return tuple(found.values())


def blocks_of(objects: Objects) -> tuple[tuple[Block, ...], tuple[tuple[str, str], ...]]:
    """Return the blocks that nodes hold, and the addresses in use as (address, node of its pod or empty)."""
    held: dict[str, str] = {}
    for affinity in _all(objects, BlockAffinity):
        if affinity.is_of_host and affinity.state == "confirmed" and not affinity.deleted:
            held.setdefault(affinity.cidr, affinity.node)
    not_confirmed = {each.cidr for each in _all(objects, BlockAffinity)} - held.keys()
    used: list[tuple[str, str]] = []
    for block in _all(objects, IPAMBlock):
        if not block.deleted:
            used += block.used
            if block.node and block.cidr not in not_confirmed:  # a pending affinity never reaches BIRD
                held.setdefault(block.cidr, block.node)
    return tuple(Block(cidr, node) for cidr, node in held.items()), tuple(used)


def _all(objects: Objects, kind: type[Value]) -> list[Value]:
    return [each.value for each in objects.calico if isinstance(each.value, kind)]


@dataclass(slots=True)
class _Inputs:
    """The settings as far as they are known."""

    calico: CalicoSettings
    fabric: FabricSettings
    explicit: frozenset[str]
    warnings: list[Problem] = field(default_factory=list)

    def _set(self, **fields: object) -> None:
        told = {name: value for name, value in fields.items() if name not in self.explicit}
        self.calico = replace(self.calico, **told)  # type: ignore[arg-type]

    def _set_fabric(self, **fields: object) -> None:
        told = {name: value for name, value in fields.items() if name not in self.explicit}
        self.fabric = replace(self.fabric, **told)  # type: ignore[arg-type]

    def take_pools(self, pools: list[IPPool]) -> None:
        usable = [pool for pool in pools if pool.is_for_pods]
        if not usable or "ip_pools" in self.explicit:
            return
        translated = tuple(pool.cidr for pool in usable if pool.nat_outgoing)
        first = {":" in pool.cidr: pool.block_size for pool in reversed(usable)}
        self._set(
            ip_pools=tuple(pool.cidr for pool in usable),
            block_size=first.get(False, self.calico.block_size),
            block_size_ipv6=first.get(True, self.calico.block_size_ipv6),
            unexported_pools=tuple(pool.cidr for pool in usable if pool.disable_bgp_export),
        )
        if "block_size" not in self.explicit:
            self._set(pool_block_sizes=tuple((pool.cidr, pool.block_size) for pool in usable))
        if not {"ipip_mode", "vxlan_mode"} & self.explicit:
            modes = [(pool.cidr, pool.ipip_mode, pool.vxlan_mode) for pool in usable]
            wrapped = [
                each for cidr, ipip, vxlan in modes for each in encapsulations_of([cidr], ipip.value, vxlan.value)
            ]
            self._set(encapsulations=tuple(wrapped))
        if "nat_outgoing" not in self.explicit:
            self._set(
                nat_outgoing=bool(translated),
                nat_outgoing_pools=translated if len(translated) < len(usable) else None,
            )

    def take_configuration(self, told: BGPConfiguration) -> None:
        if told.as_number is not None:
            self._set(as_number=told.as_number)
        self._set(
            service_cluster_ips=told.service_cluster_ips,
            service_external_ips=told.service_external_ips,
            service_load_balancer_ips=told.service_load_balancer_ips,
            service_load_balancer_aggregation=told.service_load_balancer_aggregation,
        )

    def take_nodes(self, nodes: Iterable[CalicoNode]) -> None:
        networks = dict.fromkeys(network for node in nodes for network in node.networks)
        wide = [network for network in networks if not network.endswith(("/32", "/128"))]
        if wide and not self.fabric.node_networks:
            self._set_fabric(node_networks=tuple(wide))

    def take_peers(self, wired: Wired) -> None:
        """Take over what the peers make; the short form's own wiring counts before theirs."""
        self.warnings += wired.warnings
        self._set(**wired.calico)
        if "wiring" in self.explicit or wired.wiring is None:
            return
        self._set(wiring=wired.wiring, num_allowed_local_as_numbers=wired.num_allowed_local_as_numbers)
        if wired.wiring is Wiring.PEERS:
            told = {"switch_as_number", "switch_as_numbers"} & self.explicit
            self._set_fabric(takes_as_of_peers=not told)
        elif wired.switch_as_number is not None and not self.fabric.leaves:
            self._set_fabric(switch_as_number=wired.switch_as_number)
            if not self.fabric.router_addresses:
                self._set_fabric(router_addresses=wired.switch_addresses)
