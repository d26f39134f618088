"""Calico's label selectors: `rack == 'r1' && !has(spine)`, `zone in {'a', 'b'}`, `all()`.

Modelled: ==, !=, in, not in, contains, starts with, ends with, has(), all(), global(), !, &&, ||, parentheses. As in
Calico, a node without the label matches `!=` and `not in`.
Source: projectcalico/calico, libcalico-go/lib/selector; the reference of NetworkPolicy's selectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

Selector = Callable[[Mapping[str, str]], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"]*"|'[^']*')|(?P<sign>\|\||&&|==|!=|[!(){},])"""
    r"""|(?P<word>[A-Za-z0-9_./-]+))"""
)


@lru_cache(maxsize=1024)
def selector(text: str) -> Selector:
    """Return what decides whether labels match; empty text matches all. Raises ValueError saying what is wrong."""
    tokens = _tokens(text)
    if not tokens:
        return lambda _: True
    reader = _Reader(tokens)
    found = reader.either()
    if reader.tokens:
        raise ValueError(f"{reader.tokens[0]} where the selector should end")
    return found


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"{text[at:].strip()[0]} is no part of a selector")
        tokens.append(match.group("text") or match.group("sign") or match.group("word"))
        at = match.end()
    return tokens


class _Reader:
    """Recursive descent: `||` binds weaker than `&&`, that weaker than `!`."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens

    def either(self) -> Selector:
        parts = [self._both()]
        while self._has("||"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda labels: any(part(labels) for part in parts)

    def _both(self) -> Selector:
        parts = [self._one()]
        while self._has("&&"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda labels: all(part(labels) for part in parts)

    def _one(self) -> Selector:
        if self._has("!"):
            inner = self._one()
            return lambda labels: not inner(labels)
        if self._has("("):
            inner = self.either()
            self._expect(")")
            return inner
        word = self._take("a label")
        if word in ("all", "global", "has") and self.tokens[:1] == ["("]:
            self._expect("(")
            if word != "has":
                self._expect(")")
                return lambda _: True
            label = self._take("a label")
            self._expect(")")
            return lambda labels: label in labels
        return self._comparison(word)

    def _comparison(self, label: str) -> Selector:
        sign = self._take("an operator")
        if sign in ("==", "!="):
            value = self._text()
            return (
                (lambda labels: labels.get(label) == value)
                if sign == "=="
                else (lambda labels: labels.get(label) != value)
            )
        if sign == "not":
            self._expect("in")
            held = self._set()
            return lambda labels: labels.get(label) not in held
        if sign == "in":
            held = self._set()
            return lambda labels: labels.get(label) in held
        if sign == "contains":
            part = self._text()
            return lambda labels: part in labels.get(label, "") and label in labels
        if sign in ("starts", "ends"):
            self._expect("with")
            part = self._text()
            if sign == "starts":
                return lambda labels: label in labels and labels[label].startswith(part)
            return lambda labels: label in labels and labels[label].endswith(part)
        raise ValueError(f"{sign} after {label}, where an operator should stand")

    def _set(self) -> frozenset[str]:
        self._expect("{")
        values = [self._text()]
        while self._has(","):
            values.append(self._text())
        self._expect("}")
        return frozenset(values)

    def _text(self) -> str:
        token = self._take("text in quotes")
        if token[0] not in "\"'":
            raise ValueError(f"{token}, which should stand in quotes")
        return token[1:-1]

    def _take(self, what: str) -> str:
        if not self.tokens:
            raise ValueError(f"the end, where {what} should stand")
        token = self.tokens.pop(0)
        if what == "a label" and not re.fullmatch(r"[A-Za-z0-9_./-]+", token):
            raise ValueError(f"{token}, where a label should stand")
        return token

    def _has(self, sign: str) -> bool:
        if self.tokens[:1] == [sign]:
            self.tokens.pop(0)
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._has(sign):
            found = self.tokens[0] if self.tokens else "the end"
            raise ValueError(f"{found}, where {sign} should stand")
