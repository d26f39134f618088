"""`cluster.kubeProxy`, `calico`, `fabric` and the networks: as values of the model, and apart from each other."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from simnet.config.documents import FieldPath
from simnet.config.experiment_models import ClusterModel, CpuModel, NodeBgpModel
from simnet.config.kubernetes_fields import parse_cidr
from simnet.config.kubernetes_models import KubeProxyModel
from simnet.config.kubernetes_source import describe
from simnet.config.reading import Reading
from simnet.model.calico import BgpTimers, CalicoSettings, Encapsulation, FabricMode, FabricSettings, Mode, Wiring
from simnet.model.fabric import Ecmp
from simnet.model.kube_proxy import (
    DetectLocalConfiguration,
    DetectLocalMode,
    KubeProxyConfiguration,
    KubeProxyHost,
    KubeProxyIPTablesConfiguration,
)
from simnet.model.node_lifecycle import (
    GRACE_PERIOD_SINCE_1_32_PS,
    GRACE_PERIOD_UNTIL_1_31_PS,
    NodeLifecycle,
)
from simnet.model.queues import CpuCosts, LinkQueue, RuleBackend
from simnet.model.scenario import NodeSpec
from simnet.units import PS_PER_S


def port_range_of(text: str, reading: Reading, path: FieldPath) -> tuple[int, int]:
    """Return the first and last port of `nodePortRange`."""
    first, _, last = text.partition("-")
    if first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= 65535:
        return int(first), int(last)
    reading.refuse(path, describe(text), "FIRST-LAST, ports from 1 to 65535", "for example 30000-32767")
    return 30000, 32767


def kube_proxy_of(
    model: KubeProxyModel, version: str, pools: tuple[str, ...], reading: Reading, path: FieldPath
) -> KubeProxyConfiguration:
    """Return the configuration of `kubeProxy:` for a Kubernetes release."""
    cluster_cidr = ",".join(pools) if model.cluster_cidr is None else model.cluster_cidr
    for part in filter(None, cluster_cidr.split(",")):
        try:
            parse_cidr(part)
        except ValueError:
            reading.refuse(
                (*path, "clusterCIDR"), describe(part), "a network in CIDR notation", "for example 10.217.0.0/16"
            )
    if not version.removeprefix("v").replace(".", "").isdecimal():
        reading.refuse(("kubernetes",), describe(version), "a release such as 1.33", 'write kubernetes: "1.33"')
        version = "1.33"
    counters = KubeProxyHost().nfacct_counters if model.host.nfacct_counters is None else model.host.nfacct_counters
    host = KubeProxyHost(
        nfacct_counters=tuple(counters),
        random_fully=model.host.random_fully,
        conntrack_tcp_be_liberal=model.host.conntrack_tcp_be_liberal or model.conntrack.tcp_be_liberal,
    )
    return KubeProxyConfiguration(
        cluster_cidr=cluster_cidr,
        detect_local_mode=DetectLocalMode(model.detect_local_mode or "ClusterCIDR"),
        detect_local=DetectLocalConfiguration(
            model.detect_local.bridge_interface, model.detect_local.interface_name_prefix
        ),
        node_port_addresses=tuple(model.node_port_addresses),
        iptables=KubeProxyIPTablesConfiguration(
            masquerade_bit=model.iptables.masquerade_bit,
            masquerade_all=model.iptables.masquerade_all,
            localhost_node_ports=model.iptables.localhost_node_ports,
            sync_period_ps=model.iptables.sync_period,
            min_sync_period_ps=model.iptables.min_sync_period,
        ),
        feature_gates=tuple(model.feature_gates.items()),
        host=host,
        kubernetes=version,
    )


def node_lifecycle_of(model: ClusterModel, version: str) -> NodeLifecycle:
    """Return how soon a Kubernetes release notices that nodes and pods are gone."""
    kubelet, manager = model.kubelet, model.kube_controller_manager
    grace_ps = manager.node_monitor_grace_period
    if grace_ps is None:
        major, minor = (*map(int, version.removeprefix("v").split(".")), 0)[:2]
        grace_ps = GRACE_PERIOD_SINCE_1_32_PS if (major, minor) >= (1, 32) else GRACE_PERIOD_UNTIL_1_31_PS
    return NodeLifecycle(
        node_lease_duration_ps=kubelet.node_lease_duration_seconds * PS_PER_S,
        node_status_update_frequency_ps=kubelet.node_status_update_frequency,
        node_monitor_period_ps=manager.node_monitor_period,
        node_monitor_grace_period_ps=grace_ps,
        endpoint_updates_batch_period_ps=manager.endpoint_updates_batch_period,
        watch_latency_ps=model.kube_api_server.watch_latency,
    )


def calico_of(model: ClusterModel, pools: tuple[str, ...], reading: Reading, path: FieldPath) -> CalicoSettings:
    """Return the settings of `calico:`."""
    calico = model.calico
    numbers = calico.version.removeprefix("v").split(".")
    if not all(number.isdecimal() for number in numbers) or not 2 <= len(numbers) <= 3:
        reading.refuse((*path, "calico", "version"), describe(calico.version), "a release such as 3.32", "write 3.32")
        numbers = ["3", "32"]
    major, minor, patch = (*map(int, numbers), 2)[:3] if len(numbers) == 2 else tuple(map(int, numbers))
    if "Never" not in (calico.ipip_mode, calico.vxlan_mode):
        found = f"{calico.vxlan_mode} beside ipipMode: {calico.ipip_mode}"
        reading.refuse((*path, "calico", "vxlanMode"), found, "one encapsulation a pool", "set one of the two to Never")
    return CalicoSettings(
        ip_pools=pools,
        block_size=calico.block_size,
        as_number=calico.as_number,
        wiring=Wiring(calico.wiring),
        nat_outgoing=calico.nat_outgoing,
        encapsulations=encapsulations_of(pools, calico.ipip_mode, calico.vxlan_mode),
        strict_affinity=calico.strict_affinity,
        max_blocks_per_host=calico.max_blocks_per_host,
        service_cluster_ips=tuple(calico.service_cluster_ips),
        service_external_ips=tuple(calico.service_external_ips),
        service_load_balancer_ips=tuple(calico.service_load_balancer_ips),
        service_load_balancer_aggregation=calico.service_load_balancer_aggregation == "Enabled",
        num_allowed_local_as_numbers=calico.num_allowed_local_as_numbers,
        version=(major, minor, patch),
        bgp=_timers(calico.bgp, reading, (*path, "calico", "bgp")),
    )


def _timers(model: NodeBgpModel, reading: Reading, path: FieldPath) -> BgpTimers:
    if model.keepalive_time is not None and model.keepalive_time >= model.hold_time:
        found = "no shorter than the hold time"
        reading.refuse((*path, "keepaliveTime"), found, "a third of holdTime or less", "raise holdTime or leave it out")
    return BgpTimers(
        hold_ps=model.hold_time,
        keepalive_ps=model.keepalive_time,
        connect_delay_ps=model.connect_delay_time,
        connect_retry_ps=model.connect_retry_time,
        restart_ps=model.graceful_restart,
        is_helper=model.graceful_restart_helper,
        bfd_interval_ps=model.bfd,
        bfd_multiplier=model.bfd_multiplier,
        carrier_ps=model.link_down_detection,
    )


def encapsulations_of(pools: Iterable[str], ipip_mode: str, vxlan_mode: str) -> tuple[Encapsulation, ...]:
    """Return how packets to IPv4 pools travel, given IPPool's two modes."""
    kind, mode = ("ipip", Mode(ipip_mode)) if ipip_mode != "Never" else ("vxlan", Mode(vxlan_mode))
    if mode is Mode.NEVER:
        return ()
    return tuple(Encapsulation(pool, kind, mode) for pool in pools if ":" not in pool)


def fabric_of(
    model: ClusterModel, nodes: tuple[NodeSpec, ...], network_length: int | None, reading: Reading, path: FieldPath
) -> FabricSettings:
    """Return the settings of `fabric:`; `network_length` is that of the nodes' subnet."""
    fabric = model.fabric
    networks: tuple[str, ...] = ()
    if network_length is not None and nodes:
        networks = (parse_cidr(f"{nodes[0].addresses[0]}/{network_length}"),)
    return FabricSettings(
        mode=FabricMode(fabric.mode),
        leaves=fabric.leaves,
        spines=fabric.spines,
        node_networks=() if fabric.leaves and fabric.mode == "bridged" else networks,
        router_addresses=tuple(fabric.router_addresses),
        switch_as_number=fabric.switch_as_number,
        bgp=_timers(fabric.bgp, reading, (*path, "fabric", "bgp")),
        link_rate_bps=fabric.link.rate,
        link_delay_ps=fabric.link.delay,
        client_link_rate_bps=fabric.client_link.rate,
        client_link_delay_ps=fabric.client_link.delay,
        spine_link_rate_bps=fabric.spine_link.rate,
        spine_link_delay_ps=fabric.spine_link.delay,
        veth_rate_bps=fabric.veth.rate,
        veth_delay_ps=fabric.veth.delay,
        link_queue=_queue(fabric.link.queue, fabric.link.header),
        client_link_queue=_queue(fabric.client_link.queue, fabric.client_link.header),
        spine_link_queue=_queue(fabric.spine_link.queue, fabric.spine_link.header),
        veth_queue=_queue(fabric.veth.queue, None),
        mtu=fabric.mtu,
        ecmp_hash=fabric.ecmp.hash,
        ecmp_width=fabric.ecmp.width,
        ecmp_choice=fabric.ecmp.choice,
        ecmp_has_shared_seed=fabric.ecmp.seeds == "shared",
        ecmp_buckets=fabric.ecmp.buckets,
        node_ecmp=Ecmp(
            fabric.node_ecmp.hash,
            fabric.node_ecmp.choice,
            fabric.node_ecmp.seeds == "shared",
            fabric.node_ecmp.buckets,
        ),
    )


def _queue(limit: tuple[int | None, int | None] | None, header_bytes: int | None) -> LinkQueue | None:
    if limit is None and header_bytes is None:
        return None
    packets, size = limit or (None, None)
    return LinkQueue(packets, size, header_bytes or 0)


def cpu_of(model: CpuModel | None) -> CpuCosts | None:
    """Return the costs of `cpu:`, those left out as measured with its back end; None where nodes take no time."""
    if model is None:
        return None
    given = {
        "established_ps": model.established,
        "new_ps": model.new,
        "base_ps": model.base,
        "per_rule_ps": model.per_rule,
        "per_endpoint_rule_ps": model.per_endpoint_rule,
        "cores": model.cores,
    }
    return replace(
        CpuCosts.of(RuleBackend(model.backend)), **{name: value for name, value in given.items() if value is not None}
    )


def check_networks(
    model: ClusterModel, nodes: tuple[NodeSpec, ...], pools: tuple[str, ...], reading: Reading, path: FieldPath
) -> int | None:
    """Report networks that overlap; return the length of the nodes' subnet where the short form gave one."""
    length = None
    if isinstance(model.nodes, dict):
        text = str(model.nodes.get("address", "192.168.64.57/24")).partition("/")[2]
        length = int(text) if text.isdecimal() else 24
    networks: list[tuple[str, str, FieldPath]] = [(pool, "the IP pool", (*path, "calico", "ipPool")) for pool in pools]
    networks += [(cidr, "the service CIDR", (*path, "serviceCIDR")) for cidr in model.service_cidr]
    if model.load_balancer_pool:
        networks.append((model.load_balancer_pool, "the load-balancer pool", (*path, "loadBalancerPool")))
    for number, (cidr, what, where) in enumerate(networks):
        for other, other_what, _ in networks[:number]:
            if _overlap(cidr, other):
                reading.refuse(
                    where, f"{what} {cidr}", f"a network apart from {other_what} {other}", "move one of the two"
                )
        inside = [node for node in nodes for address in node.addresses if _overlap(cidr, f"{address}/{_full(address)}")]
        if inside:
            reading.refuse(
                where,
                f"{what} {cidr}, which holds the address of node {inside[0].name}",
                "a network apart from the nodes'",
                "move one of the two",
            )
    if model.fabric.leaves and not model.fabric.spines:
        reading.refuse((*path, "fabric", "spines"), "0", "at least 1 spine where there are leaves", "write spines: 2")
    return length


def _full(address: str) -> int:
    return 128 if ":" in address else 32


def _overlap(one: str, other: str) -> bool:
    first, second = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return first.version == second.version and first.overlaps(second)
