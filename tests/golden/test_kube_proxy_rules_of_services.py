"""The rules of single Services, chain by chain, and which Services, endpoints and settings count.

Every expectation is written from the specification (Kubernetes 1.33, pkg/proxy), none was printed by simnet.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from golden.scenarios import NODE, chain, chains, check, endpoints, flow, load, service

VIPS = [{"ip": "1.2.3.4"}]
TWO = ("10.180.0.1", "10.180.2.1@test-node")


def suffix(text: str) -> str:
    """The sixteen characters of a chain's name."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:16]


def test_source_ranges(tmp_path: Path) -> None:
    for ranges, from_node in (
        (["192.168.0.0/24", " 203.0.113.000/025 "], "masq 10.180.0.1:80"),
        (["203.0.113.0/25"], "DROP"),
        (["203.0.113.0/25", "fd00::/8"], "DROP"),  # of the other family: passed over
        (["203.0.113.77/25", "192.168.0.2/32"], "masq 10.180.0.1:80"),
    ):
        ingress = [{"ip": "1.2.3.4"}, {"ip": "5.6.7.8"}]
        balancer = service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="LoadBalancer", ingress=ingress,
                           loadBalancerSourceRanges=ranges)  # fmt: skip
        cluster = load(tmp_path, [balancer, endpoints("svc1", "10.180.0.1")])
        own = "DROP" if from_node == "DROP" else "masq 10.180.0.1:80"
        check(
            cluster,
            f"""
            203.0.113.2 > 1.2.3.4:80 = masq 10.180.0.1:80
            203.0.113.2 > 5.6.7.8:80 = masq 10.180.0.1:80
            203.0.113.130 > 1.2.3.4:80 = DROP
            203.0.113.130 > 5.6.7.8:80 = DROP
            203.0.113.130 > 5.6.7.8:81 = none
            203.0.113.130 > 192.168.0.2:3001 = masq 10.180.0.1:80
            10.0.0.2 > 1.2.3.4:80 = DROP
            192.168.0.2 > 1.2.3.4:80 = {from_node}
            1.2.3.4 > 1.2.3.4:80 = {own}
            5.6.7.8 > 1.2.3.4:80 = {own}
            """,
        )
    assert chain(cluster, "KUBE-FW-XPGD46QRK7WJZT7O") == [
        '-m comment --comment "ns1/svc1:p80 loadbalancer IP" -s 203.0.113.0/25 -j KUBE-EXT-XPGD46QRK7WJZT7O',
        '-m comment --comment "ns1/svc1:p80 loadbalancer IP" -s 192.168.0.2/32 -j KUBE-EXT-XPGD46QRK7WJZT7O',
        '-m comment --comment "ns1/svc1:p80 loadbalancer IP" -s 1.2.3.4 -j KUBE-EXT-XPGD46QRK7WJZT7O',
        '-m comment --comment "ns1/svc1:p80 loadbalancer IP" -s 5.6.7.8 -j KUBE-EXT-XPGD46QRK7WJZT7O',
        '-m comment --comment "other traffic to ns1/svc1:p80 will be dropped by KUBE-PROXY-FIREWALL"',
    ]
    refusing = '-m comment --comment "ns1/svc1:p80 traffic not accepted by KUBE-FW-XPGD46QRK7WJZT7O" -m tcp -p tcp'
    assert chain(cluster, "KUBE-PROXY-FIREWALL", "filter") == [
        f"{refusing} -d 1.2.3.4 --dport 80 -j DROP",
        f"{refusing} -d 5.6.7.8 --dport 80 -j DROP",
    ]


def test_source_ranges_with_external_policy_local_and_no_local_endpoint(tmp_path: Path) -> None:
    balancer = service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="LoadBalancer", ingress=VIPS,
                       externalTrafficPolicy="Local", loadBalancerSourceRanges=["203.0.113.0/25"])  # fmt: skip
    check(
        load(tmp_path, [balancer, endpoints("svc1", "10.180.0.1@host1")]),
        """
        203.0.113.2 > 1.2.3.4:80 = DROP
        203.0.113.130 > 1.2.3.4:80 = DROP
        10.0.0.2 > 172.30.0.41:80 = 10.180.0.1:80
        10.0.0.2 > 192.168.0.2:3001 = 10.180.0.1:80
        203.0.113.2 > 192.168.0.2:3001 = DROP
        """,
    )


def test_all_chains_of_a_service_with_everything(tmp_path: Path) -> None:
    balancer = service(
        "svc1", "172.30.0.41", "p80/80/TCP/3001", type="LoadBalancer", ingress=VIPS, externalIPs=["192.168.99.11"],
        externalTrafficPolicy="Local", internalTrafficPolicy="Local", healthCheckNodePort=30000,
        sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 600}},
    )  # fmt: skip
    cluster = load(tmp_path, [balancer, endpoints("svc1", "10.180.0.9@host1", "10.180.0.11@test-node", "10.180.0.1")])
    hashed = suffix("ns1/svc1:p80tcp")
    assert hashed == "XPGD46QRK7WJZT7O"
    # in byte order of the text: `1` sorts before `:`, and `11` before `9`
    seps = {ip: "KUBE-SEP-" + suffix(f"ns1/svc1:p80tcp{ip}:80") for ip in ("10.180.0.11", "10.180.0.1", "10.180.0.9")}
    assert chain(cluster, "KUBE-SERVICES") == [
        f'-m comment --comment "ns1/svc1:p80 cluster IP" -m tcp -p tcp -d 172.30.0.41 --dport 80 -j KUBE-SVL-{hashed}',
        f'-m comment --comment "ns1/svc1:p80 external IP" -m tcp -p tcp -d 192.168.99.11 --dport 80 -j KUBE-EXT-{hashed}',  # noqa: E501
        f'-m comment --comment "ns1/svc1:p80 loadbalancer IP" -m tcp -p tcp -d 1.2.3.4 --dport 80 -j KUBE-EXT-{hashed}',
        '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"'
        " -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
    ]
    outside = "ns1/svc1:p80 external destinations"
    assert chain(cluster, f"KUBE-EXT-{hashed}") == [
        f'-m comment --comment "pod traffic for {outside}" -s 10.0.0.0/8 -j KUBE-SVC-{hashed}',
        f'-m comment --comment "masquerade LOCAL traffic for {outside}" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ',
        f'-m comment --comment "route LOCAL traffic for {outside}" -m addrtype --src-type LOCAL -j KUBE-SVC-{hashed}',
        f"-j KUBE-SVL-{hashed}",
    ]
    spread = []
    for ip, sep in seps.items():
        spread.append(
            f'-m comment --comment "ns1/svc1:p80 -> {ip}:80" -m recent --name {sep} --rcheck --seconds 600 --reap -j {sep}'  # noqa: E501
        )
    for (ip, sep), chance in zip(seps.items(), ("0.3333333333", "0.5000000000", None), strict=True):
        statistic = f" -m statistic --mode random --probability {chance}" if chance else ""
        spread.append(f'-m comment --comment "ns1/svc1:p80 -> {ip}:80"{statistic} -j {sep}')
    assert chain(cluster, f"KUBE-SVC-{hashed}") == spread
    assert chain(cluster, f"KUBE-SVL-{hashed}") == [
        '-m comment --comment "ns1/svc1:p80 cluster IP" -m tcp -p tcp -d 172.30.0.41 --dport 80 ! -s 10.0.0.0/8'
        " -j KUBE-MARK-MASQ",
        spread[0],
        spread[3].replace(" -m statistic --mode random --probability 0.3333333333", ""),
    ]
    for ip, sep in seps.items():
        assert chain(cluster, sep) == [
            f"-m comment --comment ns1/svc1:p80 -s {ip} -j KUBE-MARK-MASQ",
            f"-m comment --comment ns1/svc1:p80 -m recent --name {sep} --set -m tcp -p tcp"
            f" -j DNAT --to-destination {ip}:80",
        ]
    assert chain(cluster, "KUBE-NODEPORTS", "filter") == [
        '-m comment --comment "ns1/svc1:p80 health check node port" -m tcp -p tcp --dport 30000 -j ACCEPT'
    ]
    assert chain(cluster, "KUBE-EXTERNAL-SERVICES", "filter") == chain(cluster, "KUBE-SERVICES", "filter") == []


def test_external_policy_local_without_a_local_endpoint(tmp_path: Path) -> None:
    balancer = service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="LoadBalancer", ingress=VIPS,
                       externalIPs=["192.168.99.22"], externalTrafficPolicy="Local")  # fmt: skip
    cluster = load(tmp_path, [balancer, endpoints("svc1", "10.180.0.1@host1")], {"clusterCIDR": ""})
    hashed = suffix("ns1/svc1:p80tcp")
    assert [rule.split()[-1] for rule in chain(cluster, f"KUBE-EXT-{hashed}")] == [
        "KUBE-MARK-MASQ",
        f"KUBE-SVC-{hashed}",
    ]
    assert chains(cluster, "KUBE-SVL-") == []
    reason = '-m comment --comment "ns1/svc1:p80 has no local endpoints" '
    assert chain(cluster, "KUBE-EXTERNAL-SERVICES", "filter") == [
        reason + "-m tcp -p tcp -d 192.168.99.22 --dport 80 -j DROP",
        reason + "-m tcp -p tcp -d 1.2.3.4 --dport 80 -j DROP",
        reason + "-m addrtype --dst-type LOCAL -m tcp -p tcp --dport 3001 -j DROP",
    ]
    # without a detector no rule of the SVC chain masquerades
    assert [rule.split()[-1] for rule in chain(cluster, f"KUBE-SVC-{hashed}")] == [
        "KUBE-SEP-" + suffix("ns1/svc1:p80tcp10.180.0.1:80")
    ]


def test_one_port_number_for_three_protocols(tmp_path: Path) -> None:
    dns = service("svc1", "172.30.0.41", "udp/53/UDP/3053", "tcp/53/TCP/3053", "sctp/53/SCTP/3054", type="NodePort",
                  externalIPs=["192.168.99.11"])  # fmt: skip
    slices = endpoints("svc1", "10.180.0.1", ports=("tcp/5353", "udp/53/UDP", "sctp/54/SCTP"))
    check(
        load(tmp_path, [dns, slices]),
        """
        10.0.0.2 > 172.30.0.41:53 = 10.180.0.1:5353
        10.0.0.2 > 172.30.0.41:53/udp = 10.180.0.1:53
        10.0.0.2 > 172.30.0.41:53/sctp = 10.180.0.1:54
        203.0.113.2 > 192.168.99.11:53/sctp = masq 10.180.0.1:54
        203.0.113.2 > 192.168.0.2:3053 = masq 10.180.0.1:5353
        203.0.113.2 > 192.168.0.2:3053/udp = masq 10.180.0.1:53
        203.0.113.2 > 192.168.0.2:3053/sctp = none
        203.0.113.2 > 192.168.0.2:3054/sctp = masq 10.180.0.1:54
        127.0.0.1 > 127.0.0.1:3054/sctp = masq 10.180.0.1:54
        """,
    )


def test_services_that_kube_proxy_passes_over(tmp_path: Path) -> None:
    def labelled(key: str) -> dict:
        other = service("svc4", "172.30.0.44")
        other["metadata"]["labels"] = {key: "x"}
        return other

    ignored = [
        service("svc1", "None"),
        service("svc2", "172.30.0.42", type="ExternalName", externalName="example.com"),
        service("svc3", "172.30.0.43", "p80/80"),
    ]
    ignored[2]["spec"]["ports"] = []
    for number, key in enumerate(
        ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"), start=1
    ):
        cluster = load(
            tmp_path,
            [
                *ignored,
                labelled(key),
                *(endpoints(f"svc{each}", "10.180.0.1") for each in (1, 2, 3, 4)),
                service("svc5", "172.30.0.45"),
                endpoints("svc5", "10.180.0.5"),
            ],
        )
        assert chains(cluster, "KUBE-SVC-") == ["KUBE-SVC-" + suffix("ns5/svc5:p80tcp")], number
        assert len(chains(cluster, "KUBE-SEP-")) == 1
        for ip in ("172.30.0.42", "172.30.0.43", "172.30.0.44"):
            assert flow(cluster, f"10.0.0.2 > {ip}:80 = none").endswith(" = none")


def test_dual_stack_services_have_rules_in_both_families(tmp_path: Path) -> None:
    def dual(families: list[str] | None, ips: list[str], **spec: object) -> dict:
        made = service("svc1", ips[0], "p80/80/TCP/3001", type="LoadBalancer",
                       ingress=[{"ip": "2001:db8:9::1"}, {"ip": "1.2.3.4"}], externalIPs=["2001:db8:8::1", "192.168.99.11"],  # noqa: E501
                       **spec)  # fmt: skip
        if families is not None:
            made["spec"] |= {"ipFamilies": families, "clusterIPs": ips}
        return made

    slices = [
        endpoints("svc1", "10.180.0.1@test-node"),
        endpoints("svc1", "fd00:10:180::1@test-node", family="IPv6", number=2),
    ]
    kube_proxy = {"clusterCIDR": "10.0.0.0/8,fd00:10::/64"}
    for families, ips, ipv4, ipv6 in (
        (["IPv4", "IPv6"], ["172.30.0.41", "fd00:172:30::41"], True, True),
        (["IPv6", "IPv4"], ["fd00:172:30::41", "172.30.0.41"], True, True),
        (["IPv6"], ["fd00:172:30::41"], False, True),
        (["IPv4"], ["172.30.0.41"], True, False),
        (None, ["172.30.0.41"], True, False),
        (None, ["fd00:172:30::41"], False, True),
    ):
        cluster = load(tmp_path, [dual(families, ips), *slices], kube_proxy)
        four, six = ("10.180.0.1:80" if ipv4 else "none"), ("[fd00:10:180::1]:80" if ipv6 else "none")
        masq_four, masq_six = ("masq " * ipv4 + four), ("masq " * ipv6 + six)
        check(
            cluster,
            f"""
            10.0.0.2 > 172.30.0.41:80 = {four}
            fd00:10::2 > fd00:172:30::41:80 = {six}
            203.0.113.2 > 172.30.0.41:80 = {masq_four}
            203.0.113.2 > 1.2.3.4:80 = {masq_four}
            203.0.113.2 > 192.168.99.11:80 = {masq_four}
            203.0.113.2 > 192.168.0.2:3001 = {masq_four}
            2600:5200::1 > 2001:db8:9::1:80 = {masq_six}
            2600:5200::1 > 2001:db8:8::1:80 = {masq_six}
            2600:5200::1 > 2001:db8::1:3001 = {masq_six}
            """,
        )
        name = ["KUBE-SVC-XPGD46QRK7WJZT7O"]
        assert chains(cluster, "KUBE-SVC-") == name * ipv4
        assert chains(cluster, "KUBE-SVC-", family="ipv6") == name * ipv6


def test_rules_over_ipv6(tmp_path: Path) -> None:
    made = service("svc1", "fd00:172:30::41", "p80/80/TCP/3001", type="NodePort", sessionAffinity="ClientIP")
    cluster = load(
        tmp_path, [made, endpoints("svc1", "fd00:10:180:0::1", family="IPv6")], {"clusterCIDR": "fd00:10::/64"}
    )
    sep = "KUBE-SEP-" + suffix("ns1/svc1:p80tcp[fd00:10:180::1]:80")
    assert chain(cluster, sep, family="ipv6") == [
        "-m comment --comment ns1/svc1:p80 -s fd00:10:180::1 -j KUBE-MARK-MASQ",
        f"-m comment --comment ns1/svc1:p80 -m recent --name {sep} --set -m tcp -p tcp"
        " -j DNAT --to-destination [fd00:10:180::1]:80",
    ]
    assert chain(cluster, "KUBE-NODEPORTS", family="ipv6") == [
        "-m comment --comment ns1/svc1:p80 -m tcp -p tcp --dport 3001 -j KUBE-EXT-XPGD46QRK7WJZT7O"
    ]
    assert chain(cluster, "KUBE-FIREWALL", "filter", family="ipv6") == []
    saved = cluster.rules(NODE, "ipv6").to_save()
    mask = ":".join(["ffff"] * 8)
    spread = '-m comment --comment "ns1/svc1:p80 -> [fd00:10:180::1]:80"'
    assert (
        f"-A KUBE-SVC-XPGD46QRK7WJZT7O {spread} -m recent --rcheck --seconds 10800 --reap --name {sep} --mask {mask} --rsource -j {sep}\n"  # noqa: E501
        in saved
    )
    assert "-A KUBE-SERVICES ! -d ::1/128 -m comment" in saved


def test_every_way_to_tell_local_traffic(tmp_path: Path) -> None:
    balancer = service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="NodePort", externalTrafficPolicy="Local")
    for kube_proxy, node, local, others in (
        ({"clusterCIDR": "10.0.0.0/8"}, {}, "-s 10.0.0.0/8", "! -s 10.0.0.0/8"),
        ({"clusterCIDR": "fd00:10::/64,10.1.2.3/8,172.16.0.0/12"}, {}, "-s 10.0.0.0/8", "! -s 10.0.0.0/8"),
        ({"clusterCIDR": "fd00:10::/64"}, {}, None, None),
        ({"clusterCIDR": ""}, {}, None, None),
        ({"detectLocalMode": "NodeCIDR"}, {"podCIDRs": ["fd00:10::/64", "10.180.2.0/24"]}, "-s 10.180.2.0/24",
         "! -s 10.180.2.0/24"),
        ({"detectLocalMode": "NodeCIDR"}, {}, None, None),
        ({"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cni0"}}, {}, "-i cni0", "! -i cni0"),  # noqa: E501
        ({"detectLocalMode": "InterfaceNamePrefix", "detectLocal": {"interfaceNamePrefix": "cali"}}, {}, "-i cali+",
         "! -i cali+"),
    ):  # fmt: skip
        cluster = load(tmp_path, [balancer, endpoints("svc1", *TWO)], kube_proxy, node)
        internal = chain(cluster, "KUBE-SVC-XPGD46QRK7WJZT7O")
        external = chain(cluster, "KUBE-EXT-XPGD46QRK7WJZT7O")
        if local is None:
            assert len(internal) == 2, kube_proxy
            assert len(external) == 3, kube_proxy
        else:
            assert internal[0] == (
                '-m comment --comment "ns1/svc1:p80 cluster IP" -m tcp -p tcp -d 172.30.0.41 --dport 80'
                f" {others} -j KUBE-MARK-MASQ"
            )
            assert external[0] == (
                '-m comment --comment "pod traffic for ns1/svc1:p80 external destinations"'
                f" {local} -j KUBE-SVC-XPGD46QRK7WJZT7O"
            )


HINTED = ("10.0.1.1@n1 zone=a", "10.0.1.2@n2 zone=b", "10.0.1.3@n3 zone=b", "10.0.1.4@n4 zone=c !ready")


@pytest.mark.parametrize(
    ("texts", "zone", "outcome"),
    [
        (HINTED, "b", "10.0.1.2:80 10.0.1.3:80"),
        (HINTED, "a", "10.0.1.1:80"),
        (HINTED, "c", "10.0.1.1:80 10.0.1.2:80 10.0.1.3:80"),  # hinted for c is only one that is not ready
        (HINTED, None, "10.0.1.1:80 10.0.1.2:80 10.0.1.3:80"),
        ((*HINTED, "10.0.1.5@n5"), "b", "10.0.1.1:80 10.0.1.2:80 10.0.1.3:80 10.0.1.5:80"),  # one without a hint
        ((*HINTED, "10.0.1.5@n5 !ready"), "b", "10.0.1.2:80 10.0.1.3:80"),  # without a hint, but not ready
        (("10.0.1.1@n1 zone=b !ready serving terminating", "10.0.1.2@n2 zone=a !ready serving terminating"), "b",
         "10.0.1.1:80 10.0.1.2:80"),  # the fall-back knows no topology
    ],
)  # fmt: skip
def test_zone_hints(tmp_path: Path, texts: tuple[str, ...], zone: str | None, outcome: str) -> None:
    objects = [service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="NodePort"), endpoints("svc1", *texts)]
    for node in ({"zone": zone}, {"labels": {"topology.kubernetes.io/zone": zone}}) if zone else ({},):
        check(
            load(tmp_path, objects, node=node),
            f"""
            10.0.0.2 > 172.30.0.41:80 = {outcome}
            203.0.113.2 > 192.168.0.2:3001 = masq {outcome}
            """,
        )


def test_hints_do_not_touch_policy_local(tmp_path: Path) -> None:
    made = service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="NodePort", externalTrafficPolicy="Local")
    slices = endpoints("svc1", "10.0.1.1@test-node zone=a", "10.0.1.2@n2 zone=b")
    check(
        load(tmp_path, [made, slices], node={"zone": "b"}),
        """
        10.0.0.2 > 172.30.0.41:80 = 10.0.1.2:80
        10.0.0.2 > 192.168.0.2:3001 = 10.0.1.2:80
        203.0.113.2 > 192.168.0.2:3001 = 10.0.1.1:80
        """,
    )


def test_node_hints_count_with_their_feature_alone(tmp_path: Path) -> None:
    slices = endpoints("svc1", "10.0.1.1@test-node zone=a node=test-node", "10.0.1.2@n2 zone=a node=n2")
    objects = [service("svc1", "172.30.0.41", trafficDistribution="PreferSameNode"), slices]
    everyone, near = "10.0.1.1:80 10.0.1.2:80", "10.0.1.1:80"
    for release, gates, outcome in (
        ("1.33", {}, everyone),
        ("1.33", {"PreferSameTrafficDistribution": True}, near),
        ("1.34", {}, near),
        ("1.34", {"PreferSameTrafficDistribution": False}, everyone),
    ):
        cluster = load(tmp_path, objects, {"featureGates": gates}, {"zone": "a"}, kubernetes=release)
        check(cluster, f"10.0.0.2 > 172.30.0.41:80 = {outcome}")


def test_which_endpoints_of_which_slices_count(tmp_path: Path) -> None:
    foreign = endpoints("svc1", "10.180.0.9", number=8)
    foreign["metadata"]["namespace"] = "ns2"  # of another namespace
    unlabelled = endpoints("svc1", "10.180.0.8", number=7)
    unlabelled["metadata"]["labels"] = {}
    nameless = endpoints("svc1", "10.180.0.7", number=6)
    nameless["ports"] = [{"port": 80, "protocol": "TCP"}]  # a port without a name is not the port named ""
    portless = endpoints("svc1", "10.180.0.6", number=5)
    portless["ports"] = [{"name": "p80", "protocol": "TCP"}, {"name": "p80", "protocol": "TCP", "port": 0}]
    many = endpoints("svc1", number=4)
    many["endpoints"] = [
        {"addresses": ["10.180.0.2", "10.180.0.3"]},  # the first address alone counts; no conditions at all: ready
        {"addresses": ["10.180.0.4"], "conditions": {"ready": None, "serving": None, "terminating": None}},
        {"addresses": ["10.180.0.5"], "conditions": {"ready": False}},
    ]
    objects = [service("svc1", "172.30.0.41"), endpoints("svc1", "10.180.0.1"), endpoints("svc1", "10.180.0.1", number=2),  # noqa: E501
               many, portless, nameless, unlabelled, foreign]  # fmt: skip
    for order in (objects, objects[::-1]):
        check(load(tmp_path, order), "10.0.0.2 > 172.30.0.41:80 = 10.180.0.1:80 10.180.0.2:80 10.180.0.4:80")


def test_an_endpoint_in_two_slices_is_the_one_that_does_not_terminate(tmp_path: Path) -> None:
    ending, living = "10.180.0.1@host1 !ready serving terminating", "10.180.0.1@test-node"
    for first, second in ((ending, living), (living, ending)):
        made = service("svc1", "172.30.0.41", internalTrafficPolicy="Local")
        objects = [made, endpoints("svc1", first), endpoints("svc1", second, number=2)]
        check(load(tmp_path, objects), "10.0.0.2 > 172.30.0.41:80 = 10.180.0.1:80")


def test_two_endpoints_may_share_an_address_with_different_ports(tmp_path: Path) -> None:
    objects = [
        service("svc1", "172.30.0.41"),
        endpoints("svc1", "10.180.0.1", ports=("p80/80",)),
        endpoints("svc1", "10.180.0.1", ports=("p80/8080",), number=2),
    ]
    check(load(tmp_path, objects), "10.0.0.2 > 172.30.0.41:80 = 10.180.0.1:80 10.180.0.1:8080")


def test_the_share_of_each_endpoint(tmp_path: Path) -> None:
    for count in (1, 2, 3, 4, 5, 7, 11):
        texts = [f"10.180.0.{number}" for number in range(1, count + 1)]
        cluster = load(tmp_path, [service("svc1", "172.30.0.41"), endpoints("svc1", *texts)])
        written = [rule.split("--probability ")[1].split()[0] if "--probability" in rule else None
                   for rule in chain(cluster, "KUBE-SVC-XPGD46QRK7WJZT7O")[1:]]  # fmt: skip
        assert written == [f"{1 / left:.10f}" for left in range(count, 1, -1)] + [None]
        outcomes = cluster.trace("10.0.0.2", "172.30.0.41:80", node=NODE, all=True).to_dict()["outcomes"]
        assert [each["probability"] for each in outcomes] == pytest.approx([1 / count] * count, rel=1e-8)


def test_kernel_probabilities_are_those_that_a_kernel_printed(tmp_path: Path) -> None:
    texts = [f"10.180.0.{number}" for number in range(1, 12)]
    cluster = load(tmp_path, [service("svc1", "172.30.0.41"), endpoints("svc1", *texts)])
    saved = cluster.rules(NODE).to_save()
    for printed in ("0.50000000000", "0.33333333349", "0.25000000000", "0.20000000019", "0.16666666651", "0.14285714272",  # noqa: E501
                    "0.12500000000", "0.11111111101", "0.10000000009", "0.09090909082"):  # fmt: skip
        assert f" --probability {printed} " in saved


def test_a_large_cluster_writes_fewer_comments(tmp_path: Path) -> None:
    def of(count: int) -> list:
        texts = [f"10.{180 + number // 250}.1.{number % 250 + 1}" for number in range(count)]
        return [
            service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="NodePort", sessionAffinity="ClientIP"),
            endpoints("svc1", *texts[:1], *(f"{text} !ready" for text in texts[1:])),
        ]

    sep = "KUBE-SEP-" + suffix("ns1/svc1:p80tcp10.180.1.1:80")
    small = load(tmp_path, of(1000))
    assert len(chain(small, "KUBE-SVC-XPGD46QRK7WJZT7O")) == 3  # one endpoint of 1,000 is ready
    assert all("--comment" in rule for rule in chain(small, "KUBE-SVC-XPGD46QRK7WJZT7O") + chain(small, sep))
    large = load(tmp_path, of(1001))  # ready or not, they count
    assert chain(large, "KUBE-SVC-XPGD46QRK7WJZT7O") == [
        '-m comment --comment "ns1/svc1:p80 cluster IP" -m tcp -p tcp -d 172.30.0.41 --dport 80 ! -s 10.0.0.0/8'
        " -j KUBE-MARK-MASQ",
        f"-m recent --name {sep} --rcheck --seconds 10800 --reap -j {sep}",
        f"-j {sep}",
    ]
    assert chain(large, sep) == [
        "-s 10.180.1.1 -j KUBE-MARK-MASQ",
        f"-m recent --name {sep} --set -m tcp -p tcp -j DNAT --to-destination 10.180.1.1:80",
    ]
    assert "--comment ns1/svc1:p80" in chain(large, "KUBE-NODEPORTS")[0]
    # endpoints of Services that kube-proxy does not know do not count
    foreign = load(tmp_path, [*of(600), endpoints("svc9", *(f"10.9.{n // 250}.{n % 250 + 1}" for n in range(600)))])
    assert "--comment" in chain(foreign, sep)[0]


def test_the_order_of_services_in_shared_chains(tmp_path: Path) -> None:
    names = ("svc2", "svc10", "svc1")
    made = []
    for number, name in enumerate(names):
        each = service(name, f"172.30.0.{number + 1}", f"b/81/TCP/{3000 + 2 * number}", f"a/80/TCP/{3001 + 2 * number}",
                       type="NodePort")  # fmt: skip
        each["metadata"]["namespace"] = "ns"
        slices = endpoints(name, "10.180.0.1", ports=("a/80", "b/81"))
        slices["metadata"]["namespace"] = "ns"
        made += [slices, each]
    cluster = load(tmp_path, made)
    shown = [rule.split('"')[1].split()[0] for rule in chain(cluster, "KUBE-SERVICES")[:-1]]
    assert shown == ["ns/svc1:b", "ns/svc1:a", "ns/svc10:b", "ns/svc10:a", "ns/svc2:b", "ns/svc2:a"]
    ports = [rule.split()[3] for rule in chain(cluster, "KUBE-NODEPORTS")]
    assert ports == [each for each in shown for _ in range(2)]


def test_size_of_the_rules(tmp_path: Path) -> None:
    def size(*objects: dict, **kube_proxy: object) -> int:
        text = load(tmp_path, list(objects), kube_proxy).rules(NODE).to_restore()
        return sum(line.startswith("-A KUBE-") for line in text.split("*nat\n")[1].split("COMMIT")[0].splitlines())

    def of(*texts: str, **spec: object) -> tuple[dict, dict]:
        return service("svc1", "172.30.0.41", "p80/80" + "/TCP/3001" * bool(spec), **spec), endpoints("svc1", *texts)

    local = {"type": "NodePort", "externalTrafficPolicy": "Local"}
    assert size() == 5
    assert size(*of("10.180.0.1")) == 5 + 5
    assert size(*of("10.180.0.1", "10.180.0.2", "10.180.0.3")) == 5 + 2 + 3 * 3
    assert size(*of("10.180.0.1", "10.180.0.2", "10.180.0.3"), clusterCIDR="") == 5 + 1 + 3 * 3
    assert size(*of("10.180.0.1", type="NodePort")) == 5 + 5 + 2 + 2
    assert size(*of("10.180.0.1", type="NodePort"), host={"nfacctCounters": []}) == 5 + 5 + 1 + 2
    assert size(*of("10.180.0.1@test-node", "10.180.0.2", **local)) == 5 + 8 + 2 + 4 + 1
    assert size(*of("10.180.0.1@test-node", "10.180.0.2", **local), clusterCIDR="") == 5 + 7 + 2 + 3 + 1


def test_a_port_without_number_is_port_0_of_a_held_object(tmp_path: Path) -> None:
    made = service("svc1", "172.30.1.1")
    made["spec"]["ports"] = [{"targetPort": 80, "protocol": "TCP"}]
    cluster = load(tmp_path, [made, endpoints("svc1", "10.0.1.1@test-node", ports=("/80",))])
    assert chain(cluster, "KUBE-SERVICES")[0] == (
        '-m comment --comment "ns1/svc1 cluster IP" -m tcp -p tcp -d 172.30.1.1 --dport 0 -j KUBE-SVC-AQI2S6QIMU7PVVRP'
    )
    assert chain(cluster, "KUBE-SEP-3JOIVZTXZZRGORX4") == [
        "-m comment --comment ns1/svc1 -s 10.0.1.1 -j KUBE-MARK-MASQ",
        "-m comment --comment ns1/svc1 -m tcp -p tcp -j DNAT --to-destination 10.0.1.1:80",
    ]


def test_addresses_with_leading_zeros_are_decimal(tmp_path: Path) -> None:
    made = service("svc1", "172.30.0.041", "p80/80/TCP/3001", type="LoadBalancer", ingress=[{"ip": "1.2.3.004"}],
                   externalIPs=["192.168.099.022"], loadBalancerSourceRanges=["203.0.113.000/025"])  # fmt: skip
    check(
        load(tmp_path, [made, endpoints("svc1", "10.180.000.010")]),
        """
        10.0.0.2 > 172.30.0.41:80 = 10.180.0.10:80
        203.0.113.2 > 1.2.3.4:80 = masq 10.180.0.10:80
        203.0.113.130 > 1.2.3.4:80 = DROP
        203.0.113.130 > 192.168.99.22:80 = masq 10.180.0.10:80
        """,
    )


@pytest.mark.parametrize(
    ("release", "present", "absent"),
    [
        ("1.34", ("KUBE-EXT-", "KUBE-PROXY-FIREWALL", "nfacct"), ("KUBE-XLB-", "KUBE-MARK-DROP")),
        ("1.32", ("KUBE-EXT-", "KUBE-PROXY-FIREWALL", "nfacct"), ("KUBE-XLB-", "KUBE-MARK-DROP")),
        ("1.31", ("KUBE-EXT-", "KUBE-PROXY-FIREWALL"), ("KUBE-XLB-", "KUBE-MARK-DROP", "nfacct")),
        ("1.25", ("KUBE-EXT-", "KUBE-MARK-DROP"), ("KUBE-XLB-", "KUBE-PROXY-FIREWALL", "nfacct")),
        ("1.23", ("KUBE-XLB-", "KUBE-MARK-DROP"), ("KUBE-EXT-", "KUBE-PROXY-FIREWALL", "nfacct")),
    ],
)
def test_what_the_releases_wrote(
    tmp_path: Path, release: str, present: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    made = service("svc1", "172.30.0.41", "p80/80/TCP/3001", type="LoadBalancer", ingress=VIPS,
                   externalTrafficPolicy="Local", loadBalancerSourceRanges=["203.0.113.0/25"])  # fmt: skip
    cluster = load(tmp_path, [made, endpoints("svc1", *TWO)], kubernetes=release)
    text = cluster.rules(NODE).to_restore()
    assert [word for word in present if word not in text] == []
    assert [word for word in absent if word in text] == []
    # KUBE-FIREWALL, where older releases dropped marked packets, is in INPUT and OUTPUT alone: this VIP is forwarded
    refused = "DROP" if "KUBE-PROXY-FIREWALL" in present else "none"
    check(
        cluster,
        f"""
        203.0.113.2 > 1.2.3.4:80 = 10.180.2.1:80
        203.0.113.130 > 1.2.3.4:80 = {refused}
        10.0.0.2 > 172.30.0.41:80 = 10.180.0.1:80 10.180.2.1:80
        203.0.113.2 > 192.168.0.2:3001 = 10.180.2.1:80
        """,
    )
