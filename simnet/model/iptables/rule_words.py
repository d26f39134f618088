"""The words of one rule's line, and what may be mended in a line that a program other than iptables has touched.

Web pages and word processors turn quotes and dashes into typographic ones, `<` into `&lt;`; shells and JSON escape
quotes; Markdown and echo lose the quotes of a comment. `mended` undoes that, for lines that are no rule as they stand.
Source: iptables-restore(8) 1.8.9 for quoting; rules as pasted in public issue reports for the rest.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator

from simnet.model.iptables.parser_errors import RuleError

_TYPOGRAPHIC = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'"})
_DASH = re.compile(r"(?<=\s)[–—](?=[a-z]{2})")
_MINUS = re.compile(r"(?<=\s)[–—](?=[a-zA-Z] )")
_APOSTROPHES = re.compile(r"(?<=\s)'([^'\"]*)'(?=\s|$)")
_BARE_COMMENT = re.compile(r"(--comment )(?![\"'])(\S.*?)(?= (?:! )?--?[a-zA-Z]|$)")


def mended(line: str) -> Iterator[str]:
    """Yield readings of a line as iptables would have written it, the smallest change first; none if nothing is odd."""
    said = line
    changes: tuple[Callable[[str], str], ...] = (
        lambda text: html.unescape(text) if "&" in text else text,
        lambda text: _MINUS.sub("-", _DASH.sub("--", text.translate(_TYPOGRAPHIC))),
        lambda text: text.replace('\\"', '"'),
        lambda text: _APOSTROPHES.sub(r'"\1"', text),
        lambda text: _BARE_COMMENT.sub(r'\1"\2"', text),
    )
    for change in changes:
        after = change(said)
        if after != said:
            said = after
            yield said


def split_words(line: str) -> list[str]:
    """Split a line as iptables-restore does: at blanks outside of double quotes. Raises RuleError."""
    if '"' not in line:
        return line.split() if line.isascii() else [word for word in re.split(r"[ \t]+", line) if word]
    parts = line.split('"')
    if len(parts) == 3 and "\\" not in line and line.isascii():
        before, quoted, after = parts
        if before[-1:] in (" ", "\t") and (not after or after[0] in " \t"):
            return [*before.split(), quoted, *after.split()]
    return [*_quoted_words(line)]


def _quoted_words(line: str) -> Iterator[str]:
    at, end = 0, len(line)
    while at < end:
        if line[at] in " \t":
            at += 1
            continue
        pieces: list[str] = []
        while at < end and line[at] not in " \t":
            if line[at] != '"':
                stop = at
                while stop < end and line[stop] not in ' \t"':
                    stop += 1
                pieces.append(line[at:stop])
                at = stop
                continue
            at += 1
            while at < end and line[at] != '"':
                if line[at] == "\\" and at + 1 < end:
                    at += 1
                pieces.append(line[at])
                at += 1
            if at >= end:
                raise RuleError("quotes", f"a quoted text that does not end: {line[-60:]!r}", "a closing double quote",
                                "the line seems cut off; save the rules again, whole")  # fmt: skip
            at += 1
        yield "".join(pieces)
