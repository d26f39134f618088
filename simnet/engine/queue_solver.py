"""Which queue solver a run uses: the event loop where numba is installed, else the windows. Both give the same.

The environment variable SIMNET_QUEUES says otherwise: `windows` (numpy) or `events` (plain Python without numba: slow).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

from simnet.dataplane.queueing.solver import QueueNetwork
from simnet.errors import ModelError

_CHOICES = ("windows", "events")


def queue_solver() -> Callable[..., Any]:
    """Return the class of the solver; raises ModelError where SIMNET_QUEUES names none."""
    is_compiled = importlib.util.find_spec("numba") is not None
    choice = os.environ.get("SIMNET_QUEUES") or _CHOICES[is_compiled]
    if choice not in _CHOICES:
        raise ModelError(f"SIMNET_QUEUES is {choice!r}: say {' or '.join(_CHOICES)}, or leave it out")
    if choice == "windows":
        return QueueNetwork
    # Here, because numba takes half a second to import.
    from simnet.dataplane.queueing.event_network import EventNetwork

    return EventNetwork
