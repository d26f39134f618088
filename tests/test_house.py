"""The house itself: which package imports which, how fast the command starts, how it ends."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import simnet
from simnet.cli import main as cli
from simnet.errors import InputError, ModelError, Position, Problem, ResultError


def simnet_command(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simnet", *args],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )


def test_every_package_imports_only_what_its_contract_allows(repository: Path) -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    if not lint_imports.exists():
        pytest.skip("import-linter is not installed")
    told = subprocess.run([lint_imports, "--no-cache"], cwd=repository, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr


def test_help_starts_in_at_most_eight_times_a_bare_python() -> None:
    def seconds(*args: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *args], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    seconds("-m", "simnet", "--help")  # the first start may write bytecode
    # In pairs, one after the other, so that a busy machine slows both alike.
    ratios = [seconds("-m", "simnet", "--help") / seconds("-c", "pass") for _ in range(15)]
    assert statistics.median(ratios) <= 8


def test_help_imports_neither_numpy_nor_a_subcommand() -> None:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "simnet", "--help"], capture_output=True, text=True, check=True
    )
    imported = set(re.findall(r"\| +(\S+)$", told.stderr, flags=re.MULTILINE))
    assert "simnet.cli.main" in imported
    heavy = {"numpy", "pandas", "matplotlib", "scipy", "pyarrow", "simpy", "pydantic", "rich", "yaml", "jinja2"}
    assert not imported & (heavy | {module for module, _, _ in cli.COMMANDS.values()})


def test_each_row_of_the_command_table_names_a_command() -> None:
    context = click.Context(cli.group)
    for name, (_, _, text) in cli.COMMANDS.items():
        command = cli.group.get_command(context, name)
        assert isinstance(command, click.Command), name
        assert command.name == name
        assert command.help, f"{name} says nothing under --help"
        assert text.endswith("."), name


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command_on_stdout(flag: str) -> None:
    told = simnet_command(flag)
    assert told.returncode == 0
    assert told.stderr == ""
    assert all(f"\n  {name} " in told.stdout for name in cli.COMMANDS)


def test_version_is_the_packages_own() -> None:
    told = simnet_command("--version")
    assert (told.returncode, told.stdout) == (0, f"simnet, version {simnet.__version__}\n")


def test_a_misspelt_command_is_answered_with_the_nearest_one() -> None:
    told = simnet_command("completoin")
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr.endswith("Error: No such command 'completoin'. Did you mean 'completion'?\n")


@pytest.mark.parametrize("args", [["--no-such-option"], ["zzzz"], ["completion", "tcsh"]])
def test_wrong_usage_ends_with_code_2_and_no_traceback(args: list[str]) -> None:
    told = simnet_command(*args)
    assert told.returncode == 2
    assert told.stdout == ""
    assert "Error: " in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_ask_simnet_itself(shell: str) -> None:
    told = simnet_command("completion", shell)
    assert told.returncode == 0
    assert f"_SIMNET_COMPLETE={shell}_complete" in told.stdout


def test_completing_a_commands_name_offers_the_table() -> None:
    told = simnet_command(_SIMNET_COMPLETE="bash_complete", COMP_WORDS="simnet compl", COMP_CWORD="1")
    assert told.stdout == "plain,completion\n"


PROBLEM = Problem(Position("x.yaml", 3), "run.seed", "'one'", "an integer", "write seed: 1")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            InputError([PROBLEM]),
            2,
            "x.yaml:3: run.seed\n  found:    'one'\n  expected: an integer\n  fix:      write seed: 1\n",
        ),
        (ResultError("results/x: no manifest"), 2, "results/x: no manifest\n"),
        (
            ModelError("at 1.5 s, node-1: a queue of negative length"),
            3,
            "at 1.5 s, node-1: a queue of negative length\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_a_command_raises_becomes_a_text_and_an_exit_code(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    failing = click.Command("fail", callback=fail)
    monkeypatch.setattr(cli.LazyGroup, "resolve_command", lambda *_: ("fail", failing, []))
    assert cli.exit_code(["fail"]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.lstrip("\n") == text  # click ends the terminal's line after ^C


def test_a_bug_is_told_with_its_traceback_and_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = click.Command("fail", callback=lambda: 1 // 0)
    monkeypatch.setattr(cli.LazyGroup, "resolve_command", lambda *_: ("fail", failing, []))
    assert cli.exit_code(["fail"]) == 3
    told = capsys.readouterr()
    assert "ZeroDivisionError" in told.err
    assert "this is a bug in simnet" in told.err


def test_a_command_says_how_it_ended_by_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def expectation_failed() -> None:
        click.get_current_context().exit(1)

    ending = click.Command("end", callback=expectation_failed)
    monkeypatch.setattr(cli.LazyGroup, "resolve_command", lambda *_: ("end", ending, []))
    assert cli.exit_code(["end"]) == 1


ENDLESS = """
import click
from simnet.cli import main as cli
def lines():
    while True:
        click.echo("a line")
cli.LazyGroup.resolve_command = lambda *_: ("lines", click.Command("lines", callback=lines), [])
cli.main(["lines"])
"""


def test_a_reader_that_goes_away_ends_the_command_in_silence() -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert cli.colour() is None
    monkeypatch.setenv("NO_COLOR", "1")
    assert cli.colour() is False


def test_the_locks_name_no_place_to_download_from(repository: Path) -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (repository / name).read_text()
        assert "://" not in text
        assert not re.search(r"^-", text, flags=re.MULTILINE)
        requirements = re.findall(r"^[a-z0-9].*$", text, flags=re.MULTILINE)
        assert requirements
        assert all("==" in line for line in requirements)
        assert len(re.findall(r"^[a-z0-9].*\n +--hash=sha256:[0-9a-f]{64}", text, flags=re.MULTILINE)) == len(
            requirements
        )


def test_running_and_testing_use_the_same_releases(repository: Path) -> None:
    def releases(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9].*$", (repository / name).read_text(), flags=re.MULTILINE))

    assert releases("requirements.txt") <= releases("requirements-dev.txt")
