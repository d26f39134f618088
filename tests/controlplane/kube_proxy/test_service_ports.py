"""Service ports, chain names and addresses."""

from __future__ import annotations

import pytest

from simnet.controlplane.kube_proxy import chain_names
from simnet.controlplane.kube_proxy.addresses import canonical_address, networks_of
from simnet.controlplane.kube_proxy.service_ports import service_ports
from simnet.controlplane.kube_proxy.version_profile import version_profile
from simnet.model.iptables.ruleset import Family
from simnet.model.kube_proxy import KubeProxyConfiguration
from simnet.model.kubernetes import LoadBalancerIngress, Service, ServicePort

HTTP = ServicePort("p80", "TCP", 80, 80)
PROFILE = version_profile(KubeProxyConfiguration())


def ports_of(service: Service, family: Family = Family.IPV4):
    return service_ports([service], family, PROFILE)


def port_of(**fields: object):
    given = {"cluster_ip": "172.30.0.41", "ports": (HTTP,), **fields}
    (port,) = ports_of(Service("ns1", "svc1", **given))  # type: ignore[arg-type]
    return port


@pytest.mark.parametrize(
    "name, found",
    [
        ("KUBE-SVC-XPGD46QRK7WJZT7O", chain_names.cluster_policy_chain("ns1/svc1:p80", "tcp")),
        ("KUBE-SVL-XPGD46QRK7WJZT7O", chain_names.local_policy_chain("ns1/svc1:p80", "tcp")),
        ("KUBE-FW-NUKIZ6OKUXPJNT4C", chain_names.firewall_chain("ns5/svc5:p80", "tcp")),
        ("KUBE-EXT-NUKIZ6OKUXPJNT4C", chain_names.external_chain("ns5/svc5:p80", "tcp")),
        ("KUBE-SEP-UKSFD7AGPMPPLUHC", chain_names.endpoint_chain("ns4/svc4:p80", "tcp", "10.180.0.4:80")),
    ],
)
def test_chain_names_are_those_of_the_worked_examples(name, found):
    assert found == name


@pytest.mark.parametrize(
    "text, family, expected",
    [
        ("172.30.0.041", Family.IPV4, "172.30.0.41"),
        ("010.000.00.1", Family.IPV4, "10.0.0.1"),
        ("100.200.0.10", Family.IPV4, "100.200.0.10"),
        ("FD00:0:0::00a1", Family.IPV6, "fd00::a1"),
        ("::ffff:10.0.0.1", Family.IPV4, "10.0.0.1"),
        ("fd00::1", Family.IPV4, None),
        ("10.0.0.256", Family.IPV4, None),
        ("node-1", Family.IPV4, None),
    ],
)
def test_addresses_are_read_leniently_and_printed_canonically(text, family, expected):
    assert canonical_address(text, family) == expected


def test_source_ranges_are_trimmed_masked_and_filtered_to_the_family():
    found = networks_of([" 203.0.113.000/025", "10.1.2.3/8 ", "2001:db8::1/64", "10.0.0.1", "x/8"], Family.IPV4)
    assert [str(network) for network in found] == ["203.0.113.0/25", "10.0.0.0/8"]


@pytest.mark.parametrize(
    "service",
    [
        Service("ns", "a", cluster_ip="None", ports=(HTTP,)),
        Service("ns", "b", cluster_ip="", ports=(HTTP,)),
        Service("ns", "c", type="ExternalName", cluster_ip="172.30.0.1", ports=(HTTP,)),
        Service("ns", "d", cluster_ip="fd00::1", ports=(HTTP,)),
        Service("ns", "e", cluster_ip="172.30.0.1", ip_families=("IPv6",), cluster_ips=("fd00::1",), ports=(HTTP,)),
        Service(
            "ns",
            "f",
            cluster_ip="172.30.0.1",
            ports=(HTTP,),
            labels=(("service.kubernetes.io/service-proxy-name", "other"),),
        ),
    ],
)
def test_services_that_get_no_rules(service):
    assert ports_of(service) == ()


def test_a_dual_stack_service_has_a_cluster_ip_in_each_family():
    service = Service(
        "ns",
        "svc",
        cluster_ip="fd00::1",
        cluster_ips=("fd00::1", "172.30.0.1"),
        ip_families=("IPv6", "IPv4"),
        external_ips=("192.0.2.1", "2001:db8::1"),
        ports=(HTTP,),
    )
    (four,), (six,) = ports_of(service), ports_of(service, Family.IPV6)
    assert (four.cluster_ip, four.external_ips) == ("172.30.0.1", ("192.0.2.1",))
    assert (six.cluster_ip, six.external_ips) == ("fd00::1", ("2001:db8::1",))


def test_names_carry_the_port_name_if_there_is_one():
    assert port_of().name == "ns1/svc1:p80"
    assert port_of(ports=(ServicePort("", "UDP", 53, 53),)).name == "ns1/svc1"


def test_services_are_visited_by_name_and_ports_in_the_order_of_the_service():
    def made(namespace: str, name: str) -> Service:
        return Service(namespace, name, cluster_ip="172.30.0.1", ports=(ServicePort("z", "TCP", 1, 1), HTTP))

    found = service_ports([made("ns", "a-b"), made("ns-1", "a"), made("ns", "a")], Family.IPV4, PROFILE)
    assert [port.name for port in found] == [
        f"{service}:{port}" for service in ("ns-1/a", "ns/a", "ns/a-b") for port in ("z", "p80")
    ]


def test_load_balancer_ips_leave_out_host_names_and_proxied_ones():
    ingress = (
        LoadBalancerIngress(hostname="lb.example"),
        LoadBalancerIngress("1.2.3.4", ip_mode="Proxy"),
        LoadBalancerIngress("5.6.7.8"),
    )
    assert port_of(type="LoadBalancer", load_balancer_ingress=ingress).load_balancer_vips == ("5.6.7.8",)


@pytest.mark.parametrize(
    "kind, external_ips, is_local",
    [("NodePort", (), True), ("LoadBalancer", (), True), ("ClusterIP", ("192.0.2.1",), True), ("ClusterIP", (), False)],
)
def test_external_policy_local_needs_a_service_that_is_reachable_from_outside(kind, external_ips, is_local):
    port = port_of(type=kind, external_ips=external_ips, external_traffic_policy="Local", health_check_node_port=30000)
    assert port.external_policy_local is is_local
    assert port.health_check_node_port == (30000 if kind == "LoadBalancer" else 0)


def test_the_health_check_port_of_a_load_balancer_with_policy_cluster_is_not_served():
    assert port_of(type="LoadBalancer", health_check_node_port=30000).health_check_node_port == 0


def test_a_node_port_counts_whatever_the_type():
    assert port_of(ports=(ServicePort("p80", "TCP", 80, 80, 30080),)).externally_accessible


def test_affinity_has_the_timeout_of_the_service():
    assert port_of(session_affinity="ClientIP", session_affinity_timeout_seconds=60).session_affinity_seconds == 60
    assert port_of(session_affinity_timeout_seconds=60).session_affinity_seconds is None
