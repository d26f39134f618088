"""What the compiler shares, and what it refuses."""

import pytest

from simnet.dataplane.netfilter.compiler import compile_program
from simnet.dataplane.netfilter.counters import Counters
from simnet.dataplane.netfilter.executor import run_chain
from simnet.dataplane.netfilter.packets import PacketColumns
from simnet.dataplane.netfilter.state import NetfilterState
from simnet.errors import InputError
from simnet.model.addresses import AddressTable
from simnet.model.iptables import ruleset as rs


def nat(*chains, source=""):
    held = {chain.name: chain for chain in chains}
    return rs.Ruleset(rs.Family.IPV4, {"nat": rs.Table("nat", held)}, source)


def accept_or(chain):
    return (rs.Rule((), rs.Jump(chain)), rs.Rule((), rs.Verdict("ACCEPT")))


def test_a_node_that_differs_in_one_chain_costs_that_chain_alone():
    leaf, other = rs.Chain("LEAF"), rs.Chain("OTHER", (rs.Rule((), rs.Verdict("ACCEPT")),))
    top = rs.Chain("PREROUTING", (rs.Rule((), rs.Jump("LEAF")), rs.Rule((), rs.Jump("OTHER"))), "ACCEPT")
    own_leaf = rs.Chain("LEAF", (rs.Rule((), rs.Verdict("DROP")),))
    program = compile_program([nat(leaf, other, top), nat(own_leaf, other, top), nat(leaf, other, top)], AddressTable())
    assert sorted(unit.chain.name for unit in program.units) == ["LEAF", "LEAF", "OTHER", "PREROUTING"]
    assert program.unit(0, "nat", "PREROUTING") is program.unit(1, "nat", "PREROUTING")
    assert program.unit(0, "nat", "LEAF") is program.unit(2, "nat", "LEAF")
    assert program.unit(1, "nat", "LEAF").chain is own_leaf


def test_chains_that_are_equal_but_not_the_same_object_are_compiled_once():
    def host():
        return nat(
            rs.Chain("LEAF", (rs.Rule((), rs.Verdict("DROP")),)), rs.Chain("PREROUTING", accept_or("LEAF"), "ACCEPT")
        )

    program = compile_program([host(), host(), host()], AddressTable())
    assert len(program.units) == 2
    assert program.slot_pc.shape == (0, 3)


def test_chains_that_lead_to_each_other_on_different_nodes_are_no_loop():
    a_first = nat(rs.Chain("PREROUTING", accept_or("A"), "ACCEPT"), rs.Chain("A", accept_or("B")), rs.Chain("B"))
    b_first = nat(rs.Chain("PREROUTING", accept_or("B"), "ACCEPT"), rs.Chain("B", accept_or("A")), rs.Chain("A"))
    program = compile_program([a_first, b_first], AddressTable())
    packets = PacketColumns.of(2, host=[0, 1])
    outcome = run_chain(
        program, "nat", "PREROUTING", packets, seed=0, state=NetfilterState(), counters=Counters(program)
    )
    assert [program.rule(rule)[0].chain.name for rule in outcome.rule.tolist()] == ["A", "B"]
    looping = nat(
        rs.Chain("PREROUTING", accept_or("A"), "ACCEPT"), rs.Chain("A", accept_or("B")), rs.Chain("B", accept_or("A"))
    )
    with pytest.raises(InputError, match="which leads back here"):
        compile_program([a_first, looping], AddressTable())


def test_a_node_without_a_chain_that_the_others_jump_to_is_refused():
    whole = nat(rs.Chain("PREROUTING", accept_or("A"), "ACCEPT"), rs.Chain("A"), source="whole.save")
    part = nat(whole.tables["nat"].chains["PREROUTING"], source="part.save")
    with pytest.raises(InputError, match=r"part\.save.*\n.*a jump to A, which is not in the table"):
        compile_program([whole, part], AddressTable())


def test_every_unknown_match_is_named_with_its_line():
    rules = (
        rs.Rule((rs.OpaqueMatch("set", ("--match-set", "x")),), rs.Verdict("DROP"), line=12),
        rs.Rule((), rs.OpaqueTarget("NOTRACK"), line=13),
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
        "  found:    target NOTRACK\n"
        "  expected: a match or target that simnet models\n"
        "  fix:      remove the rule, or leave it out with --skip-unknown"
    )
    program = compile_program([ruleset], AddressTable(), skip_unknown=True)
    assert [(rule.line, rule.reason) for rule in program.skipped] == [(12, "match set"), (13, "target NOTRACK")]


def test_a_loop_of_jumps_and_a_jump_to_nowhere_are_refused():
    loop = nat(rs.Chain("A", (rs.Rule((), rs.Jump("B")),)), rs.Chain("B", (rs.Rule((), rs.Jump("A")),)))
    with pytest.raises(InputError, match="which leads back here"):
        compile_program([loop], AddressTable())
    with pytest.raises(InputError, match="a jump to GONE, which is not in the table"):
        compile_program([nat(rs.Chain("A", (rs.Rule((), rs.Jump("GONE")),)))], AddressTable())
