"""The summary of a result on stdout: a row per variant and sweep point, then the answer in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from simnet.cli.output import print_rows

if TYPE_CHECKING:
    from simnet.analysis.result import Result

# column of the summary -> heading, factor
_SHOWN: dict[str, tuple[str, float]] = {
    "answered_share": ("answered%", 100),
    "l3_hops_mean": ("hops", 1),
    "cross_node_share": ("cross-node%", 100),
    "snat_share": ("snat%", 100),
    "source_hidden_share": ("hidden%", 100),
    "pod_cov": ("pod-cov", 1),
    "entry_node_cov": ("entry-cov", 1),
    "rules_scanned_mean": ("rules", 1),
    "delay_mean_us": ("mean-us", 1),
    "delay_p99_us": ("p99-us", 1),
}
# Where packets wait in queues, too.
_RESPONSE: dict[str, tuple[str, float]] = {
    "round_trip_mean_us": ("response-us", 1),
    "round_trip_p99_us": ("response-p99-us", 1),
}


def print_summary(result: Result, output: str) -> None:
    """Print the main columns as a table, or all of them as JSON, YAML or CSV."""
    rows: list[dict[str, Any]] = result.summary.to_dict("records")  # type: ignore[assignment]
    if output != "table":
        print_rows(rows, output)
        return
    shown, columns = [], _SHOWN | (_RESPONSE if len(result.latency) else {})
    for row in rows:
        line: dict[str, Any] = {"variant": row["variant"], **{name: row[name] for name in result.sweep}}
        line["flows"] = int(row["flows"])
        for column, (heading, factor) in columns.items():
            line[heading] = _with_margin(row, column, factor)
        shown.append(line)
    print_rows(shown, "table")
    repeats = result.summary["repeats"]
    if repeats.min() > 1:
        click.echo("(means over repeats, ± half of the 95 % interval; flows: all repeats)")


def _with_margin(row: dict[str, Any], column: str, factor: float) -> str:
    from simnet.analysis.differences import number

    value, low, high = (factor * float(row.get(f"{column}{end}", float("nan"))) for end in ("", "_low", "_high"))
    if value != value:
        return "-"
    half = (high - low) / 2
    always = column.endswith("_share") and value in (0, factor)  # its bounds lie on one side
    return f"{number(value)}±{number(_two_digits(half))}" if half > 1e-9 and not always else number(value)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def print_conclusions(result: Result) -> None:
    """Print the answer in sentences, then what each event did, wrapped to the terminal."""
    import textwrap

    first = result.manifests[0]["manifest"]
    if first.get("question"):
        click.echo(textwrap.fill(first["question"], 110))
    for sentence in [*result.conclusions, *result.event_sentences]:
        click.echo(textwrap.fill(f"- {sentence}", 110, subsequent_indent="  "))
