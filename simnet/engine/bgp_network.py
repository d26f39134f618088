"""From a materialised cluster to boxes that speak BGP: tables, sessions, and the routes that a choice makes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from simnet.controlplane.bgp.settled import settle
from simnet.controlplane.bgp.speaker import SpeakerTables
from simnet.controlplane.bgp.steady import RoutePlan
from simnet.controlplane.bgp.update_group import Change
from simnet.engine.bgp_boxes import Box, End
from simnet.engine.bgp_followers import let_share
from simnet.engine.bgp_tables import DeviceTable
from simnet.engine.materialise import advertised_services
from simnet.engine.route_view import network_and_origins
from simnet.model.cluster import Cluster
from simnet.model.fabric import DeviceKind
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

    def write(self, box: Box, changed: Iterable[Change]) -> None:
        """Put what was chosen into the device's table, or take the routes out."""
        plan, name = self.plan, box.name
        for _, chosen, prefixes in changed:
            for treatment, alike in plan.treatments(name, prefixes):
                box.table.learn(alike, plan.way_of_paths(name, treatment, chosen))

    def forget(self, box: Box) -> None:
        """Take every learned route of a speaker out of the device's table."""
        box.table.learn([prefix for prefix in box.table.learned if prefix.version == box.family], None)

    def rewrite(self, box: Box) -> None:
        """Make the learned routes of a speaker anew, of its whole Loc-RIB."""
        loc_rib = box.tables.loc_rib
        ours = [prefix for prefix in box.table.learned if prefix.version == box.family]
        box.table.learn([prefix for prefix in ours if prefix not in loc_rib], None)
        self.write(box, [Change((), chosen, [prefix]) for prefix, chosen in loc_rib.items()])


def boxes_of(cluster: Cluster, spec: ClusterSpec, *, is_cold: bool, shares: bool = True) -> Boxes:
    """Return the boxes: converged, or with nothing but their own prefixes."""
    services = advertised_services(cluster.services, cluster.endpoint_slices)
    boxes = Boxes(
        RoutePlan(cluster.fabric, cluster.nodes, cluster.pods, cluster.blocks, services, spec.calico, spec.fabric)
    )
    nodes = {node.name for node in cluster.nodes}
    networks: list[dict[str, Box]] = []
    for family in (4, 6):
        network, originated = network_and_origins(cluster, spec, family=family)
        boxes.originated.update(prefix for prefixes in originated.values() for prefix in prefixes)
        here: dict[str, Box] = {}
        speaking = _speaking(cluster, family)
        for name in dict.fromkeys((*(peering.local for peering in network.peerings), *speaking)):
            if name not in boxes.tables:
                boxes.tables[name] = DeviceTable(cluster.fibs[name], is_cold=is_cold)
            metric = partial(network.igp_metric, name)
            timers = spec.calico.bgp if name in nodes else spec.fabric.bgp
            tables = SpeakerTables(network.speakers[name], metric)
            box = here[name] = Box(name, family, tables, timers, boxes.tables[name])
            for prefix in originated.get(name, ()):
                box.tables.originate(prefix)
        for peering in network.peerings:
            box = here[peering.local]
            box.ends[peering.remote] = End.of(peering, box)
        for box in here.values():
            boxes.boxes.append(box)
            for peer, end in box.ends.items():
                end.twin = here[peer].ends[box.name]
                boxes.ends.append(end)
        networks.append(here)
    if shares:
        let_share(boxes.boxes, boxes.plan)
    for box in boxes.boxes:
        box.tables.decide()
    for here in () if is_cold else networks:
        settle(
            {name: box.tables for name, box in here.items()},
            {name: {peer: end.peering for peer, end in box.ends.items()} for name, box in here.items()},
        )
    return boxes


def _speaking(cluster: Cluster, family: int) -> list[str]:
    """The boxes that have an address of a family: each runs a daemon, with or without anyone to talk to."""
    return [
        device.name
        for device in cluster.fabric.devices
        if device.kind is not DeviceKind.CLIENTS and any((":" in a) == (family == 6) for a in device.addresses)
    ]
