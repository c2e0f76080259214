"""What the guardrails cost is measured for every workflow that is shipped."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from acclimate import main
from tests.house.tree import ROOT


def test_every_workflow_is_measured() -> None:
    folder = ROOT / "workflows"
    ran = CliRunner().invoke(
        main,
        ["bench", "guardrails", "--workflows", str(folder), "--decisions", "300", "--json"],
    )
    assert ran.exit_code == 0, ran.output
    found = {one["workflow"]: one for one in json.loads(ran.stdout)["workflows"]}
    assert set(found) == {path.stem for path in folder.glob("*.yaml")}
    assert all(cost > 0 for one in found.values() for cost in one["limits_us"].values())
    assert found["retention-offer"]["locked_us"] > 0
    assert found["brand-choice"]["locked_us"] is None
