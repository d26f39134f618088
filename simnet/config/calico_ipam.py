"""BlockAffinity and IPAMBlock: which blocks nodes hold, and which addresses are in use."""

from __future__ import annotations

import ipaddress
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from simnet.config.calico_fields import Part, Resource, Truth
from simnet.config.kubernetes_fields import ApiModel, CIDRText, refuse
from simnet.config.kubernetes_source import Source
from simnet.model.calico import BlockAffinity, IPAMBlock
from simnet.model.kubernetes import Pairs


class _BlockAffinitySpec(Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset()
    cidr: CIDRText
    node: str
    state: Literal["confirmed", "pending", "pendingDeletion", ""] = "confirmed"
    type: str = "host"
    deleted: Truth = False


class _BlockAffinity(Resource):
    spec: _BlockAffinitySpec


def read_affinity(source: Source, name: str, _labels: Pairs) -> BlockAffinity | None:
    """Return a block's affinity, or report what is wrong."""
    checked = source.read(_BlockAffinity)
    if checked is None or not checked.spec.cidr:
        return None
    spec = checked.spec
    is_of_host = (spec.type or "host") == "host"
    return BlockAffinity(name, spec.cidr, spec.node, spec.state or "confirmed", is_of_host, spec.deleted)


class _Attribute(ApiModel):
    secondary: dict[str, Any] = Field(default_factory=dict)


class _IPAMBlockSpec(Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset(
        {"strictAffinity", "sequenceNumber", "sequenceNumberForAllocation", "unallocated", "affinityClaimTime"}
    )
    cidr: CIDRText
    affinity: str = ""
    allocations: list[int | None] = Field(default_factory=list)
    attributes: list[_Attribute] = Field(default_factory=list)
    deleted: Truth = False

    @model_validator(mode="after")
    def _check_allocations(self) -> _IPAMBlockSpec:
        size = ipaddress.ip_network(self.cidr).num_addresses if self.cidr else 0
        if len(self.allocations) > size > 0:
            raise refuse(f"at most {size} allocations in {self.cidr}", "give the block as Calico keeps it")
        beyond = [
            number for number in self.allocations if number is not None and not 0 <= number < len(self.attributes)
        ]
        if beyond and self.attributes:
            raise refuse(f"allocations that point at one of {len(self.attributes)} attributes", f"mend {beyond[0]}")
        return self


class _IPAMBlock(Resource):
    spec: _IPAMBlockSpec


def read_block(source: Source, name: str, _labels: Pairs) -> IPAMBlock | None:
    """Return a block, or report what is wrong."""
    checked = source.read(_IPAMBlock)
    if checked is None or not checked.spec.cidr:
        return None
    spec = checked.spec
    network = ipaddress.ip_network(spec.cidr)
    used = []
    for offset, number in enumerate(spec.allocations):
        if number is not None:
            holder = spec.attributes[number].secondary.get("node", "") if spec.attributes else ""
            used.append((str(network.network_address + offset), holder if isinstance(holder, str) else ""))
    kind, _, node = spec.affinity.partition(":")
    return IPAMBlock(name, spec.cidr, node if kind == "host" else "", tuple(used), spec.deleted)
