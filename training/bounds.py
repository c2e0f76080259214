"""Refuses settings that cannot be, by their names. It must import nothing heavy.

Every function raises ValueError for the first that is out of bounds.
"""

from __future__ import annotations


def refuse_below(settings: object, least: int, *names: str) -> None:
    """Numbers that must be at least so much."""
    for name in names:
        if (found := getattr(settings, name)) < least:
            raise ValueError(f"{name}: expected at least {least}, got {found}")


def refuse_no_share(settings: object, *names: str) -> None:
    """Numbers that must lie in [0, 1]."""
    for name in names:
        if not 0.0 <= (found := getattr(settings, name)) <= 1.0:
            raise ValueError(f"{name}: expected a share in [0, 1], got {found}")


def refuse_no_range(settings: object, least: int, *names: str) -> None:
    """Pairs that must be a range from low to high, low at least so much."""
    for name in names:
        low, high = getattr(settings, name)
        if not least <= low <= high:
            raise ValueError(f"{name}: expected a range from {least} up, got {low} to {high}")
