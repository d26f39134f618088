"""From what pydantic says of simnet's own files to problems with file, line, found, expected and fix."""

from __future__ import annotations

import difflib
import typing
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from simnet.config.documents import Document, FieldPath
from simnet.config.kubernetes_source import describe, spell
from simnet.errors import Position, Problem

Model = TypeVar("Model", bound=BaseModel)
MOST = 25  # mistakes of one mapping that are told one by one


def read_model(
    model: type[Model], data: object, document: Document, path: FieldPath, problems: list[Problem]
) -> Model | None:
    """Return `data`, which stands at `path` of the document, as a model; or None, with every problem appended."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems += [_problem(model, each, document, path) for each in details[:MOST]]
        if len(details) > MOST:
            more = f"{len(details) - MOST:,} more mistakes"
            problems.append(problem_at(document, path, more, "none", "mend those above first"))
        return None


def problem_at(
    document: Document, path: FieldPath, found: str, expected: str, fix: str, *, of_key: bool = False
) -> Problem:
    """Return a problem with what stands at `path` of the document."""
    where = document.locate(path, of_key=of_key) if path else Position(document.file, document.line)
    return Problem(where, spell(path), found, expected, fix)


def _problem(model: type[BaseModel], error: ErrorDetails, document: Document, prefix: FieldPath) -> Problem:
    path: FieldPath = (*prefix, *error["loc"])
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        name = path[-1]
        return problem_at(document, path[:-1], f"no {name}", f"the key {name}", f"add `{name}:`")
    if kind == "extra_forbidden":
        known = sorted(_names(model, error["loc"][:-1]))
        close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        fix = f"did you mean {close[0]}?" if close else f"use one of {', '.join(known)}"
        return problem_at(
            document, path, f"the unknown key {path[-1]}", "a key that simnet knows here", fix, of_key=True
        )
    if kind == "refused":
        return problem_at(document, path, _shown(value), str(context["expected"]), str(context["fix"]))
    if kind == "literal_error":
        choices = [text.strip("'") for text in str(context["expected"]).replace(" or ", ", ").split(", ")]
        choices = [choice for choice in choices if choice]
        close = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.4)
        fix = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(choices)}"
        return problem_at(document, path, describe(value), f"one of {', '.join(choices)}", fix)
    expected, fix = _WORDS.get(kind, (error["msg"].lower(), "see docs/experiment-file.md"))
    return problem_at(document, path, describe(value), expected, fix)


def _shown(value: object) -> str:
    """What stands there; a small mapping or list as it may have been written."""
    if isinstance(value, dict | list) and value:
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).strip()
        if len(text) <= 80 and "\n" not in text:
            return text
    return describe(value)


_WORDS = {
    "string_type": ("text", "put it in quotes"),
    "bool_type": ("true or false", "write true or false without quotes"),
    "int_type": ("a whole number", "write digits without quotes"),
    "float_type": ("a number", "write digits without quotes"),
    "list_type": ("a list", "write a list: each item on its own line after a dash"),
    "dict_type": ("a mapping", "write keys as `name: value`"),
    "model_type": ("a mapping", "write keys as `name: value`"),
    "model_attributes_type": ("a mapping", "write keys as `name: value`"),
}


def _names(model: type[BaseModel], path: tuple[int | str, ...]) -> set[str]:
    """The keys that the model at `path` below `model` knows."""
    for step in path:
        child = _child(model, step)
        if child is not None:
            model = child
    return {field.alias or name for name, field in model.model_fields.items()}


def _child(model: type[BaseModel], step: int | str) -> type[BaseModel] | None:
    for name, field in model.model_fields.items():
        if (field.alias or name) == step:
            return next(_models_in(field.annotation), None)
    return None


def _models_in(annotation: Any) -> typing.Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
