"""The engine against the plain event-by-event simulation: every packet, every flow, every load, exactly."""

from __future__ import annotations

import pytest
from engine.scenarios import MS, S, cluster, nodes, plain, pod, scenario, scenarios, service
from engine.test_laws import called_from_near_and_far
from hypothesis import HealthCheck, example, given, settings
from reference.simulation import Simulation

from simnet.engine.network import compile_cluster
from simnet.engine.simulate import prepare, simulate
from simnet.engine.targets import callers_of, targets_of
from simnet.errors import InputError
from simnet.model.calico import FabricSettings, Wiring
from simnet.model.kube_proxy import KubeProxyConfiguration, KubeProxyIPTablesConfiguration
from simnet.model.recording import CALLS, FLOWS, PACKETS
from simnet.model.scenario import Entry
from simnet.model.workload import (
    UDP,
    ClientOrigin,
    ClientPopulation,
    Constant,
    Deterministic,
    Empirical,
    EntryChoice,
    EntryChoiceKind,
    FlowShape,
)
from simnet.workload import generation

SEED = 7


def reference_run(scenario, compiled, seed, history=None):
    """The event-by-event run of a scenario."""
    targets = targets_of(compiled, scenario.variant, scenario.workload.protocol)
    family = 6 if compiled.network.is_ipv6[targets.address[0]] else 4
    callers = callers_of(compiled, scenario.workload.clients, family)
    called = [
        (compiled.addresses.text(address), port)
        for address, port in zip(targets.address.tolist(), targets.port.tolist(), strict=True)
    ]
    who = [
        (name, compiled.place_names[place], compiled.addresses.text(address))
        for name, place, address in zip(callers.names, callers.place.tolist(), callers.address.tolist(), strict=True)
    ]
    generator = generation.generator(scenario.workload)
    return Simulation(compiled.cluster, scenario, seed, who, called, history).run(
        generator, scenario.variant.choice, targets.fixed
    )


def engine_run(scenario, compiled, seed):
    """The engine's recording, and the rows of its packets table."""
    rows = []
    recording = simulate(
        scenario, seed=seed, compiled=compiled,
        sink=lambda columns: rows.extend(zip(*(plain(columns[column.name]) for column in PACKETS), strict=True)),
    )  # fmt: skip
    return recording, rows


def assert_agreement(scenario, seed=SEED, make_history=None):
    """Both simulations say the same of every packet; `make_history` of the cluster, where its tables change."""
    history = None
    try:
        compiled = prepare(scenario, seed=seed)
        if make_history is not None:
            history = make_history(compiled.cluster)
            mode = scenario.run.statistic_mode
            compiled = compile_cluster(
                compiled.cluster, scenario.cluster, seed=seed, statistic_mode=mode, history=history
            )
        recording, packets = engine_run(scenario, compiled, seed)
    except InputError:  # nothing to call, or no client of that family: refused, and so not run
        return
    reference = reference_run(scenario, compiled, seed, history)
    names = [column.name for column in FLOWS]
    flows = zip(*(plain(recording.tables["flows"][name]) for name in names), strict=True)
    expected = [dict(row) for row in reference.flow_rows()]
    for got, wanted in zip(flows, expected, strict=True):
        found = dict(zip(names, got, strict=True))
        differing = {name: (found[name], wanted[name]) for name in names if found[name] != wanted[name]}
        assert not differing, f"flow {wanted['flow_id']}, (engine, reference): {differing}"
    wanted_packets = [tuple(row[column.name] for column in PACKETS) for row in reference.packet_rows()]
    assert sorted(packets) == sorted(wanted_packets)
    if reference.closed_loop:
        calls = recording.tables["calls"]
        found = list(zip(*(plain(calls[column.name]) for column in CALLS), strict=True))
        assert found == [tuple(row[column.name] for column in CALLS) for row in reference.closed_loop.call_rows()]
    load = recording.tables["load"]
    keys = zip(plain(load["where"]), plain(load["name"]), strict=True)
    counts = zip(plain(load["connections"]), plain(load["packets"]), plain(load["bytes"]), strict=True)
    assert {key: count for key, count in zip(keys, counts, strict=True) if any(count)} == reference.load_rows()
    hops = recording.tables["hops"]
    hop_keys = zip(plain(hops["direction"]), plain(hops["l3_hops"]), plain(hops["links"]), strict=True)
    hop_counts = ([a, b] for a, b in zip(plain(hops["flows"]), plain(hops["packets"]), strict=True))
    assert dict(zip(hop_keys, hop_counts, strict=True)) == dict(reference.hops)
    assert {name: count for name, count in recording.totals.items() if count} == dict(reference.totals)


def a_reply_that_loops():
    """Every node announces every block: the switch sends some replies back to the node that they came from."""
    web = service(type="NodePort", ip_families=("IPv6",))
    kube_proxy = KubeProxyConfiguration(
        cluster_cidr="192.168.0.0/16,fd10::/64", iptables=KubeProxyIPTablesConfiguration(masquerade_all=True)
    )
    spec = cluster(
        nodes(3, family=6), [pod("p0", "n1")], [web], wiring=Wiring.S3, kube_proxy=kube_proxy,
        fabric=FabricSettings(ecmp_hash="l3"), calico={"nat_outgoing": False},
    )  # fmt: skip
    shape = FlowShape(Constant(5), Constant(1000), Constant(50 * MS), Constant(60))
    clients = ClientPopulation(1, ClientOrigin.PODS)
    return scenario(
        spec, Entry.NODE_PORT, flows=200, protocol=UDP, clients=clients, shape=shape, arrivals=Deterministic(37.3)
    )


def an_answer_that_meets_the_second_entry_of_its_node():
    """A pod on n1 calls n2, which sends it back to a process of n1: n1 holds an entry of the call as made and one of
    the call as n2 translated it. The answer meets the second, so the first is not renewed and the flow begins anew.
    """
    web = service(type="NodePort", external_traffic_policy="Local")
    spec = cluster(
        nodes(2), [pod("caller", "n1", ready=False), pod("host", "n1", host_network=True)], [web],
        calico={"nat_outgoing": False},
    )  # fmt: skip
    pauses = Empirical((5 * S // 2, 31 * S), (2, 1))
    return scenario(
        spec, Entry.NODE_PORT, protocol=UDP, choice=EntryChoice(EntryChoiceKind.FIXED, "n2"),
        clients=ClientPopulation(1, ClientOrigin.PODS, ("d/caller",)),
        shape=FlowShape(Constant(8), Constant(200), pauses, Constant(200)), arrivals=Deterministic(50.0),
        duration_ps=S // 2,
    )  # fmt: skip


def test_an_answer_renews_the_entry_that_it_meets_and_no_other_at_the_same_node():
    scenario = an_answer_that_meets_the_second_entry_of_its_node()
    assert_agreement(scenario)
    recording = simulate(scenario, seed=SEED)
    # An entry that answers do not renew lives 30 s, however old: every pause of 31 s begins a connection.
    assert recording.tables["flows"]["connections"].max() > 1


@given(scenarios())
@example(a_reply_that_loops())
@example(called_from_near_and_far(True, "random"))
@example(called_from_near_and_far(False, "nth"))
@example(called_from_near_and_far(True, "nth", UDP))
@settings(max_examples=60)
def test_engine_and_event_by_event_simulation_agree_on_every_packet(scenario):
    assert_agreement(scenario)


@pytest.mark.slow
@given(scenarios())
@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow])
def test_engine_and_event_by_event_simulation_agree_on_every_packet_of_many_scenarios(scenario):
    assert_agreement(scenario)
