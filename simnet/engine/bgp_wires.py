"""Which boxes can talk at an instant, and how long a message takes: wires and devices that work, and shortest ways.

Left out: that packets of a session between nodes follow the FIBs while those change; any way of working wires will do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from simnet.model.fabric import DeviceKind, Fabric


class Wires:
    """The wires between devices, each with the reasons for which it does not carry."""

    def __init__(self, fabric: Fabric) -> None:
        self._kind = {device.name: device.kind for device in fabric.devices}
        self._at: dict[str, list[tuple[str, int, int]]] = {name: [] for name in self._kind}
        for number, link in enumerate(fabric.links):
            if link.a in self._kind and link.b in self._kind:
                self._at[link.a].append((link.b, number, link.delay_ps))
                self._at[link.b].append((link.a, number, link.delay_ps))
        self._faults: dict[int, list[object]] = {}
        self._without_carrier: dict[int, list[object]] = {}
        self._dead: set[str] = set()
        self._found: dict[str, dict[str, int]] = {}  # by device: the others that it reaches
        self._direct: dict[tuple[str, str], int | None] = {}  # of neighbours

    def between(self, a: str, b: str) -> list[int]:
        """The wires that join two devices."""
        return [number for other, number, _ in self._at.get(a, ()) if other == b]

    def of(self, device: str) -> list[tuple[str, int]]:
        """(neighbour, wire) of a device."""
        return [(other, number) for other, number, _ in self._at[device]]

    def carries(self, link: int) -> bool:
        """Whether no fault is on a wire."""
        return not self._faults.get(link)

    def has_carrier(self, link: int) -> bool:
        """Whether both ends see the other; a silent wire has a carrier and carries nothing."""
        return not self._without_carrier.get(link)

    def break_links(self, links: Iterable[int], reason: object, *, has_carrier: bool) -> list[int]:
        """Put a fault on wires; return those that carried before."""
        changed = [link for link in links if self.carries(link)]
        for link in links:
            self._faults.setdefault(link, []).append(reason)
            if not has_carrier:
                self._without_carrier.setdefault(link, []).append(reason)
        self._forget()
        return changed

    def mend_links(self, links: Iterable[int], reason: object) -> list[int]:
        """Take the fault away; return those that carry again."""
        for link in links:
            self._faults[link].remove(reason)
            if reason in self._without_carrier.get(link, ()):
                self._without_carrier[link].remove(reason)
        self._forget()
        return [link for link in links if self.carries(link)]

    def set_dead(self, device: str, is_dead: bool) -> None:
        """A dead device passes nothing on."""
        (self._dead.add if is_dead else self._dead.discard)(device)
        self._forget()

    def _forget(self) -> None:
        self._found.clear()
        self._direct.clear()

    def is_dead(self, device: str) -> bool:
        """Whether a device has no power."""
        return device in self._dead

    def delay_ps(self, a: str, b: str) -> int | None:
        """Propagation on a shortest way over working wires and switches; None: there is none."""
        pair = a, b
        if pair not in self._direct:
            self._direct[pair] = self._neighbour_ps(a, b)
        direct_ps = self._direct[pair]
        if direct_ps is not None:
            return direct_ps
        if a not in self._found:
            self._found[a] = self._reach(a)
        return self._found[a].get(b)

    def _neighbour_ps(self, a: str, b: str) -> int | None:
        """What `_reach` says of a neighbour over a wire that carries, without looking at the rest."""
        if a in self._dead or b in self._dead:
            return None
        here, there = (a, b) if len(self._at[a]) <= len(self._at[b]) else (b, a)
        return next((ps for other, link, ps in self._at[here] if other == there and self.carries(link)), None)

    def _reach(self, start: str) -> dict[str, int]:
        if start in self._dead:
            return {}
        delay, queue = {start: 0}, deque([start])
        while queue:
            at = queue.popleft()
            if at != start and self._kind[at] is not DeviceKind.SWITCH:
                continue  # nodes pass on no one else's session
            for other, link, link_ps in self._at[at]:
                if other not in delay and other not in self._dead and self.carries(link):
                    delay[other] = delay[at] + link_ps
                    queue.append(other)
        return delay
