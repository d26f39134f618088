"""IPPool: what it says, and what of it has no effect."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from simnet.config.calico_fields import NOT_MODELLED, Part, Resource, warn_of_unused
from simnet.config.kubernetes_fields import CIDRText, family_of, refuse
from simnet.config.kubernetes_source import Source, describe
from simnet.model.calico import IPPool, Mode
from simnet.model.kubernetes import Pairs

LENGTHS = {"IPv4": (20, 32, 26), "IPv6": (116, 128, 122)}  # of blocks: shortest, longest, default


class _IPPoolSpec(Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset(
        {"namespaceSelector", "assignmentMode", "ipip", "nat-outgoing", "awsSubnetID"}
    )
    cidr: CIDRText
    block_size: int | None = None
    ipip_mode: Literal["Always", "CrossSubnet", "Never", ""] = "Never"
    vxlan_mode: Literal["Always", "CrossSubnet", "Never", ""] = "Never"
    nat_outgoing: bool = False
    disabled: bool = False
    disable_bgp_export: bool = Field(False, alias="disableBGPExport")
    node_selector: str = ""
    allowed_uses: list[Literal["Workload", "Tunnel", "LoadBalancer"]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_block_size(self) -> _IPPoolSpec:
        if not self.cidr:
            return self
        shortest, longest, default = LENGTHS[family_of(self.cidr)]
        length = int(self.cidr.partition("/")[2])
        size = default if self.block_size is None else self.block_size
        if not max(shortest, length) <= size <= longest:
            raise refuse(
                f"a blockSize from {max(shortest, length)} to {longest} in {self.cidr}, whose default is {default}",
                f"write blockSize: {max(default, length)}",
            )
        return self


class _IPPool(Resource):
    spec: _IPPoolSpec


def read_pool(source: Source, name: str, _labels: Pairs) -> IPPool | None:
    """Return a pool, or report what is wrong."""
    checked = source.read(_IPPool)
    if checked is None or not checked.spec.cidr:
        return None
    spec = checked.spec
    if ":" in spec.cidr and spec.vxlan_mode not in ("Never", ""):
        expected = "Never: packets between nodes travel without encapsulation over IPv6"
        source.warn(("spec", "vxlanMode"), spec.vxlan_mode, expected, NOT_MODELLED)
    if spec.node_selector not in ("", "all()"):
        source.warn(("spec", "nodeSelector"), describe(spec.node_selector), "all()", NOT_MODELLED)
    warn_of_unused(source, "namespaceSelector", "awsSubnetID")
    if (source.data.get("spec") or {}).get("assignmentMode") == "Manual":
        source.warn(("spec", "assignmentMode"), "Manual", "Automatic", NOT_MODELLED)
    uses = tuple(spec.allowed_uses) or ("Workload", "Tunnel")
    return IPPool(
        name=name,
        cidr=spec.cidr,
        block_size=spec.block_size or LENGTHS[family_of(spec.cidr)][2],
        ipip_mode=Mode(spec.ipip_mode or "Never"),
        vxlan_mode=Mode(spec.vxlan_mode or "Never"),
        nat_outgoing=spec.nat_outgoing,
        disabled=spec.disabled,
        disable_bgp_export=spec.disable_bgp_export,
        node_selector=spec.node_selector or "all()",
        allowed_uses=uses,
    )
