"""What the queues did to packets: rows of the packets table, what it changes of their flows, latency with its parts.

The tables decide a connection's way, and `recorder.py` has written that down when this is told what the queues made of
each packet. A packet that a queue drops changes its flow's counts and, if it is the first, the flow's fate. Columns of
the way (hops, entry node, rules) and the loads of places stay those of the way: what would come without drops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.stations import CPU, LINK, POD
from simnet.engine.network import CompiledCluster
from simnet.engine.queued_traffic import Served
from simnet.engine.sinks import PacketSink
from simnet.model.recording import PARTS, REASONS, VERDICTS, Categories, ColumnData

DELIVERED, DROPPED = VERDICTS.index("delivered"), VERDICTS.index("dropped")
QUEUE_FULL = REASONS.index("queue full")
BINS = 100  # of a run's duration, in the tables over time
QUANTILES = {"p50_ps": 0.5, "p90_ps": 0.9, "p95_ps": 0.95, "p99_ps": 0.99, "p999_ps": 0.999}
_MANTISSA_BITS = 10  # of a latency in the distribution: its steps are below 0.1 %
_SHIFT = 52 - _MANTISSA_BITS
_ONE = 1023 << _MANTISSA_BITS


class QueueRecorder:
    """Collects what leaves the queues of one run."""

    def __init__(
        self,
        compiled: CompiledCluster,
        station_names: tuple[str, ...],
        *,
        duration_ps: int,
        warmup_ps: int,
        has_replies: bool,
        sink: PacketSink | None,
    ) -> None:
        self.compiled, self.station_names, self.sink = compiled, station_names, sink
        self.warmup_ps, self.has_replies = warmup_ps, has_replies
        self.bin_ps = bin_width_ps(duration_ps)
        self._changes: list[dict[str, NDArray[Any]]] = []  # packets that change their flow's row
        self._distribution = {"request": np.zeros(1, np.int64), "response": np.zeros(1, np.int64)}
        self._longest = {"request": 0, "response": 0}
        self._sums = dict.fromkeys(("request", *PARTS, "response"), 0)
        self._over_time = np.zeros((2, BINS), np.int64)  # packets, sum of responses
        self.reasons = np.zeros((len(VERDICTS), len(REASONS)), np.int64)  # what queues change of the packets' fates

    def add(self, served: Served) -> None:
        """Take packets that have left."""
        parts = self._parts(served)
        delay_ps, response_ps = served.turned_ps - served.packet["sent_ps"], served.end_ps - served.packet["sent_ps"]
        reached, answered = served.reached, served.answered
        self._note_changes(served, reached, answered)
        is_whole = answered if self.has_replies else reached & (served.dropped_at < 0)
        self._note_latency(served, parts, delay_ps, response_ps, reached, is_whole)
        if self.sink is not None:
            self._emit(self.sink, served, parts, delay_ps, response_ps, reached, answered)

    @staticmethod
    def _parts(served: Served) -> dict[str, NDArray[np.int64]]:
        return {
            "propagation_ps": served.travelled_ps,
            "transmission_ps": served.served_ps[LINK],
            "link_queue_ps": served.waited_ps[LINK],
            "cpu_queue_ps": served.waited_ps[CPU],
            "cpu_ps": served.served_ps[CPU] - served.rules_ps,
            "rule_scan_ps": served.rules_ps,
            "pod_queue_ps": served.waited_ps[POD],
            "service_ps": served.served_ps[POD],
        }

    # --- flows -------------------------------------------------------------------------------------

    def _note_changes(self, served: Served, reached: NDArray[np.bool_], answered: NDArray[np.bool_]) -> None:
        number, dropped = served.packet["number"], served.dropped_at >= 0
        is_first, is_last = number == 0, number == served.of_connection("last_number")
        rows = np.flatnonzero(is_first | is_last | dropped)
        owner = served.owner[rows]
        connection = {name: served.connections[name][owner] for name in ("flow_id", "verdict", "reason", "answered")}
        sent_ps, verdict = served.packet["sent_ps"][rows], connection["verdict"]
        stopped = dropped[rows] & ~reached[rows]  # on the way to the pod, or at its door
        self._changes.append(
            {
                "flow_id": connection["flow_id"],
                "is_first": is_first[rows],
                "is_last": is_last[rows],
                "stopped": stopped,
                "dropped": dropped[rows],
                "verdict": verdict,
                "loses_reply": connection["answered"] & dropped[rows],
                "reply_bytes": served.packet["reply_bytes"][rows],
                "end_ps": served.end_ps[rows],
                "delay_ps": np.where(reached[rows], served.turned_ps[rows] - sent_ps, -1),
                "round_trip_ps": np.where(answered[rows], served.end_ps[rows] - sent_ps, -1),
            }
        )
        np.subtract.at(self.reasons, (verdict[stopped], connection["reason"][stopped]), 1)
        self.reasons[DROPPED, QUEUE_FULL] += np.count_nonzero(stopped)

    def amend(self, flows: dict[str, NDArray[Any]]) -> None:
        """Enter in the rows of flows, whose ids are their row numbers, what the queues made of their packets."""
        if not self._changes:
            return
        each = {name: np.concatenate([part[name] for part in self._changes]) for name in self._changes[0]}
        self._changes.clear()
        row = each["flow_id"]
        for number, name in enumerate(VERDICTS):
            np.subtract.at(flows[f"packets_{name}"], row[each["stopped"] & (each["verdict"] == number)], 1)
        np.add.at(flows["packets_dropped"], row[each["stopped"]], 1)
        lost = each["loses_reply"]
        np.subtract.at(flows["reply_packets"], row[lost], 1)
        np.subtract.at(flows["reply_bytes"], row[lost], each["reply_bytes"][lost])
        flows["end_ps"][row[each["is_last"]]] = each["end_ps"][each["is_last"]]
        first = each["is_first"]
        for name in ("delay_ps", "round_trip_ps"):
            flows[name][row[first]] = each[name][first]
        unanswered = row[first & each["dropped"]]
        flows["reply_reason"][row[first & each["dropped"] & ~each["stopped"]]] = QUEUE_FULL
        for name, value in (("answered", False), ("reply_l3_hops", -1), ("reply_links", -1)):
            flows[name][unanswered] = value
        stopped = row[first & each["stopped"]]
        changed = {
            "verdict": DROPPED, "reason": QUEUE_FULL, "reply_reason": 0, "pod": 0, "serving_node": 0,
            "endpoint_port": -1, "source_seen": 0, "source_hidden": False, "cross_node": False,
        }  # fmt: skip
        for name, new in changed.items():
            flows[name][stopped] = new

    # --- latency -----------------------------------------------------------------------------------

    def _note_latency(
        self,
        served: Served,
        parts: Mapping[str, NDArray[np.int64]],
        delay_ps: NDArray[np.int64],
        response_ps: NDArray[np.int64],
        reached: NDArray[np.bool_],
        is_whole: NDArray[np.bool_],
    ) -> None:
        measured = served.of_connection("start_ps") >= self.warmup_ps
        for of, values, chosen in (("request", delay_ps, reached), ("response", response_ps, is_whole)):
            sample = values[chosen & measured]
            self._distribution[of] = _added(self._distribution[of], bucket_of(sample))
            self._sums[of] += int(sample.sum())
            self._longest[of] = max(self._longest[of], int(sample.max(initial=0)))
        counted = is_whole & measured
        for name, values in parts.items():
            self._sums[name] += int(values[counted].sum())
        at = served.packet["sent_ps"] // self.bin_ps
        inside = is_whole & (at < BINS)
        self._over_time[0] += np.bincount(at[inside], minlength=BINS)
        self._over_time[1] += np.bincount(at[inside], weights=response_ps[inside], minlength=BINS).astype(np.int64)

    def add_calls(self, latency_ps: NDArray[np.int64]) -> None:
        """Take how long calls took, tries and waiting in between included: of clients that wait for answers."""
        counts = self._distribution.get("call", np.zeros(1, np.int64))
        self._distribution["call"] = _added(counts, bucket_of(latency_ps))
        self._sums["call"] = self._sums.get("call", 0) + int(latency_ps.sum())
        self._longest["call"] = max(self._longest.get("call", 0), int(latency_ps.max(initial=0)))

    def tables(self) -> dict[str, dict[str, ColumnData]]:
        """Return the tables latency, latency_distribution and latency_over_time."""
        rows = [(of, "total") for of in self._distribution] + [("response", part) for part in PARTS]
        count = {of: int(counts.sum()) for of, counts in self._distribution.items()}
        totals = [self._sums[of if part == "total" else part] for of, part in rows]
        n = np.array([count[of] for of, _ in rows], np.int64)
        quantiles = {
            name: np.array([self._quantile(of, q) if part == "total" else -1 for of, part in rows], np.int64)
            for name, q in QUANTILES.items()
        }
        latency: dict[str, ColumnData] = {
            "of": _names([of for of, _ in rows]),
            "part": _names([part for _, part in rows]),
            "packets": n,
            "mean_ps": np.divide(totals, n, out=np.full(len(rows), np.nan), where=n > 0),
            **quantiles,
            "max_ps": np.array([self._longest[of] if part == "total" else -1 for of, part in rows], np.int64),
        }
        buckets = {of: np.flatnonzero(counts) for of, counts in self._distribution.items()}
        distribution: dict[str, ColumnData] = {
            "of": _names([of for of, held in buckets.items() for _ in held.tolist()]),
            "at_most_ps": np.concatenate([top_of(held) for held in buckets.values()]),
            "packets": np.concatenate([self._distribution[of][held] for of, held in buckets.items()]),
        }
        packets, sums = self._over_time
        over_time: dict[str, ColumnData] = {
            "start_ps": np.arange(BINS, dtype=np.int64) * self.bin_ps,
            "packets": packets,
            "mean_ps": np.divide(sums, packets, out=np.full(BINS, np.nan), where=packets > 0),
        }
        return {"latency": latency, "latency_distribution": distribution, "latency_over_time": over_time}

    def _quantile(self, of: str, q: float) -> int:
        """The top of the step that holds the q-quantile: the smallest value of rank q n or above."""
        counts = self._distribution[of]
        total = int(counts.sum())
        if not total:
            return -1
        bucket = np.searchsorted(np.cumsum(counts), max(1, int(np.ceil(q * total))))
        return min(int(top_of(np.array([bucket]))[0]), self._longest[of])

    # --- packets -----------------------------------------------------------------------------------

    def _emit(
        self,
        sink: PacketSink,
        served: Served,
        parts: Mapping[str, NDArray[np.int64]],
        delay_ps: NDArray[np.int64],
        response_ps: NDArray[np.int64],
        reached: NDArray[np.bool_],
        answered: NDArray[np.bool_],
    ) -> None:
        network, names = self.compiled.network, self.compiled.place_names
        packet = served.packet
        stopped = (served.dropped_at >= 0) & ~reached
        place = np.where(reached, served.of_connection("place"), -1)
        serving = np.where(reached, network.place_device[place], -1)
        verdict = np.where(stopped, DROPPED, served.of_connection("verdict")).astype(np.int32)
        sink(
            {
                "flow_id": served.of_connection("flow_id"),
                "packet": packet["number"],
                "sent_ps": packet["sent_ps"],
                "size_bytes": packet["size_bytes"],
                "pod": Categories(place + 1, ("", *names)),
                "serving_node": Categories(serving + 1, ("", *names[: network.device_count])),
                "verdict": Categories(verdict + 1, ("", *VERDICTS)),
                "l3_hops": served.of_connection("l3_hops"),
                "links": served.of_connection("links"),
                "delay_ps": np.where(reached, delay_ps, -1),
                "round_trip_ps": np.where(answered, response_ps, -1),
                **parts,
                "dropped_at": Categories(served.dropped_at + 1, ("", *self.station_names)),
            }
        )


def bin_width_ps(duration_ps: int) -> int:
    """Return the width of the bins of the tables over time."""
    return max(1, -(-duration_ps // BINS))


def bucket_of(values_ps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the step of the distribution that each time from 0 on falls into: its exponent and leading bits."""
    return ((values_ps + 1).astype(np.float64).view(np.int64) >> _SHIFT) - _ONE


def top_of(bucket: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the largest time of each step of the distribution."""
    following = (bucket.astype(np.int64) + 1 + _ONE) << _SHIFT
    return np.ceil(following.view(np.float64)).astype(np.int64) - 2


def _added(counts: NDArray[np.int64], buckets: NDArray[np.int64]) -> NDArray[np.int64]:
    more = np.bincount(buckets, minlength=len(counts))
    more[: len(counts)] += counts
    return more.astype(np.int64)


def _names(values: list[str]) -> Categories:
    listed = ("", *dict.fromkeys(values))
    return Categories(np.array([listed.index(value) for value in values], np.int32), listed)
