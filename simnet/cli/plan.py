"""`simnet plan`: the runs of an experiment, and an estimate of packets, time and disk; nothing is simulated."""

from __future__ import annotations

import click

from simnet.cli.options import experiment_options, loaded
from simnet.cli.output import bytes_text, count_text, output_options, print_rows, print_value, seconds_text


@click.command(name="plan", short_help="The runs of an experiment, and what they will cost.")
@experiment_options
@output_options
def command(experiment: str, seed: int | None, settings: tuple[str, ...], skip_unknown: bool, output: str) -> None:
    """List the runs of EXPERIMENT with an estimate of packets, time and disk. Nothing is simulated."""
    from simnet.engine.estimate import estimate, estimate_all
    from simnet.model.scenario import PlannedRun

    plan = loaded(experiment, seed, settings, skip_unknown)
    total = estimate_all(plan)
    if output in ("json", "yaml"):
        runs = [
            {
                "run": run.run_id,
                "variant": run.variant,
                "sweep": dict(run.point),
                "repeat": run.repeat,
                "seed": run.seed,
                "flows": round(estimate(run).flows),
                "packets": round(estimate(run).packets),
            }
            for run in plan.runs
        ]
        figures = {
            "runs": len(runs),
            "flows": round(total.flows),
            "packets": round(total.packets),
            "seconds": round(total.seconds, 1),
            "disk_bytes": round(total.disk_bytes),
        }
        print_value({"name": plan.name, "estimate": figures, "runs": runs}, output)
        return
    groups: dict[tuple[object, ...], list[PlannedRun]] = {}
    for run in plan.runs:
        groups.setdefault((run.variant, *(str(value) for _, value in run.point)), []).append(run)
    rows = []
    for group in groups.values():
        one = estimate(group[0])
        row: dict[str, object] = {"variant": group[0].variant, **dict(group[0].point), "runs": len(group)}
        if output == "csv":
            row |= {"flows_a_run": round(one.flows), "packets_a_run": round(one.packets)}
        else:
            row |= {"flows a run": count_text(one.flows), "packets a run": count_text(one.packets)}
        rows.append(row)
    print_rows(rows, output)
    if output == "table":
        click.echo(
            f"\n{len(plan.runs)} runs: about {count_text(total.flows)} flows, {count_text(total.packets)} packets, "
            f"{seconds_text(total.seconds)} of one core, {bytes_text(total.disk_bytes)} of disk"
        )
