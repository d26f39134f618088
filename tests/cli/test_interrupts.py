"""Ctrl-C, kill, kill -9 at any moment: no half-written run is visible, the same command goes on to the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import simnet

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "experiments" / "nginx-demo.yaml"
SETTINGS = ["run.repeat=4", "run.duration=3s", "expect=[]", "record=packets"]


def start(folder: Path, workers: int) -> subprocess.Popen[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    command = ["run", DEMO, "--out", folder, "--workers", workers, "--no-figures", *settings]
    return subprocess.Popen(
        [sys.executable, "-m", "simnet", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,  # a process group of its own, as a terminal gives it
    )


def tables(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.parquet"))
        if not any(part.startswith(".partial") for part in path.parts)
    }


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with start(folder, 1) as process:
        assert process.wait(timeout=300) == 0
    return tables(folder)


SLOW = [pytest.param(how, workers, marks=pytest.mark.slow) for how in ("SIGINT", "SIGKILL") for workers in (1,)]
SLOW += [pytest.param("SIGTERM", workers, marks=pytest.mark.slow) for workers in (1, 2)]
SLOW += [pytest.param("SIGKILL of the parent only", 2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("how, workers", [("SIGINT", 2), ("SIGKILL", 2), *SLOW])
def test_an_interrupted_command_leaves_whole_runs_and_goes_on_to_the_same_bytes(tmp_path, undisturbed, how, workers):
    moments = random.Random(f"{how} {workers}")
    number = getattr(signal, how.split()[0])
    interrupted = 0
    for _ in range(2):
        with start(tmp_path, workers) as process:
            begun = len(list(tmp_path.glob("runs/[!.]*")))
            deadline = time.monotonic() + 60
            while (
                len(list(tmp_path.glob("runs/*"))) <= begun and process.poll() is None and time.monotonic() < deadline
            ):
                time.sleep(0.01)
            time.sleep(moments.random() * 0.5)
            if how.endswith("only"):
                process.send_signal(number)
            else:
                os.killpg(process.pid, number)
            _, told = process.communicate(timeout=60)
        code = process.returncode
        if code != 0:
            interrupted += 1
            assert code == {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}[how.split()[0]]
            assert "Traceback" not in told
        deadline = time.monotonic() + 30
        while not group_is_gone(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert group_is_gone(process.pid), "workers outlived their parent"
        visible = tables(tmp_path)
        assert {name: visible[name] for name in visible if name != "index.parquet"}.items() <= undisturbed.items()
        for run in tmp_path.glob("runs/[!.]*"):
            simnet.load_results(tmp_path)  # every manifest is whole
            assert (run / "manifest.json").is_file()
        if how in ("SIGINT", "SIGTERM"):
            assert not list(tmp_path.glob("runs/.partial*"))
    assert interrupted
    with start(tmp_path, workers) as process:
        assert process.wait(timeout=300) == 0
    assert tables(tmp_path) == undisturbed
    assert not list(tmp_path.glob("runs/.partial*"))
