"""Flows and packets.

Equal to the plain loop, whatever the windows; common to all variants; the same bytes everywhere.
"""

import numpy as np
import pytest
from digests import printed_by, vector_features_found
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import workload as one_by_one
from workload.specifications import MS, RECORDED, WORKLOADS, instants_ps, seeds

from simnet.model.workload import (
    ClientPopulation,
    Constant,
    EntryChoice,
    EntryChoiceKind,
    Exponential,
    FlowShape,
    KeepAlive,
    Pareto,
    Poisson,
    Workload,
    Zipf,
)
from simnet.workload.generation import flows_in_window, generator, packets_of, start_of_run

workloads = st.sampled_from(sorted(WORKLOADS)).map(WORKLOADS.__getitem__)
choices = st.sampled_from(
    [
        (EntryChoice(), None),
        (EntryChoice(EntryChoiceKind.ROUND_ROBIN), None),
        (EntryChoice(EntryChoiceKind.PER_CLIENT), None),
        (EntryChoice(EntryChoiceKind.FIXED, "worker-2"), 2),
    ]
)
AT_RANDOM = EntryChoice()

FLOW_COLUMNS = ("flow_id", "start_ps", "client", "source_port", "protocol", "target", "packet_count", "first_packet")
PACKET_COLUMNS = ("flow", "arrival_ps", "size_bytes", "reply_size_bytes")


def in_windows(workload, seed, ends_ps, limit, choice=AT_RANDOM, fixed_target=None, target_count=5):
    """All columns of flows and packets, as windows ending at `ends_ps` and of at most `limit` flows yield them."""
    made, state = generator(workload), start_of_run(workload)
    flow_parts, packet_parts = [], []
    for until_ps in ends_ps:
        while True:
            flows, state = flows_in_window(
                made,
                seed,
                state,
                until_ps=until_ps,
                limit=limit,
                choice=choice,
                target_count=target_count,
                fixed_target=fixed_target,
            )
            packets = packets_of(made, seed, flows)
            assert not len(flows) or packets.first_packet_id == flows.first_packet[0]
            flow_parts.append([getattr(flows, name) for name in FLOW_COLUMNS])
            packet_parts.append(
                [flows.flow_id[packets.flow].astype(np.int64)] + [getattr(packets, name) for name in PACKET_COLUMNS[1:]]
            )
            if len(flows) < limit:
                break
    flow_columns = [np.concatenate(parts) for parts in zip(*flow_parts, strict=True)]
    packet_columns = [np.concatenate(parts) for parts in zip(*packet_parts, strict=True)]
    return dict(zip(FLOW_COLUMNS, flow_columns, strict=True)), dict(zip(PACKET_COLUMNS, packet_columns, strict=True))


@settings(deadline=None)
@given(workloads, seeds, instants_ps, choices)
def test_flows_and_packets_agree_with_drawing_them_one_by_one(workload, seed, until_ps, choice_and_target):
    choice, fixed_target = choice_and_target
    flows, packets = in_windows(workload, seed, [until_ps], 10**6, choice, fixed_target)
    expected = one_by_one.generate(
        generator(workload), seed, until_ps=until_ps, choice=choice, target_count=5, fixed_target=fixed_target
    )
    for name in FLOW_COLUMNS:
        if name == "protocol":
            assert (flows[name] == workload.protocol).all()
        else:
            assert flows[name].tolist() == [getattr(flow, name) for flow in expected], name
    rows = [(flow.flow_id, *packet) for flow in expected for packet in flow.packets]
    assert list(zip(*(packets[name].tolist() for name in PACKET_COLUMNS), strict=True)) == rows


@settings(deadline=None)
@given(workloads, seeds, st.lists(instants_ps, max_size=6), st.integers(1, 40))
def test_where_windows_are_cut_makes_no_difference(workload, seed, cuts_ps, limit):
    whole_flows, whole_packets = in_windows(workload, seed, [60 * MS], 10**6)
    flows, packets = in_windows(workload, seed, [*sorted(cuts_ps), 60 * MS], limit)
    for name in FLOW_COLUMNS:
        np.testing.assert_array_equal(flows[name], whole_flows[name], err_msg=name)
    for name in PACKET_COLUMNS:
        np.testing.assert_array_equal(packets[name], whole_packets[name], err_msg=name)


def test_a_flow_longer_than_a_block_is_whole():
    workload = Workload(
        Poisson(1000.0), ClientPopulation(2), FlowShape(Constant(50_000), Constant(100), Exponential(5e8))
    )
    flows, packets = in_windows(workload, 4, [3 * MS], 10)
    expected = one_by_one.generate(generator(workload), 4, until_ps=3 * MS, choice=EntryChoice(), target_count=5)
    assert len(expected) > 1
    assert packets["arrival_ps"].tolist() == [row[0] for flow in expected for row in flow.packets]
    assert np.bincount(packets["flow"]).tolist() == [50_000] * len(expected)
    assert flows["first_packet"].tolist() == [50_000 * number for number in range(len(expected))]


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_columns_have_their_types_and_orders(workload):
    made = generator(workload)
    flows, _ = flows_in_window(
        made, 1, start_of_run(workload), until_ps=60 * MS, limit=10**6, choice=EntryChoice(), target_count=3
    )
    packets = packets_of(made, 1, flows)
    types = {name: getattr(flows, name).dtype.name for name in FLOW_COLUMNS}
    assert types == {
        "flow_id": "uint64",
        "start_ps": "int64",
        "client": "int32",
        "source_port": "uint16",
        "protocol": "uint8",
        "target": "int32",
        "packet_count": "int32",
        "first_packet": "int64",
    }
    assert {name: getattr(packets, name).dtype.name for name in PACKET_COLUMNS} == {
        "flow": "int32",
        "arrival_ps": "int64",
        "size_bytes": "int32",
        "reply_size_bytes": "int32",
    }
    assert len(flows) > 5
    assert (np.diff(flows.start_ps) >= 0).all()
    assert (np.diff(packets.flow) >= 0).all()
    same_flow = np.diff(packets.flow) == 0
    assert (np.diff(packets.arrival_ps)[same_flow] >= 0).all()
    np.testing.assert_array_equal(packets.arrival_ps[flows.first_packet], flows.start_ps)
    np.testing.assert_array_equal(np.bincount(packets.flow), flows.packet_count)
    assert len(packets) == flows.packet_count.sum()


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_variants_meet_the_same_flows_and_packets_whatever_their_entry(workload):
    flows, packets = in_windows(workload, 9, [40 * MS], 10**6, EntryChoice(), None, target_count=2)
    other_flows, other_packets = in_windows(
        workload, 9, [40 * MS], 10**6, EntryChoice(EntryChoiceKind.PER_CLIENT), None, target_count=16
    )
    for name in FLOW_COLUMNS:
        if name != "target":
            np.testing.assert_array_equal(flows[name], other_flows[name], err_msg=name)
    for name in PACKET_COLUMNS:
        np.testing.assert_array_equal(packets[name], other_packets[name], err_msg=name)


def test_changing_one_part_of_a_workload_leaves_the_others_as_they_were():
    before = Workload(
        Poisson(2000.0),
        ClientPopulation(50, skew=Zipf(1.1)),
        FlowShape(Pareto(12.0, 1.5), Constant(1000), Constant(MS)),
    )
    after = Workload(
        Poisson(2000.0),
        ClientPopulation(50, skew=Zipf(1.1)),
        FlowShape(Constant(2), Pareto(500.0, 1.5), Exponential(1e9)),
    )
    flows, _ = in_windows(before, 3, [60 * MS], 10**6)
    other_flows, _ = in_windows(after, 3, [60 * MS], 10**6)
    for name in ("flow_id", "start_ps", "client", "source_port", "target"):
        np.testing.assert_array_equal(flows[name], other_flows[name], err_msg=name)
    assert (flows["packet_count"] != other_flows["packet_count"]).any()


def test_the_requests_of_a_pool_stay_the_same_however_many_a_connection_carries():
    shape = FlowShape(Constant(1), Pareto(500.0, 1.5), Exponential(1e9), Exponential(800.0))
    seen = []
    for limits in ({"requests_per_connection": 1}, {"requests_per_connection": 9}, {"max_age_ps": 5 * MS}, {}):
        pool = KeepAlive(3, 50 * MS, **limits)
        flows, packets = in_windows(Workload(pool, ClientPopulation(4), shape), 3, [60 * MS], 100)
        client = flows["client"][packets["flow"]]
        order = np.lexsort((client, packets["arrival_ps"]))
        columns = (client, packets["arrival_ps"], packets["size_bytes"], packets["reply_size_bytes"])
        seen.append([column[order].tolist() for column in columns])
        assert packets["arrival_ps"].max() < 50 * MS
    assert all(each == seen[0] for each in seen[1:])


def test_pools_without_any_time_between_requests_are_refused():
    workload = Workload(KeepAlive(1, MS), ClientPopulation(1), FlowShape(Constant(1), Constant(100), Constant(0)))
    with pytest.raises(ValueError, match="gap: mean is 0"):
        generator(workload)


def test_another_seed_gives_other_flows():
    workload = WORKLOADS["poisson, heavy tails"]
    flows, _ = in_windows(workload, 1, [60 * MS], 10**6)
    other_flows, _ = in_windows(workload, 2, [60 * MS], 10**6)
    assert not np.isin(flows["start_ps"], other_flows["start_ps"]).any()


def test_a_recorded_trace_comes_back_as_it_was_recorded():
    flows, packets = in_windows(WORKLOADS["a trace with all columns"], 1, [31 * MS], 10**6)
    np.testing.assert_array_equal(flows["start_ps"], RECORDED.start_ps)
    np.testing.assert_array_equal(flows["client"], RECORDED.client)
    np.testing.assert_array_equal(flows["packet_count"], RECORDED.packet_count)
    np.testing.assert_array_equal(packets["size_bytes"], np.repeat(RECORDED.packet_size_bytes, RECORDED.packet_count))


def test_a_run_of_long_rare_flows_stays_inside_the_clock():
    # Mean gap 1,000 s between flows, 100 s between packets, 40 days.
    workload = Workload(Poisson(0.001), ClientPopulation(1), FlowShape(Constant(20), Constant(100), Exponential(1e14)))
    end_ps = 40 * 86_400 * 10**12
    flows, packets = in_windows(workload, 1, [end_ps], 10**6)
    assert abs(flows["start_ps"].size - 3456) < 4 * 3456**0.5
    assert (np.diff(flows["start_ps"]) > 0).all()
    assert (np.diff(packets["arrival_ps"])[np.diff(packets["flow"]) == 0] >= 0).all()


def test_a_mean_gap_that_may_outlast_the_clock_is_refused_with_its_reason():
    shape = FlowShape(Pareto(12.0, 1.5), Constant(100), Exponential(1e14))
    with pytest.raises(ValueError) as refusal:
        generator(Workload(Poisson(1.0), ClientPopulation(1), shape))
    assert str(refusal.value) == "gap: mean is 1e+14, expected above 0 and below 4611686018427"


DIGEST_OF_A_WORKLOAD = """
import hashlib
from simnet.workload.generation import flows_in_window, generator, packets_of, start_of_run
from simnet.model.workload import EntryChoice
from workload.specifications import MS, WORKLOADS
digest = hashlib.sha256()
for workload in WORKLOADS.values():
    made = generator(workload)
    flows, _ = flows_in_window(made, 1, start_of_run(workload), until_ps=2000 * MS, limit=4000,
                               choice=EntryChoice(), target_count=7)
    packets = packets_of(made, 1, flows)
    for column in (flows.start_ps, flows.client, flows.source_port, flows.target, flows.packet_count,
                   packets.flow, packets.arrival_ps, packets.size_bytes, packets.reply_size_bytes):
        digest.update(column.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.digest
def test_flows_and_packets_are_the_same_bytes_with_vector_instructions_on_and_off():
    features = vector_features_found()
    if not features:
        pytest.skip("numpy uses no vector instructions above its baseline on this machine")
    everything_on = printed_by(DIGEST_OF_A_WORKLOAD, without_features=[])
    for without in (features, features[1:]):
        assert printed_by(DIGEST_OF_A_WORKLOAD, without_features=without) == everything_on
