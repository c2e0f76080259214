"""Peers that other projects ship: loaded when they play, with advice where one is missing."""

from __future__ import annotations

import importlib
from typing import Any


class PeerMissingError(ValueError):
    """A peer's package is not installed."""


def need(module: str, peer: str) -> Any:
    """The module that a peer plays with. Raises PeerMissingError naming the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise PeerMissingError(
            f"peer {peer} needs {package}: .venv/bin/pip install -e '.[peers]' -c constraints.txt, "
            "or choose others with --peer"
        ) from error
