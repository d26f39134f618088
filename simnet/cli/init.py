"""`simnet init`: a commented experiment and manifests to start from."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from simnet.errors import InputError, Position, Problem

_FILES = {"experiment.yaml": "experiment.yaml", "manifests/nginx-demo.yaml": "nginx-demo.yaml"}


@click.command(name="init", short_help="A commented experiment and manifests to start from.")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path("."))
def command(folder: Path) -> None:
    """Write a commented experiment, its manifests and the schema for editors into DIR. No file is overwritten."""
    import json

    from simnet.config.schema import json_schema

    texts = {name: files("simnet.cli").joinpath("starter", source).read_text() for name, source in _FILES.items()}
    texts["simnet.schema.json"] = json.dumps(json_schema(), indent=1) + "\n"
    problems = [
        Problem(Position(str(folder / name)), "", "a file", "no such file yet", "name an empty folder: simnet init DIR")
        for name in texts
        if (folder / name).exists()
    ]
    if problems:
        raise InputError(problems)
    for name, text in texts.items():
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            found = (error.strerror or str(error)).lower()
            problem = Problem(Position(str(folder / name)), "", found, "a folder to write to", "name another one")
            raise InputError([problem]) from None
        click.echo(folder / name)
    click.echo(f"\nNow: simnet run {folder / 'experiment.yaml'}", err=True)
