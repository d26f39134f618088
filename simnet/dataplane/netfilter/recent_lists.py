"""Which `recent` lists belong together, and which are asked in so plain a way that a whole block can be answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simnet.dataplane.netfilter.program import ListsTogether, RecentTest


def is_plain_check(test: Any) -> bool:
    """Whether a test is an `--rcheck` of the source's own address, by time at most."""
    return (
        test.action == "rcheck" and test.by_source and test.mask is None and test.hitcount <= 1
        and (test.window_ps > 0 or not test.reap)
    )  # fmt: skip


def is_plain_set(test: RecentTest) -> bool:
    """Whether a test is a `--set` of the source's own address."""
    return test.action == "set" and test.by_source and test.mask is None


def recent_tables(
    tests: Sequence[RecentTest], lists: int, is_some_negated: bool, runs: Sequence[tuple[int, int]],
    recall_list: Sequence[int],
) -> dict[str, Any]:  # fmt: skip
    """Return the columns of `Program` about `recent`; `runs`: (first, length) in `recall_list`."""
    leader = list(range(lists))

    def find(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    keys: dict[int, int] = {}
    for first, length in runs:
        for place in range(length):
            number = recall_list[first + place]
            leader[find(number)] = find(recall_list[first])
            keys.setdefault(first * lists + number, place)
    leaders = {root: number for number, root in enumerate(dict.fromkeys(find(i) for i in range(lists)))}
    of_list = np.array([leaders[find(i)] for i in range(lists)], np.int32)
    members: list[list[int]] = [[] for _ in leaders]
    for number, together in enumerate(of_list.tolist()):
        members[together].append(number)
    windows: list[set[int]] = [set() for _ in leaders]
    is_plain = np.full(len(leaders), not is_some_negated, np.bool_)
    for test in tests:
        together = int(of_list[test.list])
        if is_plain_check(test):
            windows[together].add(test.window_ps)
        elif not is_plain_set(test):
            is_plain[together] = False
    is_plain &= np.array([len(found) <= 1 for found in windows], np.bool_)
    sorted_keys = np.array(sorted(keys), np.int64)
    return {
        "recent_list": np.array([test.list for test in tests], np.int32),
        "recent_is_set": np.array([is_plain_set(test) for test in tests], np.bool_),
        "recent_lists_together": ListsTogether(
            len(leaders), of_list, tuple(map(tuple, members)), is_plain,
            np.array([next(iter(found), 0) for found in windows], np.int64),
        ),
        "recall_keys": sorted_keys,
        "recall_places": np.array([keys[key] for key in sorted_keys.tolist()], np.int64),
    }  # fmt: skip
