"""`acclimate init` writes a workflow that is served as it is, and never over another file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from acclimate import main
from contract.new_workflow import new_workflow
from contract.spec import WorkflowSpec, load_workflow, parse_workflow
from service.settings import Settings
from tests.bundles import write_default_bundle
from tests.service.conftest import Open


def run(*arguments: object) -> Result:
    """What the command line makes of these arguments."""
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def default_policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of bundles with one in the default policy's place."""
    home = tmp_path_factory.mktemp("policies")
    write_default_bundle(home)
    return home


async def test_a_new_workflow_passes_the_check_and_is_served_as_it_is(
    open_client: Open, default_policies: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "workflows"
    ended = run("init", "win-back", "--out", folder)
    assert ended.exit_code == 0
    path = folder / "win-back.yaml"
    assert str(path) in ended.stdout
    checked = run("check", path, "--policies", default_policies)
    assert checked.exit_code == 0
    assert "win-back can be served" in checked.stdout
    assert "5 of the policy's 16 slots" in checked.stdout
    assert "universal/1, the default" in checked.stdout
    assert "warning" not in checked.stdout
    context = {
        "months_as_customer": 130,
        "plan": "basic",
        "is_open_case": False,
        "agreed_to_calls": False,
    }
    async with open_client(workflows=folder, policies=default_policies) as client:
        answer = await client.decide(workflow="win-back", context=context)
        assert answer.status_code == 200
        assert answer.json()["reason"] == "policy"
        assert answer.json()["limits"] == ["no_call_without_consent"]
        learned = await client.learn(answer.json()["decision_id"], outcome="replied")
        assert learned.json()["reward"] == 0.3


def test_a_new_workflow_says_every_field_that_there_is_and_comments_on_all_of_them() -> None:
    text = new_workflow("any")
    spec = parse_workflow(text)
    said = {re.sub(r"[ #-]*", "", line).split(":")[0] for line in text.splitlines() if ":" in line}
    fields = {field.alias or name for name, field in WorkflowSpec.model_fields.items()}
    for part in (spec.horizon, spec.reward, spec.feedback, spec.guardrails, spec.adaptation):
        fields |= set(type(part).model_fields)
    inline = set(re.findall(r"[{ ]([a-z_]+):", text))
    assert fields <= said | inline
    sections = [part for part in text.split("\n\n") if not part.startswith("#")]
    assert sections == []  # each begins with what it is for
    assert max(map(len, text.splitlines())) <= 100


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    ended = run("init", "mine", "--out", tmp_path)
    assert ended.exit_code == 2
    assert "exists" in ended.output
    assert (tmp_path / "mine.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "Mine", "my workflow", "9lives", "a" * 65, "../up", "mine\n"])
def test_what_is_no_name_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    ended = run("init", name, "--out", tmp_path / "new")
    assert ended.exit_code == 2
    assert "lower-case letters, digits and hyphens" in re.sub(r"[\s│]+", " ", ended.output)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = run("init", "mine", "--out", tmp_path / "file")
    assert ended.exit_code == 2
    assert "--out" in ended.output


def test_the_folder_is_that_of_the_service_unless_said(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setenv("ACCLIMATE_WORKFLOWS", str(settings.workflows))
    assert run("init", "mine").exit_code == 0
    assert load_workflow(settings.workflows / "mine.yaml").workflow == "mine"
