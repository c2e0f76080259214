"""Tables that take seconds to compute, kept on disk. A cache: it must never be needed or trusted.

In $ACCLIMATE_CACHE, else $XDG_CACHE_HOME/acclimate, else ~/.cache/acclimate. A file appears whole
or not at all, and one that is broken is computed anew.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def directory() -> Path:
    """Where tables are kept; it may not exist yet."""
    own = os.environ.get("ACCLIMATE_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "acclimate"


def newest(
    kind: str, *, at_least: int, valid: Callable[[int, Array], bool]
) -> tuple[int, Array] | None:
    """The smallest whole table of this kind whose size is `at_least`: (size, table) or None.

    A table's bytes are held to the CRC-32 stored with them.
    """
    sizes = []
    for path in directory().glob(f"{kind}-*.npz"):
        number = re.fullmatch(rf"{re.escape(kind)}-(\d+)", path.stem)
        if number and int(number[1]) >= at_least:
            sizes.append(int(number[1]))
    for size in sorted(sizes):
        try:
            with np.load(_path(kind, size), allow_pickle=False) as stored:
                table = stored["table"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            continue
        if valid(size, table):
            return size, table
    return None


def store(kind: str, size: int, table: Array) -> None:
    """Keeps a table; a directory that cannot be written to costs time the next time, no more."""
    try:
        directory().mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=directory(), prefix=f".{kind}-", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, table=table)
            Path(name).replace(_path(kind, size))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        warnings.warn(f"{directory()}: {kind} is not kept: {error.strerror}", stacklevel=2)


def _path(kind: str, size: int) -> Path:
    return directory() / f"{kind}-{size}.npz"
