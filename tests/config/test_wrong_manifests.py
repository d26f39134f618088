"""Each wrong manifest is answered with exactly the text in the file of its name + .expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from simnet.config.manifests import load_objects
from simnet.errors import InputError

FOLDER = Path(__file__).parent.parent / "data" / "wrong_manifests"
FILES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".yaml", ".json"))


@pytest.mark.parametrize("file", FILES)
def test_a_wrong_manifest_is_answered_with_where_found_expected_and_fix(file, monkeypatch):
    monkeypatch.chdir(FOLDER)
    with pytest.raises(InputError) as refusal:
        load_objects([file])
    assert f"{refusal.value}\n" == (FOLDER / f"{file}.expected").read_text()


def test_every_wrong_manifest_has_its_message_and_there_are_forty_or_more():
    assert {f"{file}.expected" for file in FILES} == {path.name for path in FOLDER.glob("*.expected")}
    assert len(FILES) >= 40


def test_the_mistakes_of_all_files_come_in_one_answer(monkeypatch):
    monkeypatch.chdir(FOLDER)
    files = ["no-name.yaml", "duplicate-key.yaml", "protocol-http.yaml", "nowhere.yaml"]
    with pytest.raises(InputError) as refusal:
        load_objects(files)
    assert {problem.where.file for problem in refusal.value.problems} == set(files)
