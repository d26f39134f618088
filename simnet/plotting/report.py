"""report.html: the answer, its figures and its limits, in one file that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from simnet.analysis.differences import number
from simnet.analysis.findings import NOT_MODELLED, WITHOUT_QUEUES
from simnet.analysis.result import Result
from simnet.plotting.figures import all_figures, rendered
from simnet.results.store import write_text

_MEASURES = (  # measure, heading, factor
    ("l3_hops_mean", "router hops", 1),
    ("links_mean", "wires", 1),
    ("cross_node_share", "cross-node %", 100),
    ("snat_share", "SNAT %", 100),
    ("source_hidden_share", "client hidden %", 100),
    ("pod_cov", "pods CoV", 1),
    ("entry_node_cov", "entry nodes CoV", 1),
    ("rules_scanned_mean", "rules scanned", 1),
    ("delay_mean_us", "delay mean us", 1),
    ("delay_p50_us", "delay p50 us", 1),
    ("delay_p99_us", "delay p99 us", 1),
    ("answered_share", "answered %", 100),
)
_EVENT_MEASURES = (
    ("time_to_withdraw_s", "tables had followed, s", 1),
    ("time_to_repair_s", "as before, s after its end", 1),
    ("packets", "request packets lost", 1),
    ("answers_lost", "answers lost", 1),
    ("flows_failed", "flows failed", 1),
    ("flows_broken", "flows broken", 1),
    ("flows_interrupted", "flows interrupted", 1),
    ("flows_moved_pod", "moved to another pod", 1),
    ("flows_moved_way", "moved to another way", 1),
)
_PLACES = (("pod", "pods"), ("serving_node", "serving nodes"), ("entry_node", "entry nodes"))


def write_report(result: Result, path: Path | str | None = None) -> Path:
    """Write the report of a result and return its path; default `report.html` in the result folder."""
    if path is None:
        if result.path is None:
            raise ValueError("a result held in memory needs a path for its report")
        path = result.path / "report.html"
    return write_text(Path(path), report_html(result))


def report_html(result: Result) -> str:
    """Return the report; every name in it is escaped."""
    first = result.manifests[0]["manifest"]
    figures = [
        (caption, Markup(inline_svg(rendered(figure, "svg").decode(), f"f{i}-")))
        for i, (_, caption, figure) in enumerate(all_figures(result))
    ]
    template = files("simnet.plotting").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    repeats = result.summary["repeats"]
    return environment.from_string(template).render(
        name=first.get("name", "simnet"),
        question=first.get("question", ""),
        runs=len(result.manifests),
        repeats=str(repeats.min()) if repeats.min() == repeats.max() else f"{repeats.min()} to {repeats.max()}",
        seeds=", ".join(map(str, sorted({m["seed"] for m in result.manifests})[:20])),
        conclusions=result.conclusions,
        event_sentences=result.event_sentences,
        event_headings=["event", "variant", *result.sweep, *(heading for _, heading, _ in _EVENT_MEASURES)],
        event_rows=_event_rows(result),
        figures=figures,
        headings=["variant", *result.sweep, *(heading for _, heading, _ in _MEASURES)],
        rows=_summary_rows(result),
        spread_headings=["variant", *result.sweep, "over", "E", "N", "CoV", "chance alone", "Jain", "max/mean",
                         "dispersion", "chi-square p"],
        spread_rows=_spread_rows(result),
        left_out_rules=first.get("left_out_rules", []),
        not_modelled=NOT_MODELLED if len(result.latency) else WITHOUT_QUEUES + NOT_MODELLED,
        gain=_gain(result),
    )  # fmt: skip


def _summary_rows(result: Result) -> list[list[str]]:
    return [
        [str(row["variant"]), *(str(row[name]) for name in result.sweep), *_cells(row, _MEASURES)]
        for row in result.summary.to_dict("records")
    ]


def _event_rows(result: Result) -> list[list[str]]:
    summary = result.event_summary.sort_values(["start_s", "name"], kind="stable")
    return [
        [str(row[name]) for name in ("name", "variant", *result.sweep)] + _cells(row, _EVENT_MEASURES)
        for row in summary.to_dict("records")
    ]


def _cells(row: Mapping[Hashable, Any], measures: Sequence[tuple[str, str, float]]) -> list[str]:
    """Means with their intervals; a dash where there is none."""
    cells = []
    for measure, _, factor in measures:
        value, low, high = (factor * float(row[f"{measure}{end}"]) for end in ("", "_low", "_high"))
        interval = "" if np.isnan(low) else f" [{number(low)}, {number(high)}]"
        cells.append("–" if np.isnan(value) else f"{number(value)}{interval}")
    return cells


def _spread_rows(result: Result) -> list[list[str]]:
    rows = []
    for row in result.summary.to_dict("records"):
        for place, many in _PLACES:
            figures = [
                row[f"{place}_{n}"] for n in ("cov", "noise_floor", "jain", "max_over_mean", "dispersion", "chi2_p")
            ]
            counts = [str(int(row[f"{place}_count"])), str(int(row[f"{place}_connections"]))]
            cells = ["–" if np.isnan(v) else number(float(v)) for v in figures]
            rows.append([str(row["variant"]), *(str(row[n]) for n in result.sweep), many, *counts, *cells])
    return rows


def _gain(result: Result) -> str:
    ratios = result.differences["variance_ratio"] if len(result.variants) > 1 else np.array([])
    ratios = np.asarray(ratios, dtype=float)
    ratios = ratios[np.isfinite(ratios)]
    if not len(ratios):
        return ""
    return f"median {number(float(np.median(ratios)))}, range {number(ratios.min())} to {number(ratios.max())}"


def inline_svg(svg: str, prefix: str) -> str:
    """Return an SVG file for use inside HTML: no prolog, and ids that no other figure of the page has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)
