"""Every error that simnet raises on purpose, and how a mistake in an input is told to a user.

A mistake names where it is, what was found, what was expected and how to mend it; a reader collects all mistakes of an
input before it raises, so that one run shows them all. Imports nothing of simnet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in an input: `file` as the user named it, `line` and `column` counted from 1 (0: unknown)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in an input, in the five parts that a user needs to mend it."""

    where: Position
    field: str  # path in the file, as kubectl spells it: services[2].ports[0].targetPort
    found: str  # what stands there, already printable
    expected: str
    fix: str

    def __str__(self) -> str:
        place = f"{self.where}: {self.field}" if self.field else str(self.where)
        return f"{place}\n  found:    {self.found}\n  expected: {self.expected}\n  fix:      {self.fix}"


def unknown_name(where: Position, field: str, name: str, what: str, known: Iterable[str]) -> Problem:
    """Return the mistake of naming something that is not there; `what` is expected, the nearest spelling the fix."""
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    few = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    fix = f"did you mean {near[0]}?" if near else "correct the name"
    return Problem(where, field, name, f"{what}: {few}", fix)


class SimnetError(Exception):
    """The root of all errors that simnet raises on purpose."""


class InputError(SimnetError):
    """An input (experiment, manifest, rule set, trace) cannot be used; carries every mistake found in it.

    `problems` is sorted by file and line. The command line prints it and exits with code 2.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=lambda problem: (problem.where, problem.field)))
        super().__init__(self.problems)  # pickle rebuilds it from args

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class ModelError(SimnetError):
    """A model left the range that it describes while it ran; names the time and the place."""


class ResultError(SimnetError):
    """A result folder is missing, damaged, or of another version."""
