"""The order in which BIRD prefers paths, and what a speaker passes on."""

from dataclasses import replace

import pytest

from simnet.controlplane.bgp.decision import Decisions, select_paths
from simnet.controlplane.bgp.path import Learned, Path, Peering, Speaker, Withheld
from simnet.controlplane.bgp.policy import CALICO_LOCAL_PREF, export_path, import_path

SPEAKER = Speaker("s", 65001, 1)
BASE = Path("10.0.0.11", (64512,), local_pref=100, learned=Learned.EXTERNAL, peer="a", peer_router_id=5, peer_address=5)


def connected(_next_hop):
    return 0


@pytest.mark.parametrize(
    "better, worse",
    [
        (replace(BASE, learned=Learned.LOCAL, as_path=(1, 2, 3)), replace(BASE, local_pref=500)),
        (replace(BASE, local_pref=200, as_path=(1, 2, 3)), BASE),
        (replace(BASE, as_path=(1,), origin=2), replace(BASE, as_path=(1, 2))),
        (replace(BASE, origin=0, med=9), replace(BASE, origin=1)),
        (replace(BASE, med=1, learned=Learned.INTERNAL), replace(BASE, med=2)),
        (replace(BASE, peer_router_id=9), replace(BASE, learned=Learned.INTERNAL)),
        (replace(BASE, peer_router_id=4, peer_address=9), BASE),
        (replace(BASE, originator_id=3, peer_router_id=9), replace(BASE, peer_router_id=4)),
        (replace(BASE, originator_id=3), replace(BASE, originator_id=3, cluster_list=(1,), peer_address=1)),
        (replace(BASE, peer_address=4), BASE),
    ],
)
def test_each_step_of_birds_order_decides_before_the_next(better, worse):
    for paths in ([better, worse], [worse, better]):
        assert select_paths(SPEAKER, paths, connected)[0] == better


def test_med_is_compared_between_paths_of_one_neighbour_as_only():
    low, high = replace(BASE, as_path=(7,), med=1, peer_router_id=9), replace(BASE, as_path=(8,), med=5)
    assert select_paths(SPEAKER, [low, high], connected)[0] == high  # the router id decides


def test_a_connected_next_hop_beats_one_behind_a_gateway_and_an_unreachable_one_is_out():
    near, far = replace(BASE, peer_router_id=9), replace(BASE, next_hop="10.9.9.9")
    gone = replace(BASE, next_hop="10.8.8.8", local_pref=900)
    metric = {"10.0.0.11": 0, "10.9.9.9": 0x80000000}.get
    assert select_paths(SPEAKER, [far, gone, near], metric) == (near,)
    assert select_paths(SPEAKER, [gone], metric) == ()


def test_equal_paths_are_merged_up_to_the_width_and_without_relax_only_of_one_as_path():
    paths = [replace(BASE, next_hop=f"10.0.0.{11 + i}", as_path=(64512 + i % 2,), peer_router_id=i) for i in range(5)]
    assert [path.peer_router_id for path in select_paths(replace(SPEAKER, ecmp_width=3), paths, connected)] == [0, 1, 2]
    strict = replace(SPEAKER, multipath_relax=False)
    assert [path.peer_router_id for path in select_paths(strict, paths, connected)] == [0, 2, 4]


def peering(**fields):
    known = {"remote_as": 64512, "is_internal": False}
    return Peering("s", "b", "10.0.0.1", "10.0.0.12", **{**known, **fields})


def test_the_ecmp_width_bounds_next_hops_and_not_paths():
    """A real BIRD with `merge paths limit 2`, told the first next hop by two reflectors."""
    first, again, other, third = (
        replace(BASE, next_hop=hop, peer=f"p{i}", peer_router_id=i)
        for i, hop in enumerate(("10.0.0.11", "10.0.0.11", "10.0.0.13", "10.0.0.14"))
    )
    chosen = select_paths(replace(SPEAKER, ecmp_width=2), [third, other, again, first], lambda _: 0)
    assert chosen == (first, again, other)
    assert Decisions(replace(SPEAKER, ecmp_width=2), lambda _: 0).choose([third, other, again, first]) == chosen


def test_to_an_external_peer_the_speaker_is_the_next_hop_and_its_as_comes_first():
    told = export_path(SPEAKER, peering(), BASE)
    assert (told.next_hop, told.as_path, told.local_pref) == ("10.0.0.1", (65001, 64512), None)


def test_a_third_party_next_hop_is_kept_on_a_shared_segment_only():
    shared = peering(keeps_third_party=True, shared=frozenset({"10.0.0.11"}))
    assert export_path(SPEAKER, shared, BASE).next_hop == "10.0.0.11"
    assert export_path(SPEAKER, replace(shared, shared=frozenset()), BASE).next_hop == "10.0.0.1"


def test_what_an_internal_peer_told_goes_to_internal_peers_through_a_reflector_only():
    learned = replace(BASE, learned=Learned.INTERNAL, from_client=True)
    inside = peering(is_internal=True)
    assert isinstance(export_path(SPEAKER, inside, learned), Withheld)
    reflected = export_path(replace(SPEAKER, cluster_id=7), inside, learned)
    assert (reflected.originator_id, reflected.cluster_list, reflected.next_hop) == (5, (7,), "10.0.0.11")
    between = replace(learned, from_client=False)
    assert isinstance(export_path(replace(SPEAKER, cluster_id=7), inside, between), Withheld)


def test_calicos_own_routes_have_its_local_pref_inside_the_as():
    told = export_path(SPEAKER, peering(is_internal=True), Path())
    assert (told.local_pref, told.next_hop) == (CALICO_LOCAL_PREF, "10.0.0.1")
    assert CALICO_LOCAL_PREF == 2147483647 - 1024


def test_a_path_is_never_told_to_whom_it_came_from():
    assert isinstance(export_path(SPEAKER, peering(), replace(BASE, peer="b")), Withheld)


@pytest.mark.parametrize(
    "path, reason",
    [
        (replace(BASE, as_path=(65001,)), "own AS 65001 in AS_PATH (RFC 4271, 9.1.2)"),
        (replace(BASE, originator_id=1), "own router id in ORIGINATOR_ID (RFC 4456, 8)"),
        (replace(BASE, cluster_list=(7,)), "own cluster id in CLUSTER_LIST (RFC 4456, 8)"),
    ],
)
def test_a_loop_is_not_taken(path, reason):
    me, sender = replace(SPEAKER, cluster_id=7), Speaker("b", 64512, 2)
    assert import_path(me, peering(remote_is_client=True), sender, path) == Withheld(reason)
    assert isinstance(import_path(me, peering(allowed_own_as=1), sender, replace(BASE, as_path=(65001,))), Path)
