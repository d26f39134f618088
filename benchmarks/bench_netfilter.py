"""First packets through nat PREROUTING: packets per second and time to compile, beside the rule-by-rule interpreter.

Run: python benchmarks/bench_netfilter.py [--packets N]
Rule sets have kube-proxy's shape: per service a KUBE-SERVICES rule, a KUBE-SVC cascade and a KUBE-SEP chain per
endpoint.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from reference.netfilter_interpreter import Interpreter  # noqa: E402

from simnet.dataplane.netfilter.compiler import compile_program  # noqa: E402
from simnet.dataplane.netfilter.counters import Counters  # noqa: E402
from simnet.dataplane.netfilter.executor import run_chain  # noqa: E402
from simnet.dataplane.netfilter.packets import PacketColumns  # noqa: E402
from simnet.dataplane.netfilter.state import NetfilterState  # noqa: E402
from simnet.model.addresses import AddressTable  # noqa: E402
from simnet.model.iptables import ruleset as rs  # noqa: E402

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


def measure(services: int, endpoints: int, count: int) -> float:
    rules, cluster_ips = kube_proxy_rules(services, endpoints)
    addresses = AddressTable()
    started = time.perf_counter()
    program = compile_program([rules], addresses)
    compile_s = time.perf_counter() - started
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
    return rate


def measure_hosts(hosts: int, changed: str) -> None:
    """Compile many nodes that share all chains but `changed`, which each has of its own (and so its callers too)."""
    rules, _ = kube_proxy_rules(10_000, 10)
    base = rules.tables["nat"].chains
    nodes = []
    for host in range(hosts):
        chains = dict(base)
        chains[changed] = rs.Chain(changed, (rs.Rule((rs.CommentMatch(f"node {host}"),), None),))
        nodes.append(rs.Ruleset(rs.Family.IPV4, {"nat": rs.Table("nat", chains)}))
    started = time.perf_counter()
    compile_program(nodes[:1], AddressTable())
    one_s = time.perf_counter() - started
    started = time.perf_counter()
    compile_program(nodes, AddressTable())
    all_s = time.perf_counter() - started
    print(
        f"{hosts} nodes sharing all chains but {changed}: {all_s:.2f} s, {all_s / one_s:.2f} times one node", flush=True
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--packets", type=int, default=2_000_000)
    parser.add_argument("--hosts", type=int, default=0)
    arguments = parser.parse_args()
    small = measure(10, 10, arguments.packets)
    large = measure(10_000, 10, arguments.packets)
    print(f"a thousand times the services: {small / large:.2f} times slower")
    if arguments.hosts:
        measure_hosts(arguments.hosts, "KUBE-POSTROUTING")
        measure_hosts(arguments.hosts, "KUBE-NODEPORTS")  # KUBE-SERVICES leads to it
