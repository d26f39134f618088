"""Flows by when they began: how many got no answer, and who took them; a run is a sample, a flow is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simnet.analysis.intervals import t_interval
from simnet.units import PS_PER_S

LEAST_BINS = 50


def bins_s(flows: pd.DataFrame, width_s: float | None = None) -> NDArray[np.float64]:
    """Return the edges of bins in seconds, from 0; a width that is left out is 1, 2 or 5 times a power of ten.

    A last bin that the traffic fills by less than half is left out, for a share of few flows says little.
    """
    end_s = max(1, int(flows["start_ps"].max())) / PS_PER_S
    if width_s is None:
        power = 10 ** np.floor(np.log10(end_s / LEAST_BINS))
        width_s = float(max(step * power for step in (1, 2, 5) if end_s / (step * power) >= LEAST_BINS))
    return (width_s * np.arange(max(1, int(np.floor(end_s / width_s + 0.5))) + 1)).astype(np.float64)


def losses_over_time(flows: pd.DataFrame, edges_s: NDArray[np.float64]) -> pd.DataFrame:
    """Return a row per variant and bin: `start_s`, then `lost_share`, mean over runs, with `_low` and `_high`.

    The interval is Student's over runs, cut to [0, 1]; NaN with one run. A run without a flow in
    a bin does not count there.
    """
    rows = []
    for variant, mine in flows.groupby("variant", observed=True, sort=False):
        lost = ~mine["answered"].to_numpy(dtype=bool)
        shares = _by_run(mine, edges_s, lost.astype(float)) / _positive(_by_run(mine, edges_s, np.ones(len(mine))))
        rows += _rows(shares, edges_s, "lost_share", {"variant": variant}, 1.0)
    return pd.DataFrame(rows)


def load_over_time(flows: pd.DataFrame, by: str, edges_s: NDArray[np.float64], names: Sequence[str]) -> pd.DataFrame:
    """Return a row per name in `by` and bin: `start_s`, `connections_per_s` (mean over runs), `_low`, `_high`."""
    width_s = float(edges_s[1] - edges_s[0])
    rows = []
    for name in names:
        chosen = (flows[by].astype(str) == name).to_numpy()
        rates = _by_run(flows, edges_s, chosen.astype(float)) / width_s
        rows += _rows(rates, edges_s, "connections_per_s", {by: name}, np.inf)
    return pd.DataFrame(rows)


def packets_lost_over_time(losses: pd.DataFrame, runs: int) -> pd.DataFrame:
    """Return request packets lost a second, mean over runs, by reason and time, the commonest reason first.

    `losses` : frame `losses_over_time` of `runs` runs of equal length. Columns: `reason`, `start_s`, `end_s` of a bin,
    `packets_per_s`; bins without a loss have no row, and what was lost after the run's end is left out.
    """
    mine = losses[(losses["effect"] == "packets") & (losses["end_ps"] >= 0)]
    totals = mine.groupby("reason", observed=True)["count"].sum().sort_values(ascending=False, kind="stable")
    summed = mine.groupby(["reason", "start_ps", "end_ps"], observed=True)["count"].sum().reset_index()
    start_s, end_s = summed["start_ps"] / PS_PER_S, summed["end_ps"] / PS_PER_S
    table = pd.DataFrame(
        {
            "reason": pd.Categorical(summed["reason"].astype(str), categories=[str(each) for each in totals.index]),
            "start_s": start_s,
            "end_s": end_s,
            "packets_per_s": summed["count"] / (runs * (end_s - start_s)),
        }
    )
    return table.sort_values(["reason", "start_s"], ignore_index=True)


def _by_run(flows: pd.DataFrame, edges_s: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of `weight`: [run, bin]."""
    runs, run_names = pd.factorize(flows["run"])
    place = np.searchsorted(edges_s * PS_PER_S, flows["start_ps"].to_numpy(), side="right") - 1
    count, inside = len(edges_s) - 1, place < len(edges_s) - 1
    cell = runs[inside] * count + place[inside]
    sums = np.bincount(cell, weight[inside], len(run_names) * count).astype(np.float64)
    return sums.reshape(len(run_names), count)


def _positive(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(counts > 0, counts, np.nan)


def _rows(
    values: NDArray[np.float64], edges_s: NDArray[np.float64], name: str, front: dict[str, Any], most: float
) -> list[dict[str, Any]]:
    rows = []
    for start_s, sample in zip(edges_s, values.T, strict=False):  # edges are one more
        mean = t_interval(sample)
        low, high = np.clip([mean.low, mean.high], 0.0, most)
        rows.append({**front, "start_s": start_s, name: mean.mean, f"{name}_low": low, f"{name}_high": high})
    return rows
