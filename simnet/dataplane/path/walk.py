"""How new connections travel: the request to its end, then the reply past what the nodes know by then.

A request goes hop by hop (`hop_by_hop.py`), and every node it passes keeps a conntrack entry; the reply meets these.
Without changes time plays no part here (it is a sum over the wires crossed, `wires.py`). Left out: NAT port clashes.
Source: net/netfilter/nf_conntrack_core.c, nf_nat_core.c; docs/models/path.md.
"""

from __future__ import annotations

import numpy as np

from simnet.dataplane.path import hooks
from simnet.dataplane.path.clock import Clock
from simnet.dataplane.path.columns import ConnectionBatch, Visit, Way
from simnet.dataplane.path.hop_by_hop import DELIVERED, DROPPED, REPLY_BYPASSED, Group, Rows, Walk, positions_in
from simnet.dataplane.path.network import Network


def send_request(
    network: Network, batch: ConnectionBatch, state: hooks.HookState, seed: int, clock: Clock | None = None
) -> tuple[Way, list[Visit]]:
    """Send the first packet of each connection to its end.

    Returns the way it took and, step by step, the conntrack entries that the nodes passed now hold.
    `state` (counters, `nth` counts, `recent` lists of the rules) is advanced, at each node in the order of rows; so is
    `clock`, which a network that changes needs.
    """
    rows = np.arange(len(batch))
    walk = Walk(network, batch, Way.start(batch.header.copy(), batch.origin), state, seed, clock)
    if network.remembers and len(batch) and (batch.origin != batch.origin[0]).any():
        scout = _Scout(network, batch, seed)
        scout.run(rows)
        walk.wait(scout.way.dnat_device, scout.at_output)
    walk.run(rows)
    return walk.way, walk.visits


def send_reply(
    network: Network,
    batch: ConnectionBatch,
    forward: Way,
    visits: list[Visit],
    state: hooks.HookState,
    seed: int,
    clock: Clock | None = None,
) -> Way:
    """Send the answer of each delivered connection back.

    A row whose request was not delivered keeps the request's verdict. A reply that reaches the client from another
    address than the client called is dropped there, for the reason "reply bypassed translation".
    """
    way = Way.start(forward.header.reversed(), forward.place)
    delivered = forward.verdict == DELIVERED
    way.verdict[~delivered] = forward.verdict[~delivered]
    way.reason[~delivered] = forward.reason[~delivered]
    way.draws[:] = forward.draws
    _ReplyWalk(network, batch, way, state, seed, visits, clock).run(np.flatnonzero(delivered))
    came_back = delivered & (way.verdict == DELIVERED)
    as_called = way.header.equals(batch.header.reversed()) & (way.place == batch.origin)
    way.end(np.flatnonzero(came_back & ~as_called), DROPPED, REPLY_BYPASSED)
    return way


class _Scout(Walk):
    """Finds where each row will be translated, which no rule's memory decides: those choose the endpoint only.

    It ends there, and leaves counters and memories as they are.
    """

    def __init__(self, network: Network, batch: ConnectionBatch, seed: int) -> None:
        way = Way.start(batch.header.copy(), batch.origin)
        super().__init__(network, batch, way, hooks.HookState.at_start(network.program), seed)
        self.at_output = np.zeros(len(batch), dtype=np.bool_)  # sent by a process of the node that translates

    def pass_hook(self, hook: str, group: Group) -> Group:
        """End rows once their destination is rewritten."""
        going = super().pass_hook(hook, group)
        self.at_output[group.rows[self.way.dnat_device[group.rows] >= 0]] = hook == "OUTPUT"
        translated = self.way.dnat_device[going.rows] >= 0
        self.way.end(going.rows[translated], DELIVERED, 0)
        return going.keep(~translated)


class _ReplyWalk(Walk):
    """The same boxes on the way back: a node's entry undoes what it did, and no nat rule is asked about what it knows.

    As in the kernel the destination is restored before routing, the source after filtering.
    """

    def __init__(
        self,
        network: Network,
        batch: ConnectionBatch,
        way: Way,
        state: hooks.HookState,
        seed: int,
        entries: list[Visit],
        clock: Clock | None = None,
    ) -> None:
        super().__init__(network, batch, way, state, seed, clock)
        self.entries = entries
        self.size_bytes = batch.reply_bytes
        n = len(batch)
        self.source_to_restore = np.full(n, -1, dtype=np.int32)  # address id; -1: nothing to restore at this node
        self.port_to_restore = np.zeros(n, dtype=np.int32)
        self.first_node = np.full(n, -1, dtype=np.int32)  # device that saw the request first
        for visit in reversed(entries):
            self.first_node[visit.rows] = visit.device

    def recognise(self, rows: Rows, *, sent_here: bool) -> Group:
        """Find the entry of each row's connection at the node; restore the destination that it had before."""
        way, header = self.way, self.way.header
        before = header.take(rows)
        known = np.zeros(len(rows), dtype=bool)
        for visit in reversed(self.entries):
            if not visit.rows.size:
                continue
            at, match = positions_in(visit.rows, rows)
            match &= (visit.device[at] == way.place[rows]) & ~known
            match &= before.equals(visit.translated.take(at).reversed())
            hit, entry = rows[match], at[match]
            header.destination[hit] = visit.original.source[entry]
            header.destination_port[hit] = visit.original.source_port[entry]
            self.source_to_restore[hit] = visit.original.destination[entry]
            self.port_to_restore[hit] = visit.original.destination_port[entry]
            known |= match
            # A node may hold two entries of one connection, as called and as another node translated it: the answer
            # that meets the second does not renew the first.
            is_first = visit.device[entry] == self.first_node[hit]
            is_first &= self.batch.header.take(hit).equals(visit.original.take(entry))
            way.passed_first_node[hit[is_first]] = True
        # A TCP answer (SYN-ACK) that no entry expects is INVALID; a datagram opens a connection of its own.
        unknown_state = np.where(header.protocol[rows] == 17, hooks.NEW, hooks.INVALID)
        state = np.where(known, hooks.ESTABLISHED, unknown_state).astype(np.uint8)
        return Group(rows, before, state)

    def restore_source(self, rows: Rows) -> None:
        """Give back the source that the client called, and forget that it was owed."""
        owed = rows[self.source_to_restore[rows] >= 0]
        self.way.header.source[owed] = self.source_to_restore[owed]
        self.way.header.source_port[owed] = self.port_to_restore[owed]
        self.source_to_restore[owed] = -1

    def remember(self, group: Group) -> None:
        """Leave the node by restoring the source; replies make no entries."""
        self.restore_source(group.rows)

    def deliver(self, group: Group) -> None:
        """Hand a reply to the process that had sent the request."""
        self.remember(group)
        self.hand_back(group.rows)
