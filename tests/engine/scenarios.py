"""Small scenarios for tests of whole runs: plain builders, and a hypothesis strategy over all that they can say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from simnet.model.calico import CalicoSettings, Encapsulation, FabricMode, FabricSettings, Mode, Wiring
from simnet.model.kube_proxy import KubeProxyConfiguration, KubeProxyIPTablesConfiguration
from simnet.model.kubernetes import (
    ContainerPort,
    LoadBalancerIngress,
    Objects,
    Pod,
    Service,
    ServicePort,
)
from simnet.model.recording import Categories
from simnet.model.scenario import ClusterSpec, Entry, NodeSpec, RunSpec, Scenario, Variant
from simnet.model.workload import (
    TCP,
    UDP,
    ClientOrigin,
    ClientPopulation,
    Constant,
    Deterministic,
    Empirical,
    EntryChoice,
    EntryChoiceKind,
    Exponential,
    FlowShape,
    KeepAlive,
    Poisson,
    Uniform,
    Workload,
)
from simnet.workload.distributions import mean_of

S, MS, US, NS = 10**12, 10**9, 10**6, 10**3
VIP, BALANCED = "203.0.113.80", "203.0.114.80"
VIP6 = "2001:db8:53::80"
WEB = (("app", "web"),)
NAMES = {TCP: "TCP", UDP: "UDP"}


def service(name="web", **fields):
    """A Service on port 80 for the pods labelled app=web, which listen on 8080; TCP and UDP alike."""
    ports = tuple(ServicePort(word.lower(), word, 80, 8080) for word in ("TCP", "UDP"))
    return Service("d", name, ports=ports, selector=WEB, **fields)


def pod(name, node, **fields):
    """A ready pod of the service on a node."""
    return Pod("d", name, labels=WEB, node_name=node, container_ports=(ContainerPort("", 8080),), **fields)


def nodes(count, *, dual=False, family=4):
    """Nodes n1, n2, ... on 10.0.0.11 and so on."""
    found = []
    for number in range(1, count + 1):
        four, six = f"10.0.0.{10 + number}", f"fd00::{10 + number:x}"
        found.append(NodeSpec(f"n{number}", (four, six) if dual else (six if family == 6 else four,)))
    return tuple(found)


def cluster(node_specs, pods, services, *, wiring=Wiring.S1, fabric=FabricSettings(), **fields):
    """A cluster without encapsulation; pools 192.168.0.0/16 and fd10::/64."""
    kube_proxy = fields.pop("kube_proxy", KubeProxyConfiguration(cluster_cidr="192.168.0.0/16,fd10::/64"))
    families = {6 if ":" in address else 4 for node in node_specs for address in node.addresses}
    pools = tuple(pool for family, pool in ((4, "192.168.0.0/16"), (6, "fd10::/64")) if family in families)
    calico = CalicoSettings(ip_pools=pools, wiring=wiring, **fields.pop("calico", {}))
    return ClusterSpec(
        Objects(services=tuple(services), pods=tuple(pods)), node_specs, kube_proxy, calico, fabric,
        service_cidrs=("10.96.0.0/12", "fd96::/108"), **fields,
    )  # fmt: skip


def scenario(spec, entry, *, flows=400, clients=None, protocol=TCP, choice=EntryChoice(), shape=None, **run):
    """A run of about `flows` flows, 1,000 a second unless `arrivals` says otherwise."""
    clients = clients or ClientPopulation(20, addresses=("198.51.100.0/24",))
    shape = shape or FlowShape(Constant(1), Constant(200), Constant(0), Constant(300))
    arrivals = run.pop("arrivals", Poisson(1000.0))
    name = run.pop("service", "d/web")
    duration_ps = run.pop("duration_ps", flows * MS)
    workload = Workload(arrivals, clients, shape, protocol)
    return Scenario(spec, workload, Variant("v", entry, name, choice=choice), RunSpec(duration_ps, **run), "packets")


def plain(data):
    """A recorded column as a list of plain values; categories by name."""
    if isinstance(data, Categories):
        return [data.names[code] for code in data.codes.tolist()]
    return data.tolist()


def same_bytes(one, other):
    """Whether two recordings hold the same names, dtypes and bytes."""
    return fingerprint(one) == fingerprint(other)


def fingerprint(recording):
    """Everything that a recording holds, as nested tuples of bytes."""
    tables = []
    for table, columns in recording.tables.items():
        for name, data in columns.items():
            names, values = (data.names, data.codes) if isinstance(data, Categories) else ((), data)
            tables.append((table, name, names, values.dtype.str, np.ascontiguousarray(values).tobytes()))
    return tuple(tables), tuple(recording.totals.items())


@st.composite
def fabrics(draw):
    """One switch or leaf-spine, routed or bridged, with rates and delays that are no round numbers."""
    leaves = draw(st.sampled_from([0, 0, 0, 2, 3]))
    return FabricSettings(
        mode=draw(st.sampled_from(FabricMode)) if not leaves else FabricMode.ROUTED,
        leaves=leaves,
        spines=draw(st.integers(1, 2)) if leaves else 0,
        border_leaf=draw(st.booleans()),
        ecmp_hash=draw(st.sampled_from(["l3", "l4", "symmetric"])),
        ecmp_choice=draw(st.sampled_from(["modulo", "hash-threshold", "resilient", "hrw"])),
        ecmp_has_shared_seed=draw(st.booleans()),
        link_rate_bps=draw(st.sampled_from([10**9, 3 * 10**9, 7_777_777])),
        link_delay_ps=draw(st.integers(0, 9 * US)),
        client_link_rate_bps=draw(st.sampled_from([10**9, 10**10])),
        client_link_delay_ps=draw(st.integers(0, 9 * US)),
    )


@st.composite
def scenarios(draw):
    """Any small scenario. Where rules count connections (nth, recent), flows start far apart: in order of sending."""
    family = draw(st.sampled_from([4, 4, 4, 6]))
    dual = draw(st.booleans()) if family == 4 else False
    node_specs = nodes(draw(st.integers(1, 5)), dual=dual, family=family)
    modes = st.sampled_from(["none", "none", "strict", "loose"])
    node_specs = tuple(replace(node, rp_filter=draw(modes)) for node in node_specs)
    names = [node.name for node in node_specs]
    protocol = draw(st.sampled_from([TCP, UDP]))
    entry = draw(st.sampled_from(Entry))
    pods = tuple(
        pod(f"p{number}", draw(st.sampled_from(names)), ready=draw(st.integers(0, 5)) > 0)
        for number in range(draw(st.integers(1 if entry is Entry.POD else 0, 4)))
    )
    if draw(st.integers(0, 4)) == 0:
        pods = (*pods, pod("host", draw(st.sampled_from(names)), host_network=True))
    if entry is Entry.POD and pods:
        pods = (replace(pods[0], ready=True), *pods[1:])
    vip = VIP6 if family == 6 else draw(st.sampled_from([VIP, node_specs[0].addresses[0]]))
    affinity = draw(st.integers(0, 3)) == 0
    balanced = entry is Entry.LOAD_BALANCER_IP
    web = service(
        type="LoadBalancer"
        if balanced
        else ("NodePort" if entry is Entry.NODE_PORT or draw(st.booleans()) else "ClusterIP"),
        external_ips=(vip,) if entry is Entry.EXTERNAL_IP else (),
        load_balancer_ingress=(LoadBalancerIngress(VIP6 if family == 6 else BALANCED),) if balanced else (),
        load_balancer_source_ranges=(
            draw(st.sampled_from([(), (), ("198.51.100.0/28", "2001:db8::/124")])) if balanced else ()
        ),
        external_traffic_policy=draw(st.sampled_from(["Cluster", "Local"])),
        internal_traffic_policy=draw(st.sampled_from(["Cluster", "Cluster", "Cluster", "Local"])),
        session_affinity="ClientIP" if affinity else "None",
        session_affinity_timeout_seconds=draw(st.sampled_from([1, 10800])) if affinity else 10800,
        ip_families=("IPv6",) if family == 6 else ("IPv4",),
    )  # fmt: skip
    advertised = {
        "service_external_ips": ("203.0.113.0/24", "2001:db8:53::/64") if draw(st.booleans()) else (),
        "service_load_balancer_ips": ("203.0.114.0/24", "2001:db8:53::/64") if draw(st.integers(0, 3)) else (),
        "service_cluster_ips": ("10.96.0.0/12", "fd96::/108") if draw(st.booleans()) else (),
        "nat_outgoing": draw(st.booleans()),
    }
    wrapped = draw(st.sampled_from([None, None, "ipip", "vxlan"]))
    if wrapped is not None and family == 4:
        mode = draw(st.sampled_from([Mode.ALWAYS, Mode.CROSS_SUBNET]))
        advertised["encapsulations"] = (Encapsulation("192.168.0.0/16", wrapped, mode),)
    shape = draw(flow_shapes(protocol))
    alike = all(
        size is None or isinstance(size, Constant) for size in (shape.packet_size_bytes, shape.reply_size_bytes)
    )
    # a flow's packets share the fate of its first, so an MTU matters here only where their sizes are alike
    fabric = replace(draw(fabrics()), mtu=draw(st.sampled_from([1500, 1500, 1049, 1020, 826])) if alike else 65535)
    spec = cluster(
        node_specs, pods, [web, service("other", type="NodePort")],
        wiring=draw(st.sampled_from([Wiring.S1, Wiring.S1, Wiring.S2, Wiring.S3, Wiring.S4, Wiring.S5])),
        fabric=fabric, calico=advertised,
        kube_proxy=KubeProxyConfiguration(
            cluster_cidr=draw(st.sampled_from(["192.168.0.0/16,fd10::/64", ""])),
            iptables=KubeProxyIPTablesConfiguration(masquerade_all=draw(st.integers(0, 5)) == 0),
        ),
    )  # fmt: skip
    nth = draw(st.integers(0, 5)) == 0
    counts = affinity or nth
    choice = EntryChoice(draw(st.sampled_from([k for k in EntryChoiceKind if k is not EntryChoiceKind.FIXED])))
    if entry is Entry.NODE_PORT and draw(st.booleans()):
        choice = EntryChoice(EntryChoiceKind.FIXED, draw(st.sampled_from(names)))
    return scenario(
        spec, entry, protocol=protocol, choice=choice,
        clients=draw(client_populations(names, pods, family)),
        shape=shape,
        arrivals=draw(arrivals(shape, counts=counts)),
        duration_ps=draw(st.sampled_from([S // 5, S])),
        warmup_ps=draw(st.sampled_from([0, S // 10])),
        window_flows=draw(st.sampled_from([7, 65536, 65536])),
        statistic_mode="nth" if nth else "random",
        recent_limit=draw(st.sampled_from([1, 3, 100, None])) if affinity else 100,
    )  # fmt: skip


@st.composite
def arrivals(draw, shape, *, counts):
    """Flows by themselves, or pools of connections that send about thirty requests each."""
    if counts:
        return Deterministic(37.3)
    drawn = draw(st.sampled_from([Poisson(100.0), Poisson(3.0), Deterministic(50.0), None]))
    if drawn is not None or mean_of(shape.gap_ps) < 1:
        return drawn or Poisson(20.0)
    until_ps = int(30 * mean_of(shape.gap_ps))
    return KeepAlive(draw(st.integers(1, 3)), until_ps, draw(st.integers(1, 9)), draw(st.sampled_from([None, 3 * MS])))


@st.composite
def client_populations(draw, names, pods, family):
    """Outside, in pods (a pod of the service itself among them: hairpin), or on nodes."""
    origin = draw(st.sampled_from(ClientOrigin))
    count = draw(st.integers(1, 5))
    if origin is ClientOrigin.OUTSIDE:
        return ClientPopulation(count, origin, ("2001:db8::/64" if family == 6 else "198.51.100.0/24",))
    if origin is ClientOrigin.NODES:
        return ClientPopulation(count, origin, tuple(draw(st.lists(st.sampled_from(names), unique=True))))
    mine = [f"d/{each.name}" for each in pods if not each.host_network]
    chosen = draw(st.lists(st.sampled_from(mine), unique=True)) if mine else []
    return ClientPopulation(count, origin, tuple(chosen))


@st.composite
def flow_shapes(draw, protocol):
    """Packets, sizes and pauses; where sizes vary no packet overtakes another of its flow."""
    if protocol == UDP and draw(st.booleans()):  # pauses on either side of conntrack's 2, 30 and 120 s
        pauses = (50 * MS, 3 * S // 2, 5 * S // 2, 29 * S, 31 * S, 119 * S, 121 * S)
        gap, varies = Empirical(pauses, (4, 1, 2, 1, 1, 1, 1)), True
    else:
        gap = draw(st.sampled_from([Constant(0), Exponential(1e9), Constant(50 * MS)]))
        varies = gap == Constant(50 * MS)
    size = draw(st.sampled_from([Constant(1000), Uniform(60, 1500)])) if varies else Constant(777)
    reply = draw(st.sampled_from([None, Constant(60), Uniform(60, 9000) if varies else Constant(1500)]))
    return FlowShape(draw(st.sampled_from([Constant(1), Uniform(1, 8)])), size, gap, reply)
