"""The workload as a loop over flows and packets: slow, and meant to be obviously right.

Random bits are mixed in Python's integers. Only the scale of a law and exact_math's functions, which have
tests of their own, are taken from simnet. Times are whole picoseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from simnet import exact_math
from simnet.model.workload import (
    Constant,
    Deterministic,
    Distribution,
    Empirical,
    EntryChoice,
    EntryChoiceKind,
    Exponential,
    KeepAlive,
    Lognormal,
    Pareto,
    PeriodKind,
    Poisson,
    Trace,
    Uniform,
    Workload,
)
from simnet.random_streams import stream_key
from simnet.workload.distributions import Law
from simnet.workload.generation import Generator

MASK = 2**64 - 1


def mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def bits(seed: int, purpose: str, flow: int, draw: int = 0) -> int:
    return mix((mix(int(stream_key(seed, purpose)) ^ flow) + draw * 0x9E3779B97F4A7C15) & MASK)


def uniform(seed: int, purpose: str, flow: int, draw: int = 0) -> float:
    return (bits(seed, purpose, flow, draw) >> 11) * 2.0**-53


def open_uniform(seed: int, purpose: str, flow: int, draw: int = 0) -> float:
    return ((bits(seed, purpose, flow, draw) >> 12) + 0.5) * 2.0**-52


def value_of(law: Law, u: float) -> float:
    """The law's quantile at u, clamped to its range."""
    distribution: Distribution = law.distribution
    if isinstance(distribution, Constant):
        return float(distribution.value)
    if isinstance(distribution, Uniform):
        return float(distribution.low + math.floor(u * (distribution.high - distribution.low + 1)))
    if isinstance(distribution, Empirical):
        passed = 0.0
        total = 0.0
        for weight in distribution.weights:
            total += weight
        point = u * total
        for value, weight in zip(distribution.values, distribution.weights, strict=True):
            passed += weight
            if point < passed:
                return float(value)
        raise AssertionError("no value was chosen")
    if isinstance(distribution, Exponential):
        number = float(exact_math.log(1.0 - u)) * -law.scale
    elif isinstance(distribution, Lognormal):
        number = float(exact_math.exp(float(exact_math.normal_quantile(u)) * distribution.sigma)) * law.scale
    else:
        assert isinstance(distribution, Pareto)
        tail = 1.0 - u
        if distribution.maximum is not None:
            beyond = float(exact_math.power(law.scale / distribution.maximum, distribution.alpha))
            tail = 1.0 - u * (1.0 - beyond)
        number = float(exact_math.power(tail, -1.0 / distribution.alpha)) * law.scale
        if distribution.maximum is not None:
            number = min(number, distribution.maximum)
    return min(max(number, law.lower), law.upper)


def whole_number(law: Law, seed: int, purpose: str, flow: int, draw: int) -> int:
    value = value_of(law, open_uniform(seed, purpose, flow, draw))
    if isinstance(law.distribution, Constant | Uniform | Empirical):
        return int(value)
    whole = math.floor(value)
    return whole + (uniform(seed, f"{purpose}/rounding", flow, draw) < value - whole)


def exponential_ps(seed: int, purpose: str, flow: int, draw: int, mean_ps: float) -> int:
    return round(float(exact_math.log(1.0 - uniform(seed, purpose, flow, draw))) * -mean_ps)


@dataclass
class Connection:
    """One connection of a pool, by slot and by what its first request is the how-manieth of the slot."""

    start_ps: int
    slot: int
    first_request: int
    requests: int


def mean_gap(law: Law) -> float:
    distribution = law.distribution
    if isinstance(distribution, Constant):
        return float(distribution.value)
    if isinstance(distribution, Uniform):
        return (distribution.low + distribution.high) / 2
    if isinstance(distribution, Empirical):
        return sum(v * w for v, w in zip(distribution.values, distribution.weights, strict=True)) / sum(
            distribution.weights
        )
    return distribution.mean


def pooled_connections(workload: Workload, gap: Law, seed: int) -> list[Connection]:
    """Each slot sends its requests one by one, and opens a connection whenever the one it has will not do."""
    pool = workload.arrivals
    assert isinstance(pool, KeepAlive)
    opened = []
    for slot in range(workload.clients.count * pool.connections_per_client):
        now_ps = int(uniform(seed, "workload/first-request", slot) * mean_gap(gap))
        request, connection = 0, None
        while now_ps < pool.until_ps:
            if (
                connection is None
                or connection.requests == pool.requests_per_connection
                or (pool.max_age_ps is not None and now_ps - connection.start_ps >= pool.max_age_ps)
            ):
                connection = Connection(now_ps, slot, request, 0)
                opened.append(connection)
            connection.requests += 1
            request += 1
            now_ps += round(value_of(gap, open_uniform(seed, "workload/gap", slot, request)))
    return sorted(opened, key=lambda each: (each.start_ps, each.slot, each.first_request))


@dataclass
class Flow:
    flow_id: int
    start_ps: int
    client: int
    source_port: int
    target: int
    packet_count: int
    first_packet: int
    packets: list[tuple[int, int, int]] = field(default_factory=list)  # (arrival_ps, size, reply size)


def start_times(workload: Workload, seed: int, until_ps: int) -> list[int]:
    arrivals = workload.arrivals
    if isinstance(arrivals, Trace):
        return [int(start) for start in arrivals.start_ps if start < until_ps]
    starts: list[int] = []
    if isinstance(arrivals, Deterministic):
        period_ps = 1e12 / arrivals.rate_hz
        while round(len(starts) * period_ps) < until_ps:
            starts.append(round(len(starts) * period_ps))
        return starts
    mean_ps = 1e12 / arrivals.rate_hz
    now_ps = 0
    if isinstance(arrivals, Poisson):
        while True:
            now_ps += exponential_ps(seed, "workload/arrivals", len(starts), 0, mean_ps)
            if now_ps >= until_ps:
                return starts
            starts.append(now_ps)

    def period(number: int) -> tuple[int, int]:
        if arrivals.kind is PeriodKind.CONSTANT:
            return arrivals.on_ps, arrivals.off_ps
        on_ps = exponential_ps(seed, "workload/on-off", number, 0, float(arrivals.on_ps))
        return max(on_ps, 1), exponential_ps(seed, "workload/on-off", number, 1, float(arrivals.off_ps))

    number = 0
    on_left_ps, off_ps = period(0)
    while True:
        gap_ps = exponential_ps(seed, "workload/arrivals", len(starts), 0, mean_ps)
        while gap_ps >= on_left_ps:  # the rest of the gap is waited for after the silence
            gap_ps -= on_left_ps
            now_ps += on_left_ps + off_ps
            number += 1
            on_left_ps, off_ps = period(number)
            if now_ps >= until_ps:
                return starts
        now_ps += gap_ps
        on_left_ps -= gap_ps
        if now_ps >= until_ps:
            return starts
        starts.append(now_ps)


def target_of(
    choice: EntryChoice, number: int, client: int, seed: int, target_count: int, fixed_target: int | None
) -> int:
    """Which target a flow calls."""
    if choice.kind is EntryChoiceKind.RANDOM:
        return int(uniform(seed, "workload/target", number) * target_count)
    if choice.kind is EntryChoiceKind.ROUND_ROBIN:
        return number % target_count
    if choice.kind is EntryChoiceKind.PER_CLIENT:
        return int(uniform(seed, "workload/target-of-client", client) * target_count)
    assert fixed_target is not None
    return fixed_target


def generate(
    generator: Generator,
    seed: int,
    *,
    until_ps: int,
    choice: EntryChoice,
    target_count: int,
    fixed_target: int | None = None,
) -> list[Flow]:
    """All flows that start before `until_ps`, each with all its packets."""
    workload = generator.workload
    population = workload.clients
    trace = workload.arrivals if isinstance(workload.arrivals, Trace) else None
    exponent = population.skew.exponent if population.skew else 0.0
    weights = [float(exact_math.power(k + 1.0, -exponent)) for k in range(population.count)]
    total = 0.0
    for weight in weights:
        total += weight
    started = [0] * population.count
    flows: list[Flow] = []
    next_packet = 0
    pool = workload.arrivals if isinstance(workload.arrivals, KeepAlive) else None
    connections = []
    if pool is not None:
        connections = [each for each in pooled_connections(workload, generator.gap, seed) if each.start_ps < until_ps]
        starts = [each.start_ps for each in connections]
    else:
        starts = start_times(workload, seed, until_ps)
    for flow_id, start_ps in enumerate(starts):
        stream, first_draw = flow_id, 0
        if pool is not None:
            stream, first_draw = connections[flow_id].slot, connections[flow_id].first_request
            client = stream // pool.connections_per_client
        elif trace is not None and trace.client is not None:
            client = int(trace.client[flow_id])
        elif population.skew is None:
            client = int(uniform(seed, "workload/client", flow_id) * population.count)
        else:
            point, passed, client = uniform(seed, "workload/client", flow_id) * total, 0.0, 0
            for client, weight in enumerate(weights):  # noqa: B007
                passed += weight
                if point < passed:
                    break

        first_port = bits(seed, "workload/first-port", client) % 28232
        source_port = 32768 + (first_port + started[client]) % 28232
        started[client] += 1

        target = target_of(choice, flow_id, client, seed, target_count, fixed_target)
        if pool is not None:
            packet_count = connections[flow_id].requests
        elif trace is not None and trace.packet_count is not None:
            packet_count = int(trace.packet_count[flow_id])
        else:
            packet_count = whole_number(generator.packet_count, seed, "workload/packet-count", flow_id, 0)
        flow = Flow(flow_id, start_ps, client, source_port, target, packet_count, next_packet)
        next_packet += packet_count
        now_ps = start_ps
        for number in range(packet_count):
            if number > 0:
                now_ps += round(
                    value_of(generator.gap, open_uniform(seed, "workload/gap", stream, first_draw + number))
                )
            if trace is not None and trace.packet_size_bytes is not None:
                size = int(trace.packet_size_bytes[flow_id])
            else:
                size = whole_number(generator.packet_size, seed, "workload/packet-size", stream, first_draw + number)
            reply = 0
            if generator.reply_size is not None:
                reply = whole_number(generator.reply_size, seed, "workload/reply-size", stream, first_draw + number)
            flow.packets.append((now_ps, size, reply))
        flows.append(flow)
    return flows
