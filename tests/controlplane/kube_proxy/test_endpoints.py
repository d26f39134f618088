"""Which endpoints a service port has, and which of them a node uses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simnet.controlplane.kube_proxy.endpoints import (
    EndpointInfo,
    endpoints_by_service_port,
    select_endpoints,
)
from simnet.controlplane.kube_proxy.service_ports import ServicePortInfo
from simnet.model.iptables.ruleset import Family
from simnet.model.kubernetes import Endpoint, EndpointConditions, EndpointPort, EndpointSlice

PORT = ServicePortInfo("ns", "svc", "http", "tcp", "172.30.0.1", 80)
EXTERNAL_LOCAL = replace(PORT, node_port=30080, external_policy_local=True)
INTERNAL_LOCAL = replace(PORT, internal_policy_local=True)
HERE, ELSEWHERE = "here", "elsewhere"


def endpoint(
    text: str, node: str | None = ELSEWHERE, *, state: str = "ready", **hints: tuple[str, ...]
) -> EndpointInfo:
    ip, _, port = text.rpartition(":")
    conditions = {
        "ready": (True, True, False),
        "draining": (False, True, True),  # terminating, still serving
        "stopping": (False, False, True),
        "starting": (False, False, False),
    }[state]
    return EndpointInfo(text, ip, int(port), *conditions, node, **hints)


def select(port: ServicePortInfo, *endpoints: EndpointInfo, zone: str | None = None, uses_node_hints: bool = False):
    selected = select_endpoints(endpoints, port, node_name=HERE, zone=zone, uses_node_hints=uses_node_hints)
    return (
        [found.text for found in selected.cluster],
        [found.text for found in selected.local],
        [found.text for found in selected.reachable],
        selected.has_endpoints,
    )


def slice_of(name: str, *endpoints: Endpoint, ports=None, address_type="IPv4", service="svc") -> EndpointSlice:
    ports = (EndpointPort("http", "TCP", 80),) if ports is None else ports
    return EndpointSlice("ns", name, service, address_type, endpoints, ports)


def texts(*slices: EndpointSlice, family=Family.IPV4, protocol="tcp") -> list[str]:
    held = endpoints_by_service_port(slices, family)
    return [found.text for found in held.get(("ns", "svc", "http", protocol), ())]


def test_endpoints_are_in_byte_order_of_their_text():
    found = texts(slice_of("a", *(Endpoint((ip,)) for ip in ("10.0.0.2", "10.0.0.10", "10.1.1.1", "10.1.1.11"))))
    assert found == ["10.0.0.10:80", "10.0.0.2:80", "10.1.1.11:80", "10.1.1.1:80"]


def test_slices_of_the_other_family_and_addresses_beyond_the_first_are_not_used():
    four = slice_of("a", Endpoint(("10.0.0.1", "10.0.0.9")))
    six = slice_of("b", Endpoint(("fd00::1",)), address_type="IPv6")
    assert texts(four, six) == ["10.0.0.1:80"]
    assert texts(four, six, family=Family.IPV6) == ["[fd00::1]:80"]


def test_ports_match_by_name_and_protocol_and_nameless_or_portless_ones_are_ignored():
    ports = (
        EndpointPort("http", "TCP", 8080),
        EndpointPort("http", "UDP", 53),
        EndpointPort(None, "TCP", 1),
        EndpointPort("http", "TCP", None),
        EndpointPort("http", "TCP", 0),
    )
    held = slice_of("a", Endpoint(("10.0.0.1",)), ports=ports)
    assert texts(held) == ["10.0.0.1:8080"]
    assert texts(held, protocol="udp") == ["10.0.0.1:53"]


def test_a_terminating_entry_never_replaces_an_earlier_one_and_another_does():
    def state_of(*conditions: EndpointConditions) -> EndpointInfo:
        slices = [slice_of(f"s{i}", Endpoint(("10.0.0.1",), held)) for i, held in enumerate(conditions)]
        return endpoints_by_service_port(slices, Family.IPV4)["ns", "svc", "http", "tcp"][0]

    ready, draining = EndpointConditions(True), EndpointConditions(False, True, True)
    assert state_of(ready, draining).is_ready
    assert state_of(draining, ready).is_ready
    assert state_of(EndpointConditions(False, False), draining).is_terminating is False
    assert state_of(ready, EndpointConditions(False)).is_ready is False


def test_conditions_that_are_not_said_count_as_ready_serving_and_not_terminating():
    info = endpoints_by_service_port([slice_of("a", Endpoint(("10.0.0.1",)))], Family.IPV4)
    assert info["ns", "svc", "http", "tcp"] == (EndpointInfo("10.0.0.1:80", "10.0.0.1", 80),)


def test_terminating_endpoints_serve_when_nothing_else_does():
    draining, stopping = endpoint("10.0.0.1:80", state="draining"), endpoint("10.0.0.2:80", state="stopping")
    starting, ready = endpoint("10.0.0.3:80", state="starting"), endpoint("10.0.0.4:80")
    assert select(PORT, draining, stopping, starting) == (["10.0.0.1:80"], [], ["10.0.0.1:80"], True)
    assert select(PORT, draining, stopping, starting, ready)[0] == ["10.0.0.4:80"]
    assert select(PORT, stopping, starting) == ([], [], [], False)


def test_the_two_policies_fall_back_to_terminating_endpoints_separately():
    ready, draining = endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80", HERE, state="draining")
    both = ["10.0.0.1:80", "10.0.0.2:80"]
    assert select(EXTERNAL_LOCAL, ready, draining) == (["10.0.0.1:80"], ["10.0.0.2:80"], both, True)


def test_internal_policy_local_has_endpoints_if_any_node_has_one():
    assert select(INTERNAL_LOCAL, endpoint("10.0.0.1:80")) == ([], [], [], True)
    assert select(INTERNAL_LOCAL, endpoint("10.0.0.1:80", state="draining")) == ([], [], [], True)
    assert select(INTERNAL_LOCAL, endpoint("10.0.0.1:80", state="starting")) == ([], [], [], False)
    assert select(INTERNAL_LOCAL, endpoint("10.0.0.1:80", HERE)) == ([], ["10.0.0.1:80"], ["10.0.0.1:80"], True)


def test_an_endpoint_without_a_node_is_not_local():
    assert select(INTERNAL_LOCAL, endpoint("10.0.0.1:80", None))[1] == []


@pytest.mark.parametrize(
    "zone, hints, expected",
    [
        ("a", (("a",), ("b",)), ["10.0.0.1:80"]),
        ("b", (("a",), ("a", "b")), ["10.0.0.2:80"]),
        ("c", (("a",), ("b",)), ["10.0.0.1:80", "10.0.0.2:80"]),  # nobody is hinted for this zone
        ("a", (("a",), ()), ["10.0.0.1:80", "10.0.0.2:80"]),  # one endpoint without a hint switches it off
        (None, (("a",), ("b",)), ["10.0.0.1:80", "10.0.0.2:80"]),  # a node without a zone
    ],
)
def test_zone_hints_are_followed_only_where_every_ready_endpoint_has_one(zone, hints, expected):
    endpoints = [endpoint(f"10.0.0.{i + 1}:80", zone_hints=hint) for i, hint in enumerate(hints)]
    unready = endpoint("10.0.0.9:80", state="starting")  # its missing hint does not count
    assert select(PORT, *endpoints, unready, zone=zone)[0] == expected


def test_topology_does_not_narrow_what_is_local_and_does_not_apply_to_terminating_endpoints():
    here, there = endpoint("10.0.0.1:80", HERE, zone_hints=("b",)), endpoint("10.0.0.2:80", zone_hints=("a",))
    assert select(EXTERNAL_LOCAL, here, there, zone="a")[:2] == (["10.0.0.2:80"], ["10.0.0.1:80"])
    draining = [endpoint(f"10.0.0.{i}:80", state="draining", zone_hints=(zone,)) for i, zone in ((1, "a"), (2, "b"))]
    assert select(PORT, *draining, zone="a")[0] == ["10.0.0.1:80", "10.0.0.2:80"]


def test_node_hints_count_only_with_the_feature_and_come_before_zone_hints():
    near = endpoint("10.0.0.1:80", node_hints=(HERE,), zone_hints=("b",))
    far = endpoint("10.0.0.2:80", node_hints=(ELSEWHERE,), zone_hints=("a",))
    assert select(PORT, near, far, zone="a", uses_node_hints=True)[0] == ["10.0.0.1:80"]
    assert select(PORT, near, far, zone="a")[0] == ["10.0.0.2:80"]
