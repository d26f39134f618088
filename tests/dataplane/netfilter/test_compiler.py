"""What the compiler shares, and what it refuses."""

import pytest

from simnet.dataplane.netfilter.compiler import compile_program
from simnet.errors import InputError
from simnet.model.addresses import AddressTable
from simnet.model.iptables import ruleset as rs


def nat(*chains, source=""):
    held = {chain.name: chain for chain in chains}
    return rs.Ruleset(rs.Family.IPV4, {"nat": rs.Table("nat", held)}, source)


def test_a_node_that_differs_in_one_chain_costs_that_chain_and_those_that_lead_to_it():
    leaf, other = rs.Chain("LEAF"), rs.Chain("OTHER", (rs.Rule((), rs.Verdict("ACCEPT")),))
    top = rs.Chain("PREROUTING", (rs.Rule((), rs.Jump("LEAF")), rs.Rule((), rs.Jump("OTHER"))), "ACCEPT")
    own_leaf = rs.Chain("LEAF", (rs.Rule((), rs.Verdict("DROP")),))
    program = compile_program([nat(leaf, other, top), nat(own_leaf, other, top), nat(leaf, other, top)], AddressTable())
    names = [unit.chain.name for unit in program.units]
    assert sorted(names) == ["LEAF", "LEAF", "OTHER", "PREROUTING", "PREROUTING"]
    first, second, third = (program.unit(host, "nat", "PREROUTING") for host in range(3))
    assert first is third
    assert first is not second


def test_every_unknown_match_is_named_with_its_line():
    rules = (
        rs.Rule((rs.OpaqueMatch("set", ("--match-set", "x")),), rs.Verdict("DROP"), line=12),
        rs.Rule((), rs.OpaqueTarget("CONNMARK"), line=13),
        rs.Rule((), rs.OpaqueTarget("LOG"), line=14),
    )
    ruleset = nat(rs.Chain("PREROUTING", rules, "ACCEPT"), source="node-a.save")
    with pytest.raises(InputError) as raised:
        compile_program([ruleset], AddressTable())
    assert str(raised.value) == (
        "node-a.save:12: nat PREROUTING rule 1\n"
        "  found:    match set\n"
        "  expected: a match or target that simnet models\n"
        "  fix:      remove the rule, or leave it out with --skip-unknown\n"
        "node-a.save:13: nat PREROUTING rule 2\n"
        "  found:    target CONNMARK\n"
        "  expected: a match or target that simnet models\n"
        "  fix:      remove the rule, or leave it out with --skip-unknown"
    )
    program = compile_program([ruleset], AddressTable(), skip_unknown=True)
    assert [(rule.line, rule.reason) for rule in program.skipped] == [(12, "match set"), (13, "target CONNMARK")]


def test_a_loop_of_jumps_and_a_jump_to_nowhere_are_refused():
    loop = nat(rs.Chain("A", (rs.Rule((), rs.Jump("B")),)), rs.Chain("B", (rs.Rule((), rs.Jump("A")),)))
    with pytest.raises(InputError, match="which leads back here"):
        compile_program([loop], AddressTable())
    with pytest.raises(InputError, match="a jump to GONE, which is not in the table"):
        compile_program([nat(rs.Chain("A", (rs.Rule((), rs.Jump("GONE")),)))], AddressTable())
