"""The facade: rules, shares and names of a cluster."""

from __future__ import annotations

import subprocess
import sys

import pytest
from engine.scenarios import cluster, nodes, pod, service

import simnet
from simnet.engine.rule_check import check_rules
from simnet.engine.rule_explain import explain
from simnet.errors import InputError
from simnet.model.iptables.parser import parse_rules
from simnet.model.iptables.printer import save_text


def made():
    web = service(type="NodePort")
    return simnet.Cluster(cluster(nodes(2), [pod("a", "n1"), pod("b", "n2"), pod("c", "n2")], [web]))


def test_the_rules_of_a_node_print_as_restore_input_and_as_saved_text():
    rules = made().rules("n1")
    assert rules.to_restore().startswith("*nat\n")
    assert save_text(parse_rules(rules.to_save(), file="saved").ruleset) == rules.to_save()
    assert "Chain KUBE-SERVICES" in rules.to_list("nat", "KUBE-SERVICES")


def test_an_unknown_node_or_family_is_named_with_what_there_is():
    with pytest.raises(InputError, match="did you mean n1"):
        made().rules("n11")
    with pytest.raises(InputError, match="ipv4"):
        made().rules("n1", "ipv6")


def test_explained_chances_are_the_kernels_fixed_point_ones_and_sum_to_one():
    by_chain = {}
    for each in explain(made().rules("n1").ruleset):
        by_chain.setdefault(each.chain, []).append(each)
    assert by_chain
    for rules in by_chain.values():
        assert sum(each.unconditional for each in rules) == 1
        assert [float(each.conditional) for each in rules] == [0.33333333348855376, 0.5, 1.0]  # q / 2**31


def test_a_dump_that_is_what_the_objects_ask_for_agrees_and_changes_are_told_by_kind():
    rules = made().rules("n1")
    text = rules.to_save()
    same = check_rules("n1", rules.ruleset, parse_rules(text, file="dump").ruleset)
    assert same.agrees
    assert not same.differences
    lines = text.splitlines()
    gone = next(line for line in lines if line.startswith("-A KUBE-SERVICES") and "cluster IP" in line)
    lines.remove(gone)
    commit = len(lines) - 1 - lines[::-1].index("COMMIT")
    table_of_last = [line for line in lines[:commit] if line.startswith("*")][-1]
    assert table_of_last == "*nat"
    lines[commit:commit] = [
        "-A KUBE-SERVICES -d 10.96.9.9/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ",
        "-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE",
    ]
    check = check_rules("n1", rules.ruleset, parse_rules("\n".join(lines) + "\n", file="dump").ruleset)
    assert [(each.kind, each.rule) for each in check.differences] == [
        ("missing", gone),
        ("stale", "-A KUBE-SERVICES -d 10.96.9.9/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ"),
        ("foreign", "-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE"),
    ]
    assert not check.agrees


def test_the_order_of_services_is_no_difference_but_that_of_endpoints_is():
    two = [service(type="NodePort"), service("other", type="NodePort")]
    rules = simnet.Cluster(cluster(nodes(1), [pod("a", "n1"), pod("b", "n1")], two)).rules("n1")
    lines = rules.to_save().splitlines()
    at = [i for i, line in enumerate(lines) if line.startswith("-A KUBE-SERVICES") and "cluster IP" in line]
    lines[at[0]], lines[at[-1]] = lines[at[-1]], lines[at[0]]
    swapped = check_rules("n1", rules.ruleset, parse_rules("\n".join(lines) + "\n", file="dump").ruleset)
    assert not swapped.differences
    spread = [i for i, line in enumerate(lines) if line.startswith("-A KUBE-SVC-") and "statistic" in line]
    lines[spread[0]], lines[spread[0] + 1] = lines[spread[0] + 1], lines[spread[0]]
    moved = check_rules("n1", rules.ruleset, parse_rules("\n".join(lines) + "\n", file="dump").ruleset)
    assert {each.kind for each in moved.differences} == {"order"}


def test_importing_the_facade_brings_no_pandas_until_a_frame_is_asked_for():
    code = "import sys, simnet; simnet.load_cluster; print('pandas' in sys.modules, 'simpy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False False\n"
