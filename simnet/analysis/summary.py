"""A row per variant and sweep point: every measure with its interval over the repeats.

`measures` is a row a run (run, variant, repeat, swept variables, then simnet.analysis.measures.MEASURES). For
a measure m the summary has m (mean over repeats), m_low and m_high (95 % interval of Student's t; NaN with
one repeat, since one run has no spread to judge by). A share that is 0 or 1 in every repeat gets Wilson's
bounds over all its flows instead of a point.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from simnet.analysis.intervals import Interval, t_interval, wilson
from simnet.analysis.measures import (
    FATES,
    MEASURES,
    PLACES,
    SHARE_OF,
    SHARES,
    measure_flows,
    measure_spread,
    reason_measure,
)
from simnet.analysis.spread import chi_square_p
from simnet.model.recording import FLOWS, LOAD, REASONS
from simnet.results.frames import columns_of

# Sums over all repeats: counts of what happened, which need no interval.
TOTALS = (
    "flows",
    *(f"packets_{fate}" for fate in FATES),
    "reply_packets",
    *(reason_measure(reason) for reason in REASONS if reason),
    *(f"{place}_connections" for place in PLACES),
)
_POOLED = tuple(f"{place}_{name}" for place in PLACES for name in ("chi2", "chi2_df", "chi2_valid"))
_FIXED = tuple(f"{place}_count" for place in PLACES)


def measure_frames(flows: pd.DataFrame, load: pd.DataFrame, sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Return the measures, a row a run, of frames with run, variant and repeat in front."""
    keys = ["run", "variant", "repeat", *sweep]
    rows = []
    flows_of_run = dict(list(flows.groupby("run", observed=True, sort=False)))
    for run, part in load.groupby("run", observed=True, sort=False):
        mine = flows_of_run.get(run, flows.iloc[:0])
        first = part.iloc[0]
        rows.append(
            {key: first[key] for key in keys}
            | measure_flows(columns_of(mine, FLOWS))
            | measure_spread(columns_of(part, LOAD))
        )
    return pd.DataFrame(rows, columns=[*keys, *(column.name for column in MEASURES)])


def summarise(measures: pd.DataFrame, sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Return a row per variant and sweep point, in order of first appearance.

    Columns: variant, the swept variables, `repeats`, the totals over all repeats (`TOTALS`), then for each
    other measure its mean over repeats, `_low` and `_high`; for each place its number (`pod_count`) and
    `pod_chi2_p`, the chance of so much unevenness under the expected shares, from X^2 and df summed over the
    repeats (NaN where an expected count is below 5).
    """
    keys = ["variant", *sweep]
    plain = measures.assign(**{key: measures[key].astype(object) for key in keys})
    rows = [
        {**dict(zip(keys, key, strict=True)), **_row(group)}
        for key, group in plain.groupby(keys, sort=False, dropna=False)
    ]
    frame = pd.DataFrame(rows)
    for key in keys:
        if frame[key].map(lambda value: isinstance(value, str)).all():
            frame[key] = pd.Categorical(frame[key], categories=list(dict.fromkeys(frame[key])))
        else:
            frame[key] = frame[key].infer_objects()
    return frame


def _row(group: pd.DataFrame) -> dict[str, float]:
    row: dict[str, float] = {"repeats": len(group)}
    delivered = float(np.nansum(group["flows"] * group["delivered_share"]))
    trials = {"flows": float(group["flows"].sum()), "delivered": delivered}
    for name in TOTALS:
        row[name] = float(group[name].sum())
    for column in MEASURES:
        name = column.name
        if name in TOTALS or name in _POOLED:
            continue
        values = group[name].to_numpy(dtype=np.float64)
        if name in _FIXED:
            row[name] = float(values.max())
            continue
        interval = _interval(name, values, trials)
        row[name], row[f"{name}_low"], row[f"{name}_high"] = interval.mean, interval.low, interval.high
    for place in PLACES:
        valid = bool(group[f"{place}_chi2_valid"].all())
        chi2, df = float(group[f"{place}_chi2"].sum()), float(group[f"{place}_chi2_df"].sum())
        row[f"{place}_chi2_p"] = chi_square_p(chi2, df) if valid else float("nan")
    return row


def _interval(name: str, values: np.ndarray[tuple[int], np.dtype[np.float64]], trials: dict[str, float]) -> Interval:
    interval = t_interval(values)
    if np.isnan(interval.low):
        return interval
    if name not in SHARES:  # no measure can be negative, nor can its bound
        return Interval(interval.mean, max(0.0, interval.low), interval.high)
    if interval.mean in (0.0, 1.0):  # never seen, or always: runs do not vary, yet a rare exception may exist
        n = trials[SHARE_OF[name]]
        return wilson(interval.mean * n, n)
    return Interval(interval.mean, max(0.0, interval.low), min(1.0, interval.high))


def hop_distribution(hops: pd.DataFrame, sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Return the share of flows per number of hops: tidy, a row a variant, sweep point, direction and number.

    Columns: variant, swept variables, direction, `measure` (l3_hops or links), `count`, flows over all
    repeats, share (mean over repeats), share_low, share_high.
    """
    keys = ["variant", *sweep, "direction"]
    rows = []
    for key, group in hops.groupby(keys, observed=True, sort=False):
        runs = list(dict.fromkeys(group["run"]))
        for measure in ("l3_hops", "links"):
            counts = group.groupby(["run", measure], observed=True)["flows"].sum().unstack(fill_value=0).loc[runs]
            shares = counts.div(counts.sum(axis=1).where(lambda n: n > 0), axis=0)
            for number in sorted(counts.columns):
                interval = t_interval(shares[number].to_numpy())
                low, high = interval.low, interval.high
                if not np.isnan(low):
                    low, high = max(0.0, low), min(1.0, high)
                flows = int(counts[number].sum())
                rows.append([*key, measure, int(number), flows, interval.mean, low, high])
    names = [*keys, "measure", "count", "flows", "share", "share_low", "share_high"]
    return pd.DataFrame(rows, columns=names)


def shares_by(load: pd.DataFrame, place: str, sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Return each name's share of the connections of its run: a row a variant, sweep point and name.

    Columns: variant, swept variables, name, connections (all repeats), share (mean over repeats), share_low,
    share_high, expected_share (mean over repeats; NaN where there is no closed form), n (connections of the
    place, all repeats).
    """
    keys = ["variant", *sweep]
    chosen = load[load["where"] == place]
    totals = chosen.groupby("run", observed=True)["connections"].sum()
    share = chosen["connections"] / chosen["run"].map(totals).astype(float)
    chosen = chosen.assign(share=share)
    rows = []
    for key, group in chosen.groupby([*keys, "name"], observed=True, sort=False):
        interval = t_interval(group["share"].to_numpy())
        n = int(totals.loc[list(dict.fromkeys(group["run"]))].sum())
        connections, expected = int(group["connections"].sum()), group["expected_share"].mean(skipna=False)
        figures = (interval.mean, interval.low, interval.high, float(expected), n)
        rows.append([*key, connections, *figures])
    names = [*keys, "name", "connections", "share", "share_low", "share_high", "expected_share", "n"]
    return pd.DataFrame(rows, columns=names)
