"""A cluster's boxes as namespaces, each with a BIRD 2 that is configured as the wiring says.

Written from the description of the wirings (docs/models/routing.md) and of Calico's export filter, not from
`simnet.controlplane.bgp`: only the wires, addresses and AS numbers come from simnet.
"""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass, field

from bird.namespaces import Namespaces

from simnet.model.calico import CalicoSettings, FabricMode, FabricSettings, Wiring
from simnet.model.cluster import Block, ClusterNode
from simnet.model.fabric import Attachment, DeviceKind, Fabric, Segment

SERVICE_CIDR = "203.0.113.0/24"
BETWEEN_SWITCHES = "100.64.0.0/16"  # where the fabric takes the addresses of its spine links from
TIMERS = "connect delay time 1; connect retry time 1; error wait time 1, 2; hold time 30;"


@dataclass(frozen=True)
class Neighbour:
    """A session of a node with another box, under wiring PEERS: what BIRD is told, in words of its own."""

    box: str
    rejects: tuple[str, ...] = ()  # conditions of BIRD's filter language, on export
    refuses: tuple[str, ...] = ()  # likewise on import
    next_hop: str = ""  # "next hop self", "next hop keep"
    allowed: int = 0  # own AS numbers in a path


@dataclass
class Case:
    """A cluster whose tables simnet and BIRD both make."""

    nodes: tuple[ClusterNode, ...]
    blocks: tuple[Block, ...]
    vips: dict[str, tuple[str, ...]]  # address of a Local service -> nodes with a ready endpoint
    calico: CalicoSettings
    settings: FabricSettings
    fabric: Fabric
    as_number: dict[str, int]  # of nodes, as the wiring gives them
    neighbours: dict[str, list[Neighbour]] = field(default_factory=dict)  # of nodes, under wiring PEERS


def lay_out(case: Case, net: Namespaces) -> None:
    """Make every node and switch with its interfaces, addresses, default route and pods' routes."""
    fabric, metric = case.fabric, " metric 1024" if case.calico.has_route_metrics else ""
    boxes = [device for device in fabric.devices if device.kind is not DeviceKind.CLIENTS]
    lines: dict[str, list[str]] = {device.name: [] for device in boxes}
    for device in boxes:
        net.add(device.name)
    wires: dict[int, list[tuple[str, str]]] = {}  # link -> (box, interface) of both ends
    for segment in fabric.segments:
        if segment.bridge is not None:
            bridge = segment.attachments[0].interface
            lines[segment.bridge] += [f"link add {bridge} type bridge", f"link set {bridge} up"]
        for end in segment.attachments:
            if end.link is not None and (end.device, end.interface) not in wires.setdefault(end.link, []):
                wires[end.link].append((end.device, end.interface))
        if segment.bridge is not None:
            for end in segment.attachments[1:]:
                assert end.link is not None
                wires[end.link].append((segment.bridge, f"port{end.link}"))
                lines[segment.bridge].append(f"link set port{end.link} master {segment.attachments[0].interface}")
    net.wire([(*ends[0], *ends[1]) for ends in wires.values()])
    for ends in wires.values():
        for box, interface in ends:
            lines[box].insert(0, f"link set {interface} up")
    on_a_subnet: set[tuple[str, str]] = set()
    for segment in fabric.segments:
        for end in segment.attachments:
            lines[end.device] += _addresses(segment, end)
            on_a_subnet |= {(end.device, address) for address in end.addresses if end.network is not None}
    for device in boxes:
        if device.kind is DeviceKind.SWITCH:  # its own addresses that no subnet holds
            own = [a for a in device.addresses if (device.name, a) not in on_a_subnet]
            lines[device.name] += [f"addr add {address}/32 dev lo" for address in own]
        else:
            lines[device.name].append(f"route add default via {gateway_of(case, device.name)[1]}")
    for pod in fabric.pods:  # a veth pair inside the node stands for the pod's
        lines[pod.node] += [f"link add {pod.interface} type veth peer name x{pod.link}"]
        lines[pod.node] += [f"link set {pod.interface} up", f"link set x{pod.link} up"]
        lines[pod.node] += [f"route add {a}/32 dev {pod.interface} scope link{metric}" for a in pod.addresses]
    for box, each in lines.items():
        net.ip(box, each)


def _addresses(segment: Segment, end: Attachment) -> list[str]:
    if end.network is not None:
        return [f"addr add {address}/{end.network.prefixlen} dev {end.interface}" for address in end.addresses]
    peers = [address for other in segment.attachments if other is not end for address in other.addresses]
    return [f"addr add {end.addresses[0]} peer {peer}/32 dev {end.interface}" for peer in peers]


def gateway_of(case: Case, node: str) -> tuple[str, str, Segment]:
    """(switch, its address, segment) that a node hangs on."""
    switches = {device.name for device in case.fabric.devices if device.kind is DeviceKind.SWITCH}
    for segment in case.fabric.segments:
        if any(end.device == node for end in segment.attachments):
            switch = next(end for end in segment.attachments if end.device in switches)
            return switch.device, switch.addresses[0], segment
    raise AssertionError(node)


# --- configurations


def node_configuration(case: Case, node: ClusterNode) -> str:
    """As Calico's: blocks and service addresses static, the kernel's routes learned, one filter toward all peers."""
    own = node.addresses[0]
    blocks = [block.cidr for block in case.blocks if block.node == node.name]
    told = [SERVICE_CIDR, *(f"{vip}/32" for vip, holders in case.vips.items() if node.name in holders)]
    inside = [
        f"  if ( net ~ [ {block}{{{ipaddress.ip_network(block).prefixlen + 1},32}} ] ) then reject;" for block in blocks
    ]
    accepted = "\n".join(f"  if ( net ~ [ {cidr}+ ] ) then accept;" for cidr in (*told, *case.calico.ip_pools))
    metric = "if ( source = RTS_BGP ) then krt_metric = 2147483647 - bgp_local_pref;"
    text = f"""router id {own};
log stderr all;
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; interface -"cali*", -"x*", "*"; }}
protocol static own {{ ipv4; {_blackholes([*blocks, *told])} }}
protocol kernel {{
  learn; persist; scan time 1; merge paths on limit 16; metric 0;
  ipv4 {{ import all; export filter {{
    if ( net ~ [ {SERVICE_CIDR}+ ] ) then reject;
    {metric if case.calico.has_route_metrics else ""}
    accept;
  }}; }};
}}
function to_peer() {{
  if ( source != RTS_BGP ) then bgp_local_pref = 2147482623;
{chr(10).join(inside)}
{accepted}
  reject;
}}
"""
    for i, each in enumerate(_neighbours(case, node)):
        text += _session(case, node, f"peer{i}", each)
    return text


def _neighbours(case: Case, node: ClusterNode) -> list[Neighbour]:
    wiring, allowed = case.calico.wiring, case.calico.num_allowed_local_as_numbers
    if wiring is Wiring.PEERS:
        return case.neighbours[node.name]
    found = []
    if wiring is not Wiring.MESH:
        learned = ("source = RTS_BGP",) if wiring is Wiring.S2 else ()
        found.append(Neighbour(gateway_of(case, node.name)[0], learned, allowed=allowed))
    if wiring in (Wiring.S2, Wiring.S3, Wiring.MESH):
        reflecting = {each.name for each in case.nodes if each.route_reflector_cluster_id}
        for other in case.nodes:
            if other is not node and (not reflecting or reflecting & {node.name, other.name}):
                found.append(Neighbour(other.name))
    return found


def _session(case: Case, node: ClusterNode, name: str, told: Neighbour) -> str:
    number, others = case.as_number[node.name], {each.name: each for each in case.nodes}
    if told.box in others:
        other = others[told.box]
        address, there, their_cluster = other.addresses[0], case.as_number[told.box], other.route_reflector_cluster_id
    else:
        address, there, their_cluster = gateway_of(case, node.name)[1], _switch_as(case, told.box), ""
    cluster = node.route_reflector_cluster_id
    reflects = cluster and there == number and their_cluster != cluster
    rejects = "".join(f" if ( {each} ) then reject;" for each in told.rejects)
    refuses = "".join(f" if ( {each} ) then reject;" for each in told.refuses)
    return f"""filter out_{name} {{{rejects} to_peer(); }}
protocol bgp {name} {{
  local {node.addresses[0]} as {number};
  neighbor {address} as {there};
  multihop; {TIMERS} {f"allow local as {told.allowed};" if told.allowed else ""}
  {f"rr client; rr cluster id {cluster};" if reflects else ""}
  ipv4 {{
    import filter {{{refuses} accept; }}; export filter out_{name};
    gateway recursive; add paths on; {told.next_hop and f"{told.next_hop};"}
  }};
}}
"""


def _blackholes(prefixes: list[str]) -> str:
    return " ".join(f"route {prefix} blackhole;" for prefix in prefixes)


def _switch_as(case: Case, switch: str) -> int:
    return next(device.as_number for device in case.fabric.devices if device.name == switch) or 0


def switch_configuration(case: Case, name: str) -> str:
    """A router that has its own subnets, takes what its nodes tell, and tells other switches both."""
    number, settings = _switch_as(case, name), case.settings
    device = next(device for device in case.fabric.devices if device.name == name)
    cluster_prefixes = ", ".join(f"{cidr}+" for cidr in (SERVICE_CIDR, *case.calico.ip_pools))
    text = f"""router id {device.addresses[0]};
log stderr all;
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; interface "*"; }}
protocol kernel {{
  persist; scan time 1; merge paths on limit {settings.ecmp_width}; metric 0;
  ipv4 {{ import none; export where source = RTS_BGP; }};
}}
filter to_nodes {{ if ( net ~ [ {cluster_prefixes} ] ) then accept; reject; }}
filter to_switches {{ if ( net ~ [ {BETWEEN_SWITCHES}+ ] ) then reject; accept; }}
"""
    for i, node in enumerate(case.nodes):
        switch, address, segment = gateway_of(case, node.name)
        if switch != name or not any(each.box == name for each in _neighbours(case, node)):
            continue
        internal = case.as_number[node.name] == number
        keeps = segment.bridge is not None and settings.third_party_next_hop
        next_hop = "" if internal or keeps else "next hop self;"
        text += f"""protocol bgp node{i} {{
  local {address} as {number};
  neighbor {node.addresses[0]} as {case.as_number[node.name]};
  direct; {TIMERS} {"rr client;" if internal else ""}
  ipv4 {{ import all; export filter to_nodes; {next_hop} }};
}}
"""
    for i, (own, peer, other) in enumerate(_between(case, name)):
        text += f"""protocol bgp switch{i} {{
  local {own} as {number};
  neighbor {peer} as {_switch_as(case, other)};
  direct; {TIMERS}
  ipv4 {{ import all; export filter to_switches; next hop self; }};
}}
"""
    return text


def _between(case: Case, name: str) -> list[tuple[str, str, str]]:
    """(own address, its address, switch) of every wire to another switch."""
    switches = {device.name for device in case.fabric.devices if device.kind is DeviceKind.SWITCH}
    found = []
    for segment in case.fabric.segments:
        ends = segment.attachments
        if {end.device for end in ends} <= switches and len(ends) == 2 and any(end.device == name for end in ends):
            own, other = sorted(ends, key=lambda end: end.device != name)
            found.append((own.addresses[0], other.addresses[0], other.device))
    return found


# --- running


def start_birds(case: Case, net: Namespaces) -> None:
    """Start the BIRD of every box."""
    nodes = {node.name: node for node in case.nodes}
    for box in boxes_of(case):
        net.start_bird(box, node_configuration(case, nodes[box]) if box in nodes else switch_configuration(case, box))


def boxes_of(case: Case) -> list[str]:
    """Nodes and switches."""
    return [device.name for device in case.fabric.devices if device.kind is not DeviceKind.CLIENTS]


def converged_routes(case: Case, net: Namespaces, *, quiet_s: float, patience_s: float = 60) -> dict[str, str]:
    """Return `ip route` of every box once all sessions stand and no table changes for `quiet_s`."""
    boxes = boxes_of(case)
    give_up = time.monotonic() + patience_s
    shown: dict[str, str] = {}
    since = time.monotonic()
    while time.monotonic() < give_up:
        time.sleep(0.4)
        now = {box: net.routes(box) for box in boxes}
        if now != shown or not all(_all_established(net.birdc(box, "show", "protocols")) for box in boxes):
            shown, since = now, time.monotonic()
        elif time.monotonic() - since > quiet_s:
            return shown
    states = "\n".join(f"{box}\n{net.birdc(box, 'show', 'protocols')}" for box in boxes)
    raise TimeoutError(f"no stable tables within {patience_s} s\n{states}")


def _all_established(protocols: str) -> bool:
    sessions = [line for line in protocols.splitlines() if line.split()[1:2] == ["BGP"]]
    return bool(protocols) and all("Established" in line for line in sessions)


__all__ = ["SERVICE_CIDR", "Case", "FabricMode", "converged_routes", "lay_out", "start_birds"]
