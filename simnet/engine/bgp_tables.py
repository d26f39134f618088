"""A device's table while the control plane runs, and tables that devices in the same place have in common.

A node with one BGP session holds what its peer tells all nodes like it: such tables are one log of changes, made once.
What a node holds alone (its own blocks, pods, connected routes) stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from simnet.controlplane.bgp.decision import Decisions, IgpMetric
from simnet.controlplane.bgp.path import Path, Peering, Speaker
from simnet.controlplane.bgp.policy import import_path
from simnet.controlplane.bgp.steady import RoutePlan
from simnet.controlplane.bgp.update_group import OfferChange, Paths, UpdateGroup
from simnet.model.fib import Fib, Route, RouteKind, Way, lead_alike
from simnet.model.iptables.ruleset import IPNetwork
from simnet.model.table_log import RouteLog, TableLog, fib_of


class DeviceTable:
    """A device's routes: those that need no BGP, and those that BGP brought; the former count first."""

    def __init__(self, fib: Fib, *, is_cold: bool) -> None:
        self.device = fib.device
        self._base: dict[IPNetwork, Route] = {}
        self._learned: dict[IPNetwork, Route | Way] = {}
        for route in fib.routes:
            if route.kind is not RouteKind.VIA or route.protocol != "bird":
                self._base[route.prefix] = route
            elif not is_cold:  # BGP brought it
                self._learned[route.prefix] = route
        self.start = fib_of(self.device, self._base) if is_cold else fib
        self._log: TableLog | None = None  # made when the table first changes
        self._before: dict[IPNetwork, Route | Way | None] = {}  # of the prefixes touched since the table was written
        self.part: Callable[[], None] | None = None  # where its learned routes are shared: makes them its own

    @property
    def base(self) -> dict[IPNetwork, Route]:
        """Routes that need no BGP; changed by `hold` only."""
        return self._base

    @property
    def learned(self) -> dict[IPNetwork, Route | Way]:
        """Routes that BGP brought; changed by `learn` only."""
        if self.part is not None:
            self.part()
        return self._learned

    @property
    def has_learned(self) -> bool:
        """Whether there are routes of its own that BGP brought, or were a moment ago."""
        return bool(self._learned or self._before)

    def hold(self, prefix: IPNetwork, route: Route | None) -> None:
        """Have a route that needs no BGP; None: no longer."""
        self._touch(prefix, self.learned)
        if route is None:
            self._base.pop(prefix, None)
        else:
            self._base[prefix] = route

    def learn(self, prefixes: Iterable[IPNetwork], way: Way | None) -> None:
        """Have a route that BGP brought for each of these; None: no longer."""
        learned = self.learned
        for prefix in prefixes:
            self._touch(prefix, learned)
            if way is None:
                learned.pop(prefix, None)
            else:
                learned[prefix] = way

    def _touch(self, prefix: IPNetwork, learned: dict[IPNetwork, Route | Way]) -> None:
        if self._log is None:
            self._log = TableLog(self.device, RouteLog({**learned, **self._base}))
        if prefix not in self._before:
            self._before[prefix] = self._base.get(prefix) or learned.get(prefix)

    def written(self) -> tuple[TableLog, int] | None:
        """Return the table as it is now if it changed since it was last asked for, else None."""
        if self._log is None or not self._before:
            return None
        delta = {}
        for prefix, before in self._before.items():
            now = self._base.get(prefix) or self._learned.get(prefix)
            if not lead_alike(before, now):
                delta[prefix] = now
        self._before.clear()
        return (self._log, self._log.log.change(delta)) if delta else None

    def share(self, log: RouteLog, own: Iterable[IPNetwork], part: Callable[[], None]) -> TableLog:
        """Have the learned routes of a shared log, but for the prefixes of its own; `part` undoes it."""
        assert not self.has_learned
        self.part, self._log = part, None
        return TableLog(self.device, log, self._base, own)

    def have_alone(self, learned: dict[IPNetwork, Route | Way]) -> None:
        """End the sharing with these routes."""
        self.part, self._learned = None, learned


class SharedRoutes:
    """What the log of an update group makes of the tables of nodes with one peer, in the same place.

    The routes of all that the group was told; a node does without those to prefixes of its own, the only ones that
    depend on which node it is.
    """

    def __init__(
        self, group: UpdateGroup, plan: RoutePlan, sender: Speaker, nodes: Sequence[tuple[Speaker, Peering, IgpMetric]]
    ) -> None:
        self.group, self.log = group, RouteLog({})
        self._plan, self._sender = plan, sender
        speaker, self._peering, metric = nodes[0]
        self._speaker = Speaker("", speaker.as_number, -1)  # whose router id no path names
        self._decisions = Decisions(self._speaker, metric)
        self._seen_from = [(each.name, peering.local_address) for each, peering, _ in nodes[:2]]
        self._ways: dict[Paths, tuple[Path, ...]] = {}

    def catch_up(self, number: int) -> None:
        """Work out the routes up to an entry of the group's log."""
        for offers in self.group.log[len(self.log) : number]:
            delta: dict[IPNetwork, Way | None] = {}
            for prefixes, before, now in self._ways_of(offers):
                if not lead_alike(before, now):
                    delta.update(dict.fromkeys(prefixes, now))
            self.log.change(delta)

    def changes(self, table: TableLog, start: int, end: int) -> bool:
        """Whether a table is another after entry `end` of the group's log than after entry `start`."""
        if end == start + 1:
            return table.changes(self.log.delta(end))
        before: dict[IPNetwork, Way | None] = {}
        now: dict[IPNetwork, Way | None] = {}
        for offers in self.group.log[start:end]:
            for prefixes, was, way in self._ways_of(offers):
                for prefix in prefixes:
                    before.setdefault(prefix, was)
                    now[prefix] = way
        return table.changes([prefix for prefix, way in now.items() if not lead_alike(before[prefix], way)])

    def _ways_of(self, offers: list[OfferChange]) -> Iterable[tuple[Sequence[IPNetwork], Way | None, Way | None]]:
        name = self._seen_from[0][0]
        for change in offers:
            before, now = self._chosen(change.before.paths), self._chosen(change.now.paths)
            for treatment, prefixes in self._plan.treatments(name, change.prefixes):
                yield (
                    prefixes,
                    self._plan.way_of_paths(self._from(before), treatment, before),
                    self._plan.way_of_paths(self._from(now), treatment, now),
                )

    def _chosen(self, told: Paths) -> Paths:
        if told not in self._ways:
            taken = [import_path(self._speaker, self._peering, self._sender, path) for path in told]
            self._ways[told] = self._decisions.choose([path for path in taken if isinstance(path, Path)])
        return self._ways[told]

    def _from(self, chosen: Paths) -> str:
        """A node of these that is not itself the next hop."""
        (name, address), *other = self._seen_from
        return other[0][0] if other and any(path.next_hop == address for path in chosen) else name
