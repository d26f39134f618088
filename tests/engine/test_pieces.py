"""Pieces of ranges of packets: nothing is left out or twice, and no piece of several packets spans an instant."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simnet.engine.pieces import pieces_of

gaps = st.lists(st.integers(0, 6), min_size=1, max_size=12)


@given(st.lists(st.tuples(gaps, st.integers(0, 5)), min_size=1, max_size=5), st.sets(st.integers(-2, 60), max_size=12))
def test_pieces_hold_every_packet_once_and_span_no_instant_unless_they_are_one_packet(ranges, instants):
    sent_ps = np.concatenate([np.cumsum(gaps) for gaps, _ in ranges])
    end = np.cumsum([len(gaps) for gaps, _ in ranges])
    first = end - [len(gaps) for gaps, _ in ranges]
    trip_ps, instants_ps = np.array([trip for _, trip in ranges]), np.array(sorted(instants), dtype=np.int64)
    pieces = list(
        zip(*(column.tolist() for column in pieces_of(sent_ps, first, end, trip_ps, instants_ps)), strict=True)
    )
    held = sorted((number, packet) for number, start, stop in pieces for packet in range(start, stop))
    assert held == [(n, packet) for n in range(len(ranges)) for packet in range(first[n], end[n])]
    for number, start, stop in pieces:
        spans = [t for t in instants if sent_ps[start] < t <= sent_ps[stop - 1] + trip_ps[number]]
        assert not spans or stop - start == 1
