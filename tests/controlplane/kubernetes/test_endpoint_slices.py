"""Endpoint slices: what the endpoint slice controller derives, mirrors, or leaves alone."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from simnet.controlplane.kubernetes.endpoint_slices import endpoint_slices
from simnet.controlplane.kubernetes.scheduling import ScheduledPod
from simnet.model.kubernetes import (
    ContainerPort,
    EndpointAddress,
    EndpointPort,
    Endpoints,
    EndpointSlice,
    EndpointSubset,
    Service,
    ServicePort,
)

WEB = Service(
    "default",
    "web",
    cluster_ip="10.96.0.1",
    ports=(ServicePort("http", "TCP", 80, "http"),),
    selector=(("app", "web"),),
)


def pod(name: str, **changes: object) -> ScheduledPod:
    made = ScheduledPod(
        namespace="default",
        name=name,
        labels=(("app", "web"), ("tier", "front")),
        node="node-1",
        addresses=(f"10.0.0.{len(name)}",),
        host_network=False,
        ready=True,
        terminating=False,
        container_ports=(ContainerPort("http", 8080),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def derived(*pods: ScheduledPod, service: Service = WEB, **given_objects: object) -> tuple[EndpointSlice, ...]:
    arguments = {"given": (), "endpoints": (), "zone_of_node": {"node-1": "a"}} | given_objects
    return endpoint_slices([service], pods, **arguments)  # type: ignore[arg-type]


def test_a_selector_picks_pods_whose_labels_include_it_in_the_same_namespace() -> None:
    (only,) = derived(pod("a"), pod("bb", labels=(("app", "db"),)), pod("ccc", namespace="other"))
    assert [endpoint.target_ref.name for endpoint in only.endpoints if endpoint.target_ref] == ["a"]
    assert only.service_name == "web"
    assert only.endpoints[0].node_name == "node-1"
    assert only.endpoints[0].zone == "a"


def test_a_named_target_port_is_looked_up_in_each_pod() -> None:
    slices = derived(
        pod("a"), pod("bb", container_ports=(ContainerPort("http", 9090),)), pod("ccc", container_ports=())
    )
    found = {tuple(port.port for port in each.ports): len(each.endpoints) for each in slices}
    assert found == {(8080,): 1, (9090,): 1, (): 1}


def test_a_port_name_of_another_protocol_does_not_count() -> None:
    (only,) = derived(pod("a", container_ports=(ContainerPort("http", 8080, "UDP"),)))
    assert only.ports == ()


def test_readiness_and_termination_become_conditions() -> None:
    (only,) = derived(pod("a"), pod("bb", ready=False), pod("ccc", terminating=True))
    conditions = [
        (each.conditions.ready, each.conditions.serving, each.conditions.terminating) for each in only.endpoints
    ]
    assert conditions == [(True, True, False), (False, False, False), (False, True, True)]
    (published,) = derived(pod("bb", ready=False), service=replace(WEB, publish_not_ready_addresses=True))
    assert published.endpoints[0].conditions.ready is True


def test_given_slices_are_taken_and_nothing_is_derived_beside_them() -> None:
    given_slice = EndpointSlice("default", "web-x", "web", "IPv4")
    assert derived(pod("a"), given=(given_slice,)) == (given_slice,)


def test_an_endpoints_object_is_mirrored_before_the_selector_is_asked() -> None:
    subset = EndpointSubset(
        addresses=(EndpointAddress("10.1.1.1"),),
        not_ready_addresses=(EndpointAddress("10.1.1.2"),),
        ports=(EndpointPort("http", "TCP", 8443),),
    )
    (only,) = derived(pod("a"), endpoints=(Endpoints("default", "web", (subset,)),))
    assert [(each.addresses[0], each.conditions.ready) for each in only.endpoints] == [
        ("10.1.1.1", True),
        ("10.1.1.2", False),
    ]
    assert only.ports[0].port == 8443


def test_a_service_without_selector_has_no_endpoints_of_its_own() -> None:
    assert derived(pod("a"), service=replace(WEB, selector=None)) == ()


def test_families_get_slices_of_their_own() -> None:
    dual = replace(WEB, ip_families=("IPv4", "IPv6"))
    slices = derived(pod("a", addresses=("10.0.0.1", "fd00::1")), pod("bb"), service=dual)
    assert {each.address_type: len(each.endpoints) for each in slices} == {"IPv4": 2, "IPv6": 1}


def test_traffic_distribution_writes_zone_and_node_hints() -> None:
    (close,) = derived(pod("a"), service=replace(WEB, traffic_distribution="PreferClose"))
    assert close.endpoints[0].hints_for_zones == ("a",)
    assert close.endpoints[0].hints_for_nodes is None
    (same,) = derived(pod("a"), service=replace(WEB, traffic_distribution="PreferSameNode"))
    assert same.endpoints[0].hints_for_nodes == ("node-1",)
    (plain,) = derived(pod("a"))
    assert plain.endpoints[0].hints_for_zones is None


@given(st.integers(0, 350))
def test_no_endpoint_is_lost_where_slices_are_cut_at_a_hundred(count: int) -> None:
    pods = [replace(pod("p"), name=f"p{i}", addresses=(f"10.{i // 250}.0.{i % 250}",)) for i in range(count)]
    slices = derived(*pods)
    assert sum(len(each.endpoints) for each in slices) == count
    assert all(len(each.endpoints) <= 100 for each in slices)
    assert len({each.name for each in slices}) == len(slices)
