"""Which version of a thing is in force when: for a batch of (thing, instant) at once.

A thing is a number: a device, a link, a rule set. Its value changes at instants; a version is valid from its instant
on, until the next one. At equal times a change comes before a packet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALWAYS = int(np.iinfo(np.int64).min)  # since before the run
NEVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True, eq=False)
class Versions:
    """The values of many things over time; read-only. Ask `at` only for things that change (`changes`)."""

    changes: NDArray[np.bool_]  # [things] has more than one version
    instants_ps: NDArray[np.int64]  # [k] when anything changes, ascending, distinct
    key: NDArray[np.int64]  # [versions] thing * (k + 1) + number of instants up to its beginning, ascending
    value: NDArray[np.int32]  # [versions]
    begin_ps: NDArray[np.int64]  # [versions] ALWAYS: since the start
    end_ps: NDArray[np.int64]  # [versions] NEVER: until the end

    def at(self, thing: NDArray[np.integer], time_ps: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the position of the version in force: intp[n]; every thing must be one that changes."""
        return self.at_epoch(thing, self.epoch(time_ps))

    def epoch(self, time_ps: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return how many of the instants have come by each time: intp[n]."""
        return np.searchsorted(self.instants_ps, time_ps, side="right")

    def at_epoch(self, thing: NDArray[np.integer], epoch: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the position of the version in force after so many of the instants: intp[n]."""
        wanted = thing.astype(np.int64)
        wanted *= len(self.instants_ps) + 1
        wanted += epoch
        return np.searchsorted(self.key, wanted, side="right") - 1

    def values_by_epoch(self, otherwise: NDArray[np.int32], first: int, last: int) -> NDArray[np.int32]:
        """Return int32[epochs, things]: every thing's value in each epoch from `first` to `last`.

        `otherwise` : int32[things], the values of those that never change
        """
        epochs, changing = np.arange(first, last + 1), np.flatnonzero(self.changes)
        table = np.repeat(otherwise[None, :], len(epochs), axis=0)
        thing, epoch = np.meshgrid(changing, epochs)  # [epochs, changing]
        table[:, changing] = self.value[self.at_epoch(thing.reshape(-1), epoch.reshape(-1))].reshape(thing.shape)
        return table

    @property
    def any(self) -> bool:
        """Whether anything ever changes."""
        return bool(self.instants_ps.size)


def versions_of(start: Sequence[int] | NDArray[np.integer], changes: Iterable[tuple[int, int, int]]) -> Versions:
    """Return the versions of things numbered from 0, given their values at the start and (time_ps, thing, value).

    Of two changes of a thing at one time the later one in the list counts; one to the value held changes nothing.
    """
    held = np.asarray(start, dtype=np.int64)
    by_thing: dict[int, dict[int, int]] = {}
    for time_ps, thing, value in changes:
        by_thing.setdefault(thing, {})[time_ps] = value
    rows: list[tuple[int, int, int, int]] = []  # thing, begin, end, value
    for thing, times in sorted(by_thing.items()):
        begin, value = ALWAYS, int(held[thing])
        of_thing = []
        for time_ps, new in sorted(times.items()):
            if new != value:
                of_thing.append((thing, begin, time_ps, value))
                begin, value = time_ps, new
        if of_thing:
            rows += [*of_thing, (thing, begin, NEVER, value)]
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    thing_column, begin_ps, end_ps, values = (table[:, number].copy() for number in range(4))
    instants_ps = np.unique(begin_ps[begin_ps != ALWAYS])
    key = thing_column * (len(instants_ps) + 1) + np.searchsorted(instants_ps, begin_ps, side="right")
    has_changes = np.zeros(len(held), dtype=np.bool_)
    has_changes[thing_column] = True
    made = Versions(has_changes, instants_ps, key, values.astype(np.int32), begin_ps, end_ps)
    for name in Versions.__slots__:
        getattr(made, name).setflags(write=False)
    return made
