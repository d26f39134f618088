"""`simnet plot` and `simnet report`: figures and report of a result folder, drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from simnet.analysis.result import Result


@click.command(name="plot", short_help="Draw the figures of a result.")
@click.argument("result", metavar="RESULT", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder for them; default RESULT/figures.")
def command(result: Path, out: Path | None) -> None:
    """Draw every figure of the folder RESULT as PNG and SVG, and print their paths."""
    from simnet.analysis.result import load_results
    from simnet.plotting import save_figures

    loaded = load_results(result)
    for path in save_figures(loaded, out or result / "figures"):
        click.echo(path)


@click.command(name="report", short_help="Write the report of a result.")
@click.argument("result", metavar="RESULT", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Default RESULT/report.html.")
def report_command(result: Path, out: Path | None) -> None:
    """Write the report of the folder RESULT as one HTML file that needs nothing else, and print its path."""
    from simnet.analysis.result import load_results
    from simnet.plotting import write_report

    click.echo(write_report(load_results(result), out))


def draw(result: Result) -> str:
    """Write figures and report into a result's folder; say where they are."""
    from simnet.plotting import save_figures, write_report

    assert result.path is not None
    paths = save_figures(result, result.path / "figures")
    report = write_report(result)
    return f"figures: {result.path / 'figures'} ({len(paths)} files)\nreport:  {report}"
