"""A recorded arrival process: a CSV or Parquet file with a row a flow.

Columns: `start_s`, `start_ms`, `start_us` or `start_ps` (one of them), and as wanted `client` (from 0), `packets`,
`packet_size_bytes`. Times count from the start of the run.
"""

from __future__ import annotations

import csv
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simnet.errors import InputError, Position, Problem
from simnet.model.workload import Trace

_START_PS = {"start_s": 10**12, "start_ms": 10**9, "start_us": 10**6, "start_ns": 10**3, "start_ps": 1}
_OTHERS = {"client": "client", "packets": "packet_count", "packet_size_bytes": "packet_size_bytes"}
MAX_ROWS = 100_000_000


def read_trace(path: Path) -> Trace:
    """Return the trace in a file, sorted as given; InputError names the file and the first wrong row."""
    try:
        columns = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise _refused(path, 0, "", f"{path}: {reason}", "a CSV or Parquet file") from None
    starts = [name for name in columns if name in _START_PS]
    if len(starts) != 1:
        raise _refused(path, 1, "", _columns_in(columns), f"one of the columns {', '.join(_START_PS)}")
    unknown = [name for name in columns if name not in _START_PS and name not in _OTHERS]
    if unknown:
        raise _refused(path, 1, unknown[0], "an unknown column", f"the columns {', '.join(_OTHERS)}")
    try:
        start_ps = _scaled(columns[starts[0]], _START_PS[starts[0]])
        others = {_OTHERS[name]: columns[name].astype(np.int32) for name in columns if name in _OTHERS}
        return Trace(start_ps, **others)
    except ValueError as error:
        raise _refused(path, 0, starts[0], str(error), "times that do not fall and numbers in range") from None


def _columns_in(columns: dict[str, NDArray[np.generic]]) -> str:
    names = [name for name in columns if name]
    return f"the columns {', '.join(names)}" if names else "no columns"


def _scaled(column: NDArray[np.generic], scale: int) -> NDArray[np.int64]:
    if column.dtype == object:  # exact decimals of a CSV
        return np.array([int((value * scale).to_integral_value()) for value in column], dtype=np.int64)
    if np.issubdtype(column.dtype, np.integer):
        return column.astype(np.int64) * scale
    return np.rint(column.astype(np.float64) * scale).astype(np.int64)


def _read_csv(path: Path) -> dict[str, NDArray[np.generic]]:
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        header = [name.strip() for name in next(rows, [])]
        values: list[list[Decimal]] = [[] for _ in header]
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise _refused(
                    path, rows.line_num, "", f"{len(row)} cells", f"{len(header)} cells, as in the first line"
                )
            for column, text in zip(values, row, strict=True):
                try:
                    number = Decimal(text.strip()) if len(text) < 40 else Decimal("NaN")
                except InvalidOperation:
                    number = Decimal("NaN")
                if not number.is_finite() or abs(number) > 10**18:
                    raise _refused(path, rows.line_num, "", repr(text[:40]), "a number")
                column.append(number)
    found: dict[str, NDArray[np.generic]] = {}
    for name, column in zip(header, values, strict=True):
        found[name] = np.array(column, dtype=object) if name in _START_PS else np.array([int(v) for v in column])
    return found


def _read_parquet(path: Path) -> dict[str, NDArray[np.generic]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        reason = "damaged, or no Parquet at all" if "magic bytes" in str(error) else str(error).splitlines()[0]
        raise _refused(path, 0, "", f"{path}: {reason}", "a Parquet file") from None
    return {name: table.column(name).to_numpy() for name in table.column_names}


def _refused(path: Path, line: int, field: str, found: str, expected: str) -> InputError:
    fix = "see docs/experiment-file.md, arrivals"
    return InputError([Problem(Position(str(path), line), field, found, expected, fix)])
