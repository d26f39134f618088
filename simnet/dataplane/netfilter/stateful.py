"""Rules whose answer depends on packets before, for a whole block at once: client affinity by `recent`, and `nth`.

Affinity: a run of `recent --rcheck` jumps (RECALL) asks which list holds the packet's source, and a `--set` enters it.
While no entry expires and no list overflows, packets depend on each other only where host, lists and source are the
same, and only a packet that finds nothing changes what those after it find. So per round, of each (host, lists,
source), the packets up to the first that finds nothing go on; the others look again. `nth`: packets at a rule are
ranked.
Nothing is written to the state before the block is through. What does not fit this (`Conflict`) is done again packet by
packet (`sequential`), which is always right; both ways give the same result.
Source: net/netfilter/xt_recent.c, xt_statistic.c.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.netfilter import sequential
from simnet.dataplane.netfilter.program import Operation, Predicate
from simnet.dataplane.netfilter.state import STAMPS

if TYPE_CHECKING:
    from simnet.dataplane.netfilter.steps import Block

Group = tuple[int, int]  # host, number of a set of lists that are asked together


class Conflict(Exception):
    """The block cannot be done so: these groups must go packet by packet; none given: all of it must."""

    def __init__(self, groups: frozenset[Group] = frozenset()) -> None:
        super().__init__(groups)
        self.groups = groups


class Lookback:
    """What one block's packets ask of the state, and what they will change in it."""

    def __init__(self, block: Block, slow: frozenset[Group], is_all_slow: bool) -> None:
        self.block, self.slow, self.is_all_slow = block, slow, is_all_slow
        self.program, self.state = block.program, block.state
        self.lists = self.program.recent_lists_together
        count = block.count
        self.group_of_row = np.full(count, -1, np.int64)  # host * sets of lists + set; -1: has asked none
        self.is_through = np.zeros(count, np.bool_)  # has gone on from a RECALL
        self.found_in = np.full(count, -1, np.int64)  # the list that its source was found in
        self.may_enter = np.zeros(count, np.bool_)  # found nothing, so that it may enter its source in a list
        self.fast: dict[int, bool] = {}  # group -> whether it is done here, not packet by packet
        self.is_started = False
        self.entry_key = np.zeros(0, np.int64)  # group * addresses + source, sorted
        self.entry_list = np.zeros(0, np.int64)
        self.entered: dict[tuple[int, int], int] = {}  # (host, list) -> new entries of this block
        self.events: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []  # rows that set, in which list
        self.nth_seen: dict[tuple[int, int], int] = {}  # (host, counter) -> packets after this block

    def resume(self) -> bool:
        """Let parked packets go on as far as can be told; False: those left must go one by one."""
        block, shapes = self.block, self.program.shapes
        if self.is_all_slow:
            return False
        recalls, ranked = [], []
        for number in list(block.parked):
            shape = shapes[number]
            kinds = [predicate for predicate, _ in shape.predicates if predicate in (Predicate.NTH, Predicate.RECENT)]
            if shape.operation is Operation.RECALL:
                recalls.append(number)
            elif kinds == [Predicate.RECENT]:
                if self._resume_sets(number):
                    return True
            elif kinds == [Predicate.NTH]:
                ranked.append(number)
        if ranked:
            lowest = min(ranked, key=lambda number: min(int(pcs.min()) for _, pcs in block.parked[number]))
            rows, pcs = block.unpark(lowest)
            first = pcs == pcs.min()
            if not first.all():
                block.park(lowest, rows[~first], pcs[~first])
            block.rule(shapes[lowest], rows[first], pcs[first])
            return True
        return bool(recalls) and self._resume_recalls(recalls[0])

    def finish(self) -> None:
        """Do what is left one by one, then write to the state what the others changed."""
        block = self.block
        parts = [*block.slow_rows, *(part for parked in block.parked.values() for part in parked)]
        if parts:
            rows, pcs = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
            order = np.argsort(rows, kind="stable")
            self.state.begin()
            try:
                sequential.finish(block, rows[order], pcs[order])
            except Conflict:
                self.state.undo()
                raise
            self.state.keep()
        self._commit()

    def forbid(self, host: int, number: int, *, is_nth: bool) -> None:
        """Raise Conflict if a packet that goes alone asks what was answered for many at once."""
        if is_nth:
            if (host, number) in self.nth_seen:
                raise Conflict
        elif self.fast.get(host * self.lists.count + int(self.lists.of_list[number])):
            raise Conflict

    # --- recent

    def _resume_sets(self, number: int) -> bool:
        """Let packets at `--set` rules go on whose group is done here; whether there were any."""
        rows, pcs = self.block.unpark(number)
        place = next(i for i, (p, _) in enumerate(self.program.shapes[number].predicates) if p is Predicate.RECENT)
        is_negated = self.program.shapes[number].predicates[place][1]
        tests = self.program.code.take(pcs + 4 + place)
        lists = self.program.recent_list.take(tests)
        ours = self.program.recent_is_set.take(tests) & (not is_negated)
        ours &= self._group(rows, self.lists.of_list.take(lists)) == self.group_of_row.take(rows)
        if not ours.all():
            self.block.park(number, rows[~ours], pcs[~ours])
        if not ours.any():
            return False
        self.block.rule(self.program.shapes[number], rows[ours], pcs[ours])
        return True

    def set(self, tests: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Enter sources in lists; always true."""
        lists = self.program.recent_list.take(tests).astype(np.int64)
        is_known = self.found_in.take(rows) == lists
        asked = np.flatnonzero(~is_known)
        keys = self._key(rows.take(asked), self.group_of_row.take(rows.take(asked)))
        low, high = np.searchsorted(self.entry_key, keys), np.searchsorted(self.entry_key, keys, "right")
        for step in range(int((high - low).max(initial=0))):
            at = np.minimum(low + step, len(self.entry_key) - 1)
            is_known[asked] |= (low + step < high) & (self.entry_list.take(at) == lists.take(asked))
        is_new = ~is_known
        self.events.append((rows, lists))
        if is_new.any():
            if not self.may_enter.take(rows[is_new]).all():
                raise Conflict
            self._count(self.block.packets.memory.take(rows[is_new]), lists[is_new])
            self._add_entries(keys[is_new.take(asked)], lists[is_new])
        return np.ones(len(rows), np.bool_)

    def _count(self, hosts: NDArray[np.int32], lists: NDArray[np.int64]) -> None:
        """Count new entries; a list that would overflow is a conflict."""
        limit, full = self.state.recent_limit, set()
        for key in zip(hosts.tolist(), lists.tolist(), strict=True):
            self.entered[key] = self.entered.get(key, 0) + 1
            if limit is not None and len(self.state.recent.get(key, ())) + self.entered[key] > limit:
                full.add((key[0], int(self.lists.of_list[key[1]])))
        if full:
            raise Conflict(frozenset(full))

    def _add_entries(self, keys: NDArray[np.int64], lists: NDArray[np.int64]) -> None:
        keys, lists = np.concatenate([self.entry_key, keys]), np.concatenate([self.entry_list, lists])
        order = np.argsort(keys, kind="stable")
        self.entry_key, self.entry_list = keys[order], lists[order]

    def _group(self, rows: NDArray[np.int64], together: NDArray[np.int32]) -> NDArray[np.int64]:
        return self.block.packets.memory.take(rows).astype(np.int64) * self.lists.count + together

    def _key(self, rows: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
        return groups * len(self.program.addresses) + self.block.packets.source.take(rows)

    def _resume_recalls(self, number: int) -> bool:
        program, block = self.program, self.block
        rows, pcs = block.unpark(number)
        base = program.code.take(pcs + 3).astype(np.int64)
        groups = self._group(rows, self.lists.of_list.take(program.recall_list.take(base)))
        present, inverse = np.unique(groups, return_inverse=True)
        for group in present.tolist():
            if group not in self.fast:
                self.fast[group] = not self.is_started and self._is_fast(group)
        is_fast = np.array([self.fast[group] for group in present.tolist()], np.bool_).take(inverse)
        left = not self.is_started or bool(is_fast.any())
        if not is_fast.all():
            block.slow(rows[~is_fast], pcs[~is_fast])
            rows, pcs, base, groups = rows[is_fast], pcs[is_fast], base[is_fast], groups[is_fast]
        if not self.is_started:
            self.is_started = True
            self.group_of_row[rows] = groups
            self._load(np.unique(groups).tolist())
        elif (self.group_of_row.take(rows) != groups).any() or self.is_through.take(rows).any():
            raise Conflict
        if len(rows) == 0:
            return left
        keys = self._key(rows, groups)
        order = _by_key(keys, rows)
        rows, pcs, base, keys = rows.take(order), pcs.take(order), base.take(order), keys.take(order)
        count = program.code.take(pcs + 2).astype(np.int64)
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        sizes = np.diff(np.r_[starts, len(rows)])
        option, found_in = self._options(keys, base, count, starts, sizes)
        is_miss = option == count
        misses_before = np.cumsum(is_miss) - is_miss
        goes = misses_before == np.repeat(misses_before.take(starts), sizes)
        if not goes.all():
            block.park(number, rows[~goes], pcs[~goes])
            rows, pcs, option, found_in = rows[goes], pcs[goes], option[goes], found_in[goes]
            count, base = count[goes], base[goes]
        self.is_through[rows] = True
        self.found_in[rows] = found_in
        self.may_enter[rows] = option == count
        block.recall(rows, pcs, option, count, base)
        return True

    def _options(
        self, keys: NDArray[np.int64], base: NDArray[np.int64], count: NDArray[np.int64], starts: NDArray[np.int64],
        sizes: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
        """Return (the rule of its run that finds each packet's source, else `count`; the list it is in, else -1).

        Packets are sorted by key: `sizes` of them from each of `starts` on.
        """
        if (base == np.repeat(base.take(starts), sizes)).all():  # all of a key ask the same run
            option, found_in = self._found(keys.take(starts), base.take(starts), count.take(starts))
            return np.repeat(option, sizes), np.repeat(found_in, sizes)
        return self._found(keys, base, count)

    def _found(
        self, keys: NDArray[np.int64], base: NDArray[np.int64], count: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        option, found_in = count.copy(), np.full(len(keys), -1, np.int64)
        low, high = np.searchsorted(self.entry_key, keys), np.searchsorted(self.entry_key, keys, "right")
        known, size = self.program.recall_keys, len(self.program.recent_lists)
        for step in range(int((high - low).max(initial=0))):
            at = np.flatnonzero(low + step < high)
            lists = self.entry_list.take(low.take(at) + step)
            wanted = base.take(at) * size + lists
            place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
            found = self.program.recall_places.take(place)
            is_better = (known.take(place) == wanted) & (found < option.take(at))
            option[at[is_better]] = found[is_better]
            found_in[at[is_better]] = lists[is_better]
        return option, found_in

    def _is_fast(self, group: int) -> bool:
        """Whether nothing in the group's lists can expire during the block, and they are asked in a plain way."""
        host, together = divmod(group, self.lists.count)
        if not self.lists.is_plain[together] or (host, together) in self.slow:
            return False
        window_ps = int(self.lists.window_ps[together])
        if not window_ps:
            return True
        time_ps = self.block.packets.time_ps
        oldest_ps = int(time_ps.max()) - window_ps
        if int(time_ps.min()) < oldest_ps:
            return False
        held = self.state.recent
        return all(
            stamps[-1] >= oldest_ps
            for number in self.lists.members[together] for stamps in held.get((host, number), {}).values()
        )  # fmt: skip

    def _load(self, groups: list[int]) -> None:
        """Take the entries of the groups that are done here from the state."""
        keys: list[int] = []
        lists: list[int] = []
        addresses = len(self.program.addresses)
        for group in groups:
            host, together = divmod(group, self.lists.count)
            for number in self.lists.members[together]:
                held = self.state.recent.get((host, number))
                if held:
                    keys.extend(group * addresses + address for address in held)
                    lists.extend([number] * len(held))
        self._add_entries(np.array(keys, np.int64), np.array(lists, np.int64))

    # --- nth

    def nth(self, counters: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for packets that reach nth rules whether each is the chosen one."""
        hosts = self.block.packets.memory.take(rows)
        answer = np.zeros(len(rows), np.bool_)
        order = np.lexsort((rows, counters, hosts))
        keys = np.stack([hosts[order], counters[order]])
        starts = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)]) if len(rows) else ()
        ends = [*starts[1:], len(rows)]
        for start, end in zip(starts, ends, strict=False):
            host, number = int(keys[0, start]), int(keys[1, start])
            if (host, number) in self.nth_seen:
                raise Conflict  # some came before all were there
            counter = self.program.nth[number]
            seen = self.state.nth.get((host, number), 0)
            answer[order[start:end]] = (seen + np.arange(end - start)) % counter.every == counter.packet
            self.nth_seen[host, number] = int((seen + end - start) % counter.every)
        return answer

    # --- the end

    def _commit(self) -> None:
        self.state.nth.update(self.nth_seen)
        if not self.events:
            return
        rows = np.concatenate([event[0] for event in self.events])
        lists = np.concatenate([event[1] for event in self.events])
        packets, addresses = self.block.packets, len(self.program.addresses)
        keys = packets.memory.take(rows).astype(np.int64) * len(self.program.recent_lists) + lists
        keys = keys * addresses + packets.source.take(rows)
        order = _by_key(keys, rows)
        keys, rows = keys.take(order), rows.take(order)
        time_ps = packets.time_ps.take(rows)
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        ends = np.r_[starts[1:], len(rows)]
        in_time = np.argsort(rows.take(ends - 1), kind="stable")  # lists are in order of the last update
        held, sources = np.divmod(keys.take(starts), addresses)
        hosts, numbers = np.divmod(held, len(self.program.recent_lists))
        of_entry = [column.take(in_time).tolist() for column in (hosts, numbers, sources, starts, ends)]
        for host, number, source, start, end in zip(*of_entry, strict=True):
            entries = self.state.entries(host, number)
            stamps = entries.get(source)
            if stamps is None:
                stamps = entries[source] = deque(maxlen=STAMPS)
            else:
                entries.move_to_end(source)
            stamps.extend(time_ps[max(start, end - STAMPS) : end].tolist())


def _by_key(keys: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the order by key, and by row where keys are equal."""
    if (rows[1:] > rows[:-1]).all():
        return np.argsort(keys, kind="stable")
    by_row = np.argsort(rows, kind="stable")
    return by_row.take(np.argsort(keys.take(by_row), kind="stable"))
