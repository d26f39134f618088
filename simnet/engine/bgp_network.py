"""From a materialised cluster to boxes that speak BGP: tables, sessions, and the routes that a choice makes."""

from __future__ import annotations

from collections import deque
from functools import partial

from simnet.controlplane.bgp.speaker import Paths, SpeakerTables
from simnet.controlplane.bgp.steady import RoutePlan
from simnet.engine.bgp_boxes import Box, DeviceTable, End
from simnet.engine.materialise import advertised_services
from simnet.engine.route_view import network_and_origins
from simnet.model.cluster import Cluster
from simnet.model.fib import Fib, Route, RouteKind
from simnet.model.iptables.ruleset import IPNetwork
from simnet.model.scenario import ClusterSpec


class Boxes:
    """All boxes, and how their choices become routes."""

    def __init__(self, plan: RoutePlan) -> None:
        self.plan = plan
        self.boxes: list[Box] = []
        self.ends: list[End] = []
        self.tables: dict[str, DeviceTable] = {}
        self.originated: set[IPNetwork] = set()

    def of(self, device: str) -> list[Box]:
        """A device's speakers, one a family."""
        return [box for box in self.boxes if box.name == device]

    def underlay_of(self, box: Box) -> set[IPNetwork]:
        """The prefixes of its own that a switch tells other switches."""
        return {prefix for switch, prefix in self.plan.topology.underlay() if switch == box.name} & self.originated

    def write(self, box: Box, prefix: IPNetwork, chosen: Paths) -> None:
        """Put what was chosen into the device's table, or take the route out."""
        route = self.plan.route_of_paths(box.name, prefix, chosen)
        if route is None:
            box.table.learned.pop(prefix, None)
        else:
            box.table.learned[prefix] = route

    def forget(self, box: Box) -> None:
        """Take every learned route of a speaker out of the device's table."""
        for prefix in [prefix for prefix in box.table.learned if prefix.version == box.family]:
            del box.table.learned[prefix]

    def rewrite(self, box: Box) -> None:
        """Make the learned routes of a speaker anew, of its whole Loc-RIB."""
        for prefix in [prefix for prefix in box.table.learned if prefix.version == box.family]:
            if prefix not in box.tables.loc_rib:
                del box.table.learned[prefix]
        for prefix, chosen in box.tables.loc_rib.items():
            self.write(box, prefix, chosen)


def boxes_of(cluster: Cluster, spec: ClusterSpec, *, is_cold: bool) -> Boxes:
    """Return the boxes: converged, or with nothing but their own prefixes."""
    services = advertised_services(cluster.services, cluster.endpoint_slices)
    boxes = Boxes(
        RoutePlan(cluster.fabric, cluster.nodes, cluster.pods, cluster.blocks, services, spec.calico, spec.fabric)
    )
    nodes = {node.name for node in cluster.nodes}
    for family in (4, 6):
        network, originated = network_and_origins(cluster, spec, family=family)
        boxes.originated.update(prefix for prefixes in originated.values() for prefix in prefixes)
        here: dict[str, Box] = {}
        for peering in network.peerings:
            box = here.get(peering.local)
            if box is None:
                name = peering.local
                if name not in boxes.tables:
                    boxes.tables[name] = _device_table(cluster.fibs[name], is_cold)
                metric = partial(network.igp_metric, name)
                timers = spec.calico.bgp if name in nodes else spec.fabric.bgp
                tables = SpeakerTables(network.speakers[name], metric)
                box = here[name] = Box(name, family, tables, timers, boxes.tables[name])
                for prefix in originated.get(name, ()):
                    box.tables.originate(prefix)
                box.tables.decide()
            box.ends[peering.remote] = End(peering, box, box.timers)
        for box in here.values():
            boxes.boxes.append(box)
            for peer, end in box.ends.items():
                end.twin = here[peer].ends[box.name]
                boxes.ends.append(end)
        if not is_cold:
            _settle(list(here.values()))
    if is_cold:
        for table in boxes.tables.values():
            now = table.now()
            table.fib = now or table.fib
    return boxes


def _device_table(fib: Fib, is_cold: bool) -> DeviceTable:
    learned = {route.prefix: route for route in fib.routes if is_learned(route)}
    table = DeviceTable(fib, learned)
    if is_cold:
        table.learned = {}
    return table


def is_learned(route: Route) -> bool:
    """Whether BGP brought a route."""
    return route.kind is RouteKind.VIA and route.protocol == "bird"


def _settle(boxes: list[Box]) -> None:
    """Exchange everything without time until nobody has anything to tell."""
    queue = deque(boxes)
    waiting = set(boxes)
    for box in boxes:
        for end in box.ends.values():
            _hand_over(end, box.tables.adj_rib_out(end.peering), queue, waiting)
    while queue:
        box = queue.popleft()
        waiting.discard(box)
        changed = box.tables.decide()
        if changed:
            for end in box.ends.values():
                _hand_over(end, box.tables.update_for(end.peering, changed), queue, waiting)


def _hand_over(end: End, changes: dict[IPNetwork, Paths], queue: deque[Box], waiting: set[Box]) -> None:
    if changes:
        twin = end.twin
        twin.box.tables.receive(twin.peering, end.box.tables.speaker, changes)
        if twin.box not in waiting:
            waiting.add(twin.box)
            queue.append(twin.box)
