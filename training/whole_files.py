"""Writes files whole or not at all: beside their place, then renamed; a reader sees old or new."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what goes to `path` once the block is left; nothing does if it fails."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text in UTF-8."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_picture(path: Path, figure: Figure, dpi: int = 120) -> None:
    """A PNG."""
    with whole(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi)
