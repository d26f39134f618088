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

    A path of the speaker's own (a static route) beats whatever BGP brings. Empty if no next hop can be resolved. The
    ECMP width bounds the next hops, not the paths: one that leads to the same next hop takes no place (nexthop_merge).
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
    return _first_hops(merged, speaker.ecmp_width)


def _first_hops(merged: Sequence[Path], width: int) -> tuple[Path, ...]:
    """The paths up to the one that brings the last next hop there is room for."""
    if len(merged) <= width:
        return tuple(merged)
    hops: set[str] = set()
    for number, path in enumerate(merged):
        hops.add(path.next_hop)
        if len(hops) == width:
            return tuple(merged[: number + 1])
    return tuple(merged)


Rank = tuple[float, ...]  # what is compared, most important first; smaller is better

_LAST = float("inf")
OWN: Rank = (-_LAST,)  # of the speaker's own path: whatever BGP brings comes after it
_NOTHING: Rank = (_LAST,)  # of no choice: whatever can be used comes before it
UNUSABLE: Rank = (_LAST, 0)  # of a path whose next hop cannot be resolved, and of no path


class Decisions:
    """The choices of one speaker among paths that BGP brought, remembered: `select_paths` of the same paths.

    Without MED (which compares within one neighbour AS only) one number after the other decides, so paths have ranks.
    """

    def __init__(self, speaker: Speaker, igp_metric: IgpMetric) -> None:
        self._speaker, self._igp_metric = speaker, lru_cache(maxsize=None)(igp_metric)
        self._merges: dict[Path, Rank] = {}  # what merged paths have in common
        self._ranks: dict[Path, Rank] = {}  # that, and ties
        self._chosen: dict[tuple[Path, ...], tuple[Path, ...]] = {}
        self._canonical: dict[tuple[Path, ...], tuple[Path, ...]] = {}
        self._limits: dict[int, Rank] = {}  # by id of the choice: `choose` keeps its answers alive
        self.has_med = False

    def choose(self, paths: Sequence[Path]) -> tuple[Path, ...]:
        """Return what `select_paths` does; the same object for the same choice."""
        merges, lowest, best = self._merges, UNUSABLE, list[Path]()
        for path in paths:
            merge = merges.get(path)
            if merge is None:
                self.rank(path)
                merge = merges[path]
            if merge < lowest:
                lowest, best = merge, [path]
            elif merge == lowest and lowest is not UNUSABLE:
                best.append(path)
        key = tuple(paths) if self.has_med else tuple(best)
        chosen = self._chosen.get(key)
        if chosen is None:
            if self.has_med or not self._speaker.multipath_relax:
                chosen = select_paths(self._speaker, key, self._igp_metric)
            else:
                chosen = _first_hops(sorted(key, key=self._ranks.__getitem__), self._speaker.ecmp_width)
            chosen = self._chosen[key] = self._canonical.setdefault(chosen, chosen)
            self._limits[id(chosen)] = self._limit_of(chosen)
        return chosen

    def rank(self, path: Path) -> Rank:
        """Return where a path stands among those that may be told of one prefix."""
        rank = self._ranks.get(path)
        if rank is None:
            self.has_med = self.has_med or bool(path.med)
            is_usable = self._igp_metric(path.next_hop) is not None
            self._merges[path] = _merge_key(path, self._igp_metric) if is_usable else UNUSABLE
            rank = self._ranks[path] = (*self._merges[path], *_tie_key(path)) if is_usable else UNUSABLE
        return rank

    def first_rank(self, paths: Sequence[Path]) -> Rank:
        """Return the rank of the best of some paths."""
        if len(paths) == 1:
            return self.rank(paths[0])
        return min((self.rank(path) for path in paths), default=UNUSABLE)

    def limit(self, chosen: tuple[Path, ...]) -> Rank:
        """Return the rank after which a path, come or gone, changes nothing of a choice or of a path of one's own."""
        return self._limits.get(id(chosen), OWN) if chosen else _NOTHING

    def _limit_of(self, chosen: tuple[Path, ...]) -> Rank:
        if not chosen:
            return _NOTHING
        hops = {path.next_hop for path in chosen}
        is_full = len(hops) == self._speaker.ecmp_width and self._speaker.multipath_relax
        return self._ranks[chosen[-1]] if is_full else (*self._merges[chosen[0]], _LAST)


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
