"""A recording's columns as Arrow tables and DataFrames, with exactly the dtypes that `simnet.model.recording`
names.

Recordings held in memory and Parquet files take the same way (columns -> Arrow -> DataFrame), so a result
reads the same whether it was stored or not. Names are categoricals with their categories sorted, which makes
two frames of the same data equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from simnet.errors import ResultError
from simnet.model.recording import RUN_COLUMNS, TABLES, Categories, Column, ColumnData, Recording

SCHEMA_VERSION = "1"  # of the tables; a reader refuses another one
SweepValue = int | float | bool | str


def arrow_type(column: Column) -> pa.DataType:
    """Return the Arrow type of a result column; names are dictionaries with int32 codes."""
    if column.dtype == "category":
        return pa.dictionary(pa.int32(), pa.string())
    return pa.from_numpy_dtype(np.dtype(column.dtype))


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """Return the Arrow schema of a table, with unit, meaning and schema version as metadata."""
    return pa.schema(
        [
            pa.field(c.name, arrow_type(c), nullable=False, metadata={"unit": c.unit, "meaning": c.meaning})
            for c in columns
        ],
        metadata={"simnet.schema_version": SCHEMA_VERSION},
    )


def arrow_table(columns: Sequence[Column], data: Mapping[str, ColumnData]) -> pa.Table:
    """Return recorded columns as an Arrow table.

    Raises ResultError, naming the column, where one is missing, unknown, of another length or of a dtype that
    would change its values.
    """
    expected = {column.name for column in columns}
    if unlike := expected.symmetric_difference(data):
        raise ResultError(f"columns differ from the table's definition: {', '.join(sorted(unlike))}")
    arrays = [_arrow_array(column, data[column.name]) for column in columns]
    if len({len(array) for array in arrays}) > 1:
        lengths = ", ".join(f"{c.name} {len(a)}" for c, a in zip(columns, arrays, strict=True))
        raise ResultError(f"columns of one table differ in length: {lengths}")
    return pa.Table.from_arrays(arrays, schema=arrow_schema(columns))


def _arrow_array(column: Column, data: ColumnData) -> pa.Array:
    if isinstance(data, Categories):
        if column.dtype != "category":
            raise ResultError(f"column {column.name} holds names, its definition says {column.dtype}")
        codes = np.ascontiguousarray(data.codes, dtype=np.int32)
        if len(codes) and (codes.min() < 0 or codes.max() >= len(data.names)):
            raise ResultError(f"column {column.name} has a code without a name")
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(data.names, pa.string()))
    if column.dtype == "category":
        raise ResultError(f"column {column.name} needs names, it holds {data.dtype}")
    values = np.asarray(data)
    wanted = np.dtype(column.dtype)
    if values.dtype != wanted and not np.can_cast(values.dtype, wanted, "safe"):
        narrow = values.astype(wanted)
        if not np.array_equal(narrow, values):
            raise ResultError(f"column {column.name} does not fit {column.dtype}")
        values = narrow
    return pa.array(np.ascontiguousarray(values, dtype=wanted))


def with_run_columns(table: pa.Table, run: str, variant: str, repeat: int, sweep: Mapping[str, SweepValue]) -> pa.Table:
    """Put run, variant, repeat and one column a swept variable in front of a table."""
    rows = table.num_rows
    front: list[tuple[str, pa.Array]] = [
        ("run", _constant_name(run, rows)),
        ("variant", _constant_name(variant, rows)),
        ("repeat", pa.array(np.full(rows, repeat, np.int32))),
    ]
    for name, value in sweep.items():
        if isinstance(value, str):
            front.append((name, _constant_name(value, rows)))
        else:
            front.append((name, pa.array(np.full(rows, value))))
    names = [name for name, _ in front] + table.column_names
    return pa.table([array for _, array in front] + table.columns, names=names)


def _constant_name(name: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([name], pa.string()))


def to_frame(tables: Sequence[pa.Table]) -> pd.DataFrame:
    """Return Arrow tables of the same columns as one DataFrame; categories are those in use, sorted."""
    joined = pa.concat_tables(tables).combine_chunks()
    data: dict[str, Any] = {}
    for name in joined.column_names:
        column = joined.column(name)
        if pa.types.is_dictionary(column.type):
            data[name] = _sorted_categorical(column.unify_dictionaries())
        else:
            values = column.to_numpy()
            data[name] = values if values.flags.writeable else values.copy()
    return pd.DataFrame(data, copy=False)


def _sorted_categorical(column: pa.ChunkedArray) -> pd.Categorical:
    names = np.array(column.chunk(0).dictionary.to_pylist() if column.num_chunks else [], dtype=object)
    codes = (
        np.concatenate([np.asarray(chunk.indices) for chunk in column.chunks])
        if column.num_chunks
        else np.zeros(0, np.int32)
    )
    used = np.flatnonzero(np.bincount(codes, minlength=len(names)))
    order = used[np.argsort(names[used].astype(str), kind="stable")] if len(used) else used
    rank = np.zeros(max(len(names), 1), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    categories = pd.Index(names[order].astype(str).tolist(), dtype="str")
    return pd.Categorical.from_codes(cast(Any, rank[codes]), categories=categories)


def frame(name: str, data: Mapping[str, ColumnData]) -> pd.DataFrame:
    """Return one recorded table (`flows`, `packets`, `load` or `hops`) as a DataFrame."""
    return to_frame([arrow_table(TABLES[name], data)])


def frames(recording: Recording) -> dict[str, pd.DataFrame]:
    """Return every table of a recording as a DataFrame; tables that were not recorded are empty with all
    columns.
    """
    return {name: frame(name, recording.tables.get(name) or empty_columns(columns)) for name, columns in TABLES.items()}


def empty_columns(columns: Iterable[Column]) -> dict[str, ColumnData]:
    """Return a table's columns with no rows."""
    return {
        c.name: Categories(np.zeros(0, np.int32), ("",)) if c.dtype == "category" else np.zeros(0, np.dtype(c.dtype))
        for c in columns
    }


def columns_of(table: pd.DataFrame, columns: Sequence[Column]) -> dict[str, ColumnData]:
    """Return a DataFrame's columns as a recording holds them; the inverse of `frame`."""
    data: dict[str, ColumnData] = {}
    for column in columns:
        series = table[column.name]
        if column.dtype == "category":
            codes = np.asarray(series.cat.codes, dtype=np.int32) + np.int32(1)
            data[column.name] = Categories(codes, ("", *map(str, series.cat.categories)))
        else:
            data[column.name] = cast("NDArray[np.generic]", series.to_numpy())
    return data


def run_column_names(sweep: Iterable[str]) -> list[str]:
    """Return the names of the columns that come first in every frame of a result."""
    return [column.name for column in RUN_COLUMNS] + list(sweep)
