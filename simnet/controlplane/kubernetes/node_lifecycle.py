"""When the node lifecycle controller takes a node for unreachable.

The kubelet renews its node's lease every quarter of the lease's duration. The controller looks every monitor period; a
renewal counts from the look that first sees it. A node whose last renewal was seen a grace period ago or more is
unreachable: its Ready condition becomes Unknown, and that of its pods False.

Left out: the jitter of renewals (4 %) and the time that a look takes, which makes the controller's period slightly
longer than told: here a look that comes exactly a grace period after another counts as later.
Source: kubernetes/kubernetes, pkg/controller/nodelifecycle/node_lifecycle_controller.go (tryUpdateNodeHealth),
pkg/kubelet/kubelet.go (nodeLeaseRenewIntervalFraction).
"""

from __future__ import annotations

from simnet.model.node_lifecycle import NodeLifecycle

RENEWALS_PER_DURATION = 4


def next_round_ps(phase_ps: int, period_ps: int, now_ps: int) -> int:
    """Return the first of the instants phase + k * period that is not before `now_ps`."""
    return now_ps + (phase_ps - now_ps) % period_ps


def last_round_ps(phase_ps: int, period_ps: int, now_ps: int) -> int:
    """Return the last of the instants phase + k * period that is not after `now_ps`."""
    return now_ps - (now_ps - phase_ps) % period_ps


def last_renewal_ps(lifecycle: NodeLifecycle, phase_ps: int, now_ps: int) -> int:
    """Return when a kubelet that is always heard last renewed its lease."""
    return last_round_ps(phase_ps, lifecycle.node_lease_duration_ps // RENEWALS_PER_DURATION, now_ps)


def unreachable_ps(lifecycle: NodeLifecycle, monitor_phase_ps: int, heartbeat_ps: int) -> int:
    """Return when the controller takes a node for unreachable that it has not heard of since its last heartbeat."""
    period_ps = lifecycle.node_monitor_period_ps
    seen_ps = next_round_ps(monitor_phase_ps, period_ps, heartbeat_ps)
    return next_round_ps(monitor_phase_ps, period_ps, seen_ps + lifecycle.node_monitor_grace_period_ps)
