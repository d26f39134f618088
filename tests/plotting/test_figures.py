"""Figures: what they show is what the frames say, with labels and units, and the same bytes each time."""

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from results.synthetic import experiment

from simnet import plotting
from simnet.analysis.result import Result
from simnet.errors import ResultError
from simnet.plotting.figures import rendered
from simnet.plotting.report import report_html
from simnet.results.store import RunDescription


@pytest.fixture(scope="module")
def result() -> Result:
    return Result.from_recordings(experiment(repeats=4, flows=600))


@pytest.fixture(scope="module")
def crowded() -> Result:
    return Result.from_recordings(experiment(repeats=2, flows=1000, node_counts=(16,), pods=40))


DRAWN = {
    "pods": plotting.load_spread,
    "serving nodes": lambda r, **k: plotting.load_spread(r, "serving_node", **k),
    "entry nodes": lambda r, **k: plotting.load_spread(r, "entry_node", **k),
    "hops": plotting.hop_counts,
    "wires of replies": lambda r, **k: plotting.hop_counts(r, "links", direction="reply", **k),
    "efficiency": plotting.efficiency,
    "topology": plotting.topology,
    "delay": plotting.delay_ccdf,
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_a_plot_takes_an_ax_and_returns_it_and_leaves_all_settings_alone(result, draw):
    before = dict(matplotlib.rcParams)
    ax = Figure().add_subplot()
    assert draw(result, ax=ax) is ax
    assert isinstance(draw(result), Axes)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "topology"])
def test_both_axes_are_labelled(result, name):
    ax = DRAWN[name](result)
    assert ax.get_xlabel()
    assert ax.get_ylabel()


@pytest.mark.parametrize("name", ["pods", "entry nodes", "hops", "topology"])
@pytest.mark.parametrize("size", ["small", "crowded"])
def test_no_two_names_overlap_with_2_pods_or_40(result, crowded, name, size):
    ax = DRAWN[name](result if size == "small" else crowded)
    figure = ax.figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [t for t in (*ax.get_xticklabels(), *ax.texts) if t.get_text() and t.get_visible()]
    boxes = [t.get_window_extent(canvas.get_renderer()) for t in texts]
    for i, one in enumerate(boxes):
        for j in range(i):
            shared_x = min(one.x1, boxes[j].x1) - max(one.x0, boxes[j].x0)
            shared_y = min(one.y1, boxes[j].y1) - max(one.y0, boxes[j].y0)
            assert min(shared_x, shared_y) <= 2, (texts[i].get_text(), texts[j].get_text())  # pixels
    assert min(t.get_fontsize() for t in texts) >= 6.5


def test_the_load_plot_shows_the_shares_of_the_frame_and_the_expected_ones(result):
    ax = plotting.load_spread(result, "entry_node", at={"nodes.count": 8})
    container = next(c for c in ax.containers if c.get_label() == "node-port")
    drawn = container.lines[0].get_ydata()
    shares = result.shares("entry_node")
    shares = shares[(shares["nodes.count"] == 8) & (shares["variant"] == "node-port")].set_index("name")
    np.testing.assert_allclose(drawn, 100 * shares.loc[[f"n{i}" for i in range(8)], "share"])
    assert {"expected", "range of chance (95 %)"} <= set(ax.get_legend_handles_labels()[1])


def test_every_pod_has_its_place_even_one_that_got_nothing(crowded):
    ax = plotting.load_spread(crowded)
    assert [t.get_text() for t in ax.get_xticklabels()] == [f"p{i}" for i in range(40)]


def test_hop_bars_are_the_shares_of_the_frame(result):
    ax = plotting.hop_counts(result)
    bars = {c.get_label(): [b.get_height() for b in c] for c in ax.containers if hasattr(c, "patches")}
    shares = result.hop_shares
    for variant, heights in bars.items():
        rows = shares[
            (shares["variant"] == variant) & (shares["nodes.count"] == 4)
            & (shares["measure"] == "l3_hops") & (shares["direction"] == "request")
        ]  # fmt: skip
        np.testing.assert_allclose(heights, 100 * rows.sort_values("count")["share"])
    assert len(bars) == 3


def test_the_topology_writes_the_share_of_packets_on_each_wire(result):
    ax = plotting.topology(result, "external-ip", at={"nodes.count": 4})
    labels = [t.get_text() for t in ax.texts]
    assert labels.count("100 %") == 2  # clients to the switch, switch to the one entry node
    assert labels.count("0") == 3  # the wires of the other nodes
    assert {"clients", "tor", "n0", "n3", "p0", "p1"} <= set(labels)


def test_many_pods_are_drawn_together_under_their_node(crowded):
    labels = [t.get_text() for t in plotting.topology(crowded).texts]
    assert "3 pods on n0" in labels
    assert "p0" not in labels


def test_variants_differ_in_colour_and_in_marker(result):
    ax = plotting.efficiency(result)
    lines = [c.lines[0] for c in ax.containers]
    assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == 3


def test_one_repeat_is_drawn_without_an_interval_and_says_so():
    result = Result.from_recordings(experiment(repeats=1, flows=100, sweep=False, node_counts=(3,)))
    assert "one repeat, no interval" in plotting.load_spread(result).get_title(loc="left")
    assert len(plotting.efficiency_figure(result).axes) == 6


def test_a_sweep_point_that_is_not_there_is_named(result):
    with pytest.raises(ResultError, match=r"no run has nodes.count = 5"):
        plotting.load_spread(result, at={"nodes.count": 5})
    with pytest.raises(ResultError, match=r"replicas is not swept; swept are: nodes\.count"):
        plotting.hop_counts(result, at={"replicas": 5})


def test_a_dollar_sign_in_a_name_is_shown_and_not_read_as_a_formula():
    description, recording = experiment(repeats=1, flows=50, node_counts=(2,))[0]
    named = RunDescription("r", "$x_{$ & <b>", 0, 1, {}, description.manifest)
    result = Result.from_recordings([(named, recording)])
    for draw in DRAWN.values():
        rendered(draw(result).figure, "svg")
    assert "<b>" not in re.sub(r"<style.*?</style>", "", report_html(result), flags=re.S)


def test_saved_figures_are_the_same_bytes_twice_without_a_date(tmp_path):
    result = Result.from_recordings(experiment(repeats=2, flows=100, node_counts=(2,)))
    first = plotting.save_figures(result, tmp_path / "a")
    second = plotting.save_figures(result, tmp_path / "b")
    assert [p.name for p in first] == [p.name for p in second]
    assert {p.suffix for p in first} == {".png", ".svg"}
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
        assert b"dc:date" not in one.read_bytes()


def test_the_report_is_one_file_with_the_answer_the_figures_and_the_limits(tmp_path, result):
    path = plotting.write_report(result, tmp_path / "report.html")
    html = path.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!#)', html.replace('xlink:href="#', ""))  # nothing from outside
    assert "<script" not in html
    assert html.count("<figure>") == html.count("<svg") == 9
    assert "Simulated: no packet was sent anywhere." in html
    assert html.index("What is not modelled") > html.index("Spread of the load")
    for sentence in result.conclusions[:3]:
        assert sentence in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    path.unlink()
    assert plotting.write_report(result, path).read_text(encoding="utf-8") == html
