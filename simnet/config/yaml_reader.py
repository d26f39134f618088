"""YAML text -> plain Python data and, beside it, a tree of marks that says where each key and value stands.

Why not a loader that exists: of thirteen tried, none survived nineteen hostile files and gave positions. This one
walks libyaml's events itself, so depth, aliases and merges are bounded while they are read, and no tag ever builds an
object. Plain scalars mean what they mean to kubectl (sigs.k8s.io/yaml, which reads YAML 1.1 as gopkg.in/yaml.v2
does): yes, no, on, off, y and n are booleans, a leading 0 is octal, nothing is base 60, dates stay text; keys become
text. Left out: tags other than the core ones (`!!str` and its like), keys that are collections.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from simnet.config.text_problems import (
    EVENT_LOADER,
    TEMPLATE_FIX,
    character_problem,
    line_text,
    syntax_problem,
    unreadable_bytes,
)
from simnet.errors import Position, Problem
from simnet.garbage import paused_garbage_collector

MAX_DEPTH = 100
MAX_ALIASED_NODES = 100_000
MAX_NODES = 3_000_000  # keys and values; 64 MB of Pods hold about 2.2 million
MAX_DOCUMENTS = 100_000
MAX_NUMBER_LENGTH = 64
MAX_PROBLEMS = 50  # a file with more is not a manifest; the rest would only scroll by

Marks: TypeAlias = Any
"""A tree parallel to the data, dict for dict and list for list; each entry is (packed place of the key, packed place
of the value, marks of the value). The marks of a scalar are None."""

_COLUMN_BITS = 16
_COLUMN_MASK = (1 << _COLUMN_BITS) - 1

_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_INTEGER = re.compile(r"[-+]?(?:(0[bB][01]+)|(0[oO]?[0-7]+)|(0[xX][0-9a-fA-F]+)|[0-9]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NUMBER_STARTS = frozenset("0123456789+-.")
_CORE_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "map", "seq")}


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document of a YAML stream; `number` counts from 1, empty documents too, as kubectl counts."""

    data: object
    marks: Marks
    number: int
    line: int


class _UnreadableError(Exception):
    """Ends the reading of one file; the argument is its last problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


def unpack_mark(mark: int) -> tuple[int, int]:
    """Return line and column, counted from 1, of a packed place."""
    return (mark >> _COLUMN_BITS) + 1, (mark & _COLUMN_MASK) + 1


def locate(marks: Marks, path: tuple[str | int, ...]) -> tuple[int, int] | None:
    """Return line and column of what `path` leads to: a scalar's own place, a collection's key; None for an empty tree.

    A step that is not in the file (a missing key, the tag of a union) stays at the parent.
    """
    place: int | None = None
    node: Marks = marks
    for step in path:
        try:
            key_mark, value_mark, child = node[step]
        except (KeyError, IndexError, TypeError):
            continue
        place = value_mark if child is None else key_mark
        node = child
    return None if place is None else unpack_mark(place)


def locate_key(marks: Marks, path: tuple[str | int, ...]) -> tuple[int, int] | None:
    """Return line and column of the last key of `path`, for a key that should not be there."""
    node: Marks = marks
    for step in path[:-1]:
        try:
            node = node[step][2]
        except (KeyError, IndexError, TypeError):
            return locate(marks, path)
    try:
        return unpack_mark(node[path[-1]][0])
    except (KeyError, IndexError, TypeError):
        return locate(marks, path)


def read_yaml(content: bytes, file: str) -> tuple[list[YamlDocument], list[Problem]]:
    """Return the documents of a YAML stream and every problem found in it.

    After a syntax error the rest of the stream is not read; the documents before it are returned all the same.
    """
    problem = unreadable_bytes(content, file)
    if problem is not None:
        return [], [problem]
    reader = _Reader(content, file)
    with paused_garbage_collector():
        try:
            reader.read()
        except _UnreadableError as error:
            reader.problems.append(error.problem)
        except yaml.MarkedYAMLError as error:
            reader.problems.append(syntax_problem(error, content, file, reader.number))
        except yaml.reader.ReaderError as error:
            reader.problems.append(character_problem(error, content, file))
    return reader.documents, reader.problems


def resolve_plain(text: str) -> object:
    """Return the value of a plain (unquoted) scalar: None, bool, int, float or the text itself.

    Raises ValueError for a number that no JSON can hold, or of more than 64 characters.
    """
    if text in _WORDS:
        value = _WORDS[text]
        if isinstance(value, float):
            raise ValueError("a number that is not finite")
        return value
    if text[0] not in _NUMBER_STARTS:
        return text
    digits = text.replace("_", "")
    integer = _INTEGER.fullmatch(digits)
    if integer is None and _FLOAT.fullmatch(digits) is None:
        return text
    if len(text) > MAX_NUMBER_LENGTH:
        raise ValueError(f"a number of {len(text):,} characters")
    if integer is None:
        number = float(digits)
        if math.isinf(number):
            raise ValueError("a number that is not finite")
        return number
    binary, octal, hexadecimal = integer.groups()
    if octal:  # 0755 and 0o755; 08 is no octal and falls through to decimal, as strconv.ParseFloat reads it
        return int(digits.lower().replace("o", ""), 8)
    return int(digits, 2 if binary else 16 if hexadecimal else 10)


class _Reader:
    """The state of one pass over a stream."""

    def __init__(self, content: bytes, file: str) -> None:
        self.content = content
        self.file = file
        self.documents: list[YamlDocument] = []
        self.problems: list[Problem] = []
        self.number = 0
        self.keys: dict[str, str] = {}  # one str per distinct key: lists repeat the same few
        self.plain: dict[str, object] = {}  # plain scalars already resolved
        self.aliased_nodes = 0
        self.nodes = 0  # of the documents before

    def read(self) -> None:
        """Fill `documents`; raises _UnreadableError or a yaml error where the stream cannot go on."""
        events: Iterator[Any] = iter(yaml.parse(self.content, Loader=EVENT_LOADER))
        for event in events:
            if type(event) is yaml.DocumentStartEvent:
                self.number += 1
                if self.number > MAX_DOCUMENTS:
                    raise self._stop(
                        (event.start_mark.line if event.start_mark else 0) << _COLUMN_BITS,
                        f"more than {MAX_DOCUMENTS:,} documents",
                        f"at most {MAX_DOCUMENTS:,} documents in a file",
                        "split the file",
                    )
                self.nodes += self._document(events)

    def _document(self, events: Iterator[Any]) -> int:
        """Read one document; return how many nodes it has, those that aliases repeat included."""
        # A frame is one open collection. The innermost is kept in local names, the others on `stack`.
        data: object = None
        marks: Marks = None
        first_line = 0
        container: Any = None
        container_marks: Marks = None
        key: str | None = None
        key_mark = 0
        merges: list[tuple[object, Marks]] = []
        anchor: str | None = None
        start_nodes = 0
        own_mark = 0
        stack: list[tuple[Any, ...]] = []
        nodes = 0
        anchors: dict[str, tuple[object, Marks, int] | None] = {}  # value, marks, nodes; None while it is open

        for event in events:
            kind = type(event)
            if kind is yaml.DocumentEndEvent:
                break
            start = event.start_mark
            column = start.column
            mark = (start.line << _COLUMN_BITS) | (column if column < _COLUMN_MASK else _COLUMN_MASK)
            value_marks: Marks = None
            is_merge_key = False
            if not nodes:
                first_line = start.line + 1
            if kind is yaml.ScalarEvent:
                nodes += 1
                if event.tag is None and event.implicit[0]:
                    text = event.value
                    try:
                        value = self.plain[text]
                    except KeyError:
                        value = self._plain(text, mark)
                    is_merge_key = text == "<<"
                else:
                    value = event.value if event.tag is None else self._tagged(event, mark)
                if event.anchor is not None:
                    anchors[event.anchor] = (value, None, 1)
            elif kind is yaml.AliasEvent:
                value, value_marks, size = self._alias(anchors, event.anchor, mark)
                nodes += size
                self.aliased_nodes += size
                if self.aliased_nodes > MAX_ALIASED_NODES:
                    raise self._stop(
                        mark,
                        f"aliases (*{event.anchor}) that repeat more than {MAX_ALIASED_NODES:,} values",
                        f"at most {MAX_ALIASED_NODES:,} values repeated by aliases in one file",
                        "write the values out; a file that grows like this is often a trap",
                    )
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                nodes += 1
                if nodes + self.nodes > MAX_NODES:
                    raise self._stop(
                        mark,
                        f"more than {MAX_NODES:,} keys and values",
                        f"at most {MAX_NODES:,} in a file",
                        "split the file",
                    )
                is_mapping = kind is yaml.MappingStartEvent
                if event.tag is not None:
                    self._collection_tag(event.tag, is_mapping, mark)
                if len(stack) >= MAX_DEPTH:
                    raise self._stop(
                        mark,
                        f"values nested more than {MAX_DEPTH} deep",
                        f"at most {MAX_DEPTH} levels",
                        "flatten it; Kubernetes objects need about 20 levels",
                    )
                if type(container) is dict and key is None:
                    raise self._stop(mark, "a mapping or list as a key", "text as a key", self._key_fix(mark))
                stack.append((container, container_marks, key, key_mark, merges, anchor, start_nodes, own_mark))
                container, container_marks = ({}, {}) if is_mapping else ([], [])
                key, merges, anchor, start_nodes, own_mark = None, [], event.anchor, nodes, mark
                if anchor is not None:
                    anchors[anchor] = None
                continue
            else:  # a collection ends
                if merges:
                    self._merge(container, container_marks, merges)
                value, value_marks = container, container_marks
                if anchor is not None:
                    anchors[anchor] = (value, value_marks, nodes - start_nodes + 1)
                mark = own_mark
                container, container_marks, key, key_mark, merges, anchor, start_nodes, own_mark = stack.pop()

            if type(container) is dict:
                if key is None:
                    key, key_mark = self._key(value, is_merge_key, mark), mark
                elif key == "<<" and key_mark < 0:
                    merges.append((value, value_marks))
                    key = None
                else:
                    if key in container:
                        self._duplicate(key, container_marks, key_mark)
                    container[key] = value
                    container_marks[key] = (key_mark, mark, value_marks)
                    key = None
                if is_merge_key and key == "<<":
                    key_mark = -1  # a merge; a quoted "<<" is an ordinary key
            elif container is not None:
                container.append(value)
                container_marks.append((mark, mark, value_marks))
            else:
                data, marks = value, value_marks
        self.documents.append(YamlDocument(data, marks, self.number, first_line))
        return nodes

    def _plain(self, text: str, mark: int) -> object:
        try:
            value = resolve_plain(text)
        except ValueError as error:
            self._report(
                mark,
                str(error),
                f"a finite number of at most {MAX_NUMBER_LENGTH} characters",
                "put it in quotes if it is meant as text",
            )
            return text
        if len(text) < 64:
            self.plain[text] = value
        return value

    def _tagged(self, event: Any, mark: int) -> object:
        wanted = _CORE_TAGS.get(event.tag)
        if event.tag == "!" or wanted == "str":
            return event.value
        kinds: dict[str, tuple[type, ...]] = {
            "int": (int,),
            "float": (int, float),
            "bool": (bool,),
            "null": (type(None),),
        }
        if wanted in kinds:
            value = self._plain(event.value, mark)
            if isinstance(value, kinds[wanted]) and (wanted == "bool" or not isinstance(value, bool)):
                return value
        self._report_tag(event.tag, mark)
        return event.value

    def _collection_tag(self, tag: str, is_mapping: bool, mark: int) -> None:
        if tag != "!" and _CORE_TAGS.get(tag) != ("map" if is_mapping else "seq"):
            self._report_tag(tag, mark)

    def _report_tag(self, tag: str, mark: int) -> None:
        shown = tag.replace("tag:yaml.org,2002:", "!!")
        self._report(mark, f"the tag {shown[:60]}", "plain YAML without tags", "remove the tag; put text in quotes")

    def _alias(
        self, anchors: dict[str, tuple[object, Marks, int] | None], name: str, mark: int
    ) -> tuple[object, Marks, int]:
        if name not in anchors:
            raise self._stop(
                mark, f"the alias *{name}", f"an anchor &{name} before it", "define the anchor, or use quotes"
            )
        anchored = anchors[name]
        if anchored is None:
            raise self._stop(
                mark,
                f"the alias *{name} inside its own anchor &{name}",
                "values that do not hold themselves",
                "write the value out",
            )
        return anchored

    def _key(self, value: object, is_merge_key: bool, mark: int) -> str:
        if type(value) is str:
            return self.keys.setdefault(value, value)
        if value is True or value is False:
            return "true" if value else "false"
        if type(value) is int or type(value) is float:
            return repr(value).removesuffix(".0")
        if value is None:
            self._report(mark, "an empty key", "text as a key", "name the key, or put quotes around the text")
            return ""
        raise self._stop(mark, "a mapping or list as a key", "text as a key", self._key_fix(mark))

    def _key_fix(self, mark: int) -> str:
        line = line_text(self.content, mark >> _COLUMN_BITS)
        return TEMPLATE_FIX if "{{" in line else "put quotes around text that starts with { or ["

    def _duplicate(self, key: str, marks: Marks, mark: int) -> None:
        first_line = unpack_mark(marks[key][0])[0]
        line = unpack_mark(mark)[0]
        self._report(
            mark,
            f"the key {_quote(key)} twice: lines {first_line} and {line}",
            "each key once in a mapping",
            "remove one of the two",
        )

    def _merge(self, container: object, marks: Marks, merges: list[tuple[object, Marks]]) -> None:
        """Add what `<<` brings; the mapping's own keys win, then the first source that has the key."""
        assert isinstance(container, dict)
        for value, value_marks in merges:
            sources = [(value, value_marks)]
            if isinstance(value, list):
                assert isinstance(value_marks, list)
                sources = [(item, mark[2]) for item, mark in zip(value, value_marks, strict=True)]
            for source, source_marks in sources:
                if not isinstance(source, dict):
                    place = min((mark[0] for mark in marks.values()), default=0)
                    self._report(
                        place,
                        f"<< with {_kind(source)}",
                        "<< with a mapping or a list of mappings",
                        "merge an anchor of a mapping: <<: *defaults",
                    )
                    continue
                self.aliased_nodes += len(source)
                for key, item in source.items():
                    if key not in container:
                        container[key] = item
                        marks[key] = source_marks[key]

    def _problem(self, mark: int, found: str, expected: str, fix: str) -> Problem:
        return Problem(Position(self.file, *unpack_mark(mark)), f"document {self.number}", found, expected, fix)

    def _report(self, mark: int, found: str, expected: str, fix: str) -> None:
        problem = self._problem(mark, found, expected, fix)
        if len(self.problems) >= MAX_PROBLEMS:
            raise _UnreadableError(problem)
        self.problems.append(problem)

    def _stop(self, mark: int, found: str, expected: str, fix: str) -> _UnreadableError:
        return _UnreadableError(self._problem(mark, found, expected, fix))


def _quote(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
    return names.get(type(value), f"the value {str(value)[:60]}")
