"""Values back as a user would write them in a file, such that reading them again gives the same value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simnet.model.workload import (
    Constant,
    Deterministic,
    Distribution,
    Empirical,
    Exponential,
    Lognormal,
    OnOff,
    Pareto,
    Poisson,
    Uniform,
    Zipf,
)
from simnet.units import format_duration

_SIZES = {"GB": 10**9, "GiB": 2**30, "MB": 10**6, "MiB": 2**20, "kB": 10**3, "KiB": 2**10}
_RATES = {"Tbit/s": 10**12, "Gbit/s": 10**9, "Mbit/s": 10**6, "kbit/s": 10**3}


def written_duration(value_ps: float) -> str:
    """Picoseconds as a duration: `5us`; a fraction of a picosecond, as a mean may have, is kept."""
    whole = int(value_ps)
    return format_duration(whole) if whole == value_ps else f"{_plain(value_ps)}ps"


def written_size(value_bytes: float | None) -> str | None:
    """Bytes as a size: `1MB`; None stays."""
    return None if value_bytes is None else _with_unit(value_bytes, _SIZES, "B")


def written_queue_limit(limit: tuple[int | None, int | None] | None) -> str | None:
    """What may wait as a size or a number of packets; None stays."""
    if limit is None:
        return None
    return written_size(limit[1]) if limit[0] is None else f"{limit[0]} packets"


def written_bit_rate(value_bps: float) -> str:
    """Bits per second as a link rate: `10Gbit/s`."""
    return _with_unit(value_bps, _RATES, "bit/s")


def written_frequency(rate_hz: float) -> str:
    """Events per second as a rate: `2000/s`."""
    return f"{_plain(rate_hz)}/s"


def _with_unit(value: float, units: dict[str, int], smallest: str) -> str:
    for unit, factor in units.items():
        if value and value % factor == 0:
            return f"{int(value) // factor}{unit}"
    return f"{_plain(value)}{smallest}"


def _plain(value: float) -> str:
    """A number without an exponent; whole ones without a point."""
    return str(int(value)) if int(value) == value else format(value, ".15f").rstrip("0")


def _number(value: float) -> int | float:
    return int(value) if int(value) == value else value


def written_distribution(written: Callable[[float], Any]) -> Callable[[Distribution], Any]:
    """A writer of distributions of a quantity that `written` writes."""

    def write(value: Distribution) -> Any:
        if isinstance(value, Constant):
            return written(value.value)
        if isinstance(value, Exponential):
            return {"exponential": written(value.mean)}
        if isinstance(value, Uniform):
            return {"uniform": [written(value.low), written(value.high)]}
        if isinstance(value, Lognormal):
            return {"lognormal": {"mean": written(value.mean), "sigma": value.sigma}}
        if isinstance(value, Pareto):
            most = {} if value.maximum is None else {"maximum": written(value.maximum)}
            return {"pareto": {"mean": written(value.mean), "alpha": value.alpha, **most}}
        assert isinstance(value, Empirical)
        return {"empirical": {"values": [written(each) for each in value.values], "weights": list(value.weights)}}

    return write


def written_arrivals(value: object) -> Any:
    """An arrival process; a trace is the name of its file."""
    if isinstance(value, Poisson):
        return {"poisson": written_frequency(value.rate_hz)}
    if isinstance(value, Deterministic):
        return {"deterministic": written_frequency(value.rate_hz)}
    if isinstance(value, OnOff):
        return {
            "bursty": {
                "rate": written_frequency(value.rate_hz),
                "on": written_duration(value.on_ps),
                "off": written_duration(value.off_ps),
                "periods": value.kind.value,
            }
        }
    return {"trace": value}


def written_skew(value: Zipf | None) -> str:
    """Demand: `uniform`, or `zipf(1.1)`."""
    return "uniform" if value is None else f"zipf({_plain(value.exponent)})"
