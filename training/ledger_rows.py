"""The rows of an exported ledger, one at a time, from JSON lines or Parquet.

It says nothing of what is in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


class LogError(ValueError):
    """A file is no log of the workflow. The message says where, and what was expected."""


def rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """Each row with its place in the file. Raises LogError and OSError."""
    match path.suffix:
        case ".jsonl":
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if not line.strip():
                        continue
                    try:
                        row = json.loads(line)
                    except ValueError as error:
                        raise LogError(
                            f"{path}, line {number}: expected JSON, but {error}"
                        ) from error
                    if not isinstance(row, dict):
                        raise LogError(f"{path}, line {number}: expected an object a line")
                    yield f"line {number}", row
        case ".parquet":
            yield from _parquet_rows(path)
        case other:
            raise LogError(f"{path}: expected a file ending in .jsonl or .parquet, got {other!r}")


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise LogError(
            f"{path}: Parquet needs pyarrow: pip install 'acclimate[export]', or export to .jsonl"
        ) from error
    number = 0
    path.open("rb").close()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except pyarrow.ArrowException as error:
        raise LogError(f"{path}: expected a whole Parquet file, but {error}") from error
