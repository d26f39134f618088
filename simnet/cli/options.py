"""Options that several commands have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from simnet.model.scenario import Experiment

Function = TypeVar("Function", bound=Callable[..., Any])


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
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def loaded(path: str, seed: int | None, settings: tuple[str, ...]) -> Experiment:
    """Return the checked experiment; its warnings go to stderr."""
    from simnet.checked_experiment import load_experiment

    experiment = load_experiment(path, seed=seed, settings=settings)
    for warning in experiment.warnings:
        click.echo(f"warning: {warning}", err=True)
    return experiment
