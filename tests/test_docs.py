"""The documents: their links lead somewhere, their commands exist and run, their experiments and notebook hold."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import jupytext
import pytest
from click.testing import CliRunner

import simnet
from simnet.cli.main import COMMANDS, group

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("experiments/*.md")])
LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)")
MAKE_TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(path: Path) -> set[str]:
    """Headings as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ +(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_of(path: Path) -> list[list[str]]:
    """The simnet commands in console blocks and in `simnet ...` code spans of a document."""
    text = path.read_text(encoding="utf-8")
    lines = re.findall(r"^\$ (.+)$", text, re.MULTILINE) + re.findall(r"`(simnet [a-z][^`\n]*)`", text)
    words = [shlex.split(line, comments=True) for line in lines]
    return [each[1:] for each in words if each and Path(each[0]).name == "simnet"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(document):
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(path), f"{target}: no such heading"


def test_there_are_documents_links_and_commands_to_check():
    readme = ROOT / "README.md"
    assert readme in DOCUMENTS
    assert len(LINK.findall(readme.read_text(encoding="utf-8"))) > 5
    assert len(commands_of(readme)) > 3


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_that_a_document_names_exists_with_its_options(document):
    for words in commands_of(document):
        command = COMMANDS.get(words[0])
        assert command is not None or words[0].startswith("-"), f"simnet {words[0]}"
        if command is not None:
            shown = CliRunner().invoke(group, [words[0], "--help"])
            for option in (word.partition("=")[0] for word in words if word.startswith("--")):
                assert option in shown.output, f"simnet {' '.join(words)}: no {option}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_make_target_that_a_document_names_exists(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^\$ )make ([a-z][a-z-]*)", text, re.MULTILINE):
        assert target in MAKE_TARGETS, target


@pytest.mark.parametrize("experiment", sorted((ROOT / "experiments").glob("*.yaml")), ids=name_of)
def test_every_shipped_experiment_is_valid_without_a_warning(experiment):
    loaded = simnet.load_experiment(experiment)
    assert loaded.warnings == ()
    assert loaded.name == experiment.stem
    assert f"## {experiment.stem}" in (ROOT / "experiments/README.md").read_text(encoding="utf-8")


def test_the_readmes_way_from_init_to_plan_works(tmp_path):
    runner = CliRunner()
    folder = tmp_path / "my-experiment"
    words = [each for each in commands_of(ROOT / "README.md") if each[0] in ("init", "validate", "plan")]
    assert [each[0] for each in words] == ["init", "validate", "plan"]
    for each in words:
        arguments = [word.replace("my-experiment", str(folder)) for word in each]
        result = runner.invoke(group, arguments, standalone_mode=False)
        assert result.exception is None, result.output
        assert not result.return_value, result.output


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    file = (ROOT / "experiments/nginx-demo.yaml").as_posix()
    quick = code.replace('"experiments/nginx-demo.yaml"', f'"{file}", settings=["run.repeat=2", "run.duration=2s"]')
    assert quick != code
    monkeypatch.chdir(tmp_path)
    exec(compile(quick, "README.md", "exec"), {})
    assert (tmp_path / "load.png").stat().st_size > 5_000


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=name_of)
def test_a_notebook_and_its_python_text_say_the_same(notebook):
    left = jupytext.read(notebook).cells
    right = jupytext.read(notebook.with_suffix(".py")).cells
    assert [(cell.cell_type, cell.source) for cell in left] == [(cell.cell_type, cell.source) for cell in right]
