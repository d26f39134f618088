"""A cluster of the kernel lab (CLUSTER.json) as simnet's own values, and one of its traffic entries as a scenario."""

from __future__ import annotations

from typing import Any

import numpy as np

from simnet.model.calico import CalicoSettings, FabricMode, FabricSettings, Wiring
from simnet.model.kube_proxy import KubeProxyConfiguration, KubeProxyHost, KubeProxyIPTablesConfiguration
from simnet.model.kubernetes import (
    Endpoint,
    EndpointPort,
    EndpointSlice,
    ObjectReference,
    Objects,
    Pod,
    Service,
    ServicePort,
)
from simnet.model.scenario import ClusterSpec, Entry, NodeSpec, RunSpec, Scenario, Variant
from simnet.model.workload import (
    TCP,
    UDP,
    ClientOrigin,
    ClientPopulation,
    Constant,
    EntryChoice,
    EntryChoiceKind,
    FlowShape,
    Trace,
    Workload,
)

_ENTRIES = {"external": Entry.EXTERNAL_IP, "nodeport": Entry.NODE_PORT, "cluster": Entry.CLUSTER_IP, "pod": Entry.POD}


def cluster_of(lab: dict[str, Any]) -> ClusterSpec:
    """Return what the lab builds, eBGP between the one switch and each worker, kube-proxy."""
    switch = lab["switches"][0]
    pods = {pod["name"]: pod for pod in lab["pods"]}
    numbers = {worker["asn"] for worker in lab["workers"]}
    return ClusterSpec(
        objects=Objects(
            services=tuple(_service(service) for service in lab["services"]),
            endpoint_slices=tuple(each for service in lab["services"] for each in _slices(service, pods)),
            pods=tuple(
                Pod("default", pod["name"], node_name=pod["node"], pod_ips=(pod["ip"],), phase="Running")
                for pod in lab["pods"]
            ),
        ),
        nodes=tuple(NodeSpec(worker["name"], (worker["ip"],), as_number=worker["asn"]) for worker in lab["workers"]),
        kube_proxy=KubeProxyConfiguration(
            cluster_cidr=lab.get("cluster_cidr", ""),
            iptables=KubeProxyIPTablesConfiguration(masquerade_all=lab.get("masquerade_all", False)),
            host=KubeProxyHost(nfacct_counters=(), random_fully=True),
        ),
        calico=CalicoSettings(
            ip_pools=("10.244.0.0/16",),
            nat_outgoing=False,
            wiring=Wiring.S1,
            num_allowed_local_as_numbers=1 if len(numbers) < len(lab["workers"]) else 0,
        ),
        fabric=FabricSettings(
            mode=FabricMode(lab.get("fabric", "routed")),
            switch_name=switch["name"],
            node_networks=(switch["subnet"],) if "subnet" in switch else (),
            router_addresses=(switch["ip"],),
            client_networks=tuple(client["ip"].rpartition(".")[0] + ".0/24" for client in lab["clients"]),
        ),
    )


def _service(service: dict[str, Any]) -> Service:
    return Service(
        namespace="default",
        name=service["name"],
        type=service.get("type", "ClusterIP"),
        cluster_ip=service["clusterIP"],
        cluster_ips=(service["clusterIP"],),
        ports=tuple(
            ServicePort(port["name"], port["protocol"], port["port"], port["targetPort"], port.get("nodePort", 0))
            for port in service["ports"]
        ),
        external_ips=tuple(service.get("externalIPs", ())),
        external_traffic_policy=service.get("externalTrafficPolicy", "Cluster"),
        session_affinity=service.get("sessionAffinity", "None"),
    )


def _slices(service: dict[str, Any], pods: dict[str, Any]) -> list[EndpointSlice]:
    endpoints = tuple(
        Endpoint((pods[name]["ip"],), node_name=pods[name]["node"], target_ref=ObjectReference("Pod", name, "default"))
        for name in service["endpoints"]
    )
    ports = tuple(EndpointPort(port["name"], port["protocol"], port["targetPort"]) for port in service["ports"])
    return [EndpointSlice("default", f"{service['name']}-1", service["name"], "IPv4", endpoints, ports)]


def scenario_of(lab: dict[str, Any], entry: dict[str, Any], *, flows: int) -> Scenario:
    """Return a scenario of `flows` one-packet flows from the entry's source to its address."""
    kind, _, rest = entry["entry"].partition(":")
    called, _, address_port = rest.partition(":")
    service, _, node = called.partition("@")
    protocol = address_port.rpartition("/")[2]
    origin, _, source = entry["source"].partition(":")
    clients = {
        "client": lambda: ClientPopulation(1, ClientOrigin.OUTSIDE, (lab["clients"][0]["ip"].partition("/")[0],)),
        "pod": lambda: ClientPopulation(1, ClientOrigin.PODS, (f"default/{source}",)),
        "node": lambda: ClientPopulation(1, ClientOrigin.NODES, (source,)),
    }[origin]()
    choice = EntryChoice()
    if kind == "nodeport":
        choice = EntryChoice(EntryChoiceKind.FIXED, node)
    elif kind == "pod":
        choice = EntryChoice(EntryChoiceKind.FIXED, f"default/{service}")
        service = next(each["name"] for each in lab["services"] if service in each["endpoints"])
    cluster = cluster_of(lab)
    size = Constant(60)
    workload = Workload(
        Trace(np.arange(flows, dtype=np.int64) * 1_000_000),
        clients,
        FlowShape(Constant(1), size, Constant(0), size),
        UDP if protocol == "udp" else TCP,
    )
    variant = Variant("lab", _ENTRIES[kind], f"default/{service}", choice=choice)
    return Scenario(cluster, workload, variant, RunSpec(duration_ps=flows * 1_000_000 + 1), "flows")


def with_switch_bridged(lab: dict[str, Any], subnet: str) -> dict[str, Any]:
    """Return the same cluster on one bridged segment."""
    switch = {**lab["switches"][0], "subnet": subnet}
    return {**lab, "fabric": "bridged", "switches": [switch]}


__all__ = ["cluster_of", "scenario_of", "with_switch_bridged"]
