"""What happens to a network while traffic runs: nodes die, links go down, BGP daemons stop, peers come and go.

An event changes the network at an instant; one with an end is undone there. Random failures become events before a run
begins, from the seed alone. Source of what each does: docs/models/events.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from simnet.errors import Position
from simnet.model.calico import BGPFilter, BGPPeer


class EventKind(Enum):
    """What happens, and in brackets to what: the meaning of `Event.subject`."""

    NODE_DIES = "node dies"  # (node): power cut; its links go down with it, its pods are gone
    NODE_DRAINED = "node drained"  # (node): cordoned, and its pods deleted but for those of DaemonSets
    POD_DELETED = "pod deleted"  # (namespace/name): terminating for its grace period, then gone
    POD_UNREADY = "pod unready"  # (namespace/name): its readiness probe fails; it goes on serving who comes
    POD_READY = "pod ready"  # (namespace/name): a pod that was not ready becomes it
    LINK_DOWN = "link down"  # (a, b): both ends see the carrier go
    LINK_SILENT = "link silent"  # (a, b): packets vanish, no end sees the carrier go
    BGP_STOPS = "bgp stops"  # (speaker): SIGTERM; NOTIFICATION Cease, then the sessions close
    BGP_KILLED = "bgp killed"  # (speaker): SIGKILL; the kernel closes the sessions, no message
    BGP_FREEZES = "bgp freezes"  # (speaker): SIGSTOP; sessions stay open and fall silent
    BGP_RESTARTS = "bgp restarts"  # (speaker): killed and started again at once
    BLOCK_CLAIMED = "block claimed"  # (node, cidr)
    PEER_ADDED = "peer added"  # (speaker, speaker), or (name) of the BGPPeer in `peer`
    PEER_REMOVED = "peer removed"  # (speaker, speaker), or (name) of a BGPPeer
    FILTER_CHANGED = "filter changed"  # (name) of a BGPFilter, which gets the rules of `filter`
    PEER_FILTERED = "peer filtered"  # (speaker, speaker): the first's end, or (name) of a BGPPeer: gets `filter_names`


OF_PEERS = (EventKind.PEER_ADDED, EventKind.PEER_REMOVED, EventKind.PEER_FILTERED, EventKind.FILTER_CHANGED)
OF_PODS = (EventKind.POD_DELETED, EventKind.POD_UNREADY, EventKind.POD_READY)


@dataclass(frozen=True, slots=True)
class Event:
    """One change of the network."""

    at_ps: int
    kind: EventKind
    subject: tuple[str, ...]
    until_ps: int | None = None  # undone then; None: it lasts
    name: str = ""  # as plots and frames call it; empty: kind and subject
    position: Position = Position("")
    at_random: bool = False  # it came by itself, of RandomFailures
    grace_period_ps: int | None = None  # of deleted pods, in place of their own
    replacement_ps: int | None = None  # deleted pods are ready on other nodes so much later; None: nowhere
    peer: BGPPeer | None = None  # that is added
    filter: BGPFilter | None = None  # the rules that a BGPFilter gets
    filter_names: tuple[str, ...] = ()  # the filters that a peer gets, in place of those that it has

    @property
    def label(self) -> str:
        """What frames and plots call it."""
        return self.name or f"{self.kind.value}: {' '.join(self.subject)}"


@dataclass(frozen=True, slots=True)
class RandomFailures:
    """Failures that come by themselves: exponential times to failure and to repair, for each subject apart."""

    kind: EventKind
    subjects: tuple[tuple[str, ...], ...]
    mean_time_between_failures_ps: int
    mean_time_to_repair_ps: int
    position: Position = Position("")
    grace_period_ps: int | None = None  # of deleted pods, in place of their own
    replacement_ps: int | None = None  # deleted pods are ready on other nodes so much later; None: nowhere
