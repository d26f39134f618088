"""Nodes that run on their own saved rules: as generated ones while nobody edits them, and each edit has its effect."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from engine.scenarios import cluster, nodes, plain, pod, same_bytes, scenario, scenarios, service
from hypothesis import given, settings
from hypothesis import strategies as st

from simnet.cluster import Cluster
from simnet.engine.materialise import materialise
from simnet.engine.simulate import simulate
from simnet.model.iptables.modelled import left_out_rules
from simnet.model.iptables.parser import parse_rules
from simnet.model.iptables.printer import save_text
from simnet.model.iptables.ruleset import Family
from simnet.model.kube_proxy import KubeProxyConfiguration, KubeProxyHost
from simnet.model.scenario import Entry, SavedRules
from simnet.model.workload import UDP

OUTSIDE = "198.51.100.77"


def with_saved_rules(spec, names, model=None, *, backend="nft", edit=lambda lines: lines):
    """The same cluster, with some nodes on what `iptables-save` and `ip6tables-save` would print there."""
    rulesets = (model or materialise(spec)).rulesets
    changed = []
    for node in spec.nodes:
        if node.name in names:
            saved = []
            for ruleset in rulesets[node.name]:
                lines = save_text(ruleset, backend=backend).splitlines()
                text = "\n".join(edit(lines)) + "\n"
                left_out = left_out_rules(parse_rules(text, file="dump"))
                saved.append(SavedRules(ruleset.family, text, f"{node.name}.save", left_out))
            node = replace(node, saved_rules=tuple(saved))
        changed.append(node)
    return replace(spec, nodes=tuple(changed))


@settings(max_examples=25)
@given(scenarios(), st.data())
def test_a_mixed_cluster_runs_as_the_generated_one_to_the_bit(given_scenario, data):
    spec = given_scenario.cluster
    names = data.draw(st.sets(st.sampled_from([node.name for node in spec.nodes]), min_size=1))
    backend = data.draw(st.sampled_from(["nft", "legacy"]))
    clients = given_scenario.variant.clients or given_scenario.workload.clients
    mixed = with_saved_rules(spec, names, materialise(spec, clients=clients), backend=backend)
    generated = simulate(given_scenario, seed=3)
    saved = simulate(replace(given_scenario, cluster=mixed), seed=3)
    assert same_bytes(generated, saved)


@settings(max_examples=8)
@given(scenarios(), st.data())
def test_shares_traces_and_rules_of_a_mixed_cluster_equal_the_generated_ones(given_scenario, data):
    spec = given_scenario.cluster
    names = data.draw(st.sets(st.sampled_from([node.name for node in spec.nodes]), min_size=1))
    generated, saved = Cluster(spec), Cluster(with_saved_rules(spec, names))
    assert generated.share_rows() == saved.share_rows()
    for node in generated.nodes:
        for ruleset in generated.model.rulesets[node]:
            family = ruleset.family.value
            assert generated.rules(node, family).to_save() == saved.rules(node, family).to_save()
    rows = generated.share_rows()
    for row in rows[:: max(1, len(rows) // 4)]:
        source = OUTSIDE if row.address[0] != "[" else "2001:db8:51:100::77"
        way = {"protocol": row.protocol, "all": True}
        assert generated.trace(source, row.address, **way) == saved.trace(source, row.address, **way)
        node = generated.nodes[0]
        way["node"] = node
        assert generated.trace(source, row.address, **way) == saved.trace(source, row.address, **way)


def three_pods(**fields):
    web = service(type="NodePort", cluster_ip="10.96.0.80", external_ips=("10.0.0.12",))
    # nfacct: left out, so that the dump is one that every host loads
    kube_proxy = KubeProxyConfiguration(cluster_cidr="192.168.0.0/16", host=KubeProxyHost(nfacct_counters=()))
    pods = [pod("a", "n1", pod_ips=("192.168.0.10",)), pod("b", "n2", pod_ips=("192.168.1.10",)),
            pod("c", "n2", pod_ips=("192.168.1.11",))]  # fmt: skip
    return cluster(nodes(2), pods, [web], kube_proxy=kube_proxy, **fields)


def outcome_shares(spec, to="10.0.0.12:80", **way):
    """(verdict, reason, pod) -> exact probability, by the trace."""
    found = {}
    for each in Cluster(spec).trace(OUTSIDE, to, all=True, **way).outcomes:
        key = (each.verdict, each.reason, each.pod)
        found[key] = found.get(key, Fraction(0)) + each.probability
    return found


def row_shares(spec, entry="ExternalIP"):
    """The same by the table of shares, for clients outside."""
    found = {}
    for row in Cluster(spec).share_rows("d/web"):
        if (row.entry, row.client, row.protocol) == (entry, "outside", "tcp"):
            key = (row.verdict, row.reason, row.pod or None)
            found[key] = found.get(key, Fraction(0)) + Fraction(row.exact)
    return found


def run_counts(spec, flows=3000):
    """The same by a run: (verdict, reason, pod) -> share of flows."""
    tables = simulate(scenario(spec, Entry.EXTERNAL_IP, flows=flows), seed=5).tables
    columns = {name: plain(tables["flows"][name]) for name in ("verdict", "reason", "pod")}
    keys = list(zip(columns["verdict"], columns["reason"], (each or None for each in columns["pod"]), strict=True))
    return {key: keys.count(key) / len(keys) for key in set(keys)}


def without_first_endpoint(lines):
    """One rule of the TCP Service's cascade is gone."""
    at = next(i for i, line in enumerate(lines) if line.startswith("-A KUBE-SVC-") and "d/web:tcp ->" in line)
    return lines[:at] + lines[at + 1 :]


def inserted(table, *rules):
    """These rules stand first in their table's chains, as `iptables -I` puts them."""

    def edit(lines):
        commit = lines.index("COMMIT", lines.index(f"*{table}"))
        first = next(i for i in range(lines.index(f"*{table}"), commit + 1) if lines[i][0] in "-C")
        return [*lines[:first], *rules, *lines[first:]]

    return edit


EDITS = {
    "an endpoint's rule is gone": (
        without_first_endpoint,
        # the thresholds of the rules that are left: 1/2, then always
        {("delivered", "", "d/b"): Fraction(1, 2), ("delivered", "", "d/c"): Fraction(1, 2)},
    ),
    "a foreign DNAT comes first": (
        inserted(
            "nat", "-A PREROUTING -d 10.0.0.12/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.168.1.11:8080"
        ),
        {("delivered", "", "d/c"): Fraction(1)},
    ),
    "forwarding to one pod is dropped": (
        inserted("filter", "-A FORWARD -d 192.168.1.10/32 -j DROP"),
        {("delivered", "", "d/a"): None, ("delivered", "", "d/c"): None, ("dropped", "filter drop", None): None},
    ),
    "the port is refused": (
        inserted("filter", "-A FORWARD -p tcp -m tcp --dport 8080 -j REJECT --reject-with tcp-reset"),
        {("rejected", "filter reject", None): Fraction(1)},
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_the_saved_rules_has_its_effect_in_traces_shares_and_runs(name):
    edit, expected = EDITS[name]
    plain_spec = three_pods()
    spec = with_saved_rules(plain_spec, {"n2"}, edit=edit)
    assert outcome_shares(plain_spec).keys() == {("delivered", "", f"d/{each}") for each in "abc"}
    if None in expected.values():  # as many as without the edit, from whose thresholds they come
        before = outcome_shares(plain_spec)
        stopped = ("dropped", "filter drop", None)
        expected = {key: before[key] for key in expected if key != stopped} | {stopped: before["delivered", "", "d/b"]}
    traced, tabled, ran = outcome_shares(spec), row_shares(spec), run_counts(spec)
    assert traced == expected
    assert tabled == expected
    assert ran.keys() == expected.keys()
    for key, share in expected.items():  # 3,000 flows: within 4 sigma
        assert abs(ran[key] - float(share)) <= 4 * np.sqrt(float(share * (1 - share)) / 3000)


def test_the_edit_concerns_only_the_node_that_holds_it():
    spec = with_saved_rules(three_pods(), {"n2"}, edit=without_first_endpoint)
    assert row_shares(spec, "NodePort").keys() == {("delivered", "", f"d/{each}") for each in "abc"}


def test_saved_rules_of_one_family_leave_the_other_generated():
    spec = cluster(nodes(2, dual=True), [pod("a", "n1")], [service(type="NodePort", ip_families=("IPv4", "IPv6"),
                   ip_family_policy="RequireDualStack")])  # fmt: skip
    (four, six) = materialise(spec).rulesets["n1"]
    saved = SavedRules(Family.IPV4, "*nat\nCOMMIT\n*filter\nCOMMIT\n", "n1.save")
    mixed = replace(spec, nodes=(replace(spec.nodes[0], saved_rules=(saved,)), *spec.nodes[1:]))
    (own, generated) = materialise(mixed).rulesets["n1"]
    assert (own.family, generated.family) == (Family.IPV4, Family.IPV6)
    assert save_text(generated) == save_text(six)
    assert save_text(own) != save_text(four)
    port = next(each for each in Cluster(mixed).model.services if each.name == "web").ports[0].node_port
    tracer = Cluster(mixed)
    assert tracer.trace(OUTSIDE, f"10.0.0.11:{port}").outcomes[0].reason == "port closed"
    assert tracer.trace("2001:db8:51:100::77", f"[fd00::b]:{port}").outcomes[0].verdict == "delivered"


def test_saved_rules_without_the_filter_table_translate_and_stop_nothing():
    def nat_only(lines):
        return list(lines[lines.index("*nat") : lines.index("COMMIT", lines.index("*nat")) + 1])

    spec = three_pods()
    assert row_shares(with_saved_rules(spec, {"n1", "n2"}, edit=nat_only)) == row_shares(spec)
    empty = replace(spec, objects=replace(spec.objects, pods=()))
    assert row_shares(empty) == {("rejected", "no endpoints", None): 1}
    assert row_shares(with_saved_rules(empty, {"n1", "n2"}, edit=nat_only)) == {("rejected", "port closed", None): 1}


def test_rules_that_are_left_out_match_no_packet_and_count_as_scanned():
    own = "-A PREROUTING -d 10.0.0.12/32 -m owner --uid-owner 0 -j DROP"
    spec = three_pods()
    skipping = with_saved_rules(spec, {"n2"}, edit=inserted("nat", own))
    assert [rule.rule for rule in skipping.left_out_rules] == [own]
    assert outcome_shares(skipping) == outcome_shares(spec)
    before = simulate(scenario(spec, Entry.EXTERNAL_IP), seed=5).tables["flows"]
    after = simulate(scenario(skipping, Entry.EXTERNAL_IP), seed=5).tables["flows"]
    assert (np.asarray(after["rules_scanned"]) == np.asarray(before["rules_scanned"]) + 1).all()
    traced = Cluster(skipping).trace(OUTSIDE, "10.0.0.12:80", all=True)
    untouched = Cluster(spec).trace(OUTSIDE, "10.0.0.12:80", all=True)
    assert [each.rules_scanned for each in traced.outcomes] == [each.rules_scanned + 1 for each in untouched.outcomes]


@pytest.mark.parametrize("flags", ["--tcp-flags SYN SYN", "--tcp-flags ACK ACK", "--tcp-flags SYN,ACK SYN"])
def test_tcp_flags_are_asked_alike_by_traces_and_runs(flags):
    rule = f"-A PREROUTING -d 10.0.0.12/32 -p tcp -m tcp {flags} -j DNAT --to-destination 192.168.1.11:8080"
    spec = with_saved_rules(three_pods(), {"n2"}, edit=inserted("nat", rule))
    assert outcome_shares(spec).keys() == run_counts(spec).keys()


def test_felix_chains_of_a_dump_stand_for_themselves():
    """A Calico node's own natOutgoing is in its dump; what is no dump of one gets it as generated rules do."""
    spec = three_pods(calico={"nat_outgoing": True})
    calls_out = {"source": "pod:d/a", "destination": "10.0.0.12:9999"}
    assert Cluster(spec).trace(**calls_out, all=True).outcomes[0].masquerade
    assert Cluster(with_saved_rules(spec, {"n1"})).trace(**calls_out, all=True).outcomes[0].masquerade
    felix = with_saved_rules(spec, {"n1"}, edit=inserted("nat", ":cali-POSTROUTING - [0:0]"))
    assert not Cluster(felix).trace(**calls_out, all=True).outcomes[0].masquerade


def test_udp_runs_of_a_mixed_cluster_are_alike_too():
    one = scenario(three_pods(), Entry.NODE_PORT, protocol=UDP)
    other = replace(one, cluster=with_saved_rules(one.cluster, {"n1"}))
    assert same_bytes(simulate(one, seed=1), simulate(other, seed=1))
