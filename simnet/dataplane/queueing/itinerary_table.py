"""Distinct itineraries, each kept once: many connections take the same way.

Equal ways are found by a 64-bit hash; what has equal hashes is compared, so that the hash decides nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.stations import Itineraries


class ItineraryTable:
    """Grows by `add`; the numbers that it hands out hold until `keep`."""

    def __init__(self) -> None:
        station, work_of, fixed_ps = np.zeros(0, np.int32), np.zeros(0, np.uint8), np.zeros(0, np.int64)
        self.ways = Itineraries(np.zeros(1, np.int64), station, work_of, station, fixed_ps)
        self._hashes = np.zeros(0, np.uint64)  # ascending, each with the number of its way
        self._numbers = np.zeros(0, np.int64)

    def add(self, more: Itineraries) -> NDArray[np.int32]:
        """Return the number of each of these ways: int32[n]; -1: it visits no station."""
        number = np.full(len(more), -1, np.int32)
        goes = np.flatnonzero(np.diff(more.start))
        if not len(goes):
            return number
        distinct, first, which = np.unique(more.hashes(goes), return_index=True, return_inverse=True)
        at = np.searchsorted(self._hashes, distinct)
        known = np.zeros(len(distinct), np.bool_)
        inside = at < len(self._hashes)
        known[inside] = self._hashes[at[inside]] == distinct[inside]
        number_of = np.empty(len(distinct), np.int64)
        number_of[known] = self._numbers[at[known]]
        fresh = np.flatnonzero(~known)
        number_of[fresh] = self._append(more, goes[first[fresh]])
        self._hashes = np.insert(self._hashes, at[fresh], distinct[fresh])
        self._numbers = np.insert(self._numbers, at[fresh], number_of[fresh])
        number[goes] = number_of[which]
        others = goes[~self.ways.equal_ways(number[goes], more, goes)]  # of one hash, and yet not alike
        number[others] = self._append(more, others)
        return number

    def keep(self, used: NDArray[np.integer]) -> NDArray[np.int32]:
        """Forget all ways but these (distinct, ascending); return the new number of each old one, -1: forgotten."""
        new = np.full(len(self.ways), -1, np.int32)
        new[used] = np.arange(len(used), dtype=np.int32)
        self.ways = self.ways.take(used)
        stays = new[self._numbers] >= 0
        self._hashes, self._numbers = self._hashes[stays], new[self._numbers[stays]].astype(np.int64)
        return new

    def _append(self, more: Itineraries, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        first = len(self.ways)
        if len(rows):
            self.ways = self.ways.followed_by(more.take(rows))
        return np.arange(first, first + len(rows))
