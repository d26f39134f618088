"""`simnet validate`: every mistake of experiments, cluster files and manifests at once."""

from __future__ import annotations

import os
import sys

import click

from simnet.cli.options import skip_unknown_option, tell_left_out
from simnet.errors import InputError, Problem
from simnet.model.iptables.modelled import LeftOutRule

LARGEST_EXPERIMENT_BYTES = 1_000_000  # a dump of a cluster may be larger, and is read only once


@click.command(name="validate", short_help="Every mistake of experiments and manifests at once.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@skip_unknown_option
@click.option("--resolved", is_flag=True, help="Print the experiment with every default written out.")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Replace a value of an experiment.")
def command(files: tuple[str, ...], skip_unknown: bool, resolved: bool, settings: tuple[str, ...]) -> None:
    """Check experiments, cluster files, and files or folders of Kubernetes manifests, and print every mistake.

    With --resolved, print the experiment on stdout with every default written out: itself a valid experiment file.
    Paths in it are relative to the folder of the original.
    """
    problems: list[Problem] = []
    lines: list[str] = []
    for file in files:
        try:
            line, text, warnings, left_out = _checked(file, settings, skip_unknown)
        except InputError as error:
            problems += error.problems
            continue
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
        tell_left_out(left_out)
        if resolved and text is None:
            raise click.UsageError(f"--resolved needs an experiment; {file} is none")
        lines.append((text or "").rstrip("\n") if resolved else line)
    if problems:
        raise InputError(problems)
    click.echo("\n---\n".join(lines) if resolved else "\n".join(lines))


def _checked(
    file: str, settings: tuple[str, ...], skip_unknown: bool
) -> tuple[str, str | None, tuple[Problem, ...], tuple[LeftOutRule, ...]]:
    """What to say of a file that is right: a line, the resolved text of an experiment, warnings, rules left out."""
    if _is_experiment(file):
        from simnet.checked_experiment import load_experiment
        from simnet.config.resolved import as_yaml

        experiment = load_experiment(file, settings=settings, skip_unknown=skip_unknown)
        variants = f"{len(experiment.variants)} variant{'s' if len(experiment.variants) != 1 else ''}"
        runs = f"{len(experiment.runs)} run{'s' if len(experiment.runs) != 1 else ''}"
        said = f"{file}: ok, {variants}, {runs}"
        return said, as_yaml(dict(experiment.resolved)), experiment.warnings, experiment.left_out_rules
    if settings:
        raise click.UsageError(f"--set needs an experiment; {file} is none")
    from simnet.config.cluster_file import load_cluster_spec

    spec = load_cluster_spec(file, stdin=sys.stdin.buffer, skip_unknown=skip_unknown)
    objects = spec.objects
    counts = {
        "Service": len(objects.services),
        "workload": len(objects.workloads),
        "Pod": len(objects.pods),
        "node": len(spec.nodes) or len(objects.nodes),
    }
    said = ", ".join(f"{count} {what}{'s' if count != 1 else ''}" for what, count in counts.items() if count)
    line = f"{file}: ok, {said or 'no objects that simnet uses'}"
    return line, None, (*objects.warnings, *spec.warnings), spec.left_out_rules


def _is_experiment(file: str) -> bool:
    """Whether a file means to be an experiment; one that cannot be read is left to the reader of clusters."""
    if file == "-" or not os.path.isfile(file) or os.path.getsize(file) > LARGEST_EXPERIMENT_BYTES:
        return False
    from simnet.config.documents import gather_documents

    documents, _ = gather_documents([file])
    if len(documents) != 1 or not isinstance(documents[0].data, dict) or "kind" in documents[0].data:
        return False
    return bool(documents[0].data.keys() & {"workload", "variants", "run", "sweep", "cluster", "expect", "name"})
