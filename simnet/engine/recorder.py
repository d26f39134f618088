"""Adds up what happened to the connections of each window, and makes the run's Recording of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path.columns import Way
from simnet.dataplane.path.network import NODE
from simnet.engine.connections import Connections, round_trip_ps, spread
from simnet.engine.event_recorder import EventRecorder
from simnet.engine.network import CompiledCluster
from simnet.engine.queued_run import QueuedRun
from simnet.engine.sinks import PacketSink
from simnet.engine.targets import Callers, Targets
from simnet.errors import ModelError
from simnet.model.flows import FlowBatch, PacketBatch
from simnet.model.recording import FLOWS, PARTS, REASONS, VERDICTS, Categories, ColumnData, Recording
from simnet.model.scenario import Scenario

PROTOCOL_NAMES = {6: "tcp", 17: "udp", 132: "sctp"}
_HOPS = 260  # more hops than a TTL allows
_ADDED = ("connections", *(f"packets_{name}" for name in VERDICTS), "reply_packets", "reply_bytes")


class Recorder:
    """Collects one run. `candidates` are the pods that the called service could reach, by place."""

    def __init__(
        self,
        compiled: CompiledCluster,
        scenario: Scenario,
        callers: Callers,
        targets: Targets,
        candidates: NDArray[np.int32],
        sink: PacketSink | None,
        queues: QueuedRun | None = None,
    ) -> None:
        self.compiled, self.scenario, self.callers, self.targets = compiled, scenario, callers, targets
        self.candidates, self.sink = candidates, sink
        self.queues = queues
        self.events = _event_recorder(compiled, scenario)
        self._flows: list[dict[str, NDArray[Any]]] = []
        self._later: list[dict[str, NDArray[Any]]] = []  # what second and later connections add to their flows
        places, directions = len(compiled.place_names), len(compiled.direction_names)
        self._entry = np.zeros((3, compiled.network.device_count), np.int64)  # connections, packets, bytes
        self._pod = np.zeros((3, places), np.int64)
        self._link = np.zeros((3, directions), np.int64)
        self._hops: dict[tuple[str, int, int], list[int]] = {}  # (direction, hops, links) -> [flows, packets]
        self._reasons = np.zeros((len(VERDICTS), len(REASONS)), np.int64)  # request packets
        self._sent = 0
        self._sizes: _Sizes | None = None  # of the packets that came last: stretches of flows share theirs
        self._client_code, self._client_names = _codes(callers.names)
        texts = [compiled.addresses.text(int(number)) for number in targets.address]
        self._target_code, self._target_names = _codes(texts)

    def expect(self, packets: int) -> None:
        """Take note that so many request packets were made: as many must have ended when the run does."""
        self._sent += packets

    def add(self, flows: FlowBatch, packets: PacketBatch, connections: Connections) -> None:
        """Take connections with their flows and packets; first ones come in the order of flows, before the others."""
        if self._sizes is None or self._sizes.packets is not packets:
            self._sizes = _Sizes(packets)
        sizes = self._sizes
        is_first = connections.sent_before == 0
        columns = self._own_columns(flows, packets, connections, sizes)
        if is_first.any():
            columns |= self._first_columns(flows, packets, connections, sizes)
        self._add_loads(connections, columns, sizes)
        if is_first.all():
            self._flows.append(columns)
        else:
            first, later = np.flatnonzero(is_first), np.flatnonzero(~is_first)
            if first.size:
                self._flows.append({name: column[first] for name, column in columns.items()})
            self._later.append({name: columns[name][later] for name in ("flow_id", *_ADDED, "end_ps")})
        if self.events is not None:
            self.events.add(flows, packets, connections)
        if self.sink is not None:
            self._emit_packets(flows, packets, connections)

    # --- flows -------------------------------------------------------------------------------------

    def _own_columns(
        self, flows: FlowBatch, packets: PacketBatch, each: Connections, sizes: _Sizes
    ) -> dict[str, NDArray[Any]]:
        """What every connection adds to its flow."""
        request, answered = each.request, each.answered
        count = (each.end_packet - each.first_packet).astype(np.int32)
        last = each.end_packet - 1
        rows = np.arange(len(count))
        trip_ps = each.request_cost.delay_ps(self.compiled.wires, rows, packets.size_bytes[last].astype(np.int64))
        if each.reply_cost is not None:
            reply_bytes = packets.reply_size_bytes[last].astype(np.int64)
            trip_ps += np.where(answered, each.reply_cost.delay_ps(self.compiled.wires, rows, reply_bytes), 0)
        return {
            "flow_id": flows.flow_id[each.flow].astype(np.int64),
            "warmup": flows.start_ps[each.flow] < self.scenario.run.warmup_ps,
            "end_ps": packets.arrival_ps[last] + trip_ps,
            "connections": each.opens.astype(np.int32),
            **{
                f"packets_{name}": np.where(request.verdict == number, count, np.int32(0))
                for number, name in enumerate(VERDICTS)
            },
            "reply_packets": np.where(answered, count, np.int32(0)),
            "reply_bytes": np.where(answered, sizes.reply(each.first_packet, each.end_packet), 0),
        }

    def _first_columns(
        self, flows: FlowBatch, packets: PacketBatch, first: Connections, sizes: _Sizes
    ) -> dict[str, NDArray[Any]]:
        """What a flow's first connection says of the flow; rows of later ones are to be left out."""
        network, row = self.compiled.network, first.flow
        request, reply = first.request, first.reply
        delivered, answered = first.delivered, first.answered
        rows = np.arange(len(row))
        place = np.where(delivered, request.place, -1)
        serving = np.where(delivered, network.place_device[request.place], -1)
        entry = request.dnat_device
        first_row = first.first_packet
        delay_ps = first.request_cost.delay_ps(
            self.compiled.wires, rows, packets.size_bytes[first_row].astype(np.int64)
        )
        round_ps = round_trip_ps(self.compiled, packets, first, rows, first_row)
        no_reply = np.full(len(row), -1, np.int16)
        packet_count = flows.packet_count[row]
        return {
            "start_ps": flows.start_ps[row],
            "client": self._client_code[flows.client[row]],
            "protocol": flows.protocol[row],
            "source_port": flows.source_port[row].astype(np.int32),
            "destination": self._target_code[flows.target[row]],
            "destination_port": self.targets.port[flows.target[row]],
            "entry_node": entry + 1,
            "pod": (place + 1).astype(np.int32),
            "serving_node": (serving + 1).astype(np.int32),
            "endpoint_port": np.where(delivered, request.header.destination_port, -1).astype(np.int32),
            "source_seen": np.where(delivered, request.header.source + 1, 0).astype(np.int32),
            "verdict": request.verdict,
            "reason": request.reason,
            "answered": answered,
            "reply_reason": np.where(delivered & ~answered, 0 if reply is None else reply.reason, 0).astype(np.int8),
            "snat": request.snat,
            "source_hidden": delivered & (request.header.source != first.called.source),
            "cross_node": delivered & (entry >= 0) & (serving != entry),
            "l3_hops": request.l3_hops,
            "links": request.links,
            "reply_l3_hops": no_reply if reply is None else np.where(answered, reply.l3_hops, no_reply),
            "reply_links": no_reply if reply is None else np.where(answered, reply.links, no_reply),
            "nat_hops": request.nat_hops,
            "rules_scanned": request.rules_scanned,
            "delay_ps": np.where(delivered, delay_ps, -1),
            "round_trip_ps": np.where(answered, round_ps, -1),
            "packets_sent": packet_count,
            # of a later connection there are fewer packets left
            "bytes_sent": sizes.request(first_row, np.minimum(first_row + packet_count, len(packets))),
        }

    # --- loads -------------------------------------------------------------------------------------

    def _add_loads(self, each: Connections, columns: Mapping[str, NDArray[Any]], sizes: _Sizes) -> None:
        """Add connections to every load and to the totals."""
        count = each.end_packet - each.first_packet
        sent_bytes = sizes.request(each.first_packet, each.end_packet)
        request, reply = each.request, each.reply
        self._reasons += (
            np.bincount(
                request.verdict.astype(np.int64) * len(REASONS) + request.reason,
                weights=count,
                minlength=self._reasons.size,
            )
            .reshape(self._reasons.shape)
            .astype(np.int64)
        )
        measured = ~columns["warmup"]  # loads and hops leave the warm-up out
        entered = measured & (request.dnat_device >= 0)
        _tally(self._entry, request.dnat_device[entered], each.opens[entered], count[entered], sent_bytes[entered])
        reached = measured & each.delivered
        _tally(self._pod, request.place[reached], each.opens[reached], count[reached], sent_bytes[reached])
        self._tally_links(request, measured, each.opens, count, sent_bytes)
        self._count_hops("request", request, each.opens, count, reached)
        if reply is not None:
            reply_bytes = sizes.reply(each.first_packet, each.end_packet)
            self._tally_links(reply, measured, each.opens, count, reply_bytes)
            self._count_hops("reply", reply, each.opens, count, measured & each.answered)

    def _tally_links(
        self,
        way: Way,
        measured: NDArray[np.bool_],
        opens: NDArray[np.bool_],
        packets: NDArray[np.int64],
        size_bytes: NDArray[np.int64],
    ) -> None:
        for crossing in way.crossings:
            kept = measured[crossing.rows]
            rows = crossing.rows[kept]
            carried = size_bytes[rows] + packets[rows] * crossing.extra_bytes[kept]
            _tally(self._link, crossing.direction[kept], opens[rows], packets[rows], carried)

    def _count_hops(
        self,
        direction: str,
        way: Way,
        opens: NDArray[np.bool_],
        packets: NDArray[np.int64],
        chosen: NDArray[np.bool_],
    ) -> None:
        key = way.l3_hops[chosen].astype(np.int64) * _HOPS + way.links[chosen]
        flows_of = np.bincount(key, weights=opens[chosen])
        packets_of = np.bincount(key, weights=packets[chosen])
        for number in np.flatnonzero(packets_of).tolist():
            kept = self._hops.setdefault((direction, number // _HOPS, number % _HOPS), [0, 0])
            kept[0] += int(flows_of[number])
            kept[1] += int(packets_of[number])

    # --- packets -----------------------------------------------------------------------------------

    def _emit_packets(self, flows: FlowBatch, packets: PacketBatch, each: Connections) -> None:
        assert self.sink is not None
        compiled, network, request = self.compiled, self.compiled.network, each.request
        owner, rows = spread(each.first_packet, each.end_packet)
        delivered, answered = each.delivered[owner], each.answered[owner]
        size_bytes = packets.size_bytes[rows]
        delay_ps = each.request_cost.delay_ps(compiled.wires, owner, size_bytes.astype(np.int64))
        round_trip = round_trip_ps(compiled, packets, each, owner, rows)
        place = np.where(delivered, request.place[owner], -1)
        serving = np.where(delivered, network.place_device[request.place[owner]], -1)
        self.sink(
            {
                "flow_id": flows.flow_id[each.flow].astype(np.int64)[owner],
                "packet": (rows - (each.first_packet - each.sent_before)[owner]).astype(np.int32),
                "sent_ps": packets.arrival_ps[rows],
                "size_bytes": size_bytes,
                "pod": Categories(place + 1, ("", *compiled.place_names)),
                "serving_node": Categories(serving + 1, ("", *self._device_names())),
                "verdict": Categories(request.verdict.astype(np.int32)[owner] + 1, ("", *VERDICTS)),
                "l3_hops": request.l3_hops[owner],
                "links": request.links[owner],
                "delay_ps": np.where(delivered, delay_ps, -1),
                "round_trip_ps": np.where(answered, round_trip, -1),
                **self._parts(each, owner, np.where(answered, round_trip, delay_ps), answered),
                "dropped_at": Categories(np.zeros(len(rows), np.int32), ("",)),
            }
        )

    @staticmethod
    def _parts(
        each: Connections, owner: NDArray[np.intp], total_ps: NDArray[np.int64], answered: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.int64]]:
        """Where nothing waits, a packet's time is spent on the wires and getting onto them."""
        propagation_ps = each.request_cost.propagation_ps[owner]
        if each.reply_cost is not None:
            propagation_ps = propagation_ps + np.where(answered, each.reply_cost.propagation_ps[owner], 0)
        none = np.zeros(len(owner), np.int64)
        return dict.fromkeys(PARTS, none) | {
            "propagation_ps": propagation_ps,
            "transmission_ps": total_ps - propagation_ps,
        }

    # --- the end -----------------------------------------------------------------------------------

    def _device_names(self) -> tuple[str, ...]:
        return self.compiled.place_names[: self.compiled.network.device_count]

    def finish(self, expected: Mapping[tuple[str, str], float]) -> Recording:
        """Return the recording; ModelError if packets were made or vanished on the way.

        `expected` gives the share of connections in theory, by ("pod", name), ("entry_node", name) ...
        """
        totals = self._totals()
        tables = {
            "flows": self._flow_table(),
            "load": self._load_table(expected),
            "hops": self._hop_table(),
        }
        if self.queues is not None:
            tables |= self.queues.tables()
        if self.events is not None:
            tables |= self.events.tables()
        return Recording(tables, totals)

    def _totals(self) -> dict[str, int]:
        totals = {"sent": self._sent}
        if self.queues is not None:
            self._reasons += self.queues.recorder.reasons
        for verdict, row in zip(VERDICTS, self._reasons, strict=True):
            totals[verdict] = int(row.sum())
            for reason, count in zip(REASONS, row, strict=True):
                if count and reason:
                    totals[f"{verdict}: {reason}"] = int(count)
        if self._sent != sum(totals[verdict] for verdict in VERDICTS):
            raise ModelError(f"packets are not conserved: {totals}")
        return totals

    def _flow_table(self) -> dict[str, ColumnData]:
        joined: dict[str, NDArray[Any]] = {
            column.name: np.concatenate([window[column.name] for window in self._flows])
            if self._flows
            else np.zeros(0, np.int64)
            for column in FLOWS
        }
        self._flows.clear()
        if (np.diff(joined["flow_id"]) < 0).any():  # where tables change, flows that live through it come late
            order = np.argsort(joined["flow_id"], kind="stable")
            joined = {name: column[order] for name, column in joined.items()}
        for late in self._later:  # flow ids are dense and in order: a flow's id is its row
            row = late["flow_id"]
            for name in _ADDED:
                np.add.at(joined[name], row, late[name])
            np.maximum.at(joined["end_ps"], row, late["end_ps"])
        if self.queues is not None:
            self.queues.recorder.amend(joined)
        devices = ("", *self._device_names())
        names: dict[str, tuple[str, ...]] = {
            "client": self._client_names,
            "destination": self._target_names,
            "entry_node": devices,
            "serving_node": devices,
            "pod": ("", *self.compiled.place_names),
            "source_seen": ("", *self.compiled.addresses.texts),
        }
        table: dict[str, ColumnData] = {}
        for column in FLOWS:
            data = joined.pop(column.name)
            if column.name == "protocol":
                table[column.name] = _protocols(data)
            elif column.name == "verdict":
                table[column.name] = Categories(data.astype(np.int32) + 1, ("", *VERDICTS))
            elif column.name in ("reason", "reply_reason"):
                table[column.name] = Categories(data.astype(np.int32), REASONS)
            elif column.dtype == "category":
                table[column.name] = _in_use(data.astype(np.int32), names[column.name])
            else:
                table[column.name] = data.astype(column.dtype, copy=False)
        return table

    def _load_table(self, expected: Mapping[tuple[str, str], float]) -> dict[str, ColumnData]:
        network, names = self.compiled.network, self.compiled.place_names
        nodes = np.flatnonzero(network.device_kind == NODE)
        reached = np.flatnonzero(self._pod[1])
        pods = np.union1d(self.candidates, reached)
        serving = np.zeros_like(self._entry)
        np.add.at(serving.T, network.place_device[reached], self._pod[:, reached].T)
        hosts = np.union1d(network.place_device[pods], nodes[:0])
        rows: list[tuple[str, str, NDArray[np.int64]]] = []
        rows += [("entry_node", names[node], self._entry[:, node]) for node in nodes.tolist()]
        rows += [("serving_node", names[node], serving[:, node]) for node in hosts.tolist()]
        rows += [("pod", names[place], self._pod[:, place]) for place in pods.tolist()]
        rows += [("link", name, self._link[:, number]) for number, name in enumerate(self.compiled.direction_names)]
        where, where_names = _codes([row[0] for row in rows])
        name, name_names = _codes([row[1] for row in rows])
        counts = np.array([row[2] for row in rows], dtype=np.int64).reshape(-1, 3)
        known = {kind for kind, _ in expected}  # theory that names some pods, say, gives the others nothing
        return {
            "where": Categories(where, where_names),
            "name": Categories(name, name_names),
            "connections": counts[:, 0].copy(),
            "packets": counts[:, 1].copy(),
            "bytes": counts[:, 2].copy(),
            "expected_share": np.array([expected.get(row[:2], 0.0 if row[0] in known else np.nan) for row in rows]),
        }

    def _hop_table(self) -> dict[str, ColumnData]:
        rows = sorted(self._hops.items())
        direction, direction_names = _codes([key[0] for key, _ in rows])
        return {
            "direction": Categories(direction, direction_names),
            "l3_hops": np.array([key[1] for key, _ in rows], dtype=np.int16),
            "links": np.array([key[2] for key, _ in rows], dtype=np.int16),
            "flows": np.array([value[0] for _, value in rows], dtype=np.int64),
            "packets": np.array([value[1] for _, value in rows], dtype=np.int64),
        }


def _event_recorder(compiled: CompiledCluster, scenario: Scenario) -> EventRecorder | None:
    if compiled.history is None or not compiled.history.events:
        return None
    has_replies = scenario.workload.shape.reply_size_bytes is not None
    return EventRecorder(compiled, duration_ps=scenario.run.duration_ps, has_replies=has_replies)


def _codes(names: Sequence[str]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Codes and distinct names of a column of names; code 0 is the empty name."""
    number: dict[str, int] = {"": 0}
    codes = [number.setdefault(name, len(number)) for name in names]
    return np.array(codes, dtype=np.int32), tuple(number)


def _in_use(codes: NDArray[np.int32], names: tuple[str, ...]) -> Categories:
    """The same names with those left out that no row has; of two equal names one is kept."""
    used = np.unique(codes)
    new, kept = _codes([names[code] for code in used.tolist()])
    table = np.zeros(len(names), dtype=np.int32)
    table[used] = new
    return Categories(table[codes], kept)


def _protocols(numbers: NDArray[Any]) -> Categories:
    table = np.zeros(256, dtype=np.int32)
    for code, number in enumerate(PROTOCOL_NAMES, start=1):
        table[number] = code
    return Categories(table[numbers], ("", *PROTOCOL_NAMES.values()))


class _Sizes:
    """Sums of packet sizes over any ranges of a batch; exact."""

    def __init__(self, packets: PacketBatch) -> None:
        self.packets = packets
        self._request = _running(packets.size_bytes)
        self._reply = _running(packets.reply_size_bytes)

    def request(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of request packets start:end, range by range."""
        return self._request[end] - self._request[start]

    def reply(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of the packets that answer them."""
        return self._reply[end] - self._reply[start]


def _running(values: NDArray[np.int32]) -> NDArray[np.int64]:
    total = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, dtype=np.int64, out=total[1:])
    return total


def _tally(
    table: NDArray[np.int64],
    index: NDArray[np.integer],
    opens: NDArray[np.bool_],
    packets: NDArray[np.int64],
    size_bytes: NDArray[np.int64],
) -> None:
    """Add `opens`, `packets` and `size_bytes` to the columns `index` of a [3, n] table; exact below 2**53."""
    n = table.shape[1]
    table[0] += np.bincount(index, weights=opens, minlength=n).astype(np.int64)
    table[1] += np.bincount(index, weights=packets, minlength=n).astype(np.int64)
    table[2] += np.bincount(index, weights=size_bytes, minlength=n).astype(np.int64)
