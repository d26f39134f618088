"""What a DNAT or SNAT that was met makes of packets' addresses and ports.

A program names a range of addresses by a number below `OWN_ADDRESS`; what is chosen from it says `nat_ranges`.
"""

from __future__ import annotations

import ipaddress

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.netfilter.nat_ranges import AddressRange, ids_in_range, ports_after
from simnet.dataplane.netfilter.packets import NO_ADDRESS, OWN_ADDRESS
from simnet.dataplane.netfilter.program import Program
from simnet.model.addresses import AddressTable
from simnet.model.iptables.ruleset import Dnat, Snat
from simnet.random_streams import bits

DESTINATION_PORT = "netfilter/destination-port"
_RANGE = OWN_ADDRESS - 1  # the first range; the others below it


def range_number(place: int) -> int:
    """Return how an address column names the range at a place of `Program.nat_ranges`."""
    return _RANGE - place


def is_port_random(target: Dnat | Snat) -> bool:
    """Whether the port is drawn even if it could stay; the kernel makes no difference between the two options."""
    return bool({"--random", "--random-fully"} & set(target.options))


def address_range(target: Dnat | Snat, addresses: AddressTable | None = None) -> AddressRange:
    """Return what the target's addresses stand for, interned in `addresses`; `target.last_address` is given."""
    assert target.address is not None
    assert target.last_address is not None
    first, last = ipaddress.ip_address(target.address), ipaddress.ip_address(target.last_address)
    ids = []
    if addresses is not None:
        ids = [addresses.intern(str(first + place)) for place in range(int(last) - int(first) + 1)]
    is_destination = isinstance(target, Dnat)
    return AddressRange(first, last, "--persistent" in target.options, is_destination, np.array(ids, np.int32))


def destination_after(
    program: Program, argument: NDArray[np.int64] | int, source: NDArray[np.int32], destination: NDArray[np.int32],
    port: NDArray[np.uint16], connection: NDArray[np.uint64], host: NDArray[np.int32], seed: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:  # fmt: skip
    """Return (address id or OWN_ADDRESS, port) after the DNATs of each packet: int32[n], int32[n].

    `argument`: the rows of the program's DNAT columns. The other columns are those of the packets.
    """
    address = np.broadcast_to(program.dnat_address[argument], source.shape)
    first = np.broadcast_to(program.dnat_port_first[argument], source.shape)
    last = np.broadcast_to(program.dnat_port_last[argument], source.shape)
    is_random = np.broadcast_to(program.dnat_is_random[argument], source.shape)
    chosen = np.where(address == NO_ADDRESS, destination, address).astype(np.int32)
    _choose(program, chosen, source, destination)
    if (first == last).all() and (first >= 0).all():  # as kube-proxy writes it
        return chosen, first.astype(np.int32)
    number = np.zeros(source.shape, np.uint64)
    if is_random.any():
        number = bits(seed, DESTINATION_PORT, connection, host.astype(np.uint64)) >> np.uint64(48)
    return chosen, ports_after(port.astype(np.int32), first, last, is_random, number)


def source_after(
    program: Program, argument: NDArray[np.int64] | int, source: NDArray[np.int32], destination: NDArray[np.int32],
    port: NDArray[np.uint16],
) -> NDArray[np.int32]:  # fmt: skip
    """Return the source's address id after the SNATs of each packet, NO_ADDRESS for MASQUERADE: int32[n]."""
    chosen = np.broadcast_to(program.snat_address[argument], source.shape).astype(np.int32)
    ranged = chosen <= _RANGE
    if not ranged.any():
        return chosen
    named = chosen.copy()
    _choose(program, chosen, source, destination)
    first = np.broadcast_to(program.snat_port_first[argument], source.shape)
    last = np.broadcast_to(program.snat_port_last[argument], source.shape)
    may_stay = ~np.broadcast_to(program.snat_random_fully[argument], source.shape)
    may_stay &= (first < 0) | ((first <= port) & (port <= last))
    for place, held in enumerate(program.nat_ranges):
        here = may_stay & (named == range_number(place))
        chosen[here & np.isin(source, held.ids)] = source[here & np.isin(source, held.ids)]
    return chosen


def _choose(
    program: Program, chosen: NDArray[np.int32], source: NDArray[np.int32], destination: NDArray[np.int32]
) -> None:
    """Put the address chosen in place of each range's number."""
    if not program.nat_ranges:
        return
    for place, held in enumerate(program.nat_ranges):
        rows = np.flatnonzero(chosen == range_number(place))
        if len(rows):
            chosen[rows] = ids_in_range(program.addresses, source[rows], destination[rows], held)
