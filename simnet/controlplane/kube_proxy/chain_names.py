"""The names of kube-proxy's chains: a prefix and a hash, equal on all nodes and in both families.

Source: kubernetes/kubernetes pkg/proxy/iptables/proxier.go, v1.33.
"""

from __future__ import annotations

import base64
import hashlib

SERVICES = "KUBE-SERVICES"
EXTERNAL_SERVICES = "KUBE-EXTERNAL-SERVICES"
NODE_PORTS = "KUBE-NODEPORTS"
POSTROUTING = "KUBE-POSTROUTING"
MARK_MASQ = "KUBE-MARK-MASQ"
MARK_DROP = "KUBE-MARK-DROP"
FORWARD = "KUBE-FORWARD"
PROXY_FIREWALL = "KUBE-PROXY-FIREWALL"
KUBELET_FIREWALL = "KUBE-FIREWALL"
CANARY = "KUBE-PROXY-CANARY"


def hash16(text: str) -> str:
    """Return the first 16 characters of the base32 text of the SHA-256 of `text` in UTF-8."""
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(digest[:10]).decode()  # 10 bytes are exactly 16 characters


def cluster_policy_chain(name: str, protocol: str) -> str:
    """The chain that spreads over the endpoints of traffic policy Cluster; `name` is `namespace/name:port`."""
    return "KUBE-SVC-" + hash16(name + protocol)


def local_policy_chain(name: str, protocol: str) -> str:
    """The chain that spreads over the endpoints of traffic policy Local."""
    return "KUBE-SVL-" + hash16(name + protocol)


def external_chain(name: str, protocol: str) -> str:
    """The entry for external destinations: node port, external IP, load-balancer IP."""
    return "KUBE-EXT-" + hash16(name + protocol)


def firewall_chain(name: str, protocol: str) -> str:
    """The filter of load-balancer IPs by source range."""
    return "KUBE-FW-" + hash16(name + protocol)


def endpoint_chain(name: str, protocol: str, endpoint: str) -> str:
    """The chain of one endpoint, `ip:port`."""
    return "KUBE-SEP-" + hash16(name + protocol + endpoint)
