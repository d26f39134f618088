"""Writes down what clients who wait have sent: flows and loads as the recorder takes them, packets as from any queues,
and calls: a request with all its tries.

Transmissions come by rounds and are handed on in batches. A connection that is open for long comes in stretches, one a
batch, so that memory holds a batch and what is under way, but for the flows and calls that are to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.columns import Columns, appended, left_at_once
from simnet.dataplane.queueing.stations import POD, Left, Stations
from simnet.engine.changing import rows_of
from simnet.engine.closed_connections import REJECTED, Block, ConnectionTable
from simnet.engine.closed_loop import Round
from simnet.engine.closed_plan import NEVER
from simnet.engine.queue_recorder import QueueRecorder
from simnet.engine.queued_traffic import Served
from simnet.engine.recorder import Recorder
from simnet.model.flows import PacketBatch
from simnet.model.recording import VERDICTS, Categories, ColumnData
from simnet.model.workload import ClosedLoop

DELIVERED = VERDICTS.index("delivered")
OUTCOMES = ("answered", "timed out", "refused", "unfinished")
BATCH = 1 << 16  # transmissions handed on at a time

Numbers = NDArray[np.int64]


class ClosedRecorder:
    """Collects the rounds of one run. `keeps_calls`: a row for every call is wanted."""

    def __init__(
        self,
        table: ConnectionTable,
        recorder: Recorder,
        queues: QueueRecorder,
        stations: Stations,
        loop: ClosedLoop,
        *,
        warmup_ps: int,
        keeps_calls: bool,
    ) -> None:
        self.table, self.recorder, self.queues, self.stations = table, recorder, queues, stations
        self.warmup_ps = warmup_ps
        self._sent: list[Columns] = []
        self._left: list[Left] = []
        self._count = 0
        self._flying: Columns = {}  # transmissions handed on that have not left yet, in order of packet ids
        self._flows = 0
        self._last = np.zeros((2, 0), np.int64)  # [number, end_ps] of each flow's last transmission so far
        self._more: list[Numbers] = []  # [flow, transmissions, bytes] of second and later stretches
        self.calls = CallBook(loop, table.slots, warmup_ps=warmup_ps, keeps_rows=keeps_calls)

    def add(self, settled: Round) -> Iterator[Served]:
        """Take a round; yield what has left the queues whenever a batch is together."""
        self._sent.append(settled.sent)
        self._left.append(settled.left)
        self._count += len(settled.sent["packet"])
        if self._count >= BATCH:
            yield from self.hand_on(settled.until_ps)

    def hand_on(self, now_ps: int, last: Left | None = None) -> Iterator[Served]:
        """Hand on what was sent before `now_ps` and what has left by then; `last`: what left when all was over."""
        if not self._sent:
            return
        sent = {name: np.concatenate([part[name] for part in self._sent]) for name in self._sent[0]}
        held = sent["sent_ps"] >= now_ps  # sent in vain, and told early
        self._sent = [{name: column[held] for name, column in sent.items()}]
        self._count = 0
        sent = {name: column[~held] for name, column in sent.items()}
        self._begin_flows(sent)
        self._flying = _in_order(appended(self._flying, self._described(sent)))
        self.table.forget(self._sent[0]["block"])
        parts = [*self._left, *([] if last is None else [last])]
        self._left = []
        vain = np.flatnonzero(self._flying["at_once"])
        if vain.size:
            parts.append(left_at_once(self._flying["packet"][vain], self._flying["sent_ps"][vain]))
        left = _all_left(parts)
        row = np.searchsorted(self._flying["packet"], left.packet)
        packets = {name: column[row] for name, column in self._flying.items()}
        stays = np.ones(len(self._flying["packet"]), np.bool_)
        stays[row] = False
        self._flying = {name: column[stays] for name, column in self._flying.items()}
        if len(row):
            yield self._served(packets, left)

    # --- flows -------------------------------------------------------------------------------------

    def _begin_flows(self, sent: Columns) -> None:
        """Number the flows that begin, and tell the recorder of every stretch."""
        opens = np.flatnonzero(sent["number"] == 0)
        opens = opens[np.lexsort((sent["slot"][opens], sent["sent_ps"][opens]))]
        flow_id = self._flows + np.arange(len(opens))
        self._flows += len(opens)
        for number, rows in _groups(sent["block"][opens]):
            self.table.blocks[number].flow_id[sent["row"][opens[rows]]] = flow_id[rows]
        self._last = np.concatenate([self._last, np.full((2, len(opens)), -1, np.int64)], axis=1)
        self.recorder.expect(len(sent["packet"]))
        is_warm = sent["sent_ps"] >= self.warmup_ps
        for warm in (False, True):
            chosen = np.flatnonzero(is_warm == warm)
            for number, rows in _groups(sent["block"][chosen]):
                self._tell(self.table.blocks[number], {name: column[chosen[rows]] for name, column in sent.items()})

    def _tell(self, block: Block, sent: Columns) -> None:
        """Tell the recorder of transmissions over connections of one block: a stretch of each."""
        order = np.lexsort((sent["number"], sent["row"]))
        sent = {name: column[order] for name, column in sent.items()}
        first = np.flatnonzero(np.diff(sent["row"], prepend=-1))
        end = np.append(first[1:], len(order))
        row, count, before = sent["row"][first], end - first, sent["number"][first]
        flow_id = block.flow_id[row]
        flows = replace(
            block.flows,
            flow_id=flow_id.astype(np.uint64), start_ps=sent["sent_ps"][first], client=block.flows.client[row],
            source_port=block.flows.source_port[row], protocol=block.flows.protocol[row],
            target=block.flows.target[row], packet_count=count.astype(np.int32), first_packet=first,
            stream=block.flows.stream[row], first_draw=block.flows.first_draw[row],
        )  # fmt: skip
        owner = np.repeat(np.arange(len(row)), count)
        sizes = sent["size_bytes"].astype(np.int32), sent["reply_bytes"].astype(np.int32)
        packets = PacketBatch(0, owner.astype(np.int32), sent["sent_ps"], *sizes)
        connections = replace(
            rows_of(block.connections, row),
            flow=np.arange(len(row)), first_packet=first, end_packet=end, sent_before=before, opens=before == 0,
        )  # fmt: skip
        self.recorder.add(flows, packets, connections)
        later = np.flatnonzero(before > 0)
        size_bytes = np.add.reduceat(sent["size_bytes"], first)
        self._more.append(np.stack([flow_id[later], count[later], size_bytes[later]]))

    def amend(self, flows: dict[str, ColumnData]) -> None:
        """Enter in the rows of flows, whose ids are their row numbers, what their later stretches add."""
        more = np.concatenate([np.zeros((3, 0), np.int64), *self._more], axis=1)
        for name, added in (("packets_sent", more[1]), ("bytes_sent", more[2])):
            column = flows[name]
            assert not isinstance(column, Categories)
            np.add.at(column, more[0], added.astype(column.dtype))
        flows["end_ps"] = self._last[1].copy()

    # --- packets -----------------------------------------------------------------------------------

    def _described(self, sent: Columns) -> Columns:
        """Add to transmissions what is known of their connections."""
        names = ("flow_id", "place", "verdict", "reason", "answered", "l3_hops", "links", "rules_ps")
        described = {name: np.zeros(len(sent["packet"]), np.int64) for name in names}
        for number, rows in _groups(sent["block"]):
            block, at = self.table.blocks[number], sent["row"][rows]
            request = block.connections.request
            columns: tuple[NDArray[Any], ...] = (
                block.flow_id, request.place, request.verdict, request.reason, block.connections.answered,
                request.l3_hops, request.links, block.rules_ps,
            )  # fmt: skip
            for name, column in zip(names, columns, strict=True):
                described[name][rows] = column[at]
        described["rules_ps"] = np.where(sent["number"] == 0, described["rules_ps"], 0)
        return sent | described

    def _served(self, packets: Columns, left: Left) -> Served:
        is_dropped = left.dropped_at >= 0
        by_pod = is_dropped & (self.stations.kind[left.dropped_at] == POD)
        self._note_ends(packets, left)
        self.queues.add_calls(self.calls.add(packets, left))
        connections: dict[str, NDArray[Any]] = {
            "flow_id": packets["flow_id"],
            "start_ps": packets["sent_ps"],  # what came in the warm-up is left out packet by packet
            "last_number": np.full(len(left.packet), -1),
            "place": packets["place"].astype(np.int32),
            "verdict": packets["verdict"].astype(np.int8),
            "reason": packets["reason"].astype(np.int8),
            "answered": packets["answered"] > 0,
            "l3_hops": packets["l3_hops"].astype(np.int16),
            "links": packets["links"].astype(np.int16),
        }
        return Served(
            connections=connections,
            owner=np.arange(len(left.packet), dtype=np.int32),
            packet={
                "number": packets["number"].astype(np.int32), "sent_ps": packets["sent_ps"],
                "size_bytes": packets["size_bytes"].astype(np.int32),
                "reply_bytes": packets["reply_bytes"].astype(np.int32),
            },
            end_ps=left.time_ps,
            turned_ps=left.turned_ps,
            dropped_at=left.dropped_at,
            dropped_by_pod=by_pod,
            waited_ps=left.waited_ps,
            served_ps=left.served_ps,
            rules_ps=np.where(is_dropped, 0, packets["rules_ps"]),
            travelled_ps=left.travelled_ps,
        )  # fmt: skip

    def _note_ends(self, packets: Columns, left: Left) -> None:
        """Take note of when each flow's last transmission reached its end; those of a flow may leave in any order."""
        order = np.argsort(packets["number"], kind="stable")
        flow, number = packets["flow_id"][order], packets["number"][order]
        later = number > self._last[0, flow]
        self._last[:, flow[later]] = number[later], left.time_ps[order][later]  # the last of equal indexes stays


class CallBook:
    """Counts calls: a request is one however often it is tried. Times run from the first try to the answer."""

    def __init__(self, loop: ClosedLoop, slots: int, *, warmup_ps: int, keeps_rows: bool) -> None:
        self.loop, self.slots, self.warmup_ps, self.keeps_rows = loop, slots, warmup_ps, keeps_rows
        self.timeout_ps = NEVER if loop.timeout_ps is None else np.int64(loop.timeout_ps)
        self.counts = dict.fromkeys(
            ("calls", "answered", "timed out", "refused", "retries", "tries timed out", "late"), 0
        )
        self._rows: list[Columns] = []

    def add(self, packets: Columns, left: Left) -> Numbers:
        """Take transmissions that have left; return how long answered calls took, those of the warm-up left out."""
        heard = (left.dropped_at < 0) & (left.time_ps - packets["sent_ps"] <= self.timeout_ps)
        answered = heard & (packets["answered"] > 0)
        refused = heard & (packets["verdict"] == REJECTED)
        timed_out = ~answered & ~refused & (self.timeout_ps < NEVER)
        is_final = packets["tries"] >= self.loop.retries
        late = (left.dropped_at < 0) & (packets["answered"] > 0) & ~answered
        for name, mask in (
            ("calls", packets["tries"] == 0), ("answered", answered), ("timed out", timed_out & is_final),
            ("refused", refused & is_final), ("retries", packets["tries"] > 0), ("tries timed out", timed_out),
            ("late", late),
        ):  # fmt: skip
            self.counts[name] += int(np.count_nonzero(mask))
        ended = np.select([answered, timed_out & is_final, refused & is_final], [0, 1, 2], -1)
        gave_up_ps = packets["sent_ps"] + np.minimum(self.timeout_ps, 1 << 61)
        rows = {
            "slot": packets["slot"],
            "call": packets["request"],
            "start_ps": packets["asked_ps"],
            "end_ps": np.where(ended == 1, gave_up_ps, left.time_ps),
            "tries": packets["tries"] + 1,
            "outcome": ended,
            "flow_id": packets["flow_id"],
        }
        is_measured = packets["asked_ps"] >= self.warmup_ps
        if self.keeps_rows:
            self._rows.append(rows)  # what has not ended is overruled by a later try, or unfinished
        took_ps: Numbers = (left.time_ps - packets["asked_ps"])[answered & is_measured]
        return took_ps

    @property
    def totals(self) -> dict[str, int]:
        """Return the counts by name; calls = answered + timed out + refused + unfinished."""
        counts = self.counts
        ended = counts["answered"] + counts["timed out"] + counts["refused"]
        return {
            "calls": counts["calls"], "calls answered": counts["answered"], "calls timed out": counts["timed out"],
            "calls refused": counts["refused"], "calls unfinished": counts["calls"] - ended,
            "tries timed out": counts["tries timed out"], "retries": counts["retries"], "answered late": counts["late"],
        }  # fmt: skip

    def table(self, clients: tuple[str, ...], connections_per_client: int) -> dict[str, ColumnData]:
        """Return the table `calls`, in order of start."""
        names = ("slot", "call", "start_ps", "end_ps", "tries", "outcome", "flow_id")
        rows = {name: np.concatenate([np.zeros(0, np.int64), *(part[name] for part in self._rows)]) for name in names}
        self._rows.clear()
        order = np.lexsort((rows["tries"], rows["call"], rows["slot"]))
        slot, call = rows["slot"][order], rows["call"][order]
        last = np.append((slot[1:] != slot[:-1]) | (call[1:] != call[:-1]), np.ones(min(len(slot), 1), np.bool_))
        order = order[last]  # the last try of each call says what became of it
        order = order[np.lexsort((rows["slot"][order], rows["start_ps"][order]))]
        rows = {name: column[order] for name, column in rows.items()}
        is_open = rows["outcome"] < 0
        end_ps = np.where(is_open, -1, rows["end_ps"])
        distinct = ("", *dict.fromkeys(clients))
        code = {name: number for number, name in enumerate(distinct)}
        of_client = np.array([code[name] for name in clients], np.int32)
        return {
            "client": Categories(of_client[rows["slot"] // connections_per_client], distinct),
            "connection": (rows["slot"] % connections_per_client).astype(np.int32),
            "call": rows["call"],
            "start_ps": rows["start_ps"],
            "end_ps": end_ps,
            "latency_ps": np.where(rows["outcome"] == 0, rows["end_ps"] - rows["start_ps"], -1),
            "tries": rows["tries"].astype(np.int32),
            "outcome": Categories(np.where(is_open, 4, rows["outcome"] + 1).astype(np.int32), ("", *OUTCOMES)),
            "flow_id": rows["flow_id"],
            "warmup": rows["start_ps"] < self.warmup_ps,
        }


def _groups(numbers: Numbers) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Each distinct number with the rows that have it."""
    for number in np.unique(numbers).tolist():
        yield number, np.flatnonzero(numbers == number)


def _in_order(columns: Columns) -> Columns:
    order = np.argsort(columns["packet"], kind="stable")
    return {name: column[order] for name, column in columns.items()}


def _all_left(parts: list[Left]) -> Left:
    names = ("packet", "time_ps", "dropped_at", "turned_ps", "waited_ps", "served_ps", "travelled_ps")
    return Left(*(np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names))
