"""What time it is for each packet of a batch, and which version of each table is in force there and then.

A packet's clock advances by every wire that it crosses: transmission, rounded up to a picosecond, and propagation.
Beside the time it keeps `until_ps`: before that instant, no table that the packet has asked will answer otherwise. So
packets whose whole way ends before it, sent after this one, meet the same fate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.path.wires import Wires
from simnet.dataplane.versions import ALWAYS, NEVER, Versions
from simnet.units import PS_PER_S

if TYPE_CHECKING:
    from simnet.dataplane.path.network import Network

Rows = NDArray[np.intp]
_NONE: Rows = np.zeros(0, dtype=np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """All of a network that changes while it runs, but for its FIBs (`ForwardingTables.versions`)."""

    hosts: Versions  # things: 2 * device, + 1 for IPv6; the program's number of its rules, -1: none
    links: Versions  # positions in Fabric.links; 1: carries packets
    devices: Versions  # 1: works
    pods: Versions  # things: places; 1: its processes run
    targets: Versions  # positions in `target_key`; 1: the node's rules may still translate to it
    target_key: NDArray[np.int64]  # [m] target_key of (node, address, port), ascending; of nodes whose rules change
    sender: NDArray[np.int32]  # [directions] device that sends into it; -1: a pod
    wires: Wires


def target_key(
    device: NDArray[np.integer], address: NDArray[np.integer], port: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return one number per (device, address id, port): int64[n]."""
    return (device.astype(np.int64) << 40) | (address.astype(np.int64) << 16) | port.astype(np.int64)


class Clock:
    """The clocks of a batch; `time_ps` and `until_ps` are advanced in place."""

    def __init__(
        self,
        network: Network,
        size_bytes: NDArray[np.int64],
        time_ps: NDArray[np.int64],
        until_ps: NDArray[np.int64] | None = None,
    ) -> None:
        assert network.changes is not None
        self.network, self.changes = network, network.changes
        self.time_ps = time_ps.copy()
        self.until_ps = np.full(len(time_ps), NEVER, dtype=np.int64) if until_ps is None else until_ps
        self._size_bytes = size_bytes

    def holds_until(self, rows: Rows, until_ps: NDArray[np.int64]) -> None:
        """Take note that what rows have just learned holds before `until_ps` only; rows are distinct."""
        self.until_ps[rows] = np.minimum(self.until_ps[rows], until_ps)

    def watched(self, rows: Rows) -> Rows:
        """Return the positions in `rows` of those that need to take such notes: intp[m]; here all."""
        return np.arange(len(rows))

    def table_rows(
        self, rows: Rows, device: NDArray[np.int32], destination: NDArray[np.int32]
    ) -> NDArray[np.int32] | None:
        """Return the row of the forwarding tables that each packet's device goes by now; None: all as at the start."""
        tables = self.network.forwarding
        if tables.versions is None:
            return None
        changing, found = self._in_force(tables.versions.rows, device, rows)
        if not changing.size:
            return None
        row = device.copy()
        row[changing] = tables.versions.rows.value[found]
        noted = changing[self.watched(rows[changing])]
        if noted.size:
            cell_class = tables.address_class[destination[noted]]
            self.holds_until(rows[noted], tables.versions.until_ps[row[noted], cell_class])
        return row

    def hosts(self, rows: Rows, device: NDArray[np.int32], family: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return the program's number of the rules of each packet's device now."""
        host: NDArray[np.int32] = self.network.device_host[device, family]
        if not self.changes.hosts.any:
            return host
        changing, found = self._in_force(self.changes.hosts, 2 * device.astype(np.int64) + family, rows)
        host[changing] = self.changes.hosts.value[found]
        return host

    def works(self, rows: Rows, device: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return whether the device that each packet is at works now."""
        return self._is_up(self.changes.devices, device, rows)

    def runs(self, rows: Rows, place: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return whether the processes of each packet's pod run now."""
        return self._is_up(self.changes.pods, place, rows)

    def cross(
        self, rows: Rows, direction: NDArray[np.int32], tunnel: NDArray[np.int32], *, bridged: bool
    ) -> NDArray[np.bool_]:
        """Send rows into a wire each; -1: none. Returns bool: which were carried, and are at its other end now.

        `tunnel`: of every row of the batch, -1: in none. `bridged`: a bridge sends them, which must work to do so.
        """
        carried = self._carried(rows, direction, bridged=bridged)
        real = np.flatnonzero(carried & (direction >= 0))
        at, wire = rows[real], direction[real]
        wires = self.changes.wires
        size_bytes, through = self._size_bytes[at], tunnel[at]
        inside = np.flatnonzero(through >= 0)
        if inside.size:
            size_bytes = size_bytes.copy()
            size_bytes[inside] += self.network.forwarding.tunnels.extra_bytes[through[inside]]
        rate_bps = wires.rate_bps[wires.rate_class[wire]]
        self.time_ps[at] += wires.delay_ps[wire] + (size_bytes * (8 * PS_PER_S) + (rate_bps - 1)) // rate_bps
        return carried

    def _carried(self, rows: Rows, direction: NDArray[np.int32], *, bridged: bool) -> NDArray[np.bool_]:
        carried = np.ones(len(rows), dtype=np.bool_)
        if self.changes.links.any:
            carried = self._is_up(self.changes.links, np.maximum(direction, 0) >> 1, rows)
            carried |= direction < 0
        if bridged and self.changes.devices.any:
            sender = self.changes.sender[np.maximum(direction, 0)]
            carried &= (direction < 0) | (sender < 0) | self.works(rows, np.maximum(sender, 0))
        return carried

    def works_since(self, device: NDArray[np.int32], time_ps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return when each device was last switched on: int64[n]; ALWAYS: it has been on since before the run."""
        since = np.full(len(device), ALWAYS, dtype=np.int64)
        changing = np.flatnonzero(self.changes.devices.changes[device])
        if changing.size:
            found = self.changes.devices.at(device[changing], time_ps[changing])
            since[changing] = self.changes.devices.begin_ps[found]
        return since

    def next_tables(self, rows: Rows, device: NDArray[np.int32], family: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return when the device of each packet next gets another FIB or other rules: int64[m]."""
        end_ps = np.full(len(rows), NEVER, dtype=np.int64)
        versions = self.network.forwarding.versions
        if versions is not None:
            changing, found = self._in_force(versions.rows, device, rows)
            end_ps[changing] = versions.rows.end_ps[found]
        changing, found = self._in_force(self.changes.hosts, 2 * device.astype(np.int64) + family, rows)
        end_ps[changing] = np.minimum(end_ps[changing], self.changes.hosts.end_ps[found])
        return end_ps

    def target_gone(
        self, rows: Rows, device: NDArray[np.int32], address: NDArray[np.int32], port: NDArray[np.int32]
    ) -> NDArray[np.int64]:
        """Return when kube-proxy cleans up a UDP entry, made now, that leads to (address, port): int64[m].

        It does when its rules stop naming that endpoint. Source: kubernetes pkg/proxy/conntrack/cleanup.go.
        """
        end_ps = np.full(len(rows), NEVER, dtype=np.int64)
        keys = self.changes.target_key
        if keys.size:
            wanted = target_key(device, address, port)
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            known = np.flatnonzero(keys[at] == wanted)
            known = known[self.changes.targets.changes[at[known]]]
            found = self.changes.targets.at(at[known], self.time_ps[rows[known]])
            end_ps[known] = self.changes.targets.end_ps[found]
        return end_ps

    # --- helpers -------------------------------------------------------------------------------------

    def _in_force(self, versions: Versions, thing: NDArray[np.integer], rows: Rows) -> tuple[Rows, NDArray[np.intp]]:
        """Return which of the things change at all, and the position of the version of each of those in force now."""
        if not versions.any:
            return _NONE, _NONE
        changing = np.flatnonzero(versions.changes[thing])
        return changing, versions.at_epoch(thing[changing], self._epoch(versions, rows[changing]))

    def _epoch(self, versions: Versions, rows: Rows) -> NDArray[np.intp]:
        """How many of these changes have come by now."""
        return versions.epoch(self.time_ps[rows])

    def _is_up(self, versions: Versions, thing: NDArray[np.integer], rows: Rows) -> NDArray[np.bool_]:
        up = np.ones(len(rows), dtype=np.bool_)
        if not versions.any:
            return up
        changing, found = self._in_force(versions, thing, rows)
        if changing.size:
            up[changing] = versions.value[found] == 1
            noted = self.watched(rows[changing])
            self.holds_until(rows[changing[noted]], versions.end_ps[found[noted]])
        return up


class SendingClock(Clock):
    """One that stands still: every box on a packet's way is asked what it does when the packet is sent.

    That is what the packet meets if its way ends before `until_ps`; whether it does its sender must see. Nothing is
    noted of rows for which no table changes before `until_ps` as it is given: their answers all hold as long.
    """

    def __init__(self, network: Network, time_ps: NDArray[np.int64], until_ps: NDArray[np.int64], rows: Rows) -> None:
        """`rows`: of which to note until when the answers hold."""
        super().__init__(network, np.zeros(0, dtype=np.int64), time_ps, until_ps)
        self._noted = np.zeros(len(time_ps), dtype=np.bool_)
        self._noted[rows] = True
        self._epochs: dict[int, NDArray[np.intp]] = {}  # by id of what changes: of each row
        self._epoch_span: tuple[int, int] | None = None  # of the changes of FIBs, in the batch
        self._rows_by_epoch: NDArray[np.int32] | None = None  # [epochs * devices] rows of the forwarding tables

    def watched(self, rows: Rows) -> Rows:
        """Return the positions in `rows` of those to note of."""
        return np.flatnonzero(self._noted[rows])

    def table_rows(
        self, rows: Rows, device: NDArray[np.int32], destination: NDArray[np.int32]
    ) -> NDArray[np.int32] | None:
        """As any clock's; from a table of all devices and epochs of the batch where that is small beside the batch."""
        tables = self.network.forwarding
        if tables.versions is None:
            return None
        versions, devices = tables.versions.rows, tables.device_count
        epoch = self._epoch(versions, rows)
        if self._epoch_span is None:
            every = self._epochs[id(versions)]
            self._epoch_span = int(every.min()), int(every.max())
        first, last = self._epoch_span
        if (last - first + 1) * devices > len(self.time_ps):
            return super().table_rows(rows, device, destination)
        if self._rows_by_epoch is None:
            at_start = np.arange(devices, dtype=np.int32)
            self._rows_by_epoch = versions.values_by_epoch(at_start, first, last).reshape(-1)
        row: NDArray[np.int32] = self._rows_by_epoch.take((epoch - first) * devices + device)
        noted = self.watched(rows)
        if noted.size:
            cell_class = tables.address_class[destination[noted]]
            self.holds_until(rows[noted], tables.versions.until_ps[row[noted], cell_class])
        return row

    def cross(
        self, rows: Rows, direction: NDArray[np.int32], tunnel: NDArray[np.int32], *, bridged: bool
    ) -> NDArray[np.bool_]:
        """Send rows into a wire each, in no time."""
        return self._carried(rows, direction, bridged=bridged)

    def _epoch(self, versions: Versions, rows: Rows) -> NDArray[np.intp]:
        epochs = self._epochs.get(id(versions))
        if epochs is None:
            epochs = self._epochs[id(versions)] = versions.epoch(self.time_ps)
        return epochs[rows]


def change_instants(network: Network) -> NDArray[np.int64]:
    """Return every instant at which any table of a network that changes does so: int64[k], ascending, distinct."""
    assert network.changes is not None
    changes, fibs = network.changes, network.forwarding.versions
    kinds = (changes.hosts, changes.links, changes.devices, changes.pods, changes.targets)
    instants = [each.instants_ps for each in kinds]
    return np.unique(np.concatenate([*instants, *([fibs.rows.instants_ps] if fibs is not None else [])]))
