"""kube-proxy in iptables mode: which rules each node holds, from Services, EndpointSlices and its configuration."""

from simnet.controlplane.kube_proxy.endpoints import EndpointInfo, EndpointSelection, select_endpoints
from simnet.controlplane.kube_proxy.generator import RuleGenerator
from simnet.controlplane.kube_proxy.node import ProxiedNode
from simnet.controlplane.kube_proxy.restore_text import restore_text
from simnet.controlplane.kube_proxy.service_ports import ServicePortInfo

__all__ = [
    "EndpointInfo",
    "EndpointSelection",
    "ProxiedNode",
    "RuleGenerator",
    "ServicePortInfo",
    "restore_text",
    "select_endpoints",
]
