"""Tasks over processes that die: none is lost, the one to blame is named, the others finish."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from simnet.engine.executor import Done, Failed, run_all
from simnet.errors import ModelError


def act(task: tuple[str, str], tell: Callable[[int], None]) -> str:
    """What a task of these tests does: its first word says it."""
    deed, argument = task
    if deed == "kill once" and not Path(argument).exists():
        Path(argument).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "kill always":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "leave":
        os._exit(7)
    if deed == "refuse":
        raise ModelError(argument)
    if deed == "bug":
        raise ZeroDivisionError(argument)
    if deed == "wait":
        time.sleep(float(argument))
    if deed == "tell":
        for position in range(int(argument)):
            tell(position)
    return f"{argument}!"


def outcomes(tasks: dict[str, tuple[str, str]], workers: int) -> dict[str, Done[str] | Failed]:
    ended = list(run_all(tasks, act, workers=workers, preload=[__name__]))
    assert len(ended) == len(tasks)
    return {each.name: each for each in ended}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_task_ends_once_with_its_value(workers):
    tasks = {f"t{number}": ("say", str(number)) for number in range(9)}
    assert outcomes(tasks, workers) == {name: Done(name, f"{number}!") for name, (_, number) in tasks.items()}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_on_purpose_has_its_text_and_a_bug_its_trace(workers):
    ended = outcomes({"a": ("refuse", "too hot"), "b": ("bug", "1/0"), "c": ("say", "x")}, workers)
    assert ended["a"] == Failed("a", "too hot")
    assert isinstance(ended["b"], Failed)
    assert ended["b"].reason == "ZeroDivisionError: 1/0"
    assert "Traceback" in ended["b"].trace
    assert ended["c"] == Done("c", "x!")


def test_a_task_whose_worker_is_killed_once_is_done_in_another(tmp_path):
    tasks = {f"t{number}": ("say", str(number)) for number in range(6)}
    tasks["t2"] = ("kill once", str(tmp_path / "mark"))
    ended = outcomes(tasks, 2)
    assert all(isinstance(each, Done) for each in ended.values())


def test_a_task_that_always_kills_its_worker_is_named_and_the_others_finish():
    tasks = {f"t{number}": ("say", str(number)) for number in range(6)}
    ended = outcomes({**tasks, "poison": ("kill always", ""), "leaver": ("leave", "")}, 2)
    assert ended["poison"] == Failed("poison", "its worker was killed (SIGKILL: out of memory?), 3 times out of 3")
    assert ended["leaver"] == Failed("leaver", "its worker left with code 7, 3 times out of 3")
    assert all(isinstance(ended[name], Done) for name in tasks)


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_is_told_in_order_for_each_task(workers):
    told: dict[str, list[int]] = {"a": [], "b": []}
    tasks = {"a": ("tell", "4"), "b": ("tell", "3")}
    list(run_all(tasks, act, workers=workers, progress=lambda name, position: told[name].append(position)))
    assert told == {"a": [0, 1, 2, 3], "b": [0, 1, 2]}


def test_leaving_the_iterator_kills_the_workers_at_once():
    ending = run_all({"a": ("say", ""), "b": ("wait", "60"), "c": ("wait", "60")}, act, workers=2)
    next(ending)
    start = time.monotonic()
    ending.close()
    assert time.monotonic() - start < 10
