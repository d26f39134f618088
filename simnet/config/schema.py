"""The JSON Schema of simnet's own files, and the table of their keys in docs/experiment-file.md.

Editors' YAML language server reads draft 7 and below, pydantic writes 2020-12: definitions move, everything else that
these models use is the same in both.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from simnet.config.experiment_models import ClusterFileModel, ExperimentModel, NodeModel, NodesModel
from simnet.config.key_meanings import MEANINGS

BEGIN, END = "<!-- generated: keys -->", "<!-- end of generated part -->"


def json_schema(*, cluster: bool = False) -> dict[str, Any]:
    """Return the schema (draft 7) of experiment files, or of cluster files."""
    model: type[BaseModel] = ClusterFileModel if cluster else ExperimentModel
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    for each in (NodesModel, NodeModel):
        own = each.model_json_schema()
        definitions |= own.pop("$defs", {})
        definitions[each.__name__] = own
    holder = schema if cluster else definitions["ClusterModel"]
    default_placement = holder["properties"]["placement"].get("default")
    holder["properties"]["nodes"] = {
        "anyOf": [{"$ref": "#/$defs/NodesModel"}, {"type": "array", "items": {"$ref": "#/$defs/NodeModel"}}]
    }
    holder["properties"]["placement"] = {
        "anyOf": [{"enum": ["spread", "packed", "random"]}, {"type": "object"}],
        "default": default_placement,
    }
    for name, definition in definitions.items():
        _describe(name, definition)
    _describe(model.__name__, schema)
    drafted: dict[str, Any] = _as_draft_7(schema)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"simnet {'cluster' if cluster else 'experiment'} file",
        **{key: value for key, value in drafted.items() if key != "title"},
        "definitions": _as_draft_7(definitions),
    }


def _describe(name: str, definition: dict[str, Any]) -> None:
    meanings = {**MEANINGS["ClusterModel"], **MEANINGS[name]} if name == "ClusterFileModel" else MEANINGS.get(name, {})
    for key, schema in definition.get("properties", {}).items():
        schema.pop("title", None)
        if key in meanings:
            schema["description"] = meanings[key]


def _as_draft_7(value: Any) -> Any:
    """Rename what draft 7 calls otherwise; beside `$ref` it allows no other key, so those are put around it."""
    if isinstance(value, list):
        return [_as_draft_7(each) for each in value]
    if not isinstance(value, dict):
        return value
    renamed = {key: _as_draft_7(each) for key, each in value.items()}
    reference = renamed.get("$ref")
    if isinstance(reference, str):
        moved = {"$ref": reference.replace("#/$defs/", "#/definitions/")}
        others = {key: each for key, each in renamed.items() if key != "$ref"}
        return {**others, "allOf": [moved]} if others else moved
    return renamed


def reference() -> str:
    """Return the table of every key, as Markdown: type, default and meaning."""
    lines = [BEGIN, ""]
    for title, model in _sections(ExperimentModel, ""):
        lines += [
            f"### `{title}{'' if title.count('`') % 2 else '`'}" if title else "### The file",
            "",
            "| key | what | default | meaning |",
            "|---|---|---|---|",
        ]
        schema = _section_schema(model)
        unset = model.model_construct().model_dump(by_alias=True, warnings=False)  # defaults as a file would have them
        for key, entry in schema["properties"].items():
            written = unset.get(key)
            default = f"`{written}`" if isinstance(written, str) and written else _default(entry)
            default = "required" if key in schema.get("required", ()) else default
            lines.append(f"| `{key}` | {_kind(entry)} | {default} | {MEANINGS[model.__name__][key]} |")
        lines.append("")
    lines.append(END)
    return "\n".join(lines) + "\n"


def _section_schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = json_schema(cluster=False)
    if model is ExperimentModel:
        return schema
    found: dict[str, Any] = schema["definitions"][model.__name__]
    return found


def _sections(model: type[BaseModel], title: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield title, model
    for name, field in model.model_fields.items():
        key = f"{title}.{field.alias or name}" if title else field.alias or name
        if name == "nodes":
            yield f"{key}` in short, `{{count: N}}", NodesModel
            yield f"{key}` as a list, each", NodeModel
            continue
        for child in dict.fromkeys(_models_in(field.annotation)):
            if title != "variants, each" or child.__name__ != "ClientsModel":  # those are told once
                yield from _sections(child, f"{key}, each" if name in ("variants", "expect") else key)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _kind(entry: dict[str, Any]) -> str:
    if "enum" in entry:
        return ", ".join(f"`{each}`" for each in entry["enum"] if each != "")
    if "const" in entry:
        return f"`{entry['const']}`"
    if "allOf" in entry or "$ref" in entry:
        return "mapping"
    if "anyOf" in entry:
        return " or ".join(dict.fromkeys(_kind(each) for each in entry["anyOf"] if each.get("type") != "null"))
    kind = entry.get("type", "any")
    if isinstance(kind, list):
        kind = " or ".join(kind)
    if kind == "array":
        return "list"
    example = entry.get("examples", [None])[-1]
    words = {"integer": "whole number", "object": "mapping", "string": "text", "boolean": "true or false"}
    kind = words.get(str(kind), str(kind))
    return f"{kind}, such as `{example}`" if example is not None else kind


def _default(entry: dict[str, Any]) -> str:
    default = entry.get("default")
    if default is None or default in ("", [], {}) or isinstance(default, dict):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`"
