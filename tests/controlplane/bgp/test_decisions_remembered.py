"""What a speaker remembers of its choices is what it would choose anew."""

from hypothesis import given
from hypothesis import strategies as st

from simnet.controlplane.bgp.decision import Decisions, select_paths
from simnet.controlplane.bgp.path import Learned, Path, Speaker

METRICS = {"10.0.0.1": 0, "10.0.0.2": 0x80000000, "10.0.0.3": None, "10.0.0.4": 0, "10.0.0.5": 0}


@st.composite
def paths_to_one_prefix(draw, *, meds=(None,)):
    """Paths from different peers that differ in few values, so that ties are frequent."""
    peers = draw(st.lists(st.integers(1, 8), unique=True, max_size=6))
    return [
        Path(
            draw(st.sampled_from(sorted(METRICS))),
            draw(st.sampled_from([(7,), (8,), (7, 8), (8, 9)])),
            draw(st.sampled_from([0, 0, 2])),
            draw(st.sampled_from([None, 100, 200])),
            draw(st.sampled_from(meds)),
            draw(st.sampled_from([None, None, 3])),
            draw(st.sampled_from([(), (1,)])),
            draw(st.sampled_from([Learned.INTERNAL, Learned.EXTERNAL])),
            f"peer{peer}",
            draw(st.sampled_from([peer, 5])),
            peer,
        )
        for peer in peers
    ]


@st.composite
def speakers(draw):
    return Speaker("s", 65001, 1, ecmp_width=draw(st.integers(1, 4)), multipath_relax=draw(st.booleans()))


@given(speakers(), st.lists(paths_to_one_prefix(meds=(None, None, None, 0, 1, 2)), max_size=4))
def test_choices_that_are_remembered_are_those_made_anew(speaker, questions):
    decisions = Decisions(speaker, METRICS.__getitem__)
    for paths in [*questions, *questions]:
        assert decisions.choose(paths) == select_paths(speaker, paths, METRICS.__getitem__)


@given(speakers(), paths_to_one_prefix(), paths_to_one_prefix())
def test_a_path_beyond_the_limit_of_a_choice_changes_nothing_when_it_comes_or_goes(speaker, paths, others):
    decisions = Decisions(speaker, METRICS.__getitem__)
    chosen = decisions.choose(paths)
    for other in others:
        if decisions.rank(other) > decisions.limit(chosen) and other.peer not in {path.peer for path in paths}:
            assert decisions.choose([*paths, other]) == chosen
            assert other not in chosen


def test_a_path_before_the_limit_can_change_the_choice():
    """Else the limit above might be anything."""
    speaker = Speaker("s", 65001, 1, ecmp_width=2)
    decisions = Decisions(speaker, METRICS.__getitem__)
    one, two, three = (
        Path(hop, (7,), peer=f"p{n}", peer_router_id=n, learned=Learned.EXTERNAL)
        for n, hop in ((1, "10.0.0.1"), (2, "10.0.0.4"), (3, "10.0.0.5"))
    )
    assert decisions.rank(two) < decisions.limit(decisions.choose([one]))
    assert decisions.rank(three) > decisions.limit(decisions.choose([one, two]))
    assert decisions.rank(one) < decisions.limit(decisions.choose([two, three]))
    assert decisions.rank(one) < decisions.limit(())
