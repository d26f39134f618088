"""Calico's resources, as `calicoctl get -o yaml` or `kubectl get` prints them, as typed values.

Both API groups are read: projectcalico.org/v3 (calicoctl, Calico's API server) and crd.projectcalico.org/v1 (kubectl).
A field that the simulation passes over where it would change a packet's way is a warning that says so: encapsulation,
node selectors, filters other than the one that makes wiring S2, reflectors among nodes.
Source: projectcalico/calico, api/pkg/apis/projectcalico/v3 and libcalico-go/lib/apis/{v3,crd.projectcalico.org/v1}.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from simnet.config.kubernetes_fields import ApiModel, CIDRText, family_of, parse_ip, refuse
from simnet.config.kubernetes_source import Source, describe
from simnet.model.calico import (
    BGPConfiguration,
    BGPFilter,
    BGPFilterRule,
    BGPPeer,
    BlockAffinity,
    CalicoNode,
    CalicoValue,
    IPAMBlock,
    IPPool,
    Mode,
)
from simnet.model.kubernetes import Pairs

LENGTHS = {"IPv4": (20, 32, 26), "IPv6": (116, 128, 122)}  # of blocks: shortest, longest, default
NOT_MODELLED = "it is read and has no effect yet; what simnet says is as if it were not there"
ADDRESS_ANNOTATIONS = ("projectcalico.org/IPv4Address", "projectcalico.org/IPv6Address")
AS_ANNOTATION = "projectcalico.org/ASNumber"


def read_calico(source: Source, name: str, labels: Pairs) -> CalicoValue | None:
    """Return what a resource says, or report every field that is wrong and return None.

    None without a report for an object that has no spec where one is needed, as `kubectl delete -f` takes it.
    """
    return _READERS[source.kind](source, name, labels)


# --- fields


def _as_number(value: object) -> int:
    """A number, its text, or high and low half with a dot between (RFC 5396)."""
    number = -1
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        parts = value.split(".")
        if all(part.isascii() and part.isdecimal() and len(part) <= 10 for part in parts) and len(parts) <= 2:
            high, low = (0, int(parts[0])) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
            number = high * 65536 + low if len(parts) == 1 or max(high, low) < 65536 else -1
    if not 1 <= number <= 4294967295:
        raise refuse("an AS number from 1 to 4294967295", "for example 64512")
    return number


def _interface(text: str) -> str:
    """An address with or without the length of its subnet."""
    address, slash, length = text.partition("/")
    try:
        full = parse_ip(address)
        ipaddress.ip_interface(f"{full}/{length}" if slash else full)
    except ValueError:
        raise refuse("an address, with the length of its subnet", "for example 10.0.0.11/24") from None
    return f"{full}/{length}" if slash else full


def _peer_ip(text: str) -> str:
    """An address, with a port behind it or without: 10.0.0.1, 10.0.0.1:179, [fd00::1]:179."""
    address = text
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        port = "179"
    try:
        if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
            raise ValueError("not a port")
        return parse_ip(address)
    except ValueError:
        raise refuse("an IP address, with a port or without", "for example 10.0.0.1 or [fd00::1]:179") from None


def _truth(value: object) -> object:
    """Crd.projectcalico.org/v1 writes `deleted: "false"`."""
    return {"true": True, "false": False, "": False}.get(value, value) if isinstance(value, str) else value


AsNumber = Annotated[int, BeforeValidator(_as_number)]
InterfaceText = Annotated[str, AfterValidator(_interface)]
PeerIPText = Annotated[str, AfterValidator(lambda text: _peer_ip(text) if text else "")]
Truth = Annotated[bool, BeforeValidator(_truth)]
_OBJECT = frozenset({"apiVersion", "kind", "metadata", "status"})


class _Resource(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = _OBJECT


class _Part(ApiModel):
    """A spec whose other fields are listed, so that a misspelt one is told."""


def _warn_of_unused(source: Source, *fields: str) -> None:
    """Tell of fields that are there and change a real cluster's routes, and not the simulated one's."""
    spec = source.data.get("spec")
    for field in fields:
        value = spec.get(field) if isinstance(spec, dict) else None
        if value:
            source.warn(("spec", field), describe(value), f"no {field}", NOT_MODELLED)


def _has_spec(source: Source) -> bool:
    return isinstance(source.data.get("spec"), dict)


# --- IPPool


class _IPPoolSpec(_Part):
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


class _IPPool(_Resource):
    spec: _IPPoolSpec


def _read_pool(source: Source, name: str, _labels: Pairs) -> IPPool | None:
    checked = source.read(_IPPool)
    if checked is None or not checked.spec.cidr:
        return None
    spec = checked.spec
    if ":" in spec.cidr and spec.vxlan_mode not in ("Never", ""):
        expected = "Never: packets between nodes travel without encapsulation over IPv6"
        source.warn(("spec", "vxlanMode"), spec.vxlan_mode, expected, NOT_MODELLED)
    if spec.node_selector not in ("", "all()"):
        source.warn(("spec", "nodeSelector"), describe(spec.node_selector), "all()", NOT_MODELLED)
    _warn_of_unused(source, "namespaceSelector", "awsSubnetID")
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


# --- BGPConfiguration


class _CidrEntry(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset()
    cidr: CIDRText = ""  # `{}` is taken and passed over, as confd does


class _BGPConfigurationSpec(_Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset(
        {
            "logSeverityScreen", "listenPort", "bindMode", "communities", "prefixAdvertisements", "ignoredInterfaces",
            "nodeMeshPassword", "nodeMeshMaxRestartTime", "localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6",
            "ipv4NormalRoutePriority", "ipv4ElevatedRoutePriority", "ipv6NormalRoutePriority",
            "ipv6ElevatedRoutePriority", "programClusterRoutes",
        }
    )  # fmt: skip
    as_number: AsNumber | None = None
    node_to_node_mesh_enabled: bool = True
    service_cluster_ips: list[_CidrEntry] = Field(default_factory=list, alias="serviceClusterIPs")
    service_external_ips: list[_CidrEntry] = Field(default_factory=list, alias="serviceExternalIPs")
    service_load_balancer_ips: list[_CidrEntry] = Field(default_factory=list, alias="serviceLoadBalancerIPs")
    service_load_balancer_aggregation: Literal["Enabled", "Disabled", ""] = "Enabled"


class _BGPConfiguration(_Resource):
    spec: _BGPConfigurationSpec = Field(default_factory=_BGPConfigurationSpec)


def _read_configuration(source: Source, name: str, _labels: Pairs) -> BGPConfiguration | None:
    checked = source.read(_BGPConfiguration)
    if checked is None:
        return None
    spec = checked.spec
    _warn_of_unused(source, "ignoredInterfaces", "localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6")
    _warn_of_unused(source, "ipv4NormalRoutePriority", "ipv6NormalRoutePriority", "programClusterRoutes")
    if name != "default":
        source.warn((), f"BGPConfiguration {name}", "the global one, named default", NOT_MODELLED)
    return BGPConfiguration(
        name,
        spec.as_number,
        spec.node_to_node_mesh_enabled,
        tuple(entry.cidr for entry in spec.service_cluster_ips if entry.cidr),
        tuple(entry.cidr for entry in spec.service_external_ips if entry.cidr),
        tuple(entry.cidr for entry in spec.service_load_balancer_ips if entry.cidr),
        spec.service_load_balancer_aggregation != "Disabled",
    )


# --- BGPPeer, BGPFilter


class _BGPPeerSpec(_Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset(
        {
            "sourceAddress", "password", "maxRestartTime", "ttlSecurity", "reachableBy", "localASNumber",
            "localWorkloadSelector", "reversePeering", "keepaliveTime", "failureDetectionMode", "restartMode",
            "birdGatewayMode",
        }
    )  # fmt: skip
    peer_ip: PeerIPText = Field("", alias="peerIP")
    as_number: AsNumber | None = None
    node: str = ""
    node_selector: str = ""
    peer_selector: str = ""
    next_hop_mode: Literal["Auto", "Self", "Keep", ""] = "Auto"
    keep_original_next_hop: bool = False
    filters: list[str] = Field(default_factory=list)
    num_allowed_local_as_numbers: int = Field(0, alias="numAllowedLocalASNumbers")

    @model_validator(mode="after")
    def _check_peer(self) -> _BGPPeerSpec:
        if self.peer_ip and self.peer_selector:
            raise refuse("peerIP or peerSelector, not both", "remove one of the two")
        if self.node and self.node_selector:
            raise refuse("node or nodeSelector, not both", "remove one of the two")
        if self.peer_ip and self.as_number is None:
            raise refuse("asNumber beside peerIP", "add the peer's AS number")
        return self


class _BGPPeer(_Resource):
    spec: _BGPPeerSpec


def _read_peer(source: Source, name: str, _labels: Pairs) -> BGPPeer | None:
    if not _has_spec(source):
        source.warn((), "no spec", "a BGPPeer with its spec", "nothing, if it is meant for kubectl delete")
        return None
    checked = source.read(_BGPPeer)
    if checked is None:
        return None
    _warn_of_unused(source, "localASNumber", "localWorkloadSelector", "reachableBy", "birdGatewayMode")
    spec = checked.spec
    return BGPPeer(
        name=name,
        peer_ip=spec.peer_ip,
        as_number=spec.as_number,
        node=spec.node,
        node_selector=spec.node_selector,
        peer_selector=spec.peer_selector,
        next_hop_mode=spec.next_hop_mode or "Auto",
        keep_original_next_hop=spec.keep_original_next_hop,
        filters=tuple(spec.filters),
        num_allowed_local_as_numbers=spec.num_allowed_local_as_numbers,
    )


class _FilterRule(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset(
        {"prefixLength", "communities", "asPathPrefix", "priority", "operations", "peerType"}
    )
    action: Literal["Accept", "Reject"]
    cidr: CIDRText = ""
    match_operator: Literal["Equal", "NotEqual", "In", "NotIn", ""] = ""
    source: Literal["RemotePeers", ""] = ""
    interface: str = ""


class _BGPFilterSpec(_Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset()
    export_v4: list[_FilterRule] = Field(default_factory=list, alias="exportV4")
    import_v4: list[_FilterRule] = Field(default_factory=list, alias="importV4")
    export_v6: list[_FilterRule] = Field(default_factory=list, alias="exportV6")
    import_v6: list[_FilterRule] = Field(default_factory=list, alias="importV6")


class _BGPFilter(_Resource):
    spec: _BGPFilterSpec = Field(default_factory=_BGPFilterSpec)


def _read_filter(source: Source, name: str, _labels: Pairs) -> BGPFilter | None:
    checked = source.read(_BGPFilter)
    if checked is None:
        return None

    def rules(of: list[_FilterRule]) -> tuple[BGPFilterRule, ...]:
        return tuple(BGPFilterRule(r.action, r.cidr, r.match_operator, r.source, r.interface) for r in of)

    spec = checked.spec
    value = BGPFilter(name, rules(spec.export_v4), rules(spec.import_v4), rules(spec.export_v6), rules(spec.import_v6))
    if not value.withholds_learned_only:
        source.warn(
            (), "rules beyond `export: Reject, source: RemotePeers`", "the filter that makes wiring S2", NOT_MODELLED
        )
    return value


# --- blocks


class _BlockAffinitySpec(_Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset()
    cidr: CIDRText
    node: str
    state: Literal["confirmed", "pending", "pendingDeletion", ""] = "confirmed"
    type: str = "host"
    deleted: Truth = False


class _BlockAffinity(_Resource):
    spec: _BlockAffinitySpec


def _read_affinity(source: Source, name: str, _labels: Pairs) -> BlockAffinity | None:
    checked = source.read(_BlockAffinity)
    if checked is None or not checked.spec.cidr:
        return None
    spec = checked.spec
    is_of_host = (spec.type or "host") == "host"
    return BlockAffinity(name, spec.cidr, spec.node, spec.state or "confirmed", is_of_host, spec.deleted)


class _Attribute(ApiModel):
    secondary: dict[str, Any] = Field(default_factory=dict)


class _IPAMBlockSpec(_Part):
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


class _IPAMBlock(_Resource):
    spec: _IPAMBlockSpec


def _read_block(source: Source, name: str, _labels: Pairs) -> IPAMBlock | None:
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


# --- Node


class _BgpOfNode(_Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"ipv4IPIPTunnelAddr"})
    ipv4_address: InterfaceText = Field("", alias="ipv4Address")
    ipv6_address: InterfaceText = Field("", alias="ipv6Address")
    as_number: AsNumber | None = None
    route_reflector_cluster_id: str = Field("", alias="routeReflectorClusterID")


class _CalicoNodeSpec(ApiModel):
    bgp: _BgpOfNode = Field(default_factory=_BgpOfNode)


class _CalicoNode(_Resource):
    spec: _CalicoNodeSpec = Field(default_factory=_CalicoNodeSpec)


def _read_node(source: Source, name: str, labels: Pairs) -> CalicoNode | None:
    checked = source.read(_CalicoNode)
    if checked is None:
        return None
    bgp = checked.spec.bgp
    if bgp.route_reflector_cluster_id:
        source.warn(
            ("spec", "bgp", "routeReflectorClusterID"), bgp.route_reflector_cluster_id, "no reflector among nodes",
            NOT_MODELLED,
        )  # fmt: skip
    return calico_node(
        name, (bgp.ipv4_address, bgp.ipv6_address), bgp.as_number, bgp.route_reflector_cluster_id, labels
    )


def calico_node(
    name: str, interfaces: tuple[str, ...], as_number: int | None, cluster_id: str = "", labels: Pairs = ()
) -> CalicoNode:
    """Return a node of these addresses, with or without the length of their subnets."""
    given = [text for text in interfaces if text]
    networks = tuple(str(ipaddress.ip_interface(text).network) for text in given if "/" in text)
    return CalicoNode(name, tuple(text.partition("/")[0] for text in given), networks, as_number, cluster_id, labels)


def check_annotations(source: Source) -> None:
    """Report annotations of Calico on a v1 Node that say nothing it could use."""
    annotations = (source.data.get("metadata") or {}).get("annotations") or {}
    for key, check in (
        (ADDRESS_ANNOTATIONS[0], _interface),
        (ADDRESS_ANNOTATIONS[1], _interface),
        (AS_ANNOTATION, _as_number),
    ):
        value = annotations.get(key)
        if isinstance(value, str) and value:
            try:
                check(value)
            except ValueError:
                expected = "an AS number" if key == AS_ANNOTATION else "an address with the length of its subnet"
                source.warn(("metadata", "annotations", key), describe(value), expected, "it is passed over")


def node_of_annotations(name: str, annotations: Pairs) -> CalicoNode | None:
    """Return what Calico noted on a v1 Node; None where it noted nothing that can be read."""
    found = dict(annotations)
    interfaces = []
    for key in ADDRESS_ANNOTATIONS:
        try:
            interfaces.append(_interface(found[key]))
        except (KeyError, ValueError):
            continue
    try:
        number = _as_number(found[AS_ANNOTATION])
    except (KeyError, ValueError):
        number = None
    return calico_node(name, tuple(interfaces), number) if interfaces or number is not None else None


_READERS: dict[str, Callable[[Source, str, Pairs], CalicoValue | None]] = {
    "IPPool": _read_pool,
    "BGPConfiguration": _read_configuration,
    "BGPPeer": _read_peer,
    "BGPFilter": _read_filter,
    "BlockAffinity": _read_affinity,
    "IPAMBlock": _read_block,
    "Node": _read_node,
}
