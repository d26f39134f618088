"""When BIRD's timers fire: values drawn from [0.75, 1] of what is configured, each a function of what it is for.

KEEPALIVEs of a healthy session are not simulated one by one: `last_keepalive` says when the last one before an instant
was sent.
Source: projectcalico/bird, proto/bgp/bgp.c bgp_start_timer.
"""

from __future__ import annotations

import hashlib

import numpy as np

from simnet.random_streams import uniform
from simnet.units import PS_PER_MS

DAEMON_START_PS = 50 * PS_PER_MS  # assumed
_BATCH = 64


def session_number(local: str, remote: str) -> int:
    """Return the number of one end of a session: it depends on the names only, not on what other sessions there are."""
    return int.from_bytes(hashlib.blake2b(f"{local}>{remote}".encode(), digest_size=8).digest(), "little")


def fraction(seed: int, purpose: str, session: int, number: int) -> float:
    """Return the draw in [0, 1) of one session, purpose and number."""
    return float(uniform(seed, f"bgp/{purpose}", np.array([session], np.uint64), number)[0])


def jittered_ps(seed: int, purpose: str, session: int, number: int, value_ps: int) -> int:
    """Return a time from (0.75, 1] of the value."""
    return value_ps - int(value_ps * 0.25 * fraction(seed, purpose, session, number))


def last_keepalive_ps(seed: int, session: int, start_ps: int, keepalive_ps: int, before_ps: int) -> int:
    """Return when the last KEEPALIVE at or before an instant was sent, `start_ps` being the first.

    Each interval is drawn for its number, so the answer for a later instant agrees with that for an earlier one.
    """
    at, number = start_ps, 0
    while True:
        draws = uniform(
            seed,
            "bgp/keepalive",
            np.full(_BATCH, session, np.uint64),
            np.arange(number, number + _BATCH, dtype=np.uint64),
        )
        for draw in draws:
            following = at + keepalive_ps - int(keepalive_ps * 0.25 * float(draw))
            if following > before_ps:
                return at
            at = following
        number += _BATCH
