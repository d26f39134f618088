"""Speakers that exchange all they have, without time, until nobody has anything more to tell.

The same speakers as in simulated time, so a run can begin where they end; `network.converge` says the same in rounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial

from simnet.controlplane.bgp.network import BgpNetwork
from simnet.controlplane.bgp.path import Peering
from simnet.controlplane.bgp.speaker import SpeakerTables
from simnet.controlplane.bgp.update_group import Paths, Update
from simnet.errors import ModelError
from simnet.model.iptables.ruleset import IPNetwork

MOST_TURNS = 200  # of a speaker, on average; a chain of as many speakers is the longest that needs them


class Order(Enum):
    """Who speaks next, among those that have heard something new: any of these may be how messages happen to travel."""

    AS_LISTED = "the one that waits longest"
    BACKWARDS = "the one that waits longest, the last listed first"
    NEWEST_FIRST = "the one that heard last"
    NEWEST_FIRST_BACKWARDS = "the one that heard last, the first listed at the end"


def settled(
    network: BgpNetwork, originated: Mapping[str, Sequence[IPNetwork]], order: Order = Order.AS_LISTED
) -> dict[str, dict[IPNetwork, Paths]]:
    """Return each speaker's Loc-RIB: by prefix, the best path and those merged with it.

    `originated`: the prefixes that each speaker tells of by itself.
    """
    names = list(network.speakers)
    if order in (Order.BACKWARDS, Order.NEWEST_FIRST_BACKWARDS):
        names.reverse()
    tables = {name: SpeakerTables(network.speakers[name], partial(network.igp_metric, name)) for name in names}
    ends: dict[str, dict[str, Peering]] = {name: {} for name in tables}
    for peering in network.peerings:
        ends[peering.local][peering.remote] = peering
    for name, table in tables.items():
        for prefix in originated.get(name, ()):
            table.originate(prefix)
        table.decide()
    settle(tables, ends, newest_first=order in (Order.NEWEST_FIRST, Order.NEWEST_FIRST_BACKWARDS))
    return {name: table.loc_rib for name, table in tables.items()}


def depends_on_order(
    network: BgpNetwork, originated: Mapping[str, Sequence[IPNetwork]]
) -> dict[str, tuple[IPNetwork, ...]]:
    """Return, by speaker, the prefixes for which its choice depends on which messages come first.

    BGP promises one outcome only where all speakers rank paths alike; reflectors that rank by the way to the next hop
    do not (RFC 4456, 5; RFC 3345). Four orders are tried: what is found depends on them, what is not found may still.
    """
    outcomes = [settled(network, originated, order) for order in Order]
    found = {}
    for name in network.speakers:
        choices = [outcome[name] for outcome in outcomes]
        prefixes = {prefix for choice in choices for prefix in choice}
        open_ones = [prefix for prefix in prefixes if len({choice.get(prefix, ()) for choice in choices}) > 1]
        if open_ones:
            found[name] = tuple(sorted(open_ones, key=lambda each: (int(each.network_address), each.prefixlen)))
    return found


def settle(
    tables: Mapping[str, SpeakerTables], ends: Mapping[str, Mapping[str, Peering]], *, newest_first: bool = False
) -> None:
    """Exchange everything, speaker after speaker in the order in which they hear something new.

    `ends`: by speaker and peer, the speaker's end of the session. Raises ModelError where it does not end: reflectors
    and filters can be laid out so that speakers change their minds for ever (RFC 3345).
    """
    turns = MOST_TURNS * len(tables)
    waiting = dict.fromkeys(tables)
    queue = deque(waiting)

    def tell(sender: str, receiver: str, update: Update | None) -> None:
        if update is not None and update.changes:
            tables[receiver].receive(ends[receiver][sender], tables[sender].speaker, update.changes)
            if receiver not in waiting:
                waiting[receiver] = None
                queue.append(receiver)

    for name, table in tables.items():
        for peer, peering in ends[name].items():
            tell(name, peer, table.adj_rib_out(peering))
    while queue:
        turns -= 1
        if not turns:
            raise ModelError(f"BGP does not settle: {', '.join(list(waiting)[:4])} still change their choice")
        name = queue.pop() if newest_first else queue.popleft()
        del waiting[name]
        changed = tables[name].decide()
        if changed:
            for peer, peering in ends[name].items():
                tell(name, peer, tables[name].update_for(peering, changed))
