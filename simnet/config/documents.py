"""Files, folders and standard input -> documents: plain data, each with the places of its keys and values.

A folder means every *.yaml, *.yml and *.json below it, in the order of their paths. What is not a regular file (a
named pipe, a device) is refused rather than waited for. A file that starts with `{` or `[` is read as JSON first.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from simnet.config.json_reader import JsonDocument, item_lines, looks_like_json, read_json, syntax_problem
from simnet.config.text_problems import MAX_FILE_BYTES, unreadable_bytes
from simnet.config.yaml_reader import (
    Marks,
    locate,
    locate_key,
    read_yaml,
)
from simnet.errors import InputError, Position, Problem

SUFFIXES = (".yaml", ".yml", ".json")
STDIN_NAME = "<stdin>"
FieldPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One YAML or JSON document: its data, and where each of its values stands."""

    data: object
    file: str  # as the user named it
    number: int  # of the document in its file, from 1
    line: int  # where its data starts
    marks: Marks | JsonDocument

    def locate(self, path: FieldPath, *, of_key: bool = False) -> Position:
        """Return the place of what `path` leads to, or of its last key; a missing step stays at the parent."""
        if isinstance(self.marks, JsonDocument):
            return Position(self.file, *self.marks.locate(path, of_key=of_key))
        place = (locate_key if of_key else locate)(self.marks, path)
        return Position(self.file, *(place or (self.line, 1)))

    def item_positions(self, path: FieldPath) -> list[Position]:
        """Return the place of each item of the list at `path`; one walk, where `locate` would take one per item."""
        if isinstance(self.marks, JsonDocument):
            return [Position(self.file, line) for line in item_lines(self.marks, path)]
        node: object = self.data
        for step in path:
            node = node[step]  # type: ignore[index]
        return [self.locate((*path, index)) for index in range(len(node))]  # type: ignore[arg-type]


def read_documents(paths: Iterable[str | os.PathLike[str]], *, stdin: BinaryIO | None = None) -> list[Document]:
    """Return the documents of files, folders and (for "-") `stdin`; raises InputError with every problem found."""
    documents, problems = gather_documents(paths, stdin=stdin)
    if problems:
        raise InputError(problems)
    return documents


def gather_documents(
    paths: Iterable[str | os.PathLike[str]], *, stdin: BinaryIO | None = None
) -> tuple[list[Document], list[Problem]]:
    """Return the documents that could be read, and the problems of the others."""
    documents: list[Document] = []
    problems: list[Problem] = []
    for path in paths:
        name = os.fspath(path)
        if name == "-" and stdin is not None:
            contents: Iterable[tuple[str, bytes | Problem]] = [(STDIN_NAME, stdin.read(MAX_FILE_BYTES + 1))]
        else:
            contents = ((file, _read_file(file)) for file in _files(name, problems))
        for file, content in contents:
            if isinstance(content, Problem):
                problems.append(content)
                continue
            read, found = parse_documents(content, file)
            documents += read
            problems += found
    return documents, problems


def parse_documents(content: bytes, file: str) -> tuple[list[Document], list[Problem]]:
    """Return the documents in the bytes of one file, and its problems; `file` is the name that messages give."""
    problem = unreadable_bytes(content, file)
    if problem is not None:
        return [], [problem]
    json_problem: Problem | None = None
    if looks_like_json(content):
        try:
            json_documents, problems = read_json(content, file)
        except json.JSONDecodeError as error:
            json_problem = syntax_problem(error, file)  # perhaps YAML in flow style
        else:
            return [Document(one.data, file, one.number, one.line, one) for one in json_documents], problems
    yaml_documents, problems = read_yaml(content, file)
    if json_problem is not None and problems and b"{{" not in content[:MAX_FILE_BYTES]:
        return [], [json_problem]
    return [Document(one.data, file, one.number, one.line, one.marks) for one in yaml_documents], problems


def _files(name: str, problems: list[Problem]) -> list[str]:
    """Return the files that a path stands for, in order; what cannot be read goes to `problems`."""
    if "\0" in name:
        problems.append(_no_file(name.replace("\0", "\\0"), "a path with a NUL byte", "name a file or folder"))
        return []
    if not os.path.isdir(name):
        return [name]
    files: list[str] = []
    seen: set[tuple[int, int]] = set()  # folders already entered, so that a symbolic link cannot lead in a circle

    def unreadable(error: OSError) -> None:
        problems.append(_no_file(str(error.filename), _reason(error), "check its permissions"))

    for folder, folders, names in os.walk(name, onerror=unreadable, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        files += [os.path.join(folder, entry) for entry in names if entry.endswith(SUFFIXES) and entry[0] != "."]
    if not files and not problems:
        problems.append(
            Problem(
                Position(name),
                "",
                "a folder without *.yaml, *.yml or *.json files",
                "Kubernetes manifests",
                "name the folder that holds them",
            )
        )
    return sorted(files, key=lambda file: Path(file).parts)


def _read_file(name: str) -> bytes | Problem:
    try:
        mode = os.stat(name).st_mode
        if not stat.S_ISREG(mode):
            return _no_file(name, f"{_file_kind(mode)}, not a file", "name a regular file, or pipe it in and name -")
        with open(name, "rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if os.path.islink(name):
            return _no_file(name, f"a symbolic link to {os.readlink(name)}, which does not exist", "mend the link")
        return _no_file(
            name,
            "no such file or folder",
            f"check the path; it is looked up from {os.getcwd()}" if not os.path.isabs(name) else "check the path",
        )
    except (OSError, ValueError) as error:
        return _no_file(name, _reason(error), "check the path and its permissions")


def _no_file(name: str, found: str, fix: str) -> Problem:
    return Problem(Position(name), "", found, "a file or folder that can be read", fix)


def _reason(error: OSError | ValueError) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return reason[:1].lower() + reason[1:]


def _file_kind(mode: int) -> str:
    for test, kind in (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if test(mode):
            return kind
    return "a special file"
