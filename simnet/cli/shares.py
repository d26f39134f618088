"""`simnet shares`: the exact expected share of every pod, per entry point and class of client."""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING

import click

from simnet.cli.options import loaded_cluster, skip_unknown_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from simnet.engine.shares import ShareRow


@click.command(name="shares", short_help="Exact expected share per entry point, node and pod.")
@click.argument("file")
@click.option("-o", "--output", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@click.option("--service", metavar="NS/NAME", help="This Service only.")
@skip_unknown_option
def command(file: str, output: str, as_json: bool, service: str | None, skip_unknown: bool) -> None:
    """Print which part of the connections each pod of FILE's Services gets; nothing is simulated.

    Clients are outside, in a pod, or on a node; the shares of one client class at one address sum to 1. FILE is an
    experiment, a cluster file, or a file or folder of Kubernetes manifests.
    """
    from simnet.engine.shares import ShareRow

    cluster = loaded_cluster(file, skip_unknown)
    rows = cluster.share_rows(service)
    if as_json or output == "json":
        click.echo(json.dumps({"shares": [row.to_dict() for row in rows]}, indent=2))
    elif output == "csv":
        writer = csv.DictWriter(sys.stdout, list(ShareRow.__slots__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.to_dict() for row in rows)
    else:
        _print_table(rows)


def _print_table(rows: list[ShareRow]) -> None:
    columns: dict[str, Callable[[ShareRow], str]] = {
        "SERVICE": lambda row: f"{row.service}:{row.port}",
        "ENTRY": lambda row: row.entry,
        "ADDRESS": lambda row: row.address,
        "CLIENT": lambda row: f"{row.client} on {row.client_node}" if row.client_node else row.client,
        "ENTRY NODE": lambda row: row.entry_node or "-",
        "NODE": lambda row: row.serving_node or "-",
        "POD": lambda row: row.pod or f"({row.verdict}: {row.reason})",
        "SNAT": lambda row: "yes" if row.masquerade else "no",
        "SHARE": lambda row: f"{row.share:.6f}",
    }
    cells = [list(columns), *([told(row) for told in columns.values()] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
