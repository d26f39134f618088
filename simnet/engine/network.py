"""A cluster's tables compiled for the data plane: one `Network` from everything the control plane said."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from simnet.controlplane.calico.felix_rules import NatOutgoing
from simnet.controlplane.kube_proxy.round_robin import RoundRobin
from simnet.dataplane.forwarding.compile import compile_tables
from simnet.dataplane.forwarding.tables import ForwardingTables
from simnet.dataplane.netfilter.compiler import compile_program
from simnet.dataplane.path.network import CLIENTS, NODE, SWITCH, Listeners, Network, listener_key
from simnet.dataplane.path.wires import Wires, wires_of
from simnet.engine.changes import compile_changes, later_rulesets
from simnet.engine.table_changes import TableChange, table_changes
from simnet.model.addresses import AddressTable
from simnet.model.cluster import Cluster
from simnet.model.fabric import DeviceKind
from simnet.model.history import TableHistory
from simnet.model.iptables.ruleset import Family, Ruleset
from simnet.model.scenario import ClusterSpec

_KINDS = {DeviceKind.NODE: NODE, DeviceKind.SWITCH: SWITCH, DeviceKind.CLIENTS: CLIENTS}
PROTOCOL_NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132}


@dataclass(frozen=True, slots=True, eq=False)
class CompiledCluster:
    """A cluster with its tables as arrays, and the names behind the numbers."""

    cluster: Cluster
    network: Network
    addresses: AddressTable
    wires: Wires
    place_names: tuple[str, ...]  # devices by name, pods as namespace/name
    direction_names: tuple[str, ...]  # of links: "a->b"
    history: TableHistory | None = None  # what changes while it runs; None: nothing
    table_changes: tuple[TableChange, ...] = ()  # the same route by route, of a history with events
    # Exact shares of what was called so far (shares.py): the same for every seed, so repeats find them here.
    shares: dict[Hashable, Mapping[tuple[str, str], float]] = field(default_factory=dict, compare=False, repr=False)

    def place(self, name: str) -> int:
        """The number of a device or pod; KeyError if there is none."""
        try:
            return self.place_names.index(name)
        except ValueError:
            raise KeyError(name) from None


def compile_cluster(
    cluster: Cluster,
    spec: ClusterSpec,
    *,
    seed: int = 0,
    statistic_mode: str = "random",
    history: TableHistory | None = None,
) -> CompiledCluster:
    """Compile rules, routes and listeners. `seed` is that of the switches' ECMP hashes; `history`: what changes later.

    Raises InputError where saved rules hold what simnet does not model and `spec.left_out_rules` does not name it.
    """
    addresses = AddressTable()
    fabric = cluster.fabric
    for device in fabric.devices:
        for address in device.addresses:
            addresses.intern(address)
    for pod in cluster.pods:
        for address in pod.addresses:
            addresses.intern(address)
    _intern_services(cluster, addresses)
    interfaces = _interface_names(cluster)
    rulesets, hosts = _host_rulesets(cluster, spec, statistic_mode)
    later_rules: list[tuple[int, str, Family, int]] = []
    if history is not None:
        later, later_rules = later_rulesets(history, len(rulesets), _prepared(spec, statistic_mode))
        rulesets += later
    program = compile_program(rulesets, addresses, interfaces, skip_unknown=bool(spec.left_out_rules))
    tables = compile_tables(
        fabric, cluster.fibs if history is None else history.start, addresses, history.fibs if history else ()
    )
    program_interface = {name: number for number, name in enumerate(interfaces)}
    device_id = {device.name: number for number, device in enumerate(fabric.devices)}
    device_count, wired_count = len(fabric.devices), len(fabric.pods)
    own_network = [pod for pod in cluster.pods if pod.host_network]
    place_device = [*range(device_count), *tables.pod_device.tolist(), *(device_id[pod.node] for pod in own_network)]
    links = np.concatenate(
        [np.full(device_count, -1), tables.pod_uplink, np.full(len(own_network), -1)], dtype=np.int32, casting="unsafe"
    )
    veths = [program_interface[pod.interface] for pod in fabric.pods]
    version, _, _ = addresses.columns()
    network = Network(
        forwarding=_with_interfaces_of(tables, program_interface),
        program=program,
        device_kind=np.array([_KINDS[device.kind] for device in fabric.devices], dtype=np.int8),
        device_host=_device_hosts(cluster, hosts),
        device_interface=np.array([program_interface[name] for name in _fabric_interfaces(cluster)], dtype=np.int32),
        place_device=np.array(place_device, dtype=np.int32),
        pod_link=links,
        pod_interface=np.array([-1] * device_count + veths + [-1] * len(own_network), dtype=np.int32),
        is_ipv6=version == 6,
        listeners=_listeners(cluster, addresses, device_count + wired_count),
        ecmp_seed=seed,
    )
    wires = _wires(cluster, tables)
    place_names = (
        *(device.name for device in fabric.devices),
        *(pod.pod for pod in fabric.pods),
        *(pod.key for pod in own_network),
    )
    if history is not None:
        changes = compile_changes(cluster, history, hosts, later_rules, rulesets, addresses, wires, place_names)
        network = replace(network, changes=changes)
    return CompiledCluster(
        cluster=cluster,
        network=network,
        addresses=addresses,
        wires=wires,
        place_names=place_names,
        direction_names=tuple(fabric.direction_names()),
        history=history,
        table_changes=tuple(table_changes(history, cluster.rulesets)) if history and history.events else (),
    )


def _wires(cluster: Cluster, tables: ForwardingTables) -> Wires:
    links = cluster.fabric.links
    rates = [rate for link in links for rate in (link.rate_bps, link.rate_bps)]
    delays = [delay for link in links for delay in (link.delay_ps, link.delay_ps)]
    return wires_of(
        np.array(delays, dtype=np.int64),
        np.array(rates, dtype=np.int64),
        tuple(sorted({0, *tables.tunnels.extra_bytes.tolist()})),
    )


def _with_interfaces_of(tables: ForwardingTables, wanted: Mapping[str, int]) -> ForwardingTables:
    """The same tables with interfaces under the numbers that the rules use."""
    tunnels, names = tables.tunnels, tables.interface_names
    return replace(
        tables,
        out_interface=_renumbered(tables.out_interface, names, wanted),
        tunnels=replace(
            tunnels,
            interface=_renumbered(tunnels.interface, names, wanted),
            interfaces=tuple(wanted[names[number]] for number in tunnels.interfaces),
        ),
    )


def _renumbered(numbers: NDArray[np.int32], names: Sequence[str], wanted: Mapping[str, int]) -> NDArray[np.int32]:
    """The same interfaces under the numbers that the rules use; -1 stays."""
    table = np.array([*(wanted.get(name, -1) for name in names), -1], dtype=np.int32)
    renumbered: NDArray[np.int32] = table[numbers]
    return renumbered


def _intern_services(cluster: Cluster, addresses: AddressTable) -> None:
    for service in cluster.services:
        texts = itertools.chain(
            service.cluster_ips,
            (service.cluster_ip,),
            service.external_ips,
            (ingress.ip for ingress in service.load_balancer_ingress),
        )
        for text in texts:
            if text and text != "None":
                addresses.intern(text)
    for each in cluster.endpoint_slices:
        if each.address_type != "FQDN":
            for endpoint in each.endpoints:
                for text in endpoint.addresses:
                    addresses.intern(text)


def _interface_names(cluster: Cluster) -> list[str]:
    names = dict.fromkeys(
        attachment.interface for segment in cluster.fabric.segments for attachment in segment.attachments
    )
    names.update(dict.fromkeys(pod.interface for pod in cluster.fabric.pods))
    names.update(dict.fromkeys(tunnel.interface for each in cluster.fabric.devices for tunnel in each.tunnels))
    names.setdefault("lo")
    return list(names)


def _fabric_interfaces(cluster: Cluster) -> list[str]:
    """Each device's first interface towards the fabric."""
    first: dict[str, str] = {}
    for segment in cluster.fabric.segments:
        for attachment in segment.attachments:
            first.setdefault(attachment.device, attachment.interface)
    return [first.get(device.name, "lo") for device in cluster.fabric.devices]


def _host_rulesets(
    cluster: Cluster, spec: ClusterSpec, statistic_mode: str
) -> tuple[list[Ruleset], dict[tuple[str, Family], int]]:
    """All rule sets that the program holds, and the number of each node's per family."""
    rulesets: list[Ruleset] = []
    numbers: dict[tuple[str, Family], int] = {}
    prepared = _prepared(spec, statistic_mode)
    for node, sets in cluster.rulesets.items():
        for ruleset in sets:
            numbers[node, ruleset.family] = len(rulesets)
            rulesets.append(prepared(ruleset))
    return rulesets, numbers


def _prepared(spec: ClusterSpec, statistic_mode: str) -> Callable[[Ruleset], Ruleset]:
    """What is done to a node's rules before they are compiled: Calico's are added, `statistic` may count."""
    as_nth = RoundRobin() if statistic_mode == "nth" else None
    nat_outgoing = NatOutgoing(spec.calico)
    made: dict[int, tuple[Ruleset, Ruleset]] = {}  # by id of the given one, which stays alive: nodes share them

    def prepare(ruleset: Ruleset) -> Ruleset:
        if id(ruleset) not in made:
            made[id(ruleset)] = ruleset, as_nth(nat_outgoing(ruleset)) if as_nth else nat_outgoing(ruleset)
        return made[id(ruleset)][1]

    return prepare


def _device_hosts(cluster: Cluster, hosts: dict[tuple[str, Family], int]) -> NDArray[np.int32]:
    rows = [
        [hosts.get((device.name, family), -1) for family in (Family.IPV4, Family.IPV6)]
        for device in cluster.fabric.devices
    ]
    return np.array(rows, dtype=np.int32).reshape(-1, 2)


def _listeners(cluster: Cluster, addresses: AddressTable, first_place: int) -> Listeners:
    """Endpoints that are pods on their node's network: by address, protocol and port."""
    own_network = [pod for pod in cluster.pods if pod.host_network]
    place_of = {pod.key: first_place + number for number, pod in enumerate(own_network)}
    by_address = {address: pod.key for pod in reversed(own_network) for address in pod.addresses}
    found: dict[int, int] = {}
    for each in cluster.endpoint_slices:
        for endpoint in each.endpoints:
            for text in endpoint.addresses:
                if text not in by_address:
                    continue
                reference = endpoint.target_ref
                key = f"{reference.namespace or each.namespace}/{reference.name}" if reference else ""
                place = place_of.get(key, place_of[by_address[text]])
                for port in each.ports:
                    if port.port:
                        number = listener_key(
                            np.array([addresses.intern(text)], dtype=np.int32),
                            np.array([PROTOCOL_NUMBERS.get(port.protocol, 6)], dtype=np.uint8),
                            np.array([port.port], dtype=np.int32),
                        )
                        found.setdefault(int(number[0]), place)
    keys = sorted(found)
    return Listeners(np.array(keys, dtype=np.int64), np.array([found[key] for key in keys], dtype=np.int32))
