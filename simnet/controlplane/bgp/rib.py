"""What one speaker holds and why: every path that its peers told it, which it chose, and what was kept from whom.

Found by the exchange of `network.converge`, not by the tables of `steady`; a test holds the two together. In a large
mesh where no node can pass on what it brought (S2, one AS), only the mesh sessions that end at the speaker are looked
at: what it holds is the same, but that other nodes kept the mesh's paths back is then not listed.
Source: RFC 4271, 9.1 and 9.2; RFC 4456.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from simnet.controlplane.bgp.decision import IgpMetric, deciding_clause, select_paths
from simnet.controlplane.bgp.network import BgpNetwork, converge
from simnet.controlplane.bgp.path import Learned, Path, Withheld
from simnet.controlplane.bgp.policy import export_path, import_path, refused, withheld
from simnet.model.iptables.ruleset import IPNetwork

_LARGE_MESH = 2_000  # ends of sessions


@dataclass(frozen=True, slots=True)
class RibPath:
    """A path that a speaker holds, or that it refused (`is_valid` False)."""

    path: Path  # as it is held; a refused one as the peer told it
    peer: str  # empty: the speaker's own
    why: str  # the clause that chose it, or that did not
    is_best: bool = False
    is_multipath: bool = False  # merged with the best into one ECMP route, the best included where there are several
    is_valid: bool = True
    is_stale: bool = False  # kept while the peer restarts (RFC 4724)


@dataclass(frozen=True, slots=True)
class RibEntry:
    """All paths to a prefix: the best first, then those merged with it, the others, the refused."""

    prefix: IPNetwork
    paths: tuple[RibPath, ...]


@dataclass(frozen=True, slots=True)
class Untold:
    """A prefix that `sender` did not tell `receiver`, and the rule that withheld it."""

    prefix: IPNetwork
    sender: str
    receiver: str
    rule: str


@dataclass(frozen=True, slots=True)
class Rib:
    """One speaker's view."""

    speaker: str
    as_number: int
    router_id: int
    entries: tuple[RibEntry, ...]  # by address, shorter prefixes first
    untold: tuple[Untold, ...]  # by the speaker, and to it


def rib_of(network: BgpNetwork, originated: Mapping[str, Sequence[IPNetwork]], name: str) -> Rib:
    """Return what the speaker `name` holds once the network has converged.

    `originated`: the prefixes that each speaker tells of by itself. What a peer learned from the speaker itself and
    does not send back is not listed as untold. Raises KeyError for a speaker that the network does not have.
    """
    seen = _as_seen_from(network, name)
    return _rib(seen, name, originated.get(name, ()), converge(seen, originated), None)


@dataclass(frozen=True, slots=True)
class Held:
    """What a speaker has been told by an instant."""

    adj_rib_in: Mapping[IPNetwork, Mapping[str, Sequence[Path]]]  # by prefix, then peer
    stale: Mapping[str, Collection[IPNetwork]]  # by peer that restarts gracefully


def rib_at(
    network: BgpNetwork,
    name: str,
    own: Collection[IPNetwork],
    loc_rib: Mapping[str, Mapping[IPNetwork, tuple[Path, ...]]],
    held: Held,
) -> Rib:
    """Return what the speaker `name` holds at an instant.

    `network`: with the sessions that stand, and no others. `own`: the prefixes that it tells of by itself. `loc_rib`:
    what it and its peers have chosen.
    """
    return _rib(network, name, own, loc_rib, held)


def _rib(
    seen: BgpNetwork,
    name: str,
    own: Collection[IPNetwork],
    loc_rib: Mapping[str, Mapping[IPNetwork, tuple[Path, ...]]],
    known: Held | None,
) -> Rib:
    """Return what a speaker holds. `known` None: what its peers tell it has come in, and it has chosen."""
    me = seen.speakers[name]
    ends = {(peering.local, peering.remote): peering for peering in seen.peerings}
    held: dict[IPNetwork, list[Path]] = {}
    kept_out: dict[IPNetwork, list[RibPath]] = {}
    untold: list[Untold] = []
    for peering in seen.peerings:
        if peering.remote != name and peering.local != name:
            continue
        sender = seen.speakers[peering.local]
        for prefix, best in loc_rib[peering.local].items():
            told = withheld(peering, prefix, best[0]) or export_path(sender, peering, best[0])
            if isinstance(told, Withheld):
                if best[0].peer != peering.remote:
                    untold.append(Untold(prefix, peering.local, peering.remote, told.reason))
            elif peering.remote == name:
                far_end = ends[name, peering.local]
                taken = refused(far_end, prefix, told) or import_path(me, far_end, sender, told)
                if isinstance(taken, Path):
                    if known is None:
                        held.setdefault(prefix, []).append(taken)
                else:
                    kept_out.setdefault(prefix, []).append(RibPath(told, sender.name, taken.reason, is_valid=False))
    for prefix, by_peer in known.adj_rib_in.items() if known else ():
        held[prefix] = [path for paths in by_peer.values() for path in paths]
    for prefix in own:
        held.setdefault(prefix, []).insert(0, Path())

    def metric(next_hop: str) -> int | None:
        return seen.igp_metric(name, next_hop)

    entries = []
    for prefix in sorted({*held, *kept_out}, key=lambda p: (p.version, int(p.network_address), p.prefixlen)):
        paths = held.get(prefix, [])
        if known is None:
            chosen: tuple[Path, ...] = select_paths(me, paths, metric) if paths else ()
        else:  # it may not have decided yet
            chosen = tuple(paths[paths.index(path)] for path in loc_rib[name].get(prefix, ()) if path in paths)
        others = [path for path in paths if chosen and path is not chosen[0]]
        runner_up = (select_paths(me, others, metric) or others)[0] if others else None
        rows = [_row(path, chosen, runner_up, me.ecmp_width, metric) for path in paths]
        if known is not None:
            rows = [
                replace(row, is_stale=prefix in known.stale.get(row.peer, ())) if row.peer in known.stale else row
                for row in rows
            ]
        rows.sort(key=lambda row: chosen.index(row.path) if row.path in chosen else len(chosen))
        entries.append(RibEntry(prefix, (*rows, *kept_out.get(prefix, ()))))
    order = {prefix: i for i, prefix in enumerate(p.prefix for p in entries)}
    untold.sort(key=lambda each: (order.get(each.prefix, len(order)), each.sender, each.receiver))
    return Rib(name, me.as_number, me.router_id, tuple(entries), tuple(untold))


def _row(path: Path, chosen: tuple[Path, ...], runner_up: Path | None, width: int, metric: IgpMetric) -> RibPath:
    if not chosen:
        return RibPath(path, path.peer, f"next hop {path.next_hop} cannot be resolved (RFC 4271, 9.1.2.1)")
    best = chosen[0]
    if path is best:
        why = "its own route" if path.learned is Learned.LOCAL else f"told by {path.peer}"
        if path.learned is not Learned.LOCAL and runner_up is None:
            why = f"the only path, {why}"
        elif path.learned is not Learned.LOCAL and runner_up is not None:
            why = f"the best, {why}; the next has: {deciding_clause(best, runner_up, metric)}"
        return RibPath(path, path.peer, why, is_best=True, is_multipath=len(chosen) > 1)
    if path in chosen:
        return RibPath(path, path.peer, "equal to the best down to the metric of the next hop: merged", False, True)
    clause = deciding_clause(best, path, metric)
    if "router id" in clause or "CLUSTER_LIST" in clause or "address of the peer" in clause:
        limit = f"; at most {width} next hops" if len({each.next_hop for each in chosen}) == width else ""
        clause = f"{clause}{limit}"
    return RibPath(path, path.peer, clause)


def _as_seen_from(network: BgpNetwork, name: str) -> BgpNetwork:
    """The network without sessions that cannot change what `name` holds: iBGP between nodes that tell no one of it."""
    if len(network.peerings) <= _LARGE_MESH:
        return network
    by_ends = {(peering.local, peering.remote): peering for peering in network.peerings}
    withholding = {
        peering.local for peering in network.peerings if not peering.is_internal and not peering.exports_learned
    }
    kept = []
    for peering in network.peerings:
        is_far = name not in (peering.local, peering.remote)
        is_plain = peering.is_internal and not peering.remote_is_client
        back = by_ends.get((peering.remote, peering.local))
        reflects = back is not None and back.remote_is_client
        tells_no_one = peering.local in withholding and peering.remote in withholding
        if not (is_far and is_plain and not reflects and tells_no_one):
            kept.append(peering)
    return replace(network, peerings=tuple(kept))
