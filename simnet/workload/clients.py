"""Who calls, from which port, and which of several entry targets is chosen.

Modelled: independent choice of the client per flow (Zipf or even demand); ephemeral ports of Linux' default
range, each client counting upwards from a start of its own, so that a port returns only after 28,232 further
flows of that client; the four ways to choose an entry target. Left out: the kernel's preference for even
ports in connect(), ports kept by other programs. Source: Linux ip_local_port_range, 32768 to 60999; the
counting port of RFC 6056, algorithm 3, one counter a client.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet import exact_math, random_streams
from simnet.model.workload import ClientPopulation, EntryChoice, EntryChoiceKind

CLIENT = "workload/client"
FIRST_PORT = "workload/first-port"
TARGET = "workload/target"
CLIENT_TARGET = "workload/target-of-client"

EPHEMERAL_PORT_LOW = 32_768
EPHEMERAL_PORTS = 28_232  # 32768 to 60999


def cumulative_demand(population: ClientPopulation) -> NDArray[np.float64] | None:
    """Return the running sum of the clients' weights, float64[count], read-only.

    None: all clients weigh the same.
    """
    if population.skew is None:
        return None
    rank = np.arange(1, population.count + 1, dtype=np.float64)
    demand = np.cumsum(exact_math.power(rank, -population.skew.exponent))
    demand.setflags(write=False)
    return demand


def pick_clients(
    demand: NDArray[np.float64] | None, count: int, seed: int, flow_id: NDArray[np.uint64]
) -> NDArray[np.int32]:
    """Return the client of each flow, by inverting the distribution function; int32[n], 0 to count - 1.

    `demand` is what `cumulative_demand` returned for the population of `count` clients.
    """
    unit = random_streams.uniform(seed, CLIENT, flow_id)
    if demand is None:
        return _index_below(unit, count)
    row = np.searchsorted(demand, unit * demand[-1], side="right")
    # A product that rounds up to the total stays with the last client.
    chosen: NDArray[np.int32] = np.minimum(row, count - 1).astype(np.int32)
    return chosen


def source_ports(
    client: NDArray[np.int32], started: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Return the source port of each flow, and how many flows each client has started after this batch.

    Parameters
    ----------
    client : int32[n]
        Of flows in order of start.
    started : int64[clients]
        Flows that each client started before; zeros at first. Not changed.
    seed : int

    Returns
    -------
    source_port : uint16[n]
        32768 + (start of the client + its flows before this one) mod 28232.
    started : int64[clients]
    """
    order = np.argsort(client, kind="stable")
    sorted_client = client[order]
    is_first = np.empty(client.size, np.bool_)
    is_first[:1] = True
    np.not_equal(sorted_client[1:], sorted_client[:-1], out=is_first[1:])
    first_row = np.flatnonzero(is_first)
    run_length = np.diff(first_row, append=client.size)
    caller = sorted_client[first_row]  # each client of this batch once
    first_port = random_streams.bits(seed, FIRST_PORT, caller.astype(np.uint64)) % np.uint64(EPHEMERAL_PORTS)
    # The k-th flow of a client in this batch has number started + k.
    base = first_port.astype(np.int64) + started[caller] - first_row
    number = np.arange(client.size, dtype=np.int64) + np.repeat(base, run_length)
    port = np.empty(client.size, np.uint16)
    port[order] = EPHEMERAL_PORT_LOW + number % EPHEMERAL_PORTS
    started_now = started.copy()
    started_now[caller] += run_length
    return port, started_now


def pick_targets(
    choice: EntryChoice,
    target_count: int,
    seed: int,
    flow_id: NDArray[np.uint64],
    client: NDArray[np.int32],
    *,
    fixed_target: int | None = None,
) -> NDArray[np.int32]:
    """Return which of the `target_count` entry targets each flow calls, int32[n].

    `fixed_target` is the index of the target that `choice.fixed` names; needed for that kind only. The same
    uniform number serves every variant, so that variants with equally many targets send a flow to the same
    one.
    """
    if target_count < 1:
        raise ValueError(f"target_count is {target_count}, expected at least 1")
    match choice.kind:
        case EntryChoiceKind.RANDOM:
            return _index_below(random_streams.uniform(seed, TARGET, flow_id), target_count)
        case EntryChoiceKind.ROUND_ROBIN:
            return (flow_id % np.uint64(target_count)).astype(np.int32)
        case EntryChoiceKind.PER_CLIENT:
            return _index_below(random_streams.uniform(seed, CLIENT_TARGET, client.astype(np.uint64)), target_count)
        case EntryChoiceKind.FIXED:
            if fixed_target is None or not 0 <= fixed_target < target_count:
                raise ValueError(f"fixed_target is {fixed_target}, expected from 0 to {target_count - 1}")
            return np.full(flow_id.size, fixed_target, np.int32)


def _index_below(uniform: NDArray[np.float64], count: int) -> NDArray[np.int32]:
    # uniform <= 1 - 2**-53 and count < 2**31: the rounded product stays below count
    return (uniform * count).astype(np.int32)
