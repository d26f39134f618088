"""Options that several commands have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from simnet.model.scenario import Experiment

if TYPE_CHECKING:
    from simnet.cluster import Cluster, ClusterAt
    from simnet.model.iptables.modelled import LeftOutRule

Function = TypeVar("Function", bound=Callable[..., Any])


skip_unknown_option = click.option(
    "--skip-unknown", is_flag=True, help="Leave out, and list, rules of nodes[].iptables that simnet does not model."
)


def experiment_options(function: Function) -> Function:
    """Add the argument EXPERIMENT and the options that change what the file says."""
    decorators = (
        click.argument("experiment", metavar="EXPERIMENT"),
        click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="In place of run.seed."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="PATH=VALUE",
            help="Replace a value of the file, for example run.repeat=3; may be given again.",
        ),
        skip_unknown_option,
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def loaded(path: str, seed: int | None, settings: tuple[str, ...], skip_unknown: bool) -> Experiment:
    """Return the checked experiment; its warnings, and the rules left out, go to stderr."""
    from simnet.checked_experiment import load_experiment

    experiment = load_experiment(path, seed=seed, settings=settings, skip_unknown=skip_unknown)
    for warning in experiment.warnings:
        click.echo(f"warning: {warning}", err=True)
    tell_left_out(experiment.left_out_rules)
    return experiment


def loaded_cluster(file: str, skip_unknown: bool) -> Cluster:
    """Return the cluster of a file; its warnings, and the rules left out, go to stderr."""
    from simnet.cluster import load_cluster

    cluster = load_cluster(file, stdin=sys.stdin.buffer, skip_unknown=skip_unknown)
    for warning in cluster.warnings:
        click.echo(f"warning: {warning}", err=True)
    tell_left_out(cluster.left_out_rules)
    return cluster


at_option = click.option("--at", metavar="TIME", help="At that time of a run of the experiment FILE: 12s, 2.5s.")
point_option = click.option(
    "--point", multiple=True, metavar="NAME=VALUE",
    help="With --at: of which point of the sweep; may be given again; else of the first one.",
)  # fmt: skip


def instant_options(function: Function) -> Function:
    """Add the options that name an instant of a run."""
    decorators = (
        at_option,
        click.option("--variant", metavar="NAME", help="With --at: of which variant; else of the first one."),
        point_option,
        click.option(
            "--repeat", type=click.IntRange(0), metavar="R", help="With --at: of which repetition; else of 0."
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def loaded_instant(
    file: str,
    at: str | None,
    variant: str | None,
    point: tuple[str, ...],
    repeat: int | None,
    seed: int | None,
    skip_unknown: bool,
) -> ClusterAt | None:
    """Return the cluster at the instant that was asked for, and tell on stderr which; None: at no instant."""
    if at is None:
        if variant is not None or repeat is not None or point:
            raise click.UsageError("--variant, --point and --repeat go with --at TIME")
        return None
    if wrong := [each for each in point if "=" not in each]:
        raise click.UsageError(f"--point {wrong[0]}: give NAME=VALUE, as in `sweep:`")
    from simnet.cluster import cluster_at

    experiment = loaded(file, seed, (), skip_unknown)
    found = cluster_at(
        experiment, at, variant=variant, point=dict(each.split("=", 1) for each in point), repeat=repeat or 0
    )
    run, fabric, now = found.run, found.steady.fabric, found.instant
    swept = "".join(f", {name}={value}" for name, value in run.point)
    click.echo(f"at {at} of variant {run.variant}{swept}, repetition {run.repeat}, seed {run.seed}", err=True)
    if not (run.scenario.events or run.scenario.failures):
        click.echo("the experiment has no events: nothing changes while it runs", err=True)
    for device in sorted(now.dead_devices):
        click.echo(f"  device down: {device}", err=True)
    for pod in sorted(now.ended_pods):
        click.echo(f"  pod ended: {pod}", err=True)
    for link in (fabric.links[number] for number in sorted(now.broken_links)):
        click.echo(f"  link down: {link.a} - {link.b}", err=True)
    return found


def tell_left_out(rules: Sequence[LeftOutRule]) -> None:
    """Name on stderr every rule that --skip-unknown left out, since a result may hang on it."""
    if rules:
        many = "1 rule is" if len(rules) == 1 else f"{len(rules)} rules are"
        click.echo(f"--skip-unknown: {many} not modelled and left out; what follows is without them", err=True)
    for rule in rules:
        click.echo(f"  {rule}", err=True)
