"""Python's cyclic garbage collector, kept off work that makes millions of values and no cycles.

Imports nothing of simnet.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_garbage_collector() -> Iterator[None]:
    """Stop the collector for a load or a generation; it would double or triple the time. Restored at the end."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
