"""One object of a document while it is read: where it stands, and how what is wrong with it becomes a Problem.

A field that the API does not know is passed over, unless its name is close to one that the API knows: `externalIps`
would otherwise be silently without effect.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from simnet.config.documents import Document, FieldPath
from simnet.config.kubernetes_fields import HIDDEN, ApiModel
from simnet.errors import Position, Problem

Model = TypeVar("Model", bound=ApiModel)


@dataclass(slots=True)
class Report:
    """What a reading found so far: `problems` end in an InputError, `warnings` go with the objects."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Source:
    """One object in a document, with what a message about it needs."""

    document: Document
    path: FieldPath  # of the object in its document, ("items", 3) in a List
    kind: str
    position: Position
    data: dict[str, Any]
    report: Report

    @property
    def title(self) -> str:
        """Kind, namespace and name, as messages spell it."""
        metadata = self.data.get("metadata")
        if not isinstance(metadata, dict):
            return self.kind
        texts = {key: value for key, value in metadata.items() if isinstance(value, str)}
        name, namespace = texts.get("name") or texts.get("generateName"), texts.get("namespace")
        return self.kind + (f" {namespace}/{name}" if namespace and name else f" {name}" if name else "")

    def problem(self, path: FieldPath, found: str, expected: str, fix: str, *, of_key: bool = False) -> Problem:
        """Return a problem with one field of the object."""
        where = self.document.locate((*self.path, *path), of_key=of_key)
        if not path or not where.line:
            where = self.position
        return Problem(where, f"{self.title}: {spell(path)}" if path else self.title, found, expected, fix)

    def refuse(self, path: FieldPath, found: str, expected: str, fix: str, *, of_key: bool = False) -> None:
        """Report a problem with one field of the object."""
        self.report.problems.append(self.problem(path, found, expected, fix, of_key=of_key))

    def warn(self, path: FieldPath, found: str, expected: str, fix: str, *, of_key: bool = False) -> None:
        """Report what is odd about a field, though the object loads."""
        self.report.warnings.append(self.problem(path, found, expected, fix, of_key=of_key))

    def read(self, model: type[Model]) -> Model | None:
        """Return the object as `model`, or report every field that is wrong and return None."""
        count = len(self.report.problems)
        misspelt = dict(misspelt_fields(model, self.data))
        for path, nearest in misspelt.items():
            self.refuse(
                path,
                f"the unknown field {path[-1]}",
                f"a field of {self.kind}",
                f"did you mean {nearest}?",
                of_key=True,
            )
        try:
            checked = model.model_validate(self.data)
        except ValidationError as error:
            meant = {(*path[:-1], nearest) for path, nearest in misspelt.items()}
            for details in error.errors(include_url=False):
                if details["type"] != "missing" or details["loc"] not in meant:
                    self._refuse_details(details)
            return None
        if len(self.report.problems) > count:
            return None
        hidden = next(_hidden_values(self.data, ()), None)
        if hidden is not None:
            self.warn(
                hidden,
                "an address that was blotted out",
                "an IP address",
                "it is left out, as are the others of the object",
            )
        return checked

    def _refuse_details(self, error: ErrorDetails) -> None:
        path = error["loc"]
        kind, value = error["type"], error["input"]
        if kind == "missing":
            self.refuse(path[:-1] if path[:-1] else path, f"no {path[-1]}", f"the field {path[-1]}", f"add {path[-1]}")
            return
        context = error.get("ctx", {})
        if kind == "refused":
            expected, fix = str(context["expected"]), str(context["fix"])
        elif kind == "literal_error":
            choices = [text.strip("'") for text in str(context["expected"]).replace(" or ", ", ").split(", ")]
            expected = "one of " + ", ".join(choices)
            close = nearest_name(str(value), choices)
            fix = f"did you mean {close}?" if close else f"choose one of {', '.join(choices)}"
        else:
            expected, fix = type_words(kind, value)
        self.refuse(path, describe(value), expected, fix)


def type_words(kind: str, value: object) -> tuple[str, str]:
    """Return what was expected and the fix, for a value of a wrong type; `kind` is pydantic's name of the error."""
    if kind == "string_type":
        if isinstance(value, bool):
            return "text", "put it in quotes: without them yes, no, on, off, y, n, true and false are booleans"
        if isinstance(value, int | float):
            return "text", f'put it in quotes: "{describe(value)}"'
        return "text", "write a single value"
    if kind.startswith("int"):
        return "a whole number", "write digits without quotes" if isinstance(
            value, str
        ) and value.isdecimal() else "write a whole number"
    if kind.startswith("bool"):
        return "true or false", "write true or false without quotes"
    if kind in ("list_type", "tuple_type"):
        return "a list", "write a list: each item on its own line after a dash"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return "a mapping", "write fields as `name: value`"
    return kind.replace("_", " "), "see the Kubernetes API reference"


def describe(value: object) -> str:
    """Return a value as a message shows it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 80 else text[:76] + "..." + text[-1]


def spell(path: FieldPath) -> str:
    """Return a path as kubectl spells it: spec.ports[0].port."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def nearest_name(name: str, choices: list[str] | frozenset[str]) -> str | None:
    """Return the choice that `name` most likely means, or None."""
    plain = {choice.lower(): choice for choice in sorted(choices)}
    squeezed = name.lower().replace("_", "").replace("-", "")
    if squeezed in plain:
        return plain[squeezed]
    close = difflib.get_close_matches(squeezed, list(plain), n=1, cutoff=0.75)
    return plain[close[0]] if close else None


def misspelt_fields(model: type[ApiModel], data: object, path: FieldPath = ()) -> Iterator[tuple[FieldPath, str]]:
    """Yield the path of each unknown field that is close to a known one, with that one's name."""
    if not isinstance(data, dict):
        return
    children, names = _fields(model)
    if model.other_fields is not None:
        known = names | model.other_fields
        for key in data.keys() - known:
            nearest = nearest_name(key, known)
            if nearest is not None:
                yield (*path, key), nearest
    for name, child in children:
        value = data.get(name)
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from misspelt_fields(child, item, (*path, name, index))
        elif value is not None:
            yield from misspelt_fields(child, value, (*path, name))


def _hidden_values(data: object, path: FieldPath) -> Iterator[FieldPath]:
    """Yield the paths of texts in spec and status that hold HIDDEN where an address would stand."""
    if isinstance(data, dict):
        for key, value in data.items():
            if path or key in ("spec", "status", "subsets", "endpoints"):
                yield from _hidden_values(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _hidden_values(value, (*path, index))
    elif isinstance(data, str) and HIDDEN in data and _ADDRESS_FIELD.search(spell(path)):
        yield path


_ADDRESS_FIELD = re.compile(r"(IPs?|CIDRs?|\bip|addresses|Ranges)(\[\d+\])*$")
_FIELDS: dict[type[ApiModel], tuple[list[tuple[str, type[ApiModel]]], frozenset[str]]] = {}


def _fields(model: type[ApiModel]) -> tuple[list[tuple[str, type[ApiModel]]], frozenset[str]]:
    """Return the fields of a model that are models themselves, and the names of all; worked out once a model."""
    if model not in _FIELDS:
        children: list[tuple[str, type[ApiModel]]] = []
        names: set[str] = set()
        for name, information in model.model_fields.items():
            alias = information.alias or name
            names.add(alias)
            children += [(alias, child) for child in _models_in(information.annotation)]
        _FIELDS[model] = children, frozenset(names)
    return _FIELDS[model]


def _models_in(annotation: object) -> list[type[ApiModel]]:
    if typing.get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
