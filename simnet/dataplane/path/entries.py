"""The conntrack entries that nodes hold of a set of flows, while tables change under them.

An entry is found by (flow, node, header) in either direction, as conntrack finds one by its tuple; flows share none
(no port clashes). Modelled: UDP's two timeouts, entries that die with their node, kube-proxy's clean-up of UDP entries
whose endpoint has gone, entries never confirmed because their packet was dropped on its node. Left out: TCP's states.
Source: net/netfilter/nf_conntrack_core.c, nf_conntrack_proto_udp.c; docs/models/events.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path.columns import Header
from simnet.dataplane.versions import NEVER
from simnet.units import PS_PER_S

UDP_TIMEOUT_PS = 30 * PS_PER_S  # no answer seen, or younger than 2 s
UDP_STREAM_TIMEOUT_PS = 120 * PS_PER_S
UDP_STREAM_AGE_PS = 2 * PS_PER_S

Rows = NDArray[np.intp]
_COLUMNS = ("source", "destination", "source_port", "destination_port")


class Entries:
    """Entries by slot and flow: column[slot, flow]. A free slot has device -1; there are more as they are needed."""

    def __init__(
        self, flows: int, works_since: Callable[[NDArray[np.int32], NDArray[np.int64]], NDArray[np.int64]]
    ) -> None:
        self.used = np.zeros(flows, dtype=np.int64)  # slots of each flow
        self._works_since = works_since  # a node that was switched on later than an entry was made has lost it
        self.device = np.full((0, flows), -1, dtype=np.int32)
        self.original = np.zeros((4, 0, flows), dtype=np.int32)  # header before PREROUTING (or OUTPUT)
        self.answer = np.zeros((4, 0, flows), dtype=np.int32)  # header that an answer comes in with
        self.has_answer = np.zeros((0, flows), dtype=np.bool_)
        self.created_ps = np.zeros((0, flows), dtype=np.int64)
        self.expires_ps = np.zeros((0, flows), dtype=np.int64)
        self.gone_ps = np.zeros((0, flows), dtype=np.int64)  # taken away then, whatever its timer says
        self.replied = np.zeros((0, flows), dtype=np.bool_)
        self.confirmed = np.zeros((0, flows), dtype=np.bool_)
        self.new_destination = np.zeros((2, 0, flows), dtype=np.int32)  # address id, port that DNAT chose; -1: none
        self.new_source = np.zeros((2, 0, flows), dtype=np.int32)  # that SNAT chose

    def find(
        self, flow: Rows, device: NDArray[np.int32], header: Header, time_ps: NDArray[np.int64]
    ) -> tuple[Rows, NDArray[np.bool_]]:
        """Return the slot of each packet's live entry, -1: none, and whether the packet goes the answer's way."""
        slot = np.full(len(flow), -1, dtype=np.intp)
        is_answer = np.zeros(len(flow), dtype=np.bool_)
        since_ps = self._works_since(device, time_ps)
        wanted = [getattr(header, name) for name in _COLUMNS]
        for number in range(len(self.device)):
            lives = (self.device[number, flow] == device) & (self.expires_ps[number, flow] > time_ps)
            lives &= (self.gone_ps[number, flow] > time_ps) & (self.created_ps[number, flow] >= since_ps)
            if not lives.any():
                continue
            forth = lives.copy()
            back = lives & self.has_answer[number, flow]
            for column, value in enumerate(wanted):
                forth &= self.original[column, number, flow] == value
                back &= self.answer[column, number, flow] == value
            back &= ~forth
            slot[forth | back] = number
            is_answer |= back
        return slot, is_answer

    def add(self, flow: Rows, device: NDArray[np.int32], header: Header, time_ps: NDArray[np.int64]) -> Rows:
        """Make an entry for each packet that found none; flows are distinct. Returns the slots."""
        slot = self.used[flow].astype(np.intp)
        if slot.size and slot.max() >= len(self.device):
            self._grow()
        self.used[flow] += 1
        self.device[slot, flow] = device
        for column, name in enumerate(_COLUMNS):
            self.original[column, slot, flow] = getattr(header, name)
        self.created_ps[slot, flow] = time_ps
        self.expires_ps[slot, flow] = NEVER
        self.gone_ps[slot, flow] = NEVER
        self.new_destination[:, slot, flow] = -1
        self.new_source[:, slot, flow] = -1
        return slot

    def renew(self, slot: Rows, flow: Rows, time_ps: NDArray[np.int64], is_udp: NDArray[np.bool_]) -> None:
        """Start the timers of entries anew that a packet has met."""
        stream = self.replied[slot, flow] & (time_ps > self.created_ps[slot, flow] + UDP_STREAM_AGE_PS)
        lives_ps = np.where(stream, UDP_STREAM_TIMEOUT_PS, UDP_TIMEOUT_PS)
        self.expires_ps[slot, flow] = np.where(is_udp, time_ps + lives_ps, NEVER)

    def confirm(self, slot: Rows, flow: Rows, translated: Header, time_ps: NDArray[np.int64]) -> None:
        """Let new entries know what their answers look like, unless a live entry is found by that already."""
        self.confirmed[slot, flow] = True
        expected = translated.reversed()
        held, _ = self.find(flow, self.device[slot, flow], expected, time_ps)
        free = held < 0
        for column, name in enumerate(_COLUMNS):
            self.answer[column, slot[free], flow[free]] = getattr(expected, name)[free]
        self.has_answer[slot[free], flow[free]] = True

    def original_column(self, name: str, slot: Rows, flow: Rows) -> NDArray[np.int32]:
        """Return one column of the original header of entries."""
        column: NDArray[np.int32] = self.original[_COLUMNS.index(name), slot, flow]
        return column

    def _grow(self) -> None:
        """Add as many slots as there are, at least two."""
        added = max(2, len(self.device))
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray) and column.ndim > 1:
                shape = (*column.shape[:-2], added, column.shape[-1])
                new = np.full(shape, -1 if name == "device" else 0, dtype=column.dtype)
                setattr(self, name, np.concatenate([column, new], axis=-2))
