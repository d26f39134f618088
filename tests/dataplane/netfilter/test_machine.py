"""The vector machine against the rule-by-rule interpreter: on every packet, mark, counter and draw."""

import random
import sys
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from random_rulesets import INTERFACES, one, packets, rulesets
from reference.netfilter_interpreter import Interpreter

from simnet.dataplane.netfilter.compiler import compile_program
from simnet.dataplane.netfilter.counters import Counters
from simnet.dataplane.netfilter.executor import run_chain
from simnet.dataplane.netfilter.packets import PacketColumns
from simnet.dataplane.netfilter.state import NetfilterState
from simnet.model.addresses import AddressTable

CHAINS = (("nat", "PREROUTING"), ("filter", "FORWARD"))
LAWS = settings(
    max_examples=150,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)


SEEDS = st.integers(0, 2**32).map(random.Random)


def assert_agrees(rng, hosts, columns, addresses, recent_limit):
    program = compile_program(hosts, addresses, INTERFACES)
    counters, state = Counters(program), NetfilterState(recent_limit)
    reference = Interpreter(hosts, addresses, INTERFACES, seed=5, recent_limit=recent_limit)
    for table, chain in CHAINS:
        outcome = run_chain(program, table, chain, columns, seed=5, state=state, counters=counters)
        for row in range(len(columns)):
            expected = reference.run(table, chain, one(columns, row))
            for name, column in outcome.columns():
                if name != "rule":
                    assert column[row] == getattr(expected, name), (name, row)
            if expected.rule is None:
                assert outcome.rule[row] == -1
            else:
                unit, index, _ = program.rule(int(outcome.rule[row]))
                assert (unit.table, unit.chain.name, index) == expected.rule
    for host, ruleset in enumerate(hosts):
        for table, held in ruleset.tables.items():
            for name, chain in held.chains.items():
                seen_packets, seen_bytes = counters.of_chain(program, host, table, name)
                keys = [(host, table, name, i) for i in range(len(chain.rules))]
                if chain.policy:
                    keys.append((host, table, name, "policy"))
                assert seen_packets.tolist() == [reference.packets[key] for key in keys]
                assert seen_bytes.tolist() == [reference.bytes[key] for key in keys]


@LAWS
@given(SEEDS)
def test_the_machine_agrees_with_the_interpreter_where_packets_do_not_depend_on_each_other(rng):
    addresses = AddressTable()
    hosts = rulesets(rng, stateful=False)
    assert_agrees(rng, hosts, packets(rng, rng.choice([1, 7, 60]), len(hosts), addresses), addresses, 100)


@LAWS
@given(SEEDS, st.sampled_from([None, 1, 3, 100]))
def test_the_machine_agrees_with_the_interpreter_with_nth_and_recent(rng, recent_limit):
    addresses = AddressTable()
    hosts = rulesets(rng, stateful=True)
    assert_agrees(rng, hosts, packets(rng, rng.choice([1, 7, 60]), len(hosts), addresses), addresses, recent_limit)


@LAWS
@given(SEEDS, st.integers(0, 40))
def test_where_a_batch_is_cut_makes_no_difference(rng, cut):
    addresses = AddressTable()
    hosts = rulesets(rng)
    columns = packets(rng, 40, len(hosts), addresses)
    program = compile_program(hosts, addresses, INTERFACES)
    results = []
    for parts in ([columns], [columns.take(slice(0, cut)), columns.take(slice(cut, 40))]):
        counters, state = Counters(program), NetfilterState(3)
        outcomes = [run_chain(program, "nat", "PREROUTING", p, seed=1, state=state, counters=counters) for p in parts]
        results.append((outcomes, [counters.of_rules(h, 0, program.rule_count) for h in range(len(hosts))]))
    for name, whole in results[0][0][0].columns():
        np.testing.assert_array_equal(np.concatenate([getattr(o, name) for o in results[1][0]]), whole)
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_a_batch_longer_than_a_block_is_the_same_as_its_packets_alone():
    rng = random.Random(3)
    addresses = AddressTable()
    hosts = rulesets(rng, stateful=False)
    program = compile_program(hosts, addresses, INTERFACES)
    columns = packets(rng, 40_000, len(hosts), addresses)
    state = NetfilterState()
    whole = run_chain(program, "nat", "PREROUTING", columns, seed=1, state=state, counters=Counters(program))
    rows = np.arange(32_760, 32_780)
    part: PacketColumns = columns.take(rows)
    few = run_chain(program, "nat", "PREROUTING", part, seed=1, state=state, counters=Counters(program))
    for name, column in whole.columns():
        np.testing.assert_array_equal(column[rows], getattr(few, name))
