"""Every figure of a result as PNG and SVG; the same result gives the same bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from simnet.analysis.result import Result
from simnet.errors import ResultError
from simnet.plotting.comparison import SHOWN_OF_REQUESTS, delay_ccdf, efficiency_figure, hop_counts
from simnet.plotting.convergence import convergence_figure
from simnet.plotting.events import has_events, load_over_time, losses_over_time, packets_lost_over_time
from simnet.plotting.latency import latency_ccdf, latency_over_load, latency_over_time, latency_parts
from simnet.plotting.spread import load_spread
from simnet.plotting.stations import link_heat_map, stations_over_time
from simnet.plotting.style import figure_style
from simnet.plotting.topology import topology

DPI = 160
MOST_POINTS = 8  # of a sweep, for figures that are drawn point by point


def all_figures(result: Result) -> Iterator[tuple[str, str, Figure]]:
    """Yield name, caption and figure of everything there is to draw; what the runs did not record is left
    out.
    """
    for by, many in (("pod", "pods"), ("serving_node", "serving nodes"), ("entry_node", "entry nodes")):
        if (result.load["where"] == by).any():
            caption = f"Share of the connections of each of the {many}, by entry point."
            yield f"load-{by.replace('_', '-')}", caption, _figure(load_spread(result, by))
    if len(result.hops):
        yield "hop-counts", "How many boxes forward a request.", _figure(hop_counts(result))
    swept = [name for name in result.sweep if result.index[name].nunique() > 1]
    choices: list[str | None] = [*swept] or [None]
    for x in choices:
        name = f"efficiency-{x}".replace(".", "-").replace("/", "-") if x else "efficiency"
        over = f" over {x}" if x else ""
        yield name, f"Hops, nodes crossed, SNAT, spread and rules scanned{over}.", efficiency_figure(result, x)
        if x and x.startswith("workload.requests."):
            figure = efficiency_figure(result, x, SHOWN_OF_REQUESTS)
            yield f"requests{name.removeprefix('efficiency')}", f"Spread of requests over pods{over}.", figure
    for number, variant in enumerate(result.variants):
        try:
            ax = topology(result, variant)
        except ResultError:
            continue  # the runs kept no topology
        yield f"topology-{number}-{_safe(variant)}", f"Traffic on each wire: {variant}.", _figure(ax)
    if len(result.latency):
        yield from _of_queues(result, swept)
    if has_events(result) and len(result.flows):
        yield from _of_events(result)
    yield from _of_tables(result)
    ax = delay_ccdf(result)
    if ax.lines:
        yield "delay-ccdf", "How many flows see a longer path delay.", _figure(ax)


def _of_queues(result: Result, swept: list[str]) -> Iterator[tuple[str, str, Figure]]:
    yield "latency-ccdf", "How many packets wait longer for their response.", _figure(latency_ccdf(result))
    yield "latency-parts", "Where the time of a mean response goes.", _figure(latency_parts(result))
    for x in swept:
        for figure in ("p50", "p99"):
            name = f"latency-{figure}-{x}".replace(".", "-").replace("/", "-")
            yield name, f"Latency over {x}.", _figure(latency_over_load(result, x, figure=figure))
    for number, variant in enumerate(result.variants):
        end = f"{number}-{_safe(variant)}"
        yield f"warmup-{end}", f"Latency over time: {variant}.", _figure(latency_over_time(result, variant))
        yield f"stations-{end}", f"The busiest stations: {variant}.", _figure(stations_over_time(result, variant))
        queues = stations_over_time(result, variant, "queue_max")
        yield f"queues-{end}", f"The longest queues: {variant}.", _figure(queues)
        yield f"links-{end}", f"How busy each link is: {variant}.", _figure(link_heat_map(result, variant))


def _of_events(result: Result) -> Iterator[tuple[str, str, Figure]]:
    points = {json.dumps(manifest["sweep"]): manifest["sweep"] for manifest in result.manifests}
    for number, point in enumerate(list(points.values())[:MOST_POINTS]):
        said = f" ({', '.join(f'{name} {value}' for name, value in point.items())})" if point else ""
        yield (
            f"losses-{number}",
            f"Flows without an answer over time{said}.",
            _figure(losses_over_time(result, at=point)),
        )
    for number, variant in enumerate(result.variants):
        caption = f"Connections of each serving node over time: {variant}."
        yield f"load-over-time-{number}-{_safe(variant)}", caption, _figure(load_over_time(result, variant))
        try:
            ax = packets_lost_over_time(result, variant)
        except ResultError:
            continue  # none was lost, or the runs are of an older version
        yield f"packets-lost-{number}-{_safe(variant)}", f"Packets lost, and why: {variant}.", _figure(ax)


def _of_tables(result: Result) -> Iterator[tuple[str, str, Figure]]:
    """How tables followed each event of the first run of a sweep point; the first few events that changed any."""
    drawn = 0
    for manifest in result.manifests:
        if manifest["repeat"] != result.manifests[0]["repeat"] or manifest["variant"] != result.variants[0]:
            continue
        changes = result.table_changes[result.table_changes["run"] == manifest["id"]]
        for event in sorted(set(changes["event"]) - {-1}):
            if drawn == MOST_POINTS:
                return
            figure = convergence_figure(result, int(event), at=manifest["sweep"], repeat=manifest["repeat"])
            yield f"convergence-{drawn}", "Which box learned, lost or changed which route when.", figure
            drawn += 1


def save_figures(result: Result, folder: Path | str) -> list[Path]:
    """Write every figure as PNG and SVG into a folder and return the paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, _, figure in all_figures(result):
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            path.write_bytes(rendered(figure, kind))
            written.append(path)
    return written


def rendered(figure: Figure, kind: str) -> bytes:
    """Return a figure's file, without a date and with stable ids."""
    buffer = io.BytesIO()
    with figure_style():
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def _figure(ax: object) -> Figure:
    figure = ax.figure  # type: ignore[attr-defined]
    assert isinstance(figure, Figure)
    return figure


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
