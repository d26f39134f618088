"""Calls of clients that wait for answers: how many were answered, how often tried, what was worked in vain."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from simnet.analysis.intervals import t_interval

SHARES = {  # column -> numerator and denominator, totals of a run
    "answered_share": ("total_calls_answered", "total_calls"),
    "timed_out_share": ("total_calls_timed_out", "total_calls"),
    "tries_per_call": ("total_sent", "total_calls"),
    "late_share": ("total_answered_late", "total_sent"),
}


def call_summary(index: pd.DataFrame, sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Return a row per variant and sweep point, from a result's `index`; no row for runs without such clients.

    Columns: variant, swept variables, repeats, calls and answered (sums over repeats), then answered_share,
    timed_out_share, tries_per_call and late_share (transmissions answered after their client had given up), each the
    mean over repeats with _low and _high, Student's 95 % interval (NaN with one repeat). The warm-up counts.
    """
    keys = ["variant", *sweep]
    names = [f"{name}{bound}" for name in SHARES for bound in ("", "_low", "_high")]
    columns = [*keys, "repeats", "calls", "answered", *names]
    if "total_calls" not in index:
        return pd.DataFrame(columns=columns)
    rows = []
    for key, group in index.dropna(subset=["total_calls"]).groupby(keys, observed=True, sort=False):
        row: list[object] = [
            *key,
            len(group),
            int(group["total_calls"].sum()),
            int(group["total_calls_answered"].sum()),
        ]
        for part, whole in SHARES.values():
            interval = t_interval((group[part] / group[whole]).to_numpy(dtype=float))
            row += [interval.mean, interval.low, interval.high]
        rows.append(row)
    return pd.DataFrame(rows, columns=columns)
