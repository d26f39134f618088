"""The commands as a user calls them: what they print where, their exit codes, what they leave behind."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "experiments" / "nginx-demo.yaml"
WRONG = ROOT / "tests" / "data" / "wrong_experiments"
QUICK = ["--set", "run.repeat=2", "--set", "run.duration=1s", "--set", "run.warmup=0s", "--set", "expect=[]"]
MEMORY_BYTES = 512 * 2**20


def call(*args: str | Path, cwd: Path | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simnet", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        **options,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished result folder and what `simnet run` printed."""
    folder = tmp_path_factory.mktemp("demo") / "results"
    return folder, call("run", DEMO, "--out", folder, *QUICK)


def test_run_prints_the_answer_on_stdout_and_says_where_the_figures_are(demo):
    folder, told = demo
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("VARIANT ")
    assert "node-port" in told.stdout
    assert "- Router hops of a request: " in told.stdout
    assert f"report:  {folder / 'report.html'}\n" in told.stdout
    assert sorted(path.name for path in folder.iterdir()) == [
        "figures",
        "index.parquet",
        "report.html",
        "runs",
        "summary.csv",
    ]
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".svg"}


def test_a_second_run_repeats_nothing_and_prints_the_same_answer(demo):
    folder, told = demo
    again = call("run", DEMO, "--out", folder, *QUICK)
    assert (again.returncode, again.stderr) == (0, "6 of 6 runs were there already\n")
    assert again.stdout == told.stdout


def test_every_form_of_output_holds_the_same_rows(demo):
    folder, _ = demo
    rows = json.loads(call("compare", folder, "external-ip", "node-port", "--json").stdout)
    assert rows == yaml.safe_load(call("compare", folder, "external-ip", "node-port", "-o", "yaml").stdout)
    csv = call("compare", folder, "external-ip", "node-port", "-o", "csv").stdout.splitlines()
    assert len(csv) == len(rows) + 1
    table = call("compare", folder, "external-ip", "node-port").stdout.splitlines()
    assert len(table) == len(rows) + 1
    assert table[0].split()[:3] == ["MEASURE", "A", "B"]


def test_plot_and_report_write_their_files_again(demo, tmp_path):
    folder, _ = demo
    drawn = call("plot", folder, "--out", tmp_path / "figures")
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert all(Path(line).stat().st_size for line in drawn.stdout.splitlines())
    told = call("report", folder, "--out", tmp_path / "report.html")
    assert told.stdout == f"{tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").read_bytes() == (folder / "report.html").read_bytes()


def test_an_expectation_that_fails_is_named_and_ends_with_code_1(tmp_path):
    told = call(
        "run", DEMO, "--out", tmp_path, *QUICK[:-1], "expect=[{metric: snat_share, atMost: 0.5}]", "--no-figures"
    )
    assert told.returncode == 1
    assert told.stderr.splitlines() == [
        "expect FAILED: snat_share of external-ip: 1, wanted at most 0.5",
        "expect FAILED: snat_share of node-port: 1, wanted at most 0.5",
    ]
    assert told.stdout.endswith("1 of 3 figures are as expected\n")


def test_plan_lists_the_runs_and_simulates_nothing(tmp_path):
    plan = json.loads(call("plan", DEMO, *QUICK, "--json", cwd=tmp_path).stdout)
    assert plan["estimate"]["runs"] == len(plan["runs"]) == 6
    assert plan["runs"][0]["packets"] == 24_000
    assert list(tmp_path.iterdir()) == []


def test_what_init_writes_is_valid_and_nothing_is_overwritten(tmp_path):
    made = call("init", tmp_path / "new")
    assert made.returncode == 0
    told = call("validate", tmp_path / "new" / "experiment.yaml", tmp_path / "new" / "manifests")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines() == [
        f"{tmp_path / 'new' / 'experiment.yaml'}: ok, 3 variants, 30 runs",
        f"{tmp_path / 'new' / 'manifests'}: ok, 2 Services, 1 workload",
    ]
    again = call("init", tmp_path / "new")
    assert again.returncode == 2
    assert "expected: no such file yet" in again.stderr


def test_the_manifest_that_init_writes_is_that_of_the_first_experiment():
    written = ROOT / "simnet" / "cli" / "starter" / "nginx-demo.yaml"
    assert written.read_bytes() == (ROOT / "experiments" / "manifests" / "nginx-demo.yaml").read_bytes()


def test_validate_resolved_prints_a_valid_experiment(tmp_path):
    (tmp_path / "manifests").symlink_to(DEMO.parent / "manifests")
    told = call("validate", "--resolved", DEMO)
    (tmp_path / "resolved.yaml").write_text(told.stdout)
    assert call("validate", tmp_path / "resolved.yaml").returncode == 0
    assert call("validate", "--resolved", tmp_path / "resolved.yaml").stdout == told.stdout


def test_validate_tells_the_mistakes_of_all_files_and_stdout_stays_empty():
    told = call("validate", "unit-missing.yaml", "only-a-name.yaml", "manifests", cwd=WRONG)
    assert (told.returncode, told.stdout) == (2, "")
    assert (
        told.stderr
        == (WRONG / "only-a-name.yaml.expected").read_text() + (WRONG / "unit-missing.yaml.expected").read_text()
    )


def hostile(folder: Path) -> dict[str, Path]:
    """Inputs that are no experiment at all, by name."""
    texts = {
        "bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "recursive": "name: &a\n  again: *a\n",
        "deep": "[" * 100_000,
        "deep mappings": "".join(f"{' ' * depth}a:\n" for depth in range(3_000)),
        "huge text": f"name: {'x' * 30_000_000}\n",
        "many keys": "".join(f"k{number}: 1\n" for number in range(200_000)),
        "python tag": "name: !!python/object/apply:os.system [touch pwned]\n",
        "empty": "",
        "template": "name: {{ .Values.name }}\n",
    }
    files = {}
    for name, text in texts.items():
        files[name] = folder / f"{name}.yaml"
        files[name].write_text(text)
    (folder / "binary.yaml").write_bytes(bytes(range(256)) * 100)
    (folder / "utf-16.yaml").write_text("name: x\n", encoding="utf-16")
    os.mkfifo(folder / "pipe.yaml")
    files |= {name: folder / f"{name}.yaml" for name in ("binary", "utf-16", "pipe", "missing")}
    return {**files, "folder": folder, "device": Path("/dev/zero")}


HOSTILE = [
    "bomb", "recursive", "deep", "deep mappings", "huge text", "many keys", "python tag", "empty", "template", "binary",
    "utf-16", "pipe", "missing", "folder", "device",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("command", ["run", "plan", "validate"])
def test_hostile_input_ends_with_one_clear_message_soon_and_leaves_nothing(tmp_path, command, name):
    (tmp_path / "inputs").mkdir()
    (tmp_path / "cwd").mkdir()
    path = hostile(tmp_path / "inputs")[name]
    if command == "validate" and name in ("empty", "folder"):
        pytest.skip("a manifest file may be empty; a folder is read file by file")
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    told = call(
        command,
        path,
        cwd=tmp_path / "cwd",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES)),
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used
    assert told.returncode == 2, told.stderr[-2000:]
    assert told.stdout == ""
    assert "Traceback" not in told.stderr
    assert "\n  expected: " in told.stderr
    assert len(told.stderr) < 10_000
    assert used < 8  # seconds of CPU; 1 to 3 on a busy machine, and a bomb that goes off takes minutes
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.parametrize("args", [["run"], ["run", DEMO, "--workers", "0"], ["run", DEMO, "--sed", "1"], ["plot"]])
def test_wrong_usage_ends_with_code_2(args, tmp_path):
    told = call(*args, cwd=tmp_path)
    assert told.returncode == 2
    assert told.stdout == ""
    assert "Usage: " in told.stderr


def test_a_result_folder_that_cannot_be_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    told = call("run", DEMO, "--out", tmp_path / "file")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == (
        f"{tmp_path / 'file'}\n  found:    not a directory\n  expected: a folder to write results to\n"
        "  fix:      name another with --out DIR\n"
    )


@pytest.mark.parametrize("command", ["compare", "plot", "report"])
def test_a_folder_without_results_is_bad_input(command, tmp_path):
    told = call(command, tmp_path)
    assert told.returncode == 2
    assert "found:    no finished run\n" in told.stderr


def test_compare_names_the_variants_there_are(demo):
    told = call("compare", demo[0], "external-ip", "nodeport")
    assert told.returncode == 2
    assert "no variant 'nodeport'; there are external-ip, node-port, cluster-ip" in told.stderr


def test_importing_simnet_costs_next_to_nothing():
    script = "import sys, simnet; print(sorted({'numpy', 'pandas', 'click', 'simnet.errors'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


def test_every_public_name_is_there():
    import simnet

    for name in simnet.__all__:
        assert getattr(simnet, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        simnet.nothing  # noqa: B018


def test_the_reader_of_a_long_table_may_leave():
    command = f"{sys.executable} -m simnet schema | head -1"
    told = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert (told.stdout, told.stderr) == ("{\n", "")


def test_no_progress_bar_where_no_terminal_is(demo):
    assert "\x1b" not in demo[1].stdout + demo[1].stderr
    assert "\r" not in demo[1].stdout + demo[1].stderr
