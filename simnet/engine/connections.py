"""A window of flows through the data plane: which connections they become, where each goes, and what that costs.

A flow is one connection as long as conntrack remembers it. A UDP flow that pauses longer than its entry lives is
translated anew (a second connection of the same flow, with draws of its own); entries of TCP and SCTP outlive any
pause that is modelled. Source: net/netfilter/nf_conntrack_proto_udp.c; sysctls nf_conntrack_udp_timeout 30 s and
udp_timeout_stream 120 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path import walk
from simnet.dataplane.path.columns import ConnectionBatch, Header, Way
from simnet.dataplane.path.hooks import HookState
from simnet.dataplane.path.wires import PathCost, path_cost
from simnet.engine.network import CompiledCluster
from simnet.engine.targets import Callers, Targets
from simnet.model.flows import FlowBatch, PacketBatch
from simnet.model.recording import VERDICTS
from simnet.model.workload import UDP
from simnet.units import PS_PER_S

UDP_TIMEOUT_PS = 30 * PS_PER_S  # no answer seen, or younger than 2 s
UDP_STREAM_TIMEOUT_PS = 120 * PS_PER_S
UDP_STREAM_AGE_PS = 2 * PS_PER_S
DELIVERED = VERDICTS.index("delivered")
RANK_BITS = 40  # connection number = flow id + rank << 40: flows below 10**12


@dataclass(frozen=True, slots=True, eq=False)
class Connections:
    """Connections of one rank (first, second, ... of their flow), with their fate; row i of every column is one."""

    rank: int
    flow: NDArray[np.intp]  # [n] row in the FlowBatch
    first_packet: NDArray[np.int64]  # [n] row in the PacketBatch
    end_packet: NDArray[np.int64]  # [n] one past its last packet
    called: Header
    request: Way
    reply: Way | None  # None: the workload has no replies
    request_cost: PathCost
    reply_cost: PathCost | None

    @property
    def delivered(self) -> NDArray[np.bool_]:
        """Which were delivered: bool[n]."""
        delivered: NDArray[np.bool_] = self.request.verdict == DELIVERED
        return delivered

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which got their answer from where they had called: bool[n]."""
        if self.reply is None:
            return np.zeros(len(self.flow), dtype=np.bool_)
        answered: NDArray[np.bool_] = self.reply.verdict == DELIVERED
        return answered


def connections_of(
    compiled: CompiledCluster,
    callers: Callers,
    targets: Targets,
    flows: FlowBatch,
    packets: PacketBatch,
    state: HookState,
    seed: int,
    *,
    has_replies: bool,
) -> Iterator[Connections]:
    """Yield the connections of a window's flows, all first ones, then all second ones, and so on.

    `state` is advanced.
    """
    first = flows.first_packet - packets.first_packet_id
    rank, flow = 0, np.arange(len(flows))
    start, end = first, first + flows.packet_count
    while flow.size:
        connections = _send(
            compiled, callers, targets, flows, packets, state, seed, has_replies, rank, flow, start, end
        )
        cut = _forgotten_at(compiled, flows, packets, connections)
        again = cut < end
        if again.any():
            connections = replace(connections, end_packet=cut)
        yield connections
        rank, flow, start, end = rank + 1, flow[again], cut[again], end[again]


def _send(
    compiled: CompiledCluster,
    callers: Callers,
    targets: Targets,
    flows: FlowBatch,
    packets: PacketBatch,
    state: HookState,
    seed: int,
    has_replies: bool,
    rank: int,
    flow: NDArray[np.intp],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
) -> Connections:
    client, target = flows.client[flow], flows.target[flow]
    called = Header(
        source=callers.address[client],
        destination=targets.address[target],
        source_port=flows.source_port[flow].astype(np.int32),
        destination_port=targets.port[target],
        protocol=flows.protocol[flow],
    )
    batch = ConnectionBatch(
        connection=flows.flow_id[flow] + np.uint64(rank << RANK_BITS),
        time_ps=packets.arrival_ps[start],
        origin=callers.place[client],
        header=called,
        length_bytes=packets.size_bytes[start].astype(np.int64),
    )
    network = compiled.network
    request, visits = walk.send_request(network, batch, state, seed)
    reply = walk.send_reply(network, batch, request, visits, state, seed) if has_replies else None
    return Connections(
        rank=rank,
        flow=flow,
        first_packet=start,
        end_packet=end,
        called=called,
        request=request,
        reply=reply,
        request_cost=path_cost(request, compiled.wires),
        reply_cost=None if reply is None else path_cost(reply, compiled.wires),
    )


def _forgotten_at(
    compiled: CompiledCluster, flows: FlowBatch, packets: PacketBatch, connections: Connections
) -> NDArray[np.int64]:
    """Return the packet before which each connection's entry had timed out; its end where that never happens: int64[n].

    An answer renews the entry as a request does, so the pause is counted from the answer's return.
    """
    end = connections.end_packet.copy()
    if not len(flows) or int(flows.protocol[0]) != UDP:
        return end
    arrival_ps = packets.arrival_ps
    pause_ps = np.diff(arrival_ps, prepend=arrival_ps[:1])
    long = np.flatnonzero(pause_ps > UDP_TIMEOUT_PS)  # packets that come after a pause, in any flow
    if not long.size:
        return end
    order = np.argsort(connections.first_packet, kind="stable")
    owner = order[np.searchsorted(connections.first_packet[order], long, side="right") - 1]
    inside = (long > connections.first_packet[owner]) & (long < connections.end_packet[owner])
    long, owner = long[inside], owner[inside]
    if not long.size:
        return end
    answered = connections.answered[owner]
    age_ps = arrival_ps[long - 1] - arrival_ps[connections.first_packet[owner]]
    lives_ps = np.where(answered & (age_ps > UDP_STREAM_AGE_PS), UDP_STREAM_TIMEOUT_PS, UDP_TIMEOUT_PS)
    lives_ps += np.where(answered, round_trip_ps(compiled, packets, connections, owner, long - 1), 0)
    forgotten = pause_ps[long] > lives_ps
    np.minimum.at(end, owner[forgotten], long[forgotten])
    return end


def round_trip_ps(
    compiled: CompiledCluster,
    packets: PacketBatch,
    connections: Connections,
    rows: NDArray[np.intp],
    packet: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the time there and back of one packet of each of `rows`, nothing spent in the pod: int64[m]."""
    there = connections.request_cost.delay_ps(compiled.wires, rows, packets.size_bytes[packet].astype(np.int64))
    if connections.reply_cost is None:
        return there
    size_bytes = packets.reply_size_bytes[packet].astype(np.int64)
    return there + connections.reply_cost.delay_ps(compiled.wires, rows, size_bytes)
