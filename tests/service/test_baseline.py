"""A supervised model as the fallback: served where the policy cannot decide, never where it is not
what was exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.bundle import BundleError
from contract.spec import parse_workflow
from service.settings import Settings
from tests.service.conftest import CONTEXT, WORKFLOW, Client, Open
from training.supervised import fit_baseline, read_examples

WITH_MODEL = WORKFLOW.replace("  action: mail\n", "  model: helped/1\n  action: mail\n")


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory, counting_policies: Path) -> Path:
    """The bundles of the tests, and a baseline that waits for the old and calls the young."""
    home = tmp_path_factory.mktemp("policies")
    (home / "counting").symlink_to(counting_policies / "counting")
    spec, rng = parse_workflow(WORKFLOW), np.random.default_rng(3)
    lines = []
    for n in range(600):
        tenure, action = float(rng.uniform(0, 100)), spec.action_ids[n % 3]
        context = CONTEXT | {"tenure": tenure}
        right = "call" if tenure < 50 else "wait"
        lines.append({
            "workflow": "help", "account_id": str(n), "context": context, "action": action,
            "probability": 1 / 3, "reward": 3.0 if action == right else -1.0,
        })  # fmt: skip
    log = home / "ledger.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = home / "helped" / "1"
    fit_baseline(spec, read_examples(log, spec), out, name="helped", number=1, trees=10)
    return home


def failing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = client.service.catalog.workflows["help"]
    monkeypatch.setattr(workflow, "probabilities", lambda *_: 1 / 0)


async def decided(client: Client, **body: Any) -> Any:
    answer = await client.decide(**body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_model_stands_in_for_the_policy_after_the_rules(
    open_client: Open, settings: Settings, policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings.workflows / "help.yaml").write_text(WITH_MODEL)
    async with open_client(policies=policies) as client:
        failing(client, monkeypatch)
        young = await decided(client, context=CONTEXT | {"tenure": 10})
        old = await decided(client, context=CONTEXT | {"tenure": 90})
        assert (young["action"], old["action"]) == ("call", "wait")
        assert {young["reason"], old["reason"]} == {"policy_failed"}
        assert {young["probability"], old["probability"]} == {1.0}
        angry = await decided(client, context=CONTEXT | {"tenure": 90, "note": "angry"})
        assert angry["action"] == "call"
        # Within the limits, as everybody.
        basic = await decided(client, context=CONTEXT | {"tenure": 10, "plan": "basic"})
        assert basic["action"] != "call"
        record = (await client.http.get(
            f"/v1/decisions/{young['decision_id']}", params={"rederive": True}
        )).json()  # fmt: skip
        assert record["rederived"]["equal"]


async def test_a_model_that_fails_is_replaced_by_the_fixed_action(
    open_client: Open, settings: Settings, policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings.workflows / "help.yaml").write_text(WITH_MODEL)
    async with open_client(policies=policies) as client:
        failing(client, monkeypatch)
        baseline = client.service.catalog.workflows["help"].baseline
        assert baseline is not None
        monkeypatch.setattr(type(baseline), "rewards", lambda *_: np.full(3, np.nan))
        assert (await decided(client))["action"] == "mail"
        monkeypatch.setattr(type(baseline), "rewards", lambda *_: 1 / 0)
        assert (await decided(client))["action"] == "mail"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("helped/1", "nobody/1", r"help\.yaml:\d+: fallback\.model: expected a baseline, but "),
        ("id: wait", "id: pause", r"whose actions are \['wait', 'mail', 'call'\]"),
    ],
)
async def test_a_model_that_does_not_fit_is_refused_at_start_by_file_and_line(
    open_client: Open, settings: Settings, policies: Path, old: str, new: str, expected: str
) -> None:
    text = WITH_MODEL.replace(old, new).replace("safe_action: wait", "safe_action: mail")
    (settings.workflows / "help.yaml").write_text(text)
    with pytest.raises(BundleError, match=expected):
        async with open_client(policies=policies):
            pass
