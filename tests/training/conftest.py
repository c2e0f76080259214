"""Torch on one thread: results do not depend on how many cores a machine has."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Every training test runs on one torch thread; those without torch do not mind."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
