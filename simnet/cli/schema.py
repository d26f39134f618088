"""`simnet schema`: the JSON Schema of experiment files, for editors."""

from __future__ import annotations

import json

import click


@click.command(name="schema", short_help="JSON Schema of experiment files, for editors.")
@click.option("--cluster", is_flag=True, help="That of cluster files instead.")
def command(cluster: bool) -> None:
    """Print the JSON Schema (draft 7) of experiment files.

    simnet schema > simnet.schema.json; then write as the first line of an experiment:
    # yaml-language-server: $schema=simnet.schema.json
    """
    from simnet.config.schema import json_schema

    click.echo(json.dumps(json_schema(cluster=cluster), indent=1))
