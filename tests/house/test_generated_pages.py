"""Pages that are made from the code say what the code says."""

from __future__ import annotations

from service.settings import Settings
from service.settings_cli import described, page
from tests.house.tree import ROOT


def test_the_page_of_settings_is_the_class() -> None:
    written = (ROOT / "docs" / "settings.md").read_text()
    assert written == page(), "run: acclimate settings --markdown > docs/settings.md"


def test_every_setting_says_what_it_does() -> None:
    found = list(described())
    assert len(found) == len(Settings.model_fields)
    assert all(len(one.says) > 10 for one in found)
