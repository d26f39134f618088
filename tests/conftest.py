"""What all tests share: hypothesis profiles, and the cases that stand beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).parents[1]

# Wall time on a shared machine says nothing about a law, so no profile has a deadline. CI draws the same examples each
# time: what it says about a commit does not depend on luck. HYPOTHESIS_PROFILE=long is for the nights.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.register_profile("long", settings.get_profile("default"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top folder of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The golden cases: `cases` under SIMNET_SHARED or under `shared` beside the checkout; skips if absent."""
    shared = Path(os.environ.get("SIMNET_SHARED", REPOSITORY.parent / "shared"))
    cases = shared / "cases"
    if not cases.is_dir():
        pytest.skip(f"no golden cases in {cases}; set SIMNET_SHARED to the folder that holds them")
    return cases


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `root` where this process may not make network namespaces."""
    if os.name == "posix" and os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root to make network namespaces"))
