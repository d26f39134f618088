"""How long a way takes when no packet waits for another: a sum over the wires crossed.

Modelled: propagation and transmission of every link crossed, store and forward. Left out: queues and processing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path.columns import Way
from simnet.units import PS_PER_S


@dataclass(frozen=True, slots=True, eq=False)
class Wires:
    """What every link direction costs; directions of equal rate share a rate class."""

    delay_ps: NDArray[np.int64]  # [directions] propagation
    rate_class: NDArray[np.int64]  # [directions] position in `rate_bps`
    rate_bps: NDArray[np.int64]  # [rate classes] distinct rates
    extra_bytes: tuple[int, ...] = (0,)  # what tunnels may add to a packet, ascending


def wires_of(delay_ps: NDArray[np.int64], rate_bps: NDArray[np.int64], extra_bytes: tuple[int, ...] = (0,)) -> Wires:
    """Return the costs of all directions, given one delay and rate a direction."""
    distinct, rate_class = np.unique(rate_bps, return_inverse=True)
    return Wires(delay_ps, rate_class, distinct, extra_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class PathCost:
    """What one way of each connection costs, for any packet size."""

    propagation_ps: NDArray[np.int64]  # [n]
    crossings: NDArray[np.int16]  # [rate classes * extras, n] wires of each rate crossed, with each extra

    def take(self, rows: NDArray[np.intp]) -> PathCost:
        """Return the costs of some connections."""
        return PathCost(self.propagation_ps[rows], self.crossings[:, rows])

    def delay_ps(
        self, wires: Wires, rows: NDArray[np.intp] | slice, size_bytes: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the time from a packet's first bit on the first wire to its last bit off the last one.

        Parameters
        ----------
        rows : connection of each packet
        size_bytes : int64[m]
            IP packet. At most 1 MB, so that 8 * size * 10**12 fits int64.

        Returns
        -------
        int64[m], picoseconds; the transmission on each wire is rounded up to a whole picosecond
        """
        total = self.propagation_ps[rows].copy()
        for number, (rate_bps, extra) in enumerate(itertools.product(wires.rate_bps, wires.extra_bytes)):
            transmit_ps = ((size_bytes + extra) * (8 * PS_PER_S) + (rate_bps - 1)) // rate_bps
            total += self.crossings[number, rows] * transmit_ps
        return total

    def longest_ps(self, wires: Wires, size_bytes: int) -> NDArray[np.int64]:
        """Return the time that a packet of this size takes on each way: int64[n]; smaller ones take no longer."""
        return self.delay_ps(wires, slice(None), np.array([size_bytes]))


def path_cost(way: Way, wires: Wires) -> PathCost:
    """Sum up the wires that each connection's packet crossed on one way."""
    n = len(way.verdict)
    propagation_ps = np.zeros(n, dtype=np.int64)
    extras = np.array(wires.extra_bytes)
    crossings = np.zeros((len(wires.rate_bps) * len(extras), n), dtype=np.int16)
    for crossing in way.crossings:  # rows are distinct within one crossing
        propagation_ps[crossing.rows] += wires.delay_ps[crossing.direction]
        number = wires.rate_class[crossing.direction] * len(extras) + np.searchsorted(extras, crossing.extra_bytes)
        crossings[number, crossing.rows] += 1
    return PathCost(propagation_ps, crossings)
