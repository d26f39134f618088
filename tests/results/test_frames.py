"""Frames have exactly the columns and dtypes that the recording names, with rows or without, stored or not."""

import numpy as np
import pandas as pd
import pytest
from results.synthetic import experiment, flows_table, packets_table

from simnet.analysis.dictionary import text
from simnet.analysis.result import Result
from simnet.errors import ResultError
from simnet.model.recording import FLOWS, TABLES, Categories, Recording
from simnet.results.frames import columns_of, frame, frames
from simnet.results.store import RunDescription


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_recording_gives_an_empty_frame_with_all_columns(name):
    made = frames(Recording({}))[name]
    assert len(made) == 0
    assert [(c, str(t)) for c, t in made.dtypes.items()] == [(c.name, c.dtype) for c in TABLES[name]]


def test_a_frame_has_the_dtypes_of_its_definition():
    made = frame("flows", flows_table([{}, {"pod": "default/p1"}]))
    assert [(c, str(t)) for c, t in made.dtypes.items()] == [(c.name, c.dtype) for c in FLOWS]
    assert list(made["pod"]) == ["default/p0", "default/p1"]
    assert list(made["reason"]) == ["", ""]


def test_a_frame_can_be_changed_without_changing_the_recording():
    data = flows_table([{}])
    made = frame("flows", data)
    made.loc[0, "delay_ps"] = 5
    assert data["delay_ps"][0] == 15_000_000


def test_columns_go_to_a_frame_and_back():
    data = flows_table([{}, {"pod": "default/p1", "reason": "no route"}])
    again = columns_of(frame("flows", data), FLOWS)
    for name, column in data.items():
        if isinstance(column, Categories):
            other = again[name]
            assert [column.names[c] for c in column.codes] == [other.names[c] for c in other.codes]
        else:
            np.testing.assert_array_equal(column, again[name])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: d.pop("pod"), "columns differ from the table's definition: pod"),
        (lambda d: d.update(colour=d["pod"]), "columns differ from the table's definition: colour"),
        (lambda d: d.update(pod=np.zeros(1)), "column pod needs names, it holds float64"),
        (lambda d: d.update(l3_hops=d["pod"]), "column l3_hops holds names, its definition says int16"),
        (lambda d: d.update(l3_hops=np.array([70_000])), "column l3_hops does not fit int16"),
        (lambda d: d.update(pod=Categories(np.array([7], np.int32), ("",))), "column pod has a code without a name"),
    ],
)
def test_a_column_that_is_not_as_defined_is_named(change, message):
    data = flows_table([{}])
    change(data)
    with pytest.raises(ResultError) as caught:
        frame("flows", data)
    assert str(caught.value) == message


def test_columns_of_different_length_are_refused():
    data = flows_table([{}])
    data["delay_ps"] = np.zeros(2, np.int64)
    with pytest.raises(ResultError, match="differ in length"):
        frame("flows", data)


def test_a_result_puts_run_variant_repeat_and_the_swept_variables_first():
    result = Result.from_recordings(experiment(repeats=2, flows=50))
    for made in (result.flows, result.packets, result.load, result.hops, result.index):
        assert list(made.columns[:4]) == ["run", "variant", "repeat", "nodes.count"]
        assert [str(t) for t in made.dtypes[:4]] == ["category", "category", "int32", "int64"]
    assert len(result.flows) == 2 * 3 * 2 * 50
    assert str(result.packets["delay_ps"].dtype) == "int64"


def test_a_swept_variable_of_mixed_types_becomes_text():
    recording = Recording({"flows": flows_table([{}])})
    runs = [(RunDescription(f"r{i}", "v", i, 1, {"x": x}), recording) for i, x in enumerate([1, "two"])]
    assert list(Result.from_recordings(runs).flows["x"]) == ["1", "two"]


def test_the_result_prints_one_line_and_escapes_names_in_a_notebook():
    description = RunDescription("r", "<script>alert(1)</script>", 0, 1)
    result = Result.from_recordings([(description, experiment(repeats=1, flows=20)[0][1])])
    assert "\n" not in repr(result)
    assert "<script>" not in result._repr_html_()


def test_links_have_their_two_ends():
    result = Result.from_recordings(experiment(repeats=1, flows=20, node_counts=(2,)))
    row = result.links.iloc[0]
    assert (row["name"], row["a"], row["b"]) == ("clients->tor", "clients", "tor")


def test_the_data_dictionary_is_up_to_date(repository):
    written = (repository / "docs" / "data-dictionary.md").read_text(encoding="utf-8")
    assert written == text(), "run: python -m simnet.analysis.dictionary > docs/data-dictionary.md"


def test_packets_have_their_dtypes():
    made = frame("packets", packets_table(10))
    assert [str(t) for t in made.dtypes] == [c.dtype for c in TABLES["packets"]]
    assert isinstance(made["pod"].dtype, pd.CategoricalDtype)
