"""When kube-proxy syncs, against its own loop gone through step by step."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simnet.controlplane.kube_proxy.sync_runner import BURST_SYNCS, SyncTokens

SECOND = 10**12


def loop(requests, period):
    """BoundedFrequencyRunner's Loop and tryRun: a request or the timer asks the token bucket, which lets it run or not.

    A bucket of tokens (Fraction), filled by one a period; the timer stands at a period after the last run.
    """
    tokens, asked_at, last_run, timer = Fraction(BURST_SYNCS), 0, 0, None
    runs, waiting = [], sorted(requests)
    while waiting or timer is not None:
        if waiting and (timer is None or waiting[0] <= timer):
            now = waiting.pop(0)
        else:
            now = timer
        tokens = min(Fraction(BURST_SYNCS), tokens + Fraction(now - asked_at, period))
        asked_at = now
        if tokens >= 1:
            tokens -= 1
            runs.append(now)
            last_run, timer = now, None
        else:
            timer = last_run + period
    return runs


def syncs(requests, period):
    """The same by SyncTokens, as the engine asks it: every request is given its time, a sync serves all before it."""
    tokens, runs, due = SyncTokens.full(period, 0), [], []
    waiting = sorted(requests)
    while waiting or due:
        if waiting and (not due or waiting[0] <= min(due)):
            now = waiting.pop(0)
            due.append(tokens.next_sync_ps(now))
        if due and (not waiting or min(due) < waiting[0] or min(due) == now):
            now = min(due)
            tokens, due = tokens.after_sync(now), []
            runs.append(now)
    return runs


@given(st.lists(st.integers(0, 60), max_size=12), st.sampled_from([1, 7, 10]))
def test_syncs_are_those_of_the_bounded_frequency_runner(requests, period):
    assert syncs(requests, period) == loop(requests, period)


def test_two_changes_are_synced_at_once_and_the_third_waits_for_a_period():
    assert syncs([5 * SECOND, 5 * SECOND + 1, 5 * SECOND + 2], SECOND) == [
        5 * SECOND, 5 * SECOND + 1, 6 * SECOND + 1,
    ]  # fmt: skip


@pytest.mark.parametrize("period", [0])
def test_without_a_period_every_change_is_synced_at_once(period):
    assert syncs([3, 4, 5], period) == [3, 4, 5]
