"""What an experiment says: its frames, its summary, the differences between its variants."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from simnet.analysis.differences import paired_differences
from simnet.analysis.events import event_sentences, summarise_events
from simnet.analysis.findings import conclusions
from simnet.analysis.measures import MEASURES, measure_flows, measure_spread
from simnet.analysis.summary import hop_distribution, shares_by, summarise
from simnet.model.recording import FLOWS, LOAD, Column
from simnet.results import store
from simnet.results.frames import columns_of, to_frame
from simnet.results.recorded_runs import RecordedRuns


class Result(RecordedRuns):
    """The runs of an experiment and what they say.

    `summary`, `differences` and `measures` come from the figures that each run stored, without reading its
    flows.
    """

    @property
    def measures(self) -> pd.DataFrame:
        """A row a run: run, variant, repeat, swept variables, then simnet.analysis.measures.MEASURES."""
        if "measures" not in self._frames:
            front = self.index[["run", "variant", "repeat", *self.sweep]]
            figures = pd.DataFrame([self._measures_of(m) for m in self.manifests], dtype="float64")
            self._frames["measures"] = pd.concat([front, figures[[c.name for c in MEASURES]]], axis=1)
        return self._frames["measures"]

    def _measures_of(self, manifest: Mapping[str, Any]) -> dict[str, float]:
        stored = manifest["measures"]
        names = [column.name for column in MEASURES]
        # A run of an older version that kept no flows: what it did not measure is not known, what it did is.
        if stored is not None and (set(names) <= set(stored) or "flows.parquet" not in manifest["files"]):
            return {name: float("nan") if stored.get(name) is None else float(stored[name]) for name in names}
        flows, load = self._columns(manifest, "flows", FLOWS), self._columns(manifest, "load", LOAD)
        return {**measure_flows(flows), **measure_spread(load)}

    def _columns(self, manifest: Mapping[str, Any], name: str, columns: tuple[Column, ...]) -> Any:
        return columns_of(to_frame([self.run_table(manifest, name)]), columns)

    @property
    def summary(self) -> pd.DataFrame:
        """A row per variant and sweep point: simnet.analysis.summary.summarise."""
        if "summary" not in self._frames:
            self._frames["summary"] = summarise(self.measures, self.sweep)
        return self._frames["summary"]

    @property
    def differences(self) -> pd.DataFrame:
        """A row per sweep point, pair of variants and measure:
        simnet.analysis.differences.paired_differences.
        """
        if "differences" not in self._frames:
            self._frames["differences"] = paired_differences(self.measures, self.sweep)
        return self._frames["differences"]

    @property
    def hop_shares(self) -> pd.DataFrame:
        """The share of flows per number of hops: simnet.analysis.summary.hop_distribution."""
        if "hop_shares" not in self._frames:
            self._frames["hop_shares"] = hop_distribution(self.hops, self.sweep)
        return self._frames["hop_shares"]

    def shares(self, by: str) -> pd.DataFrame:
        """Each pod's, serving node's, entry node's or link's share of connections:
        simnet.analysis.summary.shares_by.
        """
        if f"shares {by}" not in self._frames:
            self._frames[f"shares {by}"] = shares_by(self.load, by, self.sweep)
        return self._frames[f"shares {by}"]

    @property
    def conclusions(self) -> list[str]:
        """Plain sentences on which variant is better at what: simnet.analysis.findings.conclusions."""
        return conclusions(self.summary, self.differences, has_queues=len(self.latency) > 0)

    @property
    def event_summary(self) -> pd.DataFrame:
        """A row per variant, sweep point and event: simnet.analysis.events.summarise_events."""
        if "event_summary" not in self._frames:
            self._frames["event_summary"] = summarise_events(self.events, self.index, self.sweep)
        return self._frames["event_summary"]

    @property
    def event_sentences(self) -> list[str]:
        """A plain sentence per event, on how soon tables followed and what was lost, broken and moved."""
        return event_sentences(self.event_summary)

    def write_summary(self) -> Path:
        """Write `summary.csv` into the result folder and return its path."""
        if self.path is None:
            raise ValueError("a result held in memory has no folder to write to")
        return store.write_text(self.path / "summary.csv", self.summary.to_csv(index=False, lineterminator="\n"))

    def _repr_html_(self) -> str:
        shown = ["variant", *self.sweep, "repeats", "l3_hops_mean", "cross_node_share", "snat_share", "pod_cov"]
        table = self.summary[shown].head(12).to_html(index=False, float_format="{:.3g}".format, border=0)
        return f"<p>{escape(repr(self))}</p>{table}"


def load_results(path: Path | str) -> Result:
    """Open a result folder; ResultError says what is missing, damaged or of another version, and what to
    do.
    """
    return Result.open(path)
