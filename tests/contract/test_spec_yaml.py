"""A text that is no YAML, or no mapping, is refused with its line, and in no other way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.spec import SpecError, parse_workflow
from tests.contract.help_workflow import ADAPTATION, FILE, SPEC, Mistake, assert_told

MISTAKES: dict[str, Mistake] = {
    "bad indentation": (
        "  min: -1\n",
        "  min: -1\n    max: 2 # HERE\n",
        "",
        "expected YAML, but mapping values are not allowed here",
    ),
    "tab": ("  min: -1\n", "\tmin: -1 # HERE\n", "", "expected YAML, but found character '\\t'"),
    "second document": (
        ADAPTATION,
        ADAPTATION + "\n--- # HERE\na: 1",
        "",
        "expected YAML, but found another document",
    ),
    "tag that would run code": (
        "description: What to do next.",
        "description: !!python/object/apply:os.getcwd [] # HERE",
        "",
        "expected YAML, but could not determine a constructor",
    ),
    "date that no calendar has": (
        "description: What to do next.",
        "description: 2026-13-01 # HERE",
        "",
        "expected YAML, but month must be in 1..12",
    ),
    "number that is none": (
        "  max: 3\n",
        "  max: !!int three # HERE\n",
        "",
        "expected YAML, but invalid literal",
    ),
    "list as a key": (
        "schema: 1",
        "schema: 1\n[a, b]: 1 # HERE",
        "",
        "expected a field's name, got a collection",
    ),
    "alias of itself": (
        "description: What to do next.",
        "description: &loop [*loop]",
        "",
        "nested without end",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_no_yaml_is_refused_with_its_file_and_line(mistake: str) -> None:
    assert_told(MISTAKES[mistake])


@pytest.mark.parametrize("text", ["", "# nothing", "workflow", "- schema: 1", "3", "null"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^help\.yaml:1: expected a mapping"):
        parse_workflow(text, FILE)


@pytest.mark.parametrize("nested", ["[" * 2_000, "{a: " * 2_000 + "}" * 2_000])
def test_nesting_without_end_is_refused(nested: str) -> None:
    with pytest.raises(SpecError, match=r"^help\.yaml:1: expected YAML"):
        parse_workflow(f"description: {nested}", FILE)


@given(st.text() | st.text(alphabet="{}[]:-#&*!|>'\"\n\t ,ab1.?<%@").map(lambda s: SPEC + s))
def test_no_text_is_refused_in_any_other_way(text: str) -> None:
    try:
        parse_workflow(text, FILE)
    except SpecError as error:
        assert str(error).startswith(FILE)
