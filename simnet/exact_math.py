"""Logarithm, exponential, power and the normal quantile with the same bytes on every machine.

numpy's own `log`, `exp` and `power` choose an implementation by the processor's vector instructions, and
these differ in the last bit; a simulation that promises identical results cannot use them. Here only + - * /
and sqrt, which IEEE 754 defines to the last bit, and integer operations on the bits of a float64 are used.
Accuracy: `log` and `exp` within 1 ulp of the true value, in the ranges that the tests name.
Method: argument reduction by powers of two, then the classical series in s = f / (2 + f) and r * coth(r /
2), with minimax coefficients computed for this module (Remez exchange, 60 digits). Quantile: M. J. Wichura,
algorithm AS 241, PPND16, Applied Statistics 37 (1988). Imports nothing of simnet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK = 1 << 14  # 128 KiB a column: six columns stay in the second-level cache

_LN2_HIGH = float.fromhex("0x1.62e42p-1")  # ln 2 to 21 bits: its product with any exponent is exact
_LN2_LOW = 4.7493250390316726e-07  # ln 2 - _LN2_HIGH
_INVERSE_LN2 = 1.4426950408889634
_SQRT_HALF_BITS = np.int64(0x3FE6A09E00000000)  # just below sqrt(1/2)
_SMALLEST_NORMAL = 2.0**-1022
_LARGEST = float(np.finfo(np.float64).max)

# log((1 + s) / (1 - s)) = 2 s + s z P(z), z = s * s, |s| <= 0.1716
_LOG = (0.666666666666667, 0.39999999999898445, 0.2857142862639931, 0.222222110728293, 0.1818289321955121,
        0.15331596934452998, 0.1461787297342644)  # fmt: skip
# r coth(r / 2) = 2 + z Q(z), z = r * r, |r| <= 0.3466
_EXP = (0.1666666666666666, -0.0027777777777564607, 6.613756471709041e-05, -1.6534060148642073e-06,
        4.143771058050167e-08)  # fmt: skip


def log(value: ArrayLike) -> NDArray[np.float64]:
    """Return the natural logarithm.

    -inf at 0, nan below 0 and at nan, inf at inf. float64 in and out, any shape.
    """
    numbers = np.ascontiguousarray(value, np.float64)
    result = np.empty_like(numbers)
    flat_in, flat_out = numbers.reshape(-1), result.reshape(-1)
    for start in range(0, flat_in.size, _BLOCK):
        _log_block(flat_in[start : start + _BLOCK], flat_out[start : start + _BLOCK])
    return result.reshape(np.shape(value))


def exp(value: ArrayLike) -> NDArray[np.float64]:
    """Return e to the given power.

    0 below the range of float64, inf above it, nan at nan. float64 in and out, any shape.
    """
    numbers = np.ascontiguousarray(value, np.float64)
    result = np.empty_like(numbers)
    flat_in, flat_out = numbers.reshape(-1), result.reshape(-1)
    for start in range(0, flat_in.size, _BLOCK):
        _exp_block(flat_in[start : start + _BLOCK], flat_out[start : start + _BLOCK])
    return result.reshape(np.shape(value))


def power(base: ArrayLike, exponent: ArrayLike) -> NDArray[np.float64]:
    """Return base ** exponent for base >= 0, as exp(exponent * log(base)).

    The relative error grows with the size of the logarithm of the result: below 2**-52 * (1 + abs(exponent *
    log(base))).
    """
    exponents = np.asarray(exponent, np.float64)
    with np.errstate(invalid="ignore"):
        product = exponents * log(base)
    return exp(np.where(exponents == 0.0, 0.0, product))  # 0 ** 0 and inf ** 0 are 1, as everywhere


def normal_quantile(probability: ArrayLike) -> NDArray[np.float64]:
    """Return the z with P(Z <= z) = probability for a standard normal Z.

    -inf at 0, inf at 1, nan outside [0, 1].
    """
    numbers = np.ascontiguousarray(probability, np.float64)
    result = np.empty_like(numbers)
    flat_in, flat_out = numbers.reshape(-1), result.reshape(-1)
    for start in range(0, flat_in.size, _BLOCK):
        flat_out[start : start + _BLOCK] = _quantile_block(flat_in[start : start + _BLOCK])
    return result.reshape(np.shape(probability))


def _log_block(x: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    if not (x.min() >= _SMALLEST_NORMAL and x.max() <= _LARGEST):  # also taken when a nan is there
        _log_of_any(x, out)
        return
    # x = 2**k * m with m in [sqrt(1/2), sqrt(2)); f = m - 1 is exact.
    bits = x.view(np.int64)
    exponent = bits - _SQRT_HALF_BITS
    exponent >>= 52
    f = (bits - (exponent << 52)).view(np.float64)
    f -= 1.0
    k = exponent.astype(np.float64)

    s = f + 2.0
    np.divide(f, s, out=s)
    z = s * s
    series = _polynomial(_LOG, z)
    series *= z  # log(m) = 2 s + s * series
    half_square = f * f
    half_square *= 0.5
    # 2 s = f - s f and s f = f^2/2 - s f^2/2, so log(m) = f - (f^2/2 - s * (f^2/2 + series)): small terms
    # first.
    series += half_square
    series *= s
    k_low = np.multiply(k, _LN2_LOW, out=z)
    series += k_low
    half_square -= series
    half_square -= f
    np.multiply(k, _LN2_HIGH, out=k)
    np.subtract(k, half_square, out=out)


def _log_of_any(x: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    is_ordinary = (x >= _SMALLEST_NORMAL) & (x <= _LARGEST)
    is_subnormal = (x > 0.0) & (x < _SMALLEST_NORMAL)
    scale = np.where(is_subnormal, 2.0**54, 1.0)
    safe = np.where(is_ordinary | is_subnormal, x, 1.0) * scale
    _log_block(safe, out)
    # A subnormal was scaled up by 2**54; the two steps keep the product with ln 2 exact in its upper part.
    out -= np.where(is_subnormal, 54 * _LN2_LOW, 0.0)
    out -= np.where(is_subnormal, 54 * _LN2_HIGH, 0.0)
    out[x == 0.0] = -np.inf
    out[x == np.inf] = np.inf
    out[~(x >= 0.0)] = np.nan


def _exp_block(x: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    if x.min() >= -708.0 and x.max() <= 709.0:
        k = _exp_reduced(x, out)
        bits = out.view(np.int64)
        bits += k.astype(np.int64) << 52  # times 2**k; neither overflow nor subnormal results in this range
        return
    k = _exp_reduced(np.where(np.isnan(x), 0.0, np.clip(x, -800.0, 800.0)), out)
    # 2**k itself may lie outside float64: multiply twice, and only the second product can round.
    half = np.trunc(k * 0.5)
    for exponent in (half, k - half):
        scale = ((exponent.astype(np.int64) + 1023) << 52).view(np.float64)
        with np.errstate(over="ignore", under="ignore"):
            out *= scale
    out[np.isnan(x)] = np.nan


def _exp_reduced(x: NDArray[np.float64], out: NDArray[np.float64]) -> NDArray[np.float64]:
    """Write exp(r) for x = k ln 2 + r with abs(r) <= ln(2) / 2 to `out`, and return k."""
    k = np.rint(x * _INVERSE_LN2)
    high = x - k * _LN2_HIGH
    low = k * _LN2_LOW
    r = high - low
    z = r * r
    c = _polynomial(_EXP, z)
    c *= z
    np.subtract(r, c, out=c)  # c = 2 + r - r coth(r / 2)
    # exp(r) = 1 + 2 r / (r coth(r / 2) - r) = 1 + r + r c / (2 - c)
    fraction = r * c
    np.subtract(2.0, c, out=c)
    fraction /= c
    np.subtract(low, fraction, out=fraction)
    fraction -= high
    np.subtract(1.0, fraction, out=out)
    return k


def _polynomial(coefficients: tuple[float, ...], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Horner's rule, lowest coefficient first."""
    total = z * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        total += coefficient
        total *= z
    total += coefficients[0]
    return total


# AS 241, PPND16: numerators and denominators, lowest power first
_CENTRE = (
    (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
     45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
    (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077, 21213.794301586595867,
     39307.895800092710610, 28729.085735721942674, 5226.4952788528545610),
)  # fmt: skip
_MIDDLE = (
    (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, 0.241780725177450611770, 0.0227238449892691845833, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550, 0.148103976427480074590,
     0.0151986665636164571966, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_TAIL = (
    (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 0.296560571828504891230,
     0.0265321895265761230930, 0.00124266094738807843860, 2.71155556874348757815e-5,
     2.01033439929228813265e-7),
    (1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
     2.04426310338993978564e-15),
)  # fmt: skip


def _quantile_block(p: NDArray[np.float64]) -> NDArray[np.float64]:
    q = p - 0.5
    central = 0.180625 - q * q
    z = q * (_polynomial(_CENTRE[0], central) / _polynomial(_CENTRE[1], central))
    outer = np.flatnonzero(np.abs(q) > 0.425)
    if outer.size:
        p_outer = p[outer]
        tail = np.minimum(p_outer, 1.0 - p_outer)
        r = np.sqrt(-log(np.where(tail > 0.0, tail, 1.0)))
        is_far = r > 5.0
        near, far = r - 1.6, r - 5.0
        distance = np.where(
            is_far,
            _polynomial(_TAIL[0], far) / _polynomial(_TAIL[1], far),
            _polynomial(_MIDDLE[0], near) / _polynomial(_MIDDLE[1], near),
        )
        distance[tail == 0.0] = np.inf
        distance[~(tail >= 0.0)] = np.nan
        z[outer] = np.where(q[outer] < 0.0, -distance, distance)
    return z
