"""What a host remembers between packets: `statistic --mode nth` counters and `recent` lists.

Modelled as xt_recent does it: a list holds `recent_limit` addresses (the module parameter ip_list_tot) and evicts the
one
updated longest ago; an address keeps its last 20 stamps (ip_pkt_list_tot).
Left out: --rttl; jiffies (stamps are exact). Source: net/netfilter/xt_recent.c, xt_statistic.c; facts of a real kernel.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, deque

from simnet.dataplane.netfilter.program import NthCounter, RecentTest

STAMPS = 20  # ip_pkt_list_tot


class NetfilterState:
    """State of all hosts; machines change it in place. `copy()` keeps a point to come back to."""

    def __init__(self, recent_limit: int | None = 100) -> None:
        self.recent_limit = recent_limit
        self.nth: dict[tuple[int, int], int] = {}  # (host, counter) -> packets seen
        self.recent: dict[tuple[int, int], OrderedDict[int, deque[int]]] = {}  # (host, list) -> address -> stamps
        self.overflowing: set[tuple[int, int]] = set()  # sets of lists, by host, that were too small; for speed only
        self._before: tuple[dict[tuple[int, int], int], dict[tuple[int, int], object]] | None = None

    def begin(self) -> None:
        """Remember what is changed from here on, so that it can be undone."""
        self._before = (dict(self.nth), {})

    def undo(self) -> None:
        """Take back what was changed since `begin`."""
        assert self._before is not None
        self.nth = self._before[0]
        for key, entries in self._before[1].items():
            if entries is None:
                del self.recent[key]
            else:
                self.recent[key] = entries  # type: ignore[assignment]
        self._before = None

    def keep(self) -> None:
        """Let what was changed since `begin` stand."""
        self._before = None

    def entries(self, host: int, number: int) -> OrderedDict[int, deque[int]]:
        """Return a list of a host, to be changed: address -> its last stamps, in order of the last update."""
        entries = self.recent.get((host, number))
        if self._before is not None and (host, number) not in self._before[1]:
            self._before[1][host, number] = copy.deepcopy(entries)
        if entries is None:
            entries = self.recent[host, number] = OrderedDict()
        return entries

    def copy(self) -> NetfilterState:
        """Return an independent copy."""
        return copy.deepcopy(self)

    def ask_nth(self, host: int, number: int, counter: NthCounter) -> bool:
        """Count one packet at an nth rule; whether it is the chosen one."""
        seen = self.nth.get((host, number), 0)
        self.nth[host, number] = (seen + 1) % counter.every
        return seen == counter.packet

    def ask_recent(self, host: int, test: RecentTest, address: int, now_ps: int, negated: bool) -> bool:
        """Ask a list about an address and update it; the result with negation."""
        entries = self.entries(host, test.list)
        stamps = entries.get(address)
        if stamps is None:
            if test.action != "set":
                return negated
            if self.recent_limit is not None and len(entries) >= self.recent_limit:
                entries.popitem(last=False)
            entries[address] = deque([now_ps], maxlen=STAMPS)
            return not negated
        found = test.action in ("set", "remove")
        if test.action == "remove":
            del entries[address]
        elif test.action in ("rcheck", "update"):
            oldest_ps = now_ps - test.window_ps
            hits = sum(1 for stamp in stamps if not test.window_ps or stamp >= oldest_ps)
            found = hits >= max(1, test.hitcount)
            if test.reap:
                self._reap(entries, oldest_ps, address if test.action == "update" and found != negated else None)
        result = found != negated
        if test.action == "set" or (test.action == "update" and result):
            entries.move_to_end(address)
            stamps.append(now_ps)
        return result

    @staticmethod
    def _reap(entries: OrderedDict[int, deque[int]], oldest_ps: int, working: int | None) -> None:
        """Forget the head of the list if even its last stamp is too old (only the head, as the kernel does)."""
        head = next(iter(entries))
        if head != working and entries[head][-1] < oldest_ps:
            del entries[head]
