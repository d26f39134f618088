"""BGPConfiguration, BGPPeer and BGPFilter: who peers with whom, and what passes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from simnet.config.calico_fields import (
    NOT_MODELLED,
    AsNumber,
    DurationText,
    Part,
    PeerIPText,
    Resource,
    SelectorText,
    has_spec,
    warn_of_unused,
)
from simnet.config.kubernetes_fields import ApiModel, CIDRText, refuse
from simnet.config.kubernetes_source import Source, describe
from simnet.model.calico import BGPConfiguration, BGPFilter, BGPFilterRule, BGPPeer
from simnet.model.kubernetes import Pairs


class _CidrEntry(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset()
    cidr: CIDRText = ""  # `{}` is taken and passed over, as confd does


class _BGPConfigurationSpec(Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset(
        {
            "logSeverityScreen", "listenPort", "bindMode", "communities", "prefixAdvertisements", "ignoredInterfaces",
            "nodeMeshPassword", "localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6",
            "ipv4NormalRoutePriority", "ipv4ElevatedRoutePriority", "ipv6NormalRoutePriority",
            "ipv6ElevatedRoutePriority", "programClusterRoutes",
        }
    )  # fmt: skip
    as_number: AsNumber | None = None
    node_to_node_mesh_enabled: bool | None = None
    node_mesh_max_restart_time: DurationText | None = None
    service_cluster_ips: list[_CidrEntry] = Field(default_factory=list, alias="serviceClusterIPs")
    service_external_ips: list[_CidrEntry] = Field(default_factory=list, alias="serviceExternalIPs")
    service_load_balancer_ips: list[_CidrEntry] = Field(default_factory=list, alias="serviceLoadBalancerIPs")
    service_load_balancer_aggregation: Literal["Enabled", "Disabled", ""] = "Enabled"


class _BGPConfiguration(Resource):
    spec: _BGPConfigurationSpec = Field(default_factory=_BGPConfigurationSpec)


def read_configuration(source: Source, name: str, _labels: Pairs) -> BGPConfiguration | None:
    """Return a configuration, or report what is wrong."""
    checked = source.read(_BGPConfiguration)
    if checked is None:
        return None
    spec = checked.spec
    warn_of_unused(source, "ignoredInterfaces", "localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6")
    warn_of_unused(source, "ipv4NormalRoutePriority", "ipv6NormalRoutePriority", "programClusterRoutes")
    if name != "default":
        source.warn((), f"BGPConfiguration {name}", "the global one, named default", NOT_MODELLED)
    return BGPConfiguration(
        name,
        spec.as_number,
        spec.node_to_node_mesh_enabled is not False,
        tuple(entry.cidr for entry in spec.service_cluster_ips if entry.cidr),
        tuple(entry.cidr for entry in spec.service_external_ips if entry.cidr),
        tuple(entry.cidr for entry in spec.service_load_balancer_ips if entry.cidr),
        spec.service_load_balancer_aggregation != "Disabled",
        spec.node_to_node_mesh_enabled is not None,
        spec.node_mesh_max_restart_time,
    )


# --- BGPPeer


class _BGPPeerSpec(Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset(
        {
            "sourceAddress", "password", "ttlSecurity", "reachableBy", "localASNumber", "localWorkloadSelector",
            "failureDetectionMode", "restartMode", "birdGatewayMode",
        }
    )  # fmt: skip
    peer_ip: PeerIPText = Field("", alias="peerIP")
    as_number: AsNumber | None = None
    node: str = ""
    node_selector: SelectorText = ""
    peer_selector: SelectorText = ""
    next_hop_mode: Literal["Auto", "Self", "Keep", ""] = "Auto"
    keep_original_next_hop: bool = False
    filters: list[str] = Field(default_factory=list)
    num_allowed_local_as_numbers: int = Field(0, alias="numAllowedLocalASNumbers")
    reverse_peering: Literal["Auto", "Manual", ""] = "Auto"
    max_restart_time: DurationText | None = None
    keepalive_time: DurationText | None = None

    @model_validator(mode="after")
    def _check_peer(self) -> _BGPPeerSpec:
        if self.peer_ip and self.peer_selector:
            raise refuse("peerIP or peerSelector, not both", "remove one of the two")
        if self.node and self.node_selector:
            raise refuse("node or nodeSelector, not both", "remove one of the two")
        if self.peer_ip and self.as_number is None:
            raise refuse("asNumber beside peerIP", "add the peer's AS number")
        if self.peer_selector and self.as_number is not None:
            raise refuse("no asNumber beside peerSelector: the nodes have their own", "remove asNumber")
        if self.num_allowed_local_as_numbers < 0:
            raise refuse("a numAllowedLocalASNumbers of 0 or more", "write 0 to 10")
        return self


class _BGPPeer(Resource):
    spec: _BGPPeerSpec


def read_peer(source: Source, name: str, _labels: Pairs) -> BGPPeer | None:
    """Return a peer, or report what is wrong; None without a report where there is no spec."""
    if not has_spec(source):
        source.warn((), "no spec", "a BGPPeer with its spec", "nothing, if it is meant for kubectl delete")
        return None
    checked = source.read(_BGPPeer)
    if checked is None:
        return None
    warn_of_unused(
        source, "localASNumber", "localWorkloadSelector", "reachableBy", "birdGatewayMode", "failureDetectionMode",
        "restartMode",
    )  # fmt: skip
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
        is_reversed=spec.reverse_peering != "Manual",
        restart_ps=spec.max_restart_time,
        keepalive_ps=spec.keepalive_time,
    )


# --- BGPFilter


class _PrefixLength(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset()
    min: int | None = None
    max: int | None = None


class _FilterRule(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"communities", "priority", "operations", "interface"})
    action: Literal["Accept", "Reject"]
    cidr: CIDRText = ""
    match_operator: Literal["Equal", "NotEqual", "In", "NotIn", ""] = ""
    source: Literal["RemotePeers", ""] = ""
    prefix_length: _PrefixLength | None = None
    peer_type: Literal["eBGP", "iBGP", ""] = ""
    as_path_prefix: list[AsNumber] = Field(default_factory=list, alias="asPathPrefix")

    @model_validator(mode="after")
    def _check_rule(self) -> _FilterRule:
        if bool(self.cidr) != bool(self.match_operator):
            raise refuse("cidr and matchOperator, both or neither", "add the other, for example matchOperator: In")
        if self.prefix_length is not None and not self.cidr:
            raise refuse("cidr beside prefixLength", "add cidr and matchOperator: In")
        return self

    def value(self) -> BGPFilterRule:
        lengths = None
        if self.prefix_length is not None:
            shortest = int(self.cidr.partition("/")[2])
            longest = 128 if ":" in self.cidr else 32
            told = self.prefix_length
            lengths = (
                shortest if told.min is None else max(shortest, told.min), longest if told.max is None else told.max
            )  # fmt: skip
        return BGPFilterRule(
            self.action, self.cidr, self.match_operator, self.source, lengths, self.peer_type,
            tuple(self.as_path_prefix),
        )  # fmt: skip


class _BGPFilterSpec(Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset()
    export_v4: list[_FilterRule] = Field(default_factory=list, alias="exportV4")
    import_v4: list[_FilterRule] = Field(default_factory=list, alias="importV4")
    export_v6: list[_FilterRule] = Field(default_factory=list, alias="exportV6")
    import_v6: list[_FilterRule] = Field(default_factory=list, alias="importV6")

    @model_validator(mode="after")
    def _check_families(self) -> _BGPFilterSpec:
        for rules, is_six in (
            (self.export_v4, False), (self.import_v4, False), (self.export_v6, True), (self.import_v6, True)
        ):  # fmt: skip
            wrong = [rule.cidr for rule in rules if rule.cidr and (":" in rule.cidr) != is_six]
            if wrong:
                raise refuse(f"CIDRs of one family in a list; {wrong[0]} is of the other", "move the rule")
        return self


class _BGPFilter(Resource):
    spec: _BGPFilterSpec = Field(default_factory=_BGPFilterSpec)


_DIRECTIONS = ("exportV4", "importV4", "exportV6", "importV6")
# What a rule may ask of a route that simnet's routes do not carry; such a rule is left out
_UNKNOWN_MATCHES = ("communities", "priority", "interface")


def read_filter(source: Source, name: str, _labels: Pairs) -> BGPFilter | None:
    """Return a filter without the rules that ask for what is not modelled (a warning each), or report what is wrong."""
    checked = source.read(_BGPFilter)
    if checked is None:
        return None
    raw = source.data.get("spec")
    spec: dict[str, Any] = raw if isinstance(raw, dict) else {}
    kept: dict[str, tuple[BGPFilterRule, ...]] = {}
    for direction, rules in zip(
        _DIRECTIONS,
        (checked.spec.export_v4, checked.spec.import_v4, checked.spec.export_v6, checked.spec.import_v6),
        strict=True,
    ):
        written = spec.get(direction) or []
        kept[direction] = tuple(
            rule.value() for number, rule in enumerate(rules) if _is_modelled(source, direction, number, written)
        )
    return BGPFilter(name, *(kept[direction] for direction in _DIRECTIONS))


def _is_modelled(source: Source, direction: str, number: int, written: list[dict[str, Any]]) -> bool:
    rule = written[number]
    path = ("spec", direction, number)
    if rule.get("operations"):
        source.warn((*path, "operations"), "operations", "none: routes are taken as they are", NOT_MODELLED)
    unknown = [key for key in _UNKNOWN_MATCHES if rule.get(key)]
    for key in unknown:
        source.warn(
            (*path, key), describe(rule[key]), "cidr, source, prefixLength, peerType or asPathPrefix",
            "the whole rule is left out, since routes here do not carry it",
        )  # fmt: skip
    return not unknown
