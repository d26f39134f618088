"""Adds up what happened to the connections of each window, and makes the run's Recording of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path.columns import Way
from simnet.dataplane.path.network import NODE
from simnet.engine.connections import Connections, round_trip_ps
from simnet.engine.network import CompiledCluster
from simnet.engine.targets import Callers, Targets
from simnet.errors import ModelError
from simnet.model.flows import FlowBatch, PacketBatch
from simnet.model.recording import FLOWS, REASONS, VERDICTS, Categories, ColumnData, Recording
from simnet.model.scenario import Scenario

PacketSink = Callable[[Mapping[str, ColumnData]], None]
PROTOCOL_NAMES = {6: "tcp", 17: "udp", 132: "sctp"}
_HOPS = 260  # more hops than a TTL allows


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
    ) -> None:
        self.compiled, self.scenario, self.callers, self.targets = compiled, scenario, callers, targets
        self.candidates, self.sink = candidates, sink
        self._flows: list[dict[str, NDArray[Any]]] = []
        places, directions = len(compiled.place_names), len(compiled.direction_names)
        self._entry = np.zeros((3, compiled.network.device_count), np.int64)  # connections, packets, bytes
        self._pod = np.zeros((3, places), np.int64)
        self._link = np.zeros((3, directions), np.int64)
        self._hops: dict[tuple[str, int, int], list[int]] = {}  # (direction, hops, links) -> [flows, packets]
        self._reasons = np.zeros((len(VERDICTS), len(REASONS)), np.int64)  # request packets
        self._sent = 0
        self._no_reply = 0
        self._client_code, self._client_names = _codes(callers.names)
        texts = [compiled.addresses.text(int(number)) for number in targets.address]
        self._target_code, self._target_names = _codes(texts)

    def add(self, flows: FlowBatch, packets: PacketBatch, connections: Sequence[Connections]) -> None:
        """Take a window: its flows, their packets, and the connections of every rank."""
        size_bytes = packets.size_bytes.astype(np.int64)
        columns = self._flow_columns(flows, packets, connections[0], size_bytes)
        for each in connections:
            self._add_connections(each, flows, packets, size_bytes, columns)
        self._flows.append(columns)
        self._sent += len(packets)
        if self.sink is not None:
            self._emit_packets(flows, packets, connections)

    # --- flows -------------------------------------------------------------------------------------

    def _flow_columns(
        self,
        flows: FlowBatch,
        packets: PacketBatch,
        first: Connections,
        size_bytes: NDArray[np.int64],
    ) -> dict[str, NDArray[Any]]:
        network = self.compiled.network
        request, reply = first.request, first.reply
        delivered, answered = first.delivered, first.answered
        rows = np.arange(len(flows))
        place = np.where(delivered, request.place, -1)
        serving = np.where(delivered, network.place_device[request.place], -1)
        entry = request.dnat_device
        first_row = first.first_packet
        last_row = first_row + flows.packet_count - 1
        delay_ps = first.request_cost.delay_ps(self.compiled.wires, rows, size_bytes[first_row])
        round_ps = round_trip_ps(self.compiled, packets, first, rows, first_row)
        last_trip_ps = np.where(
            answered,
            round_trip_ps(self.compiled, packets, first, rows, last_row),
            first.request_cost.delay_ps(self.compiled.wires, rows, size_bytes[last_row]),
        )
        n = len(flows)
        zeros = np.zeros(n, np.int32)
        no_reply = np.full(n, -1, np.int16)
        return {
            "flow_id": flows.flow_id.astype(np.int64),
            "start_ps": flows.start_ps,
            "end_ps": packets.arrival_ps[last_row] + last_trip_ps,
            "warmup": flows.start_ps < self.scenario.run.warmup_ps,
            "client": self._client_code[flows.client],
            "protocol": flows.protocol,
            "source_port": flows.source_port.astype(np.int32),
            "destination": self._target_code[flows.target],
            "destination_port": self.targets.port[flows.target],
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
            "connections": zeros.copy(),
            "l3_hops": request.l3_hops,
            "links": request.links,
            "reply_l3_hops": no_reply if reply is None else np.where(answered, reply.l3_hops, no_reply),
            "reply_links": no_reply if reply is None else np.where(answered, reply.links, no_reply),
            "nat_hops": request.nat_hops,
            "rules_scanned": request.rules_scanned,
            "delay_ps": np.where(delivered, delay_ps, -1),
            "round_trip_ps": np.where(answered, round_ps, -1),
            "packets_sent": flows.packet_count,
            "packets_delivered": zeros.copy(),
            "packets_dropped": zeros.copy(),
            "packets_rejected": zeros.copy(),
            "packets_lost": zeros.copy(),
            "bytes_sent": np.add.reduceat(size_bytes, first_row) if n else np.zeros(0, np.int64),
            "reply_packets": zeros.copy(),
            "reply_bytes": np.zeros(n, np.int64),
        }

    # --- loads -------------------------------------------------------------------------------------

    def _add_connections(
        self,
        each: Connections,
        flows: FlowBatch,
        packets: PacketBatch,
        size_bytes: NDArray[np.int64],
        columns: dict[str, NDArray[Any]],
    ) -> None:
        """Add one rank of connections to the flows' columns and to every load. A flow has one of a rank at most."""
        count = each.end_packet - each.first_packet
        sent_bytes = _sums(size_bytes, each.first_packet, each.end_packet)
        request, reply = each.request, each.reply
        delivered, answered = each.delivered, each.answered
        columns["connections"][each.flow] += 1
        for number, name in enumerate(VERDICTS):
            mine = np.flatnonzero(request.verdict == number)
            columns[f"packets_{name}"][each.flow[mine]] += count[mine]
        self._reasons += (
            np.bincount(
                request.verdict.astype(np.int64) * len(REASONS) + request.reason,
                weights=count,
                minlength=self._reasons.size,
            )
            .reshape(self._reasons.shape)
            .astype(np.int64)
        )
        measured = ~columns["warmup"][each.flow].astype(np.bool_)  # loads and hops leave the warm-up out
        entered = measured & (request.dnat_device >= 0)
        _tally(self._entry, request.dnat_device[entered], count[entered], sent_bytes[entered])
        reached = measured & delivered
        _tally(self._pod, request.place[reached], count[reached], sent_bytes[reached])
        self._tally_links(request, measured, count, sent_bytes)
        self._count_hops("request", request.l3_hops, request.links, count, reached)
        if reply is None:
            return
        reply_bytes = _sums(packets.reply_size_bytes.astype(np.int64), each.first_packet, each.end_packet)
        self._tally_links(reply, measured, count, reply_bytes)
        self._count_hops("reply", reply.l3_hops, reply.links, count, measured & answered)
        back = np.flatnonzero(answered)
        columns["reply_packets"][each.flow[back]] += count[back]
        columns["reply_bytes"][each.flow[back]] += reply_bytes[back]

    def _tally_links(
        self, way: Way, measured: NDArray[np.bool_], packets: NDArray[np.int64], size_bytes: NDArray[np.int64]
    ) -> None:
        for crossing in way.crossings:
            kept = measured[crossing.rows]
            rows = crossing.rows[kept]
            _tally(self._link, crossing.direction[kept], packets[rows], size_bytes[rows])

    def _count_hops(
        self,
        direction: str,
        l3_hops: NDArray[np.int16],
        links: NDArray[np.int16],
        packets: NDArray[np.int64],
        chosen: NDArray[np.bool_],
    ) -> None:
        key = l3_hops[chosen].astype(np.int64) * _HOPS + links[chosen]
        flows_of = np.bincount(key)
        packets_of = np.bincount(key, weights=packets[chosen])
        for number in np.flatnonzero(flows_of).tolist():
            kept = self._hops.setdefault((direction, number // _HOPS, number % _HOPS), [0, 0])
            kept[0] += int(flows_of[number])
            kept[1] += int(packets_of[number])

    # --- packets -----------------------------------------------------------------------------------

    def _emit_packets(self, flows: FlowBatch, packets: PacketBatch, connections: Sequence[Connections]) -> None:
        assert self.sink is not None
        compiled, network = self.compiled, self.compiled.network
        n = len(packets)
        place = np.full(n, -1, np.int32)
        serving = np.full(n, -1, np.int32)
        verdict = np.zeros(n, np.int8)
        l3_hops, links = np.zeros(n, np.int16), np.zeros(n, np.int16)
        delay_ps, round_ps = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
        for each in connections:
            owner, rows = _spread(each.first_packet, each.end_packet)
            request = each.request
            delivered, answered = each.delivered[owner], each.answered[owner]
            place[rows] = np.where(delivered, request.place[owner], -1)
            serving[rows] = np.where(delivered, network.place_device[request.place[owner]], -1)
            verdict[rows] = request.verdict[owner]
            l3_hops[rows], links[rows] = request.l3_hops[owner], request.links[owner]
            size_bytes = packets.size_bytes[rows].astype(np.int64)
            delay_ps[rows] = np.where(delivered, each.request_cost.delay_ps(compiled.wires, owner, size_bytes), -1)
            round_ps[rows] = np.where(answered, round_trip_ps(compiled, packets, each, owner, rows), -1)
        first = flows.first_packet - packets.first_packet_id
        self.sink(
            {
                "flow_id": flows.flow_id[packets.flow].astype(np.int64),
                "packet": (np.arange(n) - first[packets.flow]).astype(np.int32),
                "sent_ps": packets.arrival_ps,
                "size_bytes": packets.size_bytes,
                "pod": Categories(place + 1, ("", *compiled.place_names)),
                "serving_node": Categories(serving + 1, ("", *self._device_names())),
                "verdict": Categories(verdict.astype(np.int32) + 1, ("", *VERDICTS)),
                "l3_hops": l3_hops,
                "links": links,
                "delay_ps": delay_ps,
                "round_trip_ps": round_ps,
            }
        )

    # --- the end -----------------------------------------------------------------------------------

    def _device_names(self) -> tuple[str, ...]:
        return self.compiled.place_names[: self.compiled.network.device_count]

    def finish(self, expected: Mapping[tuple[str, str], float]) -> Recording:
        """Return the recording; ModelError if packets were made or vanished on the way.

        `expected` gives the share of connections in theory, by ("pod", name), ("entry_node", name) ...
        """
        totals = self._totals()
        return Recording(
            tables={
                "flows": self._flow_table(),
                "load": self._load_table(expected),
                "hops": self._hop_table(),
            },
            totals=totals,
        )

    def _totals(self) -> dict[str, int]:
        totals = {"sent": self._sent}
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
        reached = np.flatnonzero(self._pod[0])
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
        return {
            "where": Categories(where, where_names),
            "name": Categories(name, name_names),
            "connections": counts[:, 0].copy(),
            "packets": counts[:, 1].copy(),
            "bytes": counts[:, 2].copy(),
            "expected_share": np.array([expected.get((row[0], row[1]), np.nan) for row in rows]),
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


def _sums(values: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of values[start:end] for each pair: int64[n]. Exact."""
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    sums: NDArray[np.int64] = total[end] - total[start]
    return sums


def _tally(
    table: NDArray[np.int64], index: NDArray[np.integer], packets: NDArray[np.int64], size_bytes: NDArray[np.int64]
) -> None:
    """Add 1, `packets` and `size_bytes` to the columns `index` of a [3, n] table; sums stay exact below 2**53."""
    n = table.shape[1]
    table[0] += np.bincount(index, minlength=n)
    table[1] += np.bincount(index, weights=packets, minlength=n).astype(np.int64)
    table[2] += np.bincount(index, weights=size_bytes, minlength=n).astype(np.int64)


def _spread(start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Every number of every range start:end, and the range that it belongs to."""
    count = end - start
    owner = np.repeat(np.arange(len(start)), count)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return owner, start[owner] + within
