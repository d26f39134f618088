"""The blast radius of events over repeats: a row per variant, sweep point and event, and a sentence per event.

An event that the file names happens in every repeat; those that come at random are another in each, so all of a kind
are one row: their mean over each run, then over runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from simnet.analysis.differences import number
from simnet.analysis.intervals import t_interval
from simnet.units import PS_PER_S

TIMES = ("time_to_notice", "time_to_withdraw", "time_to_repair")  # in the events frame `_ps`, here `_s`
COUNTS = (
    "packets_dropped", "packets_rejected", "packets_lost", "answers_lost", "flows_failed", "flows_broken",
    "flows_interrupted", "flows_moved_pod", "flows_moved_way",
)  # fmt: skip
FATES = COUNTS[:3]
LEAST_S = 0.1  # told in seconds; shorter times in milliseconds
_IDENTITY = ("name", "kind", "target", "at_random", "start_s", "end_s")
_EFFECTS = {  # column -> how a sentence calls it
    "packets": "request packets lost",
    "answers_lost": "answers lost",
    "flows_failed": "flows that never came through",
    "flows_broken": "flows broken off",
    "flows_interrupted": "flows interrupted",
    "flows_moved_pod": "flows moved to another pod",
    "flows_moved_way": "flows moved to another way",
}


def summarise_events(events: pd.DataFrame, index: pd.DataFrame, sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Return a row per variant, sweep point and event, in order of time; random ones of a kind are one row.

    Columns: variant, swept variables, name, kind, target, at_random, start_s, end_s (NaN: never, or at random),
    `events` (a run, on average), then for each of `TIMES` in seconds, `packets` (request packets that came to nothing)
    and each of `COUNTS` the mean per event, and `_low`, `_high`, its 95 % interval of Student's t over repeats. A time
    that an event never had counts in no mean: `<time>_events` says in how many it did.

    `events`, `index` : frames of a Result; the index tells of runs in which nothing happened
    """
    keys = ["variant", *sweep]
    runs = {key: len(group) for key, group in index.groupby(keys, observed=True, sort=False)}
    figures = _figures(events)
    rows = []
    for key, group in figures.groupby([*keys, *_IDENTITY], observed=True, sort=False, dropna=False):
        point = key[: len(keys)]
        rows.append({**dict(zip([*keys, *_IDENTITY], key, strict=True)), **_row(group, runs[point])})
    columns = [*keys, *_IDENTITY, "events", *(c for name in _NAMES for c in (name, f"{name}_low", f"{name}_high"))]
    return pd.DataFrame(rows, columns=[*columns, *(f"{name}_events" for name in TIMES)])


_NAMES = (*(f"{name}_s" for name in TIMES), "packets", *COUNTS)


def _figures(events: pd.DataFrame) -> pd.DataFrame:
    random = events["at_random"].to_numpy(dtype=bool)
    columns: dict[str, Any] = {name: np.where(random, "", events[name].astype(str)) for name in ("name", "target")}
    for name in ("start", "end"):
        instant = events[f"{name}_ps"].to_numpy(dtype=np.float64)
        columns[f"{name}_s"] = np.where(random | (instant < 0), np.nan, instant / PS_PER_S)
    for name in TIMES:
        span = events[f"{name}_ps"].to_numpy(dtype=np.float64)
        columns[f"{name}_s"] = np.where(span < 0, np.nan, span / PS_PER_S)
    columns["packets"] = events[list(FATES)].sum(axis=1)
    made = events.assign(**columns)
    made.loc[random, "name"] = made.loc[random, "kind"].astype(str) + " (at random)"
    return made


def _row(group: pd.DataFrame, repeats: int) -> dict[str, float]:
    row: dict[str, float] = {"events": len(group) / repeats}
    by_run = group.groupby("run", observed=True, sort=False)
    for name in _NAMES:
        interval = t_interval(by_run[name].mean().dropna().to_numpy(dtype=np.float64))
        row[name], row[f"{name}_low"], row[f"{name}_high"] = interval.mean, max(0.0, interval.low), interval.high
        if np.isnan(interval.low):
            row[f"{name}_low"] = np.nan
    for name in TIMES:
        row[f"{name}_events"] = int(group[f"{name}_s"].notna().sum())
    return row


def event_sentences(summary: pd.DataFrame) -> list[str]:
    """Return a sentence per event, of what `summarise_events` made; over a sweep it gives the range of the means."""
    groups = summary.groupby(["kind", "target", "name", "start_s", "end_s"], observed=True, sort=False, dropna=False)
    return [_sentence(group) for _, group in groups]


def _sentence(rows: pd.DataFrame) -> str:
    effects = []
    for column, name in _EFFECTS.items():
        if column == "flows_failed" and (rows[column] == rows["packets"]).all():
            continue  # flows of one packet
        if rows[column].any():
            per_variant = rows.groupby("variant", observed=True, sort=False)
            effects.append(f"{name}: {', '.join(f'{v} {_mean(mine, column)}' for v, mine in per_variant)}")
    times = ", ".join(_times(rows))
    return f"{_title(rows)}: {'; '.join([times, *(effects or ['nothing was lost'])])}."


def _title(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    if first["at_random"]:
        return f"{first['name']}, {_range(rows['events'])} a run, each on average"
    when = f"at {number(first['start_s'])} s"
    if first["end_s"] == first["end_s"]:
        when = f"from {number(first['start_s'])} to {number(first['end_s'])} s"
    label = f"{first['kind']}: {first['target']}"
    return f"{first['name']} ({when})" if first["name"] == label else f"{first['name']} ({label}, {when})"


def _times(rows: pd.DataFrame) -> Iterator[str]:
    """When tables followed, and when they were as before."""
    some = rows[rows["time_to_withdraw_events"] > 0]
    if some.empty:
        yield "no table changed before its end"
    else:
        partly = "" if len(some) == len(rows) else " where any did"
        yield f"tables had followed{partly} after {_mean(some, 'time_to_withdraw_s')}"
    back = rows[rows["time_to_repair_events"] > 0]
    if not back.empty and back["time_to_repair_s"].any():
        yield f"and were as before {_mean(back, 'time_to_repair_s')} after its end"
    elif back.empty and rows["end_s"].notna().any():
        yield "and were not as before when the run ended"


def _mean(rows: pd.DataFrame, column: str) -> str:
    """A mean with its interval, or the range of means over sweep points (or variants)."""
    low, high = float(rows[column].min()), float(rows[column].max())
    factor, unit = 1, ""
    if column.endswith("_s"):
        factor, unit = (1, " s") if high >= LEAST_S else (1000, " ms")
    if low != high:
        return f"{number(factor * low)} to {number(factor * high)}{unit}"
    first = rows.iloc[0]
    ends = [factor * float(first[f"{column}_{end}"]) for end in ("low", "high")]
    mean, least, most = (number(figure) for figure in (factor * low, *ends))
    if np.isnan(ends).any() or least == most:
        return f"{mean}{unit}"
    return f"{mean}{unit} (95 % CI {least} to {most})"


def _range(values: pd.Series) -> str:
    low, high = number(float(values.min())), number(float(values.max()))
    return low if low == high else f"{low} to {high}"
