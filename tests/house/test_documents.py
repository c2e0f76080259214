"""What the documents point to is there: files, headings, `make` targets."""

from __future__ import annotations

import re
from pathlib import Path

from tests.house.tree import ROOT, repository_files

LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#+\s+(?P<text>.+?)\s*$", re.MULTILINE)
TARGET = re.compile(r"^(?P<name>[a-z-]+):.*?##", re.MULTILINE)
# `make demo` in code, on a line of its own or after a prompt: not the verb in a sentence.
COMMAND = re.compile(r"(?:`|^\s*(?:\$ )?|&& )make (?P<name>[a-z-]+)", re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`[^`\n]+`")


def documents() -> list[Path]:
    return [path for path in repository_files() if path.suffix == ".md"]


def anchor(heading: str) -> str:
    """The fragment that a heading gets: lower case, words joined by hyphens, punctuation gone."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def broken(document: Path, target: str) -> bool:
    """Whether a relative link leads nowhere."""
    name, _, fragment = target.partition("#")
    path = (document.parent / name).resolve() if name else document
    if not path.exists():
        return True
    if not fragment:
        return False
    return fragment not in {anchor(match["text"]) for match in HEADING.finditer(path.read_text())}


def code(document: Path) -> list[str]:
    """Every block and span of code."""
    text = document.read_text()
    return [*CODE_BLOCK.findall(text), *CODE_SPAN.findall(CODE_BLOCK.sub("", text))]


def test_every_link_between_files_resolves() -> None:
    links = [
        (document, match["target"])
        for document in documents()
        for match in LINK.finditer(CODE_SPAN.sub("", CODE_BLOCK.sub("", document.read_text())))
    ]
    relative = [(d, t) for d, t in links if not re.match(r"[a-z]+:", t)]
    assert not [f"{d.relative_to(ROOT)}: {t}" for d, t in relative if broken(d, t)]


def test_every_make_command_in_a_document_is_a_target() -> None:
    targets = {m["name"] for m in TARGET.finditer((ROOT / "Makefile").read_text())}
    commands = [
        (document.relative_to(ROOT).as_posix(), match["name"])
        for document in documents()
        for piece in code(document)
        for match in COMMAND.finditer(piece)
    ]
    assert not [(document, name) for document, name in commands if name not in targets]


def test_make_help_teaches_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: ([\w-]+)", makefile, re.MULTILINE))
    assert {"demo", "test", "serve", "lint", "help", "clean", "constraints"} <= phony
    assert {match["name"] for match in TARGET.finditer(makefile)} == phony


def test_every_test_that_a_document_names_is_there() -> None:
    named = re.compile(r"`(?P<file>tests/[\w/]+\.py)(?:::(?P<name>\w+))?")
    found = [match for document in documents() for match in named.finditer(document.read_text())]
    assert len(found) > 30
    for match in found:
        text = (ROOT / match["file"]).read_text()
        assert match["name"] is None or f"def {match['name']}(" in text, match[0]
