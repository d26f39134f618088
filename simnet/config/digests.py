"""A hash of what a value says: the same content gives the same hash, wherever it was read and in whatever order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

_NO_CONTENT = frozenset({"position", "warnings", "ignored", "annotations", "saved_file", "left_out"})


def digest_of(value: object) -> str:
    """Return a hash of a value made of dataclasses, containers, enums, numbers, texts and arrays.

    Where something stood in a file, and the order of a mapping's keys, do not count.
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: object) -> None:
    if is_dataclass(value) and not isinstance(value, type):
        digest.update(f"<{type(value).__name__}".encode())
        for field in fields(value):
            if field.name not in _NO_CONTENT:
                digest.update(f" {field.name}=".encode())
                _feed(digest, getattr(value, field.name))
        digest.update(b">")
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(f"[{key}]".encode())
            _feed(digest, value[key])
        digest.update(b"[]")
    elif isinstance(value, list | tuple):
        digest.update(f"({len(value)}".encode())
        for each in value:
            _feed(digest, each)
    elif isinstance(value, frozenset | set):
        _feed(digest, sorted(value, key=repr))
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, Enum):
        digest.update(repr(value.value).encode())
    else:
        digest.update(json.dumps(value, default=str, sort_keys=True).encode() + b";")
