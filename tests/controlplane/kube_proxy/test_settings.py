"""What the settings of kube-proxy, of its host and of its release change in the rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simnet.controlplane.kube_proxy import ProxiedNode, RuleGenerator, restore_text
from simnet.errors import InputError
from simnet.model.iptables.ruleset import Family, Ruleset
from simnet.model.kube_proxy import (
    DetectLocalConfiguration,
    DetectLocalMode,
    KubeProxyConfiguration,
    KubeProxyHost,
    KubeProxyIPTablesConfiguration,
)
from simnet.model.kubernetes import Endpoint, EndpointPort, EndpointSlice, LoadBalancerIngress, Service, ServicePort

NODE = ProxiedNode(
    "here",
    "192.168.0.2",
    {},
    ("127.0.0.1/8", "::1/128", "192.168.0.2/24", "10.9.0.2/24", "fd00:9::2/64"),
    ("10.0.1.0/24",),
)
WEB = Service("ns", "web", type="NodePort", cluster_ip="172.30.0.1", ports=(ServicePort("", "TCP", 80, 80, 30080),))
CONFIGURATION = KubeProxyConfiguration(cluster_cidr="10.0.0.0/8")
LAST = (
    "-A KUBE-SERVICES -m comment --comment "
    '"kubernetes service nodeports; NOTE: this must be the last rule in this chain"'
)


def slice_of(service: Service, *ips: str, node: str | None = None, family: str = "IPv4") -> EndpointSlice:
    endpoints = tuple(Endpoint((ip,), node_name=node) for ip in ips)
    ports = tuple(EndpointPort(port.name, port.protocol, 8080) for port in service.ports)
    return EndpointSlice(service.namespace, service.name + "-1", service.name, family, endpoints, ports)


def ruleset(
    service: Service = WEB,
    *ips: str,
    configuration: KubeProxyConfiguration = CONFIGURATION,
    node: ProxiedNode = NODE,
    family: Family = Family.IPV4,
    on: str | None = None,
) -> Ruleset:
    slices = [slice_of(service, *(ips or ("10.0.1.5",)), node=on, family="IPv4" if family is Family.IPV4 else "IPv6")]
    return RuleGenerator([service], slices, configuration, family).for_node(node)


def chain_lines(rules: Ruleset, table: str, chain: str) -> list[str]:
    section = restore_text(rules).split(f"*{table}\n")[1].split("COMMIT")[0]
    return [line for line in section.splitlines() if line.startswith((f"-A {chain} ", f"-I {chain} "))]


def svc_chain(rules: Ruleset) -> list[str]:
    (chain,) = [name for name in rules.tables["nat"].chains if name.startswith("KUBE-SVC-")]
    return chain_lines(rules, "nat", chain)


@pytest.mark.parametrize(
    "changes, not_local",
    [
        ({}, " ! -s 10.0.0.0/8"),
        ({"cluster_cidr": "fd00::/8, 10.1.0.0/16,10.2.0.0/16"}, " ! -s 10.1.0.0/16"),
        ({"detect_local_mode": DetectLocalMode.NODE_CIDR}, " ! -s 10.0.1.0/24"),
        ({"detect_local_mode": DetectLocalMode.BRIDGE_INTERFACE}, " ! -i cni0"),
        ({"detect_local_mode": DetectLocalMode.INTERFACE_NAME_PREFIX}, " ! -i cali+"),
        ({"iptables": KubeProxyIPTablesConfiguration(masquerade_all=True)}, ""),
        ({"cluster_cidr": "", "iptables": KubeProxyIPTablesConfiguration(masquerade_all=True)}, ""),
        ({"cluster_cidr": ""}, None),
        ({"cluster_cidr": "fd00::/8"}, None),
    ],
)
def test_who_is_masqueraded_on_the_way_to_a_cluster_ip(changes, not_local):
    configuration = replace(CONFIGURATION, detect_local=DetectLocalConfiguration("cni0", "cali"), **changes)
    lines = [line for line in svc_chain(ruleset(configuration=configuration)) if "KUBE-MARK-MASQ" in line]
    start = '-m comment --comment "ns/web cluster IP" -m tcp -p tcp -d 172.30.0.1 --dport 80'
    expected = [] if not_local is None else [f"{start}{not_local} -j KUBE-MARK-MASQ"]
    assert [line.split(" ", 2)[2] for line in lines] == expected


@pytest.mark.parametrize(
    "mode, is_local", [(DetectLocalMode.CLUSTER_CIDR, "-s 10.0.0.0/8"), (DetectLocalMode.BRIDGE_INTERFACE, "-i cni0")]
)
def test_pod_traffic_to_a_local_service_takes_the_short_circuit(mode, is_local):
    configuration = replace(
        CONFIGURATION, detect_local_mode=mode, detect_local=DetectLocalConfiguration("cni0", "cali")
    )
    rules = ruleset(replace(WEB, external_traffic_policy="Local"), configuration=configuration)
    (chain,) = [name for name in rules.tables["nat"].chains if name.startswith("KUBE-EXT-")]
    lines = chain_lines(rules, "nat", chain)
    assert f'"pod traffic for ns/web external destinations" {is_local} -j KUBE-SVC-' in lines[0]
    assert len(lines) == 3  # no local endpoint: no final jump
    without = ruleset(replace(WEB, external_traffic_policy="Local"), configuration=KubeProxyConfiguration())
    assert len(chain_lines(without, "nat", chain)) == 2


@pytest.mark.parametrize(
    "addresses, localhost, last",
    [
        ((), True, [" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"]),
        ((), False, [" -m addrtype --dst-type LOCAL ! -d 127.0.0.0/8 -j KUBE-NODEPORTS"]),
        (("0.0.0.0/0", "10.9.0.0/16"), True, [" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"]),
        (("fd00::/8",), True, [" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"]),
        (("192.168.0.0/16",), True, [" -d 192.168.0.2 -j KUBE-NODEPORTS"]),
        (("192.168.0.0/16", "10.0.0.0/8"), True, [f" -d {ip} -j KUBE-NODEPORTS" for ip in ("192.168.0.2", "10.9.0.2")]),
        (
            ("192.168.0.0/16", "127.0.0.0/8"),
            True,
            [f" -d {ip} -j KUBE-NODEPORTS" for ip in ("127.0.0.1", "192.168.0.2")],
        ),
        (("192.168.0.0/16", "127.0.0.0/8"), False, [" -d 192.168.0.2 -j KUBE-NODEPORTS"]),
        (("primary",), True, [" -d 192.168.0.2 -j KUBE-NODEPORTS"]),
        (("203.0.113.0/24",), True, []),
    ],
)
def test_node_ports_answer_on_the_configured_addresses(addresses, localhost, last):
    configuration = replace(
        CONFIGURATION,
        node_port_addresses=addresses,
        iptables=KubeProxyIPTablesConfiguration(localhost_node_ports=localhost),
    )
    lines = chain_lines(ruleset(configuration=configuration), "nat", "KUBE-SERVICES")
    assert lines[1:] == [LAST + end for end in last]


@pytest.mark.parametrize(
    "addresses, localhost, works",
    [((), True, True), ((), False, False), (("192.168.0.0/16",), True, False), (("127.0.0.0/8",), True, True),
     (("0.0.0.0/0",), True, True), (("127.0.0.1/32", "192.168.0.0/16"), True, True), (("primary",), True, False)],
)  # fmt: skip
def test_localhost_node_ports_are_forced_off_where_they_cannot_work(addresses, localhost, works):
    configuration = replace(
        CONFIGURATION,
        node_port_addresses=addresses,
        iptables=KubeProxyIPTablesConfiguration(localhost_node_ports=localhost),
    )
    rules = ruleset(configuration=configuration)
    assert len(chain_lines(rules, "filter", "KUBE-FIREWALL")) == works
    assert len(chain_lines(rules, "nat", "KUBE-NODEPORTS")) == 1 + works
    assert rules.chain("filter", "KUBE-FIREWALL") is not None  # it exists and is jumped to all the same


def test_ipv6_has_no_localhost_node_ports():
    service = replace(WEB, cluster_ip="fd00:172::1")
    rules = ruleset(service, "fd00:10::5", family=Family.IPV6)
    assert chain_lines(rules, "filter", "KUBE-FIREWALL") == []
    assert len(chain_lines(rules, "nat", "KUBE-NODEPORTS")) == 1
    assert chain_lines(rules, "nat", "KUBE-SERVICES")[-1] == (
        LAST + " -m addrtype --dst-type LOCAL ! -d ::1/128 -j KUBE-NODEPORTS"
    )
    assert "-j DNAT --to-destination [fd00:10::5]:8080" in restore_text(rules)


def test_what_the_host_lacks_is_left_out():
    host = KubeProxyHost(nfacct_counters=(), random_fully=False, conntrack_tcp_be_liberal=True)
    rules = ruleset(configuration=replace(CONFIGURATION, host=host))
    text = restore_text(rules)
    assert "nfacct" not in text
    assert "INVALID" not in text
    assert len(chain_lines(rules, "nat", "KUBE-NODEPORTS")) == 1
    assert chain_lines(rules, "nat", "KUBE-POSTROUTING")[-1].endswith("-j MASQUERADE")
    without_counter = replace(CONFIGURATION, host=KubeProxyHost(nfacct_counters=()))
    assert "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP" in restore_text(
        ruleset(configuration=without_counter)
    )


def test_the_mark_follows_the_masquerade_bit():
    configuration = replace(CONFIGURATION, iptables=KubeProxyIPTablesConfiguration(masquerade_bit=3))
    rules = ruleset(configuration=configuration)
    assert chain_lines(rules, "nat", "KUBE-MARK-MASQ") == ["-A KUBE-MARK-MASQ -j MARK --or-mark 0x00000008"]
    assert "-A KUBE-POSTROUTING -j MARK --xor-mark 0x00000008" in restore_text(rules)


def test_an_empty_cluster_has_five_rules_in_nat_and_four_in_filter():
    rules = RuleGenerator([], [], CONFIGURATION, Family.IPV4).for_node(NODE)
    lines = restore_text(rules).split("*filter\n")
    assert [sum(line.startswith("-A") for line in part.splitlines()) for part in lines] == [5, 4]
    assert [line for line in lines[1].splitlines() if line.startswith("-I FORWARD")][-1].endswith("KUBE-PROXY-FIREWALL")


@pytest.mark.parametrize("count, has_comments", [(1000, True), (1001, False)])
def test_rules_of_endpoints_lose_their_comments_beyond_a_thousand_endpoints(count, has_comments):
    ips = [f"10.0.{i // 250}.{i % 250}" for i in range(count)]
    rules = ruleset(replace(WEB, session_affinity="ClientIP"), *ips)
    for name, chain in rules.tables["nat"].chains.items():
        if name.startswith("KUBE-SEP-"):
            assert all((rule.comment is not None) == has_comments for rule in chain.rules)
    spread = [line for line in svc_chain(rules) if "-j KUBE-SEP-" in line]
    assert len(spread) == 2 * count
    assert all(("--comment" in line) == has_comments for line in spread)
    assert '"ns/web cluster IP"' in svc_chain(rules)[0]


def test_endpoints_without_a_service_do_not_make_a_cluster_large():
    lonely = slice_of(replace(WEB, name="gone"), *(f"10.0.{i // 250}.{i % 250}" for i in range(1001)))
    assert not RuleGenerator([WEB], [lonely], CONFIGURATION, Family.IPV4).is_large_cluster


LOAD_BALANCER = replace(
    WEB,
    type="LoadBalancer",
    load_balancer_ingress=(LoadBalancerIngress("1.2.3.4"),),
    load_balancer_source_ranges=("198.51.100.7/32", "192.168.0.0/24"),
)


def fw_chain(rules: Ruleset) -> list[str]:
    (chain,) = [name for name in rules.tables["nat"].chains if name.startswith("KUBE-FW-")]
    return [line.split(" ", 2)[2] for line in chain_lines(rules, "nat", chain)]


def test_a_source_range_that_holds_the_nodes_address_lets_the_load_balancer_ip_in():
    comment = '-m comment --comment "ns/web loadbalancer IP" -s '
    inside = fw_chain(ruleset(LOAD_BALANCER))
    assert [line.split(" -j ")[0] for line in inside[:-1]] == [
        comment + source for source in ("198.51.100.7/32", "192.168.0.0/24", "1.2.3.4")
    ]
    assert inside[-1] == '-m comment --comment "other traffic to ns/web will be dropped by KUBE-PROXY-FIREWALL"'
    outside = fw_chain(ruleset(LOAD_BALANCER, node=replace(NODE, primary_ip="192.168.7.2")))
    assert outside == [inside[0], inside[1], inside[3]]


def test_before_1_32_there_are_no_nfacct_matches():
    rules = ruleset(configuration=replace(CONFIGURATION, kubernetes="1.31"))
    assert "nfacct" not in restore_text(rules)
    assert len(chain_lines(rules, "nat", "KUBE-NODEPORTS")) == 1


def test_before_1_26_load_balancer_firewalls_mark_packets_for_dropping():
    rules = ruleset(LOAD_BALANCER, configuration=replace(CONFIGURATION, kubernetes="v1.25.3"))
    assert "KUBE-PROXY-FIREWALL" not in restore_text(rules)
    assert fw_chain(rules)[-1] == '-m comment --comment "ns/web loadbalancer IP" -j KUBE-MARK-DROP'
    assert chain_lines(rules, "nat", "KUBE-MARK-DROP") == ["-A KUBE-MARK-DROP -j MARK --or-mark 0x00008000"]
    assert "--mark 0x00008000/0x00008000 -j DROP" in chain_lines(rules, "filter", "KUBE-FIREWALL")[0]


def test_before_1_24_one_chain_holds_the_way_in_from_outside():
    service = replace(WEB, external_traffic_policy="Local")
    rules = ruleset(service, configuration=replace(CONFIGURATION, kubernetes="1.23"), on="here")
    names = {name[:9] for name in rules.tables["nat"].chains}
    assert "KUBE-XLB-" in names
    assert not {"KUBE-EXT-", "KUBE-SVL-"} & names


def test_an_unknown_release_is_refused_with_the_whole_story():
    with pytest.raises(InputError) as raised:
        RuleGenerator([], [], replace(CONFIGURATION, kubernetes="latest"), Family.IPV4)
    assert str(raised.value).endswith(
        "kubernetes\n  found:    'latest'\n  expected: a release from 1.19 on\n"
        '  fix:      write for example kubernetes: "1.33"'
    )


def test_hints_need_the_annotation_before_1_31():
    hinted = EndpointSlice(
        "ns",
        "web-1",
        "web",
        "IPv4",
        tuple(Endpoint((f"10.0.1.{i}",), hints_for_zones=(zone,)) for i, zone in enumerate("ab")),
        (EndpointPort("", "TCP", 8080),),
    )
    node = replace(NODE, labels={"topology.kubernetes.io/zone": "a"})
    annotated = replace(WEB, annotations=(("service.kubernetes.io/topology-mode", "Auto"),))

    def endpoints(service: Service, release: str) -> int:
        configuration = replace(CONFIGURATION, kubernetes=release)
        chains = RuleGenerator([service], [hinted], configuration, Family.IPV4).for_node(node).tables["nat"].chains
        return sum(name.startswith("KUBE-SEP-") for name in chains)

    assert [endpoints(WEB, "1.33"), endpoints(WEB, "1.30"), endpoints(annotated, "1.30")] == [1, 2, 1]
