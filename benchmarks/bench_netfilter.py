"""First packets through nat PREROUTING: packets per second and time to compile, beside the rule-by-rule interpreter.

Run: python benchmarks/bench_netfilter.py [--packets N] [--hosts N]. One core. Prints and writes
benchmarks/results/netfilter.json. Beside it: packets with ClientIP affinity, and 1,000 nodes compiled in one program,
with the policies Cluster and Local. Compile times are CPU seconds.
Rule sets have kube-proxy's shape: per service a KUBE-SERVICES rule, a KUBE-SVC cascade and a KUBE-SEP chain per
endpoint.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import platform
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from reference.netfilter_interpreter import Interpreter  # noqa: E402

from simnet.controlplane.kube_proxy import ProxiedNode, RuleGenerator  # noqa: E402
from simnet.dataplane.netfilter.compiler import compile_program  # noqa: E402
from simnet.dataplane.netfilter.counters import Counters  # noqa: E402
from simnet.dataplane.netfilter.executor import run_chain  # noqa: E402
from simnet.dataplane.netfilter.packets import PacketColumns  # noqa: E402
from simnet.dataplane.netfilter.state import NetfilterState  # noqa: E402
from simnet.model.addresses import AddressTable  # noqa: E402
from simnet.model.iptables import ruleset as rs  # noqa: E402
from simnet.model.kube_proxy import KubeProxyConfiguration  # noqa: E402
from simnet.model.kubernetes import Endpoint, EndpointPort, EndpointSlice, Service, ServicePort  # noqa: E402

POD_CIDR = ipaddress.ip_network("10.0.0.0/8")


def kube_proxy_rules(services: int, endpoints: int) -> tuple[rs.Ruleset, list[str]]:
    """Rules of `services` ClusterIP ports over `endpoints` each, as kube-proxy writes them; and the cluster IPs."""
    tcp = rs.ProtocolMatch(6, "tcp")
    chains: dict[str, rs.Chain] = {}
    mark = rs.Jump("KUBE-MARK-MASQ")
    to_services, cluster_ips = [], []
    for service in range(services):
        cluster_ip = str(ipaddress.ip_address("172.30.0.0") + service + 1)
        cluster_ips.append(cluster_ip)
        name, comment = f"KUBE-SVC-{service:016d}", rs.CommentMatch(f"ns/svc-{service} cluster IP")
        to_cluster_ip = (
            rs.DestinationAddress(ipaddress.ip_network(cluster_ip)), tcp, comment, rs.PortMatch("tcp", None, (80, 80))
        )  # fmt: skip
        to_services.append(rs.Rule(to_cluster_ip, rs.Jump(name)))
        spread = [rs.Rule((rs.SourceAddress(POD_CIDR, True), *to_cluster_ip), mark)]
        for endpoint in range(endpoints):
            address = str(ipaddress.ip_address("10.1.0.0") + service * endpoints + endpoint)
            sep, left = f"KUBE-SEP-{service:08d}{endpoint:08d}", endpoints - endpoint
            note = rs.CommentMatch(f"ns/svc-{service} -> {address}:8080")
            random = () if left == 1 else (rs.StatisticRandom(round(2**31 / left)),)
            spread.append(rs.Rule((note, *random), rs.Jump(sep)))
            chains[sep] = rs.Chain(sep, (
                rs.Rule((rs.SourceAddress(ipaddress.ip_network(address)), note), mark),
                rs.Rule((tcp, note, rs.PortMatch("tcp")), rs.Dnat(address, (8080, 8080))),
            ))  # fmt: skip
        chains[name] = rs.Chain(name, tuple(spread))
    to_services.append(rs.Rule((rs.AddressTypeMatch(None, "LOCAL"),), rs.Jump("KUBE-NODEPORTS")))
    chains["KUBE-NODEPORTS"] = rs.Chain("KUBE-NODEPORTS")
    chains["KUBE-MARK-MASQ"] = rs.Chain("KUBE-MARK-MASQ", (rs.Rule((), rs.SetMark(0x4000, 0x4000)),))
    chains["KUBE-SERVICES"] = rs.Chain("KUBE-SERVICES", tuple(to_services))
    portals = rs.Rule((rs.CommentMatch("kubernetes service portals"),), rs.Jump("KUBE-SERVICES"))
    chains["PREROUTING"] = rs.Chain("PREROUTING", (portals,), "ACCEPT")
    return rs.Ruleset(rs.Family.IPV4, {"nat": rs.Table("nat", chains)}), cluster_ips


def packets_to(cluster_ips: list[str], count: int, addresses: AddressTable) -> PacketColumns:
    """First packets from 500 clients, half of them pods, to all services alike."""
    generator = np.random.default_rng(1)
    clients = [addresses.intern(f"{net}.{i // 250}.{i % 250 + 1}") for net in ("10.200", "198.51") for i in range(250)]
    targets = np.array([addresses.intern(ip) for ip in cluster_ips])
    return PacketColumns.of(
        count, source=generator.choice(clients, count), destination=generator.choice(targets, count),
        source_port=generator.integers(1024, 65536, count), destination_port=80,
    )  # fmt: skip


def measure(services: int, endpoints: int, count: int) -> tuple[float, float]:
    """Return (packets per second, CPU seconds to compile)."""
    rules, cluster_ips = kube_proxy_rules(services, endpoints)
    addresses = AddressTable()
    started = time.process_time()
    program = compile_program([rules], addresses)
    compile_s = time.process_time() - started
    packets = packets_to(cluster_ips, count, addresses)
    best_s = float("inf")
    for _ in range(5):
        counters = Counters(program)
        started = time.perf_counter()
        outcome = run_chain(program, "nat", "PREROUTING", packets, seed=1, state=NetfilterState(), counters=counters)
        counters.of_rules(0, 0, 1)  # adds up what is logged
        best_s = min(best_s, time.perf_counter() - started)
    assert (outcome.destination_port == 8080).all()
    interpreter = Interpreter([rules], addresses, seed=1)
    few = max(20, min(2000, 200_000 // services))
    rows = [
        SimpleNamespace(**{n: getattr(packets, n)[i].item() for n in packets.__dataclass_fields__}) for i in range(few)
    ]
    started = time.perf_counter()
    for row, packet in enumerate(rows):
        assert interpreter.run("nat", "PREROUTING", packet).destination == outcome.destination[row]
    reference_s = (time.perf_counter() - started) / few
    rate = count / best_s
    print(f"{services:6d} services x {endpoints} endpoints: compiled in {compile_s:6.2f} s; {rate / 1e6:5.2f} M/s; "
          f"{rate * reference_s:10.0f} times the interpreter", flush=True)  # fmt: skip
    return rate, compile_s


def cluster(
    services: int, endpoints: int, nodes: int, every: int, field: str, affinity: str = "None"
) -> list[rs.Ruleset]:
    """Each node's rules; one service in `every` has the policy Local in `field`, with endpoints on three nodes."""
    made, slices = [], []
    for i in range(services):
        is_local = every > 0 and i % every == 0
        made.append(
            Service(
                "ns", f"svc-{i}", type="NodePort", cluster_ip=str(ipaddress.ip_address("172.30.0.0") + i + 1),
                ports=(ServicePort("", "TCP", 80, 8080, 30000 + i if i < 2700 else 0),),
                external_ips=(str(ipaddress.ip_address("203.0.0.0") + i + 1),), session_affinity=affinity,
                **({field: "Local"} if is_local else {}),
            )
        )  # fmt: skip
        held = tuple(
            Endpoint((str(ipaddress.ip_address("10.1.0.0") + i * endpoints + j),),
                     node_name=f"node-{(7 * i + (j % 3 if is_local else j)) % nodes}") for j in range(endpoints)
        )  # fmt: skip
        slices.append(EndpointSlice("ns", f"svc-{i}-1", f"svc-{i}", "IPv4", held, (EndpointPort("", "TCP", 8080),)))
    generator = RuleGenerator(made, slices, KubeProxyConfiguration(cluster_cidr="10.0.0.0/8"), rs.Family.IPV4)
    primary = [f"192.168.{i >> 8}.{i & 255}" for i in range(nodes)]
    return [generator.for_node(ProxiedNode(f"node-{i}", ip, {}, (f"{ip}/16",))) for i, ip in enumerate(primary)]


def measure_nodes(nodes: int, every: int, field: str) -> dict[str, float]:
    """Compile 2,000 services x 10 endpoints for one node and for all."""
    rulesets = cluster(2_000, 10, nodes, every, field)
    seconds = []
    for some in (rulesets[:1], rulesets):
        started = time.process_time()
        program = compile_program(some, AddressTable())
        seconds.append(time.process_time() - started)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{nodes} nodes x 2,000 services, one in {every} Local ({field}): {seconds[1]:.2f} s, "
        f"{program.rule_count} rules, "
          f"{seconds[1] / seconds[0]:.2f} times one node; peak {peak_mb} MB", flush=True)  # fmt: skip
    return {"one_node_s": round(seconds[0], 2), "all_nodes_s": round(seconds[1], 2),
            "ratio": round(seconds[1] / seconds[0], 2), "peak_rss_mb": peak_mb}  # fmt: skip


def measure_affinity(services: int, clients: int, count: int) -> float:
    """Packets of clients that lists remember, on three nodes."""
    rulesets, addresses = cluster(services, 10, 3, 0, "", "ClientIP"), AddressTable()
    program = compile_program(rulesets, addresses)
    generator = np.random.default_rng(1)
    sources = [addresses.intern(f"198.51.{i // 250}.{i % 250 + 1}") for i in range(clients)]
    targets = [addresses.intern(str(ipaddress.ip_address("172.30.0.0") + i + 1)) for i in range(services)]
    packets = PacketColumns.of(
        count, host=generator.integers(3, size=count), source=generator.choice(sources, count),
        destination=generator.choice(targets, count), destination_port=80, time_ps=np.arange(count) * 10**7,
    )  # fmt: skip
    started = time.perf_counter()
    run_chain(program, "nat", "PREROUTING", packets, seed=1, state=NetfilterState(), counters=Counters(program))
    rate = count / (time.perf_counter() - started)
    print(
        f"ClientIP affinity, {services} services x 10 endpoints x {clients} clients: {rate / 1e6:.2f} M/s", flush=True
    )
    return rate


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--packets", type=int, default=2_000_000)
    parser.add_argument("--hosts", type=int, default=1_000)
    arguments = parser.parse_args()
    small, _ = measure(10, 10, arguments.packets)
    large, compile_s = measure(10_000, 10, arguments.packets)
    print(f"a thousand times the services: {small / large:.2f} times slower")
    result = {
        "packets_per_s_10_services": round(small),
        "packets_per_s_10000_services": round(large),
        "ratio": round(small / large, 2),
        "compile_10000x10_s": round(compile_s, 2),
        "affinity_packets_per_s_10_services_400_clients": round(measure_affinity(10, 400, 1_000_000)),
        "nodes": arguments.hosts,
        "all_cluster": measure_nodes(arguments.hosts, 0, ""),
        "external_policy_local": measure_nodes(arguments.hosts, 10, "external_traffic_policy"),
        "internal_policy_local": measure_nodes(arguments.hosts, 10, "internal_traffic_policy"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "netfilter.json").write_text(json.dumps(result, indent=2) + "\n")
