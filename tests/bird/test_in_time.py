"""A real BIRD whose daemon is killed, now; the record of many such failures is in tests/data/bird_timelines.json."""

from __future__ import annotations

import shutil

import pytest
from bird.timelines import run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not (shutil.which("bird") and shutil.which("birdc") and shutil.which("ip")), reason="needs bird2 and iproute2"
    ),
]


def test_a_killed_daemon_is_noticed_at_once_and_its_routes_are_back_when_it_is() -> None:
    """As simnet has it: gone as soon as the kernel closes the connection, back with the peer's next attempt."""
    try:
        seen = run("switch", "killed", 1, outage_s=1.5, after_s=3)
    except (RuntimeError, OSError) as error:
        pytest.skip(f"this process may not make network namespaces: {error}")
    gone, back = seen["boxes"]["tor"]
    assert gone < 0.5  # 1 to 18 ms recorded; this machine may be busy
    assert gone < back < seen["outage_s"] + 2.5
