"""One of simnet's own files while it is read: where it stands, what was read beside it, what is wrong so far."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from simnet.config.documents import Document, FieldPath
from simnet.config.file_problems import problem_at
from simnet.errors import Problem
from simnet.model.kubernetes import Objects
from simnet.model.scenario import SavedRules
from simnet.model.workload import Trace


@dataclass(slots=True)
class Reading:
    """One file while it is read; sweep points share what was read for the first."""

    document: Document
    problems: list[Problem]
    warnings: list[Problem] = field(default_factory=list)
    objects: dict[str, Objects] = field(default_factory=dict)  # by the text of `objects:`
    traces: dict[str, Trace] = field(default_factory=dict)  # by name of the file
    skip_unknown: bool = False  # leave out saved rules that simnet does not model
    saved_rules: dict[str, tuple[SavedRules | None, list[Problem], list[Problem]]] = field(default_factory=dict)
    files: dict[str, None] = field(default_factory=dict)  # every file that was read, in order

    @property
    def folder(self) -> Path:
        """What relative paths in the file start from."""
        return Path(self.document.file).parent

    @property
    def relative_fix(self) -> str:
        """How to mend a path that leads nowhere."""
        where = f", {self.folder}" if str(self.folder) != "." else ""
        return f"paths are relative to the folder of this file{where}"

    def refuse(self, path: FieldPath, found: str, expected: str, fix: str, *, of_key: bool = False) -> None:
        """Report what is wrong at a path of the file."""
        self.problems.append(problem_at(self.document, path, found, expected, fix, of_key=of_key))

    def warn(self, path: FieldPath, found: str, expected: str, fix: str) -> None:
        """Report what works, but hardly as meant."""
        self.warnings.append(problem_at(self.document, path, found, expected, fix))


def digests_of(files: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of each file that can still be read."""
    digests = {}
    for name in files:
        try:
            with open(name, "rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            continue
    return digests
