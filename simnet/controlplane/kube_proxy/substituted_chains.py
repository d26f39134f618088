"""A node's own matches in chains that all nodes share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from simnet.model.iptables.ruleset import Chain, Match, Rule


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
