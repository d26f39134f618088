"""Addresses and blocks, as Calico hands them out."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simnet.controlplane.calico.ipam import AddressRequest, assign_blocks, derive_blocks, fnv1a_32
from simnet.errors import InputError
from simnet.model.calico import CalicoSettings
from simnet.model.cluster import Block


def pods(count, node="a", **fields):
    return [AddressRequest(f"d/p{i}-{node}", node, **fields) for i in range(count)]


def test_a_block_is_used_from_the_front_its_first_and_last_address_included():
    assignment = assign_blocks(pods(64), CalicoSettings(ip_pools=("192.168.0.0/16",)))
    (block,) = assignment.blocks
    network = ipaddress.ip_network(block.cidr)
    assert network.prefixlen == 26
    assert [held[0] for held in assignment.addresses.values()] == [str(address) for address in network]


def test_the_65th_pod_of_a_node_opens_the_next_block():
    settings = CalicoSettings(ip_pools=("192.168.0.0/16",))
    blocks = assign_blocks(pods(65), settings).blocks
    first, second = (ipaddress.ip_network(block.cidr) for block in blocks)
    assert int(second.network_address) - int(first.network_address) == 64


def test_the_first_block_of_a_node_is_where_the_hash_of_its_name_points():
    (block,) = assign_blocks(pods(1, "worker-7"), CalicoSettings(ip_pools=("10.0.0.0/16",))).blocks
    index = fnv1a_32("worker-7") % 1024
    assert block.cidr == str(list(ipaddress.ip_network("10.0.0.0/16").subnets(new_prefix=26))[index])


def test_fnv1a_has_its_authors_test_vectors():
    assert [fnv1a_32(text) for text in ("", "a", "foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


def test_past_twenty_blocks_the_allocation_fails_and_does_not_borrow():
    settings = CalicoSettings(ip_pools=("10.0.0.0/16",))
    assert len(assign_blocks(pods(1280), settings).blocks) == 20
    with pytest.raises(InputError) as caught:
        assign_blocks(pods(1281), settings)
    assert str(caught.value) == (
        "calico: pod d/p1280-a on a\n"
        "  found:    20 full blocks on a\n"
        "  expected: at most 20 blocks a node, one of them with a free address\n"
        "  fix:      put fewer pods on the node or raise maxBlocksPerHost"
    )


def test_without_a_free_block_an_address_is_borrowed_and_the_block_says_from_whom():
    settings = CalicoSettings(ip_pools=("10.0.0.0/26",))
    assignment = assign_blocks([*pods(1, "a"), *pods(1, "b")], settings)
    assert assignment.blocks == (Block("10.0.0.0/26", "a", (("10.0.0.1", "b"),)),)


def test_strict_affinity_refuses_to_borrow():
    settings = CalicoSettings(ip_pools=("10.0.0.0/26",), strict_affinity=True)
    with pytest.raises(InputError, match="strictAffinity forbids to borrow"):
        assign_blocks([*pods(1, "a"), *pods(1, "b")], settings)


def test_a_full_pool_is_an_error_that_names_every_pod_left_over():
    with pytest.raises(InputError) as caught:
        assign_blocks([*pods(64, "a"), *pods(2, "b")], CalicoSettings(ip_pools=("10.0.0.0/26",)))
    assert [problem.field for problem in caught.value.problems] == ["pod d/p0-b on b", "pod d/p1-b on b"]


def test_ipv6_blocks_are_122_and_a_dual_stack_pod_gets_both():
    settings = CalicoSettings(ip_pools=("192.168.0.0/16", "fd10::/48"))
    assignment = assign_blocks(pods(1, families=(4, 6)), settings)
    assert [ipaddress.ip_address(a).version for a in assignment.addresses["d/p0-a"]] == [4, 6]
    assert [block.cidr.rsplit("/")[-1] for block in assignment.blocks] == ["26", "122"]


def test_existing_addresses_are_kept_and_their_block_goes_to_the_node_with_most_pods_in_it():
    held = [
        AddressRequest("d/x", "b", ("10.0.0.5",)),
        AddressRequest("d/y", "b", ("10.0.0.6",)),
        AddressRequest("d/z", "a", ("10.0.0.0",)),
    ]
    assignment = assign_blocks([*held, AddressRequest("d/new", "b")], CalicoSettings(ip_pools=("10.0.0.0/16",)))
    assert assignment.blocks == (Block("10.0.0.0/26", "b", (("10.0.0.0", "a"),)),)
    assert assignment.addresses["d/new"] == ("10.0.0.1",)


def test_a_known_affinity_beats_the_count_of_pods():
    held = [AddressRequest(f"d/{i}", "b", (f"10.0.0.{i}",)) for i in range(3)]
    known = (Block("10.0.0.0/26", "a"),)
    assert derive_blocks(held, CalicoSettings(), known) == (
        Block("10.0.0.0/26", "a", tuple((f"10.0.0.{i}", "b") for i in range(3))),
    )


@given(st.lists(st.sampled_from("abcd"), max_size=60), st.sampled_from([28, 29, 30, 32]))
def test_every_address_is_given_once_and_lies_in_a_block_of_its_node_unless_borrowed(nodes, block_size):
    settings = CalicoSettings(ip_pools=("10.0.0.0/26",), block_size=block_size, max_blocks_per_host=64)
    requests = [AddressRequest(f"d/{i}", node) for i, node in enumerate(nodes)]
    assignment = assign_blocks(requests, settings)
    given_out = [held[0] for held in assignment.addresses.values()]
    assert len(given_out) == len(set(given_out)) == len(nodes)
    cidrs = [block.cidr for block in assignment.blocks]
    assert len(cidrs) == len(set(cidrs))
    for request in requests:
        (address,) = assignment.addresses[request.pod]
        (block,) = (b for b in assignment.blocks if ipaddress.ip_address(address) in ipaddress.ip_network(b.cidr))
        borrowed = (address, request.node) in block.borrowed
        assert borrowed == (block.node != request.node)
        if borrowed:  # only when no block was free: all of the pool is claimed
            assert len(assignment.blocks) == 1 << (block_size - 26)


@given(st.lists(st.sampled_from("abcd"), max_size=30))
def test_asking_again_with_the_answer_changes_nothing(nodes):
    settings = CalicoSettings(ip_pools=("10.0.0.0/26",), block_size=29)
    requests = [AddressRequest(f"d/{i}", node) for i, node in enumerate(nodes)]
    once = assign_blocks(requests, settings)
    held = [AddressRequest(r.pod, r.node, once.addresses[r.pod]) for r in requests]
    again = assign_blocks(held, settings, once.blocks)
    assert again.addresses == once.addresses
    assert {(b.cidr, b.node, frozenset(b.borrowed)) for b in again.blocks} == {
        (b.cidr, b.node, frozenset(b.borrowed)) for b in once.blocks
    }
