"""Flows and packets of a window: the workload's specification turned into arrays.

Every column is drawn from a stream of its own, so that changing one part of a workload, or the entry of a
variant, leaves the other columns as they were. Packets are made in blocks of whole flows that stay in the
processor's cache. Modelled: open-loop clients, each flow by itself or connections of a pool. Left out:
congestion control, retransmission (`docs/models/workload.md`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet import random_streams
from simnet.model.flows import FlowBatch, PacketBatch
from simnet.model.workload import (
    MAX_GAP_PS,
    MAX_PACKET_BYTES,
    MAX_PACKETS_PER_FLOW,
    MIN_PACKET_BYTES,
    ClosedLoop,
    Constant,
    Distribution,
    EntryChoice,
    KeepAlive,
    Trace,
    Uniform,
    Workload,
)
from simnet.workload.arrivals import ArrivalState, arrival_times
from simnet.workload.clients import cumulative_demand, pick_clients, pick_targets, source_ports
from simnet.workload.distributions import (
    Law,
    law,
    mean_of,
    quantile,
    rounded_at_random,
    rounded_to_nearest,
)
from simnet.workload.keep_alive import GAP, Pools, connections_opened, connections_per_window, start_of_pools

PACKET_COUNT = "workload/packet-count"
PACKET_SIZE = "workload/packet-size"
REPLY_SIZE = "workload/reply-size"
SERVICE = "workload/service-time"

_PACKET_BLOCK = 1 << 15  # packets worked on at a time
_LONGEST_FLOW_PS = 2**62


@dataclass(frozen=True, slots=True, eq=False)
class Generator:
    """A workload ready to draw from.

    Its laws solved, its demand summed. Made by `generator`, the same for all windows.
    """

    workload: Workload
    demand: NDArray[np.float64] | None  # [clients] running sum of weights; None: even
    packet_count: Law
    packet_size: Law
    gap: Law
    reply_size: Law | None
    service_time: Law | None = None
    backoff: Law | None = None  # of clients that try again


@dataclass(frozen=True, slots=True, eq=False)
class WorkloadState:
    """What the next window must know of those before it. Made by `start_of_run`."""

    arrivals: ArrivalState
    next_packet: int
    started: NDArray[np.int64]  # [clients] flows that each client has started, read-only
    pools: Pools | None = None  # of keep-alive clients, once they have begun


def generator(workload: Workload) -> Generator:
    """Return the workload with its laws solved.

    Raises ValueError, in words for a user and naming the field, where a mean or a value cannot be had in its
    range.
    """
    shape = workload.shape
    packet_count = _law_of("packets", shape.packet_count, 1, MAX_PACKETS_PER_FLOW)
    # A flow must end before the clock does, were all its gaps the longest possible.
    longest_gap_ps = min(MAX_GAP_PS, _LONGEST_FLOW_PS // _highest_value(packet_count, workload.arrivals))
    if isinstance(workload.arrivals, KeepAlive) and mean_of(shape.gap_ps) < 1:
        raise ValueError("gap: mean is 0, expected some time between the requests of a connection")
    sizes = (MIN_PACKET_BYTES, MAX_PACKET_BYTES)
    return Generator(
        workload,
        cumulative_demand(workload.clients),
        packet_count,
        _law_of("packetSize", shape.packet_size_bytes, *sizes),
        _law_of("gap", shape.gap_ps, 0, longest_gap_ps),
        None if shape.reply_size_bytes is None else _law_of("replySize", shape.reply_size_bytes, *sizes),
        None if workload.service is None else _law_of("service.time", workload.service.time_ps, 0, MAX_GAP_PS),
        _law_of("backoff", workload.arrivals.backoff_ps, 0, MAX_GAP_PS)
        if isinstance(workload.arrivals, ClosedLoop)
        else None,
    )


def start_of_run(workload: Workload) -> WorkloadState:
    """Return the state before the first window."""
    started = np.zeros(workload.clients.count, np.int64)
    started.setflags(write=False)
    return WorkloadState(ArrivalState(), 0, started)


def flows_at_a_time(generator: Generator, limit: int) -> int:
    """Return how many flows a window should have, at most `limit`; no flow depends on it."""
    arrivals = generator.workload.arrivals
    return connections_per_window(arrivals, generator.gap, limit) if isinstance(arrivals, KeepAlive) else limit


def flows_in_window(
    generator: Generator,
    seed: int,
    state: WorkloadState,
    *,
    until_ps: int,
    limit: int,
    choice: EntryChoice,
    target_count: int,
    fixed_target: int | None = None,
) -> tuple[FlowBatch, WorkloadState]:
    """Return the next flows: those that start before `until_ps`, at most `limit` of them, and the state
    after them.

    Fewer than `limit` flows means that the window is complete. Where windows are cut makes no difference to
    any flow. `choice`, `target_count` and `fixed_target` belong to the variant; all other columns are equal
    in all variants.
    """
    workload = generator.workload
    begun, arrivals, pools = _begun(generator, seed, state, until_ps, limit)
    count = begun.start_ps.size
    flow_id = np.arange(state.arrivals.next_flow, state.arrivals.next_flow + count, dtype=np.uint64)
    client, packet_count = begun.client, begun.packet_count
    if client is None:
        client = pick_clients(generator.demand, workload.clients.count, seed, flow_id)
    if packet_count is None:
        packet_count = whole_numbers(generator.packet_count, seed, PACKET_COUNT, flow_id, np.zeros_like(flow_id))
    source_port, started = source_ports(client, state.started, seed)
    started.setflags(write=False)
    packets_so_far = state.next_packet + np.cumsum(packet_count, dtype=np.int64)
    next_packet = int(packets_so_far[-1]) if packets_so_far.size else state.next_packet
    flows = FlowBatch(
        flow_id=flow_id,
        start_ps=begun.start_ps,
        client=client,
        source_port=source_port,
        protocol=np.full(count, workload.protocol, np.uint8),
        target=pick_targets(choice, target_count, seed, flow_id, client, fixed_target=fixed_target),
        packet_count=packet_count,
        first_packet=packets_so_far - packet_count,
        stream=flow_id if begun.stream is None else begun.stream,
        first_draw=np.zeros(count, np.int64) if begun.first_draw is None else begun.first_draw,
    )
    return flows, WorkloadState(arrivals, next_packet, started, pools)


@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    """Flows as their arrivals decide them; a column that is None is drawn, or as for any flow."""

    start_ps: NDArray[np.int64]
    client: NDArray[np.int32] | None = None
    packet_count: NDArray[np.int32] | None = None
    stream: NDArray[np.uint64] | None = None
    first_draw: NDArray[np.int64] | None = None


def _begun(
    generator: Generator, seed: int, state: WorkloadState, until_ps: int, limit: int
) -> tuple[_Begun, ArrivalState, Pools | None]:
    arrivals, clients = generator.workload.arrivals, generator.workload.clients
    first_flow = state.arrivals.next_flow
    if isinstance(arrivals, KeepAlive):
        pools = state.pools or start_of_pools(arrivals, generator.gap, clients.count, seed)
        opened, pools = connections_opened(arrivals, generator.gap, seed, pools, until_ps=until_ps, limit=limit)
        client = (opened.slot // arrivals.connections_per_client).astype(np.int32)
        requests, stream = opened.requests.astype(np.int32), opened.slot.astype(np.uint64)
        begun = _Begun(opened.start_ps, client, requests, stream, opened.first_request)
        return begun, ArrivalState(first_flow + opened.slot.size), pools
    start_ps, after = arrival_times(arrivals, seed, state.arrivals, until_ps=until_ps, limit=limit)
    if isinstance(arrivals, Trace):
        rows = slice(first_flow, first_flow + start_ps.size)
        clients_of = None if arrivals.client is None else arrivals.client[rows]
        counts = None if arrivals.packet_count is None else arrivals.packet_count[rows]
        return _Begun(start_ps, clients_of, counts), after, None
    return _Begun(start_ps), after, None


def packets_of(generator: Generator, seed: int, flows: FlowBatch) -> PacketBatch:
    """Return all packets of the flows, those after the window's end too.

    The gap before packet k of a flow (k from 1) is draw k of the flow (of a connection in a pool: the draw after that
    of its packet k - 1), rounded to the nearest picosecond.
    """
    total = int(np.sum(flows.packet_count, dtype=np.int64))
    flow = np.empty(total, np.int32)
    arrival_ps = np.empty(total, np.int64)
    size_bytes = np.empty(total, np.int32)
    reply_size_bytes = np.zeros(total, np.int32)
    # [flows + 1] first packet of each flow within this batch
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(flows.packet_count, dtype=np.int64)])
    arrivals = generator.workload.arrivals
    recorded_size = arrivals.packet_size_bytes if isinstance(arrivals, Trace) else None

    begin = 0
    while begin < len(flows):
        # Whole flows, so that no sum crosses a block; at least one flow, however long.
        end = int(np.searchsorted(first, first[begin] + _PACKET_BLOCK, side="right")) - 1
        end = max(end, begin + 1)
        rows, packets = slice(begin, end), slice(int(first[begin]), int(first[end]))
        row = np.repeat(np.arange(begin, end, dtype=np.int32), flows.packet_count[rows])
        offset = first[rows] - first[begin]  # of each flow's first packet in the block
        flow[packets] = row
        draws = _Draws(seed, flows.stream[rows], row - np.int32(begin), offset, flows.first_draw[rows])
        arrival_ps[packets] = _send_times(generator.gap, draws, flows.start_ps[rows], offset)
        if recorded_size is not None:
            size_bytes[packets] = recorded_size[flows.flow_id[rows].astype(np.int64)][draws.row]
        else:
            size_bytes[packets] = draws.whole_numbers(generator.packet_size, PACKET_SIZE)
        if generator.reply_size is not None:
            reply_size_bytes[packets] = draws.whole_numbers(generator.reply_size, REPLY_SIZE)
        begin = end
    first_packet_id = int(flows.first_packet[0]) if len(flows) else 0
    return PacketBatch(first_packet_id, flow, arrival_ps, size_bytes, reply_size_bytes)


def packets_per_flow(generator: Generator) -> int:
    """Return how many packets a flow has, about; at least 1."""
    arrivals, distribution = generator.workload.arrivals, generator.packet_count.distribution
    if isinstance(arrivals, Trace) and arrivals.packet_count is not None and arrivals.packet_count.size:
        return max(1, int(arrivals.packet_count.mean()))
    drawn = quantile(generator.packet_count, (np.arange(1000) + 0.5) / 1000)
    return max(1, int(getattr(distribution, "mean", drawn.mean())))


def service_times(
    generator: Generator, seed: int, flow_id: NDArray[np.uint64], number: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Return how long a pod works on each packet, picoseconds: int64[n], draw `number` of the flow; 0 without a law."""
    law = generator.service_time
    if law is None or isinstance(law.distribution, Constant):
        value = 0 if law is None else int(law.distribution.value)  # type: ignore[union-attr]
        return np.full(len(flow_id), value, np.int64)
    drawn = random_streams.bits(seed, SERVICE, flow_id, number)
    return rounded_to_nearest(quantile(law, random_streams.open_unit_interval(drawn)))


@dataclass(frozen=True, slots=True, eq=False)
class _Draws:
    """The random numbers of a block of packets: draw `first_draw` + k of a flow's stream belongs to its packet k."""

    seed: int
    stream: NDArray[np.uint64]  # [flow]
    row: NDArray[np.int32]  # [packet] its flow's row in the block
    offset: NDArray[np.int64]  # [flow] its first packet's row in the block
    first_draw: NDArray[np.int64]  # [flow]

    def bits(self, purpose: str) -> NDArray[np.uint64]:
        """Return 64 bits per packet: `random_streams.bits(seed, purpose, stream, first_draw + packet in its flow)`."""
        key = random_streams.flow_keys(self.seed, purpose, self.stream)
        # draw = row of the packet - offset of its flow: one gather brings the key and the offset at once.
        key -= (self.offset - self.first_draw).astype(np.uint64) * np.uint64(random_streams.GOLDEN)
        mixed = np.take(key, self.row)
        mixed += _BLOCK_DRAWS[: mixed.size] if mixed.size <= _PACKET_BLOCK else _golden_multiples(mixed.size)
        random_streams.mix_in_place(mixed)
        return mixed

    def whole_numbers(self, law: Law, purpose: str) -> NDArray[np.int32] | int:
        """Return one number per packet, int32[packet]; a constant as itself."""
        if isinstance(law.distribution, Constant):
            return law.distribution.value
        value = quantile(law, random_streams.open_unit_interval(self.bits(purpose)))
        if law.is_whole:
            return value.astype(np.int32)
        fraction = random_streams.unit_interval(self.bits(_rounding(purpose)))
        return rounded_at_random(value, fraction).astype(np.int32)


def _send_times(law: Law, draws: _Draws, start_ps: NDArray[np.int64], offset: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return when each packet of a block is sent: its flow's start plus the gaps up to it."""
    if isinstance(law.distribution, Constant):
        number = np.arange(draws.row.size, dtype=np.int64)
        sent = number * law.distribution.value
    else:
        gap = quantile(law, random_streams.open_unit_interval(draws.bits(GAP)))
        sent = np.cumsum(rounded_to_nearest(gap))  # integers: exact, and a common overflow cancels below
    # The sum runs through all flows of the block; what it was at a flow's first packet is taken off.
    sent += np.take(start_ps - sent[offset], draws.row)
    return sent


def whole_numbers(
    law: Law, seed: int, purpose: str, flow: NDArray[np.uint64], draw: NDArray[np.uint64]
) -> NDArray[np.int32]:
    """Return a whole number per (flow, draw): int32[n]."""
    if isinstance(law.distribution, Constant):
        return np.full(flow.size, law.distribution.value, np.int32)
    value = quantile(law, random_streams.open_unit_interval(random_streams.bits(seed, purpose, flow, draw)))
    if law.is_whole:
        return value.astype(np.int32)
    fraction = random_streams.uniform(seed, _rounding(purpose), flow, draw)
    return rounded_at_random(value, fraction).astype(np.int32)


def _rounding(purpose: str) -> str:
    return f"{purpose}/rounding"


def _golden_multiples(count: int) -> NDArray[np.uint64]:
    return np.arange(count, dtype=np.uint64) * np.uint64(random_streams.GOLDEN)


_BLOCK_DRAWS = _golden_multiples(_PACKET_BLOCK)
_BLOCK_DRAWS.setflags(write=False)


def _law_of(field: str, distribution: Distribution, lower: int, upper: int) -> Law:
    try:
        return law(distribution, lower, upper)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


def _highest_value(packet_count: Law, arrivals: object) -> int:
    """Return the most packets that a flow can have."""
    distribution = packet_count.distribution
    if isinstance(arrivals, Trace) and arrivals.packet_count is not None and arrivals.packet_count.size:
        return int(arrivals.packet_count.max())
    match distribution:
        case Constant(value):
            return value
        case Uniform(_, high):
            return high
        case _:
            maximum = getattr(distribution, "maximum", None)
            values = getattr(distribution, "values", None)
            return max(values) if values else maximum or packet_count.upper
