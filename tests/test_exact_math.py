"""Exact mathematics: close to the true value, and the same bytes whatever the processor can do."""

import math
from decimal import Context, Decimal

import numpy as np
import pytest
from digests import printed_by, vector_features_found
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import special, stats

from simnet import exact_math

EXACTLY = Context(prec=60)
positive = st.floats(min_value=5e-324, allow_nan=False, allow_infinity=False)


def ulps_off(found: float, true: Decimal) -> float:
    """Return the distance from the true value, in units of the last place of the float64 nearest to it."""
    unit = Decimal(math.ulp(float(true)))
    return float(abs(Decimal(found) - true) / unit)


@given(positive)
@example(1.0 - 2.0**-53)
@example(1.0 + 2.0**-52)
@example(2.0**-1022)
@example(0.7071067811865475)
@example(1.7976931348623157e308)
def test_log_is_within_one_ulp_of_the_true_value(value):
    assert ulps_off(exact_math.log([value])[0], EXACTLY.ln(Decimal(value))) <= 1.0


@given(st.floats(-745.0, 709.78))
@example(-708.5)
@example(709.5)
@example(1e-300)
def test_exp_is_within_one_ulp_of_the_true_value(value):
    assert ulps_off(exact_math.exp([value])[0], EXACTLY.exp(Decimal(value))) <= 1.0


def test_log_and_exp_stay_within_two_ulp_of_numpy_over_millions_of_values():
    grid = (np.arange(1, 500_001) * 0.6180339887498949) % 1.0
    wide = 2.0 ** (grid * 2000.0 - 1000.0)
    for values in (grid, wide, 1.0 + grid * 1e-6):
        truth = np.log(values)
        assert (np.abs(exact_math.log(values) - truth) <= 2.0 * np.spacing(np.abs(truth))).all()
    for values in (grid, grid * 1400.0 - 700.0, grid * 1e-9):
        truth = np.exp(values)
        assert (np.abs(exact_math.exp(values) - truth) <= 2.0 * np.spacing(truth)).all()


def test_log_at_the_ends_of_its_range():
    found = exact_math.log([0.0, -0.0, -1.0, -np.inf, np.nan, np.inf, 1.0])
    np.testing.assert_array_equal(found, [-np.inf, -np.inf, np.nan, np.nan, np.nan, np.inf, 0.0])


def test_exp_at_the_ends_of_its_range():
    found = exact_math.exp([0.0, -np.inf, -1e9, -745.2, 709.79, 1e9, np.inf, np.nan])
    np.testing.assert_array_equal(found, [1.0, 0.0, 0.0, 0.0, np.inf, np.inf, np.inf, np.nan])


@given(st.floats(1e-9, 1e9), st.floats(-10.0, 10.0))
def test_power_is_as_close_as_its_description_says(base, exponent):
    true = EXACTLY.exp(EXACTLY.multiply(Decimal(exponent), EXACTLY.ln(Decimal(base))))
    found = Decimal(float(exact_math.power([base], exponent)[0]))
    logarithm = abs(exponent * math.log(base))
    assert abs(found - true) <= true * Decimal(2.0**-52 * (1.0 + logarithm))


def test_power_of_zero_and_to_the_zero():
    np.testing.assert_array_equal(exact_math.power([0.0, 0.0, 5.0, 0.0], [0.0, 2.0, 0.0, -1.0]), [1, 0, 1, np.inf])


@given(st.floats(1e-300, 1.0, exclude_max=True))
def test_the_normal_quantile_agrees_with_scipy(probability):
    # AS 241 promises about 1 part in 1e16; the distance to scipy's own approximation is allowed for both.
    found, other = exact_math.normal_quantile([probability])[0], special.ndtri(probability)
    assert abs(found - other) <= 4e-15 * max(1.0, abs(other))


def test_the_normal_quantile_is_odd_and_knows_its_ends():
    probability = np.array([0.0, 0.5, 1.0, -0.1, 1.1, np.nan])
    np.testing.assert_array_equal(
        exact_math.normal_quantile(probability), [-np.inf, 0.0, np.inf, np.nan, np.nan, np.nan]
    )
    lower = np.arange(1, 512) / 1024.0  # both p and 1 - p are exact
    np.testing.assert_array_equal(exact_math.normal_quantile(lower), -exact_math.normal_quantile(1.0 - lower))


def test_quantiles_of_an_even_grid_are_normal():
    grid = (np.arange(100_000) + 0.5) / 100_000
    assert stats.kstest(exact_math.normal_quantile(grid), "norm").statistic < 1.1 * 0.5 / 100_000


@pytest.mark.parametrize("function", [exact_math.log, exact_math.exp, exact_math.normal_quantile])
def test_a_value_does_not_depend_on_its_neighbours(function):
    # A block with an unusual value in it takes another way through the code.
    values = np.concatenate([np.linspace(0.001, 0.999, 40_000), [np.nan, 0.0, 5e-324]])
    np.testing.assert_array_equal(function(values)[:40_000], function(values[:40_000].copy()))
    np.testing.assert_array_equal(function(values[17:900]), function(values)[17:900])


@pytest.mark.parametrize("shape", [(), (0,), (3, 4)])
def test_shapes_are_kept(shape):
    ones = np.ones(shape)
    for function in (exact_math.log, exact_math.exp, exact_math.normal_quantile):
        assert function(ones).shape == shape
    assert exact_math.power(ones, 2.0).shape == shape


DIGEST_OF_EVERYTHING = """
import hashlib
import numpy as np
from simnet import exact_math, random_streams
flow = np.arange(100_003, dtype=np.uint64)
unit = random_streams.uniform(1, "digest", flow, flow[::-1])
inner = random_streams.open_unit_interval(random_streams.bits(1, "digest", flow))
wide = exact_math.exp(unit * 1450.0 - 740.0)
powers, normals = exact_math.power(inner, -1.0 / 1.5), exact_math.normal_quantile(inner)
parts = [unit, inner, wide, exact_math.log(wide), powers, normals]
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


@pytest.mark.digest
def test_bytes_are_the_same_with_vector_instructions_on_and_off():
    features = vector_features_found()
    if not features:
        pytest.skip("numpy uses no vector instructions above its baseline on this machine")
    everything_on = printed_by(DIGEST_OF_EVERYTHING, without_features=[])
    for without in (features, features[1:]):
        assert printed_by(DIGEST_OF_EVERYTHING, without_features=without) == everything_on


@pytest.mark.digest
def test_the_digest_test_would_see_the_difference_that_numpy_itself_makes():
    features = vector_features_found()
    if not {"X86_V4", "AVX512_SKX"} & set(features):
        pytest.skip("numpy's log has one implementation on this machine")
    own_log = "import hashlib, numpy as np; print(hashlib.sha256(np.log(np.arange(1, 200_000) / 7)).hexdigest())"
    assert printed_by(own_log, without_features=[]) != printed_by(own_log, without_features=features)
