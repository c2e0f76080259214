"""The files of this repository: what a clone would get, with what is about to be added."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.servers import unavailable

ROOT = Path(__file__).parent.parent.parent


def repository_files() -> list[Path]:
    """Every tracked file, and every new one that git does not ignore."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        unavailable("the repository's files are told by git, and this is no checkout")
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]
