"""Which of a speaker's paths to a prefix it uses.

Source: projectcalico/bird (1.6), nest/rt-table.c rte_better, proto/bgp/attrs.c bgp_rte_better and
bgp_rte_mergable; RFC 4271, 9.1.2.2.
Left out: stale paths of a graceful restart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from simnet.controlplane.bgp.path import Learned, Path, Speaker

IgpMetric = Callable[[str], int | None]  # of a next hop; None: it cannot be resolved


def select_paths(speaker: Speaker, paths: Sequence[Path], igp_metric: IgpMetric) -> tuple[Path, ...]:
    """Return the best path and, after it, those that may be merged with it into one ECMP route.

    A path of the speaker's own (a static route) beats whatever BGP brings. Empty if no next hop can be resolved.
    """
    local = [path for path in paths if path.learned is Learned.LOCAL]
    if local:
        return (local[0],)
    usable = [path for path in paths if igp_metric(path.next_hop) is not None]
    if not usable:
        return ()
    ordered = sorted(usable, key=lambda path: (*_merge_key(path, igp_metric), *_tie_key(path)))
    best = _without_worse_med(ordered)[0]
    merged = [best]
    for path in ordered:
        same = _merge_key(path, igp_metric) == _merge_key(best, igp_metric) and _med(path, best) == _med(best, best)
        if path is not best and same and (speaker.multipath_relax or path.as_path == best.as_path):
            merged.append(path)
    return tuple(merged[: speaker.ecmp_width])


Rank = tuple[float, ...]  # what merged paths have in common, smaller is better

_OWN_RANK: Rank = (float("-inf"),)  # beats whatever BGP brings
NO_RANK: Rank = (float("inf"),)  # of what cannot be used


class Decisions:
    """The choices of one speaker among paths that BGP brought, remembered: `select_paths` of the same paths.

    Most prefixes have few distinct sets of best paths, and most paths lose to those by a clause before MED.
    """

    def __init__(self, speaker: Speaker, igp_metric: IgpMetric) -> None:
        self._speaker, self._igp_metric = speaker, lru_cache(maxsize=None)(igp_metric)
        self._rank: dict[Path, Rank] = {}
        self._chosen: dict[tuple[Path, ...], tuple[Path, ...]] = {}
        self._canonical: dict[tuple[Path, ...], tuple[Path, ...]] = {}
        self._rank_of_choice: dict[int, Rank] = {}  # by id: `choose` keeps its answers alive
        self.has_med = False  # MED compares within one neighbour AS only: no rank says it

    def choose(self, paths: Sequence[Path]) -> tuple[Path, ...]:
        """Return what `select_paths` does; the same object for the same choice."""
        if self.has_med:
            return self._select(tuple(paths))
        ranks, lowest, best = self._rank, NO_RANK, list[Path]()
        for path in paths:
            rank = ranks.get(path)
            if rank is None:
                rank = self.rank(path)
                if path.med:
                    return self._select(tuple(paths))
            if rank < lowest:
                lowest, best = rank, [path]
            elif rank == lowest and rank is not NO_RANK:
                best.append(path)
        return self._select(tuple(best))

    def _select(self, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        chosen = self._chosen.get(paths)
        if chosen is None:
            chosen = select_paths(self._speaker, paths, self._igp_metric)
            chosen = self._chosen[paths] = self._canonical.setdefault(chosen, chosen)
            self._rank_of_choice[id(chosen)] = self.rank(chosen[0]) if chosen else NO_RANK
        return chosen

    def rank(self, path: Path) -> Rank:
        """Return what decides before ties do."""
        rank = self._rank.get(path)
        if rank is None:
            self.has_med = self.has_med or bool(path.med)
            rank = NO_RANK if self._igp_metric(path.next_hop) is None else _merge_key(path, self._igp_metric)
            self._rank[path] = rank
        return rank

    def rank_of_all(self, paths: Sequence[Path]) -> Rank:
        """Return the rank of the best of some paths."""
        return min((self.rank(path) for path in paths), default=NO_RANK)

    def rank_of_choice(self, chosen: tuple[Path, ...]) -> Rank:
        """Return the rank of an answer of `choose`, or of the speaker's own path. A path below it changes nothing."""
        return self._rank_of_choice.get(id(chosen), _OWN_RANK) if chosen else NO_RANK


def deciding_clause(best: Path, other: Path, igp_metric: IgpMetric) -> str:
    """Return the clause of the decision process by which `other` was not chosen, or not merged with `best`."""
    if best.learned is Learned.LOCAL:
        return "a route of its own (preference 200) beats one that BGP brought (100)"
    if igp_metric(other.next_hop) is None:
        return f"next hop {other.next_hop} cannot be resolved (RFC 4271, 9.1.2.1)"
    clauses = (
        ("lower LOCAL_PREF", "9.1.2", other.local_pref, best.local_pref),
        ("longer AS_PATH", "9.1.2.2 a", len(other.as_path), len(best.as_path)),
        ("higher ORIGIN", "9.1.2.2 b", other.origin, best.origin),
    )
    for what, where, mine, theirs in clauses:
        if mine != theirs:
            return f"{what}, {mine} against {theirs} (RFC 4271, {where})"
    if _med(other, best) != _med(best, best):
        return f"higher MED, {other.med or 0} against {best.med or 0} (RFC 4271, 9.1.2.2 c)"
    if other.learned is not best.learned:
        return "iBGP, where the best is eBGP (RFC 4271, 9.1.2.2 d)"
    if igp_metric(other.next_hop) != igp_metric(best.next_hop):
        return "higher metric to the next hop (RFC 4271, 9.1.2.2 e)"
    tie, best_tie = _tie_key(other), _tie_key(best)
    if tie[0] != best_tie[0]:
        return "higher router id (RFC 4271, 9.1.2.2 f)"
    if tie[1] != best_tie[1]:
        return "longer CLUSTER_LIST (RFC 4456, 9)"
    return "higher address of the peer (RFC 4271, 9.1.2.2 g)"


def _merge_key(path: Path, igp_metric: IgpMetric) -> tuple[int, ...]:
    """What merged paths have in common, most important first; smaller is better."""
    metric = igp_metric(path.next_hop)
    assert metric is not None  # only usable paths are compared
    local_pref = 100 if path.local_pref is None else path.local_pref
    return -local_pref, len(path.as_path), path.origin, int(path.learned is Learned.INTERNAL), metric


def _tie_key(path: Path) -> tuple[int, ...]:
    """Ties: router id (ORIGINATOR_ID before it), CLUSTER_LIST length, address of the peer."""
    identifier = path.peer_router_id if path.originator_id is None else path.originator_id
    return identifier, len(path.cluster_list), path.peer_address


def _med(path: Path, other: Path) -> int:
    """MED where both come from one neighbour AS, else 0: it compares nothing else."""
    return (path.med or 0) if path.as_path[:1] == other.as_path[:1] else (other.med or 0)


def _without_worse_med(ordered: Sequence[Path]) -> list[Path]:
    """The paths that no path of the same neighbour AS, LOCAL_PREF, length and origin beats by MED, order kept."""

    def group(path: Path) -> tuple[object, ...]:
        return path.local_pref, len(path.as_path), path.origin, path.as_path[:1]

    lowest: dict[tuple[object, ...], int] = {}
    for path in ordered:
        lowest[group(path)] = min(path.med or 0, lowest.get(group(path), path.med or 0))
    return [path for path in ordered if (path.med or 0) == lowest[group(path)]]
