"""Latency over repeats: percentiles and parts with intervals, the pooled distribution, where the warm-up ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from simnet.analysis.intervals import t_interval
from simnet.analysis.warmup import WarmupCut, mser5
from simnet.units import PS_PER_US

QUANTILES = ("p50", "p90", "p95", "p99", "p999")
FIGURES = ("mean", *QUANTILES, "max")


def latency_summary(latency: pd.DataFrame, sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Return latency by variant, sweep point and part, in microseconds: means over runs with Student's intervals.

    `latency` is a result's frame. A percentile is that of each run, averaged over runs; runs are the sample. Columns:
    variant, swept variables, of, part, repeats, packets (all runs), then for every figure F of FIGURES F_us, F_us_low,
    F_us_high (NaN with one run, and for the percentiles of a part).
    """
    keys = ["variant", *sweep, "of", "part"]
    rows = []
    for key, group in latency.groupby(keys, observed=True, sort=False):
        row: list[object] = [*key, len(group), int(group["packets"].sum())]
        for figure in FIGURES:
            values = group[f"{figure}_ps"].to_numpy(dtype=np.float64)
            interval = t_interval(np.where(values < 0, np.nan, values) / PS_PER_US)
            row += [interval.mean, interval.low, interval.high]
        rows.append(row)
    names = [f"{figure}_us{bound}" for figure in FIGURES for bound in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*keys, "repeats", "packets", *names])


def pooled_distribution(distribution: pd.DataFrame, sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Return the distribution of latency over all runs of a variant and sweep point.

    Columns: variant, swept variables, of, at_most_us, packets, above (share of packets that took longer).
    """
    keys = ["variant", *sweep, "of"]
    pooled = distribution.groupby([*keys, "at_most_ps"], observed=True, sort=True)["packets"].sum().reset_index()
    groups = pooled.groupby(keys, observed=True, sort=False)["packets"]
    pooled["above"] = 1 - groups.cumsum() / groups.transform("sum")
    pooled.insert(len(keys), "at_most_us", pooled.pop("at_most_ps") / PS_PER_US)
    return pooled


def warmup_of(over_time: pd.DataFrame) -> tuple[pd.Series, WarmupCut]:
    """Return mean latency by time of sending (us, mean over the runs of the frame) and MSER-5's cut of that series.

    The index is the start of each bin in picoseconds; the cut counts bins.
    """
    series = over_time.groupby("start_ps")["mean_ps"].mean() / PS_PER_US
    known = series.dropna()
    return known, mser5(known.to_numpy())
