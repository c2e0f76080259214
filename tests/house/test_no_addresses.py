"""No file of the repository names a package registry's host or a folder of somebody's machine."""

from __future__ import annotations

import re

import pytest

from tests.house.tree import ROOT, repository_files

# Spelled with brackets, so that this file does not name what it looks for.
FORBIDDEN = {
    "a registry's host": re.compile(
        rb"pypi[.]org|pythonhosted[.]org|npmjs[.](?:org|com)|crates[.]io|proxy[.]golang[.]org"
        rb"|deb[.]debian[.]org|download[.]pytorch[.]org"
    ),
    "a package index": re.compile(
        rb"(?:extra-)?index[-]url|find[-]links|https?://[^\s/]+/simple\b"
    ),
    "a folder of one machine": re.compile(
        rb"(?<![\w.~$})-])/(?:root|work|home|Users|opt/wheels|opt/pypi[\w-]*)/[\w.]"
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    pattern = FORBIDDEN[what]
    named = [
        f"{path.relative_to(ROOT)}: {found.group().decode(errors='replace')}"
        for path in repository_files()
        if (found := pattern.search(path.read_bytes()))
    ]
    assert not named


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a registry's host", b"see https://py" + b"pi.org/project/x"),
        ("a package index", b"pip install --index" + b"-url x"),
        ("a folder of one machine", b"saved to /ro" + b"ot/model.onnx"),
        ("a folder of one machine", b'File "/wo' + b'rk/main/x.py"'),
    ],
)
def test_the_search_finds(what: str, text: bytes) -> None:
    assert FORBIDDEN[what].search(text)
