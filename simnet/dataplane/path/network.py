"""All tables that decide where a packet goes, as one value: wires, routes, rules, listeners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.forwarding.tables import ForwardingTables
from simnet.dataplane.netfilter.program import Program
from simnet.dataplane.path.clock import Changes

NODE, SWITCH, CLIENTS = 0, 1, 2  # kinds of device


@dataclass(frozen=True, slots=True, eq=False)
class Listeners:
    """Pods that share their node's address (hostNetwork), by (address, protocol, port); sorted by `key`."""

    key: NDArray[np.int64]  # [m] listener_key of each, ascending
    place: NDArray[np.int32]  # [m] place of the pod

    def find(
        self, address: NDArray[np.int32], protocol: NDArray[np.uint8], port: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """Return int32[n]: the place that listens there, -1 where none does."""
        if not self.key.size:
            return np.full(len(address), -1, dtype=np.int32)
        wanted = listener_key(address, protocol, port)
        at = np.minimum(np.searchsorted(self.key, wanted), len(self.key) - 1)
        return np.where(self.key[at] == wanted, self.place[at], np.int32(-1)).astype(np.int32)


def listener_key(address: NDArray[np.int32], protocol: NDArray[np.uint8], port: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return one number per (address, protocol, port): int64[n]."""
    return (address.astype(np.int64) << 24) | (protocol.astype(np.int64) << 16) | port.astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What a batch meets on its way.

    Places are numbered densely: devices first in the order of `Fabric.devices`, then pods in that of `Fabric.pods`,
    then pods on their node's own network.
    """

    forwarding: ForwardingTables
    program: Program  # of all nodes and families
    device_kind: NDArray[np.int8]  # [devices] NODE, SWITCH or CLIENTS
    device_host: NDArray[np.int32]  # [devices, 2] the program's number of its IPv4, IPv6 rules; -1: no rules
    device_interface: NDArray[np.int32]  # [devices] id of the interface towards the fabric
    place_device: NDArray[np.int32]  # [places] a device itself; of a pod: its node
    pod_link: NDArray[np.int32]  # [places] of a pod: direction from it to its node; -1: no wire of its own
    pod_interface: NDArray[np.int32]  # [places] of a pod: id of the host's end of its veth; -1 likewise
    is_ipv6: NDArray[np.bool_]  # [addresses]
    listeners: Listeners
    ecmp_seed: int = 0
    changes: Changes | None = None  # None: nothing changes while it runs

    @property
    def device_count(self) -> int:
        """How many of the places are devices."""
        return len(self.device_kind)

    @property
    def remembers(self) -> bool:
        """Whether a rule's answer may depend on the connections before."""
        return bool(self.program.nth or self.program.recent)
