"""Forwarding tables as arrays: one gather tells what any device does with any address in play.

Addresses that no device tells apart share a *class*: between the ends of all prefixes, an address differs from its
neighbour only by who holds it. `lookup[row, class]` is an *action*; an action names the next place and the
wires to it,
or a verdict. An ECMP group is an action of its own that refers to its members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.versions import Versions

LOCAL, FORWARD, BLACKHOLE, UNREACHABLE, NO_ROUTE, NO_NEIGHBOUR, ECMP_GROUP = range(7)

HELD_BY_NONE, HELD_BY_ALL, HELD_BY_SEVERAL = -1, -2, -3


@dataclass(frozen=True, slots=True, eq=False)
class EcmpPolicy:
    """How each device chooses among next hops."""

    hash: NDArray[np.uint8]  # [devices] 0: addresses (l3), 1: five-tuple (l4), 2: five-tuple with ends sorted
    choice: NDArray[np.uint8]  # [devices] position in `ecmp.CHOICES`
    device_key: NDArray[np.uint64]  # [devices] of its name, so that boxes hash apart; 0: seeds are shared


@dataclass(frozen=True, slots=True, eq=False)
class EcmpGroups:
    """The members of all ECMP groups, group after group: an action's `group_start` and `group_size` say which.

    How often and in which order a next hop stands in its group depends on the box's choice (docs/models/ecmp.md).
    """

    action: NDArray[np.int32]  # [members]
    bound: NDArray[np.int64]  # [members] hash-threshold: group_start << 31, plus the last 31-bit hash of its range
    key: NDArray[np.uint64]  # [members] hrw: hash of the next hop itself


@dataclass(frozen=True, slots=True, eq=False)
class Tunnels:
    """Ways through tunnels, one a (node, far end); and the tunnel interfaces of all nodes."""

    near_address: NDArray[np.int32]  # [tunnels] address ids of the outer header
    far_address: NDArray[np.int32]  # [tunnels]
    protocol: NDArray[np.uint8]  # [tunnels] 4: IPIP, 17: UDP, that is VXLAN
    extra_bytes: NDArray[np.int32]  # [tunnels] of the outer headers
    interface: NDArray[np.int32]  # [tunnels] id of its interface, equal at both ends
    interfaces: tuple[int, ...]  # ids of the tunnel interfaces that there are
    address_on: tuple[NDArray[np.int32], ...]  # of each: [devices] the address on it; -1: the device has no such tunnel

    def __len__(self) -> int:
        return len(self.near_address)

    def interface_at(self, device: NDArray[np.int32], tunnel: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the interface by which rows of a tunnel come out at a device; -1 where it has none of the kind."""
        found = np.full(len(device), -1, dtype=np.int32)
        for number, address in zip(self.interfaces, self.address_on, strict=True):
            found[(self.interface[tunnel] == number) & (address[device] >= 0)] = number
        return found


@dataclass(frozen=True, slots=True, eq=False)
class FibVersions:
    """Which row of `ForwardingTables.lookup` a device goes by, and how long a cell of it holds."""

    rows: Versions  # of devices; a version's value is its row
    until_ps: NDArray[np.int64]  # [rows, classes] when the device next does something else with the class; NEVER


@dataclass(frozen=True, slots=True, eq=False)
class ForwardingTables:
    """All FIBs of a fabric, compiled; read-only.

    Places are numbered densely: devices in the order of `Fabric.devices`, then pods in the order of `Fabric.pods`.
    Link direction 2*i runs from `Fabric.links[i].a` to `b`, 2*i+1 back. Valid for the addresses that were interned when
    it was compiled; a later table is a value of its own.
    """

    address_class: NDArray[np.int32]  # [addresses]
    lookup: NDArray[np.int32]  # [rows, classes] action; row i is device i's table at the start, later ones follow
    kind: NDArray[np.uint8]  # [actions] LOCAL ... ECMP_GROUP
    next_place: NDArray[np.int32]  # [actions] -1 unless FORWARD
    first_link: NDArray[np.int32]  # [actions] direction id; -1 unless FORWARD
    second_link: NDArray[np.int32]  # [actions] behind a bridge; -1: none
    out_interface: NDArray[np.int32]  # [actions] id in `interface_names`; -1 unless FORWARD
    tunnel: NDArray[np.int32]  # [actions] row of `tunnels`: FORWARD, but where to the outer header decides; -1: none
    mtu: NDArray[np.int32]  # [actions] largest packet that leaves this way
    pod_mtu: int  # largest packet that a pod can send
    tunnels: Tunnels
    group_start: NDArray[np.int32]  # [actions] of an ECMP_GROUP: where its members begin
    group_size: NDArray[np.int32]  # [actions] how many
    groups: EcmpGroups
    has_groups: bool
    ecmp: EcmpPolicy
    address_key: NDArray[np.uint64]  # [addresses] hash of the address itself, not of its id
    local_owner: NDArray[
        np.int32
    ]  # [addresses] device that holds it; HELD_BY_NONE, HELD_BY_ALL (loopback), HELD_BY_SEVERAL
    shared_owner: NDArray[np.int64]  # [s] device * addresses + address of those held by several, ascending
    primary_address: NDArray[np.int32]  # [devices, 2] id of its first IPv4, IPv6 address; -1: none
    interface_names: tuple[str, ...]
    rp_filter: NDArray[np.uint8]  # [devices] position in `reverse_path.MODES`
    pod_device: NDArray[np.int32]  # [pods] the node of each
    pod_uplink: NDArray[np.int32]  # [pods] direction from the pod to its node
    pod_interface: NDArray[np.int32]  # [pods] id of the host's end of the veth
    versions: FibVersions | None = None  # None: no table ever changes

    @property
    def device_count(self) -> int:
        """How many places are devices."""
        return len(self.primary_address)

    def is_local(self, device: NDArray[np.int32], address: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return bool[n]: is the address (id) one of the device's own, as `addrtype LOCAL` asks?"""
        owner = self.local_owner[address]
        local: NDArray[np.bool_] = (owner == device) | (owner == HELD_BY_ALL)
        if self.shared_owner.size:
            several = np.flatnonzero(owner == HELD_BY_SEVERAL)
            wanted = device[several].astype(np.int64) * len(self.local_owner) + address[several]
            at = np.minimum(np.searchsorted(self.shared_owner, wanted), len(self.shared_owner) - 1)
            local[several] = self.shared_owner[at] == wanted
        return local
