"""Small clusters for one node, and the flows that kube-proxy's specification promises them, in one line each.

A flow: `SOURCE > ADDRESS:PORT[/PROTOCOL] = OUTCOME`. The outcome is `[masq] ENDPOINT ...`, or one of DROP, REJECT,
ACCEPT, none. The network is that of kube-proxy's own tests: pods in 10.0.0.0/8, cluster IPs in 172.30.0.0/16, this
node 192.168.0.2 (and 192.168.1.2, 192.168.99.11), outside clients in 203.0.113.0/24.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

import simnet

NODE = "test-node"
ADDRESSES = ["127.0.0.1", "::1", "192.168.0.2", "192.168.1.2", "192.168.99.11", "2001:db8::1", "2001:db8:1::2"]
WORDS = {"DROP": "dropped", "REJECT": "rejected", "ACCEPT": "accepted", "none": "none"}
_FLOW = re.compile(r"(\S+) > (\S+):(\d+)(?:/(\w+))? = (masq )?(.+)")

Object = dict[str, Any]


def service(name: str, cluster_ip: str, *ports: str, ingress: list[Object] | None = None, **spec: Any) -> Object:
    """A Service in namespace `ns` + the last character of its name; a port is `NAME/PORT[/PROTOCOL[/NODEPORT]]`."""
    listed = []
    for text in ports or ("p80/80",):
        port_name, number, protocol, node_port = (
            (*text.split("/"), "TCP", "0")[:4] if text.count("/") < 3 else text.split("/")
        )
        entry: Object = {"protocol": protocol, "port": int(number)}
        if port_name:
            entry["name"] = port_name
        if int(node_port):
            entry["nodePort"] = int(node_port)
        listed.append(entry)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": f"ns{name[-1]}"},
        "spec": {"clusterIP": cluster_ip, "ports": listed, **spec},
        "status": {"loadBalancer": {"ingress": ingress} if ingress else {}},
    }


def endpoints(
    name: str, *texts: str, ports: tuple[str, ...] = ("p80/80",), family: str = "IPv4", number: int = 1
) -> Object:
    """An EndpointSlice; an endpoint is `ADDRESS[@NODE] [CONDITION...]`, a condition `ready`, `!ready`, `serving`, ...

    `zone=NAME` and `node=NAME` among the conditions are hints.
    """
    listed = []
    for text in texts:
        where, *words = text.split()
        address, _, node = where.partition("@")
        entry: Object = {"addresses": [address], "conditions": {}}
        if node:
            entry["nodeName"] = node
        for word in words:
            if "=" in word:
                kind, _, value = word.partition("=")
                entry.setdefault("hints", {})["forZones" if kind == "zone" else "forNodes"] = [{"name": value}]
            else:
                entry["conditions"][word.lstrip("!")] = word[0] != "!"
        listed.append(entry)
    held = []
    for text in ports:
        port_name, port, protocol = (*text.split("/"), "TCP")[:3]
        held.append({"name": port_name, "port": int(port), "protocol": protocol})
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-{number}",
            "namespace": f"ns{name[-1]}",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": family,
        "endpoints": listed,
        "ports": held,
    }


def load(
    folder: Path, objects: list[Object], kube_proxy: Object | None = None, node: Object | None = None, **others: Any
) -> simnet.Cluster:
    """Write a cluster file with one node and load it; `others` are further keys of the file."""
    content = {
        "nodes": [{"name": NODE, "addresses": ADDRESSES, **(node or {})}],
        "objects": objects,
        "kubeProxy": {"clusterCIDR": "10.0.0.0/8", **(kube_proxy or {})},
        **others,
    }
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return simnet.load_cluster(file)


def flow(cluster: simnet.Cluster, line: str) -> str:
    """Ask the node for the flow of a line, and return the line with what came of it."""
    found = _FLOW.fullmatch(line)
    assert found is not None, line
    source, address, port, protocol = found[1], found[2], found[3], found[4]
    host = f"[{address}]" if ":" in address else address
    trace = cluster.trace(source, f"{host}:{port}", protocol=protocol or "tcp", node=NODE, all=True)
    outcomes = trace.to_dict()["outcomes"]
    assert abs(sum(each["probability"] for each in outcomes) - 1) < 1e-12
    assert len({each["masquerade"] for each in outcomes}) == 1, line
    words = {verdict: word for word, verdict in WORDS.items()}
    ends = sorted({each["endpoint"] or words[each["verdict"]] for each in outcomes})
    masquerade = "masq " if outcomes[0]["masquerade"] else ""
    return line[: line.index(" = ") + 3] + masquerade + " ".join(ends)


def check(cluster: simnet.Cluster, lines: str) -> None:
    """Ask for every flow and compare with what the lines say."""
    told = [line.strip() for line in lines.strip().splitlines()]
    assert [flow(cluster, line) for line in told] == told


def chain(cluster: simnet.Cluster, name: str, table: str = "nat", *, family: str = "ipv4") -> list[str]:
    """The rules of one chain as kube-proxy hands them to iptables-restore, without `-A CHAIN`."""
    text = cluster.rules(NODE, family).to_restore()
    section = text.split(f"*{table}\n")[1].split("COMMIT")[0]
    prefix = f"-A {name} "
    return [line.removeprefix(prefix) for line in section.splitlines() if line.startswith(prefix)]


def chains(cluster: simnet.Cluster, prefix: str, table: str = "nat", *, family: str = "ipv4") -> list[str]:
    """The names of the chains that begin so."""
    text = cluster.rules(NODE, family).to_restore()
    section = text.split(f"*{table}\n")[1].split("COMMIT")[0]
    return [line[1:].split()[0] for line in section.splitlines() if line.startswith(":" + prefix)]
