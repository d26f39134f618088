"""Calico's Node, and what Calico notes on a v1 Node in annotations."""

from __future__ import annotations

import ipaddress
from typing import ClassVar

from pydantic import Field

from simnet.config.calico_fields import AsNumber, ClusterIdText, InterfaceText, Part, Resource, cluster_id
from simnet.config.calico_fields import as_number as read_as_number
from simnet.config.calico_fields import interface as read_interface
from simnet.config.kubernetes_fields import ApiModel
from simnet.config.kubernetes_source import Source, describe
from simnet.model.calico import CalicoNode
from simnet.model.kubernetes import Pairs

ADDRESS_ANNOTATIONS = ("projectcalico.org/IPv4Address", "projectcalico.org/IPv6Address")
AS_ANNOTATION = "projectcalico.org/ASNumber"
REFLECTOR_ANNOTATION = "projectcalico.org/RouteReflectorClusterID"


class _BgpOfNode(Part):
    other_fields: ClassVar[frozenset[str] | None] = frozenset({"ipv4IPIPTunnelAddr"})
    ipv4_address: InterfaceText = Field("", alias="ipv4Address")
    ipv6_address: InterfaceText = Field("", alias="ipv6Address")
    as_number: AsNumber | None = None
    route_reflector_cluster_id: ClusterIdText = Field("", alias="routeReflectorClusterID")


class _CalicoNodeSpec(ApiModel):
    bgp: _BgpOfNode = Field(default_factory=_BgpOfNode)


class _CalicoNode(Resource):
    spec: _CalicoNodeSpec = Field(default_factory=_CalicoNodeSpec)


def read_node(source: Source, name: str, labels: Pairs) -> CalicoNode | None:
    """Return a node as Calico's own Node tells it, or report what is wrong."""
    checked = source.read(_CalicoNode)
    if checked is None:
        return None
    bgp = checked.spec.bgp
    return _calico_node(
        name, (bgp.ipv4_address, bgp.ipv6_address), bgp.as_number, bgp.route_reflector_cluster_id, labels
    )


def _calico_node(
    name: str, interfaces: tuple[str, ...], as_number: int | None, cluster: str = "", labels: Pairs = ()
) -> CalicoNode:
    """A node of these addresses, with or without the length of their subnets."""
    given = [text for text in interfaces if text]
    networks = tuple(str(ipaddress.ip_interface(text).network) for text in given if "/" in text)
    return CalicoNode(name, tuple(text.partition("/")[0] for text in given), networks, as_number, cluster, labels)


def check_annotations(source: Source) -> None:
    """Report annotations of Calico on a v1 Node that say nothing it could use."""
    annotations = (source.data.get("metadata") or {}).get("annotations") or {}
    for key, check, expected in (
        (ADDRESS_ANNOTATIONS[0], read_interface, "an address with the length of its subnet"),
        (ADDRESS_ANNOTATIONS[1], read_interface, "an address with the length of its subnet"),
        (AS_ANNOTATION, read_as_number, "an AS number"),
        (REFLECTOR_ANNOTATION, cluster_id, "a cluster id, written as an IPv4 address"),
    ):
        value = annotations.get(key)
        if isinstance(value, str) and value:
            try:
                check(value)
            except ValueError:
                source.warn(("metadata", "annotations", key), describe(value), expected, "it is passed over")


def node_of_annotations(name: str, annotations: Pairs) -> CalicoNode | None:
    """Return what Calico noted on a v1 Node; None where it noted nothing that can be read."""
    found = dict(annotations)
    interfaces = []
    for key in ADDRESS_ANNOTATIONS:
        try:
            interfaces.append(read_interface(found[key]))
        except (KeyError, ValueError):
            continue
    try:
        number = read_as_number(found[AS_ANNOTATION])
    except (KeyError, ValueError):
        number = None
    try:
        cluster = cluster_id(found[REFLECTOR_ANNOTATION])
    except (KeyError, ValueError):
        cluster = ""
    if not interfaces and number is None and not cluster:
        return None
    return _calico_node(name, tuple(interfaces), number, cluster)
