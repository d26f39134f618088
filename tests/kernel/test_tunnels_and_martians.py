"""A real kernel beside the model: TTL, bytes and ports in a VXLAN tunnel, and the sources that rp_filter drops."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from bird.namespaces import Namespaces

from simnet.controlplane.fabric import build_fabric
from simnet.dataplane.forwarding.compile import compile_tables
from simnet.dataplane.forwarding.reverse_path import MODES, is_martian
from simnet.dataplane.path.tunnelling import FIRST_PORT, PORTS
from simnet.model.addresses import AddressTable
from simnet.model.calico import FabricSettings
from simnet.model.cluster import ClusterNode, ClusterPod
from simnet.model.fabric import TUNNEL_BYTES
from simnet.model.fib import Fib, NextHop, Route, RouteKind

pytestmark = [pytest.mark.root, pytest.mark.skipif(not shutil.which("ip"), reason="needs iproute2")]

# pa -- A -- S -- B -- pb, S routes between A and B; what simnet calls cali veths, eth0 and p-A, p-B
TUNNEL = {
    "pa": ["addr add 192.168.10.5/32 dev eth0", "route add 169.254.1.1 dev eth0", "route add default via 169.254.1.1"],
    "pb": ["addr add 192.168.20.70/32 dev eth0", "route add 169.254.1.1 dev eth0", "route add default via 169.254.1.1"],
    "S": ["addr add 10.0.1.1/24 dev pA", "addr add 10.0.2.1/24 dev pB"],
    "A": ["addr add 10.0.1.11/24 dev eth0", "route add default via 10.0.1.1", "route add 192.168.10.5 dev cali"],
    "B": ["addr add 10.0.2.12/24 dev eth0", "route add default via 10.0.2.1", "route add 192.168.20.70 dev cali"],
}
ENDS = {
    "A": ("10.0.1.11", "192.168.10.0", "66:00:00:00:00:0a"),
    "B": ("10.0.2.12", "192.168.20.64", "66:00:00:00:00:0b"),
}

RECEIVER = """
import json, socket, struct, sys
box = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
box.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
box.bind(("192.168.20.70", 8080)); box.settimeout(5)
print("ready", flush=True)
ttl = []
for _ in range(40):
    data, extra, _, peer = box.recvmsg(2000, 100)
    ttl.append(struct.unpack("i", extra[0][2])[0])
print(json.dumps(ttl))
"""
SENDER = """
import errno, json, socket, time
def send(port, size):
    box = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    box.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO: DF
    box.bind(("192.168.10.5", port)); box.connect(("192.168.20.70", 8080))
    box.send(bytes(size - 28))
    return box
for i in range(40):
    send(4000 + i, 1450)
large = send(5000, 1451)
time.sleep(0.2)
try:
    large.send(bytes(1451 - 28)); told = ""
except OSError as error:
    told = errno.errorcode[error.errno]
print(json.dumps({"refused": told, "mtu": large.getsockopt(socket.IPPROTO_IP, 14)}))
"""
SNIFFER = """
import json, socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
wire.bind(("eth0", 0)); wire.settimeout(4)
print("ready", flush=True)
seen = []
while len(seen) < 40:
    packet = wire.recv(3000)[14:]
    if packet[9] == 17 and struct.unpack("!H", packet[22:24])[0] == 4789:
        inner = packet[28 + 8 + 14:]
        seen.append([struct.unpack("!H", packet[2:4])[0], packet[8], struct.unpack("!H", packet[20:22])[0], inner[8],
                     struct.unpack("!H", inner[20:22])[0]])
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def tunnel() -> Iterator[Namespaces]:
    with Namespaces() as net:
        try:
            for box in TUNNEL:
                net.add(box)
        except (RuntimeError, OSError) as error:
            pytest.skip(f"this process may not make network namespaces: {error}")
        net.wire(
            [
                ("pa", "eth0", "A", "cali"),
                ("A", "eth0", "S", "pA"),
                ("S", "pB", "B", "eth0"),
                ("B", "cali", "pb", "eth0"),
            ]
        )
        up = {"pa": ["eth0"], "pb": ["eth0"], "A": ["eth0", "cali"], "B": ["eth0", "cali"], "S": ["pA", "pB"]}
        for box, interfaces in up.items():
            net.ip(box, [f"link set {name} up" for name in interfaces])
        for box in ("A", "B"):
            net.run(box, "sysctl", "-qw", "net.ipv4.conf.cali.proxy_arp=1", "net.ipv4.neigh.cali.proxy_delay=0")
        for box, lines in TUNNEL.items():
            net.ip(box, lines)
        for box, far in (("A", "B"), ("B", "A")):
            (own, address, mac), (there, far_address, far_mac) = ENDS[box], ENDS[far]
            try:
                net.ip(box, [f"link add vxlan.calico type vxlan id 4096 dstport 4789 local {own} nolearning"])
            except RuntimeError as error:
                pytest.skip(f"no VXLAN here: {error}")
            block = "192.168.20.64/26" if far == "B" else "192.168.10.0/26"
            net.ip(
                box,
                [
                    f"link set vxlan.calico address {mac} mtu 1450 up", f"addr add {address}/32 dev vxlan.calico",
                    f"neigh add {far_address} lladdr {far_mac} dev vxlan.calico",
                    f"route add {block} via {far_address} dev vxlan.calico onlink",
                ],
            )  # fmt: skip
            net.run(box, "bridge", "fdb", "append", far_mac, "dev", "vxlan.calico", "dst", there)
        yield net


def test_a_vxlan_tunnel_of_the_kernel_does_what_the_model_says(tunnel: Namespaces) -> None:
    """TTL, outer size, TTL and ports on the far wire; one byte too many is answered: fragmentation needed, 1450."""

    def start(box: str, program: str) -> subprocess.Popen[str]:
        argv = ["ip", "netns", "exec", tunnel.name(box), sys.executable, "-c", program]
        started = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        return started

    receiver, sniffer = start("pb", RECEIVER), start("B", SNIFFER)
    sent = json.loads(tunnel.run("pa", sys.executable, "-c", SENDER))
    ttl, seen = (json.loads(each.communicate(timeout=10)[0]) for each in (receiver, sniffer))
    assert sent == {"refused": "EMSGSIZE", "mtu": 1500 - TUNNEL_BYTES["vxlan"]}
    assert set(ttl) == {62}  # A and B; S counts down the outer header's
    sizes, outer_ttl, outer_port, inner_ttl, inner_port = (list(column) for column in zip(*seen, strict=True))
    assert set(sizes) == {1450 + TUNNEL_BYTES["vxlan"]}
    assert (set(outer_ttl), set(inner_ttl)) == ({63}, {63})  # 64 less S; 64 less A
    assert all(FIRST_PORT <= port < FIRST_PORT + PORTS for port in outer_port)
    assert len(set(inner_port)) == 40
    assert len(set(outer_port)) > 30  # a port a flow, by a hash


SPOOF = """
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data)); total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff
source, destination = (socket.inet_aton(text) for text in sys.argv[1:3])
udp = struct.pack("!HHHH", 4000, 9, 8, 0)
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, source, destination)
head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("pA", 0))
wire.send(bytes.fromhex(sys.argv[3]) + bytes(6) + bytes([8, 0]) + head + udp)
"""

SOURCES = {  # source -> what A knows of it: its route, as simnet has it
    "10.0.1.11": (),  # A's own
    "10.9.9.9": (),  # no route
    "10.8.8.8": (Route(ipaddress.ip_network("10.8.0.0/16"), RouteKind.BLACKHOLE),),
    "10.7.7.7": (Route(ipaddress.ip_network("10.7.0.0/16"), RouteKind.VIA, (NextHop("eth0", "10.0.1.1"),)),),
    "192.168.10.5": (Route(ipaddress.ip_network("192.168.10.5/32"), RouteKind.DIRECT, (NextHop("cali"),)),),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_kernel_drops_the_sources_that_the_model_drops(tunnel: Namespaces, mode: str) -> None:
    """Packets that S forwards to A from each source: A counts in InUDP or drops; forwarded on to its pod or not."""
    tunnel.ip("A", ["route del default"])
    tunnel.ip("A", ["route replace blackhole 10.8.0.0/16", "route replace 10.7.0.0/16 via 10.0.1.1"])
    tunnel.ip(
        "A", ["route replace 192.168.10.6 dev cali", "neigh replace 192.168.10.6 lladdr 66:00:00:00:00:06 dev cali"]
    )
    tunnel.run(
        "A", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", f"net.ipv4.conf.eth0.rp_filter={MODES.index(mode)}"
    )
    mac = json.loads(tunnel.run("A", "ip", "-j", "link", "show", "eth0"))[0]["address"].replace(":", "")
    try:
        for source, routes in SOURCES.items():
            count = _forwarded_to_the_pod(tunnel, source, mac)
            node = ClusterNode("A", ("10.0.1.11",), {}, rp_filter=mode)
            fabric = build_fabric([node], [], [], FabricSettings())
            if source == "192.168.10.5":
                fabric = build_fabric([node], [ClusterPod("d", "p", "A", (source,), False, True)], [], FabricSettings())
                fabric = replace(fabric, pods=tuple(replace(pod, interface="cali") for pod in fabric.pods))
            addresses = AddressTable([source])
            tables = compile_tables(fabric, {"A": Fib("A", routes)}, addresses)
            columns = (0, tables.interface_names.index("eth0"), addresses.intern(source))
            martian = bool(is_martian(tables, *(np.array([value], np.int32) for value in columns))[0])
            assert (count == 0) == martian, (source, mode)
    finally:
        tunnel.ip("A", ["route add default via 10.0.1.1"])


def _forwarded_to_the_pod(net: Namespaces, source: str, mac: str) -> int:
    """Hand A a packet from `source` to its pod on the wire, and count what leaves toward the pod."""

    def sent() -> int:
        return int(json.loads(net.run("A", "ip", "-j", "-s", "link", "show", "cali"))[0]["stats64"]["tx"]["packets"])

    before = sent()
    net.run("S", sys.executable, "-c", SPOOF, source, "192.168.10.6", mac)
    return sent() - before
