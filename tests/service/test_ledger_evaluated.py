"""A policy that is evaluated on its own ledger finds every probability that it gave."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from contract.policy import OnnxPolicy
from contract.spec import load_workflow
from service.settings import Settings
from tests.service.conftest import Open, Time
from tests.service.pasts import declare
from tests.service.test_generations import live
from tests.service.test_ledger_export import cli
from training.ledger_records import Log, read_log
from training.logged_policy import probabilities

RULES = [
    "late: apply, default_reward: -1",
    "aggregation: latest, late: rebuild, default_reward: -1",
]


@pytest.mark.parametrize("rules", RULES)
async def test_the_memory_of_every_logged_decision_is_the_one_it_was_made_from(
    open_client: Open,
    settings: Settings,
    time: Time,
    tmp_path: Path,
    rules: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.service.test_generations.STEPS", 30)
    declare(settings, rules)
    spec = load_workflow(settings.workflows / "help.yaml")
    policy = OnnxPolicy.load(settings.policies / "counting" / "1")
    async with open_client() as client:
        chance = np.random.default_rng(7)
        for n in range(24):
            await client.decide(f"b{n % 3}", decision_id=f"w{n}")
            if chance.random() < 0.7:
                await client.learn(f"w{n // 2}", reward=float(chance.integers(-1, 3)))
        await live(client, time, 2)

        def read(name: str) -> Log:
            done = cli(client, "export", "--all", "--to", str(tmp_path / name))
            assert done.exit_code == 0, done.output
            return read_log(tmp_path / name, spec)

        lines, columns = [await asyncio.to_thread(read, f"e.{end}") for end in ("jsonl", "parquet")]
    made = lines.decisions
    assert lines.histories > lines.accounts  # the past was revised, or begun anew
    assert made.position.max() > 3
    assert lines.found.incomplete_accounts == 0
    given = probabilities(policy, lines)[np.arange(made.count), made.action]
    assert np.unique(given.round(4)).size > 10
    np.testing.assert_allclose(given[made.drawn], made.probability[made.drawn], atol=2e-6)
    np.testing.assert_array_equal(probabilities(policy, columns), probabilities(policy, lines))
