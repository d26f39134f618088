"""The function that a newcomer reads first: one scenario, one seed, one recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path.hooks import HookState
from simnet.engine.bgp_processes import run_control_plane
from simnet.engine.changing import ChangingSender
from simnet.engine.closed_run import ClosedRun
from simnet.engine.connections import Sender, Sent
from simnet.engine.failures import random_events
from simnet.engine.materialise import materialise
from simnet.engine.network import CompiledCluster, compile_cluster
from simnet.engine.processes import Timeline, client_population
from simnet.engine.queued_run import QueuedRun
from simnet.engine.recorder import Recorder
from simnet.engine.replacements import with_replacements
from simnet.engine.shares import expected_shares
from simnet.engine.sinks import PacketSink
from simnet.engine.targets import callers_of, service_of, service_port, targets_of
from simnet.errors import InputError, Position, Problem
from simnet.model.cluster import Cluster
from simnet.model.events import Event
from simnet.model.flows import FlowBatch
from simnet.model.history import TableHistory
from simnet.model.recording import Recording
from simnet.model.scenario import Scenario
from simnet.model.workload import ClosedLoop
from simnet.workload import generation

PACKETS_AT_ONCE = 1 << 20  # in a window of flows, about, where packets wait in queues


def simulate(
    scenario: Scenario,
    *,
    seed: int,
    sink: PacketSink | None = None,
    compiled: CompiledCluster | None = None,
    progress: Callable[[int], None] = lambda now_ps: None,
    state: HookState | None = None,
) -> Recording:
    """Run a scenario; the same scenario and seed give the same recording, bit for bit.

    Parameters
    ----------
    sink : takes the packet rows of each window, where packets are recorded
    compiled : the cluster made ready before; None: made here
    progress : told the simulated time, in picoseconds, after each window
    state : what rules remember and count, advanced in place; None: as nobody has asked any rule before

    Raises InputError where the cluster cannot be made or offers nothing to call, ModelError naming the time and the
    place where a model leaves its range.
    """
    if compiled is None:
        compiled = prepare(scenario, seed=seed)
    variant, workload = scenario.variant, scenario.workload
    targets = targets_of(compiled, variant, workload.protocol)
    family = 6 if compiled.network.is_ipv6[targets.address[0]] else 4
    callers = callers_of(compiled, variant.clients or workload.clients, family)
    try:
        generator = generation.generator(workload)
    except ValueError as error:
        raise InputError([_undrawable(error)]) from None
    queues = QueuedRun(compiled, scenario, generator, seed, sink) if scenario.has_queues else None
    candidates = _candidates(compiled, scenario)
    recorder = Recorder(compiled, scenario, callers, targets, candidates, None if queues else sink, queues)
    if state is None:
        state = HookState.at_start(compiled.network.program, scenario.run.recent_limit)
    has_replies = workload.shape.reply_size_bytes is not None
    shares = expected_shares(compiled, variant, targets, callers, generator.demand)
    if isinstance(workload.arrivals, ClosedLoop):
        assert queues is not None
        sender = Sender(compiled, callers, targets, state, seed, has_replies=has_replies)
        closed = ClosedRun(scenario, generator, sender, queues, recorder, seed)
        closed.run(progress)
        return closed.amended(recorder.finish(shares))
    timeline: Timeline[FlowBatch] = Timeline()
    run = scenario.run
    if queues is not None:  # every packet of a window is held until its time comes
        flows_at_once = max(1, PACKETS_AT_ONCE // generation.packets_per_flow(generator))
        run = replace(run, window_flows=min(run.window_flows, flows_at_once))
    timeline.env.process(
        client_population(timeline.env, generator, run, variant.choice, targets, seed, timeline.hand_on)
    )
    sending = Sender if compiled.network.changes is None else ChangingSender
    sender = sending(compiled, callers, targets, state, seed, has_replies=has_replies)

    def record(connections: Iterator[Sent]) -> None:
        for sent in connections:
            recorder.add(*sent)
            if queues is not None:
                queues.add(sent)

    for flows in timeline.windows():
        packets = generation.packets_of(generator, seed, flows)
        recorder.expect(len(packets))
        record(sender.send(flows, packets))
        now_ps = int(flows.start_ps[-1])
        if queues is not None:
            queues.advance(min(now_ps, sender.settled_until_ps))
        progress(now_ps)
    record(sender.finish())
    if queues is not None:
        queues.finish()
    return recorder.finish(shares)


def prepare(scenario: Scenario, *, seed: int) -> CompiledCluster:
    """Materialise and compile a scenario's cluster: everything that stays the same while it runs."""
    cluster = cluster_of(scenario, seed=seed)
    return compile_cluster(
        cluster, scenario.cluster, seed=seed, statistic_mode=scenario.run.statistic_mode,
        history=history_of(scenario, cluster, seed=seed),
    )  # fmt: skip


def cluster_of(scenario: Scenario, *, seed: int) -> Cluster:
    """Return a scenario's cluster as a run begins, with its clients and with the pods that its events start."""
    clients = scenario.variant.clients or scenario.workload.clients
    return materialise(with_replacements(scenario, seed=seed), clients=clients, seed=seed)


def history_of(scenario: Scenario, cluster: Cluster, *, seed: int) -> TableHistory | None:
    """Return how the tables change while the scenario runs; None: they stay as they are."""
    events = events_of(scenario, cluster, seed=seed)
    if not events:
        return None
    return run_control_plane(cluster, scenario.cluster, events, until_ps=scenario.run.duration_ps, seed=seed)


def events_of(scenario: Scenario, cluster: Cluster, *, seed: int) -> list[Event]:
    """Return what happens in a run, scripted and at random, in order of time."""
    events = (*scenario.events, *random_events(scenario.failures, cluster, scenario.run.duration_ps, seed))
    return sorted(events, key=lambda event: event.at_ps)


def _undrawable(error: ValueError) -> Problem:
    return Problem(Position(""), "workload.flows", str(error), "a law that can be drawn from", "change that parameter")


def _candidates(compiled: CompiledCluster, scenario: Scenario) -> NDArray[np.int32]:
    """The places of the pods that stand behind the called port and could be chosen: ready, or serving at their end."""
    cluster = compiled.cluster
    service = service_of(cluster, scenario.variant)
    port = service_port(service, scenario.variant, scenario.workload.protocol)
    numbers = {name: number for number, name in enumerate(compiled.place_names)}
    by_address = {address: pod.key for pod in cluster.pods for address in pod.addresses if not pod.host_network}
    found: set[int] = set()
    for each in cluster.endpoint_slices:
        if (each.namespace, each.service_name) != (service.namespace, service.name):
            continue
        if not any((other.name or "", other.protocol) == (port.name, port.protocol) for other in each.ports):
            continue
        for endpoint in each.endpoints:
            reference = endpoint.target_ref
            key = f"{reference.namespace or each.namespace}/{reference.name}" if reference else ""
            name = key if key in numbers else by_address.get(endpoint.addresses[0], "")
            if name in numbers and (endpoint.conditions.ready is not False or endpoint.conditions.serving):
                found.add(numbers[name])
    return np.array(sorted(found), dtype=np.int32)
