"""The result folder: whole or absent, the same bytes each time, and no damage that goes unnoticed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from results.synthetic import experiment, packets_table

from simnet.analysis.measures import measure_run
from simnet.analysis.result import Result, load_results
from simnet.errors import ResultError
from simnet.model.recording import FLOWS, PACKETS, Categories
from simnet.results.parquet import PacketWriter
from simnet.results.store import (
    RunWriter,
    clean_leftovers,
    finished_runs,
    is_finished,
    write_index,
    write_run,
)


def written(folder, *, measures=True, **options):
    runs = experiment(repeats=2, flows=300, **options)
    for description, recording in runs:
        write_run(folder, description, recording, measures=measure_run(recording) if measures else None)
    write_index(folder, [description.id for description, _ in runs])
    return runs


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_figures_of_an_older_version_without_flows_stay_and_what_it_did_not_measure_is_unknown(tmp_path):
    runs = experiment(repeats=1, flows=50)
    for description, recording in runs:
        figures = measure_run(recording)
        del figures["pod_packets_cov"]
        write_run(tmp_path, description, recording, keep=("load", "hops"), measures=figures)
    write_index(tmp_path, [description.id for description, _ in runs])
    measures = load_results(tmp_path).measures
    assert (measures["flows"] > 0).all()
    assert measures["pod_packets_cov"].isna().all()


@pytest.mark.parametrize("measures", [True, False])
def test_a_stored_result_equals_the_one_in_memory(tmp_path, measures):
    memory, stored = Result.from_recordings(written(tmp_path, measures=measures)), load_results(tmp_path)
    for name in ("index", "flows", "packets", "load", "hops", "links", "measures", "summary", "differences"):
        pd.testing.assert_frame_equal(getattr(memory, name), getattr(stored, name))
    assert stored.topology("node-port", **{"nodes.count": 8}) == memory.topology("node-port", **{"nodes.count": 8})


def test_a_second_write_gives_the_same_bytes(tmp_path):
    written(tmp_path / "a")
    written(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_run_that_fails_half_way_leaves_nothing(tmp_path):
    description, _ = experiment(repeats=1, flows=10)[0]

    def fail() -> None:
        with RunWriter(tmp_path, description) as writer:
            writer.packets.append(packets_table(10))
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert contents(tmp_path) == {}
    assert not is_finished(tmp_path, description.id)


def test_a_run_without_finish_leaves_nothing(tmp_path):
    description, _ = experiment(repeats=1, flows=10)[0]
    with RunWriter(tmp_path, description) as writer:
        writer.packets.append(packets_table(10))
    assert contents(tmp_path) == {}


def test_a_finished_run_written_again_stays_as_it_is(tmp_path):
    description, recording = experiment(repeats=1, flows=10)[0]
    write_run(tmp_path, description, recording)
    before = contents(tmp_path)
    write_run(tmp_path, description, recording)
    assert contents(tmp_path) == before


def test_a_writer_killed_at_any_moment_leaves_a_whole_run_or_none(tmp_path, repository):
    script = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = [{str(repository)!r}, {str(repository / "tests")!r}]
        from results.synthetic import experiment, packets_table
        from simnet.results.store import write_run
        description, recording = experiment(repeats=1, flows=20_000)[0]
        packets = packets_table(150_000)
        print("ready", flush=True)
        for number in range(10_000):
            run = type(description)(f"run{{number:05d}}", "v", number, 1)
            write_run(sys.argv[1], run, recording, packets=[packets])
        """
    )
    rng = np.random.default_rng(1)
    kept = set()
    for delay in rng.uniform(0.02, 0.5, 5):
        folder = tmp_path / f"{delay:.4f}"
        process = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for run in finished_runs(folder):
            kept.add(run)
        if finished_runs(folder):
            result = load_results(folder)
            assert len(result.flows) == 20_000 * len(result.manifests)
            assert len(result.packets) == 150_000 * len(result.manifests)
        clean_leftovers(folder)
        assert not list(folder.glob("runs/.partial*"))
    assert kept  # at least one of the kills came after a finished run


def test_leftovers_of_a_writer_that_still_lives_are_kept(tmp_path):
    description, _ = experiment(repeats=1, flows=10)[0]
    with RunWriter(tmp_path, description) as writer:
        writer.packets.append(packets_table(10))
        assert clean_leftovers(tmp_path) == []
        assert len(list(tmp_path.glob("runs/.partial*"))) == 1


@pytest.mark.parametrize("name", ["flows.parquet", "load.parquet", "hops.parquet", "manifest.json"])
def test_every_flipped_bit_is_found_and_its_file_named(tmp_path, name):
    description, recording = experiment(repeats=1, flows=50)[0]
    folder = write_run(tmp_path, description, recording, measures=measure_run(recording))
    path = folder / name
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    for position in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(bytes(damaged))
        if name == "manifest.json" and _same_json(whole, bytes(damaged)):
            continue  # white space between values
        with pytest.raises(ResultError, match=name):
            read_everything(tmp_path)
    path.write_bytes(whole)
    assert len(load_results(tmp_path).flows) == 50


def read_everything(folder):
    result = load_results(folder)
    return result.flows, result.load, result.hops


def _same_json(one: bytes, other: bytes) -> bool:
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_a_truncated_file_is_told_with_the_fix(tmp_path):
    description, recording = experiment(repeats=1, flows=50)[0]
    folder = write_run(tmp_path, description, recording)
    path = folder / "flows.parquet"
    size = path.stat().st_size
    os.truncate(path, 100)
    with pytest.raises(ResultError) as caught:
        _ = load_results(tmp_path).flows
    assert str(caught.value) == (
        f"{path}\n  found:    100 bytes, not the {size} written\n  expected: the file as it was written\n"
        f"  fix:      delete {folder} and run the experiment again; only missing runs are repeated"
    )


def test_a_missing_file_is_named(tmp_path):
    description, recording = experiment(repeats=1, flows=50)[0]
    (write_run(tmp_path, description, recording) / "load.parquet").unlink()
    with pytest.raises(ResultError, match=r"load\.parquet\n  found:    the file is missing"):
        _ = load_results(tmp_path).load


def test_a_missing_folder_and_an_empty_one_are_told_apart(tmp_path):
    with pytest.raises(ResultError, match="no such folder"):
        load_results(tmp_path / "none")
    with pytest.raises(ResultError, match="no finished run"):
        load_results(tmp_path)


def test_a_run_of_another_version_is_refused_with_a_fix(tmp_path):
    description, recording = experiment(repeats=1, flows=50)[0]
    path = write_run(tmp_path, description, recording) / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ResultError) as caught:
        load_results(tmp_path)
    assert str(caught.value) == (
        f"{path}\n  found:    a run of version 2\n  expected: version 1\n"
        "  fix:      run the experiment again, or read the folder with the simnet that wrote it"
    )


def test_the_index_says_which_runs_belong_to_the_experiment(tmp_path):
    runs = written(tmp_path)
    chosen = [description.id for description, _ in runs[:3]]
    write_index(tmp_path, chosen)
    assert list(load_results(tmp_path).index["run"]) == chosen
    (tmp_path / "index.parquet").unlink()
    assert len(load_results(tmp_path).index) == len(runs)


def test_the_index_can_be_read_by_any_parquet_reader(tmp_path):
    runs = written(tmp_path)
    index = pd.read_parquet(tmp_path / "index.parquet")
    assert list(index["run"]) == [description.id for description, _ in runs]
    assert {"variant", "repeat", "nodes.count", "seed"} <= set(index.columns)


def test_the_schema_says_unit_and_meaning_of_every_column(tmp_path):
    description, recording = experiment(repeats=1, flows=50)[0]
    schema = pq.read_schema(write_run(tmp_path, description, recording) / "flows.parquet")
    assert schema.metadata[b"simnet.schema_version"] == b"1"
    for column in FLOWS:
        metadata = schema.field(column.name).metadata
        assert (metadata[b"unit"].decode(), metadata[b"meaning"].decode()) == (column.unit, column.meaning)


def sliced(columns, start, end):
    return {
        name: Categories(c.codes[start:end], c.names) if isinstance(c, Categories) else c[start:end]
        for name, c in columns.items()
    }


@pytest.mark.parametrize("step", [7_001, 99_999, 100_000, 250_000])
def test_where_packet_rows_are_cut_changes_no_byte(tmp_path, step):
    columns = packets_table(230_000)
    for name, cut in (("once", 230_000), ("many", step)):
        with PacketWriter(tmp_path / name) as writer:
            for start in range(0, 230_000, cut):
                writer.append(sliced(columns, start, start + cut))
    assert contents(tmp_path / "once") == contents(tmp_path / "many")
    metadata = pq.read_metadata(tmp_path / "once" / "part-00000.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [100_000, 100_000, 30_000]


def test_packets_are_small_on_disk(tmp_path):
    with PacketWriter(tmp_path) as writer:
        writer.append(packets_table(300_000))
    assert (tmp_path / "part-00000.parquet").stat().st_size / 300_000 < 12  # bytes a row; defaults need 20


def test_no_packets_is_an_empty_file_with_all_columns(tmp_path):
    with PacketWriter(tmp_path):
        pass
    table = pq.read_table(tmp_path / "part-00000.parquet")
    assert table.column_names == [column.name for column in PACKETS]


def test_summary_csv_is_written_whole_and_read_back(tmp_path):
    written(tmp_path)
    result = load_results(tmp_path)
    path = result.write_summary()
    again = pd.read_csv(path)
    np.testing.assert_allclose(again["l3_hops_mean"], result.summary["l3_hops_mean"])
    assert list(again.columns) == list(result.summary.columns)
