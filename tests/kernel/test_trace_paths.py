"""`trace` against the packets that a real kernel was seen to send, box by box.

Of each path that the lab wrote down: every box of request and reply, the interfaces in and out, the TTL in and out, and
addresses and ports before and after each rewrite. Source ports are drawn, so they are compared by name: the same port
must stand in the same places. And the pods reached are those that the trace gives a probability, no others.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from kernel.lab import cluster_of

import simnet

Hop = dict[str, Any]  # ns, ttl_in, addr_in; out, ttl_out, addr_out: the first box has no "in", the last no "out"


@pytest.mark.parametrize("name", ["seed", "hairpin"])
def test_every_packet_seen_in_the_kernel_is_one_that_trace_tells_hop_by_hop(name: str, shared_cases: Path) -> None:
    file = shared_cases / "kernel" / name / "paths.json"
    scenario = shared_cases.parent / "lab" / "scenarios" / f"{name}.json"
    if not (file.is_file() and scenario.is_file()):
        pytest.skip(f"{file} or {scenario} is not there")
    lab = json.loads(scenario.read_text())
    cluster = simnet.Cluster(cluster_of(lab))
    known = {
        port.get(kind) for service in lab["services"] for port in service["ports"]
        for kind in ("port", "targetPort", "nodePort")
    }  # fmt: skip
    packets = 0
    for entry in json.loads(file.read_text()):
        source, destination, protocol = called(entry, lab)
        trace = cluster.trace(source, destination, protocol=protocol, all=True)
        outcomes = trace.to_dict()["outcomes"]
        told = {f"pod-{each['pod'].partition('/')[2]}": each for each in outcomes if each["pod"]}
        what = f"{name}: {entry['source']} -> {entry['entry']}"
        assert {path["pod"] for path in entry["paths"]} == set(told), what
        for path in entry["paths"]:
            outcome = told[path["pod"]]
            for direction, key in (("request", "forward"), ("reply", "reply")):
                mine = hops_of(outcome["steps"], direction)
                assert [hop["ns"] for hop in mine] == path[f"{key}_ns"], f"{what}: {direction}"
            mine = named(hops_of(outcome["steps"], "request") + hops_of(outcome["steps"], "reply"), known)
            theirs = named(path["forward"] + path["reply"], known)
            for told_hop, kernel_hop in zip(mine, theirs, strict=True):
                assert set(kernel_hop) - set(told_hop) <= {"in", "out"}, what  # a pod's own interface is not told
                assert told_hop == {key: kernel_hop[key] for key in told_hop}, what
            assert path["forward"][-1]["addr_in"].startswith(f"{outcome['source_seen']}:"), what
            assert outcome["hops"]["l3"] == path["forward"][0]["ttl_out"] - path["forward"][-1]["ttl_in"], what
            packets += path["count"]
    assert packets >= 100  # none skipped in silence


def called(entry: dict[str, Any], lab: dict[str, Any]) -> tuple[str, str, str]:
    """Source, destination and protocol as `trace` takes them."""
    origin, _, rest = entry["source"].partition(":")
    address, _, protocol = entry["entry"].rpartition("/")
    source = {
        "client": lambda: next(each["ip"].partition("/")[0] for each in lab["clients"] if each["name"] == rest),
        "pod": lambda: f"pod:default/{rest}",
        "node": lambda: f"node:{rest}",
    }[origin]()
    return source, ":".join(address.split(":")[-2:]), protocol


def hops_of(steps: list[dict[str, Any]], direction: str) -> list[Hop]:
    """The boxes that a packet visited, from the steps of a trace, as the lab writes them down."""
    hops: list[Hop] = []
    header, ttl = "", 0
    for step in (each for each in steps if each["direction"] == direction):
        box = "client" if step["box"] == "clients" else step["box"].replace("default/", "pod-")
        to_itself = step["action"] == "deliver" and len(hops) == 1 and hops[0]["ns"] == box
        if not hops or hops[-1]["ns"] != box or to_itself:
            hops.append({"ns": box, "ttl_in": ttl, "addr_in": header} if hops else {"ns": box})
        header = step.get("after", header).replace(" > ", ">")
        if step["action"] in ("send", "route"):
            ttl = step["ttl"]
            hops[-1] |= {"ttl_out": ttl, "addr_out": header}
        if step["action"] == "route":
            hops[-1]["out"] = "p-client" if step["interface"] == "p-clients" else step["interface"]
    return hops


def named(hops: list[Hop], known: set[int]) -> list[Hop]:
    """The hops, each port that is no Service's called by the order in which they appear."""
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return found[0] if int(found[1]) in known else names.setdefault(found[1], f":port-{len(names) + 1}")

    return [
        {key: re.sub(r":(\d+)", name, value) if key.startswith("addr_") else value for key, value in hop.items()}
        for hop in hops
    ]
