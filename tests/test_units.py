"""Quantities with units: what is read, what is refused, and that durations print back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simnet.units import PS_PER_S, format_duration, parse_bit_rate, parse_duration, parse_frequency, parse_size


@pytest.mark.parametrize(
    ("text", "value_ps"),
    [
        ("5us", 5_000_000),
        ("1.5 s", 1_500_000_000_000),
        ("0s", 0),
        ("1m30s", 90 * PS_PER_S),
        ("1h0m0.5s", 3_600_500_000_000_000),
        ("2min", 120 * PS_PER_S),
    ],
)
def test_a_duration_is_read_in_picoseconds(text: str, value_ps: int) -> None:
    assert parse_duration(text) == value_ps


@pytest.mark.parametrize(
    "text", ["5", 5, "", "us", "-1s", "1e3s", "5 lightyears", "1s2", "9999999h", None, "1..5s", "s1s"]
)
def test_a_duration_without_a_number_or_a_unit_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 2**62))
def test_a_duration_prints_back_exactly(value_ps: int) -> None:
    assert parse_duration(format_duration(value_ps)) == value_ps


def test_sizes_and_rates_keep_decimal_and_binary_prefixes_apart() -> None:
    assert (parse_size("1kB"), parse_size("1KiB"), parse_size("1.5MB")) == (1000, 1024, 1_500_000)
    assert parse_bit_rate("10Gbit/s") == 10**10
    assert parse_frequency("120/min") == 2.0
    for wrong in ("10Gbit", "10GB/s", "10"):
        with pytest.raises(ValueError, match="link rate"):
            parse_bit_rate(wrong)
