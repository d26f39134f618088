"""Field types of simnet's own files: quantities with units, distributions, arrivals, skew, networks.

Each type reads what a user writes and refuses anything else with what was expected and a fix; `simnet.model` has
the values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from simnet.config.kubernetes_fields import parse_cidr, parse_ip, refuse
from simnet.config.kubernetes_source import nearest_name
from simnet.config.written import (
    written_arrivals,
    written_bit_rate,
    written_distribution,
    written_duration,
    written_frequency,
    written_queue_limit,
    written_size,
    written_skew,
)
from simnet.model.workload import (
    Arrivals,
    Constant,
    Deterministic,
    Distribution,
    Empirical,
    Exponential,
    Lognormal,
    OnOff,
    Pareto,
    PeriodKind,
    Poisson,
    Uniform,
    Zipf,
)
from simnet.units import parse_bit_rate, parse_duration, parse_frequency, parse_size


def _quantity(parse: Callable[[object], int | float], example: str) -> Callable[[object], int | float]:
    def read(value: object) -> int | float:
        try:
            return parse(value)
        except ValueError as error:
            unit = re.sub(r"^[0-9.]+", "", example)
            units = ("us", "ms", "s") if unit == "us" else (unit,)
            choices = " or ".join(f"{value}{unit}" for unit in units)
            fix = f"add the unit: {choices}" if isinstance(value, int | float) else f"for example {example}"
            raise refuse(str(error), fix) from None

    return read


def _whole_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse("a whole number", "for example 12")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse("a number", "for example 1.5")
    return float(value)


def _positive(read: Callable[[object], int | float]) -> Callable[[object], int | float]:
    def check(value: object) -> int | float:
        number = read(value)
        if number <= 0:
            raise refuse("more than 0", "give a positive quantity")
        return number

    return check


read_duration = _quantity(parse_duration, "5us")
read_size = _quantity(parse_size, "1000B")

_DURATION = WithJsonSchema({"type": "string", "examples": ["5us", "30s"], "description": "a duration with its unit"})
_SIZE = WithJsonSchema({"type": "string", "examples": ["1000B"], "description": "a size with its unit"})
_RATE = WithJsonSchema({"type": "string", "examples": ["10Gbit/s"], "description": "a link rate with its unit"})
Duration = Annotated[int, BeforeValidator(read_duration), PlainSerializer(written_duration), _DURATION]
PositiveDuration = Annotated[
    int, BeforeValidator(_positive(read_duration)), PlainSerializer(written_duration), _DURATION
]
Size = Annotated[int, BeforeValidator(_positive(read_size)), PlainSerializer(written_size), _SIZE]


def _queue_limit(value: object) -> tuple[int | None, int | None]:
    if isinstance(value, tuple):  # read before
        return value
    counted = re.fullmatch(r"([0-9]+) ?packets?", value) if isinstance(value, str) else None
    if counted is not None:
        return int(counted[1]), None
    try:
        return None, parse_size(value)
    except ValueError as error:
        raise refuse(f"{error}, or a number of packets", "for example 1MB, or 100 packets") from None


# How much may wait: (packets, bytes), one of them None.
QueueLimit = Annotated[
    Any,
    BeforeValidator(_queue_limit),
    PlainSerializer(written_queue_limit),
    WithJsonSchema({"type": "string", "examples": ["1MB", "100 packets"], "description": "a size, or N packets"}),
]
BitRate = Annotated[
    int,
    BeforeValidator(_positive(_quantity(parse_bit_rate, "10Gbit/s"))),
    PlainSerializer(written_bit_rate),
    _RATE,
]


def _one_key(value: object, choices: Mapping[str, str], what: str) -> tuple[str, Any]:
    """The single key of a mapping such as `{pareto: {...}}`, and what it holds."""
    listing = ", ".join(f"{{{name}: {form}}}" for name, form in choices.items())
    if not isinstance(value, dict) or len(value) != 1:
        raise refuse(f"one {what}: {listing}", f"for example {{{next(iter(choices))}: {next(iter(choices.values()))}}}")
    name = next(iter(value))
    if name not in choices:
        nearest = nearest_name(str(name), list(choices))
        raise refuse(f"one {what}: {listing}", f"did you mean {nearest}?" if nearest else "use one of these")
    return name, value[name]


def _parts(value: object, required: tuple[str, ...], optional: tuple[str, ...], what: str) -> dict[str, Any]:
    names = ", ".join((*required, *(f"[{name}]" for name in optional)))
    if not isinstance(value, dict) or not set(required) <= value.keys() <= {*required, *optional}:
        raise refuse(f"{what} with {names}", f"write {{{', '.join(f'{name}: ...' for name in required)}}}")
    return value


_DISTRIBUTIONS = {
    "constant": "VALUE",
    "uniform": "[LOW, HIGH]",
    "exponential": "MEAN",
    "lognormal": "{mean: M, sigma: S}",
    "pareto": "{mean: M, alpha: A, maximum: [X]}",
    "empirical": "{values: [...], weights: [...]}",
}


def _distribution(read: Callable[[object], int | float]) -> Callable[[object], Distribution]:
    """A reader of distributions of a quantity that `read` reads."""

    def parse(value: object) -> Distribution:
        if isinstance(value, Constant | Uniform | Exponential | Lognormal | Pareto | Empirical):
            return value
        if not isinstance(value, dict):
            return Constant(int(read(value)))
        name, body = _one_key(value, _DISTRIBUTIONS, "distribution")
        try:
            return _read_distribution(name, body, read)
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            raise refuse(f"a distribution that exists: {error}", "change the parameter that is named") from None

    return parse


def _read_distribution(name: str, body: Any, read: Callable[[object], int | float]) -> Distribution:
    if name == "constant":
        return Constant(int(read(body)))
    if name == "exponential":
        return Exponential(float(read(body)))
    if name == "uniform":
        if isinstance(body, list) and len(body) == 2:
            body = {"low": body[0], "high": body[1]}
        parts = _parts(body, ("low", "high"), (), "a uniform distribution")
        return Uniform(int(read(parts["low"])), int(read(parts["high"])))
    if name == "lognormal":
        parts = _parts(body, ("mean", "sigma"), (), "a lognormal distribution")
        return Lognormal(float(read(parts["mean"])), _number(parts["sigma"]))
    if name == "pareto":
        parts = _parts(body, ("mean", "alpha"), ("maximum",), "a Pareto distribution")
        maximum = parts.get("maximum")
        return Pareto(
            float(read(parts["mean"])), _number(parts["alpha"]), None if maximum is None else int(read(maximum))
        )
    parts = _parts(body, ("values",), ("weights",), "an empirical distribution")
    values = parts["values"]
    if not isinstance(values, list) or not values:
        raise refuse("a list of values", "write values: [1, 10, 100]")
    weights = parts.get("weights", [1] * len(values))
    if not isinstance(weights, list):
        raise refuse("a list of weights, one a value", "write weights: [0.5, 0.3, 0.2]")
    return Empirical(tuple(int(read(each)) for each in values), tuple(_number(each) for each in weights))


_DISTRIBUTION_SCHEMA = {
    "description": "a value, or one of: " + ", ".join(f"{{{name}: {form}}}" for name, form in _DISTRIBUTIONS.items()),
    "type": ["string", "number", "object"],
}


def _bare(value: object) -> float:
    number = _number(value)
    if number < 0:
        raise refuse("0 or more", "give a positive number")
    return number


Counts = Annotated[
    Any,
    BeforeValidator(_distribution(_bare)),
    PlainSerializer(written_distribution(lambda value: value)),
    WithJsonSchema(_DISTRIBUTION_SCHEMA),
]
Sizes = Annotated[
    Any,
    BeforeValidator(_distribution(read_size)),
    PlainSerializer(written_distribution(written_size)),
    WithJsonSchema(_DISTRIBUTION_SCHEMA),
]


def _or_none(value: object) -> Distribution | Literal["none"]:
    return "none" if value == "none" else _distribution(read_size)(value)


def _written_or_none(value: Distribution | Literal["none"]) -> Any:
    return "none" if value == "none" else written_distribution(written_size)(value)


ReplySizes = Annotated[
    Any,
    BeforeValidator(_or_none),
    PlainSerializer(_written_or_none),
    WithJsonSchema(_DISTRIBUTION_SCHEMA | {"description": "none, " + str(_DISTRIBUTION_SCHEMA["description"])}),
]
Durations = Annotated[
    Any,
    BeforeValidator(_distribution(read_duration)),
    PlainSerializer(written_distribution(written_duration)),
    WithJsonSchema(_DISTRIBUTION_SCHEMA),
]

_ARRIVALS = {
    "poisson": "2000/s",
    "deterministic": "2000/s",
    "bursty": "{rate: 5000/s, on: 100ms, off: 400ms}",
    "trace": "FILE.csv",
}
_rate = _quantity(parse_frequency, "2000/s")
Frequency = Annotated[
    float,
    BeforeValidator(_positive(_rate)),
    PlainSerializer(written_frequency),
    WithJsonSchema({"type": "string", "examples": ["2000/s"], "description": "a rate with its unit"}),
]


def _arrivals(value: object) -> Arrivals | str:
    """Poisson, deterministic, on/off bursts; a trace is given as the name of its file, which `config.trace` reads."""
    name, body = _one_key(value, _ARRIVALS, "arrival process")
    try:
        if name == "trace":
            if not isinstance(body, str):
                raise refuse("the name of a CSV or Parquet file", "write {trace: starts.csv}")
            return body
        if name == "poisson":
            return Poisson(float(_rate(body)))
        if name == "deterministic":
            return Deterministic(float(_rate(body)))
        parts = _parts(body, ("rate", "on", "off"), ("periods",), "bursts")
        periods = parts.get("periods", "exponential")
        if periods not in [kind.value for kind in PeriodKind]:
            raise refuse("periods: exponential or constant", "leave periods out for exponential ones")
        return OnOff(
            float(_rate(parts["rate"])),
            int(read_duration(parts["on"])),
            int(read_duration(parts["off"])),
            PeriodKind(periods),
        )
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise refuse(f"an arrival process that exists: {error}", "change the parameter that is named") from None


ArrivalField = Annotated[
    Any,
    BeforeValidator(_arrivals),
    PlainSerializer(written_arrivals),
    WithJsonSchema(
        {
            "type": "object",
            "description": "one of: " + ", ".join(f"{{{name}: {form}}}" for name, form in _ARRIVALS.items()),
        }
    ),
]


def _skew(value: object) -> Zipf | None:
    if value == "uniform":
        return None
    if isinstance(value, dict) and list(value) == ["zipf"]:
        value = f"zipf({value['zipf']})"
    matched = re.fullmatch(r"zipf\(\s*([0-9]+(?:\.[0-9]+)?)\s*\)", value) if isinstance(value, str) else None
    if matched is None or float(matched[1]) > 20:
        raise refuse("uniform, or zipf(S) with an exponent S from 0 to 20", "for example zipf(1.1)")
    return Zipf(float(matched[1]))


Skew = Annotated[
    Any,
    BeforeValidator(_skew),
    PlainSerializer(written_skew),
    WithJsonSchema({"type": ["string", "object"], "examples": ["uniform", "zipf(1.1)"]}),
]


def _cidr(value: object) -> str:
    try:
        return parse_cidr(value if isinstance(value, str) else "")
    except ValueError:
        raise refuse("a network in CIDR notation", "for example 10.217.0.0/16") from None


def _address(value: object) -> str:
    try:
        return parse_ip(value if isinstance(value, str) else "")
    except ValueError:
        raise refuse("an IP address", "for example 192.168.64.57") from None


Cidr = Annotated[str, BeforeValidator(_cidr)]
Address = Annotated[str, BeforeValidator(_address)]


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


OneOrMore = BeforeValidator(_as_list, json_schema_input_type=Any)
