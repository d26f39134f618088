"""A history of tables read route by route: which box knew which route when, and what each event has to do with it.

An event's window is the span of time in which it may do harm: from its start until it is undone and every table that
changed because of it is as it was. Source: docs/models/events.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet.controlplane.bgp.timers import DAEMON_START_PS
from simnet.model.events import Event, EventKind
from simnet.model.fib import Fib, Route
from simnet.model.history import NO_EVENT, TableHistory
from simnet.model.iptables.ruleset import IPNetwork, Ruleset

NEVER = int(np.iinfo(np.int64).max)
RULES = "rules"  # what changed, where it is no route


@dataclass(frozen=True, slots=True)
class TableChange:
    """One route of one box, or a node's rules: what it was and what it is from an instant on."""

    time_ps: int
    event: int  # NO_EVENT: none
    box: str
    prefix: IPNetwork | None  # None: the node's rules
    before: Route | tuple[Ruleset, ...] | None
    after: Route | tuple[Ruleset, ...] | None

    @property
    def what(self) -> str:
        """In a word: learned, lost, next hops or rules."""
        if self.prefix is None:
            return RULES
        if self.before is None:
            return "learned"
        return "lost" if self.after is None else "next hops"


@dataclass(frozen=True, slots=True)
class EventSpan:
    """What an event did to tables, and when. Times are instants, picoseconds; None: it never was."""

    event: Event
    end_ps: int | None  # undone
    noticed_ps: int | None  # first table changed
    withdrawn_ps: int | None  # last table changed before the end
    repaired_ps: int | None  # undone, and the last table changed after that
    boxes: int
    routes: int
    rules: int
    not_restored: int

    @property
    def window_end_ps(self) -> int:
        """When its window ends; NEVER: not before all is over."""
        return NEVER if self.repaired_ps is None else self.repaired_ps


def table_changes(history: TableHistory, rules: Mapping[str, tuple[Ruleset, ...]]) -> list[TableChange]:
    """Return every change of a route or of a node's rules, in order of time. `rules`: those of the start, by node."""
    found: list[TableChange] = []
    tables = dict(history.start)
    for each in history.fibs:
        for before, after in _differences(tables[each.device], each.fib):
            route = after or before
            assert route is not None
            found.append(TableChange(each.time_ps, each.event, each.device, route.prefix, before, after))
        tables[each.device] = each.fib
    held = dict(rules)
    for change in history.rules:
        before_rules = held.get(change.node)
        if before_rules != change.rulesets:
            found.append(TableChange(change.time_ps, change.event, change.node, None, before_rules, change.rulesets))
        held[change.node] = change.rulesets
    return sorted(found, key=lambda change: change.time_ps)


def _differences(before: Fib, after: Fib) -> Iterator[tuple[Route | None, Route | None]]:
    """The routes in which two tables differ. Most routes are the same objects in both, and cost next to nothing."""
    held, kept = set(map(id, before.routes)), set(map(id, after.routes))
    gone = {route.prefix: route for route in before.routes if id(route) not in kept}
    for route in after.routes:
        if id(route) not in held:
            old = gone.pop(route.prefix, None)
            if old != route:
                yield old, route
    for old in gone.values():
        yield old, None


def event_spans(events: Sequence[Event], changes: Sequence[TableChange], *, duration_ps: int) -> tuple[EventSpan, ...]:
    """Return what each event did to tables. `changes` in order of time, known until `duration_ps`."""
    mine: list[list[TableChange]] = [[] for _ in events]
    for change in changes:
        if change.event != NO_EVENT:
            mine[change.event].append(change)
    return tuple(_span(event, own, duration_ps) for event, own in zip(events, mine, strict=True))


def _span(event: Event, changes: Sequence[TableChange], duration_ps: int) -> EventSpan:
    end_ps = event.until_ps
    if end_ps is None and event.kind is EventKind.BGP_RESTARTS:
        end_ps = event.at_ps + DAEMON_START_PS
    until_ps = NEVER if end_ps is None else end_ps
    first: dict[tuple[str, IPNetwork | None], TableChange] = {}
    last: dict[tuple[str, IPNetwork | None], TableChange] = {}
    for change in changes:
        first.setdefault((change.box, change.prefix), change)
        last[change.box, change.prefix] = change
    not_restored = sum(last[entry].after != change.before for entry, change in first.items())
    down = [change.time_ps for change in changes if change.time_ps < until_ps]
    repaired_ps = None
    if until_ps <= duration_ps and not not_restored:
        repaired_ps = max([until_ps, *(change.time_ps for change in changes)])
    return EventSpan(
        event,
        end_ps,
        noticed_ps=changes[0].time_ps if changes else None,
        withdrawn_ps=down[-1] if down else None,
        repaired_ps=repaired_ps,
        boxes=len({change.box for change in changes}),
        routes=sum(prefix is not None for _, prefix in first),
        rules=sum(prefix is None for _, prefix in first),
        not_restored=not_restored,
    )


class Windows:
    """Which event an instant belongs to: the latest begun one whose window covers it. Events in order of start."""

    def __init__(self, begin_ps: Sequence[int], end_ps: Sequence[int]) -> None:
        self.begin_ps = np.array(begin_ps, dtype=np.int64)
        end = np.array(end_ps, dtype=np.int64)
        self.edges_ps = np.unique(np.concatenate([self.begin_ps, end]))
        self._owner = np.full(len(self.edges_ps) + 1, NO_EVENT, dtype=np.int64)
        spans = zip(*(np.searchsorted(self.edges_ps, edge) + 1 for edge in (self.begin_ps, end)), strict=True)
        for number, (first, last) in enumerate(spans):
            self._owner[first:last] = number  # over those that began before

    def at(self, time_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the event of each instant; NO_EVENT: in no window."""
        return self._owner[np.searchsorted(self.edges_ps, time_ps, side="right")]

    def of_loss(
        self, ended_ps: NDArray[np.int64], sent_ps: NDArray[np.int64], is_reset: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Return the event that each loss belongs to: int64[n].

        That of the instant at which the packet ended, else of that at which it was sent. A reset comes to light when
        the client next sends, which may be long after: outside of windows it belongs to the latest event begun.
        """
        owner = self.at(ended_ps)
        outside = np.flatnonzero(owner == NO_EVENT)
        owner[outside] = self.at(sent_ps[outside])
        late = np.flatnonzero((owner == NO_EVENT) & is_reset)
        owner[late] = np.searchsorted(self.begin_ps, ended_ps[late], side="right") - 1
        return owner


class Causes:
    """Which event the latest change follows from that lies between two instants."""

    def __init__(self, history: TableHistory) -> None:
        pairs = [(fib.time_ps, fib.event) for fib in history.fibs]
        pairs += [(rules.time_ps, rules.event) for rules in history.rules]
        pairs += [(link.time_ps, link.event) for link in history.links]
        pairs += [(device.time_ps, device.event) for device in history.devices]
        pairs += [(pod.time_ps, pod.event) for pod in history.pods]
        pairs.sort()
        self._time_ps = np.array([-1, *(time_ps for time_ps, _ in pairs)], dtype=np.int64)
        self._event = np.array([NO_EVENT, *(event for _, event in pairs)], dtype=np.int64)

    def between(self, after_ps: NDArray[np.int64], until_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the event of the latest change after one instant, up to another; NO_EVENT: there is none."""
        latest = np.searchsorted(self._time_ps, until_ps, side="right") - 1
        return np.where(self._time_ps[latest] > after_ps, self._event[latest], NO_EVENT)
