"""What a speaker tells a peer, and what it takes from one.

Modelled: propagation between internal and external peers, reflection, next hops, loop checks, BGPFilter's rules by
prefix, its length, source, type of peer and start of the AS_PATH, the filter of learned paths.
Left out: communities, confederations, route refresh.
Source: RFC 4271, 5.1, 9.1.2, 9.2; RFC 4456, 8; projectcalico/bird, proto/bgp/attrs.c (a path is not held back
because its AS_PATH holds the receiver's AS: the receiver drops it; the cluster id is looked for in sessions with
clients only).
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from functools import lru_cache

from simnet.controlplane.bgp.path import Learned, Path, Peering, Speaker, Withheld
from simnet.model.calico import BGPFilterRule
from simnet.model.iptables.ruleset import IPNetwork

CALICO_LOCAL_PREF = 2147482623  # 2147483647 less the default kernel metric 1024: buildExportFilter of Calico 3.32


def withheld(peering: Peering, prefix: IPNetwork, path: Path) -> Withheld | None:
    """Return why the export filters keep a prefix from the peer, None where they let it pass."""
    if prefix in peering.untold:
        return Withheld("export filter: nodes are told of the cluster's prefixes only")
    if prefix in peering.aggregated:
        return Withheld("export filter: inside a block of its own, which is told as one aggregate")
    if path.learned is not Learned.LOCAL and not peering.exports_learned:
        return Withheld("export filter: learned from a BGP peer")
    return _rejected(peering, prefix, path, exports=True) if peering.filters else None


def refused(peering: Peering, prefix: IPNetwork, path: Path) -> Withheld | None:
    """Return why the import filters keep a path out, None where they let it pass; `path` as the peer told it."""
    return _rejected(peering, prefix, path, exports=False) if peering.filters else None


def _rejected(peering: Peering, prefix: IPNetwork, path: Path, *, exports: bool) -> Withheld | None:
    """The first rule that matches, filter after filter, decides; none: accept (projectcalico/calico, BGPFilter)."""
    is_learned = not exports or path.learned is not Learned.LOCAL
    for named in peering.filters:
        for number, rule in enumerate(named.rules(exports=exports, family=prefix.version)):
            if _matches(rule, peering, prefix, path, is_learned=is_learned):
                return None if rule.action == "Accept" else Withheld(f"BGPFilter {named.name}, rule {number}: Reject")
    return None


def _matches(rule: BGPFilterRule, peering: Peering, prefix: IPNetwork, path: Path, *, is_learned: bool) -> bool:
    if rule.source == "RemotePeers" and not is_learned:
        return False
    if rule.peer_type and (rule.peer_type == "iBGP") != peering.is_internal:
        return False
    if path.as_path[: len(rule.as_path_prefix)] != rule.as_path_prefix:
        return False
    if not rule.cidr:
        return True
    network = ipaddress.ip_network(rule.cidr)
    is_inside = network.version == prefix.version and prefix.subnet_of(network)  # type: ignore[arg-type]
    shortest, longest = rule.prefix_length or (network.prefixlen, network.max_prefixlen)
    is_equal, is_in = network == prefix, is_inside and shortest <= prefix.prefixlen <= longest
    return {"Equal": is_equal, "NotEqual": not is_equal, "In": is_in, "NotIn": not is_in}[rule.match_operator]


def export_path(speaker: Speaker, peering: Peering, path: Path) -> Path | Withheld:
    """Return the attributes that the peer is told, or the rule of propagation that withholds them.

    A pure function of the three; filters by prefix are `withheld`'s.
    """
    if path.peer == peering.remote:
        return Withheld("learned from that peer")
    if not peering.is_internal:
        third_party = peering.keeps_third_party and path.next_hop in peering.shared
        keeps = path.next_hop != "" and (third_party or peering.next_hop_mode == "Keep")
        return Path(
            path.next_hop if keeps and peering.next_hop_mode != "Self" else peering.local_address,
            (speaker.as_number, *path.as_path),
            path.origin,
        )
    local_pref = path.local_pref
    if local_pref is None:
        local_pref = CALICO_LOCAL_PREF if path.learned is Learned.LOCAL else 100
    next_hop = path.next_hop or peering.local_address
    if peering.next_hop_mode == "Self":
        next_hop = peering.local_address
    if path.learned is not Learned.INTERNAL:
        return Path(next_hop, path.as_path, path.origin, local_pref, path.med, path.originator_id, path.cluster_list)
    if speaker.cluster_id is None or not (path.from_client or peering.remote_is_client):
        return Withheld("learned from an internal peer, told to internal peers by reflectors only (RFC 4456)")
    if peering.remote_is_client and speaker.cluster_id in path.cluster_list:
        return Withheld("own cluster id in CLUSTER_LIST (RFC 4456, 8)")
    originator = path.originator_id if path.originator_id is not None else path.peer_router_id
    cluster_list = (speaker.cluster_id, *path.cluster_list)
    return Path(next_hop, path.as_path, path.origin, local_pref, path.med, originator, cluster_list)


def import_path(speaker: Speaker, peering: Peering, sender: Speaker, path: Path) -> Path | Withheld:
    """Return the path as it enters Adj-RIB-In, or the loop that keeps it out."""
    if path.as_path.count(speaker.as_number) > peering.allowed_own_as:  # BIRD asks it of internal peers too
        return Withheld(f"own AS {speaker.as_number} in AS_PATH (RFC 4271, 9.1.2)")
    if path.originator_id == speaker.router_id:
        return Withheld("own router id in ORIGINATOR_ID (RFC 4456, 8)")
    if peering.remote_is_client and speaker.cluster_id in path.cluster_list:
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


@lru_cache(maxsize=1 << 16)
def _number(address: str) -> int:
    return int(ipaddress.ip_address(address))
