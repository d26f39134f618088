"""`simnet compare`: paired differences between variants, with intervals, or an honest "no difference"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simnet.cli.output import output_options, print_rows


@click.command(name="compare", short_help="Differences between variants, with intervals.")
@click.argument("result", metavar="RESULT", type=click.Path(path_type=Path))
@click.argument("variants", metavar="[A B]", nargs=-1)
@output_options
def command(result: Path, variants: tuple[str, ...], output: str) -> None:
    """Compare the variants of the folder RESULT pair by pair, or only A with B.

    Repeats of two variants met the same clients, arrivals and sizes, so their differences are paired. p is adjusted
    by Holm over all pairs and sweep points of a measure.
    """
    from simnet.analysis.differences import number, paired_differences
    from simnet.analysis.result import load_results

    loaded = load_results(result)
    frame = loaded.differences
    if variants:
        known = ", ".join(loaded.variants)
        if len(variants) != 2 or variants[0] == variants[1]:
            raise click.UsageError(f"name two variants, or none; there are {known}")
        for name in variants:
            if name not in loaded.variants:
                raise click.UsageError(f"{result} has no variant {name!r}; there are {known}")
        frame = paired_differences(loaded.measures, loaded.sweep, pair=(variants[0], variants[1]))
    rows: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
    if output != "table":
        print_rows(rows, output)
        return
    if not rows:
        click.echo("There is one variant, so nothing to compare.")
        return
    shown = []
    for row in rows:
        line = {"measure": row["measure"], **{name: row[name] for name in loaded.sweep}, "a": row["a"], "b": row["b"]}
        line |= {"mean-a": number(row["mean_a"]), "mean-b": number(row["mean_b"]), "verdict": row["verdict"]}
        shown.append(line)
    print_rows(shown, "table")
