"""How the members of an ECMP group are laid out, for each way to choose among them.

What a way to choose means is seen when a member goes: modulo moves nearly all flows, hash-threshold between a quarter
and a half, resilient buckets and highest random weight only those of the member that went.
Modelled: next hops with weights; a resilient group's buckets as the kernel's nexthop groups migrate them when every
bucket is idle. Left out: timers of busy buckets (`idle_timer`, `unbalanced_timer`).
Source: net/ipv4/fib_semantics.c (fib_rebalance), net/ipv4/nexthop.c (nh_res_group_rebalance, nh_res_table_upkeep).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from simnet.dataplane.forwarding.ecmp import HASH_BITS
from simnet.model.fib import NextHop


def upper_bounds(weights: Sequence[int]) -> list[int]:
    """Return the last 31-bit hash of each member's range, as Linux rounds them; the last is 2**31 - 1."""
    total, so_far, bounds = sum(weights), 0, []
    for weight in weights:
        so_far += weight
        bounds.append(_rounded(so_far << HASH_BITS, total) - 1)
    return bounds


def bucket_table(previous: Sequence[NextHop], members: Sequence[NextHop], buckets: int) -> tuple[NextHop, ...]:
    """Return a resilient group's buckets, the next hop of each, after its members have changed.

    Parameters
    ----------
    previous : the buckets before, empty for a new group
    members : the next hops from now on, at least one, with their weights

    Notes
    -----
    A bucket keeps its next hop unless that has gone, or has more buckets than its weight allows while another has
    fewer. Buckets are looked at in order and go to the member that lacks some and stands last in the group, as the
    kernel keeps its list of those.
    """
    wanted = _wanted(members, buckets)
    by_hop = {(hop.interface, hop.gateway): hop for hop in members}
    kept = [by_hop.get((hop.interface, hop.gateway)) for hop in previous] or [None] * buckets
    held = {hop: kept.count(hop) for hop in members}
    lacking = [hop for hop in members if held[hop] < wanted[hop]]  # served from its end
    for number, hop in enumerate(kept):
        if not lacking:
            break
        if hop is not None and held[hop] <= wanted[hop]:
            continue
        if hop is not None:
            held[hop] -= 1
        taker = kept[number] = lacking[-1]
        held[taker] += 1
        if held[taker] == wanted[taker]:
            lacking.pop()
    return tuple(hop for hop in kept if hop is not None)


def _wanted(members: Sequence[NextHop], buckets: int) -> dict[NextHop, int]:
    """How many buckets each member should have: its share, rounded so that the sum is right."""
    total, so_far, taken = sum(hop.weight for hop in members), 0, 0
    wanted = {}
    for hop in members:
        so_far += hop.weight
        upper = _rounded(buckets * so_far, total)
        wanted[hop] = upper - taken
        taken = upper
    return wanted


def hop_key(hop: NextHop, copy: int) -> int:
    """Return 64 bits of the next hop itself, so that highest random weight ranks it alike in every group.

    A next hop of weight w stands w times in its group: `copy` counts from 0.
    """
    name = f"{hop.interface} {hop.gateway or ''} {copy}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, person=b"simnet").digest(), "little")


def _rounded(numerator: int, denominator: int) -> int:
    """The nearest whole number, halves up: DIV_ROUND_CLOSEST."""
    return (numerator + denominator // 2) // denominator


def member_shares(choice: str, members: Sequence[NextHop], buckets: Sequence[NextHop]) -> list[tuple[int, int]]:
    """Return the part of random flows that each member gets, as (numerator, denominator).

    `buckets` is the table of a resilient group, and not looked at otherwise.
    """
    if choice == "hash-threshold":
        bounds = [-1, *upper_bounds([hop.weight for hop in members])]
        return [(bounds[i + 1] - bounds[i], 1 << HASH_BITS) for i in range(len(members))]
    if choice == "resilient":
        return [(sum(hop == each for each in buckets), len(buckets)) for hop in members]
    total = sum(hop.weight for hop in members)
    return [(hop.weight, total) for hop in members]
