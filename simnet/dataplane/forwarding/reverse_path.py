"""Packets that a node does not believe to come from where they say: martian sources.

Modelled, of IPv4: a source that is one of the node's own addresses, whatever rp_filter says (accept_local is 0);
strict rp_filter, the route back must leave by the interface that the packet came in on (any next hop of an ECMP route
will do); loose, there must be a route back. IPv6 has no such filter. Left out: broadcast and multicast sources; Felix's
own strict check of packets from pods, since no pod here sends from an address that is not its own.
Source: net/ipv4/fib_frontend.c (fib_validate_source), ip-sysctl (rp_filter); RFC 3704.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.forwarding import tables as codes
from simnet.dataplane.forwarding.tables import ForwardingTables

MODES = ("none", "strict", "loose")  # net.ipv4.conf.*.rp_filter 0, 1, 2
_STRICT = MODES.index("strict")


def is_martian(
    tables: ForwardingTables,
    device: NDArray[np.int32],
    in_interface: NDArray[np.int32],
    source: NDArray[np.int32],
    row: NDArray[np.int32] | None = None,
) -> NDArray[np.bool_]:
    """Return which packets a node drops for their source once it has a route for their destination: bool[n].

    Parameters
    ----------
    device : int32[n], position in Fabric.devices
    in_interface : int32[n], id of the interface that each came in on, as in `tables.out_interface`
    source : int32[n], address ids, of IPv4
    row : int32[n], row of `tables.lookup` that the device goes by; None: its table at the start
    """
    martian = tables.is_local(device, source)
    asked = np.flatnonzero(tables.rp_filter.take(device) > 0)
    if not asked.size:
        return martian
    at = (device if row is None else row)[asked].astype(np.intp)
    action = tables.lookup[at, tables.address_class.take(source[asked])].astype(np.intp)
    kind = tables.kind.take(action)
    has_route = (kind == codes.FORWARD) | (kind == codes.ECMP_GROUP) | (kind == codes.NO_NEIGHBOUR)
    by_interface = tables.out_interface.take(action) == in_interface[asked]
    start, size = tables.group_start.take(action), tables.group_size.take(action)
    for place in range(int(size.max(initial=0))):
        rows = np.flatnonzero(place < size)
        member = tables.groups.action.take(start[rows] + place)
        by_interface[rows] |= tables.out_interface.take(member) == in_interface[asked[rows]]
    strict = tables.rp_filter.take(device[asked]) == _STRICT
    martian[asked] |= np.where(strict, ~by_interface, ~has_route)
    return martian
