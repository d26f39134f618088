"""A table's chains as a shared base with a node's differences on top: a thousand nodes cost little more than one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from simnet.model.iptables.ruleset import BUILT_IN_CHAINS, Chain

_FIRST_OWN_CHAINS = ("KUBE-NODEPORTS", "KUBE-SERVICES")  # kube-proxy writes them before its other chains
_RANK = {
    name: rank
    for rank, name in enumerate(
        dict.fromkeys((*(chain for chains in BUILT_IN_CHAINS.values() for chain in chains), *_FIRST_OWN_CHAINS))
    )
}


def canonical_order(chain: str) -> tuple[int, str]:
    """Sort key of a chain name: built-in chains in hook order, KUBE-NODEPORTS, KUBE-SERVICES, then byte order."""
    rank = _RANK.get(chain)
    return (len(_RANK), chain) if rank is None else (rank, "")


class LayeredChains(Mapping[str, Chain]):
    """A read-only mapping of chains in canonical order: `base` less `removed`, with `changed` over or beside it."""

    __slots__ = ("_added", "base", "changed", "removed")

    def __init__(self, base: Mapping[str, Chain], changed: Mapping[str, Chain], removed: frozenset[str]) -> None:
        self.base = base
        self.changed = changed
        self.removed = removed
        self._added = tuple(sorted((name for name in changed if name not in base), key=canonical_order))

    def __getitem__(self, name: str) -> Chain:
        changed = self.changed.get(name)
        if changed is not None:
            return changed
        if name in self.removed:
            raise KeyError(name)
        return self.base[name]

    def __iter__(self) -> Iterator[str]:
        kept = (name for name in self.base if name not in self.removed)
        return heapq.merge(kept, self._added, key=canonical_order) if self._added else kept

    def __len__(self) -> int:
        return len(self.base) - len(self.removed) + len(self._added)

    def __repr__(self) -> str:
        return f"LayeredChains({len(self)} chains, {len(self.changed)} of its own)"


def names_that_may_differ(chains: Mapping[str, Chain], other: Mapping[str, Chain]) -> dict[str, None]:
    """Return the names, in order, that two mappings may hold different chains for; all others are the same object.

    Layers over the same base are compared by layer, without looking at the base.
    """
    ours, theirs = _layers(chains), _layers(other)
    if ours[0] is theirs[0]:
        names = dict.fromkeys(name for layers in (ours[1], theirs[1]) for layer in layers for name in layer.changed)
        names.update(
            dict.fromkeys(name for layers in (ours[1], theirs[1]) for layer in layers for name in layer.removed)
        )
    else:
        names = dict.fromkeys((*other, *chains))
    return {name: None for name in names if chains.get(name) is not other.get(name)}


def _layers(chains: Mapping[str, Chain]) -> tuple[Mapping[str, Chain], list[LayeredChains]]:
    """The mapping at the bottom, and the layers over it."""
    layers = []
    while isinstance(chains, LayeredChains):
        layers.append(chains)
        chains = chains.base
    return chains, layers
