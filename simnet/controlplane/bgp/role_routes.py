"""Tables of nodes that learn the same: put in order once, and each node's own routes put between them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from simnet.model.fib import Route, print_order
from simnet.model.iptables.ruleset import IPNetwork


class LearnedRoutes:
    """Routes that BGP brings to all nodes of a role, in print order; each has them but for those to what it owns."""

    def __init__(self, told: Iterable[tuple[str, Route]]) -> None:
        ordered = sorted(told, key=lambda each: print_order(each[1].prefix))
        self._keys = [print_order(route.prefix) for _, route in ordered]
        self._owners, self._routes = [owner for owner, _ in ordered], [route for _, route in ordered]
        self._at: dict[str, list[int]] = {}  # by owner
        for i, owner in enumerate(self._owners):
            self._at.setdefault(owner, []).append(i)

    def beside(self, others: Sequence[Route], owner: str, hidden: Iterable[IPNetwork]) -> list[Route]:
        """Return them and a node's other routes, which come first where prefixes are equal; without those hidden."""
        left_out = set(self._at.get(owner, ()))
        for prefix in hidden:
            key = print_order(prefix)
            left_out.update(range(bisect_left(self._keys, key), bisect_right(self._keys, key)))
        parts, done = list[Route](), 0
        inserted = [(bisect_left(self._keys, print_order(route.prefix)), 0, route) for route in others]
        for at, _, route in sorted([*inserted, *((i, 1, None) for i in left_out)], key=lambda each: each[:2]):
            parts += self._routes[done:at]
            done = at
            if route is None:
                done += 1
            else:
                parts.append(route)
        return parts + self._routes[done:]


def in_print_order(routes: Iterable[Route]) -> list[Route]:
    """Return routes as `ip route` lists them."""
    return sorted(routes, key=lambda route: print_order(route.prefix))
