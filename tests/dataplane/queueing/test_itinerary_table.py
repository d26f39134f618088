"""Each way is kept once, whatever its hash; numbers stay until the table is told which ways to keep."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simnet.dataplane.queueing.itinerary_table import ItineraryTable
from simnet.dataplane.queueing.stations import Itineraries

VISIT = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 1), st.integers(0, 1))
BATCH = st.lists(st.lists(VISIT, max_size=3).map(tuple), max_size=6)


def itineraries(ways):
    """The ways, each a tuple of visits, as columns."""
    visits = np.array([visit for way in ways for visit in way], np.int64).reshape(-1, 4)
    start = np.cumsum([0] + [len(way) for way in ways]).astype(np.int64)
    return Itineraries(
        start, visits[:, 0].astype(np.int32), visits[:, 1].astype(np.uint8), visits[:, 2].astype(np.int32), visits[:, 3]
    )


def written(ways):
    """The columns as tuples of visits."""
    columns = (ways.station, ways.work_of, ways.extra_bytes, ways.fixed_ps)
    visits = list(zip(*(column.tolist() for column in columns), strict=True))
    return [tuple(visits[low:high]) for low, high in zip(ways.start[:-1], ways.start[1:], strict=True)]


@given(st.lists(BATCH, max_size=5), st.booleans(), st.data())
def test_equal_ways_have_one_number_and_others_another(batches, hashes_meet, data):
    """Also where all hashes are equal, so that only the comparison tells ways apart."""
    table, seen = ItineraryTable(), {}
    meeting = patch.object(Itineraries, "hashes", lambda self, rows: np.zeros(len(rows), np.uint64))
    for batch in batches:
        if hashes_meet:
            with meeting:
                numbers = table.add(itineraries(batch))
        else:
            numbers = table.add(itineraries(batch))
        held = written(table.ways)
        for way, number in zip(batch, numbers.tolist(), strict=True):
            assert number == -1 if not way else held[number] == way
            if way and not hashes_meet:
                assert seen.setdefault(way, number) == number
        if not hashes_meet:
            assert len(set(held)) == len(held)
    held = written(table.ways)
    kept = sorted(data.draw(st.sets(st.sampled_from(range(len(held)))))) if held else []
    new = table.keep(np.array(kept, np.int64))
    assert written(table.ways) == [held[number] for number in kept]
    assert [number for number, now in enumerate(new.tolist()) if now >= 0] == kept
    again = [held[number] for number in kept]
    assert [written(table.ways)[number] for number in table.add(itineraries(again)).tolist()] == again
