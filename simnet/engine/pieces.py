"""Packets of one fate cut into pieces that end between the same two instants, without looking at every packet.

A packet ends between its sending and its sending plus the longest trip. So of a row of packets in order of sending only
those that are under way at an instant have to be looked at one by one; where they begin is found by bisection.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet.engine.connections import spread

Ints = NDArray[np.int64]


def pieces_of(
    sent_ps: Ints, first: Ints, end: Ints, trip_ps: Ints, instants_ps: Ints
) -> tuple[NDArray[np.intp], Ints, Ints]:
    """Return (range, first packet, end) of pieces: the packets of one are sent and end between the same two instants.

    Or a piece is a single packet.

    Parameters
    ----------
    sent_ps : int64[packets], non-decreasing within each range
    first, end : int64[n], ranges of packets, none of them empty
    trip_ps : int64[n], no packet of the range takes longer
    instants_ps : int64[m], ascending
    """
    low = np.searchsorted(instants_ps, sent_ps[first], side="right")
    high = np.searchsorted(instants_ps, sent_ps[end - 1] + trip_ps, side="right")
    whole, cut = np.flatnonzero(high <= low), np.flatnonzero(high > low)
    if not cut.size:
        return whole, first, end
    owner, instant = spread(low[cut], high[cut])  # an entry for each range and instant that it lives through
    each = cut[owner]
    under_way = _first_sent_from(sent_ps, first[each], end[each], instants_ps[instant] - trip_ps[each])
    after = _first_sent_from(sent_ps, first[each], end[each], instants_ps[instant])
    begins_range = np.diff(each, prepend=-1) != 0
    before = np.where(begins_range, first[each], np.concatenate([[0], after[:-1]]))
    under_way = np.maximum(under_way, before)
    single_owner, single = spread(under_way, after)
    last = np.flatnonzero(np.append(begins_range[1:], True))
    ranges = np.concatenate([whole, each, each[last], each[single_owner]])
    starts = np.concatenate([first[whole], before, after[last], single])
    ends = np.concatenate([end[whole], under_way, end[each[last]], single + 1])
    kept = starts < ends
    return ranges[kept], starts[kept], ends[kept]


def _first_sent_from(sent_ps: Ints, low: Ints, high: Ints, time_ps: Ints) -> Ints:
    """Return the first packet of each range low:high that is sent at an instant or later; its end: none is."""
    low, high = low.copy(), high.copy()
    while (open_ := np.flatnonzero(low < high)).size:
        middle = (low[open_] + high[open_]) >> 1
        is_before = sent_ps[middle] < time_ps[open_]
        low[open_[is_before]] = middle[is_before] + 1
        high[open_[~is_before]] = middle[~is_before]
    return low
