"""The options of one target, as a value of `ruleset`: REJECT, MARK, DNAT, REDIRECT, SNAT, MASQUERADE.

Source: iptables-extensions(8) 1.8.9.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from simnet.model.iptables.extensions import DEFAULT_REJECT, REJECT_TYPES
from simnet.model.iptables.parser_errors import RuleError
from simnet.model.iptables.parser_match import Given, mark_and_mask, number, port_range
from simnet.model.iptables.ruleset import Dnat, Family, Masquerade, OpaqueTarget, Reject, SetMark, Snat, Target


def build(name: str, given: Sequence[Given], tokens: tuple[str, ...], family: Family) -> Target:
    """Return the target; an `OpaqueTarget` of `tokens` where simnet does not model an option. Raises RuleError."""
    values = {option: texts for option, _, texts in given}
    if len(values) < len(given):
        raise RuleError(f"-j {name}", "an option twice", "each option once", "make two rules of it")
    if any(negated for _, negated, _ in given):
        raise RuleError(f"-j {name}", "'!' before an option of a target", "no '!' there", "remove the '!'")
    if name == "REJECT":
        return _reject(values["--reject-with"][0] if values else DEFAULT_REJECT[family], family)
    if name == "MARK":
        return _mark(values)
    options = tuple(option for option in ("--random", "--random-fully", "--persistent") if option in values)
    if name in ("MASQUERADE", "REDIRECT"):
        texts = values.get("--to-ports")
        ports = port_range(texts[0], "--to-ports", "-") if texts else None
        if name == "REDIRECT":
            return Dnat(None, ports, options, redirect=True)
        return Masquerade("--random-fully" in values, ports, "--random" in values)
    option = "--to-destination" if name == "DNAT" else "--to-source"
    if option not in values:
        raise RuleError(f"-j {name}", f"no {option}", f"{option} with an address", "save the rules again, whole")
    text = values[option][0]
    if "/" in text:
        return OpaqueTarget(name, tokens)  # PORT-PORT/BASE: a shifted port range
    first, last, ports = _address_and_ports(text, option, family)
    if name == "DNAT":
        return Dnat(first, ports, options, last)
    if first is None:
        raise RuleError(option, repr(text[:80]), "an address", "write for example --to-source 192.0.2.1")
    return Snat(first, ports, options, last)


def _reject(word: str, family: Family) -> Target:
    types = REJECT_TYPES[family]
    if word not in types:
        raise RuleError("--reject-with", repr(word[:60]), "one of " + ", ".join(dict.fromkeys(types.values())),
                        "use the word of this address family (iptables-save and ip6tables-save differ)")  # fmt: skip
    return Reject(types[word])


def _mark(values: dict[str, tuple[str, ...]]) -> Target:
    if len(values) != 1:
        raise RuleError(
            "-j MARK",
            " ".join(values) or "no option",
            "one of --set-mark, --set-xmark, --or-mark, --and-mark, --xor-mark",
            "write for example -j MARK --set-xmark 0x4000/0x4000",
        )
    ((option, (text,)),) = values.items()
    if option in ("--set-mark", "--set-xmark"):
        value, mask = mark_and_mask(text, option)
        if mask is None:
            mask = 0xFFFFFFFF
        return SetMark(value, mask | value if option == "--set-mark" else mask)
    bits = number(text, option)
    if option == "--or-mark":
        return SetMark(bits, bits)
    return SetMark(0, bits ^ 0xFFFFFFFF) if option == "--and-mark" else SetMark(bits, 0)


def _address_and_ports(text: str, option: str, family: Family) -> tuple[str | None, str | None, tuple[int, int] | None]:
    """Read `[ADDRESS[-ADDRESS]][:PORT[-PORT]]`, with brackets around IPv6 addresses that a port follows."""
    addresses, ports = text, ""
    if text.startswith("["):
        addresses, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and rest[0] != ":"):
            raise RuleError(option, repr(text[:80]), "[ADDRESS]:PORT", "close the bracket: [fd00::1]:80")
        ports = rest[1:]
    elif family is Family.IPV4 or (text.startswith(":") and text.count(":") == 1):
        addresses, _, ports = text.partition(":")
    first, _, last = addresses.partition("-")
    try:
        kind = ipaddress.IPv4Address if family is Family.IPV4 else ipaddress.IPv6Address
        canonical = [str(kind(address)) if address else None for address in (first, last)]
        if "%" in addresses:
            raise ValueError
    except ValueError:
        raise RuleError(option, repr(text[:80]), f"an {'IPv4' if family is Family.IPV4 else 'IPv6'} address and a port",
                        "write 10.0.0.1:80, or [fd00::1]:80 in an IPv6 rule set") from None  # fmt: skip
    span = port_range(ports, option, "-") if ports else None
    if canonical[0] is None and span is None:
        raise RuleError(option, repr(text[:80]), "an address, a port, or both", "write 10.0.0.1:80")
    return canonical[0], canonical[1], span
