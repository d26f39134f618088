"""What a run records: the columns, one table each, with dtype, unit and meaning.

This is the one place where a result column is defined: the recording that the engine fills, the frames and Parquet
files that `results` makes of it, and `docs/data-dictionary.md` all follow it, and a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Column:
    """One result column. `dtype` is numpy's name, or "category" for a name kept as an integer code and a list of
    names.
    """

    name: str
    dtype: str
    unit: str
    meaning: str


FLOWS: tuple[Column, ...] = (
    Column(
        "flow_id",
        "int64",
        "",
        "dense number of the flow in its run, in order of start; equal in all variants",
    ),
    Column("start_ps", "int64", "ps", "when the client sends the first packet"),
    Column("end_ps", "int64", "ps", "when the last packet of the flow reached its end, forward or reply"),
    Column("warmup", "bool", "", "started before the warm-up ended; left out of every summary"),
    Column("client", "category", "", "who called: the address of an outside client, or namespace/name of a pod"),
    Column("protocol", "category", "", "tcp, udp or sctp"),
    Column("source_port", "int32", "", "the client's port"),
    Column("destination", "category", "", "the address that the client called, before any translation"),
    Column("destination_port", "int32", "", "the port that the client called"),
    Column(
        "entry_node",
        "category",
        "",
        "the node whose rules translated the flow's first packet; empty: none did",
    ),
    Column("pod", "category", "", "namespace/name of the pod that the first packet reached; empty: none"),
    Column("serving_node", "category", "", "the node of that pod; empty: none"),
    Column("endpoint_port", "int32", "", "the port that the pod was reached on; -1: not reached"),
    Column("source_seen", "category", "", "the source address that the pod saw; empty: not reached"),
    Column("verdict", "category", "", "fate of the first packet: delivered, dropped, rejected or lost"),
    Column("reason", "category", "", "why it was not delivered; empty: delivered"),
    Column("answered", "bool", "", "the reply came back to the client from the address it had called"),
    Column(
        "reply_reason",
        "category",
        "",
        "why a delivered flow was not answered; empty: answered, or not delivered",
    ),
    Column(
        "snat",
        "bool",
        "",
        "the source address was rewritten on the way (masquerade), be it to the same address",
    ),
    Column("source_hidden", "bool", "", "the pod saw another source address than the client's"),
    Column("cross_node", "bool", "", "the serving node is not the entry node"),
    Column(
        "connections",
        "int32",
        "",
        "times the flow was translated anew: 1, more where conntrack forgot it in a pause",
    ),
    Column("l3_hops", "int16", "", "boxes that forwarded the first packet and decremented its TTL"),
    Column("links", "int16", "", "wires that the first packet crossed, the pod's veth included"),
    Column("reply_l3_hops", "int16", "", "the same for the reply; -1: no reply came back"),
    Column("reply_links", "int16", "", "wires that the reply crossed; -1: no reply came back"),
    Column("nat_hops", "int16", "", "rewrites of address or port on the way, DNAT and SNAT counted apart"),
    Column(
        "rules_scanned",
        "int32",
        "",
        "iptables rules evaluated for the first packet, in all hooks of all nodes",
    ),
    Column(
        "delay_ps",
        "int64",
        "ps",
        "first packet: from the client's first bit to the pod's last; -1: not delivered",
    ),
    Column(
        "round_trip_ps",
        "int64",
        "ps",
        "first packet and its reply, its time in the pod included; -1: not answered",
    ),
    Column("packets_sent", "int32", "", "request packets of the flow"),
    Column("packets_delivered", "int32", "", "request packets that reached a pod"),
    Column("packets_dropped", "int32", "", "request packets discarded silently"),
    Column("packets_rejected", "int32", "", "request packets answered with an ICMP error or a reset"),
    Column("packets_lost", "int32", "", "request packets that ended in a loop or on a dead end of the fabric"),
    Column("bytes_sent", "int64", "B", "request bytes, IP header included"),
    Column("reply_packets", "int32", "", "reply packets that came back to the client"),
    Column("reply_bytes", "int64", "B", "their bytes"),
)

_PART_MEANING = {
    "propagation_ps": "on the wires",
    "transmission_ps": "onto the wires, bit by bit",
    "link_queue_ps": "waiting for wires",
    "cpu_queue_ps": "waiting for nodes' cores",
    "cpu_ps": "handled by nodes' cores, rules left out",
    "rule_scan_ps": "held against rules (of a packet that a queue dropped: part of cpu_ps)",
    "pod_queue_ps": "waiting in the pod",
    "service_ps": "served by the pod",
}
PARTS = tuple(_PART_MEANING)

PACKETS: tuple[Column, ...] = (
    Column("flow_id", "int64", "", "the flow, as in `flows`"),
    Column("packet", "int32", "", "number of the packet in its flow, from 0"),
    Column("sent_ps", "int64", "ps", "when the client began to send it"),
    Column("size_bytes", "int32", "B", "IP packet, header included"),
    Column("pod", "category", "", "namespace/name of the pod reached; empty: none"),
    Column("serving_node", "category", "", "the node of that pod; empty: none"),
    Column("verdict", "category", "", "delivered, dropped, rejected or lost"),
    Column("l3_hops", "int16", "", "boxes that forwarded it"),
    Column("links", "int16", "", "wires crossed"),
    Column(
        "delay_ps",
        "int64",
        "ps",
        "from its first bit at the client to its last at the pod; -1: not delivered",
    ),
    Column("round_trip_ps", "int64", "ps", "and back, its time in the pod included; -1: not answered"),
    *(Column(name, "int64", "ps", f"{what}, there and back as far as it came") for name, what in _PART_MEANING.items()),
    Column("dropped_at", "category", "", "the station whose queue had no room for it; empty: none"),
)

STATION_KINDS = ("link", "cpu", "pod")  # in the order of dataplane/queueing/stations.py
STATIONS: tuple[Column, ...] = (
    Column("station", "category", "", "a direction a->b of a link, `node cpu N`, or namespace/name of a pod"),
    Column("kind", "category", "", "link, cpu or pod"),
    Column("start_ps", "int64", "ps", "when this bin of time begins; the run's duration is cut into 100"),
    Column("utilisation", "float64", "", "share of the bin that its servers were busy"),
    Column("queue_mean", "float64", "", "packets waiting, those in service left out: mean over the bin"),
    Column("queue_max", "int64", "", "most that waited when one arrived in the bin and had to wait, itself included"),
    Column("arrivals", "int64", "", "packets that came, the dropped ones included"),
    Column("drops", "int64", "", "packets that found no room"),
)

LATENCY: tuple[Column, ...] = (
    Column(
        "of",
        "category",
        "",
        "request: until it is in the pod; response: until its answer is back, or it is served; call (of clients that"
        " wait): from the first try until the answer, retries and waiting in between included",
    ),
    Column("part", "category", "", "total, or one of the parts that make up the response: see `packets`"),
    Column("packets", "int64", "", "packets measured: of flows that started after the warm-up, none dropped"),
    Column("mean_ps", "float64", "ps", "mean; the means of the parts sum to that of the response"),
    Column("p50_ps", "int64", "ps", "median, rounded up by less than 0.1 %; -1: of a part, or no packets"),
    Column("p90_ps", "int64", "ps", "90th percentile, likewise"),
    Column("p95_ps", "int64", "ps", "95th percentile, likewise"),
    Column("p99_ps", "int64", "ps", "99th percentile, likewise"),
    Column("p999_ps", "int64", "ps", "99.9th percentile, likewise"),
    Column("max_ps", "int64", "ps", "longest; -1: of a part"),
)

LATENCY_DISTRIBUTION: tuple[Column, ...] = (
    Column("of", "category", "", "request or response, as in `latency`"),
    Column("at_most_ps", "int64", "ps", "upper end of a step of less than 0.1 %"),
    Column("packets", "int64", "", "packets in the step"),
)

LATENCY_OVER_TIME: tuple[Column, ...] = (
    Column("start_ps", "int64", "ps", "when this bin of time begins; the run's duration is cut into 100"),
    Column("packets", "int64", "", "packets sent in the bin whose response is whole, the warm-up included"),
    Column("mean_ps", "float64", "ps", "their mean response; NaN: none"),
)

LOAD: tuple[Column, ...] = (
    Column("where", "category", "", "entry_node, serving_node, pod or link"),
    Column("name", "category", "", "the node, namespace/name of the pod, or direction a->b of the link"),
    Column("connections", "int64", "", "connections (a link: crossings by first packets and by their replies)"),
    Column("packets", "int64", "", "packets (a link: all that crossed it; else request packets)"),
    Column("bytes", "int64", "B", "their bytes"),
    Column("expected_share", "float64", "", "share of connections in theory; NaN where there is no closed form"),
)

HOPS: tuple[Column, ...] = (
    Column("direction", "category", "", "request or reply"),
    Column("l3_hops", "int16", "", "boxes that forwarded"),
    Column("links", "int16", "", "wires crossed"),
    Column("flows", "int64", "", "flows that took that many"),
    Column("packets", "int64", "", "packets that took that many"),
)

EVENTS: tuple[Column, ...] = (
    Column("event", "int32", "", "number of the event in its run, in order of time, from 0"),
    Column("name", "category", "", "as the file names it; else kind and target"),
    Column("kind", "category", "", "what happened, for example `link silent`"),
    Column("target", "category", "", "to what: a node, the two ends of a link, a speaker ..."),
    Column("at_random", "bool", "", "drawn from `mtbf` and `mttr`, so another in every repeat"),
    Column("start_ps", "int64", "ps", "when it happened; its window begins then"),
    Column("end_ps", "int64", "ps", "when it was undone; -1: never"),
    Column("time_to_notice_ps", "int64", "ps", "from its start to the first change of a table because of it; -1: none"),
    Column(
        "time_to_withdraw_ps",
        "int64",
        "ps",
        "from its start to the last change of a table because of it before its end; -1: none",
    ),
    Column(
        "time_to_repair_ps",
        "int64",
        "ps",
        "from its end to the last change because of it, tables as they were; 0: nothing to change; -1: not in the run",
    ),
    Column("window_end_ps", "int64", "ps", "when it was undone and tables were as before; -1: not before all was over"),
    Column("boxes_changed", "int32", "", "boxes with a table that changed because of it"),
    Column("routes_changed", "int32", "", "routes that changed because of it, counted a box"),
    Column("rules_changed", "int32", "", "nodes whose rules changed because of it"),
    Column("not_restored", "int32", "", "of those routes and rules, those not as before after their last change"),
    Column("first_loss_ps", "int64", "ps", "when the first packet or answer that is counted here was lost; -1: none"),
    Column("last_loss_ps", "int64", "ps", "when the last one was; of a connection that was reset: the reset"),
    Column("packets_dropped", "int64", "", "request packets discarded silently in its window (docs/models/events.md)"),
    Column("packets_rejected", "int64", "", "request packets answered with an ICMP error or a reset, likewise"),
    Column("packets_lost", "int64", "", "request packets that ended on a dead link, device or end, likewise"),
    Column("answers_lost", "int64", "", "answers of delivered request packets that did not come back, likewise"),
    Column("flows_failed", "int64", "", "flows of which no packet was ever answered, the first one lost in its window"),
    Column("flows_broken", "int64", "", "flows that had been answered and never were again"),
    Column("flows_interrupted", "int64", "", "flows that went unanswered for a while and were answered again"),
    Column("flows_moved_pod", "int64", "", "flows that another pod answered from then on"),
    Column("flows_moved_way", "int64", "", "flows answered by the same pod over other wires from then on"),
)

EFFECTS = (
    "packets",  # request packets that did not reach a pod
    "answers",  # that did not come back
    "flows failed",
    "flows broken",
    "flows interrupted",
    "flows moved to another pod",
    "flows moved to another way",
)
EVENT_EFFECTS: tuple[Column, ...] = (
    Column("event", "int32", "", "number of the event, as in `events`; -1: no event's"),
    Column("name", "category", "", "its name; empty: no event's"),
    Column("effect", "category", "", "what is counted: " + ", ".join(EFFECTS)),
    Column("verdict", "category", "", "dropped, rejected or lost: of the packet, or the first one; empty: moved"),
    Column("reason", "category", "", "why; empty: moved"),
    Column("count", "int64", "", "how many; packets of all events and of none sum to the run's totals"),
)

LOSSES_OVER_TIME: tuple[Column, ...] = (
    Column("start_ps", "int64", "ps", "when this bin of time begins; the run's duration is cut into 200"),
    Column("end_ps", "int64", "ps", "when it ends; -1: what is lost after the run's duration"),
    Column("effect", "category", "", "packets or answers, as in `event_effects`"),
    Column("reason", "category", "", "why they were lost"),
    Column("count", "int64", "", "how many were lost in the bin; bins without any have no row"),
)

TABLE_CHANGES: tuple[Column, ...] = (
    Column("time_ps", "int64", "ps", "from when on the box uses it"),
    Column("event", "int32", "", "number of the event that it follows from, as in `events`; -1: none"),
    Column("box", "category", "", "the node or switch"),
    Column("prefix", "category", "", "of the route; empty: the node's rules"),
    Column("change", "category", "", "learned, lost, next hops (the route was there before and is), or rules"),
    Column("next_hops", "int32", "", "how many the route has from then on; 0: none"),
)

CALLS: tuple[Column, ...] = (
    Column("client", "category", "", "who called, as in `flows`"),
    Column("connection", "int32", "", "which of the connections that the client keeps at a time, from 0"),
    Column("call", "int64", "", "number of the call there, from 0"),
    Column("start_ps", "int64", "ps", "when its first try was sent"),
    Column("end_ps", "int64", "ps", "when the answer was back, or the client gave the last try up; -1: unfinished"),
    Column("latency_ps", "int64", "ps", "from start until the answer, tries and waiting in between included; -1: none"),
    Column("tries", "int32", "", "how often it was sent"),
    Column("outcome", "category", "", "answered, timed out, refused, or unfinished when the run was over"),
    Column("flow_id", "int64", "", "the connection of its last try, as in `flows`"),
    Column("warmup", "bool", "", "started before the warm-up ended"),
)

TABLES: Mapping[str, tuple[Column, ...]] = {
    "flows": FLOWS,
    "packets": PACKETS,
    "load": LOAD,
    "hops": HOPS,
    "stations": STATIONS,
    "latency": LATENCY,
    "latency_distribution": LATENCY_DISTRIBUTION,
    "latency_over_time": LATENCY_OVER_TIME,
    "events": EVENTS,
    "event_effects": EVENT_EFFECTS,
    "losses_over_time": LOSSES_OVER_TIME,
    "table_changes": TABLE_CHANGES,
    "calls": CALLS,
}
QUEUE_TABLES = ("stations", "latency", "latency_distribution", "latency_over_time")  # of runs with queues only
EVENT_TABLES = ("events", "event_effects", "losses_over_time", "table_changes")  # of runs with events only
# In every frame of a Result that spans several runs, these come first:
RUN_COLUMNS: tuple[Column, ...] = (
    Column("run", "category", "", "run id: a hash of the resolved scenario, the seed and the model version"),
    Column("variant", "category", "", "name of the variant in the experiment file"),
    Column(
        "repeat",
        "int32",
        "",
        "number of the repetition, from 0; equal numbers meet equal clients and arrivals",
    ),
)  # then one column a swept variable, named as in `sweep:`

VERDICTS = ("delivered", "dropped", "rejected", "lost")
REASONS = (
    "",
    "no route",  # a box has no route to the destination
    "blackhole",  # a blackhole route took it: an address of a block without a pod
    "no neighbour",  # the next hop or the destination does not answer on its segment
    "no local endpoint",  # kube-proxy's filter DROP
    "no endpoints",  # kube-proxy's filter REJECT
    "source range",  # KUBE-PROXY-FIREWALL
    "filter drop",  # any other DROP of a rule
    "filter reject",
    "port closed",  # delivered to a host or pod where nothing listens
    "reverse path filter",  # a node's own address as source, or rp_filter: no route back by that interface, or none
    "fragmentation needed",  # larger than the next link or tunnel takes, and not to be fragmented
    "ttl exceeded",  # a loop, or a path longer than the TTL
    "invalid state",  # conntrack INVALID
    "queue full",  # a station on its way had no room
    "reply bypassed translation",  # the reply did not pass the node that had translated the request
    "link down",  # sent into a wire that carries nothing
    "device down",  # came to a node or switch without power
    "connection reset",  # a TCP segment that the pod it reached knows no connection for, and all that follow it
)


@dataclass(frozen=True, slots=True, eq=False)
class Categories:
    """A column of names: `names[codes[i]]` is row i; code 0 is always the empty name."""

    codes: NDArray[np.int32]  # [n]
    names: tuple[str, ...]


ColumnData = NDArray[np.generic] | Categories


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Everything one run measured: a table's name -> its columns by name, as `TABLES` lists them."""

    tables: Mapping[str, Mapping[str, ColumnData]]
    totals: Mapping[str, int] = field(default_factory=dict)  # packets sent, delivered and, per reason, not delivered
