"""The summary of recordings whose answers are known: by hand, or from the shares they were drawn from."""

import re

import numpy as np
import pandas as pd
import pytest
from reference import statistics as reference
from results.synthetic import DEFAULTS, drawn_run, experiment, flows_table, hops_table, load_table
from scipy import stats

from simnet.analysis import closed_forms
from simnet.analysis.differences import number, paired_differences
from simnet.analysis.findings import QUESTIONS, conclusions
from simnet.analysis.measures import MEASURES, measure_run
from simnet.analysis.result import Result
from simnet.analysis.summary import measure_frames, summarise
from simnet.model.recording import Recording
from simnet.results.store import RunDescription

LOST = {
    "verdict": "lost", "reason": "no route", "answered": False, "pod": "", "serving_node": "", "snat": True,
    "cross_node": True,
    "source_hidden": True, "packets_delivered": 0, "packets_lost": 4, "delay_ps": -1, "round_trip_ps": -1,
    "reply_l3_hops": -1, "reply_links": -1, "reply_packets": 0, "l3_hops": 9, "links": 9,
}  # fmt: skip
ROWS = [
    {},
    {"pod": "default/p1", "serving_node": "B", "cross_node": True, "l3_hops": 4, "links": 5, "reply_l3_hops": 4,
     "reply_links": 5, "delay_ps": 35_000_000, "round_trip_ps": 70_000_000, "bytes_sent": 12_000},
    {"snat": False, "source_hidden": False, "rules_scanned": 40, "delay_ps": 25_000_000},
    LOST,
    {"warmup": True, "l3_hops": 99, "rules_scanned": 9999, "delay_ps": 10**12},
]  # fmt: skip
LOAD = {"pod": {"default/p0": 2, "default/p1": 1, "default/p2": 0}, "serving_node": {"A": 2, "B": 1},
        "entry_node": {"A": 3, "B": 0}}  # fmt: skip


def by_hand() -> Recording:
    flows = flows_table(ROWS)
    return Recording({"flows": flows, "load": load_table(LOAD), "hops": hops_table(flows)})


def test_every_measure_has_a_value_and_a_description():
    assert list(measure_run(by_hand())) == [column.name for column in MEASURES]


@pytest.mark.parametrize(
    "measure, expected",
    [
        ("flows", 4), ("delivered_share", 0.75), ("answered_share", 0.75), ("packets_sent", 16),
        ("packets_delivered", 12), ("packets_lost", 4), ("packets_dropped", 0), ("failed_no_route", 1),
        ("failed_blackhole", 0), ("l3_hops_mean", 8 / 3), ("l3_hops_p50", 2), ("l3_hops_max", 4),
        ("links_mean", 11 / 3), ("reply_l3_hops_mean", 8 / 3), ("reply_links_max", 5), ("nat_hops_mean", 2),
        ("cross_node_share", 1 / 3), ("cross_node_bytes_share", 0.6), ("snat_share", 2 / 3),
        ("source_hidden_share", 2 / 3), ("rules_scanned_mean", 25), ("delay_p50_us", 25),
        ("delay_p99_us", 25 + 0.98 * 10), ("round_trip_p50_us", 30), ("pod_count", 3), ("pod_connections", 3),
        ("pod_cov", np.sqrt(2 / 3)), ("pod_noise_floor", np.sqrt(2 / 3)), ("pod_jain", 9 / 15),
        ("pod_max_over_mean", 2), ("pod_min_over_mean", 0), ("entry_node_cov", 1), ("entry_node_jain", 0.5),
        ("serving_node_cov", 1 / 3), ("reply_packets", 12),
    ],
)  # fmt: skip
def test_a_run_of_five_flows_has_the_figures_computed_by_hand(measure, expected):
    assert measure_run(by_hand())[measure] == pytest.approx(expected, rel=1e-12)


def test_a_run_agrees_with_counting_flow_by_flow():
    rng = np.random.default_rng(4)
    rows = [dict(ROWS[i]) | {"rules_scanned": int(rng.integers(5, 90))} for i in rng.integers(0, 5, 300)]
    flows = [DEFAULTS | row for row in rows]
    measured = measure_run(Recording({"flows": flows_table(rows), "load": load_table(LOAD)}))
    for name in ("cross_node", "snat", "source_hidden"):
        assert measured[f"{name}_share"] == pytest.approx(reference.share(flows, name, "delivered"))
    for name in ("l3_hops", "links", "nat_hops"):
        assert measured[f"{name}_mean"] == pytest.approx(reference.mean(flows, name, where="delivered"))
    assert measured["reply_links_mean"] == pytest.approx(reference.mean(flows, "reply_links", where="answered"))
    assert measured["failed_no_route"] == reference.failures(flows)["no route"]
    counted = [f["rules_scanned"] for f in flows if not f["warmup"]]
    assert measured["rules_scanned_mean"] == pytest.approx(np.mean(counted))


def test_a_run_without_a_delivered_flow_has_no_hops_and_no_shares_but_counts_its_losses():
    recording = Recording({"flows": flows_table([LOST, LOST]), "load": load_table({"pod": {"default/p0": 0}})})
    measured = measure_run(recording)
    assert measured["delivered_share"] == 0
    assert measured["failed_no_route"] == 2
    for name in ("l3_hops_mean", "cross_node_share", "snat_share", "delay_p50_us", "pod_cov", "pod_jain"):
        assert np.isnan(measured[name]), name


@pytest.fixture(scope="module")
def result() -> Result:
    return Result.from_recordings(experiment(repeats=10, flows=2000))


def test_the_summary_has_a_row_per_variant_and_sweep_point_in_the_experiments_order(result):
    assert list(zip(result.summary["nodes.count"], result.summary["variant"].astype(str), strict=True)) == [
        (n, v) for n in (4, 8) for v in ("external-ip", "node-port", "cluster-ip")
    ]
    assert (result.summary["repeats"] == 10).all()


def test_cross_node_shares_are_within_four_standard_errors_of_the_closed_form(result):
    for row in result.summary.to_dict("records"):
        n = row["nodes.count"]
        endpoints = [1, 1] + [0] * (n - 2)
        entry = [1.0] + [0.0] * (n - 1) if row["variant"] == "external-ip" else [1 / n] * n
        expected = closed_forms.cluster_cross_node_share(entry, endpoints)
        error = np.sqrt(expected * (1 - expected) / row["flows"])
        assert abs(row["cross_node_share"] - expected) < 4 * error


def test_intervals_are_students_over_the_runs(result):
    point = result.measures[(result.measures["variant"] == "node-port") & (result.measures["nodes.count"] == 8)]
    row = result.summary[(result.summary["variant"] == "node-port") & (result.summary["nodes.count"] == 8)].iloc[0]
    for name in ("l3_hops_mean", "delay_p50_us", "rules_scanned_mean", "pod_max_over_mean"):
        if point[name].std() == 0:
            assert row[f"{name}_low"] == row[f"{name}_high"] == row[name]
            continue
        low, high = stats.t.interval(0.95, 9, point[name].mean(), stats.sem(point[name]))
        np.testing.assert_allclose([row[f"{name}_low"], row[f"{name}_high"]], [low, high], rtol=1e-9)


def test_a_share_that_never_varied_gets_wilsons_bounds_and_not_certainty(result):
    row = result.summary.iloc[0]
    assert row["snat_share"] == row["snat_share_high"] == 1
    expected = stats.binomtest(20_000, 20_000).proportion_ci(0.95, method="wilson").low
    assert row["snat_share_low"] == pytest.approx(expected)


def test_one_repeat_has_figures_and_no_interval():
    summary = Result.from_recordings(experiment(repeats=1)).summary
    assert summary["l3_hops_mean"].notna().all()
    ends = [name for name in summary.columns if name.endswith(("_low", "_high"))]
    assert ends
    assert summary[ends].isna().all().all()


def test_the_chi_square_of_all_repeats_is_that_of_their_sums(result):
    runs = result.measures[(result.measures["variant"] == "node-port") & (result.measures["nodes.count"] == 4)]
    expected = stats.chi2.sf(runs["pod_chi2"].sum(), runs["pod_chi2_df"].sum())
    assert result.summary.iloc[1]["pod_chi2_p"] == pytest.approx(expected)


def test_frames_and_recordings_give_the_same_measures(result):
    again = measure_frames(result.flows, result.load, result.sweep)
    pd.testing.assert_frame_equal(
        again.drop(columns=["run", "variant"]),
        result.measures.drop(columns=["run", "variant"]),
        check_dtype=False,
    )


def test_hop_shares_add_up_to_one_and_know_the_two_ways(result):
    shares = result.hop_shares
    of_hops = shares[(shares["measure"] == "l3_hops") & (shares["direction"] == "request")]
    assert set(of_hops["count"]) == {2, 4}
    np.testing.assert_allclose(of_hops.groupby(["variant", "nodes.count"], observed=True)["share"].sum(), 1)


def test_names_that_got_nothing_are_in_the_shares_with_zero(result):
    shares = result.shares("entry_node")
    external = shares[(shares["variant"] == "external-ip") & (shares["nodes.count"] == 8)]
    assert len(external) == 8
    assert sorted(external["share"]) == [0] * 7 + [1]
    assert (external["share"] == external["expected_share"]).all()


def test_differences_are_paired_by_repeat(result):
    rows = result.differences
    row = rows[(rows["measure"] == "l3_hops_mean") & (rows["a"] == "external-ip") & (rows["b"] == "node-port")].iloc[0]
    runs = result.measures[result.measures["nodes.count"] == 4].set_index("repeat")
    a, b = (runs[runs["variant"] == v]["l3_hops_mean"] for v in ("external-ip", "node-port"))
    expected = stats.ttest_rel(a, b)
    assert row["p"] == pytest.approx(expected.pvalue, rel=1e-6)
    assert row["difference"] == pytest.approx((a - b).mean())
    assert row["verdict"].startswith("external-ip lower by 0.")


def test_p_values_are_adjusted_over_all_pairs_and_sweep_points_of_a_measure(result):
    for _, rows in result.differences.groupby("measure"):
        order = np.argsort(rows["p"], kind="stable")
        stepped = np.minimum(1, np.maximum.accumulate(rows["p"].to_numpy()[order] * np.arange(len(rows), 0, -1)))
        np.testing.assert_allclose(rows["p_holm"].to_numpy()[order], stepped)
        assert len(rows) == 6  # three pairs at two sweep points


def test_equal_variants_are_told_apart_in_no_more_than_one_of_twenty_experiments():
    """Two variants of the same shares: Holm keeps the chance of any false winner of a measure under 5 %."""
    false_winners = 0
    for experiment_number in range(60):
        runs = []
        for variant in ("a", "b"):
            for repeat in range(6):
                seed = 10_000 * experiment_number + 100 * repeat + (variant == "b")
                run = drawn_run(seed=seed, flows=200, entry={"A": 0.5, "B": 0.5}, pods_on={"A": 1, "B": 1})
                runs.append((RunDescription(f"{variant}{repeat}", variant, repeat, seed), run))
        differences = paired_differences(Result.from_recordings(runs).measures, compared=["l3_hops_mean"])
        false_winners += not differences["verdict"].iloc[0].startswith("no difference")
    assert false_winners <= 60 * 0.05 + 4 * np.sqrt(60 * 0.05 * 0.95)


def test_conclusions_name_the_winner_the_size_and_the_interval(result):
    text = conclusions(result.summary, result.differences)
    assert len(text) == len(QUESTIONS)
    assert re.search(r"external-ip is lower than node-port by 0\.\d+.* at 2 of 2 sweep points \(95 % CI 0\.", text[0])
    by_title = {line.partition(":")[0]: line for line in text}
    rules = by_title["Iptables rules scanned for a new connection"]
    assert "external-ip and node-port are equal in every repeat" in rules
    snat = by_title["Share of flows with the source rewritten (SNAT)"]
    assert "cluster-ip is lower than external-ip by 100 % at 2 of 2 sweep points" in snat
    assert "no difference between" in by_title["Load spread over pods (CoV)"]


def test_conclusions_claim_nothing_from_one_repeat():
    result = Result.from_recordings(experiment(repeats=1, sweep=False, node_counts=(4,)))
    text = result.conclusions
    assert text[0] == "There is one repeat: the figures have no interval, so no difference can be claimed."
    assert not any(re.search("lower|difference|equal", line) for line in text[1:])


def test_conclusions_say_first_which_flows_got_no_answer():
    runs = [
        (RunDescription(f"{v}{r}", v, r, r), Recording({"flows": flows_table(rows), "load": load_table(LOAD)}))
        for v, rows in (("local", [{}, {}, LOST, LOST]), ("cluster", [{}] * 4))
        for r in range(3)
    ]
    result = Result.from_recordings(runs)
    assert result.conclusions[0].startswith("local: 50 % of the flows got no answer")
    assert result.conclusions[-1].startswith(
        "Share of flows answered: local 50 %, cluster 100 % - local is lower than cluster by 50 %"
    )


@pytest.mark.parametrize(
    "value, text",
    [
        (0.0, "0"),
        (3.0, "3"),
        (0.49341, "0.493"),
        (123456.0, "123456"),
        (0.00012, "0.00012"),
        (-2.5, "-2.5"),
        (1e9, "1e+09"),
    ],
)
def test_figures_have_three_digits(value, text):
    assert number(value) == text


def test_summarise_keeps_sweep_points_apart_even_where_a_variable_is_text():
    recording = by_hand()
    runs = [
        (RunDescription(f"{p}{r}", "x", r, r, {"externalTrafficPolicy": p, "replicas": n}), recording)
        for r, (p, n) in enumerate([("Cluster", 2), ("Local", 2), ("Cluster", 6)])
    ]
    summary = summarise(Result.from_recordings(runs).measures, ["externalTrafficPolicy", "replicas"])
    assert list(zip(summary["externalTrafficPolicy"], summary["replicas"], strict=True)) == [
        ("Cluster", 2), ("Local", 2), ("Cluster", 6),
    ]  # fmt: skip
