"""A specification out of range is refused when it is made, with the field, what was found and what is expected."""

import numpy as np
import pytest

from simnet.model.workload import (
    ClientPopulation,
    Constant,
    Deterministic,
    Empirical,
    EntryChoice,
    EntryChoiceKind,
    Exponential,
    FlowShape,
    Lognormal,
    OnOff,
    Pareto,
    Poisson,
    Trace,
    Uniform,
    Workload,
    Zipf,
)
from simnet.workload.generation import generator

SHAPE = FlowShape(Constant(1), Constant(100), Constant(0))


def trace(*start_ps, **columns):
    return Trace(np.array(start_ps, np.int64), **{name: np.array(column, np.int32) for name, column in columns.items()})


REFUSED = [
    (lambda: Uniform(9, 3), "low is 9, expected at most high (3)"),
    (lambda: Exponential(0.0), "mean is 0.0, expected a number above 0"),
    (lambda: Exponential(float("nan")), "mean is nan, expected a number above 0"),
    (lambda: Lognormal(5.0, 0.0), "sigma is 0.0, expected above 0, at most 8.0"),
    (lambda: Lognormal(float("inf"), 1.0), "mean is inf, expected a number above 0"),
    (lambda: Pareto(12.0, 1.0), "alpha is 1.0, expected at least 1.01 where there is no maximum"),
    (lambda: Pareto(12.0, 0.0, 100), "alpha is 0.0, expected from 0.05 to 50"),
    (lambda: Pareto(12.0, 1.5, 12), "maximum is 12, expected above the mean (12.0)"),
    (lambda: Empirical((), ()), "values is (), expected at least one value"),
    (lambda: Empirical((1, 2), (1.0,)), "weights is 1, expected one weight a value (2)"),
    (lambda: Empirical((1,), (0.0,)), "weights is (0.0,), expected finite numbers from 0, not all of them 0"),
    (lambda: Poisson(0.0), "rate_hz is 0.0, expected from 1e-05 to 1e+11 flows a second"),
    (lambda: Deterministic(1e12), "rate_hz is 1000000000000.0, expected from 1e-05 to 1e+11 flows a second"),
    (lambda: OnOff(1.0, 0, 5), "on_ps is 0, expected from 1 us to 10**17 ps"),
    (lambda: OnOff(1.0, 10**9, -1), "off_ps is -1, expected from 0 to 10**17 ps"),
    (lambda: trace(5, 4), "start_ps[1] is 4, expected no earlier than the row before"),
    (lambda: trace(-1, 4), "start_ps[0] is -1, expected at least 0"),
    (lambda: Trace(np.array([1.0])), "start_ps is dtype('float64'), expected int64"),
    (lambda: trace(1, 2, packet_count=[1, 0]), "packet_count[1] is 0, expected 1 to 1000000"),
    (lambda: trace(1, 2, packet_count=[1]), "packet_count is (1,), expected 2 rows"),
    (lambda: trace(1, packet_size_bytes=[70_000]), "packet_size_bytes[0] is 70000, expected 20 to 65535"),
    (lambda: ClientPopulation(0), "count is 0, expected from 1 to 10,000,000 clients"),
    (lambda: Zipf(-1.0), "skew exponent is -1.0, expected from 0 to 20"),
    (lambda: EntryChoice(EntryChoiceKind.FIXED), "fixed is None, expected a name with kind fixed, and only then"),
    (lambda: EntryChoice(fixed="a"), "fixed is 'a', expected a name with kind fixed, and only then"),
    (
        lambda: Workload(Poisson(1.0), ClientPopulation(1), SHAPE, protocol=1),
        "protocol is 1, expected 6 (TCP), 17 (UDP) or 132 (SCTP)",
    ),
    (
        lambda: Workload(trace(0, client=[3]), ClientPopulation(3), SHAPE),
        "client is 3, expected below the count (3)",
    ),
    (
        lambda: generator(
            Workload(Poisson(1.0), ClientPopulation(1), FlowShape(Constant(1), Constant(19), Constant(0)))
        ),
        "packetSize: value is 19, expected from 20 to 65535",
    ),
]


@pytest.mark.parametrize("make, message", REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_out_of_range_is_refused_in_words(make, message):
    with pytest.raises(ValueError) as refusal:
        make()
    assert str(refusal.value) == message
