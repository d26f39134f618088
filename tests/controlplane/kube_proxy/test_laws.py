"""What holds for the rules of every cluster."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from controlplane.kube_proxy.clusters import CLUSTER_CIDR, RandomCluster, clusters
from hypothesis import given
from hypothesis import strategies as st

from simnet.controlplane.kube_proxy import RuleGenerator, restore_text
from simnet.controlplane.kube_proxy.service_rules import one_of
from simnet.model.iptables.parser import parse_save
from simnet.model.iptables.printer import save_text
from simnet.model.iptables.ruleset import Chain, Dnat, Jump, Rule, StatisticRandom

OWN = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-")


@given(clusters())
def test_every_jump_has_its_chain_and_every_chain_of_a_service_is_jumped_to(cluster):
    for ruleset in cluster.rulesets():
        for table in ruleset.tables.values():
            targets = {
                rule.target.chain
                for chain in table.chains.values()
                for rule in chain.rules
                if isinstance(rule.target, Jump)
            }
            assert targets <= set(table.chains)
            owned = {name for name in table.chains if name.startswith(OWN)}
            # A Local Service's SVC chain is for pods and the node; without local endpoints, policy Local on both sides
            # and no detector, kube-proxy writes chains that nothing enters, so only endpoint chains are always entered.
            assert {name for name in owned if name.startswith("KUBE-SEP-")} <= targets


@given(clusters(), st.data())
def test_the_order_in_which_objects_are_read_makes_no_difference(cluster, data):
    shuffled = replace(
        cluster,
        services=tuple(data.draw(st.permutations(cluster.services))),
        endpoint_slices=tuple(data.draw(st.permutations(cluster.endpoint_slices))),
    )
    for before, after in zip(cluster.rulesets(), shuffled.rulesets(), strict=True):
        assert before == after
        assert restore_text(before) == restore_text(after)


@given(clusters(), st.data())
def test_the_order_in_which_nodes_are_asked_makes_no_difference(cluster, data):
    generator = cluster.generator()
    together = {node.name: generator.for_node(node) for node in data.draw(st.permutations(cluster.nodes))}
    for node in cluster.nodes:
        assert restore_text(together[node.name]) == restore_text(cluster.generator().for_node(node))


@given(clusters())
def test_adding_and_removing_a_service_leaves_what_was_there(cluster):
    if not cluster.services:
        return
    gone = cluster.services[-1]
    without = replace(cluster, services=cluster.services[:-1])
    port_names = {port.name for port in cluster.generator().service_ports if port.service == gone.name}
    chains = _chain_names(cluster) - _chain_names(without)
    for before, after in zip(cluster.rulesets(), without.rulesets(), strict=True):
        for table in before.tables.values():
            for chain in table.chains.values():
                if chain.name in chains:
                    continue
                kept = tuple(rule for rule in chain.rules if _service_of(rule) not in port_names)
                held = after.chain(table.name, chain.name)
                assert held is not None
                assert held.rules == kept


@given(clusters())
def test_restore_input_and_saved_text_say_the_same(cluster):
    for ruleset in cluster.rulesets():
        parsed = parse_save(restore_text(ruleset), file="rules", family=cluster.family)
        assert not parsed.not_understood
        assert save_text(parsed.ruleset) == save_text(ruleset)


@given(clusters())
def test_each_endpoint_of_a_spread_gets_an_equal_share_within_the_kernels_rounding(cluster):
    for ruleset in cluster.rulesets():
        for chain in ruleset.tables["nat"].chains.values():
            if chain.name.startswith(("KUBE-SVC-", "KUBE-SVL-")):
                shares = _shares(chain)
                assert all(abs(share - 1 / len(shares)) < 2**-31 * len(shares) for share in shares)


def test_a_spread_over_any_number_of_endpoints_gives_each_an_equal_share():
    # Ten decimals move a probability by 5e-11, a quarter of the 2**-32 by which 31 bits do.
    bound = 2**-32 + 0.5e-10
    for count in (2, 3, 5, 10, 100, 1000):
        left = 1.0
        for i in range(count):
            probability = one_of(count - i).threshold / 2**31 if i < count - 1 else 1.0
            assert abs(probability - 1 / (count - i)) <= bound
            share, left = left * probability, left * (1 - probability)
            assert abs(share - 1 / count) <= bound * (i + 1)


@given(clusters())
def test_dnat_leads_to_endpoints_that_may_serve(cluster):
    usable = {
        ip_address(address)
        for held in cluster.endpoint_slices
        for endpoint in held.endpoints
        for address in endpoint.addresses
        if endpoint.conditions.ready is not False
        or (endpoint.conditions.serving is not False and endpoint.conditions.terminating)
    }
    for ruleset in cluster.rulesets():
        for chain in ruleset.tables["nat"].chains.values():
            for rule in chain.rules:
                if isinstance(rule.target, Dnat):
                    assert ip_address(rule.target.address) in usable


@given(clusters())
def test_the_families_of_a_dual_stack_cluster_do_not_see_each_other(cluster):
    other = next(family for family in CLUSTER_CIDR if family is not cluster.family)
    generator = RuleGenerator(cluster.services, cluster.endpoint_slices, cluster.configuration, other)
    assert generator.service_ports == ()
    assert not [name for name in generator.for_node(cluster.nodes[0]).tables["nat"].chains if name.startswith(OWN)]


def _chain_names(cluster: RandomCluster) -> set[str]:
    return {name for ruleset in cluster.rulesets() for table in ruleset.tables.values() for name in table.chains}


def _service_of(rule: Rule) -> str:
    return (rule.comment or "").split(" ")[0]


def _shares(chain: Chain) -> list[float]:
    spread = [
        rule
        for rule in chain.rules
        if isinstance(rule.target, Jump)
        and rule.target.chain.startswith("KUBE-SEP-")
        and "recent" not in repr(rule.matches).lower()
    ]
    left, shares = 1.0, []
    for rule in spread:
        random = next((match for match in rule.matches if isinstance(match, StatisticRandom)), None)
        probability = random.threshold / 2**31 if random else 1.0
        shares.append(left * probability)
        left *= 1 - probability
    assert not spread or left == 0
    return shares
