"""The blast radius of each event: what was lost, which flows broke and which moved, counted while windows pass.

A flow is kept in mind only if something befell it: a stretch of packets without an answer, or more than one stretch.
The rest is counted at the end, flow by flow in order of packets, so nothing depends on where windows were cut.
Which event a loss belongs to: docs/models/events.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path.columns import Way
from simnet.engine.connections import Connections, spread
from simnet.engine.network import CompiledCluster
from simnet.engine.pieces import pieces_of
from simnet.engine.table_changes import NEVER, Causes, EventSpan, Windows, event_spans
from simnet.model.flows import FlowBatch, PacketBatch
from simnet.model.recording import EFFECTS, REASONS, VERDICTS, Categories, ColumnData

CONNECTION_RESET = REASONS.index("connection reset")
PACKETS, ANSWERS, FAILED, BROKEN, INTERRUPTED, MOVED_POD, MOVED_WAY = range(len(EFFECTS))
_SHAPE = (len(EFFECTS), len(VERDICTS), len(REASONS))
BINS = 200  # of a run's duration; one more takes what is lost after it
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: the wires of a way, in order, as one number


class EventRecorder:
    """Collects what the events of one run did. `compiled` has a history with events."""

    def __init__(self, compiled: CompiledCluster, *, duration_ps: int, has_replies: bool) -> None:
        assert compiled.history is not None
        self.compiled, self.has_replies = compiled, has_replies
        self.bin_ps = max(1, -(-duration_ps // BINS))
        history = compiled.history
        self.changes = compiled.table_changes
        self.spans = event_spans(history.events, self.changes, duration_ps=duration_ps)
        self._windows = Windows([span.event.at_ps for span in self.spans], [span.window_end_ps for span in self.spans])
        self._causes = Causes(history)
        edges_ps = np.arange(1, BINS + 1) * self.bin_ps
        self._instants_ps = np.unique(np.concatenate([self._windows.edges_ps, edges_ps]))  # where cells of counts begin
        self._counts = np.zeros((len(self.spans) + 1, *_SHAPE), np.int64)  # event + 1, so that none is 0
        self._first_loss_ps = np.full(len(self.spans) + 1, NEVER, np.int64)
        self._last_loss_ps = np.full(len(self.spans) + 1, -1, np.int64)
        self._over_time = np.zeros((2, len(REASONS), BINS + 1), np.int64)  # packets, answers
        self._stretches: list[dict[str, NDArray[Any]]] = []

    def add(self, flows: FlowBatch, packets: PacketBatch, each: Connections) -> None:
        """Take connections, or stretches of them, with their flows and packets."""
        is_whole = each.answered if self.has_replies else each.delivered
        is_all = (each.sent_before == 0) & (each.end_packet - each.first_packet == flows.packet_count[each.flow])
        rows = np.flatnonzero(~(is_whole & is_all))
        if not rows.size:
            return
        whole, first = is_whole[rows], each.first_packet[rows]
        verdict, reason = _fates(each, rows)
        self._stretches.append(
            {
                "flow_id": flows.flow_id[each.flow[rows]].astype(np.int64),
                "number": each.sent_before[rows],
                "packets": each.end_packet[rows] - first,
                "is_whole": whole,
                "verdict": verdict,
                "reason": reason,
                "is_answer": each.delivered[rows],
                "pod": each.request.place[rows],
                "way": self._ways(each, rows, whole),
                "sent_ps": packets.arrival_ps[first],
                "ended_ps": self._ended_ps(packets, each, rows, first),
                "last_sent_ps": packets.arrival_ps[each.end_packet[rows] - 1],
            }
        )
        lost = rows[~whole]
        if lost.size:
            self._count_losses(packets, each, lost)

    def _count_losses(self, packets: PacketBatch, each: Connections, rows: NDArray[np.intp]) -> None:
        """Count lost packets, piece by piece of those that surely belong to one event and one bin."""
        first, end, trip_ps = each.first_packet[rows], each.end_packet[rows], self._longest_trip_ps(packets, each, rows)
        owner, start, stop = pieces_of(packets.arrival_ps, first, end, trip_ps, self._instants_ps)
        verdict, reason = (fate[owner] for fate in _fates(each, rows))
        effect, count = np.where(each.delivered[rows], ANSWERS, PACKETS)[owner], stop - start
        sent_ps, ended_ps = packets.arrival_ps[start], self._ended_ps(packets, each, rows[owner], start)
        self._count_over_time(effect, reason, ended_ps, count)
        now = np.flatnonzero(reason != CONNECTION_RESET)  # what follows a reset belongs where the reset does
        event = self._windows.of_loss(ended_ps[now], sent_ps[now], np.zeros(len(now), np.bool_))
        self._count(event, effect[now], verdict[now], reason[now], count[now])
        self._note_losses(event, ended_ps[now])
        self._note_losses(event, self._ended_ps(packets, each, rows[owner[now]], stop[now] - 1))
        # Only where packets may overtake each other can another one be the first to end, or the last.
        latest_ps = packets.arrival_ps[stop[now] - 1] + trip_ps[owner[now]]
        outermost = (sent_ps[now] < self._first_loss_ps[event + 1]) | (latest_ps > self._last_loss_ps[event + 1])
        few = np.flatnonzero(outermost & (count[now] > 2))
        of, packet = spread(start[now[few]], stop[now[few]])
        self._note_losses(event[few][of], self._ended_ps(packets, each, rows[owner[now[few]]][of], packet))

    def _count_over_time(
        self,
        effect: NDArray[np.integer],
        reason: NDArray[np.integer],
        ended_ps: NDArray[np.int64],
        weight: NDArray[np.int64],
    ) -> None:
        place = (effect * len(REASONS) + reason) * (BINS + 1) + np.minimum(ended_ps // self.bin_ps, BINS)
        counted = np.bincount(place, weights=weight, minlength=self._over_time.size)  # exact: below 2**53
        self._over_time += counted.astype(np.int64).reshape(self._over_time.shape)

    def _longest_trip_ps(self, packets: PacketBatch, each: Connections, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """The time that no packet of the batch would exceed on the way of each of some rows, there and back."""
        wires = self.compiled.wires
        trip_ps = each.request_cost.take(rows).longest_ps(wires, int(packets.size_bytes.max(initial=0)))
        if each.reply_cost is not None:
            trip_ps += each.reply_cost.take(rows).longest_ps(wires, int(packets.reply_size_bytes.max(initial=0)))
        return trip_ps

    def _ended_ps(
        self, packets: PacketBatch, each: Connections, rows: NDArray[np.intp], packet: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """When a packet of each of some rows, or the answer to it, ended."""
        wires = self.compiled.wires
        trip_ps = each.request_cost.delay_ps(wires, rows, packets.size_bytes[packet].astype(np.int64))
        if each.reply_cost is not None:
            back_ps = each.reply_cost.delay_ps(wires, rows, packets.reply_size_bytes[packet].astype(np.int64))
            trip_ps += np.where(each.delivered[rows], back_ps, 0)
        return packets.arrival_ps[packet] + trip_ps

    @staticmethod
    def _ways(each: Connections, rows: NDArray[np.intp], whole: NDArray[np.bool_]) -> NDArray[np.uint64]:
        """A number for the wires that each row's request and answer crossed, in order; 0 where one was lost."""
        numbers = np.zeros(len(each.flow), np.uint64)
        if whole.any():
            numbers += np.uint64(1)
            is_asked = np.zeros(len(each.flow), np.bool_)
            is_asked[rows[whole]] = True
            for way in (each.request, each.reply):
                if way is not None:
                    _mix_in(numbers, way, is_asked)
        return np.where(whole, numbers[rows], np.uint64(0))

    # --- counting ----------------------------------------------------------------------------------

    def _count(
        self,
        event: NDArray[np.int64],
        effect: NDArray[np.integer] | int,
        verdict: NDArray[np.integer],
        reason: NDArray[np.integer] | int,
        weight: NDArray[np.int64] | int = 1,
    ) -> None:
        cell = ((event + 1) * len(EFFECTS) + effect) * len(VERDICTS) + verdict
        np.add.at(self._counts.reshape(-1), cell * len(REASONS) + reason, weight)

    def _note_losses(self, event: NDArray[np.int64], ended_ps: NDArray[np.int64]) -> None:
        np.minimum.at(self._first_loss_ps, event + 1, ended_ps)
        np.maximum.at(self._last_loss_ps, event + 1, ended_ps)

    def _finish(self) -> None:
        """Go through all flows that something befell, each in order of its packets."""
        if not self._stretches:
            return
        each = {name: np.concatenate([part[name] for part in self._stretches]) for name in self._stretches[0]}
        self._stretches.clear()
        order = np.lexsort((each["number"], each["flow_id"]))
        each = {name: column[order] for name, column in each.items()}
        flow = np.unique(each["flow_id"], return_inverse=True)[1]  # numbers of flows, ascending
        self._count_resets(each, flow)
        self._count_ends(each, flow)
        self._count_moves(each, flow)

    def _count_resets(self, each: dict[str, NDArray[Any]], flow: NDArray[np.intp]) -> None:
        rows = np.flatnonzero((each["reason"] == CONNECTION_RESET) & ~each["is_whole"])
        if not rows.size:
            return
        _, first, of = np.unique(flow[rows], return_index=True, return_inverse=True)
        first = rows[first]
        event = self._owner(each, first)
        self._count(event[of], PACKETS, each["verdict"][rows], CONNECTION_RESET, each["packets"][rows])
        self._note_losses(event, each["ended_ps"][first])

    def _count_ends(self, each: dict[str, NDArray[Any]], flow: NDArray[np.intp]) -> None:
        """Runs of stretches without an answer: at a flow's end it is broken, or failed; else interrupted."""
        count, whole = len(flow), each["is_whole"]
        position = np.arange(count)
        begins_flow = np.diff(flow, prepend=-1) != 0
        after_whole = np.concatenate([[False], whole[:-1]])
        runs = np.flatnonzero(~whole & (begins_flow | after_whole))
        # The next stretch of the same flow with an answer, if there is one; likewise the one before
        following = np.minimum.accumulate(np.where(whole, position, count)[::-1])[::-1]
        goes_on = following[runs] < count
        goes_on[goes_on] = flow[following[runs[goes_on]]] == flow[runs[goes_on]]
        is_fresh = begins_flow[runs]
        event = self._owner(each, runs)
        effect = np.where(goes_on, INTERRUPTED, np.where(is_fresh, FAILED, BROKEN))
        self._count_flows(event, effect, flow[runs], each["verdict"][runs], each["reason"][runs])

    def _count_moves(self, each: dict[str, NDArray[Any]], flow: NDArray[np.intp]) -> None:
        """From one answered stretch to the next of the same flow: another pod, or the same one by another way."""
        rows = np.flatnonzero(each["is_whole"])
        before, after = rows[:-1], rows[1:]
        same = flow[before] == flow[after]
        before, after = before[same], after[same]
        other_pod = each["pod"][before] != each["pod"][after]
        moved = other_pod | (each["way"][before] != each["way"][after])
        before, after, other_pod = before[moved], after[moved], other_pod[moved]
        event = self._causes.between(each["last_sent_ps"][before], each["ended_ps"][after])
        none = np.zeros(len(after), np.int64)
        self._count_flows(event, np.where(other_pod, MOVED_POD, MOVED_WAY), flow[after], none, none)

    def _owner(self, each: dict[str, NDArray[Any]], rows: NDArray[np.intp]) -> NDArray[np.int64]:
        is_reset = each["reason"][rows] == CONNECTION_RESET
        return self._windows.of_loss(each["ended_ps"][rows], each["sent_ps"][rows], is_reset)

    def _count_flows(
        self,
        event: NDArray[np.int64],
        effect: NDArray[np.int64],
        flow: NDArray[np.intp],
        verdict: NDArray[np.integer],
        reason: NDArray[np.integer],
    ) -> None:
        """Count each flow once per event and effect, for what came first."""
        key = ((event + 1) * len(EFFECTS) + effect) * (int(flow.max(initial=0)) + 1) + flow
        once = np.unique(key, return_index=True)[1]
        self._count(event[once], effect[once], verdict[once], reason[once])

    # --- tables ------------------------------------------------------------------------------------

    def tables(self) -> dict[str, dict[str, ColumnData]]:
        """Return the tables that only a run with events has. To be asked once, when all is over."""
        self._finish()
        return {
            "events": self._event_table(),
            "event_effects": self._effect_table(),
            "losses_over_time": self._loss_table(),
            "table_changes": self._changes(),
        }

    def _event_table(self) -> dict[str, ColumnData]:
        spans, counts = self.spans, self._counts[1:]
        start_ps = _column([span.event.at_ps for span in spans])
        end_ps = _column([_or(span.end_ps) for span in spans])
        noticed_ps, withdrawn_ps, repaired_ps = (
            _column([_or(instant(span)) for span in spans]) for instant in (_noticed, _withdrawn, _repaired)
        )
        by_verdict, by_effect = counts[:, PACKETS].sum(axis=2), counts.sum(axis=(2, 3))
        first_loss_ps = self._first_loss_ps[1:]
        return {
            "event": np.arange(len(spans), dtype=np.int32),
            "name": _names([span.event.label for span in spans]),
            "kind": _names([span.event.kind.value for span in spans]),
            "target": _names([" ".join(span.event.subject) for span in spans]),
            "at_random": np.array([span.event.at_random for span in spans], np.bool_),
            "start_ps": start_ps,
            "end_ps": end_ps,
            "time_to_notice_ps": np.where(noticed_ps < 0, -1, noticed_ps - start_ps),
            "time_to_withdraw_ps": np.where(withdrawn_ps < 0, -1, withdrawn_ps - start_ps),
            "time_to_repair_ps": np.where(repaired_ps < 0, -1, repaired_ps - end_ps),
            "window_end_ps": repaired_ps,
            "boxes_changed": np.array([span.boxes for span in spans], np.int32),
            "routes_changed": np.array([span.routes for span in spans], np.int32),
            "rules_changed": np.array([span.rules for span in spans], np.int32),
            "not_restored": np.array([span.not_restored for span in spans], np.int32),
            "first_loss_ps": np.where(first_loss_ps == NEVER, -1, first_loss_ps),
            "last_loss_ps": self._last_loss_ps[1:],
            **{f"packets_{name}": by_verdict[:, VERDICTS.index(name)] for name in ("dropped", "rejected", "lost")},
            "answers_lost": by_effect[:, ANSWERS],
            "flows_failed": by_effect[:, FAILED],
            "flows_broken": by_effect[:, BROKEN],
            "flows_interrupted": by_effect[:, INTERRUPTED],
            "flows_moved_pod": by_effect[:, MOVED_POD],
            "flows_moved_way": by_effect[:, MOVED_WAY],
        }

    def _effect_table(self) -> dict[str, ColumnData]:
        event, effect, verdict, reason = np.nonzero(self._counts)
        moved = effect >= MOVED_POD
        labels = [span.event.label for span in self.spans]
        return {
            "event": (event - 1).astype(np.int32),
            "name": _names(["" if number == 0 else labels[number - 1] for number in event.tolist()]),
            "effect": Categories((effect + 1).astype(np.int32), ("", *EFFECTS)),
            "verdict": Categories(np.where(moved, 0, verdict + 1).astype(np.int32), ("", *VERDICTS)),
            "reason": Categories(reason.astype(np.int32), REASONS),
            "count": self._counts[event, effect, verdict, reason],
        }

    def _loss_table(self) -> dict[str, ColumnData]:
        when, effect, reason = np.nonzero(self._over_time.transpose(2, 0, 1))
        return {
            "start_ps": when * self.bin_ps,
            "end_ps": np.where(when < BINS, (when + 1) * self.bin_ps, -1),
            "effect": Categories((effect + 1).astype(np.int32), ("", *EFFECTS)),
            "reason": Categories(reason.astype(np.int32), REASONS),
            "count": self._over_time[effect, reason, when],
        }

    def _changes(self) -> dict[str, ColumnData]:
        changes = self.changes
        return {
            "time_ps": _column([change.time_ps for change in changes]),
            "event": np.array([change.event for change in changes], np.int32),
            "box": _names([change.box for change in changes]),
            "prefix": _names(["" if change.prefix is None else str(change.prefix) for change in changes]),
            "change": _names([change.what for change in changes]),
            "next_hops": np.array([_next_hops(change.after) for change in changes], np.int32),
        }


def _fates(each: Connections, rows: NDArray[np.intp]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Verdict and reason of each row: of the request, or of the answer where the request was delivered."""
    request, reply = each.request, each.reply
    verdict, reason = request.verdict[rows], request.reason[rows]
    if reply is not None:
        back = each.delivered[rows]
        verdict, reason = np.where(back, reply.verdict[rows], verdict), np.where(back, reply.reason[rows], reason)
    return verdict, reason


def _mix_in(numbers: NDArray[np.uint64], way: Way, is_asked: NDArray[np.bool_]) -> None:
    for crossing in way.crossings:
        asked = np.flatnonzero(is_asked[crossing.rows])
        at, direction = crossing.rows[asked], crossing.direction[asked]
        mixed = (numbers[at] ^ (direction.astype(np.uint64) + np.uint64(1))) * _MIX
        numbers[at] = mixed ^ (mixed >> np.uint64(29))


def _noticed(span: EventSpan) -> int | None:
    return span.noticed_ps


def _withdrawn(span: EventSpan) -> int | None:
    return span.withdrawn_ps


def _repaired(span: EventSpan) -> int | None:
    return span.repaired_ps


def _or(instant_ps: int | None) -> int:
    return -1 if instant_ps is None else instant_ps


def _column(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _next_hops(after: object) -> int:
    return len(getattr(after, "next_hops", ()))


def _names(values: list[str]) -> Categories:
    number = {"": 0}
    codes = [number.setdefault(value, len(number)) for value in values]
    return Categories(np.array(codes, dtype=np.int32), tuple(number))
