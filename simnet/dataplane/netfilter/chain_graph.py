"""Which chain leads to which: an order in which callees come first, the deepest nesting, and loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simnet.dataplane.netfilter.program import slot_of


class GraphOfUnits:
    """All hosts' chains at once: units lead to units and slots, slots to every unit that they may mean."""

    def __init__(self, leads_to: Sequence[Sequence[int]], slot_units: Sequence[Sequence[int]]) -> None:
        """`leads_to`: per unit, targets as `Program.slot_pc` explains them; `slot_units`: per slot."""
        count = len(leads_to)
        edges = [[count + slot_of(target) if target < 0 else target for target in targets] for targets in leads_to]
        edges.extend(list(units) for units in slot_units)
        order, _, loops = _depth_first(edges)
        self.order = [node for node in order if node < count]  # units, callees before callers
        self.has_loop = bool(loops)
        # a slot is no chain: it is not entered, so it is as deep as the deepest of its units
        nesting = [0] * len(edges)
        if not loops:
            for node in order:
                below = max((nesting[other] for other in edges[node]), default=0)
                nesting[node] = below + (node < count)
        self.depth = max(nesting, default=1)


def loops_of(leads_to: Mapping[str, Sequence[str]]) -> tuple[list[tuple[str, str]], int]:
    """Return (jumps that close a loop, the longest row of chains) of one host's table."""
    numbers = {name: number for number, name in enumerate(leads_to)}
    names = list(leads_to)
    edges = [[numbers[callee] for callee in callees if callee in numbers] for callees in leads_to.values()]
    _, depth, loops = _depth_first(edges)
    return [(names[caller], names[callee]) for caller, callee in loops], max(depth, default=1)


def _depth_first(edges: Sequence[Sequence[int]]) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Return (nodes, what they lead to first; each node's longest way down, itself counted; edges closing a loop)."""
    order: list[int] = []
    depth = [0] * len(edges)  # 0: not left yet
    is_entered = [False] * len(edges)
    loops: list[tuple[int, int]] = []
    for root in range(len(edges)):
        if is_entered[root]:
            continue
        is_entered[root] = True
        stack = [(root, 0)]
        while stack:
            node, at = stack[-1]
            targets = edges[node]
            while at < len(targets) and is_entered[targets[at]]:
                if depth[targets[at]] == 0:
                    loops.append((node, targets[at]))
                at += 1
            if at < len(targets):
                stack[-1] = (node, at + 1)
                is_entered[targets[at]] = True
                stack.append((targets[at], 0))
                continue
            stack.pop()
            depth[node] = 1 + max((depth[other] for other in targets), default=0)
            order.append(node)
    return order, depth, loops
