"""A run's figures: what one run says about hops, nodes crossed, translation, rules, delay and spread.

`measure_run` makes them of a recording right after the run, `bincount` and masks only, so that a summary of
many runs needs no flows in memory. Flows of the warm-up do not count; the engine leaves them out of `load`
and `hops` as well.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from simnet.analysis import spread
from simnet.model.recording import REASONS, Categories, Column, ColumnData, Recording
from simnet.units import PS_PER_US

PLACES = ("pod", "serving_node", "entry_node")  # where a load is spread over
_HOPS = ("l3_hops", "links", "reply_l3_hops", "reply_links")
_HOP_MEANING = {
    "l3_hops": "boxes that forwarded a delivered request",
    "links": "wires that a delivered request crossed",
    "reply_l3_hops": "boxes that forwarded the reply of an answered flow",
    "reply_links": "wires that the reply of an answered flow crossed",
}
_PLACE_MEANING = {"pod": "pods", "serving_node": "serving nodes", "entry_node": "entry nodes"}
FATES = ("sent", "delivered", "dropped", "rejected", "lost")


def reason_measure(reason: str) -> str:
    """Return the measure that counts the flows that failed for a reason: `no route` -> `failed_no_route`."""
    return f"failed_{reason.replace(' ', '_')}"


def _hop_columns() -> list[Column]:
    columns = []
    for name in _HOPS:
        columns += [
            Column(f"{name}_mean", "float64", "", f"{_HOP_MEANING[name]}: mean over flows"),
            Column(f"{name}_p50", "float64", "", f"{_HOP_MEANING[name]}: median"),
            Column(f"{name}_max", "float64", "", f"{_HOP_MEANING[name]}: largest"),
        ]
    return columns


def _spread_columns() -> list[Column]:
    columns = []
    for place, many in _PLACE_MEANING.items():
        columns += [
            Column(f"{place}_count", "float64", "", f"E: {many} that could have been chosen, idle ones included"),
            Column(f"{place}_connections", "float64", "", f"N: connections counted over {many}"),
            Column(f"{place}_cov", "float64", "", f"coefficient of variation of connections over {many}"),
            Column(f"{place}_noise_floor", "float64", "", "CoV that equal shares give by chance, sqrt((E-1)/N)"),
            Column(f"{place}_cov_expected", "float64", "", "CoV that the expected shares give, chance included"),
            Column(f"{place}_jain", "float64", "", f"Jain's index over {many}: 1 even, 1/E one takes all"),
            Column(f"{place}_max_over_mean", "float64", "", f"the hottest of the {many} over their mean"),
            Column(f"{place}_min_over_mean", "float64", "", f"the coolest of the {many} over their mean"),
            Column(f"{place}_total_variation", "float64", "", "share of connections on another one than expected"),
            Column(f"{place}_chi2", "float64", "", "Pearson's X^2 of connections against expected shares"),
            Column(f"{place}_chi2_df", "float64", "", "its degrees of freedom"),
            Column(f"{place}_chi2_valid", "float64", "", "1: every expected count is at least 5, else 0"),
            Column(f"{place}_dispersion", "float64", "", "X^2 / df: 1 chance, more: structure, less: round robin"),
        ]
    return columns


MEASURES: tuple[Column, ...] = (
    Column("flows", "float64", "", "flows that started after the warm-up"),
    Column("delivered_share", "float64", "", "flows whose first packet reached a pod"),
    Column("answered_share", "float64", "", "flows whose reply came back from the address called"),
    *(Column(f"packets_{fate}", "float64", "", f"request packets {fate}") for fate in FATES),
    Column("reply_packets", "float64", "", "reply packets that came back to the client"),
    *(Column(reason_measure(r), "float64", "", f"flows whose first packet failed: {r}") for r in REASONS if r),
    *_hop_columns(),
    Column("nat_hops_mean", "float64", "", "rewrites on the way of a delivered request: mean over flows"),
    Column("cross_node_share", "float64", "", "delivered flows whose pod is not on the node of entry"),
    Column("cross_node_bytes_share", "float64", "", "bytes sent by such flows, of those of all delivered flows"),
    Column("snat_share", "float64", "", "delivered flows whose source was rewritten (masquerade)"),
    Column("source_hidden_share", "float64", "", "delivered flows whose pod saw another source than the client"),
    Column("rules_scanned_mean", "float64", "", "iptables rules evaluated for a flow's first packet: mean, all flows"),
    Column("delay_mean_us", "float64", "us", "path delay of delivered first packets: mean"),
    Column("delay_p50_us", "float64", "us", "path delay of delivered first packets: median"),
    Column("delay_p99_us", "float64", "us", "path delay of delivered first packets: 99th percentile"),
    Column("round_trip_mean_us", "float64", "us", "there and back of answered first packets: mean"),
    Column("round_trip_p50_us", "float64", "us", "there and back of answered first packets: median"),
    Column("round_trip_p99_us", "float64", "us", "there and back of answered first packets: 99th percentile"),
    *_spread_columns(),
    Column("pod_packets_cov", "float64", "", "coefficient of variation of request packets over pods"),
    Column("pod_packets_max_over_mean", "float64", "", "request packets of the pod that has most, over the pods' mean"),
)
SHARES = tuple(column.name for column in MEASURES if column.name.endswith("_share"))
# What a share is a share of, for the interval of one that is 0 or 1 in every repeat:
SHARE_OF = {name: "flows" if name in ("delivered_share", "answered_share") else "delivered" for name in SHARES}


def measure_run(recording: Recording) -> dict[str, float]:
    """Return every measure of `MEASURES` of one run; NaN where the run has nothing to say (no flow was
    delivered).
    """
    flows = recording.tables.get("flows")
    if flows is None:
        raise ValueError("the figures of a run need its flows; let the engine record them and keep them or not")
    return {**measure_flows(flows), **measure_spread(recording.tables.get("load", {}))}


def measure_flows(flows: Mapping[str, ColumnData]) -> dict[str, float]:
    """Return the measures of a run's `flows` columns."""
    counted = ~_array(flows, "warmup").astype(bool)
    everything = bool(counted.all())

    def column(name: str) -> NDArray[np.generic]:
        values = _array(flows, name)
        return values if everything else values[counted]

    total = int(np.count_nonzero(counted))
    delivered = _is(flows, "verdict", "delivered")
    delivered = delivered if everything else delivered[counted]
    answered = column("answered").astype(bool)
    reached, replied = int(np.count_nonzero(delivered)), int(np.count_nonzero(answered))
    measures = {
        "flows": float(total),
        "delivered_share": _share(reached, total),
        "answered_share": _share(replied, total),
    }
    for fate in FATES:
        measures[f"packets_{fate}"] = float(column(f"packets_{fate}").sum(dtype=np.int64))
    measures["reply_packets"] = float(column("reply_packets").sum(dtype=np.int64))
    measures |= _failures(flows, counted)
    for name in _HOPS:
        sample = column(name)[answered if name.startswith("reply") else delivered]
        measures |= _hop_figures(name, sample)
    cross, sent = column("cross_node").astype(bool) & delivered, column("bytes_sent")
    measures["nat_hops_mean"] = _share(float(column("nat_hops")[delivered].sum(dtype=np.int64)), reached)
    measures["cross_node_share"] = _share(int(np.count_nonzero(cross)), reached)
    measures["cross_node_bytes_share"] = _share(float(sent[cross].sum()), float(sent[delivered].sum()))
    for name in ("snat", "source_hidden"):
        measures[f"{name}_share"] = _share(int(np.count_nonzero(column(name).astype(bool) & delivered)), reached)
    measures["rules_scanned_mean"] = _share(float(column("rules_scanned").sum(dtype=np.int64)), total)
    for name, mask in (("delay", delivered), ("round_trip", answered)):
        sample_ps = column(f"{name}_ps")[mask]
        measures[f"{name}_mean_us"] = _share(float(sample_ps.sum(dtype=np.int64)), len(sample_ps)) / PS_PER_US
        p50, p99 = _quantiles_us(sample_ps)
        measures[f"{name}_p50_us"], measures[f"{name}_p99_us"] = p50, p99
    return measures


def measure_spread(load: Mapping[str, ColumnData]) -> dict[str, float]:
    """Return the spread measures of a run's `load` columns, which list every candidate, idle ones
    included.
    """
    measures: dict[str, float] = {}
    for place in PLACES:
        chosen = _is(load, "where", place) if load else np.zeros(0, bool)
        connections = _array(load, "connections")[chosen].astype(np.float64) if load else np.zeros(0)
        shares = _array(load, "expected_share")[chosen].astype(np.float64) if load else np.zeros(0)
        total = float(connections.sum())
        fit = spread.chi_square_fit(connections, shares)
        known = bool(len(shares)) and not bool(np.isnan(shares).any())
        figures = {
            "count": float(len(connections)),
            "connections": total,
            "cov": spread.coefficient_of_variation(connections),
            "noise_floor": spread.noise_floor(len(connections), total),
            "cov_expected": spread.expected_cov(shares, total) if known else float("nan"),
            "jain": spread.jain(connections),
            "max_over_mean": spread.max_over_mean(connections),
            "min_over_mean": spread.min_over_mean(connections),
            "total_variation": spread.total_variation(connections, shares) if known else float("nan"),
            "chi2": fit.chi2,
            "chi2_df": float(fit.df),
            "chi2_valid": float(fit.valid),
            "dispersion": fit.dispersion,
        }
        measures |= {f"{place}_{name}": value for name, value in figures.items()}
    pods = _is(load, "where", "pod") if load else np.zeros(0, bool)
    packets = _array(load, "packets")[pods].astype(np.float64) if load else np.zeros(0)
    measures["pod_packets_cov"] = spread.coefficient_of_variation(packets)
    measures["pod_packets_max_over_mean"] = spread.max_over_mean(packets)
    return measures


def _failures(flows: Mapping[str, ColumnData], counted: NDArray[np.bool_]) -> dict[str, float]:
    reason = flows["reason"]
    assert isinstance(reason, Categories)
    counts = np.bincount(reason.codes[counted], minlength=len(reason.names))
    by_name = dict(zip(reason.names, counts.tolist(), strict=False))
    return {reason_measure(name): float(by_name.get(name, 0)) for name in REASONS if name}


def _hop_figures(name: str, sample: NDArray[np.generic]) -> dict[str, float]:
    if not len(sample):
        return {f"{name}_{figure}": float("nan") for figure in ("mean", "p50", "max")}
    counts = np.bincount(sample.astype(np.int64))
    values = np.arange(len(counts))
    cumulative = np.cumsum(counts)
    low, high = (int(np.searchsorted(cumulative, rank)) for rank in ((len(sample) + 1) // 2, len(sample) // 2 + 1))
    mean = float((values * counts).sum()) / len(sample)
    return {f"{name}_mean": mean, f"{name}_p50": (low + high) / 2, f"{name}_max": float(len(counts) - 1)}


def _quantiles_us(sample_ps: NDArray[np.generic]) -> tuple[float, float]:
    if not len(sample_ps):
        return float("nan"), float("nan")
    p50, p99 = np.quantile(sample_ps.astype(np.float64), (0.5, 0.99))
    return float(p50) / PS_PER_US, float(p99) / PS_PER_US


def _share(part: float, whole: float) -> float:
    return float(part) / whole if whole else float("nan")


def _array(table: Mapping[str, ColumnData], name: str) -> NDArray[np.generic]:
    column = table[name]
    assert not isinstance(column, Categories)
    return column


def _is(table: Mapping[str, ColumnData], name: str, value: str) -> NDArray[np.bool_]:
    column = table[name]
    assert isinstance(column, Categories)
    matching = np.array([candidate == value for candidate in column.names], dtype=bool)
    return np.asarray(matching[column.codes], dtype=bool)
