"""A table's chains as a shared base with a node's differences on top: a thousand nodes cost little more than one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import replace

from simnet.controlplane.kube_proxy.chain_names import NODE_PORTS, SERVICES
from simnet.model.iptables.ruleset import BUILT_IN_CHAINS, Chain, Match, Rule

_BUILT_IN_RANK = {
    name: rank
    for rank, name in enumerate(dict.fromkeys(chain for chains in BUILT_IN_CHAINS.values() for chain in chains))
}
_AFTER_BUILT_IN = len(_BUILT_IN_RANK)


def canonical_order(chain: str) -> tuple[int, str]:
    """Sort key of a chain name: built-in chains in hook order, KUBE-NODEPORTS, KUBE-SERVICES, then byte order."""
    if chain in _BUILT_IN_RANK:
        return (_BUILT_IN_RANK[chain], "")
    if chain == NODE_PORTS:
        return (_AFTER_BUILT_IN, "")
    if chain == SERVICES:
        return (_AFTER_BUILT_IN + 1, "")
    return (_AFTER_BUILT_IN + 2, chain)


class LayeredChains(Mapping[str, Chain]):
    """A read-only mapping of chains in canonical order: `base` less `removed`, with `changed` over or beside it."""

    __slots__ = ("_added", "_base", "_changed", "_removed")

    def __init__(self, base: Mapping[str, Chain], changed: Mapping[str, Chain], removed: frozenset[str]) -> None:
        self._base = base
        self._changed = changed
        self._removed = removed
        self._added = tuple(sorted((name for name in changed if name not in base), key=canonical_order))

    def __getitem__(self, name: str) -> Chain:
        changed = self._changed.get(name)
        if changed is not None:
            return changed
        if name in self._removed:
            raise KeyError(name)
        return self._base[name]

    def __iter__(self) -> Iterator[str]:
        kept = (name for name in self._base if name not in self._removed)
        return heapq.merge(kept, self._added, key=canonical_order) if self._added else kept

    def __len__(self) -> int:
        return len(self._base) - len(self._removed) + len(self._added)

    def __repr__(self) -> str:
        return f"LayeredChains({len(self)} chains, {len(self._changed)} of its own)"


class SubstitutedChains(Mapping[str, Chain]):
    """The chains of service ports with a node's own matches in place of placeholders, made when they are looked at.

    With detectLocalMode NodeCIDR each node's pod CIDR stands in the first rule of thousands of chains, so holding them
    all for each node would cost what sharing saves. `matches` gives each placeholder its match.
    """

    __slots__ = ("_chains", "_matches")

    def __init__(self, chains: Mapping[str, Chain], matches: Mapping[Match, Match]) -> None:
        self._chains = chains
        self._matches = matches

    def __getitem__(self, name: str) -> Chain:
        chain = self._chains[name]
        if not name.startswith(("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-XLB-")) or not chain.rules:
            return chain
        first, *others = chain.rules  # where rules tell local traffic from other traffic, it is the first that does
        if not any(match in self._matches for match in first.matches):
            return chain
        matches = tuple(self._matches.get(match, match) for match in first.matches)
        return replace(chain, rules=(Rule(matches, first.target), *others))

    def __iter__(self) -> Iterator[str]:
        return iter(self._chains)

    def __len__(self) -> int:
        return len(self._chains)

    def __repr__(self) -> str:
        return f"SubstitutedChains({len(self)} chains)"
