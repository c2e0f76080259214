"""What the memories of a policy looked like in training, by age: in its bundle, beside the graphs.

A file of its own, `memory.npz`, which the manifest pins where a bundle has one: bundles without it
serve as before, and the graphs' digests do not change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.bundle import BundleError, Manifest, sha256_of

FILE = "memory.npz"

Array = NDArray[np.float32]


class MemoryReference(NamedTuple):
    """Statistics over accounts of the training distribution at P ages."""

    positions: NDArray[np.int64]
    """Interactions folded, ascending, `[P]`."""
    shared_mean: Array
    """`[P, G]`."""
    shared_std: Array
    """`[P, G]`."""
    row_mean: Array
    """Over accounts and actions, `[P, H]`."""
    row_std: Array
    """`[P, H]`."""
    shared_bounded: NDArray[np.bool_]
    """Numbers that stay within [−1, 1] and come near its ends, as a GRU's do, `[G]`."""
    row_bounded: NDArray[np.bool_]
    """`[H]`."""
    usual: Array
    """Norm, saturation and distance that one account in a thousand exceeds, `[P, 3]`."""
    accounts: int
    """How many were looked at."""


def save_reference(reference: MemoryReference, directory: Path) -> None:
    """Writes the file into a bundle's directory."""
    with (directory / FILE).open("wb") as file:
        arrays: dict[str, Any] = reference._asdict()
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_reference(directory: Path, manifest: Manifest) -> MemoryReference | None:
    """The bundle's; None where it has none. Raises BundleError when it is not whole."""
    pinned = manifest.sha256.get(FILE)
    if pinned is None:
        return None
    path = directory / FILE
    try:
        if sha256_of(path) != pinned:
            raise BundleError(f"{path}: expected the file that the manifest pins, got another")
        with np.load(path, allow_pickle=False) as stored:
            parts = {name: stored[name] for name in MemoryReference._fields}
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path}: expected a memory reference, but {error}") from error
    reference = MemoryReference(**(parts | {"accounts": int(parts["accounts"])}))
    ages = len(reference.positions)
    shapes = {
        "shared_mean": (ages, manifest.shared_size),
        "shared_std": (ages, manifest.shared_size),
        "row_mean": (ages, manifest.row_size),
        "row_std": (ages, manifest.row_size),
        "shared_bounded": (manifest.shared_size,),
        "row_bounded": (manifest.row_size,),
        "usual": (ages, 3),
    }
    for name, shape in shapes.items():
        if parts[name].shape != shape:
            raise BundleError(f"{path}: {name}: expected {list(shape)}, got {parts[name].shape}")
    return reference
