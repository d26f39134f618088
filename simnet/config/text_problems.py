"""What is wrong with the text of a YAML file, before any meaning: its bytes, its characters, its syntax."""

from __future__ import annotations

import re

import yaml

from simnet.errors import Position, Problem

EVENT_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the pure-Python one is correct, and slow
MAX_FILE_BYTES = 64 * 1024 * 1024
TEMPLATE_FIX = "this is a template: render it first (helm template, kustomize build) and give the result"


def unreadable_bytes(content: bytes, file: str) -> Problem | None:
    """Return what is wrong with bytes that cannot be YAML or JSON text: too long, UTF-16, a NUL byte, no UTF-8."""
    fix = "give a text file of Kubernetes objects, as `kubectl get -o yaml` prints them"
    if len(content) > MAX_FILE_BYTES:
        return Problem(
            Position(file),
            "",
            f"{len(content):,} bytes",
            f"at most {MAX_FILE_BYTES:,} bytes (64 MiB) a file",
            "split it, or leave out what is not needed: simnet reads folders",
        )
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Problem(
            Position(file, 1, 1),
            "",
            "UTF-16 text (it starts with a byte order mark)",
            "UTF-8 text",
            "save it as UTF-8; in PowerShell: kubectl get ... | Out-File -Encoding utf8 FILE",
        )
    where = content.find(b"\0")
    if where >= 0:
        return Problem(_place(content, where, file), "", "a NUL byte: a binary file", "UTF-8 text", fix)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{content[error.start]:02x}, which is not UTF-8"
        return Problem(_place(content, error.start, file), "", found, "UTF-8 text", fix)
    return None


def syntax_problem(error: yaml.MarkedYAMLError, content: bytes, file: str, number: int) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    found = f"{error.problem or 'a syntax error'}"
    if error.context:
        found += f", {error.context}"
        if error.context_mark and error.context_mark.line + 1 != line:
            found += f" that starts on line {error.context_mark.line + 1}"
    text = line_text(content, line - 1)
    before = line_text(content, line - 2) if line > 1 else ""
    if "{{" in text + before or "{%" in text + before:
        fix = TEMPLATE_FIX
    elif re.match(r" *\t", text):
        fix = "indent with spaces: this line starts with a tab"
    elif re.search(r"^(<{7}|={7}|>{7})", f"{before}\n{text}", re.MULTILINE):
        fix = "resolve the merge conflict that git left in the file"
    else:
        fix = "look at this line and the one before it: indentation, a missing colon, an open quote or bracket"
    return Problem(
        Position(file, line, mark.column + 1 if mark else 0),
        f"document {max(number, 1)}",
        found,
        "well-formed YAML",
        fix,
    )


def character_problem(error: yaml.reader.ReaderError, content: bytes, file: str) -> Problem:
    code = error.character if isinstance(error.character, int) else ord(error.character[:1] or b"\0")
    where = error.position
    if EVENT_LOADER is yaml.SafeLoader:  # counts characters, libyaml counts bytes
        where = len(content.decode("utf-8")[:where].encode("utf-8"))
    return Problem(
        _place(content, where, file),
        "",
        f"the control character U+{code:04X}",
        "printable text",
        "remove it, or write it as an escape inside double quotes",
    )


def _place(content: bytes, offset: int, file: str) -> Position:
    start = content.rfind(b"\n", 0, offset) + 1
    return Position(file, content.count(b"\n", 0, offset) + 1, offset - start + 1)


def line_text(content: bytes, line: int) -> str:
    """Return one line, counted from 0, cut to a length that is safe to search."""
    start = 0
    for _ in range(line):
        start = content.find(b"\n", start) + 1
        if not start:
            return ""
    end = content.find(b"\n", start)
    return content[start : min(end if end >= 0 else len(content), start + 1000)].decode("utf-8", "replace")
