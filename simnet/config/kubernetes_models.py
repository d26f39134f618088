"""The components of Kubernetes in an experiment file: those fields and flags of theirs that decide something here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from simnet.config.file_model import FileModel, Text, whole_number
from simnet.config.quantities import Duration, PositiveDuration


class KubeProxyIPTablesModel(FileModel):
    """`kubeProxy.iptables`."""

    masquerade_bit: Annotated[int, whole_number(0, 31)] = 14
    masquerade_all: bool = False
    localhost_node_ports: bool = True
    sync_period: Duration = 30_000_000_000_000
    min_sync_period: Duration = 1_000_000_000_000


class DetectLocalModel(FileModel):
    """`kubeProxy.detectLocal`."""

    bridge_interface: str = ""
    interface_name_prefix: str = ""


class KubeProxyHostModel(FileModel):
    """`kubeProxy.host`, simnet's own: what kube-proxy finds on the host when it starts."""

    nfacct_counters: list[Text] | None = None
    random_fully: bool = False
    conntrack_tcp_be_liberal: Annotated[bool, Field(alias="conntrackTCPBeLiberal")] = False


class ConntrackModel(FileModel):
    """`kubeProxy.conntrack`; its limits and time-outs decide nothing here and are read over."""

    model_config = ConfigDict(extra="ignore")
    tcp_be_liberal: bool = False


# Fields of KubeProxyConfiguration (v1alpha1) that decide nothing here: read over, so that a whole one can be pasted.
_OTHER_KUBE_PROXY_FIELDS = frozenset(
    [
        "bindAddress",
        "bindAddressHardFail",
        "clientConnection",
        "configSyncPeriod",
        "enableProfiling",
        "healthzBindAddress",
        "hostnameOverride",
        "ipvs",
        "logging",
        "metricsBindAddress",
        "nftables",
        "oomScoreAdj",
        "portRange",
        "showHiddenMetricsForVersion",
        "udpIdleTimeout",
        "windowsRunAsService",
        "winkernel",
    ]
)


class KubeProxyModel(FileModel):
    """`kubeProxy:`, KubeProxyConfiguration's own names."""

    @model_validator(mode="before")
    @classmethod
    def _read_over_the_rest(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if key not in _OTHER_KUBE_PROXY_FIELDS}

    api_version: str = ""
    kind: str = ""
    mode: Literal["iptables", ""] = "iptables"
    cluster_cidr: Annotated[str | None, Field(alias="clusterCIDR")] = None  # None: the IP pools; "": no detector
    detect_local_mode: Literal["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix", ""] = "ClusterCIDR"
    detect_local: DetectLocalModel = DetectLocalModel()
    node_port_addresses: list[Text] = []
    iptables: KubeProxyIPTablesModel = KubeProxyIPTablesModel()
    conntrack: ConntrackModel = ConntrackModel()
    feature_gates: dict[str, bool] = {}
    host: KubeProxyHostModel = KubeProxyHostModel()


class KubeletModel(FileModel):
    """`kubelet:`, KubeletConfiguration's own names."""

    node_lease_duration_seconds: Annotated[int, whole_number(1, 3600)] = 40
    node_status_update_frequency: PositiveDuration = 10_000_000_000_000


class KubeControllerManagerModel(FileModel):
    """`kubeControllerManager:`, the names of KubeControllerManagerConfiguration; its flags are these with dashes."""

    node_monitor_period: PositiveDuration = 5_000_000_000_000
    node_monitor_grace_period: PositiveDuration | None = None  # None: that of the release
    endpoint_updates_batch_period: Duration = 0


class KubeApiServerModel(FileModel):
    """`kubeAPIServer:`, simnet's own."""

    watch_latency: Duration = 100_000_000_000
