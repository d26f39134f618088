"""When kube-proxy writes its rules: at once, but no more often than a token bucket lets it.

Modelled: at most one sync a minSyncPeriod on average, with a burst of two; a change that finds the bucket empty waits
until a minSyncPeriod after the last sync, or for a change that finds it filled. What comes meanwhile is in that sync.
Left out: the time that iptables-restore takes; the sync that comes by itself once an hour, which writes the same rules.
Source: kubernetes/kubernetes, pkg/util/async/bounded_frequency_runner.go; pkg/proxy/iptables/proxier.go (burstSyncs).
"""

from __future__ import annotations

from dataclasses import dataclass

BURST_SYNCS = 2


@dataclass(frozen=True, slots=True)
class SyncTokens:
    """What the last sync left in a kube-proxy's bucket: it fills by one token a minSyncPeriod."""

    min_sync_period_ps: int
    level_ps: int  # minSyncPeriod a token
    last_sync_ps: int

    @classmethod
    def full(cls, min_sync_period_ps: int, now_ps: int) -> SyncTokens:
        """The bucket of a kube-proxy that has had nothing to do for a while."""
        return cls(min_sync_period_ps, BURST_SYNCS * min_sync_period_ps, now_ps)

    def next_sync_ps(self, now_ps: int) -> int:
        """Return when a change that comes now is synced, if none comes before then."""
        has_token = self._level_ps(now_ps) >= self.min_sync_period_ps
        return now_ps if has_token else self.last_sync_ps + self.min_sync_period_ps

    def after_sync(self, now_ps: int) -> SyncTokens:
        """Return what a sync leaves in it."""
        return SyncTokens(self.min_sync_period_ps, self._level_ps(now_ps) - self.min_sync_period_ps, now_ps)

    def _level_ps(self, now_ps: int) -> int:
        return min(BURST_SYNCS * self.min_sync_period_ps, self.level_ps + now_ps - self.last_sync_ps)
