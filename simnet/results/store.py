"""The result folder: a folder per run, complete or not there at all.

    <folder>/index.parquet                 a row a run, a column a swept variable
             summary.csv                   a row a variant and sweep point
             runs/<id>/manifest.json       scenario, seed, topology, totals; SHA-256 of each file
                       flows.parquet  load.parquet  hops.parquet  packets/part-00000.parquet

A run is written to `runs/.partial-<host>-<pid>-<id>`, synced to disk and then renamed, so a kill at any
moment leaves either the whole run or a leftover that `clean_leftovers` removes. Every reader checks size and
digest, since Parquet alone does not notice a flipped bit. A run id names its content, so a finished run is
never run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simnet.errors import ResultError
from simnet.model.recording import EVENT_TABLES, QUEUE_TABLES, TABLES, ColumnData, Recording
from simnet.results.frames import SCHEMA_VERSION, SweepValue
from simnet.results.parquet import PacketWriter, damaged, write_table

FOLDER_VERSION = 1  # of the folder's layout and the manifest's fields
_PARTIAL = ".partial-"


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What a run is: which variant at which sweep point, which repetition, and everything needed to run it
    again.
    """

    id: str  # a hash of the resolved scenario, the seed and the model version
    variant: str
    repeat: int
    seed: int
    sweep: Mapping[str, SweepValue] = field(default_factory=dict)  # swept variable -> its value in this run
    manifest: Mapping[str, Any] = field(default_factory=dict)  # JSON; "topology": see topology.py


def is_finished(folder: Path | str, run_id: str) -> bool:
    """Return whether a run is there, whole; whatever was begun and not finished does not count."""
    return (Path(folder) / "runs" / run_id / "manifest.json").is_file()


def finished_runs(folder: Path | str) -> list[str]:
    """Return the ids of all finished runs in a folder, sorted."""
    return sorted(path.parent.name for path in Path(folder).glob("runs/[!.]*/manifest.json"))


def clean_leftovers(folder: Path | str) -> list[Path]:
    """Remove what killed writers of this machine left behind; writers that still live keep theirs. Returns
    what was removed.
    """
    removed = []
    for path in sorted(Path(folder).glob(f"runs/{_PARTIAL}*")):
        host, _, rest = path.name.removeprefix(_PARTIAL).rpartition("~")
        pid = rest.partition("-")[0]
        if host == socket.gethostname() and not (pid.isdigit() and _is_alive(int(pid))):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # one that has ended and that nobody has asked for is dead, though it still has its number
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in (b"Z", b"X")


class RunWriter:
    """Writes one run; it appears in the folder when the `with` block has been left after `finish`, or not at
    all.

    with RunWriter(folder, description) as writer:
        for window in ...:
            writer.packets.append(window_columns)  # optional, any number of times
        writer.finish(recording, measures)
    """

    def __init__(self, folder: Path | str, run: RunDescription) -> None:
        self._runs = Path(folder) / "runs"
        self._run = run
        self._partial = self._runs / f"{_PARTIAL}{socket.gethostname()}~{os.getpid()}-{run.id}"
        self._packets: PacketWriter | None = None
        self._done = False

    def __enter__(self) -> RunWriter:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        return self

    @property
    def packets(self) -> PacketWriter:
        """Where packet rows go while the run is under way."""
        if self._packets is None:
            self._packets = PacketWriter(self._partial / "packets")
        return self._packets

    def finish(
        self,
        recording: Recording,
        measures: Mapping[str, float] | None = None,
        keep: Sequence[str] = ("flows", "calls", "load", "hops", *QUEUE_TABLES, *EVENT_TABLES),
    ) -> None:
        """Write the tables named in `keep` that the recording has, and the manifest that makes the run whole.

        `measures` are the run's figures (`simnet.analysis.measures.measure_run`); without them they are
        computed from `flows` whenever the folder is read.
        """
        if self._packets is not None:
            self._packets.close()
        elif "packets" in recording.tables:
            self.packets.append(recording.tables["packets"])
            self.packets.close()
        for name in keep:
            if name in recording.tables:
                write_table(self._partial / f"{name}.parquet", TABLES[name], recording.tables[name])
        files = {}
        for path in sorted(self._partial.rglob("*.parquet")):
            _sync(path)
            name = str(path.relative_to(self._partial))
            files[name] = {"bytes": path.stat().st_size, "sha256": digest(path)}
        run = self._run
        manifest = {
            "version": FOLDER_VERSION,
            "schema": SCHEMA_VERSION,
            "id": run.id,
            "variant": run.variant,
            "repeat": run.repeat,
            "seed": run.seed,
            "sweep": dict(run.sweep),
            "totals": {name: int(value) for name, value in recording.totals.items()},
            "measures": None if measures is None else {n: _json_number(value) for n, value in measures.items()},
            "files": files,
            "manifest": dict(run.manifest),
        }
        manifest["sha256"] = _manifest_digest(manifest)
        path = self._partial / "manifest.json"
        text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
        path.write_text(text, encoding="utf-8")
        _sync(path)
        for directory in {path.parent for path in self._partial.rglob("*")}:
            _sync(directory)
        self._done = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._done:
            try:
                self._partial.rename(self._runs / self._run.id)
            except OSError:  # somebody else finished the same run first: its content is the same
                if not is_finished(self._runs.parent, self._run.id):
                    raise
            _sync(self._runs)
        elif self._packets is not None and not self._done:
            self._packets.abandon()
        shutil.rmtree(self._partial, ignore_errors=True)


def write_run(
    folder: Path | str,
    run: RunDescription,
    recording: Recording,
    *,
    packets: Iterable[Mapping[str, ColumnData]] = (),
    measures: Mapping[str, float] | None = None,
    keep: Sequence[str] = ("flows", "calls", "load", "hops", *QUEUE_TABLES, *EVENT_TABLES),
) -> Path:
    """Write a whole run at once and return its folder; see RunWriter for one whose packets come window by
    window.
    """
    with RunWriter(folder, run) as writer:
        for columns in packets:
            writer.packets.append(columns)
        writer.finish(recording, measures, keep)
    return Path(folder) / "runs" / run.id


def read_manifest(folder: Path | str, run_id: str) -> dict[str, Any]:
    """Read and check a run's manifest; ResultError names a damaged one, or one of another version."""
    path = Path(folder) / "runs" / run_id / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        if not isinstance(manifest, dict):
            raise ValueError("it is not a JSON object")
    except FileNotFoundError:
        raise ResultError(damaged(path, "the file is missing")) from None
    except ValueError as error:
        raise ResultError(damaged(path, f"not readable as JSON ({error})")) from error
    if manifest.get("version") != FOLDER_VERSION:
        raise ResultError(
            f"{path}\n  found:    a run of version {manifest.get('version')!r}\n"
            f"  expected: version {FOLDER_VERSION}\n"
            "  fix:      run the experiment again, or read the folder with the simnet that wrote it"
        )
    if manifest.pop("sha256", None) != _manifest_digest(manifest):
        raise ResultError(damaged(path, "its content does not match its own SHA-256"))
    return manifest


def check_file(run_folder: Path, name: str, manifest: Mapping[str, Any]) -> Path:
    """Return a run's file after checking it against the manifest; ResultError names a missing or damaged
    one.
    """
    path = run_folder / name
    expected = manifest["files"][name]
    if not path.is_file():
        raise ResultError(damaged(path, "the file is missing"))
    if path.stat().st_size != expected["bytes"]:
        raise ResultError(damaged(path, f"{path.stat().st_size} bytes, not the {expected['bytes']} written"))
    if digest(path) != expected["sha256"]:
        raise ResultError(damaged(path, "its content does not match its SHA-256"))
    return path


def write_index(folder: Path | str, run_ids: Sequence[str]) -> Path:
    """Write `index.parquet`, the runs that belong to the experiment in their order, from their manifests."""
    folder = Path(folder)
    rows = [index_row(read_manifest(folder, run_id)) for run_id in run_ids]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    table = pa.table({name: _same_type(values) for name, values in columns.items()})
    table = table.replace_schema_metadata({"simnet.schema_version": SCHEMA_VERSION})
    partial = folder / f"{_PARTIAL}{socket.gethostname()}~{os.getpid()}-index.parquet"
    pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
    return replace_atomically(partial, folder / "index.parquet")


def index_row(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's row of the index: run, variant, repeat, swept variables, seed and packet totals."""
    totals = {f"total_{name.replace(' ', '_')}": value for name, value in manifest["totals"].items()}
    return {
        "run": manifest["id"],
        "variant": manifest["variant"],
        "repeat": manifest["repeat"],
        **manifest["sweep"],
        "seed": manifest["seed"],
        **totals,
    }


def _same_type(values: list[Any]) -> list[Any]:
    """Return values as they are if Arrow can hold them in one column, else as text."""
    kinds = {type(value) for value in values if value is not None}
    return values if len(kinds) <= 1 or kinds == {int, float} else [str(value) for value in values]


def indexed_runs(folder: Path | str) -> list[str]:
    """Return the runs that belong to the experiment: those of the index, or all finished ones where none was
    written yet.
    """
    path = Path(folder) / "index.parquet"
    if not path.is_file():
        return finished_runs(folder)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return [str(run) for run in file.read(["run"]).column("run").to_pylist()]
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ResultError(
            f"{path}\n  found:    {str(error).splitlines()[0]}\n  expected: the file as it was written\n"
            "  fix:      delete this file; the index is made again from the runs"
        ) from error


def replace_atomically(partial: Path, final: Path) -> Path:
    """Sync a finished temporary file and put it in the place of another, so that readers see the old or the
    new one.
    """
    _sync(partial)
    os.replace(partial, final)
    _sync(final.parent)
    return final


def write_text(path: Path, text: str) -> Path:
    """Write a text file such as `summary.csv` or `report.html` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{_PARTIAL}{socket.gethostname()}~{os.getpid()}-{path.name}")
    partial.write_text(text, encoding="utf-8", newline="")
    return replace_atomically(partial, path)


def digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _json_number(value: float) -> float | str | None:
    """NaN as null, infinities as text: JSON has neither; `float` reads the text back."""
    if value != value:
        return None
    return float(value) if abs(value) != float("inf") else str(float(value))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
