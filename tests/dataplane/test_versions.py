"""Versions of things over time: lookups one by one, by the number of changes gone by, and from a table of all."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simnet.dataplane.versions import versions_of

THINGS = 4
CHANGES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, THINGS - 1), st.integers(0, 3)), max_size=8)


def plainly(changes, thing, time_ps):
    """The last change of the thing up to that time; of several at one time the last in the list."""
    value = 0
    for at_ps in range(time_ps + 1):
        for change_ps, changed, new in changes:
            if (change_ps, changed) == (at_ps, thing):
                value = new
    return value


@given(CHANGES)
def test_every_way_to_ask_gives_the_last_value_up_to_that_time(changes):
    versions = versions_of([0] * THINGS, changes)
    times_ps = np.arange(12)
    epochs = versions.epoch(times_ps)
    table = versions.values_by_epoch(np.zeros(THINGS, np.int32), int(epochs[0]), int(epochs[-1]))
    for thing in range(THINGS):
        expected = [plainly(changes, thing, time_ps) for time_ps in times_ps.tolist()]
        assert table[epochs - epochs[0], thing].tolist() == expected
        if versions.changes[thing]:
            things = np.full(len(times_ps), thing)
            assert versions.value[versions.at(things, times_ps)].tolist() == expected
            assert versions.value[versions.at_epoch(things, epochs)].tolist() == expected
        else:
            assert set(expected) == {0}
