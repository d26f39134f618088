"""Speakers that exchange all they have, without time, until nobody has anything more to tell.

The same speakers as in simulated time, so a run can begin where they end; `network.converge` says the same in rounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial

from simnet.controlplane.bgp.network import BgpNetwork
from simnet.controlplane.bgp.path import Peering
from simnet.controlplane.bgp.speaker import SpeakerTables
from simnet.controlplane.bgp.update_group import Paths, Update
from simnet.errors import ModelError
from simnet.model.iptables.ruleset import IPNetwork

MOST_TURNS = 200  # of a speaker, on average; a chain of as many speakers is the longest that needs them


def settled(
    network: BgpNetwork, originated: Mapping[str, Sequence[IPNetwork]]
) -> dict[str, dict[IPNetwork, Paths]]:  # fmt: skip
    """Return each speaker's Loc-RIB: by prefix, the best path and those merged with it.

    `originated`: the prefixes that each speaker tells of by itself.
    """
    tables = {
        name: SpeakerTables(speaker, partial(network.igp_metric, name)) for name, speaker in network.speakers.items()
    }
    ends: dict[str, dict[str, Peering]] = {name: {} for name in tables}
    for peering in network.peerings:
        ends[peering.local][peering.remote] = peering
    for name, table in tables.items():
        for prefix in originated.get(name, ()):
            table.originate(prefix)
        table.decide()
    settle(tables, ends)
    return {name: table.loc_rib for name, table in tables.items()}


def settle(tables: Mapping[str, SpeakerTables], ends: Mapping[str, Mapping[str, Peering]]) -> None:
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
        name = queue.popleft()
        del waiting[name]
        changed = tables[name].decide()
        if changed:
            for peer, peering in ends[name].items():
                tell(name, peer, tables[name].update_for(peering, changed))
