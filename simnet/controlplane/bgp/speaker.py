"""One speaker's tables: Adj-RIB-In by peer, Loc-RIB, and what follows for peers when some prefixes change.

Only touched prefixes are decided again. Adj-RIB-Out is not stored: it is what `told` makes of Loc-RIB, so a change of
Loc-RIB or of a filter is told by comparing both. No clock: the engine says when.
Source: RFC 4271, 3.2, 9.1, 9.2; RFC 4724, 4.2 (stale paths); RFC 7911 (add-path).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from simnet.controlplane.bgp.decision import IgpMetric, select_paths
from simnet.controlplane.bgp.path import Path, Peering, Speaker, Withheld
from simnet.controlplane.bgp.policy import export_path, import_path, refused, withheld
from simnet.model.iptables.ruleset import IPNetwork

Paths = tuple[Path, ...]
Changes = dict[IPNetwork, Paths]  # what a peer is told: no path, one, or under add-path the merged ones too


class SpeakerTables:
    """The tables of one speaker; every method is a function of them and its arguments alone."""

    def __init__(self, speaker: Speaker, igp_metric: IgpMetric) -> None:
        self.speaker, self._igp_metric = speaker, igp_metric
        self.own: dict[IPNetwork, Path] = {}
        self.adj_rib_in: dict[str, dict[IPNetwork, Paths]] = {}
        self.stale: dict[str, set[IPNetwork]] = {}  # by peer that restarts gracefully
        self.loc_rib: dict[IPNetwork, Paths] = {}
        self._touched: set[IPNetwork] = set()
        self._selected: dict[Paths, Paths] = {}  # a choice depends on the paths alone
        self._exported: dict[tuple[Peering, Path], Path | Withheld] = {}

    def originate(self, prefix: IPNetwork) -> None:
        """Tell of a prefix of the speaker's own."""
        self.own[prefix] = Path()
        self._touched.add(prefix)

    def withdraw(self, prefix: IPNetwork) -> None:
        """Tell of it no more."""
        if self.own.pop(prefix, None) is not None:
            self._touched.add(prefix)

    def receive(self, peering: Peering, sender: Speaker, changes: Mapping[IPNetwork, Paths]) -> None:
        """Take an UPDATE of a peer into its Adj-RIB-In."""
        held = self.adj_rib_in.setdefault(peering.remote, {})
        stale = self.stale.get(peering.remote)
        for prefix, told in changes.items():
            taken = [
                refused(peering, prefix, path) or import_path(self.speaker, peering, sender, path) for path in told
            ]
            paths = tuple(path for path in taken if isinstance(path, Path))
            if stale is not None:
                stale.discard(prefix)
            if held.get(prefix, ()) != paths:
                self._touched.add(prefix)
                if paths:
                    held[prefix] = paths
                else:
                    held.pop(prefix)

    def drop(self, peer: str) -> None:
        """Forget all that a peer told."""
        self.stale.pop(peer, None)
        self._touched.update(self.adj_rib_in.pop(peer, ()))

    def keep_as_stale(self, peer: str) -> None:
        """Go on using what a restarting peer told; a second loss drops it."""
        if peer in self.stale:
            self.drop(peer)
        else:
            self.stale[peer] = set(self.adj_rib_in.get(peer, ()))

    def end_of_rib(self, peer: str) -> None:
        """Drop what the peer has not told again."""
        held = self.adj_rib_in.get(peer, {})
        for prefix in self.stale.pop(peer, ()):
            if held.pop(prefix, None) is not None:
                self._touched.add(prefix)

    def decide(self) -> dict[IPNetwork, tuple[Paths, Paths]]:
        """Return the touched prefixes whose choice changed: (before, now), both best first."""
        changed: dict[IPNetwork, tuple[Paths, Paths]] = {}
        for prefix in self._touched:
            before, now = self.loc_rib.get(prefix, ()), self._choose(prefix)
            if before != now:
                changed[prefix] = before, now
                if now:
                    self.loc_rib[prefix] = now
                else:
                    del self.loc_rib[prefix]
        self._touched.clear()
        return changed

    def _choose(self, prefix: IPNetwork) -> Paths:
        own = self.own.get(prefix)
        if own is not None:
            return (own,)
        paths = tuple(path for held in self.adj_rib_in.values() for path in held.get(prefix, ()))
        if paths not in self._selected:
            self._selected[paths] = select_paths(self.speaker, paths, self._igp_metric)
        return self._selected[paths]

    def told(self, peering: Peering, prefix: IPNetwork, chosen: Paths) -> Paths:
        """Return what a peer is told of a prefix of these chosen paths; under add-path the merged ones too."""
        told = []
        for path in chosen if peering.add_path else chosen[:1]:
            if withheld(peering, prefix, path) is None:
                key = (peering, path)
                if key not in self._exported:
                    self._exported[key] = export_path(self.speaker, peering, path)
                exported = self._exported[key]
                if isinstance(exported, Path):
                    told.append(exported)
        return tuple(told)

    def update_for(self, peering: Peering, changed: Mapping[IPNetwork, tuple[Paths, Paths]]) -> Changes:
        """Return what a peer must be told after `decide`; empty where it hears no difference."""
        update: Changes = {}
        for prefix, (before, now) in changed.items():
            told = self.told(peering, prefix, now)
            if told != self.told(peering, prefix, before):
                update[prefix] = told
        return update

    def adj_rib_out(self, peering: Peering, prefixes: Iterable[IPNetwork] | None = None) -> Changes:
        """Return all that a peer is told."""
        found = {}
        for prefix in self.loc_rib if prefixes is None else prefixes:
            told = self.told(peering, prefix, self.loc_rib[prefix])
            if told:
                found[prefix] = told
        return found
