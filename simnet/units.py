"""Units: simulated time is int64 picoseconds inside; quantities with a unit are read at the edges.

`parse_duration("5us")` and its sisters are the only readers of quantities; every quantity that a user writes needs a
unit. Imports nothing of simnet.
"""

from __future__ import annotations

import re
from decimal import Decimal

PS_PER_NS = 1_000
PS_PER_US = 1_000_000
PS_PER_MS = 1_000_000_000
PS_PER_S = 1_000_000_000_000

_DURATION_PS = {"ps": 1, "ns": PS_PER_NS, "us": PS_PER_US, "µs": PS_PER_US, "ms": PS_PER_MS, "s": PS_PER_S,
                "min": 60 * PS_PER_S, "m": 60 * PS_PER_S, "h": 3600 * PS_PER_S}  # fmt: skip
_SIZE_BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_RATE_BPS = {"bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9, "Tbit/s": 10**12}
_FREQUENCY_HZ = {"/s": Decimal(1), "/ms": Decimal(1000), "/min": Decimal(1) / 60, "/h": Decimal(1) / 3600}

_GO_DURATION = re.compile(r"[0-9]{1,19}(?:\.[0-9]{1,15})?(?:h|ms|m|s|us|ns)")  # as Go prints them: 1h30m0s
_GO_DURATIONS = re.compile(rf"(?:{_GO_DURATION.pattern}){{2,6}}")
_QUANTITY = re.compile(r"\s*([0-9]{1,19}(?:\.[0-9]{1,15})?)\s*([A-Za-zµ/]+)\s*")


def _parse(text: object, unit_values: dict[str, int] | dict[str, Decimal], kind: str) -> Decimal:
    names = ", ".join(unit for unit in unit_values if unit not in ("µs", "KB", "m"))
    matched = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if matched is None or matched[2] not in unit_values:
        raise ValueError(f"{kind} needs a number and a unit ({names})")
    return Decimal(matched[1]) * unit_values[matched[2]]


def parse_duration(text: object) -> int:
    """Return a duration such as `"5us"`, `"1.5 s"` or Go's `"1m30s"` in picoseconds; ValueError says what is wrong."""
    parts = _GO_DURATION.findall(text) if isinstance(text, str) and _GO_DURATIONS.fullmatch(text) else [text]
    value_ps = sum((_parse(part, _DURATION_PS, "a duration") for part in parts), Decimal(0))
    if value_ps > 2**62:
        raise ValueError("a duration of at most 53 days fits the clock")
    return int(value_ps.to_integral_value())


def parse_size(text: object) -> int:
    """Return a size such as `"1000B"`, `"1MB"`, `"64KiB"` in bytes."""
    return int(_parse(text, _SIZE_BYTES, "a size").to_integral_value())


def parse_bit_rate(text: object) -> int:
    """Return a link rate such as `"10Gbit/s"` in bits per second."""
    return int(_parse(text, _RATE_BPS, "a link rate").to_integral_value())


def parse_frequency(text: object) -> float:
    """Return a rate of events such as `"2000/s"` in events per second."""
    return float(_parse(text, _FREQUENCY_HZ, "a rate"))


def format_duration(value_ps: int) -> str:
    """Return picoseconds as the shortest text that `parse_duration` reads back exactly."""
    for unit in ("h", "min", "s", "ms", "us", "ns"):
        if value_ps and value_ps % _DURATION_PS[unit] == 0:
            return f"{value_ps // _DURATION_PS[unit]}{unit}"
    return f"{value_ps}ps" if value_ps else "0s"
