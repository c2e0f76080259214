"""Which bundles may be served: the SHA-256 of their manifests, from a file somebody vouches for.

The file is what `sha256sum */*/manifest.json */*/baseline.json` prints in the directory of bundles,
and what `sha256sum -c` checks; it can be signed as any file can. A manifest pins its bundle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from service.settings import SettingError

_LINE = re.compile(
    r"(?P<sha256>[0-9a-f]{64}) [ *](?:\S*/)?"
    r"(?P<policy>[a-z][a-z0-9-]*/[0-9]+)/(?:manifest|baseline)\.json"
)

Pins = Mapping[str, str]
"""SHA-256 of the manifest, hex, by policy or baseline, `bandits/2`."""


def read_pins(path: Path | None) -> Pins | None:
    """The pins in a file; None when there is none to keep to. Raises SettingError."""
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"ACCLIMATE_POLICY_PINS: {path}: cannot be read") from error
    pins: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match["policy"] in pins:
            raise SettingError(
                f"{path}:{number}: expected what `sha256sum */*/manifest.json` prints, each once"
            )
        pins[match["policy"]] = match["sha256"]
    return pins
