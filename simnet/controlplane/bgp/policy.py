"""What a speaker tells a peer, and what it takes from one.

Modelled: propagation between internal and external peers, reflection, next hops, loop checks, the
filter of learned paths.
Left out: communities, confederations, route refresh.
Source: RFC 4271, 5.1, 9.1.2, 9.2; RFC 4456, 8; projectcalico/bird, proto/bgp/attrs.c (a path is not held back
because its AS_PATH holds the receiver's AS: the receiver drops it).
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from simnet.controlplane.bgp.path import Learned, Path, Peering, Speaker, Withheld

CALICO_LOCAL_PREF = 2147482623  # 2147483647 less the default kernel metric 1024: buildExportFilter of Calico 3.32


def export_path(speaker: Speaker, peering: Peering, path: Path) -> Path | Withheld:
    """Return the path as the peer is told it, or why it is withheld. A pure function of the three."""
    if path.peer == peering.remote:
        return Withheld("learned from that peer")
    if path.prefix in peering.untold:
        return Withheld("export filter: nodes are told of the cluster's prefixes only")
    if path.learned is not Learned.LOCAL and not peering.exports_learned:
        return Withheld("export filter: learned from a BGP peer")
    if not peering.is_internal:
        third_party = peering.keeps_third_party and path.next_hop in peering.shared
        return replace(
            path,
            next_hop=path.next_hop if third_party else peering.local_address,
            as_path=(speaker.as_number, *path.as_path),
            local_pref=None, med=None, originator_id=None, cluster_list=(),
        )  # fmt: skip
    local_pref = path.local_pref
    if local_pref is None:
        local_pref = CALICO_LOCAL_PREF if path.learned is Learned.LOCAL else 100
    told = replace(path, local_pref=local_pref, next_hop=path.next_hop or peering.local_address)
    if path.learned is not Learned.INTERNAL:
        return told
    if speaker.cluster_id is None or not (path.from_client or peering.remote_is_client):
        return Withheld("learned from an internal peer, told to internal peers by reflectors only (RFC 4456)")
    originator = path.originator_id if path.originator_id is not None else path.peer_router_id
    return replace(told, originator_id=originator, cluster_list=(speaker.cluster_id, *path.cluster_list))


def import_path(speaker: Speaker, peering: Peering, sender: Speaker, path: Path) -> Path | Withheld:
    """Return the path as it enters Adj-RIB-In, or the loop that keeps it out."""
    if path.as_path.count(speaker.as_number) > peering.allowed_own_as and not peering.is_internal:
        return Withheld(f"own AS {speaker.as_number} in AS_PATH (RFC 4271, 9.1.2)")
    if path.originator_id == speaker.router_id:
        return Withheld("own router id in ORIGINATOR_ID (RFC 4456, 8)")
    if speaker.cluster_id is not None and speaker.cluster_id in path.cluster_list:
        return Withheld("own cluster id in CLUSTER_LIST (RFC 4456, 8)")
    return replace(
        path,
        local_pref=path.local_pref if peering.is_internal else 100,
        learned=Learned.INTERNAL if peering.is_internal else Learned.EXTERNAL,
        peer=sender.name,
        peer_router_id=sender.router_id,
        peer_address=_number(peering.remote_address),
        from_client=peering.remote_is_client,
    )


def _number(address: str) -> int:
    return int(ipaddress.ip_address(address))
