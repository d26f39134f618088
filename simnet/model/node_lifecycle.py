"""How soon Kubernetes notices that a node or pod is gone, with the field and flag names of its components.

Source: KubeletConfiguration; kube-controller-manager's flags; kubernetes/kubernetes, pkg/controller/nodelifecycle.
"""

from __future__ import annotations

from dataclasses import dataclass

from simnet.units import PS_PER_MS, PS_PER_S

GRACE_PERIOD_UNTIL_1_31_PS = 40 * PS_PER_S
GRACE_PERIOD_SINCE_1_32_PS = 50 * PS_PER_S  # kubernetes/kubernetes#126287


@dataclass(frozen=True, slots=True)
class NodeLifecycle:
    """What decides when endpoints leave the rules."""

    node_lease_duration_ps: int = 40 * PS_PER_S  # kubelet: nodeLeaseDurationSeconds; renewed every quarter of it
    node_status_update_frequency_ps: int = 10 * PS_PER_S  # kubelet: nodeStatusUpdateFrequency
    node_monitor_period_ps: int = 5 * PS_PER_S  # kube-controller-manager: --node-monitor-period
    node_monitor_grace_period_ps: int = GRACE_PERIOD_SINCE_1_32_PS  # --node-monitor-grace-period
    endpoint_updates_batch_period_ps: int = 0  # --endpointslice-updates-batch-period
    # From a write to the API server until a watcher has it, on average; each is drawn within a half of it. Assumed.
    watch_latency_ps: int = 100 * PS_PER_MS
