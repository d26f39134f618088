"""The kinds of field that Kubernetes objects share, and how a wrong one becomes a Problem with file, line and fix.

The models here read; `simnet.model.kubernetes` holds what was read. Like the API server they take null for "absent",
refuse text where a number belongs (and the reverse), and take addresses with leading zeros as decimal (net.ParseIP
before Go 1.17, which kube-proxy keeps as ParseIPSloppy). Unlike it they pass over fields that they do not know,
unless one is a misspelt name.
"""

from __future__ import annotations

import ipaddress
import typing
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from simnet.model.kubernetes import ObjectReference, Pairs


class ApiModel(BaseModel):
    """A part of an object: fields in camel case, null as absent, exact types."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, alias_generator=to_camel)
    other_fields: ClassVar[frozenset[str] | None] = None
    """The API's fields beside those read here; None where the list is open, so that no misspelling can be told."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {key: value for key, value in data.items() if value is not None}
        return data


def refuse(expected: str, fix: str) -> PydanticCustomError:
    """Return the error by which a field's check refuses a value."""
    return PydanticCustomError("refused", "{expected}", {"expected": expected, "fix": fix})


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _port(value: int) -> int:
    if not 1 <= value <= 65535:
        raise refuse("a port from 1 to 65535", "use the port that is meant, for example 8080")
    return value


def _optional_port(value: int) -> int:
    return value if value == 0 else _port(value)


def _target_port(value: object) -> object:
    value = _whole(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refuse("a port number, or the name of a container's port", "for example 8080 or http")
    if isinstance(value, int):
        return _port(value) if value else 0  # 0 is how Go clients write "absent"
    if value.isdecimal() and value.isascii():
        raise refuse(
            "a port number, or the name of a container's port",
            f"write {int(value)} without quotes: a name needs a letter",
        )
    return value


def parse_ip(text: str) -> str:
    """Return the canonical text of an address as kube-proxy reads it; ValueError if it is none."""
    if ":" not in text:
        parts = text.split(".")
        if len(parts) != 4 or not all(part.isascii() and part.isdecimal() and len(part) <= 8 for part in parts):
            raise ValueError("not an IP address")
        numbers = [int(part) for part in parts]
        if max(numbers) > 255:
            raise ValueError("not an IP address")
        return ".".join(map(str, numbers))
    if "%" in text:
        raise ValueError("not an IP address")
    address = ipaddress.IPv6Address(text)
    return str(address.ipv4_mapped or address)


def parse_cidr(text: str) -> str:
    """Return the canonical text of a network, host bits cleared; ValueError if it is none."""
    address, slash, length = text.strip().partition("/")
    if not slash or not (length.isascii() and length.isdecimal() and len(length) <= 3):
        raise ValueError("not a network")
    return str(ipaddress.ip_network(f"{parse_ip(address)}/{int(length)}", strict=False))


def family_of(address: str) -> str:
    """Return IPv4 or IPv6 for the text of an address or network."""
    return "IPv6" if ":" in address else "IPv4"


HIDDEN = "***"
"""In what a support bundle writes over addresses (`***HIDDEN***`); such an address is read as "" and left out."""


def _ip(text: str) -> str:
    if HIDDEN in text:
        return ""
    try:
        return parse_ip(text)
    except ValueError:
        raise refuse("an IP address", "for example 192.168.64.57 or fd00::57") from None


def _cluster_ip(text: str) -> str:
    if text in ("", "None"):
        return text
    if HIDDEN in text:
        return ""
    try:
        return parse_ip(text)
    except ValueError:
        fix = (
            "write None for a headless Service" if text.lower() == "none" else "for example 10.96.0.10, or leave it out"
        )
        raise refuse("an IP address, or None", fix) from None


def _cidr(text: str) -> str:
    if HIDDEN in text:
        return ""
    try:
        return parse_cidr(text)
    except ValueError:
        fix = f"did you mean {text}/{128 if ':' in text else 32}?" if is_ip(text) else "for example 192.168.0.0/16"
        raise refuse("a network in CIDR notation", fix) from None


def is_ip(text: str) -> bool:
    """Whether kube-proxy would read the text as an address."""
    try:
        parse_ip(text)
    except ValueError:
        return False
    return True


def _text_values(value: object) -> object:
    if isinstance(value, dict) and None in value.values():
        return {key: "" if item is None else item for key, item in value.items()}
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Port = Annotated[int, BeforeValidator(_whole), AfterValidator(_port)]
OptionalPort = Annotated[int, BeforeValidator(_whole), AfterValidator(_optional_port)]
TargetPort = Annotated[int | str, BeforeValidator(_target_port)]
IPText = Annotated[str, AfterValidator(_ip)]
ClusterIPText = Annotated[str, AfterValidator(_cluster_ip)]
CIDRText = Annotated[str, AfterValidator(_cidr)]
OptionalCIDRText = Annotated[str, AfterValidator(lambda text: _cidr(text) if text else "")]
TextMap = Annotated[dict[str, str], BeforeValidator(_text_values)]
Protocol = Annotated[
    typing.Literal["TCP", "UDP", "SCTP"], BeforeValidator(lambda value: "TCP" if value == "" else value)
]


class OwnerReference(ApiModel):
    """What made an object."""

    kind: str = ""
    name: str = ""
    controller: bool = False


class Metadata(ApiModel):
    """The part that all objects share."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    labels: TextMap = Field(default_factory=dict)
    annotations: TextMap = Field(default_factory=dict)
    deletion_timestamp: object = None
    owner_references: list[OwnerReference] = Field(default_factory=list)

    def controller(self, namespace: str) -> ObjectReference | None:
        """Return the owner that controls the object."""
        for owner in self.owner_references:
            if owner.controller or len(self.owner_references) == 1:
                return ObjectReference(owner.kind, owner.name, namespace)
        return None


class ApiObject(ApiModel):
    """An object of the API."""

    metadata: Metadata = Field(default_factory=Metadata)


def pairs(mapping: dict[str, str]) -> Pairs:
    """Return a map of the API as the model keeps it."""
    return tuple(mapping.items())
