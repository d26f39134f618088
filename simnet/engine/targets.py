"""Who calls, from where, and what: a variant's clients and targets as places and address ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simnet.engine.materialise import CLIENT_NAMESPACE
from simnet.engine.network import PROTOCOL_NUMBERS, CompiledCluster
from simnet.errors import InputError, Position, Problem
from simnet.model.cluster import Cluster
from simnet.model.fabric import DeviceKind
from simnet.model.kubernetes import Service, ServicePort
from simnet.model.scenario import Entry, Variant
from simnet.model.workload import ClientOrigin, ClientPopulation, EntryChoiceKind


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The addresses at which a variant's service can be called."""

    address: NDArray[np.int32]  # [targets] address id
    port: NDArray[np.int32]  # [targets]
    names: tuple[str, ...]  # node, address or pod, as a choice names it
    fixed: int | None  # the one that a fixed choice means


@dataclass(frozen=True, slots=True, eq=False)
class Callers:
    """The clients of a run."""

    place: NDArray[np.int32]  # [clients] where packets come from
    address: NDArray[np.int32]  # [clients] source address id
    names: tuple[str, ...]  # [clients] as the flows frame shows them


def service_of(cluster: Cluster, variant: Variant) -> Service:
    """Return the service that a variant calls."""
    return next(each for each in cluster.services if f"{each.namespace}/{each.name}" == variant.service)


def service_port(service: Service, variant: Variant, protocol: int) -> ServicePort:
    """Return the port that a variant means: by name, by number, or the first of the protocol."""
    ports = [port for port in service.ports if PROTOCOL_NUMBERS[port.protocol] == protocol]
    return next(port for port in ports if variant.port in (None, port.name, port.port))


def targets_of(compiled: CompiledCluster, variant: Variant, protocol: int) -> Targets:
    """Return what a variant's flows call, in the order of nodes, of the Service's addresses, or of endpoints.

    Raises InputError where the materialised service offers nothing to call.
    """
    cluster = compiled.cluster
    service = service_of(cluster, variant)
    port = service_port(service, variant, protocol)
    found: list[tuple[str, str, int]] = []  # name, address, port
    if variant.entry is Entry.NODE_PORT:
        found = [(node.name, node.addresses[0], port.node_port) for node in cluster.nodes if port.node_port]
    elif variant.entry is Entry.EXTERNAL_IP:
        found = [(address, address, port.port) for address in service.external_ips]
    elif variant.entry is Entry.LOAD_BALANCER_IP:
        found = [(each.ip, each.ip, port.port) for each in service.load_balancer_ingress if each.ip]
    elif variant.entry is Entry.CLUSTER_IP and service.cluster_ip not in ("", "None"):
        found = [(service.cluster_ip, service.cluster_ip, port.port)]
    elif variant.entry is Entry.POD:
        found = _endpoints(cluster, service, port)
    if not found:
        raise InputError(
            [
                Problem(
                    variant.position,
                    f"variants.{variant.name}",
                    f"{variant.entry.value} of {variant.service}: nothing to call",
                    "an address for this entry in the running cluster",
                    "for Pod: give the service ready pods; else see `simnet validate --resolved`",
                )
            ]
        )
    names = tuple(name for name, _, _ in found)
    fixed = None
    if variant.choice.kind is EntryChoiceKind.FIXED:
        fixed = names.index(variant.choice.fixed) if variant.choice.fixed in names else 0
    return Targets(
        np.array([compiled.addresses.intern(address) for _, address, _ in found], dtype=np.int32),
        np.array([number for _, _, number in found], dtype=np.int32),
        names,
        fixed,
    )


def _endpoints(cluster: Cluster, service: Service, port: ServicePort) -> list[tuple[str, str, int]]:
    found: dict[tuple[str, int], str] = {}
    for each in cluster.endpoint_slices:
        if (each.namespace, each.service_name) != (service.namespace, service.name):
            continue
        for endpoint_port in each.ports:
            if (endpoint_port.name or "", endpoint_port.protocol) != (port.name, port.protocol):
                continue
            for endpoint in each.endpoints:
                if endpoint.conditions.ready is not False and endpoint_port.port:
                    reference = endpoint.target_ref
                    name = f"{each.namespace}/{reference.name}" if reference else endpoint.addresses[0]
                    found.setdefault((endpoint.addresses[0], endpoint_port.port), name)
    return [(name, address, number) for (address, number), name in found.items()]


def callers_of(compiled: CompiledCluster, clients: ClientPopulation, family_of: int) -> Callers:
    """Return the clients' places and addresses of the family (4 or 6) of what they call; names are used in turn.

    Raises InputError for a pod or node that is not in the cluster.
    """
    fabric = compiled.cluster.fabric
    found: list[tuple[str, str, str]] = []  # name, place, address
    if clients.origin is ClientOrigin.OUTSIDE:
        for device in fabric.devices:
            if device.kind is DeviceKind.CLIENTS:
                found += [(address, device.name, address) for address in device.addresses if _is(address, family_of)]
    elif clients.origin is ClientOrigin.NODES:
        wanted = set(clients.addresses)
        for node in compiled.cluster.nodes:
            if not wanted or node.name in wanted:
                found += [(node.name, node.name, each) for each in node.addresses if _is(each, family_of)][:1]
    else:
        wanted = set(clients.addresses)
        for pod in compiled.cluster.pods:
            if pod.key in wanted or (not wanted and pod.namespace == CLIENT_NAMESPACE):
                found += [(pod.key, pod.key, each) for each in pod.addresses if _is(each, family_of)][:1]
    missing = set(clients.addresses) - {name for name, _, _ in found}
    if not found or (missing and clients.origin is not ClientOrigin.OUTSIDE):
        raise InputError([_no_client(clients, missing, family_of)])
    numbers = {name: number for number, name in enumerate(compiled.place_names)}
    chosen = [found[number % len(found)] for number in range(clients.count)]
    return Callers(
        np.array([numbers[place] for _, place, _ in chosen], dtype=np.int32),
        np.array([compiled.addresses.intern(address) for _, _, address in chosen], dtype=np.int32),
        tuple(name for name, _, _ in chosen),
    )


def _is(address: str, family: int) -> bool:
    return (":" in address) == (family == 6)


def _no_client(clients: ClientPopulation, missing: set[str], family: int) -> Problem:
    found = f"{', '.join(sorted(missing))}" if missing else f"no client with an IPv{family} address"
    return Problem(
        Position(""),
        "workload.clients.from",
        found,
        f"{clients.origin.value} of the cluster that have an IPv{family} address",
        "correct the names, or give the clients addresses of the family that is called",
    )
