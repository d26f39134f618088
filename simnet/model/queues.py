"""What makes packets wait: the limits of links' queues, what a packet costs a node's CPU.

How long a pod serves is the workload's part (`workload.PodService`).
Where none of it is given a run has no queues at all: every packet then takes the time of its wires, and no more.
Source of the CPU's figures: docs/models/latency.md (measured on Linux 6.18, one core).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from simnet.units import PS_PER_NS


@dataclass(frozen=True, slots=True)
class LinkQueue:
    """The queue before one direction of a link; packets that find no room are dropped (tail drop)."""

    limit_packets: int | None = None  # that may wait, the one on the wire not counted; None: any number
    limit_bytes: int | None = None  # likewise
    header_bytes: int = 0  # added to every packet on that wire: frame header, preamble, gap


class RuleBackend(Enum):
    """Which of the kernel's two machines runs the rules that iptables writes."""

    NFT = "nft"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True)
class CpuCosts:
    """What one packet costs the core that handles it, at every node that it passes."""

    established_ps: int = 2_900 * PS_PER_NS  # routed, its connection known: later packets and all replies
    new_ps: int = 3_500 * PS_PER_NS  # routed, the first packet of a connection; the rules come on top
    base_ps: int = 2_200 * PS_PER_NS  # routed by a node that has no rules, hence no connection tracking
    per_rule_ps: int = 18_300  # a rule scanned by a first packet
    per_endpoint_rule_ps: int = 118_000  # one whose `statistic` match was asked, in place of per_rule_ps
    cores: int | None = None  # that take packets, chosen by flow hash; None: all of the node's

    @classmethod
    def of(cls, backend: RuleBackend) -> CpuCosts:
        """Return the measured costs with one of the back ends."""
        return cls() if backend is RuleBackend.NFT else cls(per_rule_ps=5_500, per_endpoint_rule_ps=69_000)
