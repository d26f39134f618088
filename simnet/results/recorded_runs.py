"""The frames of an experiment's runs, put together; the big ones are read when they are first asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow as pa

from simnet.errors import ResultError
from simnet.model.recording import TABLES, Recording
from simnet.results import store
from simnet.results.frames import (
    SweepValue,
    arrow_table,
    empty_columns,
    run_column_names,
    to_frame,
    with_run_columns,
)
from simnet.results.parquet import read_table
from simnet.results.store import RunDescription


class RecordedRuns:
    """Frames over all runs of an experiment, with run, variant, repeat and one column a swept variable in
    front.

    Either read from a result folder (`open`) or held in memory (`from_recordings`); both give equal frames.
    """

    def __init__(
        self,
        manifests: Sequence[Mapping[str, Any]],
        *,
        path: Path | None = None,
        recordings: Mapping[str, Recording] | None = None,
    ) -> None:
        self.path = path  # the result folder; None: held in memory only
        self.manifests = list(manifests)  # one a run, in order of the index
        self._recordings = dict(recordings or {})
        self._frames: dict[str, pd.DataFrame] = {}

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a result folder; ResultError says what is wrong with it and what to do."""
        folder = Path(path)
        if not folder.is_dir():
            raise ResultError(
                f"{folder}\n  found:    no such folder\n"
                "  expected: a result folder, made by `simnet run EXPERIMENT --out DIR`\n"
                "  fix:      check the path, or run the experiment"
            )
        runs = store.indexed_runs(folder)
        if not runs:
            raise ResultError(
                f"{folder}\n  found:    no finished run\n"
                "  expected: a result folder with runs/<id>/manifest.json\n"
                "  fix:      run the experiment; one that was interrupted goes on where it stopped"
            )
        return cls([store.read_manifest(folder, run) for run in runs], path=folder)

    @classmethod
    def from_recordings(cls, runs: Iterable[tuple[RunDescription, Recording]]) -> Self:
        """Make a result of recordings held in memory."""
        manifests, recordings = [], {}
        for run, recording in runs:
            recordings[run.id] = recording
            manifests.append(
                {
                    "id": run.id,
                    "variant": run.variant,
                    "repeat": run.repeat,
                    "seed": run.seed,
                    "sweep": dict(run.sweep),
                    "totals": dict(recording.totals),
                    "measures": None,
                    "manifest": dict(run.manifest),
                }
            )
        if not manifests:
            raise ResultError("a result needs at least one run")
        return cls(manifests, recordings=recordings)

    @property
    def sweep(self) -> list[str]:
        """The swept variables, in the experiment's order."""
        return list(dict.fromkeys(name for manifest in self.manifests for name in manifest["sweep"]))

    @property
    def variants(self) -> list[str]:
        """The variants, in the experiment's order."""
        return list(dict.fromkeys(str(manifest["variant"]) for manifest in self.manifests))

    @property
    def index(self) -> pd.DataFrame:
        """A row a run: run, variant, repeat, swept variables, seed, packet totals."""
        if "index" not in self._frames:
            rows = [store.index_row(manifest) for manifest in self.manifests]
            frame = pd.DataFrame(rows)
            front = run_column_names(self.sweep)
            frame = frame[front + [name for name in frame.columns if name not in front]]
            frame["repeat"] = frame["repeat"].astype("int32")
            for name in (
                "run",
                "variant",
                *(n for n in self.sweep if any(isinstance(value, str) for value in frame[n])),
            ):
                frame[name] = frame[name].astype(str).astype("category")
            self._frames["index"] = frame
        return self._frames["index"]

    @property
    def flows(self) -> pd.DataFrame:
        """A row a flow; columns as `simnet.model.recording.FLOWS`."""
        return self._frame("flows")

    @property
    def packets(self) -> pd.DataFrame:
        """A row a packet; empty unless the experiment says `record: packets`."""
        return self._frame("packets")

    @property
    def load(self) -> pd.DataFrame:
        """Connections, packets and bytes of each entry node, serving node, pod and link direction."""
        return self._frame("load")

    @property
    def hops(self) -> pd.DataFrame:
        """How many flows and packets took how many hops."""
        return self._frame("hops")

    @property
    def stations(self) -> pd.DataFrame:
        """Utilisation, queue, arrivals and drops of each station over time; empty of runs without queues."""
        return self._frame("stations")

    @property
    def latency(self) -> pd.DataFrame:
        """Percentiles of latency and the means of its parts, run by run; empty of runs without queues."""
        return self._frame("latency")

    @property
    def latency_distribution(self) -> pd.DataFrame:
        """How many packets had which latency, run by run; empty of runs without queues."""
        return self._frame("latency_distribution")

    @property
    def latency_over_time(self) -> pd.DataFrame:
        """Mean latency by time of sending, run by run; empty of runs without queues."""
        return self._frame("latency_over_time")

    @property
    def calls(self) -> pd.DataFrame:
        """A row a call of clients that wait for answers; empty of others, and with `record: summary`."""
        return self._frame("calls")

    @property
    def events(self) -> pd.DataFrame:
        """What each event broke, moved and lost, and how soon tables followed; empty of runs without events."""
        return self._frame("events")

    @property
    def event_effects(self) -> pd.DataFrame:
        """Packets lost, flows broken and moved, by event and reason; event -1: outside of every event's window."""
        return self._frame("event_effects")

    @property
    def losses_over_time(self) -> pd.DataFrame:
        """Packets and answers lost by when and why; empty of runs without events."""
        return self._frame("losses_over_time")

    @property
    def table_changes(self) -> pd.DataFrame:
        """Which box learned or lost which route when, and because of which event."""
        return self._frame("table_changes")

    @property
    def links(self) -> pd.DataFrame:
        """`load` of the link directions, with `a` and `b`, the ends it runs from and to."""
        if "links" not in self._frames:
            frame = self.load[self.load["where"] == "link"].drop(columns=["where", "expected_share"])
            ends = frame["name"].astype(str).str.partition("->")
            frame.insert(list(frame.columns).index("name") + 1, "a", ends[0].astype("category"))
            frame.insert(list(frame.columns).index("name") + 2, "b", ends[2].astype("category"))
            self._frames["links"] = frame.reset_index(drop=True)
        return self._frames["links"]

    def topology(self, variant: str | None = None, **sweep: SweepValue) -> dict[str, Any]:
        """The fabric of the first run that fits (results/topology.py); ResultError where the runs kept
        none.
        """
        for manifest in self.manifests:
            fits = variant is None or manifest["variant"] == variant
            fits &= all(manifest["sweep"].get(name) == value for name, value in sweep.items())
            if fits and "topology" in manifest["manifest"]:
                return dict(manifest["manifest"]["topology"])
        raise ResultError("no run with this variant and sweep point kept the topology of its fabric")

    def run_table(self, manifest: Mapping[str, Any], name: str) -> pa.Table:
        """Return one table of one run as Arrow, checked; empty with all columns where it was not recorded."""
        columns = TABLES[name]
        if self.path is None:
            recorded = self._recordings[manifest["id"]].tables.get(name)
            return arrow_table(columns, recorded if recorded is not None else empty_columns(columns))
        folder = self.path / "runs" / manifest["id"]
        files = [f for f in sorted(manifest["files"]) if f == f"{name}.parquet" or f.startswith(f"{name}/")]
        if not files:
            return arrow_table(columns, empty_columns(columns))
        return pa.concat_tables(read_table(store.check_file(folder, file, manifest), columns) for file in files)

    def _frame(self, name: str) -> pd.DataFrame:
        if name not in self._frames:
            sweep = self._sweep_as_one_type()
            tables = [
                with_run_columns(self.run_table(m, name), m["id"], m["variant"], m["repeat"], values)
                for m, values in zip(self.manifests, sweep, strict=True)
            ]
            self._frames[name] = to_frame(tables)
        return self._frames[name]

    def _sweep_as_one_type(self) -> list[dict[str, SweepValue]]:
        """Each run's swept values, such that a variable has one type in all runs: a number, or else text."""
        points: list[dict[str, SweepValue]] = [{} for _ in self.manifests]
        for name in self.sweep:
            values = [manifest["sweep"].get(name, "") for manifest in self.manifests]
            kinds = {type(value) for value in values}
            for point, value in zip(points, values, strict=True):
                if kinds <= {int} or kinds <= {bool}:
                    point[name] = value
                elif kinds <= {int, float}:
                    point[name] = float(value)
                else:
                    point[name] = value if isinstance(value, str) else json.dumps(value)
        return points

    def __repr__(self) -> str:
        where = f" in {self.path}" if self.path is not None else " in memory"
        swept = f", swept {', '.join(self.sweep)}" if self.sweep else ""
        variants = ", ".join(self.variants)
        return f"{type(self).__name__}({len(self.manifests)} runs of {variants}{swept}{where})"
