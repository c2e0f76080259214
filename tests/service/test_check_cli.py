"""`acclimate check` tells what the service would, in its words, and says how a fine file stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from acclimate import main
from service.server import RefusedToStartError, serve
from service.settings import Settings
from tests.bundles import edit_manifest, write_counting_bundle
from tests.house.tree import ROOT
from tests.service.conftest import WORKFLOW


def check(*arguments: object) -> Result:
    """What the command makes of these arguments."""
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


@pytest.fixture
def written(settings: Settings) -> Path:
    """A workflow file that is fine."""
    return settings.workflows / "help.yaml"


def policies(settings: Settings) -> tuple[str, str]:
    """The option that names the directory of bundles."""
    return "--policies", str(settings.policies)


def test_a_fine_file_is_summed_up(settings: Settings, written: Path) -> None:
    ended = check(written, *policies(settings))
    assert ended.exit_code == 0
    assert ended.stdout.splitlines() == [
        f"{written}: help can be served",
        "  actions          3 of at most 50",
        "  context          3 of the policy's 3 slots",
        "  action features  1 of the policy's 1",
        "  horizon          20 interactions",
        "  policy           counting/1",
        "  limits           cheap_only, leave_alone",
        "  fallback         one rule, then mail",
    ]


MISTAKES = {
    "unknown field": ("fallback:\n", "falback:\n", 28),
    "limit that does not compile": ("context.age > 5", "context.aged > 5", 26),
    "limit that can never be evaluated": ("context.age > 5", "context.age + 1 > 5", 26),
    "limit that forbids everything": ("'context.age > 5'", "'true'", 26),
    "more context than slots": ("feeds: rules}\n  age", "feeds: policy}\n  age", 16),
    "no such policy": ("counting/1", "missing/1", 4),
    "no YAML": ("actions:\n", "actions: [\n", 7),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_the_words_in_which_the_service_refuses_to_start(
    settings: Settings, written: Path, mistake: str
) -> None:
    old, new, line = MISTAKES[mistake]
    assert WORKFLOW.count(old) == 1
    written.write_text(WORKFLOW.replace(old, new))
    ended = check(written, *policies(settings))
    assert ended.exit_code == 1
    with pytest.raises(RefusedToStartError) as refused:
        serve(settings)
    assert ended.stdout == f"{refused.value}\n"
    assert f"{written}:{line}: " in ended.stdout


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file(
    settings: Settings, written: Path
) -> None:
    text = WORKFLOW.replace("counting/1", "missing/1").replace("context.age >", "context.aged >")
    written.write_text(text.replace("context.note ==", "context.nota =="))
    told = check(written, *policies(settings)).stdout.splitlines()
    assert [line.split(":")[1] for line in told] == ["4", "26", "30"]


def test_a_file_that_names_no_policy_needs_the_default_one(tmp_path: Path, written: Path) -> None:
    written.write_text(WORKFLOW.replace("policy: counting/1\n", ""))
    write_counting_bundle(tmp_path / "policies", "other", 3)
    ended = check(written, "--policies", tmp_path / "policies")
    assert ended.exit_code == 1
    assert (
        "policy: expected a bundle of universal/1, as the file names no policy, but" in ended.stdout
    )
    assert "there are other/3" in ended.stdout
    write_counting_bundle(tmp_path / "policies", "universal", 1)
    ended = check(written, "--policies", tmp_path / "policies")
    assert ended.exit_code == 0
    assert "policy           universal/1, the default" in ended.stdout


def test_a_bundle_that_is_broken_is_told_at_the_line_that_names_it(
    tmp_path: Path, written: Path
) -> None:
    edit_manifest(write_counting_bundle(tmp_path / "policies"), name="other")
    ended = check(written, "--policies", tmp_path / "policies")
    assert f"{written}:4: policy: expected a bundle, but " in ended.stdout
    assert "its manifest says other/1" in ended.stdout


def test_a_warning_is_told_by_its_line_and_the_file_is_fine(
    settings: Settings, written: Path
) -> None:
    written.write_text(WORKFLOW.replace('context.note == "angry"', 'context.note == "furious"'))
    ended = check(written, *policies(settings))
    assert ended.exit_code == 0
    assert f"{written}:30: warning: fallback.rules.0.when: does not hold in each" in ended.stdout


def test_two_files_of_one_workflow_cannot_be_served_together(
    settings: Settings, written: Path
) -> None:
    twin = written.with_name("twin.yaml")
    twin.write_text(WORKFLOW)
    ended = check(written, twin, *policies(settings))
    assert ended.exit_code == 1
    assert f"{twin}:3: workflow: 'help' is declared by another file too, {written}" in ended.stdout


def test_json_has_every_problem_with_line_and_field(settings: Settings, written: Path) -> None:
    wrong = written.with_name("wrong.yaml")
    wrong.write_text(WORKFLOW.replace("workflow: help", "workflow: Help"))
    ended = check(written, wrong, "--json", *policies(settings))
    assert ended.exit_code == 1
    told = json.loads(ended.stdout)
    assert told["ok"] is False
    fine, refused = told["files"]
    assert (fine["ok"], fine["workflow"], fine["errors"]) == (True, "help", [])
    assert fine["summary"]["context_slots"] == fine["summary"]["context_slots_taken"] == 3
    assert (refused["ok"], refused["summary"], refused["file"]) == (False, None, str(wrong))
    (problem,) = refused["errors"]
    assert (problem["line"], problem["field"]) == (3, "workflow")


def test_a_usage_that_cannot_work_exits_with_2(tmp_path: Path) -> None:
    assert check().exit_code == 2
    missing = check(tmp_path / "missing.yaml")
    assert missing.exit_code == 2
    # The message is folded at a terminal's width, wherever that falls in a long path.
    assert "missing.yaml" in re.sub(r"[\s│]+", "", missing.output)


def test_every_shipped_workflow_can_be_served() -> None:
    ended = check(*sorted((ROOT / "workflows").glob("*.yaml")), "--policies", ROOT / "policies")
    assert ended.exit_code == 0, ended.output
    assert "warning" not in ended.stdout
