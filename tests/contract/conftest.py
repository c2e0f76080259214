"""A whole bundle to break, and property tests that take the time a busy machine needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from contract.bundle import BUNDLE_FILES, sha256_of
from tests.bundles import edit_manifest, write_counting_bundle

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def whole_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The counting bundle; leave it whole."""
    return write_counting_bundle(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def bundle(whole_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the counting bundle, to be broken."""
    return shutil.copytree(whole_bundle, tmp_path / "counting" / "1")


def pin(home: Path) -> None:
    """Makes the manifest pin the files as they are now, as an export of these files would."""
    edit_manifest(home, sha256={name: sha256_of(home / name) for name in BUNDLE_FILES})
