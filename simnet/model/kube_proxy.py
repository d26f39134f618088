"""kube-proxy's configuration, with the field names of `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1).

Only fields that decide which rules are written, or when, are kept. What kube-proxy finds out about its host when it
starts (nfacct objects, sysctls, the version of iptables) is in `KubeProxyHost`, and the release in `kubernetes`.
Source: kubernetes/kubernetes pkg/proxy/apis/config; defaults of v1.33.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from simnet.units import PS_PER_S

CT_STATE_INVALID_COUNTER = "ct_state_invalid_dropped_pkts"
LOCALHOST_NODE_PORTS_COUNTER = "localhost_nps_accepted_pkts"


class DetectLocalMode(Enum):
    """How kube-proxy tells traffic of local pods from other traffic; the value is the API's word."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"


@dataclass(frozen=True, slots=True)
class DetectLocalConfiguration:
    """`detectLocal`: the names that the two interface modes need."""

    bridge_interface: str = ""
    interface_name_prefix: str = ""


@dataclass(frozen=True, slots=True)
class KubeProxyIPTablesConfiguration:
    """`iptables`: what concerns this mode alone."""

    masquerade_bit: int = 14  # the mark is 1 << masquerade_bit
    masquerade_all: bool = False
    localhost_node_ports: bool = True
    sync_period_ps: int = 30 * PS_PER_S
    min_sync_period_ps: int = PS_PER_S  # 0: no limit


@dataclass(frozen=True, slots=True)
class KubeProxyHost:
    """What kube-proxy finds on the host when it starts; not part of the API, the same for all nodes of a cluster."""

    nfacct_counters: tuple[str, ...] = (CT_STATE_INVALID_COUNTER, LOCALHOST_NODE_PORTS_COUNTER)  # that can be made
    random_fully: bool = False  # MASQUERADE --random-fully; see docs/decisions/0012-random-fully.md
    conntrack_tcp_be_liberal: bool = False  # sysctl net.netfilter.nf_conntrack_tcp_be_liberal


@dataclass(frozen=True, slots=True)
class KubeProxyConfiguration:
    """`KubeProxyConfiguration`, one for all nodes."""

    mode: str = "iptables"
    cluster_cidr: str = ""  # one CIDR or a comma-separated list, one a family; "": none
    detect_local_mode: DetectLocalMode = DetectLocalMode.CLUSTER_CIDR
    detect_local: DetectLocalConfiguration = DetectLocalConfiguration()
    node_port_addresses: tuple[str, ...] = ()  # CIDRs; (): all; ("primary",): the node's primary addresses
    iptables: KubeProxyIPTablesConfiguration = KubeProxyIPTablesConfiguration()
    feature_gates: tuple[tuple[str, bool], ...] = ()
    host: KubeProxyHost = KubeProxyHost()
    kubernetes: str = "1.33"  # the release whose rules are written, "MAJOR.MINOR" with or without "v" and patch

    @property
    def masquerade_mark(self) -> int:
        """The packet mark that asks for masquerading: 0x4000 by default."""
        return 1 << self.iptables.masquerade_bit
