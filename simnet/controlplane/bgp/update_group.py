"""What a speaker tells peers to which the same rules of export apply: worked out once for all of them.

A peer is not told what it brought itself, so the common part holds every path with the peer it came from, and who
brought one of them gets an UPDATE of its own.
Source: RFC 4271, 9.2; RFC 7911; "update groups" of routers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from simnet.controlplane.bgp.path import Path, Peering, Speaker
from simnet.controlplane.bgp.policy import export_path, withheld
from simnet.model.iptables.ruleset import IPNetwork

Paths = tuple[Path, ...]
Changes = dict[IPNetwork, Paths]  # what a peer is told: no path, one, or under add-path the merged ones too

_NOBODY = "*"  # no device is called so: the peer from which nothing is kept


class Change(NamedTuple):
    """Prefixes whose choice changed alike; both best first."""

    before: Paths
    now: Paths
    prefixes: list[IPNetwork]


class Offer(NamedTuple):
    """What peers are told of a choice, and from which peer each path came: that one is not told of it."""

    paths: Paths
    sources: tuple[str, ...]

    def to(self, peer: str) -> Paths:
        """Return what one of them is told."""
        if peer not in self.sources:
            return self.paths
        return tuple(path for path, source in zip(self.paths, self.sources, strict=True) if source != peer)


class OfferChange(NamedTuple):
    """Prefixes of which peers are told something else."""

    before: Offer
    now: Offer
    prefixes: list[IPNetwork]


NO_OFFER = Offer((), ())


@dataclass(eq=False, slots=True)
class Update:
    """What a peer is told at once.

    A peer that was told all by one `is_whole`, and each Update after it, holds what `group.log` says after `number`
    entries, less what it brought itself.
    """

    _changes: Mapping[IPNetwork, Paths] | None  # None: made of the log where somebody asks
    group: UpdateGroup
    number: int
    is_whole: bool = False  # everything, and nothing of it came from the peer
    _messages: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        if self._changes is None:
            self._messages = self.group.distinct

    @property
    def changes(self) -> Mapping[IPNetwork, Paths]:
        """What it says of each prefix."""
        if self._changes is None:
            self._changes = {prefix: offer.paths for prefix, offer in self.group.offered(self.number).items()}
        return self._changes

    @property
    def messages(self) -> int:
        """How many UPDATE messages carry it: prefixes share one where their attributes are equal."""
        if self._messages < 0:
            self._messages = len(set(self.changes.values()))  # those withdrawn count as one
        return self._messages


def export_rules(peering: Peering) -> Peering:
    """Return what two peers must have in common to be told the same: everything but who they are."""
    return replace(
        peering, remote=_NOBODY, remote_address="", remote_as=0, allowed_own_as=0, is_passive=False,
        is_single_hop=False, restart_ps=None, keepalive_ps=None,
    )  # fmt: skip


class UpdateGroup:
    """Peers to which the same export rules apply."""

    def __init__(self, speaker: Speaker, rules: Peering) -> None:
        self._speaker, self._rules = speaker, rules
        self._kept_back = rules.untold | rules.aggregated if rules.aggregated else rules.untold
        self._offers: dict[int, tuple[Paths, Offer]] = {}  # by id of the choice, which is kept alive
        self._exported: dict[Path, Path | None] = {}
        self._alike = {NO_OFFER: NO_OFFER}
        self._changed: object = None
        self._common: Changes = {}
        self._particular: dict[str, list[OfferChange]] = {}
        self._update: Update | None = None
        self.log: list[list[OfferChange]] = []  # all changes of what is offered, where `is_logged`
        self.is_logged = False
        self._prefixes_told: Counter[Paths] = Counter()  # where it is logged: of how many prefixes peers are told this
        self._prefixes_from: Counter[str] = Counter()  # and how many of them came from a peer

    @property
    def distinct(self) -> int:
        """How many different attributes are told now, where it is logged."""
        return len(self._prefixes_told)

    def tells_all_to(self, peer: str) -> bool:
        """Whether it is logged and nothing of what is offered came from the peer."""
        return self.is_logged and peer not in self._prefixes_from

    def offered(self, number: int) -> dict[IPNetwork, Offer]:
        """Return what is offered after an entry of the log."""
        found: dict[IPNetwork, Offer] = {}
        for entry in self.log[:number]:
            for change in entry:
                found.update(dict.fromkeys(change.prefixes, change.now))
        return {prefix: offer for prefix, offer in found.items() if offer.paths}

    def offer(self, prefix: IPNetwork, chosen: Paths) -> Offer:
        """Return what the peers are told of a prefix of these chosen paths; under add-path the merged ones too."""
        rules = self._rules
        if not chosen or prefix in self._kept_back:
            return NO_OFFER
        if rules.filters:  # they ask for the prefix
            return self._offer(prefix, chosen)
        known = self._offers.get(id(chosen))
        if known is None:
            known = self._offers[id(chosen)] = (chosen, self._offer(prefix, chosen))
        return known[1]

    def _offer(self, prefix: IPNetwork, chosen: Paths) -> Offer:
        paths, sources = [], []
        for path in chosen if self._rules.add_path else chosen[:1]:
            if withheld(self._rules, prefix, path) is None:
                if path not in self._exported:
                    exported = export_path(self._speaker, self._rules, path)
                    self._exported[path] = exported if isinstance(exported, Path) else None
                told = self._exported[path]
                if told is not None:
                    paths.append(told)
                    sources.append(path.peer)
        offer = Offer(tuple(paths), tuple(sources))
        return self._alike.setdefault(offer, offer)

    def offer_changes(self, changed: Iterable[Change]) -> list[OfferChange]:
        """Return what a change of choices makes of what is offered."""
        found = []
        kept_back, by_prefix, known = self._kept_back, bool(self._rules.filters), self._offers
        for before, now, prefixes in changed:
            if kept_back:
                prefixes = [prefix for prefix in prefixes if prefix not in kept_back]
            for alike in [[prefix] for prefix in prefixes] if by_prefix else [prefixes] if prefixes else ():
                was = known[id(before)][1] if id(before) in known else self.offer(alike[0], before)
                offer = known[id(now)][1] if id(now) in known else self.offer(alike[0], now)
                if was is not offer:
                    found.append(OfferChange(was, offer, alike))
        return found

    def update_for(self, peer: str, changed: list[Change]) -> Update | None:
        """Return what a peer must be told after a decision; None where it hears no difference."""
        if self._changed is not changed:
            self._work_out(changed)
        particular = self._particular.get(peer)
        if particular is None:
            return self._update
        changes = dict(self._common)
        for before, now, prefixes in particular:
            was, told = before.to(peer), now.to(peer)
            if was != told:
                changes.update(dict.fromkeys(prefixes, told))
            else:
                for prefix in prefixes:
                    changes.pop(prefix, None)
        return Update(changes, self, len(self.log)) if changes else None

    def record(self, changed: list[Change]) -> None:
        """Enter a decision into the log."""
        offers = self._work_out(changed)
        if offers:
            self.log.append(offers)
        for before, now, prefixes in offers:
            self._count(before, -len(prefixes))
            self._count(now, len(prefixes))
        if self._update is not None:
            self._update.number = len(self.log)

    def _count(self, offer: Offer, prefixes: int) -> None:
        for counter, keys in ((self._prefixes_told, {offer.paths} - {()}), (self._prefixes_from, set(offer.sources))):
            for key in keys:
                counter[key] += prefixes  # type: ignore[index]
                if not counter[key]:  # type: ignore[index]
                    del counter[key]

    def _work_out(self, changed: list[Change]) -> list[OfferChange]:
        offers = self.offer_changes(changed)
        self._changed, self._common, self._particular = changed, {}, {}
        for change in offers:
            if change.before.paths != change.now.paths:
                self._common.update(dict.fromkeys(change.prefixes, change.now.paths))
            for source in {*change.before.sources, *change.now.sources} - {""}:
                self._particular.setdefault(source, []).append(change)
        self._update = Update(self._common, self, len(self.log)) if self._common else None
        return offers
