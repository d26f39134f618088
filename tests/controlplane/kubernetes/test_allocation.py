"""Cluster IPs, node ports and load-balancer IPs: what the API server promises about them."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simnet.controlplane.kubernetes.allocation import allocate
from simnet.errors import ModelError
from simnet.model.kubernetes import LoadBalancerIngress, Service, ServicePort

RANGES = {"service_cidrs": ("10.96.0.0/20",), "node_port_range": (30000, 30200)}


def services(count: int) -> list[Service]:
    return [
        Service(
            namespace="default",
            name=f"s{number}",
            type=("ClusterIP", "NodePort", "LoadBalancer")[number % 3],
            ports=(ServicePort("a", "TCP", 80, 80), ServicePort("b", "UDP", 80, 80)),
        )
        for number in range(count)
    ]


@given(st.permutations(range(12)))
def test_what_a_service_is_given_does_not_depend_on_the_order_of_the_files(order: list[int]) -> None:
    plain = {each.name: each for each in allocate(services(12), **RANGES)}
    shuffled = {each.name: each for each in allocate([services(12)[i] for i in order], **RANGES)}
    assert plain == shuffled


def test_no_two_services_share_an_address_or_a_node_port_and_all_lie_in_their_ranges() -> None:
    allocated = allocate(services(150), **RANGES)
    addresses = [each.cluster_ip for each in allocated]
    assert len(set(addresses)) == 150
    assert all(ipaddress.ip_address(address) in ipaddress.ip_network("10.96.0.0/20") for address in addresses)
    ports = [(port.protocol, port.node_port) for each in allocated for port in each.ports if each.type != "ClusterIP"]
    assert len(set(ports)) == len(ports) == 200
    assert all(30000 <= number <= 30200 for _, number in ports)


def test_what_is_given_stays_and_is_not_handed_out_again() -> None:
    first = allocate(services(3), **RANGES)
    given_away = replace(services(3)[0], cluster_ip=first[1].cluster_ip, cluster_ips=(first[1].cluster_ip,))
    again = allocate([given_away, *services(3)[1:]], **RANGES)
    assert again[0].cluster_ip == first[1].cluster_ip
    assert again[1].cluster_ip != first[1].cluster_ip


def test_one_port_number_over_tcp_and_udp_gets_one_node_port() -> None:
    tcp, udp = allocate(services(3), **RANGES)[1].ports
    assert tcp.node_port == udp.node_port >= 30000


def test_headless_and_external_name_services_get_nothing() -> None:
    headless = Service("default", "h", cluster_ip="None", ports=(ServicePort("", "TCP", 80, 80),))
    alias = Service("default", "x", type="ExternalName", external_name="example.org")
    assert allocate([headless, alias], **RANGES) == (headless, alias)


def test_a_load_balancer_service_takes_its_address_from_status_then_spec_then_pool_then_none() -> None:
    base = Service("default", "l", type="LoadBalancer", ports=(ServicePort("", "TCP", 80, 80),))
    status = replace(base, load_balancer_ingress=(LoadBalancerIngress(ip="203.0.113.9"),))
    spec = replace(base, load_balancer_ip="203.0.113.8")

    def ips(service: Service, pool: str = "") -> list[str]:
        return [each.ip for each in allocate([service], load_balancer_pool=pool, **RANGES)[0].load_balancer_ingress]

    assert ips(status, "198.18.0.0/24") == ["203.0.113.9"]
    assert ips(spec, "198.18.0.0/24") == ["203.0.113.8"]
    assert ipaddress.ip_address(ips(base, "198.18.0.0/24")[0]) in ipaddress.ip_network("198.18.0.0/24")
    assert ips(base) == []


def test_local_traffic_policy_of_a_load_balancer_gets_a_health_check_node_port() -> None:
    service = replace(services(3)[2], external_traffic_policy="Local")
    check = allocate([service], **RANGES)[0].health_check_node_port
    assert 30000 <= check <= 30200


def test_a_full_range_is_an_error_that_names_it() -> None:
    with pytest.raises(ModelError, match=r"10\.96\.0\.0/30 has no free address left for default/"):
        allocate(services(10), service_cidrs=("10.96.0.0/30",), node_port_range=(30000, 30200))
    with pytest.raises(ModelError, match="the node port range 30000-30001 has no free port left"):
        allocate(services(30), service_cidrs=("10.96.0.0/20",), node_port_range=(30000, 30001))


def test_a_family_without_a_service_cidr_gets_no_address() -> None:
    dual = Service("default", "d", ip_families=("IPv6", "IPv4"), ports=(ServicePort("", "TCP", 80, 80),))
    only_six = replace(dual, name="six", ip_families=("IPv6",))
    first, second = allocate([dual, only_six], **RANGES)
    assert first.ip_families == ("IPv4",)
    assert second.cluster_ip == ""
    both = allocate([dual], service_cidrs=("10.96.0.0/20", "fd00::/112"), node_port_range=(30000, 30200))[0]
    assert [":" in address for address in both.cluster_ips] == [True, False]
