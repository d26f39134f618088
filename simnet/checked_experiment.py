"""An experiment file, checked by everyone who has a say: config, the engine's addresses and laws, analysis' metrics."""

from __future__ import annotations

import os
from collections.abc import Sequence

from simnet.config import experiment as experiment_file
from simnet.engine.precheck import problems_of
from simnet.errors import Problem
from simnet.model.scenario import Expectation, Experiment


def load_experiment(
    path: str | os.PathLike[str],
    *,
    seed: int | None = None,
    settings: Sequence[str] = (),
    skip_unknown: bool = False,
) -> Experiment:
    """Return the experiment of a file, ready to run.

    Parameters
    ----------
    seed : in place of `run.seed`
    settings : `path=value` texts that replace values of the file: `run.repeat=3`, `nodes.count=8`
    skip_unknown : leave out what nodes' saved rules (`cluster.nodes[].iptables`) hold that simnet does not model;
        `ClusterSpec.left_out_rules` tells them

    Raises InputError with every mistake, each with file, line, field, found, expected and fix.
    """
    return experiment_file.load_experiment(
        path,
        seed=seed,
        settings=settings,
        skip_unknown=skip_unknown,
        check_expectations=_check_expectations,
        check_runs=problems_of,
    )


def _check_expectations(expect: Sequence[Expectation], variants: Sequence[str], repeats: int) -> list[Problem]:
    from simnet.analysis.expectations import check_expectations  # pandas: only where there is something to check

    return check_expectations(expect, variants, repeats)
