"""The YAML reader: what plain scalars mean, where things stand, and what it refuses, within limits."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from simnet.config import text_problems, yaml_reader
from simnet.config.documents import parse_documents
from simnet.config.yaml_reader import locate, locate_key, read_yaml, resolve_plain


def only(content: str | bytes) -> object:
    documents, problems = read_yaml(content.encode() if isinstance(content, str) else content, "f.yaml")
    assert problems == []
    assert len(documents) == 1
    return documents[0].data


def refusal(content: bytes) -> str:
    _, problems = read_yaml(content, "f.yaml")
    return "\n".join(map(str, problems))


# What sigs.k8s.io/yaml (gopkg.in/yaml.v2, resolve.go) makes of them; a test of kubectl's reading, not of YAML 1.2's.
@pytest.mark.parametrize(
    "text, value",
    [
        ("yes", True),
        ("On", True),
        ("y", True),
        ("TRUE", True),
        ("no", False),
        ("OFF", False),
        ("n", False),
        ("tRue", "tRue"),
        ("~", None),
        ("null", None),
        ("", None),
        ("nUll", "nUll"),
        ("0755", 493),
        ("0o17", 15),
        ("08", 8),
        ("0x1F", 31),
        ("0b11", 3),
        ("-0x10", -16),
        ("1_000", 1000),
        ("+12", 12),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("1.5e-3", 0.0015),
        ("-", "-"),
        (".", "."),
        ("1e", "1e"),
        ("22:22", "22:22"),
        ("1:30.5", "1:30.5"),
        ("2024-01-01", "2024-01-01"),
        ("10.0.0.1", "10.0.0.1"),
        ("fd00::1", "fd00::1"),
        ("1.2.3", "1.2.3"),
        ("0x", "0x"),
        ("None", "None"),
        ("18446744073709551616", 2**64),
    ],
)
def test_a_plain_scalar_means_what_it_means_to_kubectl(text, value):
    resolved = resolve_plain(text)
    assert resolved == value
    assert type(resolved) is type(value)


def test_quoted_scalars_and_core_tags_stay_what_they_say():
    assert only("""{a: "yes", b: '80', c: !!str 80, d: !!int "80", e: !!map {x: !!seq [1]}}""") == {
        "a": "yes",
        "b": "80",
        "c": "80",
        "d": 80,
        "e": {"x": [1]},
    }


def test_keys_that_are_not_text_become_text_as_in_json():
    assert only("5: a\n3.14: b\ntrue: c\n1.0: d\n") == {"5": "a", "3.14": "b", "true": "c", "1": "d"}


def test_aliases_repeat_and_merges_give_way_to_the_own_keys_then_to_the_first_source():
    content = "a: &a {p: 1, q: 1}\nb: &b {q: 2, r: 2}\nc:\n  <<: [*a, *b]\n  p: 3\nd: *a\n"
    assert only(content) == {
        "a": {"p": 1, "q": 1},
        "b": {"q": 2, "r": 2},
        "c": {"p": 3, "q": 1, "r": 2},
        "d": {"p": 1, "q": 1},
    }
    assert only('"<<": 1\nb: <<\n') == {"<<": 1, "b": "<<"}


def test_crlf_tabs_after_values_document_ends_comments_and_nulls_are_fine():
    documents, problems = read_yaml(
        b"# only a comment\n---\r\na: 1\t\r\nb:\t\r\n  - x\t# y\r\n...\n---\n# nothing\n---\nnull\n", "f"
    )
    assert problems == []
    assert [(document.number, document.data) for document in documents] == [
        (1, {"a": 1, "b": ["x"]}),
        (2, None),
        (3, None),
    ]
    assert read_yaml(b"", "f") == ([], [])
    assert only(b"\xef\xbb\xbfa: 1\n") == {"a": 1}


def test_marks_tell_line_and_column_of_values_and_keys_and_stay_at_the_parent_of_what_is_missing():
    documents, _ = read_yaml(b"spec:\n  ports:\n  - port: 80\n    name: http\n  empty: {}\n", "f")
    marks = documents[0].marks
    assert locate(marks, ("spec", "ports", 0, "name")) == (4, 11)
    assert locate_key(marks, ("spec", "ports", 0, "name")) == (4, 5)
    assert locate(marks, ("spec", "ports", 0, "port")) == (3, 11)
    assert locate(marks, ("spec", "ports")) == (2, 3)
    assert locate(marks, ("spec", "ports", 0, "nodePort")) == (3, 5)
    assert locate(marks, ("spec", "ports", 0, "int", "port")) == (3, 11)
    assert locate(marks, ()) is None


def test_a_broken_document_is_named_and_those_before_it_are_kept():
    documents, problems = read_yaml(b"a: 1\n---\nb: 2\n---\nc: [1\nd: 2\n", "f.yaml")
    assert [document.data for document in documents] == [{"a": 1}, {"b": 2}]
    assert [(problem.field, problem.where.line) for problem in problems] == [("document 3", 6)]


def test_the_garbage_collector_runs_again_after_a_load_that_failed():
    import gc

    read_yaml(b"a: [", "f")
    assert gc.isenabled()


NESTED_LAUGHS = b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (level, level, b",".join([b"*a%d" % (level - 1)] * 9)) for level in range(1, 10)
)
MERGE_BOMB = b"a0: &a0 {k: v}\n" + b"".join(
    b"a%d: &a%d\n  <<: [*a%d, *a%d]\n" % (level, level, level - 1, level - 1) for level in range(1, 25)
)
HOSTILE = {
    "billion laughs": (
        NESTED_LAUGHS,
        "f.yaml:6: document 1\n  found:    aliases (*a4) that repeat more than 100,000 values",
    ),
    "merge bomb": (
        MERGE_BOMB,
        "f.yaml:29: document 1\n  found:    aliases (*a13) that repeat more than 100,000 values",
    ),
    "wide aliases": (
        b"a: &a [" + b"1," * 20000 + b"]\nb: [" + b"*a," * 20000 + b"]\n",
        "f.yaml:2: document 1\n  found:    aliases (*a) that repeat more than 100,000 values",
    ),
    "list in itself": (b"a: &a [*a]\n", "f.yaml:1: document 1\n  found:    the alias *a inside its own anchor &a"),
    "mapping merged with itself": (
        b"&a\nx: 1\n<<: *a\n",
        "f.yaml:3: document 1\n  found:    the alias *a inside its own anchor &a",
    ),
    "same key twice": (b"a: 1\nb: 2\na: 3\n", "f.yaml:3: document 1\n  found:    the key 'a' twice: lines 1 and 3"),
    "a million same keys": (
        b"a: 1\n" * 1_000_000,
        "f.yaml:52: document 1\n  found:    the key 'a' twice: lines 51 and 52",
    ),
    "python tag": (
        b'a: !!python/object/apply:os.system ["id"]\n',
        "f.yaml:1: document 1\n  found:    the tag !!python/object/apply:os.system",
    ),
    "own tag": (b"a: !Ref x\n", "f.yaml:1: document 1\n  found:    the tag !Ref"),
    "deep brackets": (b"[" * 100_000, "f.yaml:1: document 1\n  found:    values nested more than 100 deep"),
    "deep braces": (b"{a: " * 100_000, "f.yaml:1: document 1\n  found:    values nested more than 100 deep"),
    "deep dashes": (b"- " * 100_000, "f.yaml:1: document 1\n  found:    values nested more than 100 deep"),
    "deep question marks": (b"? " * 100_000, "f.yaml:1: document 1\n  found:    a mapping or list as a key"),
    "huge integer": (b"a: " + b"9" * 200_000, "f.yaml:1: document 1\n  found:    a number of 200,000 characters"),
    "50 MB of digits": (
        b"a: " + b"1" * 50_000_000,
        "f.yaml:1: document 1\n  found:    a number of 50,000,000 characters",
    ),
    "infinite": (b"a: 1e999\n", "f.yaml:1: document 1\n  found:    a number that is not finite"),
    "65 MB": (b"#" * (64 * 2**20 + 1), "f.yaml\n  found:    67,108,865 bytes"),
    "NUL": (b"a: b\nc: \0d", "f.yaml:2\n  found:    a NUL byte: a binary file"),
    "binary": (bytes(range(1, 256)) * 100, "f.yaml:2\n  found:    byte 0x80, which is not UTF-8"),
    "UTF-16": ("a: b".encode("utf-16"), "f.yaml:1\n  found:    UTF-16 text (it starts with a byte order mark)"),
    "control character": (b"a: 1\nb: \x01\n", "f.yaml:2\n  found:    the control character U+0001"),
    "list as key": (b"? [a]\n: b\n", "f.yaml:1: document 1\n  found:    a mapping or list as a key"),
    "empty key": (b"~: b\n", "f.yaml:1: document 1\n  found:    an empty key"),
    "unknown alias": (b"a: *b\n", "f.yaml:1: document 1\n  found:    the alias *b"),
    "open quote": (b'a: "' + b"x\n" * 100_000, "f.yaml:100001: document 1\n  found:    found unexpected end of stream"),
    "a million documents": (
        b"---\n" * 1_000_000,
        "f.yaml:100001: document 100001\n  found:    more than 100,000 documents",
    ),
    "future YAML": (b"%YAML 3.0\n---\na: 1\n", "f.yaml:1: document 1\n  found:    found incompatible YAML document"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_one_clear_problem_in_under_two_seconds(name):
    content, expected = HOSTILE[name]
    began = time.process_time()
    told = refusal(content)
    assert time.process_time() - began < 2
    assert expected in told


BIG = {
    "plain scalar": 'b"a: " + b"x" * 50_000_000',
    "quoted scalar": "b'a: \"' + b'x' * 50_000_000 + b'\"'",
    "huge number": 'b"a: " + b"1" * 50_000_000',
    "json text": "b'{\"a\": \"' + b'x' * 50_000_000 + b'\"}'",
    "deep": 'b"- " * 100_000',
    "many documents": 'b"---\\n" * 1_000_000',
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
@pytest.mark.parametrize("name", BIG)
def test_a_big_hostile_file_stays_within_512_megabytes(name):
    code = f"""
        from pathlib import Path
        from simnet.config.documents import parse_documents
        parse_documents({BIG[name]}, "f")
        # VmHWM is this program's own peak; ru_maxrss begins with that of the process that started it
        print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    """
    told = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 512 * 1024


def test_without_libyaml_the_python_parser_gives_the_same(monkeypatch):
    content = b"a: &x [1, yes, 'z']\nb: *x\nc:\n  <<: {d: 0755}\n---\nz: {x: 1\ny: 2\n"
    with_libyaml = read_yaml(content, "f")
    monkeypatch.setattr(yaml_reader, "EVENT_LOADER", yaml.SafeLoader)
    monkeypatch.setattr(text_problems, "EVENT_LOADER", yaml.SafeLoader)
    documents, problems = read_yaml(content, "f")
    assert documents == with_libyaml[0]
    assert len(problems) == len(with_libyaml[1]) == 1
    assert problems[0].field == "document 2"
    assert "control character U+0001" in str(read_yaml("é: \x01".encode(), "f")[1][0])


# PyYAML writes these plain although kubectl reads them as something else than text.
READ_OTHERWISE = re.compile(r"[yYnN]|[-+]?0o[0-7_]+|[-+.0-9][-+.0-9eE_]*")
TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=20)
KUBERNETES_TEXT = (
    TEXT | st.sampled_from(["yes", "0755", "22:22", "2024-01-01", "None", "null", "<<", "=", "80"])
).filter(lambda text: not READ_OTHERWISE.fullmatch(text) or text.isdecimal())
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | KUBERNETES_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KUBERNETES_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(DATA)
@settings(max_examples=200, deadline=None)
def test_what_pyyaml_writes_is_read_back(data):
    documents, problems = read_yaml(yaml.safe_dump(data, allow_unicode=True).encode(), "f")
    assert problems == []
    assert [document.data for document in documents] == [data]


SEED = (
    b'apiVersion: v1\nkind: List\nitems:\n- &a {kind: Service, spec: {ports: [{port: 80, name: "x"}]}}\n'
    b'- *a\n- <<: *a\n  n: 0x1F\n- |\n  text\n---\n{"a": [1e3, 08, ~, !!str x]}\n'
)
SEED_JSON = (
    b'{"apiVersion": "v1", "kind": "List", "items": [{"a": "\\ud83d", "b": -1.5e3, "c": [null, true]}]}\n{"x": 1}'
)


@given(
    st.sampled_from([SEED, SEED_JSON]),
    st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3), st.integers(0, 4)), min_size=1, max_size=8),
)
@settings(max_examples=1500, deadline=None)
def test_bytes_changed_at_random_are_read_or_refused_and_nothing_else(seed, edits):
    content = seed
    for where, replacement, length in edits:
        content = content[:where] + replacement + content[where + length :]
    documents, problems = parse_documents(content, "f")
    for problem in problems:
        assert str(problem).encode("utf-8")
    for document in documents:
        str(document.data).encode("utf-8")
        document.locate(("items", 0, "spec", "ports", 0))
