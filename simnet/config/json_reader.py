"""JSON text -> plain Python data, with places found only when somebody asks for one.

`kubectl get -o json` of a large cluster is tens of megabytes; the standard parser reads it ten times faster than
YAML, but says nothing of lines. So a file is decoded value by value at the top (each document, each item of a List),
which gives the lines of objects for nothing, and the line of a single field is found by walking the text again along
its path. Stricter than the standard library: a key twice, NaN, 1e999, numbers of more than 64 characters and nesting
beyond 100 are refused. Several JSON documents may follow one another, as kubectl allows.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from simnet.config.yaml_reader import MAX_DEPTH, MAX_NUMBER_LENGTH
from simnet.errors import Position, Problem
from simnet.garbage import paused_garbage_collector

_SPACE = re.compile(r"[ \t\n\r]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}:,]|[^\s\]\[{}:,"]+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class JsonDocument:
    """One JSON value of a file: its data, number (from 1), and the text and offset where it starts."""

    data: object
    text: str
    start: int
    number: int
    line: int

    def locate(self, path: tuple[str | int, ...], *, of_key: bool = False) -> tuple[int, int]:
        """Return line and column of what `path` leads to, or of its last key; a missing step stays at the parent."""
        return _line_and_column(self.text, _offset(self.text, self.start, path, of_key))


class _RefusedError(Exception):
    """JSON that the standard parser would take, and simnet does not; args: found, expected, fix, what to look for."""


def looks_like_json(content: bytes) -> bool:
    """Whether the first character that is not blank opens an object or array."""
    head = content.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")[:1]
    return head in (b"{", b"[")


def read_json(content: bytes, file: str) -> tuple[list[JsonDocument], list[Problem]]:
    """Return the JSON documents of a file, or the one problem that stopped the reading.

    `content` is UTF-8 that `text_problems.unreadable_bytes` has passed. Raises json.JSONDecodeError for text
    that is no JSON at all, which may still be YAML.
    """
    text = content.decode("utf-8-sig")
    decoder = json.JSONDecoder(
        object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
    )
    has_surrogates = _SURROGATE.search(text) is not None
    documents: list[JsonDocument] = []
    start, line, counted = _skip(text, 0), 1, 0
    with paused_garbage_collector():
        try:
            while start < len(text):
                data, end = decoder.raw_decode(text, start)
                line += text.count("\n", counted, start)
                counted = start
                _check_depth(data)
                if has_surrogates:
                    data = _without_lone_surrogates(data)
                documents.append(JsonDocument(data, text, start, len(documents) + 1, line))
                start = _skip(text, end)
        except RecursionError:
            error = _too_deep()
        except _RefusedError as refused:
            error = refused
        else:
            return documents, []
    found, expected, fix, sought = error.args
    where = _find_refused(text, start, sought)
    if where is None:
        return documents, [Problem(Position(file), f"document {len(documents) + 1}", found, expected, fix)]
    offset, first_offset = where
    if first_offset is not None:
        found += f": lines {_line_and_column(text, first_offset)[0]} and {_line_and_column(text, offset)[0]}"
    position = Position(file, *_line_and_column(text, offset))
    return documents, [Problem(position, f"document {len(documents) + 1}", found, expected, fix)]


def syntax_problem(error: json.JSONDecodeError, file: str) -> Problem:
    """Return a JSON syntax error as a problem."""
    return Problem(
        Position(file, error.lineno, error.colno),
        "",
        f"{error.msg[:1].lower()}{error.msg[1:]}",
        "well-formed JSON",
        "look at this line and the one before it: a comma, a quote, a bracket",
    )


def item_lines(document: JsonDocument, path: tuple[str | int, ...]) -> list[int]:
    """Return the line of each item of the array at `path`, in one walk over the text."""
    text = document.text
    offset = _offset(text, document.start, path, False)
    lines: list[int] = []
    if text[offset : offset + 1] != "[":
        return lines
    scan = json.JSONDecoder().raw_decode
    line, counted = _line_and_column(text, offset)[0], offset
    offset = _skip(text, offset + 1)
    while offset < len(text) and text[offset] != "]":
        line += text.count("\n", counted, offset)
        counted = offset
        lines.append(line)
        _, offset = scan(text, offset)
        offset = _skip(text, offset)
        if text[offset : offset + 1] == ",":
            offset = _skip(text, offset + 1)
    return lines


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        key = next(key for index, key in enumerate(keys) if key in keys[:index])
        raise _RefusedError(
            f"the key {key[:60]!r} twice", "each key once in an object", "remove one of the two", ("key", key)
        )
    return result


def _constant(text: str) -> object:
    raise _RefusedError(
        f"{text}, which is no JSON number", "a finite number", "write a number, or text in quotes", ("token", text)
    )


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _RefusedError(
            "a number that is not finite", "a finite number", "write a number, or text in quotes", ("token", text)
        )
    if len(text) > MAX_NUMBER_LENGTH:
        raise _too_long(text)
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_LENGTH:
        raise _too_long(text)
    return int(text)


def _too_long(text: str) -> _RefusedError:
    return _RefusedError(
        f"a number of {len(text):,} characters",
        f"a number of at most {MAX_NUMBER_LENGTH} characters",
        "put it in quotes if it is meant as text",
        ("token", text),
    )


def _too_deep() -> _RefusedError:
    return _RefusedError(
        f"values nested more than {MAX_DEPTH} deep",
        f"at most {MAX_DEPTH} levels",
        "flatten it; Kubernetes objects need about 20 levels",
        ("depth", ""),
    )


def _check_depth(data: object) -> None:
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH + 1):
        children: list[Any] = []
        for value in level:
            if type(value) is dict:
                children.extend(item for item in value.values() if type(item) is dict or type(item) is list)
            elif type(value) is list:
                children.extend(item for item in value if type(item) is dict or type(item) is list)
        if not children:
            return
        level = children
    raise _too_deep()


def _without_lone_surrogates(data: Any) -> Any:
    """Return data in which half a surrogate pair, which no UTF-8 can hold, is U+FFFD, as Go's decoder makes it."""
    if isinstance(data, str):
        return data.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(data, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(value) for key, value in data.items()}
    return [_without_lone_surrogates(item) for item in data] if isinstance(data, list) else data


def _find_refused(text: str, start: int, sought: tuple[str, str]) -> tuple[int, int | None] | None:
    """Return the offset of what was refused, and of its first appearance where a key stands twice."""
    kind, wanted = sought
    keys_of: list[dict[str, int] | None] = []
    previous: tuple[str, int] | None = None
    for match in _TOKEN.finditer(text, start):
        token = match[0]
        if token in "{[":
            keys_of.append({} if token == "{" else None)
            if kind == "depth" and len(keys_of) > MAX_DEPTH:
                return match.start(), None
        elif token in "}]":
            if keys_of:
                keys_of.pop()
        elif token == ":" and kind == "key" and previous is not None and keys_of:
            keys = keys_of[-1]
            if keys is not None and json.loads(previous[0]) == wanted:
                if wanted in keys:
                    return previous[1], keys[wanted]
                keys[wanted] = previous[1]
        elif kind == "token" and token == wanted:
            return match.start(), None
        previous = (token, match.start())
    return None


def _offset(text: str, start: int, path: tuple[str | int, ...], of_key: bool) -> int:
    """Return the offset of the value (or key) that `path` leads to, decoding only what lies before it."""
    scan = json.JSONDecoder().raw_decode
    offset = key_offset = start
    for step in path:
        opening = text[offset : offset + 1]
        if opening not in ("{", "["):
            continue
        cursor, index, found = _skip(text, offset + 1), 0, False
        while text[cursor : cursor + 1] not in ("}", "]", ""):
            item_key: object = index
            place = cursor
            if opening == "{":
                item_key, cursor = scan(text, cursor)
                cursor = _skip(text, _skip(text, cursor) + 1)  # over the colon
            if item_key == step:
                key_offset, offset, found = place, cursor, True
                break
            cursor = _skip(text, scan(text, cursor)[1])
            if text[cursor : cursor + 1] == ",":
                cursor = _skip(text, cursor + 1)
            index += 1
        if not found:
            continue
    return key_offset if of_key else offset


def _skip(text: str, offset: int) -> int:
    blank = _SPACE.match(text, offset)
    return blank.end() if blank else offset


def _line_and_column(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
