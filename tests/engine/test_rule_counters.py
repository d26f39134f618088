"""The counters that a run leaves in the rules, against the flows of the same run and the loads that they add up to."""

from __future__ import annotations

from pathlib import Path

import pytest

import simnet
from simnet.model.iptables.parser import parse_rules
from simnet.model.iptables.ruleset import Dnat, Jump
from simnet.model.recording import Categories

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "nginx-demo.yaml"


@pytest.fixture(scope="module")
def experiment():
    return simnet.load_experiment(EXPERIMENT, settings=("run.duration=2s", "run.warmup=0s", "run.repeat=2"))


def named(column: Categories) -> list[str]:
    return [column.names[code] for code in column.codes.tolist()]


@pytest.mark.parametrize("variant", ["external-ip", "node-port", "cluster-ip"])
@pytest.mark.parametrize("repeat", [0, 1])
def test_nat_counts_each_connection_where_it_was_translated(experiment, variant, repeat):
    planned = next(run for run in experiment.runs if (run.variant, run.repeat) == (variant, repeat))
    flows = simnet.simulate(planned.scenario, seed=planned.seed).tables["flows"]
    entries, pods = named(flows["entry_node"]), named(flows["pod"])
    assert len(entries) > 500
    cluster = simnet.Cluster(planned.scenario.cluster, seed=planned.seed)
    address_of = {pod: addresses[0] for pod, addresses in cluster.pods.items()}
    counted = 0
    for node in cluster.nodes:
        rules = simnet.rules_after_run(experiment, variant, node=node, repeat=repeat)
        expected: dict[str, int] = {}
        for entry, pod in zip(entries, pods, strict=True):
            if entry == node:
                expected[address_of[pod]] = expected.get(address_of[pod], 0) + 1
        found: dict[str, int] = {}
        chains = rules.ruleset.tables["nat"].chains
        for chain in chains.values():
            for rule in chain.rules:
                if isinstance(rule.target, Dnat) and rule.packets:
                    found[rule.target.address] = found.get(rule.target.address, 0) + rule.packets
        assert found == expected
        counted += sum(found.values())
        for name in chains:  # what the jumps to a chain counted is what came in by its first rule, or more
            jumped = sum(
                rule.packets
                for chain in chains.values()
                for rule in chain.rules
                if isinstance(rule.target, Jump) and rule.target.chain == name
            )
            if name.startswith("KUBE-SVC-"):
                assert sum(rule.packets for rule in chains[name].rules if isinstance(rule.target, Jump)) >= jumped
    assert counted == len(entries)


def test_saved_with_counters_it_reads_back_with_them(experiment):
    rules = simnet.rules_after_run(experiment, "external-ip", node="node-1")
    text = rules.to_save(counters=True)
    back = parse_rules(text, file="saved").ruleset
    mine = [rule.packets for chain in back.tables["nat"].chains.values() for rule in chain.rules]
    held = [back.tables["nat"].chains[name].rules for name in rules.ruleset.tables["nat"].chains]
    assert sum(mine) > 0
    assert [
        [(rule.packets, rule.bytes) for rule in chain.rules] for chain in rules.ruleset.tables["nat"].chains.values()
    ] == [[(rule.packets, rule.bytes) for rule in rules] for rules in held]
    assert f" {sum(rule.packets for rule in back.tables['nat'].chains['KUBE-SERVICES'].rules)} " in rules.to_list(
        exact=True, chain="KUBE-SERVICES"
    )


def test_what_is_not_there_is_refused_by_name(experiment):
    with pytest.raises(simnet.InputError, match="one of the variants external-ip"):
        simnet.rules_after_run(experiment, "external", node="node-1")
    with pytest.raises(simnet.InputError, match="repetition from 0 to 1"):
        simnet.rules_after_run(experiment, "external-ip", node="node-1", repeat=2)
    with pytest.raises(simnet.InputError, match="did you mean node-1"):
        simnet.rules_after_run(experiment, "external-ip", node="node1")
