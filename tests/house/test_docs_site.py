"""`make docs` builds every page without a warning, and the site loads nothing from elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.house.tree import ROOT

LOADED = re.compile(r"<(?:script|img|iframe|link)[^>]*?(?:src|href)=\"?(?P<address>[^\s\">]+)")


def test_the_site_is_built_strictly_and_works_offline(tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(site.rglob("*.html"))
    written = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert written | {"index", "api"} <= {page.stem for page in pages}
    for page in pages:
        for match in LOADED.finditer(page.read_text()):
            address = match["address"]
            assert not re.match(r"(https?:)?//", address), f"{page.name}: {address}"
    described = json.loads((site / "openapi.json").read_text())
    reference = (site / "api.html").read_text()
    for path, operations in described["paths"].items():
        for method in operations:
            assert f"{method.upper()} {path}" in reference
