"""What the docs site is made of besides the pages in docs/: the README as its first page, the API's
reference, and links that lead out of docs/ as the names of the files they lead to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?P<bang>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Adds index.md, api.md and openapi.json."""
    index = (ROOT / "README.md").read_text().replace("](docs/", "](")
    pages = {
        "index.md": index,
        "api.md": _api("--markdown"),
        "openapi.json": json.dumps(json.loads(_api()), indent=1),
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """The page, with links to files that are no part of the site as the files' names."""

    def leads(match: re.Match[str]) -> str:
        target = match["target"]
        path = target.partition("#")[0]
        if match["bang"] or not path or re.match(r"[a-z]+:", target):
            return match[0]
        if files.get_file_from_path(path) is not None:
            return match[0]
        name = (ROOT / "docs" / path).resolve()
        if page.file.src_uri == "index.md":
            name = (ROOT / path).resolve()
        shown = name.relative_to(ROOT).as_posix() if name.is_relative_to(ROOT) else path
        text = match["text"]
        return f"`{shown}`" if text.strip("`") == shown else f"{text} (`{shown}`)"

    return LINK.sub(leads, markdown)


def _api(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "acclimate.py"), "openapi", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
