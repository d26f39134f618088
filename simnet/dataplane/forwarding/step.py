"""One routing decision for each packet of a batch.

Source: net/ipv4/fib_trie.c (longest prefix), net/ipv4/route.c (the local table comes first); reference loop in
tests/reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.forwarding import tables as codes
from simnet.dataplane.forwarding.ecmp import choose, flow_hash
from simnet.dataplane.forwarding.tables import ForwardingTables


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What the FIB says of each packet; row i of every column is packet i."""

    kind: NDArray[np.uint8]  # [n] LOCAL, FORWARD, BLACKHOLE, UNREACHABLE, NO_ROUTE, NO_NEIGHBOUR
    next_place: NDArray[np.int32]  # [n] device, or pod; -1 unless FORWARD
    first_link: NDArray[np.int32]  # [n] direction of the wire taken; -1 unless FORWARD
    second_link: NDArray[np.int32]  # [n] of the wire behind a bridge; -1: no bridge crossed
    out_interface: NDArray[np.int32]  # [n] id in ForwardingTables.interface_names; -1 unless FORWARD
    tunnel: NDArray[np.int32]  # [n] row of ForwardingTables.tunnels; -1: none
    mtu: NDArray[np.int32]  # [n] largest packet that leaves this way

    LOCAL: ClassVar[int] = codes.LOCAL
    FORWARD: ClassVar[int] = codes.FORWARD
    BLACKHOLE: ClassVar[int] = codes.BLACKHOLE
    UNREACHABLE: ClassVar[int] = codes.UNREACHABLE
    NO_ROUTE: ClassVar[int] = codes.NO_ROUTE
    NO_NEIGHBOUR: ClassVar[int] = codes.NO_NEIGHBOUR

    def take(self, rows: NDArray[np.intp]) -> Step:
        """The decisions of these rows, in this order."""
        return Step(
            self.kind[rows],
            self.next_place[rows],
            self.first_link[rows],
            self.second_link[rows],
            self.out_interface[rows],
            self.tunnel[rows],
            self.mtu[rows],
        )


def step(
    tables: ForwardingTables,
    device: NDArray[np.int32],
    source: NDArray[np.int32],
    destination: NDArray[np.int32],
    source_port: NDArray[np.int32],
    destination_port: NDArray[np.int32],
    protocol: NDArray[np.uint8],
    ecmp_seed: int,
    row: NDArray[np.int32] | None = None,
) -> Step:
    """Look every packet up in the FIB of the device that it is at.

    Parameters
    ----------
    device : int32[n], position in Fabric.devices
    source, destination : int32[n], address ids known when the tables were compiled
    source_port, destination_port : int32[n]; protocol : uint8[n]
        As the packet is now: ECMP hashes what arrives.
    ecmp_seed : int
        Of the run; every device mixes its own name into it.
    row : int32[n], row of `tables.lookup` that the device goes by; None: its table at the start

    Returns
    -------
    Step
        Raises IndexError for an address that was interned after the tables were compiled.
    """
    action = actions(tables, device, source, destination, source_port, destination_port, protocol, ecmp_seed, row)
    return Step(
        tables.kind.take(action),
        tables.next_place.take(action),
        tables.first_link.take(action),
        tables.second_link.take(action),
        tables.out_interface.take(action),
        tables.tunnel.take(action),
        tables.mtu.take(action),
    )


def actions(
    tables: ForwardingTables,
    device: NDArray[np.int32],
    source: NDArray[np.int32],
    destination: NDArray[np.int32],
    source_port: NDArray[np.int32],
    destination_port: NDArray[np.int32],
    protocol: NDArray[np.uint8],
    ecmp_seed: int,
    row: NDArray[np.int32] | None = None,
) -> NDArray[np.intp]:
    """Return the action of each packet, ECMP groups resolved: intp[n]. `step` gathers the columns of it."""
    classes = tables.lookup.shape[1]
    cell = (device if row is None else row).astype(np.int64)
    cell *= classes
    cell += tables.address_class.take(destination)
    # numpy gathers by machine words; converted once here, not once a column
    action: NDArray[np.intp] = tables.lookup.reshape(-1).take(cell).astype(np.intp)
    if tables.has_groups:
        grouped = np.flatnonzero(tables.group_size.take(action))
        if grouped.size:
            group, box = action.take(grouped), device.take(grouped).astype(np.intp)
            key = tables.address_key
            hashed = flow_hash(
                tables.ecmp,
                box,
                key.take(source.take(grouped).astype(np.intp)),
                key.take(destination.take(grouped).astype(np.intp)),
                source_port.take(grouped),
                destination_port.take(grouped),
                protocol.take(grouped),
                ecmp_seed,
            )
            member = choose(
                tables.ecmp.choice.take(box),
                hashed,
                tables.group_start.take(group),
                tables.group_size.take(group),
                tables.groups,
            )
            action[grouped] = tables.groups.action.take(member)
    return action


def access(
    tables: ForwardingTables,
    place: NDArray[np.int32],
    source: NDArray[np.int32],
    destination: NDArray[np.int32],
    source_port: NDArray[np.int32],
    destination_port: NDArray[np.int32],
    protocol: NDArray[np.uint8],
    ecmp_seed: int,
) -> Step:
    """Return the first step of packets from where they are made.

    A pod's packet goes over its veth to its node (all traffic, even to a pod beside it); a client site asks
    its own routes:
    its switch, or straight over a bridged segment; a node's own packet asks the node's routes.
    """
    in_pod = place >= tables.device_count
    device = np.where(in_pod, 0, place).astype(np.int32)
    taken = step(tables, device, source, destination, source_port, destination_port, protocol, ecmp_seed)
    rows = np.flatnonzero(in_pod)
    pod = place[rows] - tables.device_count
    taken.kind[rows] = Step.FORWARD
    taken.next_place[rows] = tables.pod_device[pod]
    taken.first_link[rows] = tables.pod_uplink[pod]
    taken.second_link[rows] = -1
    taken.out_interface[rows] = -1
    taken.tunnel[rows] = -1
    taken.mtu[rows] = tables.pod_mtu
    return taken
