"""How commands print: tables as kubectl prints them, JSON, YAML or CSV."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import click

Function = TypeVar("Function", bound=Callable[..., Any])
FORMATS = ("table", "json", "yaml", "csv")


def output_options(function: Function) -> Function:
    """Add `-o/--output` and `--json` to a command, which is called with `output`."""

    @functools.wraps(function)
    def with_output(*args: Any, output: str, as_json: bool, **options: Any) -> Any:
        return function(*args, output="json" if as_json else output, **options)

    chosen = click.option(
        "-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True, help="Form of the output."
    )
    # A parameter of its own: of two options for one, click 8.2 lets the one that was not given have the last word.
    json_alias = click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
    return cast("Function", chosen(json_alias(with_output)))


def print_rows(rows: Sequence[Mapping[str, Any]], output: str) -> None:
    """Print rows that have the same keys."""
    if output == "json":
        click.echo(json.dumps([plain(row) for row in rows], indent=1, ensure_ascii=False))
    elif output == "yaml":
        from simnet.config.resolved import as_yaml

        click.echo(as_yaml([plain(row) for row in rows]), nl=False)
    elif output == "csv":
        import csv
        import io

        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        click.echo(text.getvalue(), nl=False)
    else:
        click.echo(table_text(rows), nl=False)


def print_value(value: Mapping[str, Any], output: str) -> None:
    """Print one mapping as JSON or YAML."""
    if output == "yaml":
        from simnet.config.resolved import as_yaml

        click.echo(as_yaml(plain(value)), nl=False)
    else:
        click.echo(json.dumps(plain(value), indent=1, ensure_ascii=False))


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows under UPPERCASE headings, three spaces between columns and no borders, so that awk works."""
    if not rows:
        return ""
    cells = [[str(key).upper().replace(" ", "-") for key in rows[0]]]
    cells += [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ("   ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return "-" if value is None or value == "" else str(value)


def plain(value: Any) -> Any:
    """A value as JSON can hold it: NaN becomes null, numpy's numbers Python's."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def count_text(value: float) -> str:
    """A count for people: 950, 12.3 k, 4.5 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def bytes_text(value: float) -> str:
    """Bytes for people: 12.3 kB, 4.5 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def seconds_text(value: float) -> str:
    """Seconds for people: 0.4 s, 3 min, 2.5 h."""
    if value >= 3600:
        return f"{value / 3600:.2g} h"
    return f"{value / 60:.2g} min" if value >= 120 else f"{value:.2g} s"
