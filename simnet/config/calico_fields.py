"""The kinds of field that Calico's resources share."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator

from simnet.config.kubernetes_fields import ApiModel, parse_ip, refuse
from simnet.config.kubernetes_source import Source, describe
from simnet.model.selectors import selector
from simnet.units import PS_PER_MS, PS_PER_S

NOT_MODELLED = "it is read and has no effect yet; what simnet says is as if it were not there"


def as_number(value: object) -> int:
    """A number, its text, or high and low half with a dot between (RFC 5396)."""
    number = -1
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        parts = value.split(".")
        if all(part.isascii() and part.isdecimal() and len(part) <= 10 for part in parts) and len(parts) <= 2:
            high, low = (0, int(parts[0])) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
            number = high * 65536 + low if len(parts) == 1 or max(high, low) < 65536 else -1
    if not 1 <= number <= 4294967295:
        raise refuse("an AS number from 1 to 4294967295", "for example 64512")
    return number


def interface(text: str) -> str:
    """An address with or without the length of its subnet."""
    address, slash, length = text.partition("/")
    try:
        full = parse_ip(address)
        ipaddress.ip_interface(f"{full}/{length}" if slash else full)
    except ValueError:
        raise refuse("an address, with the length of its subnet", "for example 10.0.0.11/24") from None
    return f"{full}/{length}" if slash else full


def _peer_ip(text: str) -> str:
    """An address, with a port behind it or without: 10.0.0.1, 10.0.0.1:179, [fd00::1]:179."""
    address = text
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        port = "179"
    try:
        if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
            raise ValueError("not a port")
        return parse_ip(address)
    except ValueError:
        raise refuse("an IP address, with a port or without", "for example 10.0.0.1 or [fd00::1]:179") from None


def _truth(value: object) -> object:
    """Crd.projectcalico.org/v1 writes `deleted: "false"`."""
    return {"true": True, "false": False, "": False}.get(value, value) if isinstance(value, str) else value


def _selector(text: str) -> str:
    try:
        selector(text)
    except ValueError as error:
        raise refuse(f"a selector; this one has {error}", "for example rack == 'r1' && !has(spine)") from None
    return text


def cluster_id(text: str) -> str:
    """Check the id of a reflector's cluster: four octets, as an IPv4 address is written."""
    try:
        return str(ipaddress.IPv4Address(text)) if text else ""
    except ValueError:
        raise refuse("a cluster id, written as an IPv4 address", "for example 244.0.0.1") from None


def _duration(value: object) -> int:
    """Picoseconds of a duration as Go writes it: 90s, 1m30s."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", value) if isinstance(value, str) else None
    if not found or not any(found.groups()):
        raise refuse("a duration with its unit", "for example 120s")
    hours, minutes, seconds, milliseconds = (int(part or 0) for part in found.groups())
    return (3600 * hours + 60 * minutes + seconds) * PS_PER_S + milliseconds * PS_PER_MS


AsNumber = Annotated[int, BeforeValidator(as_number)]
InterfaceText = Annotated[str, AfterValidator(interface)]
PeerIPText = Annotated[str, AfterValidator(lambda text: _peer_ip(text) if text else "")]
Truth = Annotated[bool, BeforeValidator(_truth)]
SelectorText = Annotated[str, AfterValidator(_selector)]
ClusterIdText = Annotated[str, AfterValidator(cluster_id)]
DurationText = Annotated[int, BeforeValidator(_duration)]
_OBJECT = frozenset({"apiVersion", "kind", "metadata", "status"})


class Resource(ApiModel):
    other_fields: ClassVar[frozenset[str] | None] = _OBJECT


class Part(ApiModel):
    """A spec whose other fields are listed, so that a misspelt one is told."""


def warn_of_unused(source: Source, *fields: str) -> None:
    """Tell of fields that are there and change a real cluster's routes, and not the simulated one's."""
    spec = source.data.get("spec")
    for field in fields:
        value = spec.get(field) if isinstance(spec, dict) else None
        if value:
            source.warn(("spec", field), describe(value), f"no {field}", NOT_MODELLED)


def has_spec(source: Source) -> bool:
    return isinstance(source.data.get("spec"), dict)
