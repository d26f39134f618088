"""An experiment file with every default written out, itself a valid experiment file that asks for the same runs."""

from __future__ import annotations

from typing import Any

import yaml

from simnet.config.experiment_models import ExperimentModel, NodeModel, NodesModel


def resolved(model: ExperimentModel) -> dict[str, Any]:
    """Return the file as plain data; a key whose default is "not given" is left out."""
    data = model.model_dump(by_alias=True, exclude_none=True)
    nodes = data["cluster"].get("nodes")
    if isinstance(nodes, dict):
        data["cluster"]["nodes"] = _dump(NodesModel.model_validate(nodes))
    elif isinstance(nodes, list):
        data["cluster"]["nodes"] = [_dump(NodeModel.model_validate(node)) for node in nodes]
    for name, variant in model.variants.items():
        if variant.clients is not None:  # what it leaves out is the workload's
            for key in ("count", "skew"):
                if key not in variant.clients.model_fields_set and key in data["workload"]["clients"]:
                    data["variants"][name]["clients"][key] = data["workload"]["clients"][key]
    if model.workload.requests is not None:
        for key in ("packets", "gap"):  # not asked for, and refused beside `requests`
            del data["workload"]["flows"][key]
        requests = data["workload"]["requests"]
        if "timeout" not in requests:  # likewise what only clients have who wait, and not for ever
            for key in ("retries", "backoff"):
                del requests[key]
    plain: dict[str, Any] = _plain(data)
    return plain


def as_yaml(data: object) -> str:
    """Return plain data as YAML in the file's own order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, and quotes the words that YAML 1.1 takes for booleans."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if text in ("y", "Y", "n", "N") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _dump(model: NodesModel | NodeModel) -> dict[str, Any]:
    return model.model_dump(by_alias=True, exclude_none=True)


def _plain(value: object) -> Any:
    """A value as YAML and JSON can hold it."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
