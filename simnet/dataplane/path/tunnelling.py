"""Packets inside a tunnel: what boxes on the way see of them, and where they go in and come out.

A node that sends through its tunnel puts the packet, whole, into another from its own address to that of the node at
the far end. Boxes in between look at the outer header alone: its TTL goes down, its fields are hashed. Modelled: IPIP
(the outer TTL starts as the inner one's, no ports) and VXLAN (64; UDP to port 4789 from a port that the inner flow
decides, so that ECMP spreads it). Left out: hooks for the outer packet, which no rule of kube-proxy concerns.
Source: net/ipv4/ip_tunnel.c (ip_tunnel_xmit), drivers/net/vxlan, include/net/udp.h (udp_flow_src_port); RFC 2003, 7348.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.forwarding.ecmp import HASHES, flow_hash
from simnet.dataplane.forwarding.tables import ForwardingTables
from simnet.dataplane.path.columns import TTL_AT_START, Header, Way

Rows = NDArray[np.intp]

IPIP, UDP = 4, 17  # protocol numbers of outer headers
VXLAN_PORT = 4789
FIRST_PORT, PORTS = 32768, 28232  # net.ipv4.ip_local_port_range: 32768 to 60999


def enter(tables: ForwardingTables, way: Way, rows: Rows, tunnel: NDArray[np.int32], seed: int) -> None:
    """Put rows into the tunnels that their nodes send them through."""
    tunnels, header = tables.tunnels, way.header
    way.tunnel[rows] = tunnel
    is_vxlan = tunnels.protocol[tunnel] == UDP
    way.outer_ttl[rows] = np.where(is_vxlan, TTL_AT_START, way.ttl[rows])
    symmetric = np.full_like(tables.ecmp.hash, HASHES.index("symmetric"))
    key = tables.address_key
    hashed = flow_hash(
        type(tables.ecmp)(symmetric, tables.ecmp.choice, tables.ecmp.device_key),
        way.place[rows].astype(np.intp),
        key[header.source[rows]],
        key[header.destination[rows]],
        header.source_port[rows],
        header.destination_port[rows],
        header.protocol[rows],
        seed,
    )
    port = FIRST_PORT + ((hashed >> np.uint64(32)) % np.uint64(PORTS)).astype(np.int32)
    way.outer_port[rows] = np.where(is_vxlan, port, 0)


def seen(tables: ForwardingTables, way: Way, rows: Rows) -> Header:
    """Return the header that a box sees of each row: the outer one of those in a tunnel."""
    header, inside = way.header.take(rows), np.flatnonzero(way.tunnel[rows] >= 0)
    if not inside.size:
        return header
    header = Header(*(column.copy() for column in header.columns))
    tunnels, tunnel = tables.tunnels, way.tunnel[rows[inside]]
    header.source[inside] = tunnels.near_address[tunnel]
    header.destination[inside] = tunnels.far_address[tunnel]
    header.source_port[inside] = way.outer_port[rows[inside]]
    header.destination_port[inside] = np.where(tunnels.protocol[tunnel] == UDP, VXLAN_PORT, 0)
    header.protocol[inside] = tunnels.protocol[tunnel]
    return header


def leave(tables: ForwardingTables, way: Way, rows: Rows) -> NDArray[np.bool_]:
    """Take out rows that have come to the far end of their tunnel; returns bool: which are in one still."""
    tunnels, tunnel = tables.tunnels, way.tunnel[rows]
    inside = tunnel >= 0
    if not inside.any():
        return inside
    ends = inside & tables.is_local(way.place[rows], tunnels.far_address[tunnel])
    out, through = rows[ends], tunnel[ends]
    at_end = tunnels.interface_at(way.place[out], through)
    has_device = at_end >= 0
    way.in_interface[out[has_device]] = at_end[has_device]
    way.tunnel[out[has_device]] = -1
    inside[ends] = ~has_device
    return inside


def own_source(
    tables: ForwardingTables,
    device: NDArray[np.int32],
    interface: NDArray[np.int32] | None,
    otherwise: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Return the address that a node's own or masqueraded packets have where they leave by a tunnel."""
    if interface is None or not len(tables.tunnels):
        return otherwise
    chosen = otherwise.copy()
    for number, address in zip(tables.tunnels.interfaces, tables.tunnels.address_on, strict=True):
        through = (interface == number) & (address[device] >= 0)
        chosen[through] = address[device[through]]
    return chosen
