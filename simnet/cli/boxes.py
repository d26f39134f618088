"""What `simnet routes` and `simnet interfaces` share: loading the cluster, and finding the box that is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from simnet.errors import InputError, Position, unknown_name

if TYPE_CHECKING:
    from simnet.model.cluster import Cluster
    from simnet.model.scenario import ClusterSpec


def load(file: str, seed: int) -> tuple[Cluster, ClusterSpec]:
    """Return the cluster in its steady state; its warnings go to stderr."""
    from simnet.config.cluster_file import load_cluster_spec
    from simnet.engine.materialise import materialise

    spec = load_cluster_spec(file, stdin=sys.stdin.buffer, skip_unknown=True)  # routes and wires ask no rule
    cluster = materialise(spec, seed=seed)
    for warning in cluster.warnings:
        click.echo(f"warning: {warning}", err=True)
    return cluster, spec


def named(name: str, option: str, what: str, known: Iterable[str]) -> str:
    """Return the name if it is known. Raises InputError that names the nearest spelling."""
    names = list(known)
    if name in names:
        return name
    raise InputError([unknown_name(Position("command line"), option, name, f"a {what} of the cluster", names)])
