"""The network interfaces of a node and of a pod, as `ip addr` prints them.

Modelled: lo, the node's uplinks with their addresses, tunl0 and vxlan.calico with theirs, MTUs, and for each pod a veth
pair: host end `cali` + 11 hex digits with MAC ee:ee:ee:ee:ee:ee and no address, pod end eth0 with a /32 (/128), each
naming the other's index. Made up, since they depend on a cluster's history: the indexes (a node's uplinks from 2, its
tunnels and its pods' veths after them in the order of the pods; eth0 of a pod is 3, since the host's end takes 2 in the
pod's namespace before it moves out) and MAC addresses other than Calico's. Left out: link-local IPv6 addresses.
Source: projectcalico/calico, cni-plugin/pkg/dataplane/linux/dataplane_linux.go; linux, drivers/net/veth.c;
ip-address(8).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from simnet.model.fabric import Fabric
from simnet.model.iptables.ruleset import IPNetwork

CALICO_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAYS = {4: "169.254.1.1", 6: "fe80::ecee:eeff:feee:eeee"}  # of pods: proxy ARP; the link-local address of that MAC
POD_INDEX = 3  # of eth0 in a pod


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address on an interface; with `peer` the other end of a link without a subnet."""

    address: str
    length: int
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface; `peer_index` is that of a veth's other end, in the namespace of `peer`."""

    index: int
    name: str
    mac: str | None  # None: loopback
    addresses: tuple[InterfaceAddress, ...] = ()
    peer_index: int | None = None
    peer: str = ""  # of a veth: the pod "namespace/name", or the node
    namespace_id: int | None = None  # as `ip addr` numbers the namespaces that a veth leads to
    mtu: int = 1500
    tunnel: str = ""  # "ipip", "vxlan"; empty: none


def node_interfaces(fabric: Fabric, node: str) -> tuple[Interface, ...]:
    """Return a node's interfaces by index."""
    found = [_loopback()]
    uplinks: dict[str, list[InterfaceAddress]] = {}
    for segment in fabric.segments:
        for end in segment.attachments:
            if end.device == node:
                beyond = [a for other in segment.attachments if other is not end for a in other.addresses]
                uplinks.setdefault(end.interface, []).extend(_addresses(end.addresses, end.network, beyond))
    for name, addresses in uplinks.items():
        mac = _made_up_mac(node, name)
        found.append(Interface(len(found) + 1, name, mac, tuple(addresses), mtu=fabric.mtu))
    for tunnel in next(device.tunnels for device in fabric.devices if device.name == node):
        mac = "0.0.0.0" if tunnel.kind == "ipip" else _made_up_mac(node, tunnel.interface)
        own = (InterfaceAddress(tunnel.address, 32),)
        mtu = fabric.mtu - tunnel.extra_bytes
        found.append(Interface(len(found) + 1, tunnel.interface, mac, own, mtu=mtu, tunnel=tunnel.kind))
    for number, pod in enumerate(pod for pod in fabric.pods if pod.node == node):
        index, mtu = len(found) + 1, fabric.pod_mtu
        found.append(Interface(index, pod.interface, CALICO_MAC, (), POD_INDEX, pod.pod, number, mtu))
    return tuple(found)


def pod_interfaces(fabric: Fabric, pod: str) -> tuple[Interface, ...]:
    """Return the interfaces of a pod, "namespace/name". Raises KeyError for one without a veth of its own."""
    attachment = next((each for each in fabric.pods if each.pod == pod), None)
    if attachment is None:
        raise KeyError(pod)
    host = next(each for each in node_interfaces(fabric, attachment.node) if each.name == attachment.interface)
    addresses = tuple(InterfaceAddress(a, 128 if ":" in a else 32) for a in attachment.addresses)
    mac, mtu = _made_up_mac(pod, "eth0"), fabric.pod_mtu
    eth0 = Interface(POD_INDEX, "eth0", mac, addresses, host.index, attachment.node, 0, mtu)
    return _loopback(), eth0


def pod_route_lines(fabric: Fabric, pod: str) -> Iterator[str]:
    """Yield a pod's routes as `ip route` and `ip -6 route` print them: everything by way of the host."""
    attachment = next(each for each in fabric.pods if each.pod == pod)
    families = sorted({6 if ":" in address else 4 for address in attachment.addresses})
    for family in families:
        if family == 4:
            yield f"default via {GATEWAYS[4]} dev eth0"
            yield f"{GATEWAYS[4]} dev eth0 scope link"
        else:
            own = next(address for address in attachment.addresses if ":" in address)
            yield f"{own} dev eth0 proto kernel metric 256 pref medium"
            yield f"default via {GATEWAYS[6]} dev eth0 metric 1024 pref medium"


def addr_lines(interfaces: Iterable[Interface]) -> Iterator[str]:
    """Yield the lines of `ip addr`."""
    for each in interfaces:
        at = f"@if{each.peer_index}" if each.peer_index is not None else ""
        if each.mac is None:
            flags = "<LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000"
            yield f"{each.index}: {each.name}: {flags}"
            yield "    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00"
        elif each.tunnel == "ipip":
            flags = f"<NOARP,UP,LOWER_UP> mtu {each.mtu} qdisc noqueue state UNKNOWN group default qlen 1000"
            yield f"{each.index}: {each.name}@NONE: {flags}"
            yield f"    link/ipip {each.mac} brd 0.0.0.0"
        else:
            state = "UNKNOWN" if each.tunnel else "UP"
            qdisc = "mq" if each.peer_index is None and not each.tunnel else "noqueue"
            yield (
                f"{each.index}: {each.name}{at}: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu {each.mtu} qdisc {qdisc} "
                f"state {state} group default qlen 1000"
            )
            leads = "" if each.namespace_id is None else f" link-netnsid {each.namespace_id}"
            yield f"    link/ether {each.mac} brd ff:ff:ff:ff:ff:ff{leads}"
        for held in each.addresses:
            yield f"    {_address_text(held, each)}"
            yield "       valid_lft forever preferred_lft forever"


def _address_text(held: InterfaceAddress, interface: Interface) -> str:
    if ":" in held.address:
        peer = f" peer {held.peer}/128" if held.peer else f"/{held.length}"
        return f"inet6 {held.address}{peer} scope {'host' if interface.mac is None else 'global'}"
    if held.peer:
        return f"inet {held.address} peer {held.peer}/32 scope global {interface.name}"
    network = ipaddress.ip_network(f"{held.address}/{held.length}", strict=False)
    is_wide = held.length < 31 and interface.mac is not None
    broadcast = f" brd {network.broadcast_address}" if is_wide else ""
    scope = "host" if interface.mac is None else "global"
    return f"inet {held.address}/{held.length}{broadcast} scope {scope} {interface.name}"


def _addresses(own: tuple[str, ...], network: IPNetwork | None, beyond: list[str]) -> Iterator[InterfaceAddress]:
    for address in own:
        family_peers = [peer for peer in beyond if (":" in peer) == (":" in address)]
        if network is not None:
            yield InterfaceAddress(address, network.prefixlen)
        elif family_peers:
            yield InterfaceAddress(address, 128 if ":" in address else 32, family_peers[0])
        else:
            yield InterfaceAddress(address, 128 if ":" in address else 32)


def _loopback() -> Interface:
    return Interface(1, "lo", None, (InterfaceAddress("127.0.0.1", 8), InterfaceAddress("::1", 128)))


def _made_up_mac(box: str, interface: str) -> str:
    """A locally administered address that depends on the names alone."""
    digits = hashlib.sha1(f"{box} {interface}".encode(), usedforsecurity=False).hexdigest()
    return ":".join(["02", *(digits[i : i + 2] for i in range(0, 10, 2))])
