"""What experiments/README.md says of clients that retry: overload is work in vain, unless pods' queues are short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import simnet
from simnet.analysis.calls import call_summary

CAPACITY_HZ = 4_000  # 8 pods, 2 ms a request


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    points = "workload.clients.count: [80, 320], workload.requests.retries: [0, 3]"
    settings = [f"sweep={{{points}, workload.service.queueLimit: [10, 100000]}}"]
    settings += ["run.repeat=1", "run.duration=600ms", "run.warmup=100ms"]
    file = Path(__file__).parents[2] / "experiments" / "closed-loop.yaml"
    return simnet.run(simnet.load_experiment(file, settings=settings), out=tmp_path_factory.mktemp("closed-loop"))


def summary_of(ran):
    found = call_summary(ran.index, ran.sweep)
    names = [f"workload.{name}" for name in ("clients.count", "requests.retries", "service.queueLimit")]
    return {tuple(row[name] for name in names): row for _, row in found.iterrows()}


def test_below_capacity_nearly_every_call_is_answered_at_its_first_try(ran):
    for (clients, _, _), row in summary_of(ran).items():
        if clients == 80:
            assert row["answered_share"] > 0.98  # kept connections make some pods busier than others
            assert row["tries_per_call"] < 1.02
            assert row["late_share"] < 0.02


def test_above_capacity_long_queues_work_in_vain_and_short_ones_do_not(ran):
    found = summary_of(ran)
    for retries in (0, 3):
        long, short = found[320, retries, 100_000], found[320, retries, 10]
        assert long["late_share"] > 0.5
        assert short["late_share"] < 0.01
        assert short["answered"] > 3 * long["answered"]
        # Pods that are never idle answer what they can, within 4 standard errors; at the edges a call a client.
        expected = CAPACITY_HZ * 0.6
        assert abs(short["answered"] - expected) < 4 * np.sqrt(expected) + 320


def test_calls_that_retries_answer_are_paid_for_by_more_tries(ran):
    found = summary_of(ran)
    assert found[320, 3, 10]["answered_share"] > found[320, 0, 10]["answered_share"]
    assert found[320, 3, 10]["tries_per_call"] > 1.3


def test_calls_are_kept_as_a_frame_where_flows_are(tmp_path):
    file = Path(__file__).parents[2] / "experiments" / "closed-loop.yaml"
    settings = ["sweep={}", "record=flows", "run.repeat=1", "run.duration=50ms", "run.warmup=0s"]
    result = simnet.run(simnet.load_experiment(file, settings=settings), out=tmp_path)
    assert len(result.calls) == result.index["total_calls"].sum() > 40
    assert result.calls["tries"].sum() == len(result.packets) + result.index["total_sent"].sum()


def test_runs_without_clients_that_wait_have_no_calls(ran):
    assert call_summary(ran.index.drop(columns="total_calls")).empty
