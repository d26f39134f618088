"""Which address a pod gets, and which node holds which block.

Modelled: affine blocks first, then a free block found from a start that the host's name decides, then
borrowing from another
node's block unless affinity is strict; the cap on blocks a node; all addresses of a block in order; blocks
that exist already.
Left out: releasing addresses, reservations, Windows' reserved addresses, reclaiming empty blocks, more than
one pool a pod.
Source: projectcalico/calico, design/ipam and libcalico-go/lib/ipam. The start of the walk there is Go's
generator seeded
with FNV-32 of the hostname; here it is FNV-1a itself, so blocks differ from a real cluster's, their number and
use do not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from simnet.errors import InputError, Position, Problem
from simnet.model.calico import CalicoSettings
from simnet.model.cluster import Block
from simnet.model.iptables.ruleset import IPNetwork


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """A pod that needs an address of each family in `families` that `addresses` does not hold already."""

    pod: str  # namespace/name
    node: str
    addresses: tuple[str, ...] = ()
    families: tuple[int, ...] = (4,)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What IPAM answers: every pod's addresses, in the order of the families asked for, and all blocks."""

    addresses: Mapping[str, tuple[str, ...]]  # by pod
    blocks: tuple[Block, ...]


def assign_blocks(
    requests: Sequence[AddressRequest],
    settings: CalicoSettings,
    blocks: Iterable[Block] = (),
    used: Iterable[tuple[str, str]] = (),
) -> Assignment:
    """Return addresses for all pods, in the order of the requests, and the blocks that then exist.

    `blocks` are affinities that exist (BlockAffinity, IPAMBlock); addresses that pods have already are kept,
    and a block
    around them that nobody holds goes to the node with most of its pods (the first by name of several).
    `used` are further addresses that are taken, each with the node of its pod (empty: not known), of IPAMBlocks.
    Raises InputError with every pod that cannot be addressed.
    """
    blocks = tuple(blocks)
    ipam = Ipam(settings)
    for block in blocks:
        ipam.affine(ipaddress.ip_network(block.cidr), block.node)
    for block in derive_blocks(requests, settings, blocks):
        ipam.affine(ipaddress.ip_network(block.cidr), block.node)
    for request in requests:
        for address in request.addresses:
            ipam.hold(address, request.node)
    of_pods = {address for request in requests for address in request.addresses}
    for address, node in used:
        if address not in of_pods:
            ipam.hold(address, node)
    answers: dict[str, tuple[str, ...]] = {}
    problems: list[Problem] = []
    for request in requests:
        held = list(request.addresses)
        for family in request.families:
            if any(ipaddress.ip_address(address).version == family for address in held):
                continue
            answer = ipam.request(request.node, family)
            if isinstance(answer, str):
                held.append(answer)
            else:
                problems.append(
                    Problem(
                        Position("calico"),
                        f"pod {request.pod} on {request.node}",
                        answer.found,
                        answer.expected,
                        answer.fix,
                    )
                )
        answers[request.pod] = tuple(held)
    if problems:
        raise InputError(problems)
    return Assignment(answers, ipam.blocks())


def derive_blocks(
    requests: Iterable[AddressRequest], settings: CalicoSettings, known: Iterable[Block] = ()
) -> tuple[Block, ...]:
    """Return the blocks that pods' existing addresses lie in, with the node that most of their pods are on."""
    held = {ipaddress.ip_network(block.cidr): block.node for block in known}
    lengths = sorted({(cidr.version, cidr.prefixlen) for cidr in held})
    pods_in: dict[IPNetwork, dict[str, int]] = {}
    pods_at: dict[IPNetwork, list[tuple[str, str]]] = {}
    for request in requests:
        for address in request.addresses:
            cidr = _known_block(address, lengths, held) or block_of(address, settings)
            count = pods_in.setdefault(cidr, {})
            count[request.node] = count.get(request.node, 0) + 1
            pods_at.setdefault(cidr, []).append((address, request.node))
    derived = []
    for cidr in sorted(pods_in, key=_by_value):
        count = pods_in[cidr]
        owner = held.get(cidr) or min(count, key=lambda node: (-count[node], node))
        borrowed = tuple((address, node) for address, node in pods_at[cidr] if node != owner)
        derived.append(Block(str(cidr), owner, borrowed))
    return tuple(derived)


def _known_block(address: str, lengths: Iterable[tuple[int, int]], held: Mapping[IPNetwork, str]) -> IPNetwork | None:
    """The known block that an address lies in, of whatever size."""
    version = 6 if ":" in address else 4
    for family, length in lengths:
        if family == version:
            cidr = ipaddress.ip_network(f"{address}/{length}", strict=False)
            if cidr in held:
                return cidr
    return None


def block_of(address: str, settings: CalicoSettings) -> IPNetwork:
    """Return the block that an address belongs to by the pool's block size."""
    length = settings.block_size_ipv6 if ":" in address else settings.block_size
    if len({size for _, size in settings.pool_block_sizes}) > 1:
        parsed = ipaddress.ip_address(address)
        for pool, size in settings.pool_block_sizes:
            if parsed in ipaddress.ip_network(pool):
                length = size
                break
    return ipaddress.ip_network(f"{address}/{length}", strict=False)


@dataclass
class _Block:
    """A claimed block: whose, and which addresses (by offset) are used; all below `next_free` are."""

    node: str
    used: set[int]
    next_free: int = 0

    def take(self, size: int) -> int | None:
        """Use the first free offset and return it, None if all are used."""
        while self.next_free < size and self.next_free in self.used:
            self.next_free += 1
        if self.next_free >= size:
            return None
        self.used.add(self.next_free)
        return self.next_free


class Ipam:
    """The state of IPAM: blocks, whose they are, and which addresses are used."""

    def __init__(self, settings: CalicoSettings) -> None:
        self._settings = settings
        self._pools = [ipaddress.ip_network(text) for text in settings.ip_pools]
        self._held: dict[IPNetwork, _Block] = {}
        self._of_node: dict[str, list[IPNetwork]] = {}
        self._borrowed: dict[IPNetwork, list[tuple[str, str]]] = {}

    def affine(self, cidr: IPNetwork, node: str) -> None:
        """Let a node hold a block; the first holder stays."""
        if cidr not in self._held:
            self._held[cidr] = _Block(node, set())
            self._of_node.setdefault(node, []).append(cidr)

    def hold(self, address: str, node: str) -> None:
        """Mark an address of a held block as used by a pod on `node` (empty: on the block's own)."""
        cidr = next((c for c in self._lookup(address) if c in self._held), None)
        if cidr is None:
            return
        block = self._held[cidr]
        block.used.add(int(ipaddress.ip_address(address)) - int(cidr.network_address))
        if node and block.node != node:
            self._borrowed.setdefault(cidr, []).append((address, node))

    def _lookup(self, address: str) -> Iterable[IPNetwork]:
        yield block_of(address, self._settings)
        parsed = ipaddress.ip_address(address)
        yield from (cidr for cidr in self._held if parsed in cidr)  # blocks of another size, as resources may say

    def request(self, node: str, family: int) -> str | Problem:
        """Return the next address for a pod on `node`, or why there is none."""
        for cidr in self._of_node.get(node, ()):
            if cidr.version == family and (address := self._take(cidr)) is not None:
                return address
        settings = self._settings
        pools = [pool for pool in self._pools if pool.version == family]
        where = Position("calico")
        if not pools:
            return Problem(
                where, "", f"no IPv{family} pool", "an IP pool of the pod's family", "add one to calico.ipPools"
            )
        own = sum(1 for cidr in self._of_node.get(node, ()) if cidr.version == family)
        if own >= settings.max_blocks_per_host:
            limit = settings.max_blocks_per_host
            return Problem(
                where, "", f"{own} full blocks on {node}",
                f"at most {limit} blocks a node, one of them with a free address",
                "put fewer pods on the node or raise maxBlocksPerHost",
            )  # fmt: skip
        for pool in pools:
            for cidr in self._walk(pool, node):
                if cidr not in self._held:
                    self.affine(cidr, node)
                    address = self._take(cidr)
                    assert address is not None  # a new block is empty
                    return address
        if settings.strict_affinity:
            return Problem(
                where, "", "every block of the pools is another node's",
                "a free block, since strictAffinity forbids to borrow",
                "widen the pool, make blocks smaller or set strictAffinity: false",
            )  # fmt: skip
        for pool in pools:
            for cidr in self._walk(pool, node):
                if (address := self._take(cidr)) is not None:
                    self._borrowed.setdefault(cidr, []).append((address, node))
                    return address
        return Problem(where, "", "every address of the pools is used", "a free address", "widen the pool")

    def _take(self, cidr: IPNetwork) -> str | None:
        offset = self._held[cidr].take(cidr.num_addresses)
        return None if offset is None else str(cidr.network_address + offset)

    def _walk(self, pool: IPNetwork, node: str) -> Iterable[IPNetwork]:
        """All blocks of a pool, once round, from the one that the host's name points at."""
        length = self._settings.block_size if pool.version == 4 else self._settings.block_size_ipv6
        length = dict(self._settings.pool_block_sizes).get(str(pool), length)
        bits = pool.max_prefixlen - length
        count = max(1 << (length - pool.prefixlen), 1) if length >= pool.prefixlen else 0
        start = fnv1a_32(node) % count if count else 0
        base = int(pool.network_address)
        make = ipaddress.IPv4Network if pool.version == 4 else ipaddress.IPv6Network
        for i in range(count):
            yield make((base + ((start + i) % count << bits), length))

    def blocks(self) -> tuple[Block, ...]:
        """All held blocks, by address."""
        return tuple(
            Block(str(cidr), self._held[cidr].node, tuple(self._borrowed.get(cidr, ())))
            for cidr in sorted(self._held, key=_by_value)
        )


def fnv1a_32(text: str) -> int:
    """Return the FNV-1a hash of a text: 32 bits, the same on every machine.

    Source: G. Fowler, L. C. Noll, K.-P. Vo, offset basis 2166136261 and prime 16777619.
    """
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def _by_value(cidr: IPNetwork) -> tuple[int, int, int]:
    return cidr.version, int(cidr.network_address), cidr.prefixlen
