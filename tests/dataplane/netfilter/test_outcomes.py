"""Exact outcomes: they sum to 1, and the machine's frequencies follow them."""

import random
import sys
from collections import Counter
from fractions import Fraction
from math import log, sqrt
from pathlib import Path

import numpy as np
from hypothesis import given, reject, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from random_rulesets import INTERFACES, packets, rulesets

from simnet.dataplane.netfilter import outcomes as outcomes_module
from simnet.dataplane.netfilter.compiler import compile_program
from simnet.dataplane.netfilter.counters import Counters
from simnet.dataplane.netfilter.executor import run_hook
from simnet.dataplane.netfilter.outcomes import exact_outcomes
from simnet.dataplane.netfilter.packets import PacketColumns
from simnet.dataplane.netfilter.state import NetfilterState
from simnet.errors import ModelError
from simnet.model.addresses import AddressTable
from simnet.model.iptables import ruleset as rs

LOG = log(2e9)
NAMES = ("verdict", "mark", "destination", "destination_port", "snat_kind", "rules_scanned", "rule")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["PREROUTING", "FORWARD"]))
def test_frequencies_of_the_machine_follow_the_exact_probabilities(seed, hook):
    rng = random.Random(seed)
    addresses = AddressTable()
    hosts = rulesets(rng, stateful=False)
    program = compile_program(hosts, addresses, INTERFACES)
    one = packets(rng, 1, len(hosts), addresses)
    expected: Counter = Counter()
    total = Fraction(0)
    most = outcomes_module.MOST_STEPS
    outcomes_module.MOST_STEPS = 3000
    try:
        exact = exact_outcomes(program, hook, one)
    except ModelError:
        reject()  # ways that multiply without end
    finally:
        outcomes_module.MOST_STEPS = most
    for probability, outcome in exact:
        expected[tuple(int(getattr(outcome, name)) for name in NAMES)] += probability
        total += probability
    assert total == 1
    count = 4000
    many = one.take(np.zeros(count, np.int64))
    many = PacketColumns(**{**{n: getattr(many, n) for n in many.__dataclass_fields__},
                            "connection": np.arange(count, dtype=np.uint64)})  # fmt: skip
    result = run_hook(program, hook, many, seed=seed, state=NetfilterState(), counters=Counters(program))
    seen = Counter(zip(*(getattr(result, name).tolist() for name in NAMES), strict=True))
    assert set(seen) <= set(expected)
    for outcome, probability in expected.items():
        share = float(probability)
        # Bernstein's inequality: a right machine exceeds this with a probability below 1e-9
        slack = sqrt(2 * LOG * count * share * (1 - share)) + LOG / 3
        assert abs(seen[outcome] - count * share) <= slack


def test_a_cascade_over_three_endpoints_has_the_kernels_fixed_point_shares():
    def sep(i):
        return rs.Chain(f"SEP{i}", (rs.Rule((), rs.Dnat(f"10.0.0.{i}", (80, 80))),))

    spread = (
        rs.Rule((rs.StatisticRandom(715827883),), rs.Jump("SEP1")),
        rs.Rule((rs.StatisticRandom(1 << 30),), rs.Jump("SEP2")),
        rs.Rule((), rs.Jump("SEP3")),
    )
    chains = {"PREROUTING": rs.Chain("PREROUTING", spread, "ACCEPT"), **{f"SEP{i}": sep(i) for i in (1, 2, 3)}}
    addresses = AddressTable()
    program = compile_program([rs.Ruleset(rs.Family.IPV4, {"nat": rs.Table("nat", chains)})], addresses)
    first = Fraction(715827883, 2**31)
    outcomes = exact_outcomes(program, "PREROUTING", PacketColumns.of(1), record_rules=True)
    assert [(p, addresses.text(o.destination), o.rules_scanned) for p, o in outcomes] == [
        (first, "10.0.0.1", 2), ((1 - first) / 2, "10.0.0.2", 3), ((1 - first) / 2, "10.0.0.3", 4)
    ]  # fmt: skip
    assert [program.rule(rule)[1] for rule in outcomes[1][1].rules] == [1, 0]
    assert program.option_threshold[:2].tolist() == [
        715827883 << 33,
        (715827883 << 33) + (2**64 - (715827883 << 33)) // 2,
    ]
