"""Speakers with one session, which hold what their peer tells its whole update group: their tables are shared.

Once such a speaker has been told everything in one go, its Adj-RIB-In is the group's log up to an entry. Whatever asks
for tables of its own (a lost session, a change of its prefixes, a restart) gets them, made from the log; the node
shares again after the next session came up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from simnet.controlplane.bgp.path import Peering
from simnet.controlplane.bgp.steady import RoutePlan
from simnet.controlplane.bgp.update_group import Update
from simnet.engine.bgp_boxes import Box, End
from simnet.engine.bgp_tables import SharedRoutes
from simnet.model.table_log import TableLog


@dataclass(eq=False, slots=True)
class Follower:
    """A speaker that may share its tables; it does while `table` is there."""

    box: Box
    end: End
    routes: SharedRoutes
    table: TableLog | None = field(init=False, default=None)
    number: int = field(init=False, default=0)  # entries of the group's log that it has handled
    rules: Peering = field(init=False)  # that it shares under

    def __post_init__(self) -> None:
        self.rules = self.end.peering

    def may_handle(self, updates: Sequence[Update]) -> bool:
        """Whether what came in leaves it with what its whole group was told."""
        group, box = self.routes.group, self.box
        is_whole = self.table is None
        if is_whole and (not updates or not box.own_tables.is_blank or box.table.has_learned):
            return False
        if self.end.peering is not self.rules:
            return False
        for update in updates:
            if update.group is not group or update.is_whole is not is_whole:
                return False
            is_whole = False
        return True

    def handle(self, updates: Sequence[Update]) -> tuple[TableLog, int] | None:
        """Take UPDATEs of the group; return the device's table if it is another now."""
        if not updates:
            return None
        routes, before = self.routes, self.number
        number = updates[-1].number
        routes.catch_up(number)
        self.number = number
        if self.table is None:
            self.table = self.box.table.share(routes.log, self.box.own_tables.own, self.part)
            self.box.shares = True
            is_changed = self.table.changes(routes.log.routes(number).keys())
        else:
            is_changed = number > before and routes.changes(self.table, before, number)
        return (self.table, number) if is_changed else None

    def part(self) -> None:
        """Give the speaker tables of its own, as if it had shared nothing."""
        assert self.table is not None
        table, self.table, self.box.shares = self.table, None, False
        self.box.table.have_alone(table.visible(self.number))
        offered = self.routes.group.offered(self.number)
        told = {prefix: paths for prefix, offer in offered.items() if (paths := offer.to(self.box.name))}
        self.box.own_tables.receive(self.end.peering, self.end.twin.box.speaker, told)
        self.box.own_tables.decide()


def let_share(boxes: list[Box], plan: RoutePlan) -> None:
    """Make followers of the speakers that can be: one session, with a speaker that has others, and one family.

    Call it before any speaker has chosen anything: the logs begin with nothing.
    """
    if plan.wrapping.encapsulations:
        return  # whether a packet is wrapped depends on the node's own subnet
    alike: dict[object, list[tuple[Box, End]]] = {}
    families: dict[str, int] = {}
    for box in boxes:
        families[box.name] = families.get(box.name, 0) + 1
    for box in boxes:
        if len(box.ends) == 1 and families[box.name] == 1 and box.speaker.cluster_id is None:
            (end,) = box.ends.values()
            twin = end.twin
            if len(twin.box.ends) > 1 and not end.peering.filters:
                group = twin.box.own_tables.log_group_of(twin.peering)
                like = replace(end.peering, local="", local_address="", aggregated=frozenset())
                is_node = box.name in plan.nodes
                key = id(group), like, box.speaker.as_number, is_node, plan.topology.role_of(box.name)
                alike.setdefault(key, []).append((box, end))
    for members in alike.values():
        _, end = members[0]
        twin = end.twin
        routes = SharedRoutes(
            twin.box.own_tables.log_group_of(twin.peering), plan, twin.box.speaker,
            [(box.speaker, mine.peering, box.own_tables.igp_metric) for box, mine in members[:2]],
        )  # fmt: skip
        for box, mine in members:
            box.follower = Follower(box, mine, routes)
