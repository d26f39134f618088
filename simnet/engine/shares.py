"""Exact shares."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from simnet.engine.network import CompiledCluster
from simnet.engine.targets import Callers, Targets
from simnet.model.scenario import Variant


def expected_shares(
    compiled: CompiledCluster, variant: Variant, targets: Targets, callers: Callers, demand: NDArray[np.float64] | None
) -> Mapping[tuple[str, str], float]:
    """Return {}."""
    return {}
