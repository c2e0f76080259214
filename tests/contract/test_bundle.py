"""A bundle's files are whole and fit the workflow, or the error names the file and the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contract.bundle import BundleError, Manifest, load_manifest, sha256_of
from contract.spec import parse_workflow

PINNED = ("decide.onnx", "learn.onnx", "parity.npz")


def change(home: Path, path: str, value: Any) -> None:
    """Sets the field at the dotted `path` of a manifest; None takes it out."""
    file = home / "manifest.json"
    manifest = json.loads(file.read_text())
    *parents, last = path.split("/")
    part = manifest
    for parent in parents:
        part = part[parent]
    if value is None:
        del part[last]
    else:
        part[last] = value
    file.write_text(json.dumps(manifest))


def refusal(home: Path) -> str:
    """What is said of a broken bundle."""
    with pytest.raises(BundleError) as caught:
        load_manifest(home)
    return str(caught.value)


def test_a_whole_bundle_loads(bundle: Path) -> None:
    manifest = load_manifest(bundle)
    assert manifest.policy == "counting/1"
    assert (manifest.actions.min, manifest.actions.max) == (2, 50)
    assert manifest.graphs["learn"].inputs["action"].dtype == "int64"
    assert manifest.graphs["decide"].outputs["probabilities"].shape == ["B", "K"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b'{"name": "count', "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[]", "object"),
        (b"3", "object"),
        (b"{}", "name: Field required"),
    ],
)
def test_a_manifest_that_is_none_is_refused(bundle: Path, content: bytes, expected: str) -> None:
    (bundle / "manifest.json").write_bytes(content)
    message = refusal(bundle)
    assert message.startswith(f"{bundle / 'manifest.json'}: ")
    assert expected in message


FLOATS = {"shape": ["B"], "dtype": "float32"}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("name", "Counting", "name: String should match pattern"),
        ("name", "counting/1", "name: String should match pattern"),
        ("name", "../counting", "name: String should match pattern"),
        ("name", "", "name: String should match pattern"),
        ("name", None, "name: Field required"),
        ("version", 0, "version: Input should be greater than or equal to 1"),
        ("version", "one", "version: Input should be a valid integer"),
        ("format", 2, "format: Input should be 1"),
        ("colour", "red", "colour: Extra inputs are not permitted"),
        ("network", None, "network: Field required"),
        ("actions", {"min": 1, "max": 5}, "actions.min: Input should be greater than"),
        ("shared_size", -1, "shared_size: Input should be greater than or equal to 0"),
        ("blank/row", None, "blank.row: Field required"),
        ("blank/row", ["a", 0], "blank.row.0: Input should be a valid number"),
        ("blank/shared", [0], "blank.shared: expected 2 floats as shared_size says, got 1"),
        ("blank/row", [0, 0, 0], "blank.row: expected 2 floats as row_size says, got 3"),
        ("row_size", 3, "blank.row: expected 3 floats as row_size says, got 2"),
        ("graphs/decide", None, "graphs.decide: expected its inputs and outputs, got nothing"),
        ("graphs/learn", None, "graphs.learn: expected its inputs and outputs, got nothing"),
        ("graphs/forget", {"inputs": {}, "outputs": {}}, "graphs.forget"),
        ("graphs/decide/inputs/colour", FLOATS, "graphs.decide.inputs: expected some of"),
        ("graphs/decide/inputs/reward", FLOATS, "graphs.decide.inputs: expected some of"),
        ("graphs/learn/inputs/horizon_left", FLOATS, "graphs.learn.inputs: expected some of"),
        ("graphs/decide/outputs/value", None, "graphs.decide.outputs: expected ['probabilities',"),
        ("graphs/decide/outputs/logits", FLOATS, "graphs.decide.outputs: expected"),
        ("graphs/learn/outputs/rows", FLOATS, "graphs.learn.outputs: expected ['rows_next',"),
        (
            "graphs/learn/inputs/reward",
            {"shape": ["B"], "dtype": "float16"},
            "graphs.learn.inputs.reward.dtype: Input should be 'float32', 'int64' or 'bool'",
        ),
        (
            "graphs/learn/inputs/reward",
            {"shape": ["T"], "dtype": "float32"},
            "graphs.learn.inputs.reward.shape.0",
        ),
        ("sha256/learn.onnx", None, "sha256.learn.onnx: expected a SHA-256, got nothing"),
        ("sha256/learn.onnx", "abc", "sha256.learn.onnx: String should match pattern"),
        ("provenance/command", None, "provenance.command: Field required"),
    ],
)
def test_a_mistake_in_the_manifest_is_refused_by_its_field(
    bundle: Path, path: str, value: Any, expected: str
) -> None:
    change(bundle, path, value)
    assert refusal(bundle).startswith(f"{bundle / 'manifest.json'}: {expected}")


@pytest.mark.parametrize("name", ["manifest.json", *PINNED])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    message = refusal(bundle)
    assert message.startswith(f"{bundle / name}: ")
    assert "No such file" in message


def test_a_bundle_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nothing" / "1") in refusal(tmp_path / "nothing" / "1")


@pytest.mark.parametrize("name", PINNED)
@pytest.mark.parametrize("where", [0, 0.5, 1])
def test_one_other_byte_in_a_pinned_file_is_refused(bundle: Path, name: str, where: float) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[round(where * (len(content) - 1))] ^= 1
    (bundle / name).write_bytes(content)
    message = refusal(bundle)
    assert message.startswith(f"{bundle / name}: expected SHA-256 ")
    assert sha256_of(bundle / name)[:12] in message


@pytest.mark.parametrize("name", PINNED)
def test_a_pinned_file_that_lost_its_end_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes((bundle / name).read_bytes()[:-1])
    assert refusal(bundle).startswith(f"{bundle / name}: expected SHA-256 ")


def test_the_report_is_for_people_and_may_change(bundle: Path) -> None:
    (bundle / "report.md").write_text("Edited.")
    assert load_manifest(bundle).name == "counting"


# Fit

SMALL = (
    "{schema: 1, workflow: w, policy: p/1, actions: [{id: a}, {id: b}, {id: c}], "
    "fallback: {action: a}, adaptation: {target: 0.5}, context: {CONTEXT}}"
)
NUMBER = "{type: number, min: 0, max: 1}"
THREE = "{type: category, values: [a, b, c]}"


def workflow_misfit(manifest: Manifest, text: str) -> str:
    """Why the policy cannot serve the workflow; empty when it can."""
    try:
        manifest.refuse_misfit(parse_workflow(text, "w.yaml"))
    except BundleError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("context", "slots"),
    [
        ("", 0),
        (f"x: {NUMBER}, y: {NUMBER}, z: {NUMBER}", 3),
        (f"x: {THREE}", 3),
        ("x: {type: boolean}, y: {type: category, values: [a, b], feeds: rules}", 1),
        (f"x: {NUMBER}, y: {THREE}", 4),
        ("a: {type: category, values: [a, b]}, b: {type: category, values: [a, b]}", 4),
    ],
)
def test_a_context_fits_when_the_policy_has_a_slot_for_all_of_it(
    bundle: Path, context: str, slots: int
) -> None:
    misfit = workflow_misfit(load_manifest(bundle), SMALL.replace("CONTEXT", context))
    if slots <= 3:
        assert not misfit
    else:
        assert misfit.startswith("w.yaml:1: context.")
        assert f"at most 3 slots that feed policy counting/1, got {slots}" in misfit


@pytest.mark.parametrize(
    ("low", "high", "misfit"),
    [
        (2, 3, ""),
        (3, 3, ""),
        (4, 9, "actions: expected 4 to 9 actions for policy counting/1, got 3"),
        (2, 2, "actions.2: expected 2 to 2 actions for policy counting/1, got 3"),
    ],
)
def test_a_policy_takes_as_many_actions_as_it_says(
    bundle: Path, low: int, high: int, misfit: str
) -> None:
    change(bundle, "actions", {"min": low, "max": high})
    said = workflow_misfit(load_manifest(bundle), SMALL.replace("CONTEXT", ""))
    assert said.removeprefix("w.yaml:1: ") == misfit


@pytest.mark.parametrize(("size", "fits"), [(0, True), (1, False), (2, True)])
def test_action_features_fit_or_are_not_taken_at_all(bundle: Path, size: int, fits: bool) -> None:
    change(bundle, "action_feature_size", size)
    two = SMALL.replace("CONTEXT", "")
    for action in "abc":
        two = two.replace(f"{{id: {action}}}", f"{{id: {action}, features: {{x: 1, y: 2}}}}")
    misfit = workflow_misfit(load_manifest(bundle), two)
    assert misfit.endswith(
        "" if fits else "at most 1 features an action for policy counting/1, got 2"
    )
    assert (misfit == "") is fits


def test_every_misfit_is_told_at_once(bundle: Path) -> None:
    change(bundle, "actions", {"min": 4, "max": 9})
    change(bundle, "context_size", 0)
    misfit = workflow_misfit(load_manifest(bundle), SMALL.replace("CONTEXT", f"x: {NUMBER}"))
    assert "actions: " in misfit
    assert "context.x: " in misfit


LONG = """\
schema: 1
workflow: w
policy: p/1
actions:
  - id: a
    features: {x: 1, y: 2}
  - id: b
    features: {x: 1, y: 2}
  - id: c
    features: {x: 1, y: 2}
context:
  plan: {type: category, values: [a, b]}
  seats: {type: number, min: 0, max: 9, feeds: rules}
  age: {type: number, min: 0, max: 9}
  size: {type: number, min: 0, max: 9}
fallback: {action: a}
adaptation: {target: 0.5}
"""


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, {"context.size": 15, "actions.0.features": 6}),
        ({"context_size": 2}, {"context.age": 14, "actions.0.features": 6}),
        ({"context_size": 0, "action_feature_size": 0}, {"context.plan": 12}),
        ({"context_size": 4, "actions": {"min": 2, "max": 2}}, {"actions.2": 9}),
        ({"context_size": 4, "actions": {"min": 4, "max": 9}}, {"actions": 4}),
    ],
)
def test_what_does_not_fit_is_told_by_the_line_of_the_first_part_too_many(
    bundle: Path, changes: dict[str, Any], lines: dict[str, int]
) -> None:
    for field, value in ({"action_feature_size": 1} | changes).items():
        change(bundle, field, value)
    if "actions" in changes:
        lines = lines | {"actions.0.features": 6}
    with pytest.raises(BundleError) as caught:
        load_manifest(bundle).refuse_misfit(parse_workflow(LONG, "w.yaml"))
    assert {one.field: one.line for one in caught.value.problems} == lines
    assert [str(one) for one in caught.value.problems] == str(caught.value).splitlines()
    assert all(one.file == "w.yaml" for one in caught.value.problems)
