"""What theory says, to hold a simulation against: shares, cross-node hops, moved flows, floors and maxima.

Symbols: a_n share of flows that enter at node n, e_n ready endpoints on n, E their sum, N connections.
Derivations and sources: docs/models/statistics.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special


def cluster_pod_share(endpoints: int) -> float:
    """Return each pod's share under `externalTrafficPolicy: Cluster`: 1/E, wherever a flow enters."""
    return 1.0 / endpoints


def cluster_cross_node_share(entry_shares: ArrayLike, endpoints_on_node: ArrayLike) -> float:
    """Return P(serving node is not the entry node) = 1 - sum a_n e_n / E under Cluster.

    Uniform entry over n nodes gives 1 - 1/n whatever the placement; one fixed node gives 1 - e_n / E.
    """
    a, e = np.asarray(entry_shares, dtype=np.float64), np.asarray(endpoints_on_node, dtype=np.float64)
    return float(1 - (a * e).sum() / e.sum())


def local_pod_shares(entry_shares: ArrayLike, endpoints_on_node: ArrayLike) -> NDArray[np.float64]:
    """Return the share of one pod of each node under Local, b_n / e_n; NaN on a node without pods."""
    b, e = np.asarray(entry_shares, dtype=np.float64), np.asarray(endpoints_on_node, dtype=np.float64)
    return np.asarray(np.divide(b, e, out=np.full(len(e), np.nan), where=e > 0), dtype=np.float64)


def local_lost_share(entry_shares: ArrayLike, endpoints_on_node: ArrayLike) -> float:
    """Return the share of flows that a Local service drops: those that enter where it has no endpoint."""
    b, e = np.asarray(entry_shares, dtype=np.float64), np.asarray(endpoints_on_node, dtype=np.float64)
    return float(b[e == 0].sum())


def moved_flow_bounds(next_hops: int, method: str) -> tuple[float, float, float]:
    """Return least, mean and largest share of flows that move when one of n next hops goes away.

    `modulo`: 1 - 1/n. `hash-threshold` (Linux): n equal regions become n - 1, so that besides the flows of
    the region that went, those between the old and the new borders move. `resilient`: 1/n.
    """
    n = next_hops
    if n < 2:
        raise ValueError("a group needs two next hops before one can go away")
    if method == "modulo":
        return (1 - 1 / n,) * 3
    if method == "resilient":
        return (1 / n,) * 3
    if method != "hash-threshold":
        raise ValueError("method is modulo, hash-threshold or resilient")
    k = np.arange(n, dtype=np.float64)
    # A flow keeps its hop where the old and the new region of that hop overlap. With hop k gone, hop i < k has
    # [i/n, (i+1)/n] before and [i/(n-1), (i+1)/(n-1)] after: they share 1/n - i/(n(n-1)). Hop i > k likewise,
    # seen from the other end: 1/n - (n-1-i)/(n(n-1)). Summed over i:
    kept = (k / n - k * (k - 1) / (2 * n * (n - 1))) + ((n - 1 - k) / n - (n - 1 - k) * (n - 2 - k) / (2 * n * (n - 1)))
    moved = 1 - kept
    return float(moved.min()), float(moved.mean()), float(moved.max())


def broken_share(moved: float, endpoints: int, policy: str) -> float:
    """Return the share of flows that break when `moved` of them meet another node without their conntrack
    entry.
    """
    if policy == "Local":
        return moved
    return moved * (1 - 1 / endpoints)  # Cluster: the new node picks the same pod with 1/E


def keep_alive_floor(endpoints: int, connections: float) -> float:
    """Return the CoV that a load over kept-alive connections cannot fall below, however many requests they
    carry.
    """
    return float(np.sqrt((endpoints - 1) / connections))


def expected_max_over_mean(endpoints: int, connections: int) -> float:
    """Return E[max x] / mu of equal shares after N independent connections, for N well above E log E.

    The loads are about mu + sqrt(N / E) (z_i - mean z) with independent standard normals z, so the expected
    maximum is mu + sqrt(N / E) * E[max of E standard normals].
    """
    return 1.0 + float(np.sqrt(endpoints / connections)) * expected_max_normal(endpoints)


def expected_max_normal(count: int) -> float:
    """Return the mean of the largest of `count` independent standard normals, integral of x n phi Phi^(n-1)."""
    if count < 1:
        raise ValueError("needs at least one")
    x = np.linspace(-9.0, 9.0, 3601)
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    return float(np.trapezoid(count * x * density * special.ndtr(x) ** (count - 1), x))


def cascade_shares(endpoints: int) -> NDArray[np.float64]:
    """Return each endpoint's share behind kube-proxy's cascade, with the kernel's probabilities in units of
    2^-31.

    Rule i (from 0) takes 1/(E-i), written with ten decimals and rounded to 2^-31; the last takes the rest.
    """
    rest, shares = 1.0, []
    for i in range(endpoints - 1):
        written = round(1.0 / (endpoints - i), 10)
        taken = np.floor(written * 2**31 + 0.5) / 2**31
        shares.append(rest * taken)
        rest *= 1 - taken
    return np.array([*shares, rest])
