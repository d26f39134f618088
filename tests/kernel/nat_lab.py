"""A client, a router that holds nat rules and a server, in network namespaces: what the kernel translates to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Iterator

PREFIX = "simnet-nat-"
CLIENTS = {4: [f"10.77.1.{i}" for i in range(1, 6)], 6: [f"fd00:77::1:{i}" for i in range(1, 6)]}
_LINKS = (("client", "10.77.0.1/16", "fd00:77::1/64"), ("server", "10.78.0.1/16", "fd00:78::1/64"))

Flow = tuple[str, int, str, int]  # source, port, destination, port


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def router() -> Iterator[None]:
    """Make the three namespaces and take them away again."""
    names = [PREFIX + name for name in ("client", "router", "server")]
    try:
        for name in names:
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        inner = names[1]
        for number, (peer, *ways) in enumerate(_LINKS):
            there, here = f"sn{peer[0]}0", f"sn{number}"
            _run("ip", "link", "add", there, "netns", PREFIX + peer, "type", "veth", "peer", "name", here,
                 "netns", inner)  # fmt: skip
            _run("ip", "-n", PREFIX + peer, "link", "set", there, "up")
            _run("ip", "-n", inner, "link", "set", here, "up")
            for way in ways:
                _run("ip", "-n", inner, "addr", "add", way, "dev", here, *(["nodad"] if ":" in way else []))
        for version, addresses in CLIENTS.items():
            for address in addresses:
                width, nodad = ("/64", ["nodad"]) if version == 6 else ("/16", [])
                _run("ip", "-n", names[0], "addr", "add", address + width, "dev", "snc0", *nodad)
            _run("ip", f"-{version}", "-n", names[0], "route", "add", "default", "via",
                 "fd00:77::1" if version == 6 else "10.77.0.1")  # fmt: skip
        # nobody answers there: a packet that waits for an answer would keep its connection, and with it its mapping
        _run("ip", "-n", inner, "link", "set", "sn1", "arp", "off")
        _run("ip", "netns", "exec", inner, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def translations(rules: list[str], flows: list[Flow], version: int) -> list[tuple[Flow, Flow]]:
    """Send a UDP packet of each flow through the router; return the flows with their headers after translation."""
    inside = ("ip", "netns", "exec", PREFIX + "router")
    program = "ip6tables" if version == 6 else "iptables"
    _run(*inside, program, "-t", "nat", "-F")
    subprocess.run([*inside, "conntrack", "-F"], capture_output=True, check=False)
    for rule in rules:
        _run(*inside, program, "-t", "nat", "-A", *rule.split())
    child = os.fork()
    if child == 0:
        try:
            _send(flows, version)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.1)
    told = _run(*inside, "conntrack", "-L", "-p", "udp", "-f", "ipv6" if version == 6 else "ipv4")
    found = {}
    for line in told.splitlines():
        words = [word.partition("=") for word in line.split()]
        sides = [value for key, _, value in words if key in ("src", "dst", "sport", "dport")]
        original, reply = sides[:4], sides[4:8]
        asked = (original[0], int(original[2]), original[1], int(original[3]))
        found[asked] = (reply[1], int(reply[3]), reply[0], int(reply[2]))
    return [(flow, found[flow]) for flow in flows]


def _send(flows: list[Flow], version: int) -> None:
    namespace = os.open(f"/run/netns/{PREFIX}client", os.O_RDONLY)
    ctypes.CDLL(None).setns(namespace, 0x40000000)  # CLONE_NEWNET
    for source, source_port, destination, port in flows:
        with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((source, source_port))
            sender.sendto(b"x", (destination, port))
