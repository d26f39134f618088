"""Random clusters: Services of every kind, slices that overlap and disagree, and all settings of kube-proxy."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from simnet.controlplane.kube_proxy import ProxiedNode, RuleGenerator
from simnet.model.iptables.ruleset import Family, Ruleset
from simnet.model.kube_proxy import (
    DetectLocalConfiguration,
    DetectLocalMode,
    KubeProxyConfiguration,
    KubeProxyHost,
    KubeProxyIPTablesConfiguration,
)
from simnet.model.kubernetes import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    LoadBalancerIngress,
    Service,
    ServicePort,
)

NODES = ("node-1", "node-2", "node-3")
NO_COUNTERS = KubeProxyHost(nfacct_counters=())  # a namespace without nfacct objects refuses rules that name them
PREFIX = {Family.IPV4: "10.0.{}.{}", Family.IPV6: "fd00:10::{:x}:{:x}"}
API_FAMILY = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}
CLUSTER_CIDR = {Family.IPV4: "10.0.0.0/16", Family.IPV6: "fd00:10::/64"}


@dataclass(frozen=True)
class RandomCluster:
    """Everything that a generator and its nodes need."""

    services: tuple[Service, ...]
    endpoint_slices: tuple[EndpointSlice, ...]
    configuration: KubeProxyConfiguration
    family: Family
    nodes: tuple[ProxiedNode, ...]

    def generator(self) -> RuleGenerator:
        """A fresh generator."""
        return RuleGenerator(self.services, self.endpoint_slices, self.configuration, self.family)

    def rulesets(self) -> list[Ruleset]:
        """The rules of all nodes, from one generator."""
        generator = self.generator()
        return [generator.for_node(node) for node in self.nodes]


tri_state = st.sampled_from([None, None, True, False])


def address(family: Family, high: int, low: int) -> str:
    """A pod, cluster or outside address of the family."""
    return PREFIX[family].format(high, low)


@st.composite
def services(draw: st.DrawFn, family: Family, number: int) -> Service:
    kind = draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]))
    v4 = family is Family.IPV4
    names = draw(st.sampled_from([("",), ("http",), ("http", "dns-udp", "sig")]))
    ports = tuple(
        ServicePort(
            name,
            draw(st.sampled_from(["TCP", "UDP", "SCTP"])),
            80 + i,
            8080,
            30000 + 10 * number + i if kind != "ClusterIP" and draw(st.booleans()) else 0,
        )
        for i, name in enumerate(names)
    )
    outside = ["203.0.113.{}", "192.168.0.2"] if v4 else ["2001:db8:9::{}", "2001:db8::2"]
    ranges = ["192.168.0.0/24", " 203.0.113.0/25", "198.51.100.7/32", "0.0.0.0/0", "2001:db8::/64", "::/0"]
    vip = "1.2.3.{}" if v4 else "2001:db8:5::{}"
    return Service(
        f"ns{number % 2}",
        f"svc-{number}",
        type=kind,
        cluster_ip=f"172.30.0.{number + 1}" if v4 else f"fd00:172::{number + 1:x}",
        ports=ports,
        external_ips=tuple(
            draw(st.lists(st.sampled_from([text.format(number + 1) for text in outside]), unique=True, max_size=2))
        ),
        load_balancer_ingress=tuple(
            LoadBalancerIngress(vip.format(10 * number + i), ip_mode=draw(st.sampled_from(["VIP", "VIP", "Proxy"])))
            for i in range(draw(st.integers(0, 2)) if kind == "LoadBalancer" else 0)
        ),
        load_balancer_source_ranges=tuple(draw(st.lists(st.sampled_from(ranges), unique=True, max_size=3))),
        external_traffic_policy=draw(st.sampled_from(["Cluster", "Local"])),
        internal_traffic_policy=draw(st.sampled_from(["Cluster", "Cluster", "Local"])),
        session_affinity=draw(st.sampled_from(["None", "None", "ClientIP"])),
        session_affinity_timeout_seconds=draw(st.sampled_from([1, 10800])),
        health_check_node_port=draw(st.sampled_from([0, 32000 + number])),
    )


@st.composite
def slices(draw: st.DrawFn, family: Family, service: Service, number: int) -> EndpointSlice:
    hinted = draw(st.booleans())
    count = draw(st.integers(0, 4))
    hosts = draw(st.lists(st.integers(1, 12), min_size=count, max_size=count))
    return EndpointSlice(
        service.namespace,
        f"{service.name}-{number}",
        service.name,
        API_FAMILY[family],
        tuple(
            Endpoint(
                (address(family, 0, host),),
                EndpointConditions(draw(tri_state), draw(tri_state), draw(tri_state)),
                node_name=draw(st.sampled_from([None, *NODES])),
                hints_for_zones=(draw(st.sampled_from(["a", "b"])),) if hinted else None,
            )
            for host in hosts
        ),
        tuple(EndpointPort(port.name, port.protocol, 8080) for port in service.ports),
    )


@st.composite
def clusters(draw: st.DrawFn, *, host: KubeProxyHost | None = None) -> RandomCluster:
    """A cluster of at most five Services, with all that may vary; `host` fixes what kube-proxy finds on its host."""
    family = draw(st.sampled_from(Family))
    made = tuple(draw(services(family, number)) for number in range(draw(st.integers(0, 5))))
    configuration = KubeProxyConfiguration(
        cluster_cidr=draw(st.sampled_from(["", CLUSTER_CIDR[family], ",".join(CLUSTER_CIDR.values())])),
        detect_local_mode=draw(st.sampled_from(DetectLocalMode)),
        detect_local=DetectLocalConfiguration("cni0", "cali"),
        node_port_addresses=draw(
            st.sampled_from(
                [(), ("primary",), ("192.168.0.0/24",), ("192.168.0.0/24", "127.0.0.0/8", "2001:db8::/64"), ("::/0",)]
            )
        ),
        iptables=KubeProxyIPTablesConfiguration(
            masquerade_all=draw(st.booleans()), localhost_node_ports=draw(st.booleans())
        ),
        host=host or KubeProxyHost(conntrack_tcp_be_liberal=draw(st.booleans()), random_fully=draw(st.booleans())),
    )
    nodes = tuple(
        ProxiedNode(
            name,
            f"192.168.{number}.2" if family is Family.IPV4 else f"2001:db8:0:{number}::2",
            {"topology.kubernetes.io/zone": zone} if zone else {},
            ("127.0.0.1/8", "::1/128", f"192.168.{number}.2/24", "192.168.0.9/24", f"2001:db8:0:{number}::2/64"),
            (f"10.0.{number}.0/24", f"fd00:10:0:{number}::/64"),
        )
        for number, (name, zone) in enumerate(zip(NODES, draw(st.permutations(["a", "b", ""])), strict=True))
    )
    held = tuple(draw(slices(family, service, i)) for service in made for i in range(draw(st.integers(0, 2))))
    return RandomCluster(made, held, configuration, family, nodes)
