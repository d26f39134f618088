"""What `simnet routes` and `simnet interfaces` share: loading the cluster, and finding the box that is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from simnet.errors import InputError, Position, Problem

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
    from difflib import get_close_matches

    names = list(known)
    if name in names:
        return name
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    few = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    fix = f"did you mean {near[0]}?" if near else "correct the name"
    raise InputError([Problem(Position("command line"), option, name, f"a {what} of the cluster: {few}", fix)])
