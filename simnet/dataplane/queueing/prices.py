"""What each visit of a window costs its station: service time and bytes on the wire.

Where no packet differs from another (one size, no drawn service times) the prices are kept by row of the ways, which
are few, and not by slot, of which each packet has its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.queueing.columns import Columns
from simnet.dataplane.queueing.ways import BYTE_PS, Ways


class Prices:
    """Service times, picoseconds, and bytes of the slots of some packets."""

    def __init__(
        self,
        ways: Ways,
        packets: Columns,
        row: NDArray[np.int64],
        first: NDArray[np.int64],
        slots: NDArray[np.int64],
    ) -> None:
        """`row` of each slot; `first` slot and number of `slots` of each packet."""
        self._ways, self._row = ways, row
        request, reply = packets["request_bytes"], packets["reply_bytes"]
        drawn_at = ways.drawn_at.take(packets["way"]) - packets["at"]
        has = np.flatnonzero(drawn_at >= 0)
        self._by_row = bool(
            len(ways.place) < len(row) and (request == request[0]).all() and (reply == reply[0]).all()
        )  # sizes; service times too, unless drawn
        if self._by_row:
            self._size = ways.extra_bytes + ways.request_share * request[0] + ways.reply_share * reply[0]
            price = _service_ps(self._size, ways.rate_bps, ways.byte_ps, ways.fixed_ps)
        else:
            self._size = ways.extra_bytes.take(row)
            self._size += ways.request_share.take(row) * np.repeat(request, slots)
            if ways.reply_share.any():
                self._size += ways.reply_share.take(row) * np.repeat(reply, slots)
            by_byte = None if ways.byte_ps is None else ways.byte_ps.take(row)
            price = _service_ps(self._size, ways.rate_bps.take(row), by_byte, ways.fixed_ps.take(row))
        self.of_row_ps = price if self._by_row and not len(has) else None  # [rows], where no packet differs
        self._of_slot_ps = price.take(row) if self._by_row and len(has) else price  # [slots] otherwise
        if len(has):
            self._of_slot_ps[first[has] + drawn_at[has]] += packets["drawn_ps"][has]
        self.largest_bytes = int(self._size.max(initial=0))

    def service_ps(self, slot: NDArray[np.int64]) -> NDArray[np.int64]:
        """Service times of slots."""
        if self.of_row_ps is not None:
            return self.of_row_ps.take(self._row.take(slot))
        return self._of_slot_ps.take(slot)

    def all_service_ps(self) -> NDArray[np.int64]:
        """Service times of all slots."""
        return self._of_slot_ps if self.of_row_ps is None else self.of_row_ps.take(self._row)

    def size_bytes(self, slot: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes on the wire, of slots."""
        size: NDArray[np.int64] = self._size.take(self._row.take(slot) if self._by_row else slot)
        return size


def _service_ps(
    size_bytes: NDArray[np.int64],
    rate_bps: NDArray[np.int64],
    byte_ps: NDArray[np.int64] | None,
    fixed_ps: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The time on the wire, rounded up, or the fixed time: int64[n]. `byte_ps`: of a byte, where all are whole."""
    if byte_ps is not None:
        return size_bytes * byte_ps + fixed_ps
    is_link = rate_bps > 0
    rate = np.where(is_link, rate_bps, BYTE_PS)
    service: NDArray[np.int64] = np.where(is_link, -(-BYTE_PS * size_bytes // rate), fixed_ps)
    return service
