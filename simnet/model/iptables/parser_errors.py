"""What is wrong with one rule, before its file and line are known."""

from __future__ import annotations


class RuleError(Exception):
    """A rule that cannot be read; the parser of the text turns it into a `Problem` with file and line."""

    def __init__(self, field: str, found: str, expected: str, fix: str) -> None:
        super().__init__(field, found, expected, fix)
        self.field = field
        self.found = found
        self.expected = expected
        self.fix = fix
