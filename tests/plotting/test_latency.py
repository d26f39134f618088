"""Figures of runs with queues: what is drawn is what the frames say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine.test_queues import busy_scenario

from simnet.analysis.latency import latency_summary, pooled_distribution
from simnet.analysis.result import Result
from simnet.engine.simulate import simulate
from simnet.model.queues import CpuCosts
from simnet.plotting.figures import all_figures
from simnet.plotting.latency import latency_ccdf, latency_over_load, latency_parts
from simnet.plotting.stations import link_heat_map, stations_over_time
from simnet.results.store import RunDescription


@pytest.fixture(scope="module")
def result():
    made = busy_scenario(cpu=CpuCosts())
    runs = []
    for load in (1, 4):
        arrivals = replace(made.workload.arrivals, rate_hz=1000.0 * load)
        loaded = replace(made, workload=replace(made.workload, arrivals=arrivals))
        for repeat in range(2):
            run = RunDescription(f"{load}-{repeat}", "external-ip", repeat, repeat, {"load": load})
            runs.append((run, simulate(loaded, seed=repeat)))
    return Result.from_recordings(runs)


def test_the_parts_of_the_mean_sum_to_it_and_are_stacked_to_its_height(result):
    summary = latency_summary(result.latency, ["load"])
    mine = summary[(summary["load"] == 1) & (summary["of"] == "response")]
    total = mine.loc[mine["part"] == "total", "mean_us"].item()
    assert mine.loc[mine["part"] != "total", "mean_us"].sum() == pytest.approx(total, rel=1e-9)
    ax = latency_parts(result, at={"load": 1})
    assert sum(bar.get_height() for bars in ax.containers for bar in bars) == pytest.approx(total, rel=1e-9)


def test_the_tail_falls_from_the_first_step_to_nothing(result):
    pooled = pooled_distribution(result.latency_distribution, ["load"])
    mine = pooled[(pooled["load"] == 4) & (pooled["of"] == "response")]
    (line,) = latency_ccdf(result, at={"load": 4}).lines
    assert np.asarray(line.get_ydata()).tolist() == mine["above"].tolist()
    assert mine["above"].is_monotonic_decreasing
    assert mine["above"].iloc[-1] == pytest.approx(0, abs=1e-12)


def test_more_load_takes_more_time(result):
    ax = latency_over_load(result, "load", figure="mean")
    low, high = ax.containers[0].lines[0].get_ydata()
    assert high > low


def test_stations_are_drawn_busiest_first(result):
    ax = stations_over_time(result, "external-ip", at={"load": 4}, count=3)
    means = [np.mean(line.get_ydata()) for line in ax.lines]
    assert means == sorted(means, reverse=True)
    image = link_heat_map(result, "external-ip", at={"load": 4}).images[0].get_array()
    assert np.diff(image.mean(axis=1)).max() <= 1e-12
    with pytest.raises(ValueError, match="no measure"):
        stations_over_time(result, "external-ip", "length")


def test_a_result_with_queues_has_their_figures(result):
    names = {name for name, _, _ in all_figures(result)}
    assert {"latency-ccdf", "latency-parts", "latency-p99-load", "warmup-0-external-ip", "links-0-external-ip"} <= names
