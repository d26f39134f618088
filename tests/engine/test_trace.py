"""Traces: they agree with the vectorised engine on every packet's fate, and tell what a person asks."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from engine.scenarios import VIP, cluster, nodes, pod, scenarios, service
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from simnet.cluster import Cluster
from simnet.dataplane.path.columns import ConnectionBatch, Header
from simnet.dataplane.path.hooks import HookState
from simnet.dataplane.path.walk import send_reply, send_request
from simnet.engine.simulate import prepare
from simnet.engine.targets import callers_of, targets_of
from simnet.engine.trace import Tracer
from simnet.errors import InputError
from simnet.model.calico import Wiring
from simnet.model.recording import REASONS, VERDICTS

FLOWS = 4000
NAMES = {6: "tcp", 17: "udp", 132: "sctp"}


def vectorised(compiled, origin, source, target, port, protocol, *, flows, seed):
    """What became of `flows` connections of one client to one address, each from its own port: outcome -> count."""
    numbers = np.arange(flows, dtype=np.uint64)
    header = Header(
        np.full(flows, source, np.int32),
        np.full(flows, target, np.int32),
        (1024 + numbers * 13 % 60_000).astype(np.int32),
        np.full(flows, port, np.int32),
        np.full(flows, protocol, np.uint8),
    )
    batch = ConnectionBatch(
        numbers,
        np.zeros(flows, np.int64),
        np.full(flows, origin, np.int32),
        header,
        np.full(flows, 60),
        np.full(flows, 60),
    )
    state = HookState.at_start(compiled.network.program)
    way, visits = send_request(compiled.network, batch, state, seed)
    back = send_reply(compiled.network, batch, way, visits, state, seed)
    text, names = compiled.addresses.text, compiled.place_names
    found: Counter = Counter()
    for row in range(flows):
        delivered = VERDICTS[way.verdict[row]] == "delivered"
        answered = delivered and VERDICTS[back.verdict[row]] == "delivered"
        found[
            VERDICTS[way.verdict[row]],
            REASONS[way.reason[row]],
            names[way.place[row]] if delivered else None,
            text(int(way.header.destination[row])) if delivered else None,
            int(way.header.destination_port[row]) if delivered else None,
            text(int(way.header.source[row])) if delivered else None,
            bool(way.snat[row]),
            (int(way.l3_hops[row]), int(way.links[row]), int(way.ttl[row]), int(way.rules_scanned[row])),
            names[way.dnat_device[row]] if way.dnat_device[row] >= 0 else None,
            answered,
            REASONS[back.reason[row]] if delivered and not answered else "",
            (int(back.l3_hops[row]), int(back.links[row])) if answered else None,
        ] += 1
    return found


def told(outcome):
    """The same key from a trace's outcome."""
    host, _, port = (outcome.endpoint or "").rpartition(":")
    delivered = outcome.verdict == "delivered"
    return (
        outcome.verdict,
        outcome.reason,
        outcome.place if delivered else None,
        host.strip("[]") if delivered else None,
        int(port) if delivered else None,
        outcome.source_seen,
        outcome.masquerade,
        (outcome.hops.l3, outcome.hops.links, outcome.ttl, outcome.rules_scanned),
        outcome.entry_node,
        outcome.answered,
        outcome.reply_reason,
        (outcome.reply_hops.l3, outcome.reply_hops.links) if outcome.reply_hops else None,
    )


def compare(compiled, spec, origin, source, target, port, protocol, *, seed):
    tracer = Tracer(compiled.cluster, spec)
    text = compiled.addresses.text
    place = compiled.place_names[origin]
    sender = f"pod:{place}" if "/" in place else text(source)
    called = text(target)
    called = f"[{called}]:{port}" if ":" in called else f"{called}:{port}"
    trace = tracer.trace(sender, called, protocol=NAMES[protocol], all=True)
    expected: Counter = Counter()
    for outcome in trace.outcomes:
        expected[told(outcome)] += outcome.probability
    assert sum(expected.values()) == 1
    keeps = any(outcome.keeps_choice for outcome in trace.outcomes)  # ECMP by addresses: one pair sees one branch
    counted = Counter(vectorised(compiled, origin, source, target, port, protocol, flows=FLOWS, seed=seed))
    assert set(counted) <= set(expected), (set(counted) - set(expected), set(expected) - set(counted))
    if keeps:
        return
    assert set(counted) == set(expected)
    for key, probability in expected.items():
        share = float(probability)
        sigma = sqrt(FLOWS * share * (1 - share))
        assert abs(counted[key] - FLOWS * share) <= 4 * sigma + 1e-9, (key, counted[key] / FLOWS, share)


@given(scenarios(), st.integers(0, 3), st.integers(0, 3))
@settings(
    max_examples=150, derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate]
)  # four standard errors hold over fixed draws
def test_fates_hops_sources_and_frequencies_are_those_of_the_vectorised_engine(run, client, target):
    run = replace(run, run=replace(run.run, statistic_mode="random"))
    spec = run.cluster
    assume(spec.objects.services[0].session_affinity == "None")  # the engine remembers earlier connections
    try:
        compiled = prepare(run, seed=3)
        targets = targets_of(compiled, run.variant, run.workload.protocol)
        family = 6 if compiled.network.is_ipv6[targets.address[0]] else 4
        callers = callers_of(compiled, run.variant.clients or run.workload.clients, family)
    except InputError:
        assume(False)
    one, at = client % len(callers.place), target % len(targets.address)
    compare(
        compiled, spec, int(callers.place[one]), int(callers.address[one]), int(targets.address[at]),
        int(targets.port[at]), run.workload.protocol, seed=5,
    )  # fmt: skip


def demo(**fields):
    """Three nodes, four pods behind one Service, on all its entries."""
    pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n2"), pod("d", "n3")]
    web = service(type="NodePort", external_ips=(VIP,), **fields)
    advertised = {"service_external_ips": ("203.0.113.0/24",)}
    return Cluster(cluster(nodes(3), pods, [web], wiring=Wiring.S2, calico=advertised))


def node_port(made):
    return made.model.services[0].ports[0].node_port


def test_the_tree_holds_every_way_over_ecmp_and_the_rules_and_sums_to_one():
    made = demo()
    trace = made.trace("198.51.100.10", f"{VIP}:80", all=True)
    assert sum(outcome.probability for outcome in trace.outcomes) == 1
    ways = {(outcome.entry_node, outcome.pod) for outcome in trace.outcomes}
    assert ways == {(node, f"d/{name}") for node in ("n1", "n2", "n3") for name in "abcd"}
    assert [float(outcome.probability) for outcome in trace.outcomes] == pytest.approx([1 / 12] * 12, abs=1e-9)


def test_one_branch_is_one_of_the_tree_and_the_same_for_the_same_seed():
    made = demo()
    whole = {told(each) for each in made.trace("198.51.100.10", f"{VIP}:80", all=True).outcomes}
    drawn, has_draw = [], False
    for seed in range(40):
        (outcome,) = made.trace("198.51.100.10", f"{VIP}:80", seed=seed).outcomes
        assert made.trace("198.51.100.10", f"{VIP}:80", seed=seed).outcomes == (outcome,)
        assert told(outcome) in whole
        drawn.append(outcome.pod)
        has_draw |= any(step.draw is not None for step in outcome.steps)
    assert set(drawn) == {"d/a", "d/b", "d/c", "d/d"}
    assert has_draw


def test_the_answer_undoes_exactly_what_the_request_did():
    made = demo()
    for outcome in made.trace("198.51.100.10:5555", f"10.0.0.11:{node_port(made)}", all=True).outcomes:
        assert outcome.answered
        assert outcome.source_seen == "10.0.0.11"
        assert outcome.masquerade
        sent = next(step for step in outcome.steps if step.action == "send" and step.direction == "request")
        came = [step for step in outcome.steps if step.action == "deliver" and step.direction == "reply"][-1]
        source, _, destination = sent.after.partition(" > ")
        assert came.after == f"{destination} > {source}"
        assert outcome.hops.l3 == outcome.reply_hops.l3


def test_a_node_asked_alone_translates_rejects_or_leaves_a_packet_alone():
    made = demo()
    asked = made.trace("198.51.100.10", f"10.0.0.12:{node_port(made)}", node="n1", all=True)
    assert {outcome.verdict for outcome in asked.outcomes} == {"none"}  # not an address of n1
    asked = made.trace("198.51.100.10", f"10.0.0.11:{node_port(made)}", node="n1", all=True)
    assert {(outcome.verdict, outcome.masquerade) for outcome in asked.outcomes} == {("translated", True)}
    assert {outcome.node for outcome in asked.outcomes} == {"n1", "n2", "n3"}


def test_the_json_form_has_the_documented_keys_and_survives_a_round_trip():
    outcome = demo().trace("pod:d/a", "service:d/web:80", all=True).to_dict()
    assert json.loads(json.dumps(outcome)) == outcome
    documented = {
        "verdict", "reason", "endpoint", "pod", "node", "probability", "masquerade", "source_seen", "hops",
        "reply_hops", "ttl", "steps",
    }  # fmt: skip
    for each in outcome["outcomes"]:
        assert documented <= set(each)
        assert set(each["hops"]) == {"l3", "links"}
        assert {"direction", "box", "action"} <= set(each["steps"][0])


def test_a_loop_ends_by_its_ttl_and_has_no_more_branches_than_choices():
    # the switch sends the whole advertised network to the nodes, which know no port 81 there and send it back
    trace = demo().trace("198.51.100.10", f"{VIP}:81", all=True)
    assert sum(outcome.probability for outcome in trace.outcomes) == 1
    assert {(outcome.verdict, outcome.reason) for outcome in trace.outcomes} == {("lost", "ttl exceeded")}
    assert len(trace.outcomes) == 3
    assert {(outcome.ttl, outcome.hops.l3) for outcome in trace.outcomes} == {(1, 63)}


def test_text_and_html_tell_rule_draw_and_rewrite():
    trace = demo().trace("198.51.100.10", f"{VIP}:80")
    text = str(trace)
    assert "KUBE-SERVICES" in text
    assert "drew" in text
    assert "=>" in text
    assert "reply" in text
    assert "<details open>" in trace._repr_html_()


@pytest.mark.parametrize(
    ("source", "destination", "what"),
    [
        ("pod:d/nobody", "1.2.3.4:80", "a pod of the cluster"),
        ("198.51.100.10", "1.2.3.4", "an address and a port"),
        ("198.51.100.10", "1.2.3.4:99999", "a port from 1 to 65535"),
        ("198.51.100.10", "[fd00::1]:80", "two addresses of one family"),
        ("here", "1.2.3.4:80", "an address, pod:NAMESPACE/NAME"),
        ("127.0.0.1", "1.2.3.4:80", "tells one sender from another"),
    ],
)
def test_a_wrong_end_is_named_with_what_was_expected(source, destination, what):
    with pytest.raises(InputError, match=what):
        demo().trace(source, destination)
