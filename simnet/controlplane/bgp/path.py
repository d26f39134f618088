"""A route as BGP carries it, a speaker, and a session between two: the nouns of RFC 4271."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from simnet.model.calico import BGPFilter
from simnet.model.iptables.ruleset import IPNetwork


class Learned(Enum):
    """How a path came to a speaker."""

    LOCAL = "local"  # its own static or connected route
    INTERNAL = "internal"  # from a peer of its own AS
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Path:
    """The attributes of a route, as one speaker holds it (`peer` says from whom); many prefixes share one."""

    next_hop: str = ""  # empty: this speaker itself
    as_path: tuple[int, ...] = ()
    origin: int = 0  # 0 IGP, 1 EGP, 2 incomplete
    local_pref: int | None = None
    med: int | None = None
    originator_id: int | None = None
    cluster_list: tuple[int, ...] = ()
    learned: Learned = Learned.LOCAL
    peer: str = ""  # the speaker that sent it
    peer_router_id: int = 0
    peer_address: int = 0
    from_client: bool = False  # the peer is a client of this reflector
    _hash: int = field(init=False, repr=False, compare=False)  # paths are keys of what speakers remember

    def __post_init__(self) -> None:
        parts = (
            self.next_hop, self.as_path, self.origin, self.local_pref, self.med, self.originator_id, self.cluster_list,
            self.peer, self.peer_router_id, self.from_client,
        )  # fmt: skip
        object.__setattr__(self, "_hash", hash(parts))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Speaker:
    """A router that speaks BGP; `router_id` breaks ties."""

    name: str
    as_number: int
    router_id: int
    cluster_id: int | None = None  # a route reflector's
    ecmp_width: int = 16  # paths merged into one route; 1: the best only
    multipath_relax: bool = True  # merged paths may differ in AS_PATH, not in its length


@dataclass(frozen=True, slots=True)
class Peering:
    """One speaker's end of a session."""

    local: str
    remote: str
    local_address: str
    remote_address: str
    remote_as: int
    is_internal: bool
    remote_is_client: bool = False  # of this reflector
    keeps_third_party: bool = False  # eBGP: a next hop in `shared` is passed on (RFC 4271, 5.1.3)
    shared: frozenset[str] = frozenset()  # addresses on the segment that both ends share
    exports_learned: bool = True  # False: what BGP brought is withheld (BGPFilter, source RemotePeers)
    allowed_own_as: int = 0
    untold: frozenset[IPNetwork] = frozenset()  # prefixes that the far end is not told: a switch's underlay, to nodes
    aggregated: frozenset[IPNetwork] = frozenset()  # prefixes inside blocks of this end's own, which are told whole
    next_hop_mode: str = "Auto"  # BGPPeer.nextHopMode: Auto, Self, Keep
    add_path: bool = False  # both ends agreed to exchange all paths, not the best only (RFC 7911)
    filters: tuple[BGPFilter, ...] = ()  # of this end, in order; a mesh session takes none
    is_passive: bool = False  # waits for the far end to connect
    is_single_hop: bool = False  # the far end is a neighbour on the wire: lost at once when the carrier goes
    restart_ps: int | None = None  # BGPPeer.maxRestartTime; None: as the speaker's other sessions
    keepalive_ps: int | None = None  # BGPPeer.keepaliveTime; likewise


@dataclass(frozen=True, slots=True)
class Withheld:
    """A path that was not passed on, or not taken, and the clause that says so."""

    reason: str
