"""The machine against the interpreter over kube-proxy's own rules: random clusters, every hook, every counter."""

from __future__ import annotations

import ipaddress
import itertools
from collections import Counter
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from controlplane.kube_proxy.clusters import NODES, RandomCluster, address, clusters
from dataplane.netfilter.random_rulesets import one
from digests import printed_by, vector_features_found
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.netfilter_interpreter import Interpreter

from simnet.controlplane.kube_proxy import ProxiedNode
from simnet.dataplane.netfilter import counters as counters_module
from simnet.dataplane.netfilter.compiler import compile_program
from simnet.dataplane.netfilter.counters import Counters
from simnet.dataplane.netfilter.executor import HOOK_TABLES, run_chain, run_hook
from simnet.dataplane.netfilter.outcomes import exact_outcomes
from simnet.dataplane.netfilter.packets import STATE_NAT_DONE, STATE_NEW, PacketColumns
from simnet.dataplane.netfilter.state import NetfilterState
from simnet.model.addresses import AddressTable
from simnet.model.iptables.ruleset import Family
from simnet.model.kube_proxy import KubeProxyConfiguration
from simnet.model.kubernetes import Endpoint, EndpointPort, EndpointSlice, Service, ServicePort

INTERFACES = ("eth0", "cni0", "cali1", "lo")
PS_PER_S = 10**12


def addresses_in_play(cluster: RandomCluster) -> tuple[list[str], list[str]]:
    """(sources, destinations): pods, nodes, clients, loopback; what services are called by."""
    v4 = cluster.family is Family.IPV4
    pods = [address(cluster.family, 0, host) for host in (1, 2, 3, 12)] + [address(cluster.family, 1, 9)]
    nodes = [node.primary_ip for node in cluster.nodes]
    outside = ["198.51.100.7", "203.0.113.9", "127.0.0.1"] if v4 else ["2001:db8:77::1", "2001:db8::9", "::1"]
    called = [*nodes, pods[0], outside[2], *(["192.168.0.9"] if v4 else [])]
    for service in cluster.services:
        called += [service.cluster_ip] * 3 + [*service.external_ips, *(i.ip for i in service.load_balancer_ingress)]
    return [str(ipaddress.ip_address(a)) for a in pods + nodes + outside], [
        str(ipaddress.ip_address(a)) for a in called
    ]


def packets_into(
    cluster: RandomCluster, addresses: AddressTable, seed: int, count: int, span_s: float
) -> PacketColumns:
    """First and later packets of all kinds; most are for a service, time after time from few sources."""
    draw = np.random.default_rng(seed)
    sources, destinations = ([addresses.intern(a) for a in held] for held in addresses_in_play(cluster))
    ports = [port for service in cluster.services for port in service.ports]
    numbers = [80, 8080, *(p.port for p in ports), *(p.node_port for p in ports if p.node_port),
               *(s.health_check_node_port for s in cluster.services if s.health_check_node_port)]  # fmt: skip
    mixed = draw.random() < 0.5
    return PacketColumns.of(
        count, host=draw.integers(len(cluster.nodes), size=count),
        source=draw.choice(sources[: draw.integers(1, 12)], count),
        destination=draw.choice(destinations, count), source_port=draw.integers(1024, 65536, count),
        destination_port=draw.choice(numbers, count), protocol=draw.choice([6, 6, 6, 17, 132], count),
        in_interface=draw.integers(-1, 4, count), out_interface=draw.integers(-1, 4, count),
        mark=draw.choice([0, 0, 0x4000, 0x8000], count),
        state=draw.choice([1, 2, 4, 8, 65, 129], count, p=[0.7, 0.1, 0.05, 0.05, 0.05, 0.05]) if mixed else 1,
        source_is_local=draw.random(count) < 0.2, destination_is_local=draw.random(count) < 0.3,
        connection=draw.integers(1000, size=count), draw=draw.integers(3, size=count),
        length_bytes=draw.integers(40, 1500, count) if mixed else 60,
        packets=draw.integers(1, 9, count) if mixed else 1,
        time_ps=np.sort(draw.integers(0, int(span_s * PS_PER_S) + 1, count)),
    )  # fmt: skip


def reroute_columns(packets: PacketColumns) -> PacketColumns:
    """A stand-in for routing that depends on what DNAT wrote."""
    return replace(
        packets, out_interface=(packets.destination % 5 - 1).astype(np.int32),
        destination_is_local=packets.destination_port % 3 == 0,
    )  # fmt: skip


def reroute_one(packet) -> None:
    packet.out_interface = packet.destination % 5 - 1
    packet.destination_is_local = packet.destination_port % 3 == 0


def assert_agrees(rulesets, columns: PacketColumns, addresses: AddressTable, limit: int | None, cuts=()) -> None:
    """All hooks one after another, over batches cut anywhere: every column, every counter."""
    program = compile_program(rulesets, addresses, INTERFACES)
    seen, state = Counters(program), NetfilterState(limit)
    reference = Interpreter(rulesets, addresses, INTERFACES, seed=5, recent_limit=limit)
    edges = [0, *sorted(cuts), len(columns)]
    for hook, (start, end) in itertools.product(HOOK_TABLES, itertools.pairwise(edges)):
        part = columns.take(slice(start, end))
        outcome = run_hook(program, hook, part, seed=5, state=state, counters=seen, reroute=reroute_columns)
        for row in range(len(part)):
            expected = reference.hook(hook, one(part, row), reroute_one)
            got = {name: column[row].item() for name, column in outcome.columns() if name != "rule"}
            assert got == {name: getattr(expected, name) for name in got}, (hook, start + row)
            decided = None
            if outcome.rule[row] >= 0:
                unit, index, _ = program.rule(int(outcome.rule[row]))
                decided = (unit.table, unit.chain.name, index)
            assert decided == expected.rule, (hook, start + row)
    assert_counters_agree(program, seen, rulesets, reference)
    held = {key: [(a, list(s)) for a, s in entries.items()] for key, entries in state.recent.items() if entries}
    lists = {
        (host, program.recent_lists.index(name)): [(addresses.find(a), stamps) for a, stamps in entries.items()]
        for (host, name), entries in reference.recent.items() if entries
    }  # fmt: skip
    assert held == lists


def assert_counters_agree(program, seen, rulesets, reference) -> None:
    for host, ruleset in enumerate(rulesets):
        for table, held in ruleset.tables.items():
            for name, chain in held.chains.items():
                keys = [(host, table, name, i) for i in range(len(chain.rules))]
                keys += [(host, table, name, "policy")] if chain.policy else []
                packets, length_bytes = seen.of_chain(program, host, table, name)
                assert packets.tolist() == [reference.packets[key] for key in keys], (host, table, name)
                assert length_bytes.tolist() == [reference.bytes[key] for key in keys], (host, table, name)


@given(
    clusters(), st.integers(0, 2**32 - 1), st.sampled_from([0, 1.5, 30]), st.sampled_from([None, 1, 2, 100]),
    st.lists(st.integers(0, 60), max_size=2),
)  # fmt: skip
def test_every_hook_of_every_node_decides_as_the_rules_read_one_by_one(cluster, seed, span_s, limit, cuts):
    addresses = AddressTable()
    columns = packets_into(cluster, addresses, seed, 60, span_s)
    assert_agrees(cluster.rulesets(), columns, addresses, limit, cuts)


def affine_cluster(seconds: int, services: int = 2, endpoints: int = 4) -> RandomCluster:
    """Services with ClientIP affinity, every second with policy Local, so that SVC and SVL chains share lists."""
    made, slices = [], []
    for number in range(services):
        policy = "Local" if number % 2 else "Cluster"
        made.append(
            Service("ns", f"svc-{number}", type="NodePort", cluster_ip=f"172.30.0.{number + 1}",
                    ports=(ServicePort("", "TCP", 80, 8080, 30000 + number),), external_traffic_policy=policy,
                    session_affinity="ClientIP", session_affinity_timeout_seconds=seconds)
        )  # fmt: skip
        slices.append(
            EndpointSlice("ns", f"svc-{number}", f"svc-{number}", "IPv4", tuple(
                Endpoint((f"10.0.{number}.{i + 1}",), node_name=NODES[i % 3]) for i in range(endpoints)
            ), (EndpointPort("", "TCP", 8080),))
        )  # fmt: skip
    nodes = tuple(ProxiedNode(name, f"192.168.{i}.2", {}, (f"192.168.{i}.2/24",)) for i, name in enumerate(NODES))
    return RandomCluster(
        tuple(made), tuple(slices), KubeProxyConfiguration(cluster_cidr="10.0.0.0/16"), Family.IPV4, nodes
    )


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 10800]), st.sampled_from([0.5, 3]),
    st.sampled_from([None, 1, 3, 5, 100]), st.lists(st.integers(0, 150), max_size=3),
)  # fmt: skip
def test_clients_are_remembered_as_by_lists_kept_packet_by_packet(seed, seconds, span_s, limit, cuts):
    cluster, addresses = affine_cluster(seconds), AddressTable()
    columns = packets_into(cluster, addresses, seed, 150, span_s)
    to_service = np.isin(columns.destination_port, [80, 30000, 30001])
    columns = replace(columns, protocol=np.where(to_service, 6, columns.protocol).astype(np.uint8))
    assert_agrees(cluster.rulesets(), columns, addresses, limit, cuts)


@settings(max_examples=20)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 10800]), st.sampled_from([None, 1, 3, 100]),
    st.lists(st.integers(0, 150), max_size=3),
)  # fmt: skip
def test_a_node_that_goes_from_rules_to_rules_keeps_its_lists(seed, seconds, limit, cuts):
    """Hosts are three sets of rules of one node, with all endpoints, one fewer and two fewer."""
    cluster, addresses = affine_cluster(seconds), AddressTable()
    rulesets = []
    for fewer in range(3):
        slices = tuple(replace(each, endpoints=each.endpoints[fewer:]) for each in cluster.endpoint_slices)
        rulesets.append(replace(cluster, endpoint_slices=slices).rulesets()[0])
    columns = packets_into(cluster, addresses, seed, 150, 3)
    to_service = np.isin(columns.destination_port, [80, 30000, 30001])
    columns = replace(
        columns, protocol=np.where(to_service, 6, columns.protocol).astype(np.uint8),
        host=np.minimum(columns.host, 2), memory=np.zeros(len(columns), np.int32),
    )  # fmt: skip
    assert_agrees(rulesets, columns, addresses, limit, cuts)


def test_a_client_keeps_its_endpoint_while_lists_hold_all_clients_and_blocks_of_packets_follow_each_other():
    cluster, addresses = affine_cluster(10800), AddressTable()
    program = compile_program(cluster.rulesets(), addresses, INTERFACES)
    draw = np.random.default_rng(1)
    clients = np.array([addresses.intern(f"198.51.100.{i}") for i in range(1, 61)])
    count = 100_000
    columns = PacketColumns.of(
        count, host=draw.integers(3, size=count), source=draw.choice(clients, count),
        destination=addresses.intern("172.30.0.1"), destination_port=80, time_ps=np.arange(count) * 10**6,
    )  # fmt: skip
    outcome = run_chain(
        program, "nat", "PREROUTING", columns, seed=1, state=NetfilterState(), counters=Counters(program)
    )
    pairs = np.stack([columns.host, columns.source, outcome.destination])
    assert len(np.unique(pairs, axis=1).T) == 3 * 60
    assert len(np.unique(outcome.destination)) == 4


@settings(derandomize=True)  # four sigma would be exceeded now and then by luck alone
@given(clusters(), st.integers(0, 2**32 - 1))
def test_frequencies_keep_to_the_exact_outcomes_within_four_sigma(cluster, seed):
    addresses = AddressTable()
    columns = packets_into(cluster, addresses, seed, 40, 0)
    rulesets = cluster.rulesets()
    program = compile_program(rulesets, addresses, INTERFACES)
    # the packet of the forty with the most ways
    choices = [exact_outcomes(program, "PREROUTING", columns, row) for row in range(len(columns))]
    row = max(range(len(columns)), key=lambda at: len(choices[at]))
    count = 20_000
    many = columns.take(np.full(count, row))
    many = replace(many, connection=np.arange(count, dtype=np.uint64), draw=np.zeros(count, np.int32), host=many.host)
    if program.is_stateful:  # a list remembers: each packet then meets lists of its own
        results = [
            run_hook(
                program,
                "PREROUTING",
                many.take(slice(i, i + 1)),
                seed=9,
                state=NetfilterState(),
                counters=Counters(program),
            )
            for i in range(200)
        ]
        ports = np.concatenate([r.destination_port for r in results])
        places, verdicts, count = (
            np.concatenate([r.destination for r in results]),
            np.concatenate([r.verdict for r in results]),
            200,
        )
    else:
        result = run_hook(program, "PREROUTING", many, seed=9, state=NetfilterState(), counters=Counters(program))
        places, ports, verdicts = result.destination, result.destination_port, result.verdict
    seen = Counter(zip(places.tolist(), ports.tolist(), verdicts.tolist(), strict=True))
    expected: Counter = Counter()
    for probability, outcome in choices[row]:
        expected[outcome.destination, outcome.destination_port, outcome.verdict] += probability
    assert set(seen) <= set(expected)
    for key, probability in expected.items():
        share = float(probability)
        assert abs(seen[key] - count * share) <= 4 * sqrt(count * share * (1 - share))


def test_exact_outcomes_ask_nat_once_a_connection_as_the_machine_does():
    cluster, addresses = affine_cluster(10800), AddressTable()
    program = compile_program(cluster.rulesets(), addresses, INTERFACES)
    client, service = addresses.intern("198.51.100.7"), addresses.intern("172.30.0.1")
    for state, ways in ((STATE_NEW, 4), (STATE_NEW | STATE_NAT_DONE, 1)):
        packet = PacketColumns.of(1, source=client, destination=service, destination_port=80, state=state)
        expected = exact_outcomes(program, "PREROUTING", packet)
        assert len(expected) == ways
        run = run_hook(program, "PREROUTING", packet, seed=1, state=NetfilterState(), counters=Counters(program))
        assert (run.destination[0], run.verdict[0]) in {(each.destination, each.verdict) for _, each in expected}


def test_counters_of_many_hosts_kept_sparse_are_those_kept_dense(monkeypatch):
    cluster, addresses = affine_cluster(10800, services=4), AddressTable()
    rulesets = cluster.rulesets() * 5
    columns = packets_into(cluster, addresses, 4, 5_000, 1)
    columns = replace(columns, host=np.random.default_rng(2).integers(15, size=5_000).astype(np.int32))
    program = compile_program(rulesets, addresses, INTERFACES)
    found = []
    for limit in (counters_module._DENSE_LIMIT, 0):
        monkeypatch.setattr(counters_module, "_DENSE_LIMIT", limit)
        both = Counters(program)
        for start in (0, 2_000):  # the second is added to the first
            seen = Counters(program)
            part = columns.take(slice(start, start + 2_000))
            run_hook(program, "PREROUTING", part, seed=1, state=NetfilterState(), counters=seen)
            both += seen
        found.append([both.of_rules(host, 0, program.rule_count) for host in range(15)])
    np.testing.assert_array_equal(found[0], found[1])
    assert np.sum(found[0]) > 0


DIGEST = """
import hashlib
import numpy as np
from dataplane.netfilter.test_kube_proxy_rules import INTERFACES, affine_cluster, packets_into
from simnet.dataplane.netfilter.compiler import compile_program
from simnet.dataplane.netfilter.counters import Counters
from simnet.dataplane.netfilter.executor import HOOK_TABLES, run_hook
from simnet.dataplane.netfilter.state import NetfilterState
from simnet.model.addresses import AddressTable
cluster, addresses, digest = affine_cluster(10800, 8), AddressTable(), hashlib.sha256()
columns = packets_into(cluster, addresses, 3, 20_000, 5)
program = compile_program(cluster.rulesets(), addresses, INTERFACES)
counters, state = Counters(program), NetfilterState()
for hook in HOOK_TABLES:
    outcome = run_hook(program, hook, columns, seed=1, state=state, counters=counters)
    for _, column in outcome.columns():
        digest.update(column.tobytes())
digest.update(np.array(counters.of_rules(1, 0, program.rule_count)).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.digest
def test_what_rules_do_has_the_same_bytes_without_vector_instructions():
    features = vector_features_found()
    if not features:
        pytest.skip("numpy uses no instructions beyond its baseline here")
    assert printed_by(DIGEST, without_features=features) == printed_by(DIGEST, without_features=[])
