"""Flows and packets as a workload makes them: what exists, before any table has decided where it goes.

Clients and targets are indexes here; the engine gives them addresses, so that the variants of an experiment
share these values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)  # `==` on arrays has no single answer
class FlowBatch:
    """Flows that start in one window, in order of start; row i of every column is flow i of the batch."""

    flow_id: NDArray[np.uint64]  # [n] dense in the run, from 0, consecutive; the key of its random numbers
    start_ps: NDArray[np.int64]  # [n] when the first packet is sent, non-decreasing
    client: NDArray[np.int32]  # [n] index into the client population
    source_port: NDArray[np.uint16]  # [n]
    protocol: NDArray[np.uint8]  # [n] IANA number: 6 TCP, 17 UDP, 132 SCTP
    target: NDArray[np.int32]  # [n] index into the variant's entry targets (nodes or addresses)
    packet_count: NDArray[np.int32]  # [n] request packets, >= 1
    first_packet: NDArray[np.int64]  # [n] packet id of the first one; the others follow: dense in the run, from 0
    stream: NDArray[np.uint64]  # [n] the key of its packets' random numbers: flow_id; of a pool's connection its slot
    first_draw: NDArray[
        np.int64
    ]  # [n] the draw that its first packet has there: 0; of a pool's, its number in the slot

    def __len__(self) -> int:
        return int(self.flow_id.size)


@dataclass(frozen=True, slots=True, eq=False)
class PacketBatch:
    """Request packets of a FlowBatch, flow by flow and in order of sending within a flow.

    Packet ids are consecutive: row j is packet `first_packet_id + j` of the run. Across flows the times are
    not sorted.
    """

    first_packet_id: int
    flow: NDArray[np.int32]  # [n] row in the FlowBatch, non-decreasing
    arrival_ps: NDArray[np.int64]  # [n] when the client sends it, non-decreasing within a flow
    size_bytes: NDArray[np.int32]  # [n] IP packet, header included
    reply_size_bytes: NDArray[np.int32]  # [n] of the packet that answers it; 0: no reply

    def __len__(self) -> int:
        return int(self.flow.size)
