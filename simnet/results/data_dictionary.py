"""`docs/data-dictionary.md`, made from the definitions of the columns (see simnet.analysis.dictionary)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from simnet.model.recording import REASONS, RUN_COLUMNS, TABLES, VERDICTS, Column
from simnet.results.frames import SCHEMA_VERSION
from simnet.results.store import FOLDER_VERSION

_ABOUT = {
    "flows": "A row a flow. `record: packets` and `record: flows` keep it.",
    "packets": "A row a request packet. Only `record: packets` keeps it, in `packets/part-*.parquet`.",
    "load": "Connections, packets and bytes by place; every candidate has a row, also one that got nothing.",
    "hops": "How many flows and packets took how many hops.",
    "stations": "A row a station and bin of time, of runs with queues: links, cores of nodes, pods.",
    "latency": "Latency and what it is made of, of runs with queues.",
    "latency_distribution": "How many packets had which latency, of runs with queues.",
    "latency_over_time": "Mean latency by time of sending, of runs with queues: shows where the warm-up ends.",
    "calls": "A row a call of clients that wait for answers (docs/models/closed-loop.md); not with `record: summary`.",
    "events": "A row an event of a run: its blast radius, the warm-up included (docs/models/events.md).",
    "event_effects": "The same by reason, and what is no event's: a row an event, effect, verdict and reason.",
    "losses_over_time": "Packets and answers lost by when and why, of runs with events, the warm-up included.",
    "table_changes": "A row a route that a box learned, lost or sends elsewhere, of runs with events.",
}


def data_dictionary(tables: Mapping[str, Sequence[Column]] = TABLES, measures: Sequence[Column] = ()) -> str:
    """Return the data dictionary as Markdown; `measures` are the columns of the summary, which `analysis` defines."""
    lines = [
        "# Data dictionary",
        "",
        "Made from the code by `python -m simnet.analysis.dictionary`; a test holds it to the frames. Do not edit.",
        "",
        f"Tables of version {SCHEMA_VERSION}, folders of version {FOLDER_VERSION}. dtype is numpy's; `category` is a",
        "name kept as a code. Time is int64 picoseconds. Unit and meaning are in the Parquet files' metadata too.",
        "",
        "## In front of every frame of a Result",
        "",
        *_table(RUN_COLUMNS),
        "| one a swept variable | as its values | | named as in `sweep:` |",
        "",
    ]
    for name, columns in tables.items():
        lines += [f"## {name}", "", _ABOUT.get(name, ""), "", *_table(columns), ""]
    lines += ["Verdicts: " + ", ".join(f"`{v}`" for v in VERDICTS) + ".", ""]
    lines += ["Reasons: " + ", ".join(f"`{r}`" for r in REASONS if r) + ".", ""]
    if measures:
        lines += [
            "## measures and summary",
            "",
            "`measures` has a row a run. `summary` has a row a variant and sweep point: `repeats`; counts summed over",
            "repeats; for every other measure its mean over repeats and `<measure>_low`, `<measure>_high`, the 95 %",
            "interval of Student's t over repeats (NaN with one; Wilson's where a share is 0 or 1 in all of them);",
            "and `<place>_chi2_p`, the chance of so much unevenness under the expected shares, in place of `chi2*`.",
            "",
            *_table(measures),
            "",
        ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(columns: Iterable[Column]) -> list[str]:
    head = ["| column | dtype | unit | meaning |", "|---|---|---|---|"]
    return head + [f"| `{c.name}` | {c.dtype} | {c.unit} | {c.meaning} |" for c in columns]
