"""What kube-proxy's specification promises, scenario by scenario, asked through the public API.

Every expectation is written from the specification (Kubernetes 1.33, pkg/proxy), none was printed by simnet.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from golden.scenarios import chain, chains, check, endpoints, load, service

BOTH = ("10.180.0.1", "10.180.2.1@test-node")
VIPS = [{"ip": "1.2.3.4"}]


def test_node_ports_answer_on_the_addresses_that_the_configuration_names(tmp_path: Path) -> None:
    objects = [service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="NodePort"), endpoints("svc1", *BOTH)]
    everywhere = "masq 10.180.0.1:80 10.180.2.1:80"
    for kube_proxy, local, second in (
        ({}, everywhere, everywhere),
        ({"nodePortAddresses": None}, everywhere, everywhere),
        ({"nodePortAddresses": []}, everywhere, everywhere),
        ({"nodePortAddresses": ["0.0.0.0/0"]}, everywhere, everywhere),
        ({"nodePortAddresses": ["2001:db8::/64"]}, everywhere, everywhere),  # none of this family: all
        ({"iptables": {"localhostNodePorts": False}}, "none", everywhere),
        ({"nodePortAddresses": ["192.168.0.0/24", "192.168.1.0/24", "2001:db8::/64"]}, "none", everywhere),
        ({"nodePortAddresses": ["192.168.0.0/24"]}, "none", "none"),
        ({"nodePortAddresses": ["192.168.0.0/24", "127.0.0.0/8"]}, everywhere, "none"),
        ({"nodePortAddresses": ["192.168.0.0/24", "127.0.0.1/32"], "iptables": {"localhostNodePorts": False}},
         "none", "none"),
        ({"nodePortAddresses": ["primary"]}, "none", "none"),
    ):  # fmt: skip
        check(
            load(tmp_path, objects, kube_proxy),
            f"""
            10.0.0.2 > 172.30.0.41:80 = 10.180.0.1:80 10.180.2.1:80
            203.0.113.2 > 192.168.0.2:3001 = {everywhere}
            192.168.0.2 > 192.168.0.2:3001 = {everywhere}
            127.0.0.1 > 127.0.0.1:3001 = {local}
            203.0.113.2 > 192.168.1.2:3001 = {second}
            203.0.113.2 > 192.168.0.9:3001 = none
            203.0.113.2 > 192.168.0.2:80 = none
            203.0.113.2 > 192.168.0.2:3001/udp = none
            """,
        )


def test_node_ports_over_ipv6_never_answer_on_the_loopback(tmp_path: Path) -> None:
    objects = [
        service("svc1", "fd00:172:30::41", "p80/80/TCP/3001", type="NodePort"),
        endpoints("svc1", "fd00:10:180::1", "fd00:10:180:2::1@test-node", family="IPv6"),
    ]
    pods = "[fd00:10:180:2::1]:80 [fd00:10:180::1]:80"
    for settings, first, second in (
        ({}, f"masq {pods}", f"masq {pods}"),
        ({"iptables": {"localhostNodePorts": False}}, f"masq {pods}", f"masq {pods}"),
        ({"nodePortAddresses": ["192.168.0.0/24", "2001:db8::/64"]}, f"masq {pods}", "none"),
        ({"nodePortAddresses": ["192.168.0.0/24"]}, f"masq {pods}", f"masq {pods}"),
        ({"nodePortAddresses": ["::1/128"]}, "none", "none"),
        ({"nodePortAddresses": ["::/0"]}, f"masq {pods}", f"masq {pods}"),
        ({"nodePortAddresses": ["primary"]}, f"masq {pods}", "none"),
    ):
        cluster = load(tmp_path, objects, {"clusterCIDR": "fd00:10::/64", **settings})
        check(
            cluster,
            f"""
            fd00:10::2 > fd00:172:30::41:80 = {pods}
            2600:5200::1 > fd00:172:30::41:80 = masq {pods}
            2600:5200::1 > 2001:db8::1:3001 = {first}
            2001:db8::1 > 2001:db8::1:3001 = {first}
            ::1 > ::1:3001 = none
            2600:5200::1 > 2001:db8:1::2:3001 = {second}
            """,
        )


LAST = '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" '


def test_the_last_rule_of_kube_services_says_where_node_ports_answer(tmp_path: Path) -> None:
    for kube_proxy, ipv4, ipv6 in (
        ({}, ["-m addrtype --dst-type LOCAL"], ["-m addrtype --dst-type LOCAL ! -d ::1/128"]),
        ({"iptables": {"localhostNodePorts": False}}, ["-m addrtype --dst-type LOCAL ! -d 127.0.0.0/8"],
         ["-m addrtype --dst-type LOCAL ! -d ::1/128"]),
        ({"nodePortAddresses": ["127.0.0.0/8", "192.168.0.0/16"]},
         ["-d 127.0.0.1", "-d 192.168.0.2", "-d 192.168.1.2", "-d 192.168.99.11"],
         ["-m addrtype --dst-type LOCAL ! -d ::1/128"]),
        ({"nodePortAddresses": ["2001:db8:1::/64", "10.0.0.0/8"]}, [], ["-d 2001:db8:1::2"]),
        ({"nodePortAddresses": ["primary"]}, ["-d 192.168.0.2"], ["-d 2001:db8::1"]),
    ):  # fmt: skip
        cluster = load(tmp_path, [], kube_proxy)
        for family, expected in (("ipv4", ipv4), ("ipv6", ipv6)):
            rules = [LAST + words + " -j KUBE-NODEPORTS" for words in expected]
            assert chain(cluster, "KUBE-SERVICES", family=family) == rules, (kube_proxy, family)


def test_localhost_node_ports_have_a_rule_of_their_own_and_a_guard(tmp_path: Path) -> None:
    objects = [service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="NodePort"), endpoints("svc1", *BOTH)]
    to_port = "-m comment --comment ns1/svc1:p80 -m tcp -p tcp"
    plain = f"{to_port} --dport 3001 -j KUBE-EXT-XPGD46QRK7WJZT7O"
    counted = (
        f"{to_port} -d 127.0.0.0/8 --dport 3001 -m nfacct --nfacct-name localhost_nps_accepted_pkts"
        " -j KUBE-EXT-XPGD46QRK7WJZT7O"
    )
    guard = (
        '-m comment --comment "block incoming localnet connections" -d 127.0.0.0/8 ! -s 127.0.0.0/8'
        " -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
    )
    for kube_proxy, node_ports, firewall in (
        ({}, [counted, plain], [guard]),
        ({"iptables": {"localhostNodePorts": False}}, [plain], []),
        ({"nodePortAddresses": ["192.168.0.0/24"]}, [plain], []),  # forced off: 127.0.0.0/8 is excluded
        ({"host": {"nfacctCounters": []}}, [plain], [guard]),
    ):
        cluster = load(tmp_path, objects, kube_proxy)
        assert chain(cluster, "KUBE-NODEPORTS") == node_ports, kube_proxy
        assert chain(cluster, "KUBE-FIREWALL", "filter") == firewall, kube_proxy


INVALID = "-m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP"


def test_fixed_chains(tmp_path: Path) -> None:
    forwarding = [
        '-m comment --comment "kubernetes forwarding rules" -m mark --mark 0x00004000/0x00004000 -j ACCEPT',
        '-m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED'
        " -j ACCEPT",
    ]
    cluster = load(tmp_path, [])
    assert chain(cluster, "KUBE-FORWARD", "filter") == [INVALID, *forwarding]
    assert chain(cluster, "KUBE-MARK-MASQ") == ["-j MARK --or-mark 0x00004000"]
    assert chain(cluster, "KUBE-POSTROUTING") == [
        "-m mark ! --mark 0x00004000/0x00004000 -j RETURN",
        "-j MARK --xor-mark 0x00004000",
        '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE',
    ]
    liberal = load(tmp_path, [], {"conntrack": {"tcpBeLiberal": True}})
    assert chain(liberal, "KUBE-FORWARD", "filter") == forwarding
    without_counters = load(tmp_path, [], {"host": {"nfacctCounters": []}})
    assert chain(without_counters, "KUBE-FORWARD", "filter")[0] == "-m conntrack --ctstate INVALID -j DROP"
    random = load(tmp_path, [], {"host": {"randomFully": True}, "iptables": {"masqueradeBit": 0}})
    assert chain(random, "KUBE-POSTROUTING")[2].endswith("-j MASQUERADE --random-fully")
    assert chain(random, "KUBE-MARK-MASQ") == ["-j MARK --or-mark 0x00000001"]


def test_the_jumps_from_built_in_chains(tmp_path: Path) -> None:
    saved = load(tmp_path, []).rules("test-node").to_save()
    new = "-m conntrack --ctstate NEW -m comment --comment"
    assert [
        line for line in saved.splitlines() if line.startswith(("-A INPUT", "-A FORWARD", "-A OUTPUT", "-A P"))
    ] == [
        "-A INPUT -j KUBE-FIREWALL",
        f'-A INPUT {new} "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL',
        '-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS',
        f'-A INPUT {new} "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES',
        f'-A FORWARD {new} "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL',
        '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
        f'-A FORWARD {new} "kubernetes service portals" -j KUBE-SERVICES',
        f'-A FORWARD {new} "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES',
        "-A OUTPUT -j KUBE-FIREWALL",
        f'-A OUTPUT {new} "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL',
        f'-A OUTPUT {new} "kubernetes service portals" -j KUBE-SERVICES',
        '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
    ]


def test_a_health_check_node_port_is_let_in_only_with_external_policy_local(tmp_path: Path) -> None:
    balancer = {"type": "LoadBalancer", "healthCheckNodePort": 30000, "ingress": VIPS}
    for spec, verdict in (
        ({**balancer, "externalTrafficPolicy": "Local"}, "ACCEPT"),
        ({**balancer, "externalTrafficPolicy": "Cluster"}, "none"),
        ({"type": "NodePort", "healthCheckNodePort": 30000, "externalTrafficPolicy": "Local"}, "none"),
    ):
        for slices in ([], [endpoints("svc1", *BOTH)]):  # with and without endpoints
            check(
                load(tmp_path, [service("svc1", "172.30.0.42", "p80/80/TCP/3001", **spec), *slices]),
                f"""
                203.0.113.2 > 192.168.0.2:30000 = {verdict}
                192.168.0.2 > 192.168.0.2:30000 = {verdict}
                203.0.113.2 > 192.168.0.2:30000/udp = none
                203.0.113.2 > 192.168.0.2:30001 = none
                """,
            )


def test_internal_traffic_policy(tmp_path: Path) -> None:
    for policy, texts, outcome in (
        ("Cluster", ("10.0.1.1@test-node", "10.0.1.2@host1", "10.0.1.3@host2"), "10.0.1.1:80 10.0.1.2:80 10.0.1.3:80"),
        ("Local", ("10.0.1.1@test-node", "10.0.1.2@host1", "10.0.1.3@host2"), "10.0.1.1:80"),
        ("Local", ("10.0.1.1@host0", "10.0.1.2@host1", "10.0.1.3@host2"), "DROP"),
        ("Local", ("10.0.1.1", "10.0.1.2"), "DROP"),
        ("Local", ("10.0.1.1@host0 !ready",), "REJECT"),
        ("Local", ("10.0.1.1@test-node !ready serving terminating", "10.0.1.2@host1"), "10.0.1.1:80"),
        ("Local", ("10.0.1.1@host0 !ready serving terminating",), "DROP"),
        ("Local", (), "REJECT"),
        ("Cluster", (), "REJECT"),
    ):
        cluster = load(
            tmp_path,
            [
                service("svc1", "172.30.1.1", "/80", internalTrafficPolicy=policy),
                endpoints("svc1", *texts, ports=("/80",)),
            ],
        )
        masquerade = "masq " if ":" in outcome else ""
        check(
            cluster,
            f"""
            10.0.0.2 > 172.30.1.1:80 = {outcome}
            192.168.0.2 > 172.30.1.1:80 = {masquerade}{outcome}
            203.0.113.2 > 172.30.1.1:80 = {masquerade}{outcome}
            """,
        )


TERMINATING = "!ready serving terminating"
GONE = "!ready !serving terminating"


@pytest.mark.parametrize(
    ("texts", "cluster_wide", "local"),
    [
        (("10.0.1.1@test-node", "10.0.1.2@test-node", f"10.0.1.3@test-node {TERMINATING}", f"10.0.1.4@test-node {GONE}",
          "10.0.1.5@host1"), "10.0.1.1:80 10.0.1.2:80 10.0.1.5:80", "10.0.1.1:80 10.0.1.2:80"),
        # no local endpoint is ready: those that terminate and still serve take over, for policy Local alone
        ((f"10.0.1.2@test-node {TERMINATING}", f"10.0.1.3@test-node {TERMINATING}", f"10.0.1.4@test-node {GONE}",
          "10.0.1.5@host1"), "10.0.1.5:80", "10.0.1.2:80 10.0.1.3:80"),
        # none is ready anywhere: all that terminate and serve
        ((f"10.0.1.2@test-node {TERMINATING}", f"10.0.1.5@host1 {TERMINATING}"), "10.0.1.2:80 10.0.1.5:80",
         "10.0.1.2:80"),
        # only remote ones
        ((f"10.0.1.4@test-node {GONE}", "10.0.1.5@host1"), "10.0.1.5:80", "DROP"),
        ((f"10.0.1.5@host1 {TERMINATING}",), "10.0.1.5:80", "DROP"),
        # nothing that could serve
        ((f"10.0.1.4@test-node {GONE}", "10.0.1.5@host1 !ready"), "REJECT", "REJECT"),
        (("10.0.1.4@test-node !ready serving",), "REJECT", "REJECT"),
        ((), "REJECT", "REJECT"),
    ],
)  # fmt: skip
def test_terminating_endpoints_serve_when_nothing_better_does(
    tmp_path: Path, texts: tuple[str, ...], cluster_wide: str, local: str
) -> None:
    spec = {"type": "LoadBalancer", "ingress": VIPS, "externalIPs": ["192.168.99.11"], "healthCheckNodePort": 30000}
    masquerade = "masq " if ":" in cluster_wide else ""
    for policy, outside in (("Cluster", masquerade + cluster_wide), ("Local", local)):
        objects = [
            service("svc1", "172.30.1.1", "p80/80/TCP/3001", externalTrafficPolicy=policy, **spec),
            endpoints("svc1", *texts),
        ]
        check(
            load(tmp_path, objects),
            f"""
            10.0.0.2 > 172.30.1.1:80 = {cluster_wide}
            203.0.113.2 > 1.2.3.4:80 = {outside}
            203.0.113.2 > 192.168.99.11:80 = {outside}
            203.0.113.2 > 192.168.0.2:3001 = {outside}
            """,
        )


SVC_A = "10.180.0.1@test-node"
SVC_B = "10.180.1.1@host2"


@pytest.mark.parametrize(
    ("kube_proxy", "changed"),
    [
        ({}, {}),
        ({"clusterCIDR": ""}, {
            "203.0.113.2 > 172.30.0.41:80": "A B",
            "192.168.0.2 > 172.30.0.41:80": "A B",
            "10.0.0.2 > 192.168.0.2:3002": "A", "10.0.0.2 > 5.6.7.8:80": "A", "10.0.0.2 > 192.168.99.12:80": "A",
            "192.168.0.2 > 172.30.0.43:80": "A", "203.0.113.2 > 172.30.0.43:80": "A",
            "192.168.0.2 > 172.30.0.42:80": "A B",
        }),
        ({"iptables": {"masqueradeAll": True}}, {
            "10.0.0.2 > 172.30.0.41:80": "masq A B", "10.0.0.2 > 172.30.0.42:80": "masq A B",
            "10.0.0.2 > 172.30.0.43:80": "masq A",
        }),
        ({"clusterCIDR": "", "iptables": {"masqueradeAll": True}}, {
            "10.0.0.2 > 172.30.0.41:80": "masq A B", "10.0.0.2 > 172.30.0.42:80": "masq A B",
            "10.0.0.2 > 172.30.0.43:80": "masq A",
            "10.0.0.2 > 192.168.0.2:3002": "A", "10.0.0.2 > 5.6.7.8:80": "A", "10.0.0.2 > 192.168.99.12:80": "A",
        }),
    ],
    ids=["cluster CIDR", "no detector", "masqueradeAll", "masqueradeAll, no detector"],
)  # fmt: skip
def test_who_is_masqueraded(tmp_path: Path, kube_proxy: dict, changed: dict[str, str]) -> None:
    pods = (SVC_A, SVC_B)
    objects = [
        service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="LoadBalancer", ingress=VIPS, externalIPs=["192.168.99.11"]),  # noqa: E501
        service("svc2", "172.30.0.42", "p80/80/TCP/3002", type="LoadBalancer", ingress=[{"ip": "5.6.7.8"}],
                externalIPs=["192.168.99.12"], externalTrafficPolicy="Local", healthCheckNodePort=30000),
        service("svc3", "172.30.0.43", "p80/80/TCP/3003", type="LoadBalancer", ingress=[{"ip": "9.10.11.12"}],
                externalIPs=["192.168.99.13"], internalTrafficPolicy="Local"),
        *(endpoints(name, *pods) for name in ("svc1", "svc2", "svc3")),
    ]  # fmt: skip
    flows = {}
    for source, to_cluster in (("10.0.0.2", ""), ("192.168.0.2", "masq "), ("203.0.113.2", "masq ")):
        flows[f"{source} > 172.30.0.41:80"] = to_cluster + "A B"
        flows[f"{source} > 172.30.0.42:80"] = to_cluster + "A B"
        flows[f"{source} > 172.30.0.43:80"] = to_cluster + "A"
        for number, entries in (
            (1, ("192.168.0.2:3001", "1.2.3.4:80", "192.168.99.11:80")),
            (2, ("192.168.0.2:3002", "5.6.7.8:80", "192.168.99.12:80")),
            (3, ("192.168.0.2:3003", "9.10.11.12:80", "192.168.99.13:80")),
        ):
            for entry in entries:
                outcome = "masq A B"
                if number == 2:  # externalTrafficPolicy Local
                    outcome = {"10.0.0.2": "A B", "192.168.0.2": "masq A B", "203.0.113.2": "A"}[source]
                flows[f"{source} > {entry}"] = outcome
    if kube_proxy == {"clusterCIDR": ""}:
        changed = {**changed, "203.0.113.2 > 172.30.0.42:80": "A B"}
    assert changed.keys() <= flows.keys()
    flows |= changed
    named = {"A": "10.180.0.1:80", "B": "10.180.1.1:80"}
    lines = [f"{flow} = {' '.join(named.get(word, word) for word in end.split())}" for flow, end in flows.items()]
    check(load(tmp_path, objects, kube_proxy), "\n".join(lines))


def test_a_pod_that_reaches_itself_is_masqueraded_whatever_the_policy(tmp_path: Path) -> None:
    for spec in ({}, {"internalTrafficPolicy": "Local"}):
        objects = [service("svc1", "172.30.0.41", **spec), endpoints("svc1", "10.180.0.1@test-node")]
        check(load(tmp_path, objects), "10.180.0.1 > 172.30.0.41:80 = masq 10.180.0.1:80")


def test_a_load_balancer_of_mode_proxy_has_no_rules_of_its_own(tmp_path: Path) -> None:
    slices = endpoints("svc1", "10.180.0.1")
    for ingress, gates, outcome in (
        ([{"ip": "1.2.3.4", "ipMode": "Proxy"}], {}, "none"),
        ([{"ip": "1.2.3.4", "ipMode": "VIP"}], {}, "masq 10.180.0.1:80"),
        ([{"ip": "1.2.3.4"}], {}, "masq 10.180.0.1:80"),
        ([{"ip": "1.2.3.4", "ipMode": "Proxy"}], {"LoadBalancerIPMode": False}, "masq 10.180.0.1:80"),
        ([{"hostname": "lb.example.com"}], {}, "none"),
    ):
        balancer = service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="LoadBalancer", ingress=ingress)
        check(
            load(tmp_path, [balancer, slices], {"featureGates": gates}),
            f"""
            203.0.113.2 > 1.2.3.4:80 = {outcome}
            10.0.0.2 > 1.2.3.4:80 = {outcome}
            203.0.113.2 > 192.168.0.2:3001 = masq 10.180.0.1:80
            """,
        )


def test_a_service_without_endpoints_rejects_at_every_entry(tmp_path: Path) -> None:
    for slices in ([], [endpoints("svc1")], [endpoints("svc1", "10.180.0.1 !ready")],
                   [endpoints("svc1", "10.180.0.1", ports=("other/80",))],
                   [endpoints("svc1", "10.180.0.1", ports=("p80/80/UDP",))]):  # fmt: skip
        balancer = service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="LoadBalancer", ingress=VIPS,
                           externalIPs=["192.168.99.11"], loadBalancerSourceRanges=["203.0.113.0/25"])  # fmt: skip
        cluster = load(tmp_path, [balancer, *slices])
        check(
            cluster,
            """
            10.0.0.2 > 172.30.0.41:80 = REJECT
            192.168.0.2 > 172.30.0.41:80 = REJECT
            203.0.113.2 > 192.168.99.11:80 = REJECT
            203.0.113.2 > 1.2.3.4:80 = REJECT
            203.0.113.130 > 1.2.3.4:80 = REJECT
            203.0.113.2 > 192.168.0.2:3001 = REJECT
            10.0.0.2 > 192.168.0.2:3001 = REJECT
            127.0.0.1 > 127.0.0.1:3001 = REJECT
            203.0.113.2 > 192.168.0.2:3002 = none
            """,
        )
        assert chains(cluster, "KUBE-SVC-") == chains(cluster, "KUBE-EXT-") == chains(cluster, "KUBE-FW-") == []
        reason = '-m comment --comment "ns1/svc1:p80 has no endpoints" '
        assert chain(cluster, "KUBE-SERVICES", "filter") == [
            reason + "-m tcp -p tcp -d 172.30.0.41 --dport 80 -j REJECT"
        ]
        assert chain(cluster, "KUBE-EXTERNAL-SERVICES", "filter") == [
            reason + "-m tcp -p tcp -d 192.168.99.11 --dport 80 -j REJECT",
            reason + "-m tcp -p tcp -d 1.2.3.4 --dport 80 -j REJECT",
            reason + "-m addrtype --dst-type LOCAL -m tcp -p tcp --dport 3001 -j REJECT",
        ]


def test_external_ips_of_the_node_are_taken_before_its_node_ports(tmp_path: Path) -> None:
    objects = [
        service("svc1", "172.30.0.41", "p80/80", externalIPs=["192.168.99.11"]),
        service("svc2", "172.30.0.42", "p80/80/TCP/3001", type="NodePort"),
        endpoints("svc1", "10.180.0.1"),
        endpoints("svc2", "10.180.0.2"),
    ]
    check(
        load(tmp_path, objects),
        """
        203.0.113.2 > 192.168.99.11:80 = masq 10.180.0.1:80
        203.0.113.2 > 192.168.99.11:3001 = masq 10.180.0.2:80
        203.0.113.2 > 192.168.0.2:80 = none
        """,
    )


def test_external_policy_local_of_a_cluster_ip_service_counts_with_external_ips(tmp_path: Path) -> None:
    with_external_ip = service("svc1", "172.30.0.41", externalIPs=["192.168.99.22"], externalTrafficPolicy="Local")
    node_port_alone = service("svc2", "172.30.0.42", "p80/80/TCP/3001", externalTrafficPolicy="Local")
    slices = [endpoints("svc1", *BOTH), endpoints("svc2", *BOTH)]
    check(
        load(tmp_path, [with_external_ip, node_port_alone, *slices]),
        """
        203.0.113.2 > 192.168.99.22:80 = 10.180.2.1:80
        10.0.0.2 > 192.168.99.22:80 = 10.180.0.1:80 10.180.2.1:80
        203.0.113.2 > 192.168.0.2:3001 = masq 10.180.0.1:80 10.180.2.1:80
        """,
    )
