"""The counters of a run, written into a node's rules as `iptables -v` would show them afterwards.

Modelled: what the first packet of each connection and its answer count. That is all that nat ever counts (the kernel
asks nat once per connection). Left out: what later packets of a connection count in filter and mangle.
Source: docs/models/netfilter.md; a real kernel counts connections in nat, not packets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from simnet.dataplane.netfilter.counters import Counters
from simnet.dataplane.path.hooks import HookState
from simnet.engine.network import CompiledCluster
from simnet.engine.simulate import prepare, simulate
from simnet.model.iptables.ruleset import Chain, Family, Rule, Ruleset, Table
from simnet.model.scenario import Scenario


def rules_after(scenario: Scenario, *, seed: int, node: str, family: Family) -> Ruleset:
    """Run the scenario and return the node's rules with the counters that they have then.

    Raises KeyError for a node or family that the cluster does not have; otherwise what `simulate` raises.
    """
    compiled = prepare(scenario, seed=seed)
    held = next(each for each in compiled.cluster.rulesets[node] if each.family is family)
    state = HookState.at_start(compiled.network.program, scenario.run.recent_limit)
    simulate(scenario, seed=seed, compiled=compiled, state=state)
    return with_counters(compiled, state.counters, node, held)


def with_counters(compiled: CompiledCluster, counters: Counters, node: str, ruleset: Ruleset) -> Ruleset:
    """Return a node's rules with packets and bytes of every rule and policy."""
    column = 0 if ruleset.family is Family.IPV4 else 1
    host = int(compiled.network.device_host[compiled.place(node), column])
    tables = {
        table.name: Table(
            table.name,
            {name: _counted(compiled, counters, host, table.name, chain) for name, chain in table.chains.items()},
        )
        for table in ruleset.tables.values()
    }
    return replace(ruleset, tables=tables)


def _counted(compiled: CompiledCluster, counters: Counters, host: int, table: str, chain: Chain) -> Chain:
    program = compiled.network.program
    unit = program.unit(host, table, chain.name)
    if unit is None:
        return chain  # no hook leads there
    packets, octets = counters.of_chain(program, host, table, chain.name)
    rules = tuple(
        replace(rule, packets=int(packets[at]), bytes=int(octets[at]))
        for rule, at in zip(chain.rules, _positions(chain.rules, unit.chain.rules), strict=True)
    )
    if unit.policy_pc < 0:
        return replace(chain, rules=rules)
    return replace(chain, rules=rules, packets=int(packets[-1]), bytes=int(octets[-1]))


def _positions(rules: Sequence[Rule], compiled: Sequence[Rule]) -> Iterator[int]:
    """Where each rule stands among those that ran: the same, or the same with Calico's beside them.

    A statistic rule that counts in place of drawing (`statisticMode: nth`) stands where the drawing one did.
    """
    if len(rules) == len(compiled):
        yield from range(len(rules))
        return
    at = -1
    for rule in rules:
        at = next(number for number in range(at + 1, len(compiled)) if compiled[number] == rule)
        yield at
