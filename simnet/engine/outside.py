"""A cluster seen by a client at an address that its file does not name: the same cluster with one more site on the
fabric.

Services, pods, rules and IPAM stay as they are; only wires and routes are made anew.
"""

from __future__ import annotations

from dataclasses import replace

from simnet.controlplane.bgp.steady import steady_fibs
from simnet.controlplane.fabric import build_fabric
from simnet.controlplane.racks import known_by_peers
from simnet.engine.materialise import advertised_services
from simnet.model.cluster import Cluster
from simnet.model.fabric import DeviceKind
from simnet.model.scenario import ClusterSpec


def with_outside_client(cluster: Cluster, spec: ClusterSpec, address: str) -> Cluster:
    """Return the cluster with a client site that holds the address, beside those that it has.

    Raises InputError where the address is a node's or a pod's.
    """
    devices = cluster.fabric.devices
    clients = [each for device in devices if device.kind is DeviceKind.CLIENTS for each in device.addresses]
    settings = known_by_peers(spec.fabric, cluster.nodes, spec.calico)
    fabric = build_fabric(cluster.nodes, cluster.pods, [*clients, address], settings)
    fibs = steady_fibs(
        fabric,
        cluster.nodes,
        cluster.pods,
        cluster.blocks,
        advertised_services(cluster.services, cluster.endpoint_slices),
        spec.calico,
        settings,
    )
    return replace(cluster, fabric=fabric, fibs=fibs)
