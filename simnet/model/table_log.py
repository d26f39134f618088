"""A device's table as the changes that made it: what a table is after any number of them is worked out when asked.

A network that comes up changes each table a thousand times by a few routes; a table of its own for each change would be
most of the memory of a run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping

from simnet.model.fib import Fib, Route, Way, print_order
from simnet.model.iptables.ruleset import IPNetwork

Delta = Mapping[IPNetwork, Route | Way | None]  # None: the prefix has no route any more


class RouteLog:
    """Routes by prefix and how they change; `routes(n)` is what they are after the first n changes."""

    def __init__(self, start: Mapping[IPNetwork, Route | Way]) -> None:
        self._start = dict(start)
        self._deltas: list[Delta] = []
        self._number, self._routes = 0, dict(self._start)
        self._ordered: tuple[int, list[tuple[int, int, int]], list[Route]] | None = None

    def __len__(self) -> int:
        return len(self._deltas)

    def change(self, delta: Delta) -> int:
        """Add a change; return how many there are now. The delta is kept and must not be written to."""
        self._deltas.append(delta)
        return len(self._deltas)

    def delta(self, number: int) -> Delta:
        """Return the change by which the first `number` end."""
        return self._deltas[number - 1]

    def routes(self, number: int) -> Mapping[IPNetwork, Route | Way]:
        """Return the routes after `number` changes; asking in order costs what changed, going back all that did.

        The mapping is the log's own: it is valid until the next question.
        """
        if number < self._number:
            self._number, self._routes = 0, dict(self._start)
        routes = self._routes
        for delta in self._deltas[self._number : number]:
            for prefix, route in delta.items():
                if route is None:
                    routes.pop(prefix, None)
                else:
                    routes[prefix] = route
        self._number = number
        return routes

    def in_print_order(self, number: int) -> tuple[list[tuple[int, int, int]], list[Route]]:
        """Return the routes after `number` changes as `ip route` prints them, with the keys that order them."""
        if self._ordered is None or self._ordered[0] != number:
            self._ordered = (number, *_in_print_order(self.routes(number)))
        return self._ordered[1:]


class TableLog:
    """A device's table and how it changes: a log of its own, or one that several devices share.

    `base`: routes of the device alone, which count before the log's; `hidden`: prefixes of the log that it does not
    have at all.
    """

    __slots__ = ("_apart", "base", "device", "log")

    def __init__(
        self,
        device: str,
        log: RouteLog,
        base: Mapping[IPNetwork, Route | Way] | None = None,
        hidden: Iterable[IPNetwork] = (),
    ) -> None:
        self.device, self.log, self.base = device, log, dict(base or {})
        self._apart = frozenset({*self.base, *hidden})

    def changes(self, prefixes: Collection[IPNetwork]) -> bool:
        """Whether a change of these in the log is one of this table."""
        apart = self._apart
        return len(prefixes) > len(apart) or any(prefix not in apart for prefix in prefixes)

    def visible(self, number: int) -> dict[IPNetwork, Route | Way]:
        """Return the routes of the log that the device has."""
        return {prefix: route for prefix, route in self.log.routes(number).items() if prefix not in self._apart}

    def fib(self, number: int) -> Fib:
        """Return the table after `number` changes of the log, as `ip route` prints it."""
        keys, routes = self.log.in_print_order(number)
        if self._apart:
            keys, routes = keys.copy(), routes.copy()
            for prefix in self._apart:
                key = print_order(prefix)
                at = bisect_left(keys, key)
                if at < len(keys) and keys[at] == key:
                    del keys[at], routes[at]
                route = self.base.get(prefix)
                if route is not None:
                    keys.insert(at, key)
                    routes.insert(at, route.to(prefix) if isinstance(route, Way) else route)
        return Fib(self.device, tuple(routes))


def fib_of(device: str, routes: Mapping[IPNetwork, Route | Way]) -> Fib:
    """Return a device's table of these routes."""
    return Fib(device, tuple(_in_print_order(routes)[1]))


def _in_print_order(routes: Mapping[IPNetwork, Route | Way]) -> tuple[list[tuple[int, int, int]], list[Route]]:
    ordered = sorted((print_order(prefix), prefix) for prefix in routes)
    found = (routes[prefix] for _, prefix in ordered)
    keys = [key for key, _ in ordered]
    return keys, [
        route.to(prefix) if isinstance(route, Way) else route for route, (_, prefix) in zip(found, ordered, strict=True)
    ]
