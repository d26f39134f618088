"""`simnet run`: simulate what an experiment asks for and is not there yet, and print what came out."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from simnet.cli.options import experiment_options, loaded
from simnet.cli.output import output_options, seconds_text
from simnet.errors import InputError, Position, Problem

if TYPE_CHECKING:
    from simnet.model.scenario import Experiment
    from simnet.run_experiment import Outcome, Status

EXIT_EXPECTATION = 1
EXIT_RUN_FAILED = 3
EXIT_TERMINATED = 143
SECONDS_WORTH_A_WORKER = 8.0  # starting one takes about two


@click.command(name="run", short_help="Run an experiment; go on where it stopped.")
@experiment_options
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Result folder; default results/NAME.")
@click.option("--workers", type=click.IntRange(1, 1024), help="Processes; default: as many as cores, where it pays.")
@click.option("--fail-fast", is_flag=True, help="Begin no further run after one that failed.")
@click.option("--figures/--no-figures", default=True, help="Draw figures and write report.html.", show_default=True)
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    experiment: str,
    seed: int | None,
    settings: tuple[str, ...],
    skip_unknown: bool,
    out: Path | None,
    workers: int | None,
    fail_fast: bool,
    figures: bool,
    output: str,
) -> None:
    """Run EXPERIMENT and print its summary, what it says, and where the figures are.

    Runs that the result folder holds already are not repeated, so the same command goes on where it was interrupted.
    Exit codes: 0 done, 1 an `expect:` failed, 2 bad input, 3 a run failed, 130 interrupted.
    """
    plan = loaded(experiment, seed, settings, skip_unknown)
    folder = _result_folder(out or Path("results") / plan.name)
    from simnet.engine.estimate import estimate_all

    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = max(1, min(cores, int(estimate_all(plan).seconds / SECONDS_WORTH_A_WORKER)))
    outcome = _run(plan, folder, workers, fail_fast)
    code = 0
    if outcome.finished:
        code = _tell(plan, outcome, output, figures)
    if outcome.failures:
        for failure in outcome.failures:
            click.echo(str(failure), err=True)
        many = f"{len(outcome.failures)} of {len(plan.runs)} runs failed"
        click.echo(f"{many}; {folder / 'failures.json'} has all there is to know", err=True)
        code = EXIT_RUN_FAILED
    ctx.exit(code)


def _result_folder(folder: Path) -> Path:
    """Make the result folder, or say why that is impossible."""
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        if not os.access(folder / "runs", os.W_OK):
            raise PermissionError(13, "no permission to write")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            [Problem(Position(str(folder)), "", reason, "a folder to write results to", "name another with --out DIR")]
        ) from None
    return folder


def _run(plan: Experiment, folder: Path, workers: int, fail_fast: bool) -> Outcome:
    from simnet.run_experiment import run_experiment

    def terminated(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_TERMINATED)  # unlike the default, through every `finally`

    before = signal.signal(signal.SIGTERM, terminated)
    shown = _Shown(plan)
    try:
        with shown:
            return run_experiment(
                plan, folder, workers=workers, fail_fast=fail_fast, progress=shown.update, command=_command_line()
            )
    finally:
        signal.signal(signal.SIGTERM, before)


def _command_line() -> str:
    import shlex

    return shlex.join(["simnet", *sys.argv[1:]])


class _Shown:
    """Finished runs and simulated time on stderr, while it is a terminal."""

    def __init__(self, plan: Experiment) -> None:
        self.duration_ps = {each.run_id: each.scenario.run.duration_ps for each in plan.runs}
        self.progress: Any = None

    def __enter__(self) -> _Shown:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.progress = Progress(
                TextColumn("runs"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self.progress.start()
            self.task = self.progress.add_task("", total=len(self.duration_ps))
        return self

    def __exit__(self, *ignored: object) -> None:
        if self.progress is not None:
            self.progress.stop()

    def update(self, status: Status) -> None:
        if self.progress is None:
            return
        parts = {run: min(1.0, now / self.duration_ps[run]) for run, now in status.under_way.items()}
        seconds = sum(status.under_way.values()) / 1e12
        failed = f", {len(status.failures)} failed" if status.failures else ""
        words = f"simulated {seconds_text(seconds)} of those under way{failed}" if parts else failed.lstrip(", ")
        done = status.finished + len(status.failures) + sum(parts.values())
        self.progress.update(self.task, completed=int(done) if done == int(done) else done, description=words)


def _tell(plan: Experiment, outcome: Outcome, output: str, figures: bool) -> int:
    """Print the result; return the exit code."""
    from simnet.analysis.expectations import judge
    from simnet.analysis.result import load_results
    from simnet.cli.summary import print_conclusions, print_summary

    result = load_results(outcome.folder)
    result.write_summary()
    print_summary(result, output)
    if output == "table":
        click.echo()
        print_conclusions(result)
    if figures:
        from simnet.cli.plot import draw

        click.echo(f"\n{draw(result)}", err=output != "table")
    if outcome.skipped:
        click.echo(f"{outcome.skipped} of {len(plan.runs)} runs were there already", err=True)
    judgements = judge(plan.expect, result)
    failed = [judgement for judgement in judgements if not judgement.holds]
    for judgement in failed:
        click.echo(f"expect {judgement}", err=True)
    if judgements:
        held = f"{len(judgements) - len(failed)} of {len(judgements)} figures are as expected"
        click.echo(held, err=output != "table")
    return EXIT_EXPECTATION if failed else 0
