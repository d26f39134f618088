"""How the tables of a network change over time: what the control plane hands to the data plane.

A table is valid from its instant on. At equal times a change comes before a packet. Every change says which event it
follows from, by its number in `TableHistory.events`: from it alone, or as the last of what a box handled together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from simnet.model.events import Event
from simnet.model.fib import Fib
from simnet.model.iptables.ruleset import Ruleset
from simnet.model.table_log import TableLog

NO_EVENT = -1


class FibChange(NamedTuple):
    """A device forwards by `fib` from `time_ps` on."""

    time_ps: int
    device: str
    table: Fib | TableLog  # the table itself, or what `number` changes made of it
    event: int = NO_EVENT
    number: int = 0

    @property
    def fib(self) -> Fib:
        """The table; made anew each time where it is kept as changes."""
        return self.table if isinstance(self.table, Fib) else self.table.fib(self.number)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FibChange):
            return NotImplemented
        same = (self.time_ps, self.device, self.event) == (other.time_ps, other.device, other.event)
        return same and self.fib == other.fib

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.time_ps, self.device, self.event))


@dataclass(frozen=True, slots=True)
class RulesChange:
    """A node's rules of every family from `time_ps` on."""

    time_ps: int
    node: str
    rulesets: tuple[Ruleset, ...]
    event: int = NO_EVENT
    # (address, port) of endpoints whose UDP entries kube-proxy keeps though the rules may not name them
    kept: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class LinkChange:
    """A wire (position in Fabric.links) carries packets, or loses every one that is sent into it."""

    time_ps: int
    link: int
    carries: bool
    event: int = NO_EVENT


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """A device works, or loses every packet that comes to it."""

    time_ps: int
    device: str
    works: bool
    event: int = NO_EVENT


@dataclass(frozen=True, slots=True)
class PodChange:
    """A pod's processes run, or have ended: connections to them are reset then."""

    time_ps: int
    pod: str  # namespace/name
    runs: bool
    event: int = NO_EVENT


@dataclass(frozen=True, slots=True)
class SessionChange:
    """A BGP session as its local end sees it: RFC 4271, 8.2.2 names the states."""

    time_ps: int
    local: str
    remote: str
    state: str  # Idle, Connect, Active, OpenSent, OpenConfirm, Established
    why: str = ""


@dataclass(frozen=True, slots=True)
class Instant:
    """The tables in force at one instant, and what carries nothing then."""

    fibs: Mapping[str, Fib]  # by device
    rulesets: Mapping[str, tuple[Ruleset, ...]]  # of the nodes whose rules are not those of the start
    broken_links: frozenset[int]  # positions in Fabric.links
    dead_devices: frozenset[str]
    ended_pods: frozenset[str] = frozenset()  # namespace/name


@dataclass(frozen=True, slots=True)
class TableHistory:
    """The tables at the start and every change after it, each list in order of time; equal times in device order."""

    start: Mapping[str, Fib]  # by device
    fibs: tuple[FibChange, ...] = ()
    rules: tuple[RulesChange, ...] = ()
    links: tuple[LinkChange, ...] = ()
    devices: tuple[DeviceChange, ...] = ()
    pods: tuple[PodChange, ...] = ()
    sessions: tuple[SessionChange, ...] = ()
    events: tuple[Event, ...] = ()  # what happened, in order of time
    messages: Mapping[str, int] = field(default_factory=dict)  # BGP message type -> how many were sent
    converged_ps: int | None = None  # when the last message of the first convergence was handled

    def fibs_at(self, time_ps: int) -> dict[str, Fib]:
        """Return every device's table at an instant, changes of that instant included."""
        latest: dict[str, FibChange] = {}
        for change in self.fibs:
            if change.time_ps > time_ps:
                break
            latest[change.device] = change
        return {**self.start, **{device: change.fib for device, change in latest.items()}}

    def at(self, time_ps: int) -> Instant:
        """Return all that a packet meets at an instant, changes of that instant included."""
        carries = {change.link: change.carries for change in self.links if change.time_ps <= time_ps}
        runs = {change.pod: change.runs for change in self.pods if change.time_ps <= time_ps}
        works = {change.device: change.works for change in self.devices if change.time_ps <= time_ps}
        return Instant(
            self.fibs_at(time_ps),
            {change.node: change.rulesets for change in self.rules if change.time_ps <= time_ps},
            frozenset(link for link, is_whole in carries.items() if not is_whole),
            frozenset(device for device, is_on in works.items() if not is_on),
            frozenset(pod for pod, is_up in runs.items() if not is_up),
        )
