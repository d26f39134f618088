"""Which stations the packets of each connection visit: its ways through wires and nodes, as `Itineraries`.

A request crosses wires and passes nodes in the order that the walk found, is served by its pod, and its reply goes
back likewise. Every node passed is one visit to a core of its CPU, chosen by the hash of the header that comes in
(receive-side scaling). The first packet of a connection pays for the rules that it is held against, later packets and
all replies for an established connection. Source of the costs: docs/models/latency.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path.columns import Header, NodePass, Way
from simnet.dataplane.path.network import Network
from simnet.dataplane.queueing.stations import DRAWN, FIXED, REPLY_SIZE, REQUEST_SIZE, Itineraries
from simnet.model.queues import CpuCosts
from simnet.model.recording import VERDICTS
from simnet.random_streams import GOLDEN, mix_in_place

DELIVERED = VERDICTS.index("delivered")
_PORT = np.uint64(0xD1B54A32D192ED03)  # odd; spreads a port over 64 bits


@dataclass(frozen=True, slots=True, eq=False)
class StationNumbers:
    """Where the stations of a network stand: link directions first, under their own numbers, then cores, then pods."""

    header_bytes: NDArray[np.int32]  # [directions] added to every packet on the wire
    first_core: NDArray[np.int32]  # [devices] station of a node's first core; -1: the device has none
    cores: NDArray[np.int32]  # [devices]
    pod: NDArray[np.int32]  # [places] station of a pod; -1: a device
    costs: CpuCosts | None  # None: nodes take no time and have no stations


@dataclass(frozen=True, slots=True, eq=False)
class Journeys:
    """The ways of a batch of connections, and what their first packets cost more than later ones."""

    later: Itineraries  # [n] of later packets
    first_fixed_ps: NDArray[np.int64]  # [visits] of first packets, in place of `later.fixed_ps`
    rules_ps: NDArray[np.int64]  # [n] time of scanning rules in the first packet's request

    @property
    def first_is_like_later(self) -> bool:
        """Whether first packets cost what later ones do, as where nodes take no time."""
        return bool((self.first_fixed_ps == self.later.fixed_ps).all())

    @property
    def first(self) -> Itineraries:
        """The ways of first packets."""
        return replace(self.later, fixed_ps=self.first_fixed_ps)


def journeys_of(network: Network, numbers: StationNumbers, request: Way, reply: Way | None) -> Journeys:
    """Return the stations that each connection's packets visit, there and back."""
    n = len(request.verdict)
    visits = _Visits(network, numbers, n)
    visits.along(request, REQUEST_SIZE)
    delivered = np.flatnonzero(request.verdict == DELIVERED)
    visits.add(delivered, numbers.pod[request.place[delivered]], DRAWN)
    if reply is not None:
        visits.along(reply, REPLY_SIZE)
    return visits.journeys()


class _Visits:
    """Visits in the order in which they happen, connection by connection in the end."""

    def __init__(self, network: Network, numbers: StationNumbers, n: int) -> None:
        self.network, self.numbers, self.n = network, numbers, n
        self.rows: list[NDArray[np.intp]] = [np.zeros(0, np.intp)]
        self.columns: list[tuple[NDArray[np.int64], ...]] = [(np.zeros(0, np.int64),) * 5]
        self.rules_ps = np.zeros(n, np.int64)

    def along(self, way: Way, work: int) -> None:
        """Add the wires and nodes of one direction."""
        passes = list(way.passes) if self.numbers.costs is not None else []
        for number, crossing in enumerate([*way.crossings, None]):
            while passes and passes[0].crossings_before <= number:
                self.node(passes.pop(0), work)
            if crossing is not None:
                extra = self.numbers.header_bytes[crossing.direction] + crossing.extra_bytes
                self.add(crossing.rows, crossing.direction, work, extra)

    def node(self, passed: NodePass, work: int) -> None:
        """Add a visit to a core of each node passed."""
        numbers, costs = self.numbers, self.numbers.costs
        assert costs is not None
        network, header, device = self.network, passed.header, passed.device
        hashed = receive_hash(network.forwarding.address_key, header)
        core = ((hashed >> np.uint64(32)) * numbers.cores[device].astype(np.uint64)) >> np.uint64(32)
        host = network.device_host[device, network.is_ipv6[header.destination].astype(np.intp)]
        known = np.where(host >= 0, costs.established_ps, costs.base_ps)
        first = known
        if work == REQUEST_SIZE:
            asked = passed.endpoint_rules_scanned.astype(np.int64)
            plain = passed.rules_scanned.astype(np.int64) - asked
            rules_ps = plain * costs.per_rule_ps + asked * costs.per_endpoint_rule_ps
            first = np.where(host >= 0, costs.new_ps + rules_ps, costs.base_ps)
            self.rules_ps[passed.rows] += np.where(host >= 0, rules_ps, 0)
        self.add(passed.rows, numbers.first_core[device] + core.astype(np.int64), FIXED, 0, known, first)

    def add(
        self,
        rows: NDArray[np.intp],
        station: NDArray[np.integer],
        work: int,
        extra: NDArray[np.integer] | int = 0,
        fixed_ps: NDArray[np.int64] | int = 0,
        first_ps: NDArray[np.int64] | int = 0,
    ) -> None:
        """Add one visit of each of `rows`."""
        self.rows.append(rows)
        words = (station, work, extra, fixed_ps, first_ps)
        self.columns.append(tuple(np.broadcast_to(np.asarray(word, np.int64), rows.shape) for word in words))

    def journeys(self) -> Journeys:
        """Sort the visits by connection, each one's in order."""
        rows = np.concatenate(self.rows)
        order = np.argsort(rows, kind="stable")
        station, work, extra, fixed, first = (
            np.concatenate([columns[number] for columns in self.columns])[order] for number in range(5)
        )
        start = np.zeros(self.n + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=self.n), out=start[1:])
        ways = Itineraries(start, station.astype(np.int32), work.astype(np.uint8), extra.astype(np.int32), fixed)
        return Journeys(ways, first, self.rules_ps)


def receive_hash(address_key: NDArray[np.uint64], header: Header) -> NDArray[np.uint64]:
    """Return the hash that a network card makes of a header's five-tuple: uint64[n], the same key in every card.

    The splitmix64 finaliser in place of Toeplitz: equal in law, not flow by flow.
    """
    hashed = address_key[header.source] + (header.source_port.astype(np.uint64) + np.uint64(1)) * _PORT
    mix_in_place(hashed)
    hashed += address_key[header.destination]
    hashed += (header.destination_port.astype(np.uint64) + np.uint64(1)) * _PORT
    hashed += header.protocol.astype(np.uint64) * np.uint64(GOLDEN)
    mix_in_place(hashed)
    return hashed
