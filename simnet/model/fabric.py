"""The wires: devices, the links between them, and which addresses can be reached over which segment.

A *device* forwards packets or holds an end of them: a cluster node, a switch, or a site of outside clients (one
device with many addresses behind one access link). A *segment* is a set of interfaces that reach each other without
routing: the two ends of a routed link, or everything that a switch bridges. Pods hang off their node by a veth link
of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from simnet.model.iptables.ruleset import IPNetwork
from simnet.model.queues import LinkQueue


class DeviceKind(Enum):
    """What a device does with packets."""

    NODE = "node"  # a cluster node: routes, runs kube-proxy's rules, holds pods
    SWITCH = "switch"  # routes between its interfaces and bridges its segment
    CLIENTS = "clients"  # sends and receives only


TUNNEL_INTERFACES = {"ipip": "tunl0", "vxlan": "vxlan.calico"}
TUNNEL_BYTES = {"ipip": 20, "vxlan": 50}  # of the outer headers: IPv4; IPv4, UDP, VXLAN and the inner Ethernet header


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A node's end of its tunnels to all other nodes."""

    kind: str  # "ipip", "vxlan"
    interface: str
    address: str  # on the interface: what packets of the node itself have as source
    underlay: str  # the node's address that outer headers carry
    extra_bytes: int  # that it adds to a packet


@dataclass(frozen=True, slots=True)
class Device:
    """A vertex of the fabric."""

    name: str
    kind: DeviceKind
    addresses: tuple[str, ...]  # its own, primary first (of each family); for CLIENTS all client addresses
    as_number: int | None = None
    role: str = ""  # of a switch: "tor", "leaf", "spine"; "route-reflector"
    rp_filter: str = "none"  # of a node: "none", "strict", "loose"
    tunnels: tuple[Tunnel, ...] = ()  # of a node; their addresses are among `addresses`


@dataclass(frozen=True, slots=True)
class Attachment:
    """A device's interface in a segment."""

    device: str
    interface: str  # "eth0", "p-A": the name that `ip addr` shows
    addresses: tuple[str, ...]  # on this interface, reachable over the segment
    network: IPNetwork | None  # the connected subnet, None for an interface without one (unnumbered, /32 peer)
    link: int | None  # the wire it sits on (index in Fabric.links); None: the bridging switch's own interface


@dataclass(frozen=True, slots=True)
class Segment:
    """Interfaces that reach each other without routing; `bridge` names the switch in the middle, if there is one."""

    name: str
    bridge: str | None
    attachments: tuple[Attachment, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """A wire with two directions: direction 2*i runs from `a` to `b`, direction 2*i+1 from `b` to `a`."""

    a: str  # device, or "namespace/pod" for a veth's far end
    b: str
    rate_bps: int
    delay_ps: int  # propagation, one way
    queue: LinkQueue = LinkQueue()  # of each direction


@dataclass(frozen=True, slots=True)
class PodAttachment:
    """A pod's veth: the pod is reached from `node` over `interface` and `link`."""

    pod: str  # "namespace/name"
    node: str
    interface: str  # host side: cali + 11 hex digits
    addresses: tuple[str, ...]
    link: int


@dataclass(frozen=True, slots=True)
class Ecmp:
    """How a kind of box chooses among the next hops of a group; docs/models/ecmp.md."""

    hash: str = "l4"  # "l3": addresses; "l4": five-tuple; "symmetric": five-tuple with ends sorted
    choice: str = "modulo"  # "modulo", "hash-threshold", "resilient", "hrw"
    has_shared_seed: bool = False  # True: all boxes of the kind hash alike, so that choices one after the other agree
    buckets: int = 128  # of a resilient group


SWITCH_ECMP = Ecmp()
NODE_ECMP = Ecmp("l3", "hash-threshold")  # Linux: fib_multipath_hash_policy 0, fib_select_multipath


@dataclass(frozen=True, slots=True)
class Fabric:
    """All devices, wires and segments; positions in `devices` and `links` are the dense ids of the data plane."""

    devices: tuple[Device, ...]
    links: tuple[Link, ...]
    segments: tuple[Segment, ...]
    pods: tuple[PodAttachment, ...]
    switch_ecmp: Ecmp = SWITCH_ECMP
    node_ecmp: Ecmp = NODE_ECMP
    mtu: int = 1500  # of every link
    pod_mtu: int = 1500  # of the interfaces of pods, at both ends

    def ecmp_of(self, kind: DeviceKind) -> Ecmp:
        """How a device of this kind chooses among next hops."""
        return self.switch_ecmp if kind is DeviceKind.SWITCH else self.node_ecmp

    def direction_names(self) -> list[str]:
        """The name of each link direction, `a->b`; position is the direction's id."""
        return [name for link in self.links for name in (f"{link.a}->{link.b}", f"{link.b}->{link.a}")]
