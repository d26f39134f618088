"""Queues in plain SimPy, an event for each packet and hop: slow and obvious.

A packet that arrives is served at once where a server is idle, waits where there is room, or is dropped.
What `dataplane/queueing/stations.py` says of equal times is in the priorities of the events: at one instant, servers
become free first, then packets arrive, in the order of their ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import simpy

from simnet.dataplane.queueing.stations import DRAWN, LINK, REQUEST_SIZE, UNLIMITED, Injected, Itineraries
from simnet.dataplane.queueing.stations import Stations as StationColumns


@dataclass
class Packet:
    """One packet, its visits, and what it has met."""

    id: int
    visits: list[tuple[int, int, int, int]]  # station, work, extra bytes, fixed service
    request_bytes: int
    reply_bytes: int
    drawn_ps: int
    at: int = 0
    left_ps: int = -1
    dropped_at: int = -1
    turned_ps: int = -1
    waited_ps: list[int] = field(default_factory=lambda: [0, 0, 0])
    served_ps: list[int] = field(default_factory=lambda: [0, 0, 0])
    travelled_ps: int = 0


@dataclass
class Station:
    """One FIFO queue and its servers."""

    number: int
    kind: int
    servers: int
    rate_bps: int
    delay_ps: int
    limit_packets: int
    limit_bytes: int
    busy: int = 0
    waiting: deque[tuple[Packet, int, int, int]] = field(default_factory=deque)  # who, service, bytes, since when

    def has_room(self, size_bytes: int) -> bool:
        """Say whether one more may wait."""
        held = sum(size for _, _, size, _ in self.waiting)
        return (self.limit_packets == UNLIMITED or len(self.waiting) < self.limit_packets) and (
            self.limit_bytes == UNLIMITED or held + size_bytes <= self.limit_bytes
        )


class Simulation:
    """Packets through stations; `packets` holds what became of them."""

    def __init__(self, stations: StationColumns, injected: Injected, ways: Itineraries) -> None:
        self.env = simpy.Environment(initial_time=0)
        names = ("kind", "servers", "rate_bps", "delay_ps", "limit_packets", "limit_bytes")
        table = zip(*(getattr(stations, name).tolist() for name in names), strict=True)
        self.stations = [Station(number, *row) for number, row in enumerate(table)]
        self.packets: dict[int, Packet] = {}
        self.next_of: dict[int, tuple[int, int]] = {}  # packet: who starts after it has left, and how long after
        for row, number in enumerate(injected.packet.tolist()):
            visits = range(ways.start[injected.way[row]], ways.start[injected.way[row] + 1])
            columns = (ways.station, ways.work_of, ways.extra_bytes, ways.fixed_ps)
            self.packets[number] = Packet(
                number,
                [tuple(int(column[visit]) for column in columns) for visit in visits],
                int(injected.request_bytes[row]),
                int(injected.reply_bytes[row]),
                int(injected.drawn_ps[row]),
            )
            if injected.after is not None and injected.after[row] >= 0:
                self.next_of[int(injected.after[row])] = number, int(injected.time_ps[row])
            else:
                self.arrives_in(int(injected.time_ps[row]), self.packets[number])

    def run(self) -> None:
        """Run until nothing happens any more."""
        self.env.run()

    def at(self, delay_ps: int, priority: tuple[int, ...], do: Callable[[], None]) -> None:
        """Do something later, or at this instant."""
        event = self.env.event()
        event._ok, event._value = True, None
        event.callbacks.append(lambda _: do())
        self.env.schedule(event, priority=priority, delay=delay_ps)

    def arrives_in(self, delay_ps: int, packet: Packet) -> None:
        """Let a packet arrive at its next station, or leave."""
        self.at(delay_ps, (1, packet.id), lambda: self.arrive(packet))

    def arrive(self, packet: Packet) -> None:
        """Serve the packet, let it wait, or drop it."""
        if packet.at == len(packet.visits):
            self.leave(packet)
            return
        number, work, extra_bytes, fixed_ps = packet.visits[packet.at]
        station, size_bytes = self.stations[number], extra_bytes
        if station.kind == LINK:
            size_bytes += packet.request_bytes if work == REQUEST_SIZE else packet.reply_bytes
            service_ps = (8 * 10**12 * size_bytes + station.rate_bps - 1) // station.rate_bps
        else:
            service_ps = packet.drawn_ps if work == DRAWN else fixed_ps
        if station.kind != LINK and work == DRAWN:
            packet.turned_ps = self.env.now
        if station.busy < station.servers:
            self.start(station, packet, service_ps, self.env.now)
        elif station.has_room(size_bytes):
            station.waiting.append((packet, service_ps, size_bytes, self.env.now))
        else:
            packet.dropped_at = number
            self.leave(packet)

    def start(self, station: Station, packet: Packet, service_ps: int, since_ps: int) -> None:
        """Begin a service."""
        station.busy += 1
        packet.waited_ps[station.kind] += self.env.now - since_ps
        packet.served_ps[station.kind] += service_ps
        self.at(service_ps, (0,), lambda: self.end(station, packet))

    def end(self, station: Station, packet: Packet) -> None:
        """Send the packet on and take the next one."""
        station.busy -= 1
        if station.waiting:
            following, service_ps, _, since_ps = station.waiting.popleft()
            self.start(station, following, service_ps, since_ps)
        packet.at += 1
        packet.travelled_ps += station.delay_ps
        self.arrives_in(station.delay_ps, packet)

    def leave(self, packet: Packet) -> None:
        """Note the end, and let the one that starts after it begin."""
        packet.left_ps = self.env.now
        if packet.id in self.next_of:
            following, delay_ps = self.next_of[packet.id]
            self.arrives_in(delay_ps, self.packets[following])


def simulate(stations: StationColumns, injected: Injected, ways: Itineraries) -> dict[str, np.ndarray]:
    """Return the columns of `Left`, packets in order of their ids."""
    simulation = Simulation(stations, injected, ways)
    simulation.run()
    packets = [simulation.packets[number] for number in sorted(simulation.packets)]
    return {
        "packet": np.array([packet.id for packet in packets]),
        "time_ps": np.array([packet.left_ps for packet in packets]),
        "dropped_at": np.array([packet.dropped_at for packet in packets]),
        "turned_ps": np.array([packet.turned_ps for packet in packets]),
        "waited_ps": np.array([packet.waited_ps for packet in packets]).T,
        "served_ps": np.array([packet.served_ps for packet in packets]).T,
        "travelled_ps": np.array([packet.travelled_ps for packet in packets]),
    }
