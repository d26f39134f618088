"""Files, folders, standard input and JSON: what is read, in which order, and what is refused."""

from __future__ import annotations

import io
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simnet.config.documents import parse_documents, read_documents
from simnet.errors import InputError


def refusal(*paths, stdin=None) -> str:
    with pytest.raises(InputError) as error:
        read_documents(paths, stdin=stdin)
    return str(error.value)


def test_a_folder_is_read_in_the_order_of_its_paths_and_hidden_files_are_passed_over(tmp_path):
    for name in ("b.yaml", "a/z.yml", "a/b.json", "a/.hidden.yaml", ".git/c.yaml", "a/readme.md", "c.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"name": name}))
    documents = read_documents([tmp_path])
    assert [document.data["name"] for document in documents] == ["a/b.json", "a/z.yml", "b.yaml", "c.yaml"]
    assert documents[0].file == str(tmp_path / "a" / "b.json")


def test_a_dash_is_standard_input():
    (document,) = read_documents(["-"], stdin=io.BytesIO(b"a: 1\n"))
    assert (document.data, document.file, document.line) == ({"a": 1}, "<stdin>", 1)


def test_links_in_a_circle_are_followed_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.yaml").write_text("a: 1\n")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert len(read_documents([tmp_path])) == 1
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    assert refusal(tmp_path / "loop.yaml").startswith(
        f"{tmp_path}/loop.yaml\n  found:    too many levels of symbolic links\n"
    )


def test_a_missing_file_is_named_with_the_place_it_was_looked_up_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal("nowhere.yaml") == (
        "nowhere.yaml\n"
        "  found:    no such file or folder\n"
        "  expected: a file or folder that can be read\n"
        f"  fix:      check the path; it is looked up from {tmp_path}"
    )


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "gone.yaml").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    assert "found:    a named pipe, not a file" in refusal(tmp_path / "pipe.yaml")
    assert "found:    a character device, not a file" in refusal("/dev/zero")
    assert "found:    a symbolic link to nowhere, which does not exist" in refusal(tmp_path / "gone.yaml")
    assert "found:    a folder without *.yaml, *.yml or *.json files" in refusal(tmp_path / "empty")
    assert "found:    a path with a NUL byte" in refusal("a\0b")
    assert "file name too long" in refusal("x" * 5000)


def test_the_problems_of_all_files_are_collected(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1\na: 2\n")
    (tmp_path / "b.yaml").write_bytes(b"\0")
    told = refusal(tmp_path, "nowhere")
    assert [f"{tmp_path}/a.yaml:2" in told, f"{tmp_path}/b.yaml:1" in told, "nowhere\n" in told] == [True] * 3


LISTS = {
    "key twice": (
        b'{"a": 1,\n"b": {"x": 1,\n"y": 2,\n"x": 3}}',
        "f:4: document 1\n  found:    the key 'x' twice: lines 2 and 4",
    ),
    "NaN": (b'[{"a": "NaN"},\n NaN]', "f:2: document 1\n  found:    NaN, which is no JSON number"),
    "infinite": (b"[1,\n1e999]", "f:2: document 1\n  found:    a number that is not finite"),
    "deep": (b"[" * 100_000, "f:1: document 1\n  found:    values nested more than 100 deep"),
    "rather deep": (b"[" * 150 + b"]" * 150, "f:1: document 1\n  found:    values nested more than 100 deep"),
    "huge": (b"[\n" + b"9" * 200_000 + b"]", "f:2: document 1\n  found:    a number of 200,000 characters"),
    "no comma": (b'{"a": 1\n "b": 2}', "f:2\n  found:    expecting ',' delimiter"),
}


@pytest.mark.parametrize("name", LISTS)
def test_json_that_is_no_good_is_refused_with_its_line(name):
    content, expected = LISTS[name]
    documents, problems = parse_documents(content, "f")
    assert [documents, len(problems)] == [[], 1]
    assert str(problems[0]).startswith(expected)


def test_json_documents_may_follow_one_another_and_flow_yaml_may_start_like_json():
    documents, _ = parse_documents(b'{"a": 1}\n{"b": 2}\n', "f")
    assert [(document.data, document.number, document.line) for document in documents] == [
        ({"a": 1}, 1, 1),
        ({"b": 2}, 2, 2),
    ]
    assert parse_documents(b"{a: 1, b: [2,]}", "f")[0][0].data == {"a": 1, "b": [2]}
    assert parse_documents(b'{"a": "\\ud83d", "b": "\\ud83d\\ude00"}', "f")[0][0].data == {
        "a": "\ufffd",
        "b": "\U0001f600",
    }


PATHS = st.lists(st.sampled_from(["a", "b", "c", 0, 1, 2]), max_size=4).map(tuple)
TREES = st.recursive(
    st.integers(0, 9) | st.sampled_from(['say "hi"', "{[", "\\", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from("abc"), TREES, min_size=1), PATHS)
@settings(max_examples=300, deadline=None)
def test_json_and_yaml_agree_on_data_and_on_the_lines_of_scalars(data, path):
    content = json.dumps(data, indent=1, ensure_ascii=False).encode()
    ((as_json,), _), ((as_yaml,), _) = parse_documents(content, "f"), parse_documents(b"# yaml" + b"\n" + content, "f")
    assert as_json.data == as_yaml.data == data
    node: object = data
    try:
        for step in path:
            node = node[step]  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        return
    if path and not isinstance(node, dict | list):
        assert as_json.locate(path).line == as_yaml.locate(path).line - 1
        assert as_json.locate(path).column == as_yaml.locate(path).column
