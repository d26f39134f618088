"""The boxes of a control plane while it runs: a device's table, its speakers, their ends of sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from simnet.controlplane.bgp.path import Peering, Speaker
from simnet.controlplane.bgp.session import Session, State
from simnet.controlplane.bgp.speaker import SpeakerTables
from simnet.controlplane.bgp.timers import session_number
from simnet.controlplane.bgp.update_group import Update
from simnet.engine.bgp_tables import DeviceTable
from simnet.model.calico import BGPFilter, BgpTimers
from simnet.model.history import NO_EVENT
from simnet.model.iptables.ruleset import IPNetwork

if TYPE_CHECKING:
    from simnet.engine.bgp_followers import Follower


@dataclass(frozen=True, slots=True)
class EndOfRib:
    """The mark after the last UPDATE of a first table (RFC 4724, 2)."""

    nothing: Update | None = None  # where there was no UPDATE: that the table is empty


class RouteRefresh:
    """The wish to be told all again (RFC 2918)."""


@dataclass(eq=False, slots=True)
class End:
    """One end of a session."""

    peering: Peering
    box: Box
    timers: BgpTimers
    twin: End = field(init=False)
    session: Session = Session()
    connection: int = 0  # equal at both ends of a standing TCP connection; 0: none
    token: int = 0  # counts up whenever a waiting timer is void
    established_ps: int = 0  # the first KEEPALIVE that it sent as established
    received_ps: int = 0  # the last message that was handled
    is_watched: bool = False  # silent since `received_ps`; its hold timer runs towards its end
    draws: int = 0
    removals: int = 0  # how many events keep this peer out of the configuration; before it is added: one more
    additions: int = 0  # of a peer that is added meanwhile: how many events hold it now
    added_by: list[object] = field(default_factory=list)  # and which add it
    first_filters: tuple[BGPFilter, ...] = field(init=False)  # those that it has without any event
    has_carrier: bool = True
    unsent: list[object] = field(default_factory=list)  # in TCP's buffer while nothing gets through, in order
    broken_ps: int | None = None  # since when nothing gets through
    unread: list[tuple[int, object]] = field(default_factory=list)  # in the socket of a frozen daemon, by connection
    number: int = field(init=False)

    def __post_init__(self) -> None:
        self.number = session_number(self.peering.local, f"{self.peering.remote}/{self.box.family}")
        self.first_filters = self.peering.filters

    @classmethod
    def of(cls, peering: Peering, box: Box) -> End:
        """Return a speaker's end of a session, with its timers as they are in this one."""
        timers = box.timers
        if peering.restart_ps is not None:
            timers = replace(timers, restart_ps=peering.restart_ps)
        if peering.keepalive_ps is not None:
            timers = replace(timers, keepalive_ps=peering.keepalive_ps)
        return cls(peering, box, timers)

    @property
    def is_up(self) -> bool:
        """Whether routes are exchanged."""
        return self.session.state is State.ESTABLISHED

    @property
    def is_configured(self) -> bool:
        """Whether the daemon is told of this peer."""
        return not self.removals


@dataclass(eq=False, slots=True)
class Box:
    """A device's speaker of one family."""

    name: str
    family: int
    own_tables: SpeakerTables  # not to be read while it shares another's
    timers: BgpTimers
    table: DeviceTable
    follower: Follower | None = None  # of a speaker that may share its tables
    shares: bool = False  # it does
    ends: dict[str, End] = field(default_factory=dict)  # by peer
    inbox: list[tuple[End, int, Update | EndOfRib]] = field(default_factory=list)
    is_awake: bool = False
    is_running: bool = True
    starts: int = 0  # how often the daemon was started again
    has_kernel_routes: bool = True  # those of before: False once the node was without power
    frozen_by: list[object] = field(default_factory=list)  # events that stopped the daemon's process
    overdue: list[Callable[[], None]] = field(default_factory=list)  # timers that ran out while it was frozen
    cause: int = NO_EVENT  # the latest event that what waits to be handled follows from
    unheard: list[Callable[[], None]] = field(default_factory=list)  # changes of its configuration, not read yet
    claims: dict[IPNetwork, int] = field(default_factory=dict)  # blocks claimed meanwhile: by how many events
    waits_for: set[str] = field(default_factory=set)  # after a restart: peers whose End-of-RIB is awaited

    @property
    def speaker(self) -> Speaker:
        """Who it is."""
        return self.own_tables.speaker

    @property
    def tables(self) -> SpeakerTables:
        """Its tables, to read or change: they are its own from here on."""
        if self.shares and self.follower is not None:
            self.follower.part()
        return self.own_tables

    @property
    def is_frozen(self) -> bool:
        """Whether its process is stopped (SIGSTOP): connections stand, nobody reads."""
        return bool(self.frozen_by)

    @property
    def answers(self) -> bool:
        """Whether the daemon handles messages and timers."""
        return self.is_running and not self.is_frozen
