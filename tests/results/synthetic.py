"""Recordings with known answers: flows are written down one by one, or drawn from stated shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simnet.model.recording import FLOWS, HOPS, LOAD, PACKETS, Categories, Column, ColumnData, Recording
from simnet.results.store import RunDescription

DEFAULTS: dict[str, Any] = {
    "flow_id": 0, "start_ps": 0, "end_ps": 10, "warmup": False, "client": "198.51.100.10", "protocol": "tcp",
    "source_port": 40000, "destination": "192.168.64.57", "destination_port": 8088, "entry_node": "A",
    "pod": "default/p0", "serving_node": "A", "endpoint_port": 80, "source_seen": "192.168.64.57",
    "verdict": "delivered", "reason": "", "answered": True, "reply_reason": "", "snat": True,
    "source_hidden": True, "cross_node": False, "connections": 1, "l3_hops": 2, "links": 3, "reply_l3_hops": 2,
    "reply_links": 3, "nat_hops": 2, "rules_scanned": 20, "delay_ps": 15_000_000, "round_trip_ps": 30_000_000,
    "packets_sent": 4, "packets_delivered": 4, "packets_dropped": 0, "packets_rejected": 0, "packets_lost": 0,
    "bytes_sent": 4000, "reply_packets": 4, "reply_bytes": 4000,
}  # fmt: skip
TOPOLOGY = {
    "devices": [
        {"name": "clients", "kind": "clients", "role": ""},
        {"name": "tor", "kind": "switch", "role": "tor"},
        {"name": "A", "kind": "node", "role": ""},
        {"name": "B", "kind": "node", "role": ""},
    ],
    "links": [
        {"a": "clients", "b": "tor", "rate_bps": 10**10, "delay_ps": 5_000_000},
        {"a": "A", "b": "tor", "rate_bps": 10**10, "delay_ps": 5_000_000},
        {"a": "B", "b": "tor", "rate_bps": 10**10, "delay_ps": 5_000_000},
        {"a": "A", "b": "default/p0", "rate_bps": 10**11, "delay_ps": 0},
        {"a": "B", "b": "default/p1", "rate_bps": 10**11, "delay_ps": 0},
    ],
    "pods": [
        {"pod": "default/p0", "node": "A", "link": 3},
        {"pod": "default/p1", "node": "B", "link": 4},
    ],
}


def names(values: Sequence[str]) -> Categories:
    """A column of names."""
    listed = ("", *dict.fromkeys(value for value in values if value))
    position = {name: code for code, name in enumerate(listed)}
    return Categories(np.array([position[value] for value in values], dtype=np.int32), listed)


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> dict[str, ColumnData]:
    """Columns from rows written as dictionaries."""
    return {
        c.name: names([row[c.name] for row in rows])
        if c.dtype == "category"
        else np.array([row[c.name] for row in rows], dtype=c.dtype)
        for c in columns
    }


def flows_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, ColumnData]:
    """A `flows` table; what a row leaves out is as in DEFAULTS, flow ids count from 0."""
    return table(FLOWS, [DEFAULTS | {"flow_id": i} | dict(row) for i, row in enumerate(rows)])


def load_table(
    where: Mapping[str, Mapping[str, int]], expected: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, ColumnData]:
    """A `load` table from place -> name -> connections; packets are 4 and bytes 4000 a connection."""
    rows = [
        {
            "where": place, "name": name, "connections": n, "packets": 4 * n, "bytes": 4000 * n,
            "expected_share": (expected or {}).get(place, {}).get(name, float("nan")),
        }
        for place, loads in where.items()
        for name, n in loads.items()
    ]  # fmt: skip
    return table(LOAD, rows)


def hops_table(flows: Mapping[str, ColumnData]) -> dict[str, ColumnData]:
    """The `hops` table of flows that were all delivered and answered."""
    rows = []
    for direction, prefix in (("request", ""), ("reply", "reply_")):
        pairs = np.stack([np.asarray(flows[f"{prefix}{n}"]) for n in ("l3_hops", "links")], axis=1)
        for (l3, links), count in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
            rows.append({"direction": direction, "l3_hops": l3, "links": links, "flows": count, "packets": 4 * count})
    return table(HOPS, rows)


def drawn_run(
    *, seed: int, flows: int, entry: Mapping[str, float], pods_on: Mapping[str, int], snat: bool = True
) -> Recording:
    """A run under policy Cluster: entry nodes and pods drawn from their shares, hops 2 local and 4 across (routed)."""
    rng = np.random.default_rng(seed)
    nodes, shares = list(entry), np.array(list(entry.values()))
    places = [node for node, count in pods_on.items() for _ in range(count)]
    entered = rng.choice(len(nodes), size=flows, p=shares)
    picked = rng.integers(len(places), size=flows)
    pod_names = [f"default/p{i}" for i in range(len(places))]
    node_of_pod = np.array([nodes.index(node) for node in places])
    cross = node_of_pod[picked] != entered
    delay = 15_000_000 + 20_000_000 * cross + rng.integers(0, 1_000_000, flows)
    data: dict[str, ColumnData] = {
        c.name: np.full(flows, DEFAULTS[c.name], dtype=c.dtype)
        if c.dtype != "category"
        else Categories(np.full(flows, 1 if DEFAULTS[c.name] else 0, np.int32), ("", DEFAULTS[c.name] or "-"))
        for c in FLOWS
    }
    hops = (2 + 2 * cross).astype(np.int16)
    data |= {
        "flow_id": np.arange(flows), "cross_node": cross, "snat": np.full(flows, snat),
        "source_hidden": np.full(flows, snat), "l3_hops": hops, "reply_l3_hops": hops,
        "links": (hops + 1).astype(np.int16), "reply_links": (hops + 1).astype(np.int16), "delay_ps": delay,
        "round_trip_ps": 2 * delay, "entry_node": Categories((entered + 1).astype(np.int32), ("", *nodes)),
        "pod": Categories((picked + 1).astype(np.int32), ("", *pod_names)),
        "serving_node": Categories((node_of_pod[picked] + 1).astype(np.int32), ("", *nodes)),
    }  # fmt: skip
    per_pod = np.bincount(picked, minlength=len(places))
    per_serving = np.bincount(node_of_pod[picked], minlength=len(nodes))
    per_entry = np.bincount(entered, minlength=len(nodes))
    load = load_table(
        {
            "entry_node": dict(zip(nodes, per_entry.tolist(), strict=True)),
            "serving_node": dict(zip(nodes, per_serving.tolist(), strict=True)),
            "pod": dict(zip(pod_names, per_pod.tolist(), strict=True)),
            "link": {"clients->tor": flows, "tor->clients": flows}
            | {f"tor->{n}": int(per_entry[i]) for i, n in enumerate(nodes)}
            | {f"{n}->tor": int(per_entry[i]) for i, n in enumerate(nodes)}
            | {f"{places[i]}->{p}": int(per_pod[i]) for i, p in enumerate(pod_names)}
            | {f"{p}->{places[i]}": int(per_pod[i]) for i, p in enumerate(pod_names)},
        },
        {
            "entry_node": dict(entry),
            "serving_node": {n: c / len(places) for n, c in pods_on.items()},
            "pod": dict.fromkeys(pod_names, 1 / len(places)),
        },
    )
    totals = {"packets_sent": 4 * flows, "packets_delivered": 4 * flows}
    return Recording({"flows": data, "load": load, "hops": hops_table(data)}, totals)


def packets_table(rows: int, *, seed: int = 1) -> dict[str, ColumnData]:
    """A `packets` table with noise in it."""
    rng = np.random.default_rng(seed)
    data: dict[str, ColumnData] = {c.name: np.zeros(rows, c.dtype) for c in PACKETS if c.dtype != "category"}
    data["flow_id"] = np.arange(rows, dtype=np.int64) // 12
    data["packet"] = (np.arange(rows) % 12).astype(np.int32)
    data["sent_ps"] = np.cumsum(rng.integers(0, 10**6, rows))
    data["delay_ps"] = 15_000_000 + rng.integers(0, 10**6, rows)
    data["pod"] = Categories(rng.integers(1, 3, rows).astype(np.int32), ("", "default/p0", "default/p1"))
    data["serving_node"] = Categories(rng.integers(1, 3, rows).astype(np.int32), ("", "A", "B"))
    data["verdict"] = Categories(np.ones(rows, np.int32), ("", "delivered"))
    data["dropped_at"] = Categories(np.zeros(rows, np.int32), ("",))
    return {c.name: data[c.name] for c in PACKETS}


def topology(nodes: Sequence[str], pods_on: Mapping[str, int]) -> dict[str, Any]:
    """A switch with clients and nodes, pods on their nodes, as a manifest keeps it."""
    links = [{"a": n, "b": "tor", "rate_bps": 10**10, "delay_ps": 5_000_000} for n in ["clients", *nodes]]
    devices = [{"name": "clients", "kind": "clients", "role": ""}, {"name": "tor", "kind": "switch", "role": "tor"}]
    devices += [{"name": n, "kind": "node", "role": ""} for n in nodes]
    pods = []
    for node in [node for node, count in pods_on.items() for _ in range(count)]:
        pods.append({"pod": f"default/p{len(pods)}", "node": node, "link": len(links)})
        links.append({"a": node, "b": pods[-1]["pod"], "rate_bps": 10**11, "delay_ps": 0})
    return {"devices": devices, "links": links, "pods": pods}


def experiment(
    *,
    repeats: int = 10,
    flows: int = 2000,
    node_counts: Sequence[int] = (4, 8),
    pods: int = 2,
    sweep: bool = True,
) -> list[tuple[RunDescription, Recording]]:
    """ExternalIP on the first node, NodePort on a random one, ClusterIP without SNAT; pods spread over the nodes."""
    runs = []
    for count in node_counts:
        nodes = [f"n{i}" for i in range(count)]
        pods_on = {n: pods // count + (i < pods % count) for i, n in enumerate(nodes)}
        everywhere = dict.fromkeys(nodes, 1 / count)
        first = dict.fromkeys(nodes, 0.0) | {nodes[0]: 1.0}
        for number, (variant, entry, snat) in enumerate(
            (("external-ip", first, True), ("node-port", everywhere, True), ("cluster-ip", everywhere, False))
        ):
            for repeat in range(repeats):
                recording = drawn_run(
                    seed=1000 * repeat + 10 * count + number, flows=flows, entry=entry, pods_on=pods_on, snat=snat
                )
                description = RunDescription(
                    id=f"{variant}-{count}-{repeat}", variant=variant, repeat=repeat, seed=repeat,
                    sweep={"nodes.count": count} if sweep else {},
                    manifest={"topology": topology(nodes, pods_on), "name": "entry-points", "seed": 1},
                )  # fmt: skip
                runs.append((description, recording))
    return runs
