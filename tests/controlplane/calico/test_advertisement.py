"""Which nodes tell of which service addresses."""

import ipaddress

import pytest

from simnet.controlplane.calico.advertisement import EXCLUDE_LABEL, service_advertisements
from simnet.model.calico import AdvertisedService, CalicoSettings
from simnet.model.cluster import ClusterNode

NODES = tuple(ClusterNode(name, (f"10.0.0.{i}",), {}) for i, name in enumerate("ABC", 11))


def told(services=(), nodes=NODES, **settings):
    return {
        str(each.prefix): each.nodes for each in service_advertisements(services, nodes, CalicoSettings(**settings))
    }


def service(**fields):
    known = {"ready_nodes": frozenset("B"), "endpoint_nodes": frozenset("BC")}
    return AdvertisedService("d/s", **{**known, **fields})


def test_every_node_tells_of_every_listed_cidr_with_or_without_a_service():
    lists = {"service_cluster_ips": ("10.96.0.0/12",), "service_external_ips": ("203.0.113.0/24",)}
    assert told(**lists) == {"10.96.0.0/12": ("A", "B", "C"), "203.0.113.0/24": ("A", "B", "C")}


def test_a_node_that_is_labelled_out_tells_of_nothing():
    nodes = (ClusterNode("A", ("10.0.0.11",), {EXCLUDE_LABEL: "true"}), *NODES[1:])
    assert told(nodes=nodes, service_external_ips=("203.0.113.0/24",)) == {"203.0.113.0/24": ("B", "C")}


def test_a_local_service_is_told_by_nodes_with_a_ready_endpoint():
    local = service(external_ips=("203.0.113.9", "192.0.2.1"), cluster_ips=("10.96.0.9",), is_local=True)
    assert told([local], service_external_ips=("203.0.113.0/24",), service_cluster_ips=("10.96.0.0/12",)) == {
        "10.96.0.0/12": ("A", "B", "C"),
        "10.96.0.9/32": ("B",),
        "203.0.113.0/24": ("A", "B", "C"),
        "203.0.113.9/32": ("B",),
    }  # 192.0.2.1 lies in no listed CIDR


def test_a_local_service_without_a_ready_endpoint_leaves_only_the_cidr():
    local = service(external_ips=("203.0.113.9",), is_local=True, ready_nodes=frozenset())
    assert list(told([local], service_external_ips=("203.0.113.0/24",))) == ["203.0.113.0/24"]


@pytest.mark.parametrize(
    "version, nodes",
    [
        ((3, 30, 7), "B"),
        ((3, 31, 0), "BC"),
        ((3, 31, 6), "BC"),
        ((3, 31, 7), "B"),
        ((3, 32, 1), "BC"),
        ((3, 33, 0), "B"),
    ],
)
def test_some_releases_tell_of_endpoints_that_are_not_ready(version, nodes):
    local = service(external_ips=("203.0.113.9",), is_local=True)
    found = told([local], service_external_ips=("203.0.113.0/24",), version=version)
    assert found["203.0.113.9/32"] == tuple(nodes)


def test_a_single_listed_address_is_told_only_where_a_service_has_it_and_reaches_the_kernel():
    lists = {"service_external_ips": ("203.0.113.9/32",)}
    assert told(**lists) == {}
    (each,) = service_advertisements([service(external_ips=("203.0.113.9",))], NODES, CalicoSettings(**lists))
    assert (each.nodes, each.in_kernel) == (("A", "B", "C"), True)


def test_without_aggregation_load_balancer_addresses_are_told_one_by_one_while_an_endpoint_is_ready():
    lists = {"service_load_balancer_ips": ("198.18.0.0/24",), "service_load_balancer_aggregation": False}
    assert told([service(load_balancer_ips=("198.18.0.5",))], **lists) == {"198.18.0.5/32": ("A", "B", "C")}
    assert told([service(load_balancer_ips=("198.18.0.5",), ready_nodes=frozenset())], **lists) == {}


def test_services_that_share_an_address_are_told_by_the_nodes_of_either():
    one = service(external_ips=("203.0.113.9",), is_local=True)
    two = service(external_ips=("203.0.113.9",), is_local=True, ready_nodes=frozenset("A"))
    found = told([one, two], service_external_ips=("203.0.113.0/24",))
    assert found[str(ipaddress.ip_network("203.0.113.9"))] == ("A", "B")
