"""The state of one end of a BGP session, and what each event makes of it: a frozen value and one pure function.

Modelled: the states of RFC 4271, 8.2.2, hold time negotiation, BIRD's error wait that doubles, graceful restart's
helper. Left out: connection collisions (the first connection is kept; RFC 6.8 keeps that of the higher router id),
DelayOpen, capabilities other than those named here.
Source: RFC 4271, 8; RFC 4724; projectcalico/bird, proto/bgp/bgp.c.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from simnet.model.calico import BgpTimers


class State(Enum):
    """RFC 4271, 8.2.2."""

    IDLE = "Idle"
    CONNECT = "Connect"
    ACTIVE = "Active"
    OPEN_SENT = "OpenSent"
    OPEN_CONFIRM = "OpenConfirm"
    ESTABLISHED = "Established"


@dataclass(frozen=True, slots=True)
class Open:
    """OPEN: what the sender offers."""

    hold_ps: int
    restart_ps: int | None  # graceful restart capability


@dataclass(frozen=True, slots=True)
class Keepalive:
    """KEEPALIVE."""


@dataclass(frozen=True, slots=True)
class Notification:
    """NOTIFICATION: RFC 4271, 4.5 numbers the errors; 6 is Cease."""

    code: int
    why: str


class Happening(Enum):
    """What can happen to an end, besides a message."""

    START = "start"
    CONNECTING = "connect timer"
    TCP_UP = "TCP connection stands"
    TCP_REFUSED = "TCP connection refused"
    TCP_CLOSED = "TCP connection closed by the far end"
    HOLD_EXPIRED = "hold timer expired"
    BFD_DOWN = "BFD down"
    CARRIER_LOST = "carrier lost"
    STOP = "stopped"


class Loss(Enum):
    """What becomes of the far end's paths."""

    FLUSH = "flush"
    KEEP = "keep as stale"


@dataclass(frozen=True, slots=True)
class Session:
    """One end; times of the last errors count for the next error wait."""

    state: State = State.IDLE
    hold_ps: int = 0  # negotiated
    peer_restart_ps: int | None = None  # how long the peer asks to be waited for
    error_wait_ps: int = 0
    last_error_ps: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The session after it, messages to send, what becomes of paths, and when to connect again."""

    session: Session
    send: tuple[Open | Keepalive | Notification, ...] = ()
    loss: Loss | None = None
    is_up: bool = False
    closes: bool = False
    wait_ps: tuple[int, ...] | None = None  # waits, one after the other, each jittered; None: it does not connect
    why: str = ""


def step(session: Session, timers: BgpTimers, what: Happening | Open | Keepalive | Notification, now_ps: int) -> Step:
    """Return what an event does to one end of a session."""
    if isinstance(what, Open):
        if session.state is not State.OPEN_SENT:
            return Step(session)
        hold_ps = min(timers.hold_ps, what.hold_ps)
        after = replace(session, state=State.OPEN_CONFIRM, hold_ps=hold_ps, peer_restart_ps=what.restart_ps)
        return Step(after, (Keepalive(),))
    if isinstance(what, Keepalive):
        if session.state is not State.OPEN_CONFIRM:
            return Step(session)
        return Step(replace(session, state=State.ESTABLISHED), is_up=True)
    if isinstance(what, Notification):
        failed = session if what.code == 6 else _with_error(session, timers, now_ps)
        return _lost(failed, timers, f"NOTIFICATION {what.why}", Loss.FLUSH)
    if what is Happening.START and session.state is not State.IDLE:
        return Step(session)
    if what is Happening.START:
        waits = (session.error_wait_ps,) if _is_waiting(session, timers, now_ps) else ()
        return Step(
            replace(session, state=State.IDLE if waits else State.ACTIVE), wait_ps=(*waits, timers.connect_delay_ps)
        )
    if what is Happening.CONNECTING:
        return Step(replace(session, state=State.CONNECT))
    if what is Happening.TCP_UP:
        return Step(replace(session, state=State.OPEN_SENT), (Open(timers.hold_ps, timers.restart_ps),))
    if what is Happening.TCP_REFUSED:
        return Step(replace(session, state=State.ACTIVE), wait_ps=(timers.connect_delay_ps,))
    if what is Happening.TCP_CLOSED:
        keeps = session.state is State.ESTABLISHED and timers.is_helper and session.peer_restart_ps is not None
        return _lost(session, timers, what.value, Loss.KEEP if keeps else Loss.FLUSH)
    if what is Happening.HOLD_EXPIRED:
        failed = _with_error(session, timers, now_ps)
        lost = _lost(failed, timers, what.value, Loss.FLUSH)
        return replace(lost, send=(Notification(4, what.value),))
    if what is Happening.STOP:
        lost = _lost(session, timers, what.value, Loss.FLUSH)
        return replace(lost, send=(Notification(6, "Cease"),), wait_ps=None)
    lost = _lost(session, timers, what.value, Loss.FLUSH)  # BFD down, carrier lost
    return replace(lost, wait_ps=None) if what is Happening.CARRIER_LOST else lost


def _lost(session: Session, timers: BgpTimers, why: str, loss: Loss) -> Step:
    was_up = session.state is State.ESTABLISHED
    waits = (session.error_wait_ps,) if session.error_wait_ps else ()
    after = replace(session, state=State.IDLE, hold_ps=0)
    return Step(
        after, loss=loss if was_up else None, closes=True, wait_ps=(*waits, timers.connect_delay_ps), why=why
    )  # fmt: skip


def _is_waiting(session: Session, timers: BgpTimers, now_ps: int) -> bool:
    recent = session.last_error_ps is not None and now_ps - session.last_error_ps < timers.error_forget_ps
    return bool(session.error_wait_ps) and recent


def _with_error(session: Session, timers: BgpTimers, now_ps: int) -> Session:
    """BIRD: the first error waits for the shorter time, each further one twice as long, until all is forgotten."""
    first, most = timers.error_wait_ps
    wait = min(2 * session.error_wait_ps, most) if _is_waiting(session, timers, now_ps) else first
    return replace(session, error_wait_ps=wait, last_error_ps=now_ps)
