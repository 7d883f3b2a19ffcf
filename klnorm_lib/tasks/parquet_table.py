"""Parquet: typed columns, and names of class ids where ``datasets`` wrote the file."""

from __future__ import annotations

import io
from collections.abc import Sequence

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import CorruptDataError
from .table import Table, check_columns


def read_parquet(content: bytes, name: str, wanted: Sequence[str]) -> Table:
    """The columns ``wanted`` of a parquet file.

    Raises ``CorruptDataError`` for a file that is cut off or is none, ``LayoutError`` for a column that is missing.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise CorruptDataError(
            f"{name} is not a readable parquet file ({error}); it is cut off or of another format: copy or write it "
            "again."
        ) from error
    schema = file.schema_arrow
    check_columns(name, schema.names, wanted)
    try:
        known = datasets.Features.from_arrow_schema(schema) if b"huggingface" in (schema.metadata or {}) else {}
        table = file.read(columns=list(wanted))
    except Exception as error:  # damaged pages and descriptions of columns raise many unrelated classes
        raise CorruptDataError(
            f"{name} is not a readable parquet file ({type(error).__name__}: {error}); copy or write it again."
        ) from error
    names = {c: tuple(known[c].names) for c in wanted if isinstance(known.get(c), datasets.ClassLabel)}
    if not table.num_rows:
        raise CorruptDataError(f"{name} has no rows.")
    return Table(name, {column: table.column(column).to_pylist() for column in wanted}, class_names=names)
