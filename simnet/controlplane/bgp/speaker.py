"""One speaker's tables: Adj-RIB-In by peer, Loc-RIB, and what follows for peers when some prefixes change.

Only touched prefixes are decided again. Adj-RIB-Out is not stored: it is what an update group makes of Loc-RIB, so a
change of Loc-RIB or of a filter is told by comparing both. No clock: the engine says when.
Source: RFC 4271, 3.2, 9.1, 9.2; RFC 4724, 4.2 (stale paths); RFC 7911 (add-path).
"""

from __future__ import annotations

from collections.abc import Mapping

from simnet.controlplane.bgp.decision import Decisions, IgpMetric, Rank
from simnet.controlplane.bgp.path import Path, Peering, Speaker
from simnet.controlplane.bgp.policy import import_path, refused
from simnet.controlplane.bgp.update_group import Change, Changes, Paths, Update, UpdateGroup, export_rules
from simnet.model.iptables.ruleset import IPNetwork

_OWN = (Path(),)


class SpeakerTables:
    """The tables of one speaker; every method is a function of them and its arguments alone."""

    def __init__(self, speaker: Speaker, igp_metric: IgpMetric) -> None:
        self.speaker, self.igp_metric = speaker, igp_metric
        self.own: dict[IPNetwork, Paths] = {}
        self.adj_rib_in: dict[IPNetwork, dict[str, Paths]] = {}  # by prefix, then peer
        self.stale: dict[str, set[IPNetwork]] = {}  # by peer that restarts gracefully
        self.loc_rib: dict[IPNetwork, Paths] = {}
        self._touched: set[IPNetwork] = set()
        self._decisions = Decisions(speaker, igp_metric)
        self._imported: dict[
            str, tuple[Peering, dict[Paths, tuple[Paths, Rank]]]
        ] = {}  # by peer: what is taken of what it tells
        self._groups: dict[Peering, UpdateGroup] = {}  # by export rules
        self._group_of: dict[str, tuple[Peering, UpdateGroup]] = {}  # by peer
        self._logged: list[UpdateGroup] = []

    def originate(self, prefix: IPNetwork) -> None:
        """Tell of a prefix of the speaker's own."""
        self.own[prefix] = _OWN
        self._touched.add(prefix)

    def withdraw(self, prefix: IPNetwork) -> None:
        """Tell of it no more."""
        if self.own.pop(prefix, None) is not None:
            self._touched.add(prefix)

    def receive(self, peering: Peering, sender: Speaker, changes: Mapping[IPNetwork, Paths]) -> None:
        """Take an UPDATE of a peer into its Adj-RIB-In."""
        peer, rib, touched = peering.remote, self.adj_rib_in, self._touched
        known = self._imported.get(peer)
        if known is None or known[0] is not peering:
            known = self._imported[peer] = (peering, {})
        imported, stale, loc_rib, decisions = known[1], self.stale.get(peer), self.loc_rib, self._decisions
        is_filtered = bool(peering.filters)
        for prefix, told in changes.items():
            if is_filtered:
                paths, rank = self._import(peering, sender, told, prefix)
            else:
                taken = imported.get(told)
                if taken is None:
                    taken = imported[told] = self._import(peering, sender, told, prefix)
                paths, rank = taken
            if stale is not None:
                stale.discard(prefix)
            held = rib.get(prefix)
            before = () if held is None else held.get(peer, ())
            if before is paths or before == paths:
                continue
            if not paths:
                self._forget(prefix, peer)
            elif held is None:
                rib[prefix] = {peer: paths}
            else:
                held[peer] = paths
            if prefix not in touched:
                limit = decisions.limit(loc_rib.get(prefix, ()))
                if rank <= limit or decisions.has_med or (before and decisions.first_rank(before) <= limit):
                    touched.add(prefix)

    def _import(self, peering: Peering, sender: Speaker, told: Paths, prefix: IPNetwork) -> tuple[Paths, Rank]:
        taken = [refused(peering, prefix, path) or import_path(self.speaker, peering, sender, path) for path in told]
        paths = tuple(path for path in taken if isinstance(path, Path))
        return paths, self._decisions.first_rank(paths)

    def drop(self, peer: str) -> None:
        """Forget all that a peer told."""
        self.stale.pop(peer, None)
        self._remove(peer, self._told_by(peer))

    def _told_by(self, peer: str) -> set[IPNetwork]:
        return {prefix for prefix, held in self.adj_rib_in.items() if peer in held}

    def _remove(self, peer: str, prefixes: set[IPNetwork]) -> None:
        for prefix in prefixes:
            if peer in self.adj_rib_in.get(prefix, ()):
                self._forget(prefix, peer)
                self._touched.add(prefix)

    def _forget(self, prefix: IPNetwork, peer: str) -> None:
        held = self.adj_rib_in[prefix]
        del held[peer]
        if not held:
            del self.adj_rib_in[prefix]

    @property
    def is_blank(self) -> bool:
        """Whether nobody has told it anything, and nothing waits for a decision."""
        return not (self.adj_rib_in or self.stale or self._touched)

    def keep_as_stale(self, peer: str) -> None:
        """Go on using what a restarting peer told; a second loss drops it."""
        if peer in self.stale:
            self.drop(peer)
        else:
            self.stale[peer] = self._told_by(peer)

    def end_of_rib(self, peer: str) -> None:
        """Drop what the peer has not told again."""
        self._remove(peer, self.stale.pop(peer, set()))

    def decide(self) -> list[Change]:
        """Return the touched prefixes whose choice changed, those that changed alike together."""
        alike: dict[tuple[int, int], Change] = {}
        loc_rib, own, rib, choose = self.loc_rib, self.own, self.adj_rib_in, self._decisions.choose
        for prefix in self._touched:
            before = loc_rib.get(prefix, ())
            if prefix in own:
                now = own[prefix]
            else:
                held = rib.get(prefix)
                now = choose([path for paths in held.values() for path in paths]) if held else ()
            if before is not now and before != now:
                key = id(before), id(now)
                if key in alike:
                    alike[key].prefixes.append(prefix)
                else:
                    alike[key] = Change(before, now, [prefix])
                if now:
                    loc_rib[prefix] = now
                else:
                    del loc_rib[prefix]
        self._touched.clear()
        changed = list(alike.values())
        if changed:
            for group in self._logged:
                group.record(changed)
        return changed

    def log_group_of(self, peering: Peering) -> UpdateGroup:
        """Return the update group of a peer, which from now on keeps a log of all that it is told."""
        group = self.group_of(peering)
        if not group.is_logged:
            assert not self.loc_rib  # the log begins with nothing
            group.is_logged = True
            self._logged.append(group)
        return group

    def group_of(self, peering: Peering) -> UpdateGroup:
        """Return the update group that a peer belongs to."""
        known = self._group_of.get(peering.remote)
        if known is None or known[0] is not peering:
            rules = export_rules(peering)
            group = self._groups.get(rules)
            if group is None:
                group = self._groups[rules] = UpdateGroup(self.speaker, rules)
            known = self._group_of[peering.remote] = (peering, group)
        return known[1]

    def update_for(self, peering: Peering, changed: list[Change]) -> Update | None:
        """Return what a peer must be told after `decide`; None where it hears no difference."""
        return self.group_of(peering).update_for(peering.remote, changed)

    def adj_rib_out(self, peering: Peering) -> Update:
        """Return all that a peer is told."""
        group, peer = self.group_of(peering), peering.remote
        if group.tells_all_to(peer):
            return Update(None, group, len(group.log), is_whole=True)
        told: Changes = {}
        for prefix, chosen in self.loc_rib.items():
            paths = group.offer(prefix, chosen).to(peer)
            if paths:
                told[prefix] = paths
        return Update(told, group, len(group.log))
