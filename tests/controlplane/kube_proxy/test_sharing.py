"""Nodes share what does not depend on them, so that a thousand nodes cost little more than one."""

from __future__ import annotations

from dataclasses import replace

from simnet.controlplane.kube_proxy import ProxiedNode, RuleGenerator
from simnet.model.iptables.ruleset import Family, SourceAddress
from simnet.model.kube_proxy import DetectLocalMode, KubeProxyConfiguration
from simnet.model.kubernetes import Endpoint, EndpointPort, EndpointSlice, Service, ServicePort

CONFIGURATION = KubeProxyConfiguration(cluster_cidr="10.0.0.0/8")
NODES = [ProxiedNode(f"node-{i}", f"192.168.0.{i}", {}, (f"192.168.0.{i}/24",)) for i in range(1, 5)]


def cluster(**fields: str) -> tuple[list[Service], list[EndpointSlice]]:
    services = [
        Service(
            "ns",
            f"svc-{i}",
            type="NodePort",
            cluster_ip=f"172.30.0.{i}",
            ports=(ServicePort("", "TCP", 80, 80, 30000 + i),),
            **fields,  # type: ignore[arg-type]
        )
        for i in range(1, 4)
    ]
    slices = [
        EndpointSlice(
            "ns",
            f"{service.name}-1",
            service.name,
            "IPv4",
            tuple(Endpoint((f"10.0.{i}.{j}",), node_name=f"node-{j}") for j in (1, 2)),
            (EndpointPort("", "TCP", 80),),
        )
        for i, service in enumerate(services)
    ]
    return services, slices


def test_nodes_of_a_cluster_without_local_policies_hold_the_same_rules():
    generator = RuleGenerator(*cluster(), CONFIGURATION, Family.IPV4)
    assert len({id(generator.for_node(node)) for node in NODES}) == 1


def test_node_port_addresses_cost_each_node_one_chain_of_its_own():
    configuration = replace(CONFIGURATION, node_port_addresses=("192.168.0.0/24",))
    generator = RuleGenerator(*cluster(), configuration, Family.IPV4)
    first, second = (generator.for_node(node) for node in NODES[:2])
    assert first.tables["filter"] is second.tables["filter"]
    different = [
        name for name, chain in first.tables["nat"].chains.items() if chain is not second.tables["nat"].chains[name]
    ]
    assert different == ["KUBE-SERVICES"]


def test_nodes_with_a_local_policy_differ_only_in_the_chains_that_policy_writes():
    generator = RuleGenerator(*cluster(external_traffic_policy="Local"), CONFIGURATION, Family.IPV4)
    first, second, third, fourth = (generator.for_node(node) for node in NODES)
    assert third is fourth  # neither holds an endpoint
    different = {
        name for name, chain in first.tables["nat"].chains.items() if chain is not second.tables["nat"].chains[name]
    }
    assert {name[:9] for name in different} == {"KUBE-SVL-"}
    assert {name for name in first.tables["nat"].chains if name not in third.tables["nat"].chains} == different
    assert first.tables["filter"] is second.tables["filter"]
    assert first.tables["filter"] is not third.tables["filter"]


def test_with_node_cidr_each_node_sees_its_own_pods_and_shares_all_other_chains():
    configuration = KubeProxyConfiguration(detect_local_mode=DetectLocalMode.NODE_CIDR)
    generator = RuleGenerator(*cluster(), configuration, Family.IPV4)
    nodes = [replace(node, pod_cidrs=(f"10.{i}.0.0/16",)) for i, node in enumerate(NODES[:2])]
    first, second = (generator.for_node(node).tables["nat"].chains for node in nodes)
    different = {name[:9] for name, chain in first.items() if chain != second[name]}
    assert different == {"KUBE-SVC-"}
    assert all(chain is second[name] for name, chain in first.items() if chain == second[name] and "SVC" not in name)
    for chains, cidr in ((first, "10.0.0.0/16"), (second, "10.1.0.0/16")):
        (found,) = {
            match.network
            for name, chain in chains.items()
            if name.startswith("KUBE-SVC-")
            for match in chain.rules[0].matches
            if isinstance(match, SourceAddress)
        }
        assert str(found) == cidr


def test_a_layered_table_is_a_mapping_like_any_other():
    generator = RuleGenerator(*cluster(external_traffic_policy="Local"), CONFIGURATION, Family.IPV4)
    chains = generator.for_node(NODES[0]).tables["nat"].chains
    assert list(chains) == [chain.name for chain in chains.values()]
    assert len(list(chains)) == len(chains)
    assert dict(chains) == chains
    assert "KUBE-SVC-NONE" not in chains
