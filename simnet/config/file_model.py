"""What the models of simnet's own files rest on: a mapping without unknown keys, texts, counts."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from simnet.config.kubernetes_fields import refuse


class FileModel(BaseModel):
    """A mapping of simnet's own files: camel case, exact types, no unknown keys."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=False
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        """A key that has a default counts as left out where its value is null, as in Kubernetes' own files."""
        if not isinstance(data, dict) or None not in data.values():
            return data
        optional = {field.alias or name for name, field in cls.model_fields.items() if not field.is_required()}
        return {key: value for key, value in data.items() if value is not None or key not in optional}


def whole_number(low: int, high: int) -> BeforeValidator:
    """Return the check of a whole number within bounds."""

    def check(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise refuse(f"a whole number from {low} to {high}", f"for example {max(low, min(high, 4))}")
        return value

    return BeforeValidator(check)


def _text(value: object) -> str:
    if value == "":
        raise refuse("text that is not empty", "write what is meant, or remove the key")
    if not isinstance(value, str):
        raise refuse("text", f'put it in quotes: "{value}"')
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise refuse("a name of letters, digits, dots, dashes and underscores", "for example my-experiment")
    return value


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, BeforeValidator(_name)]
