"""What a rollout is judged by: what its candidate did itself, whatever else goes wrong."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.ledger.alarms import Alarm
from service.ledger.records import LedgerUnavailableError
from service.rollouts import evidence
from service.rollouts.gather import read_cohorts
from service.rollouts.progress import Progress, read_progress
from service.rollouts.store import read_transitions
from tests.bundles import LEARN, write_counting_bundle
from tests.service.conftest import WORKFLOW, Client, Open, Time
from tests.service.test_rollouts import (
    EVERYBODY,
    act,
    begin,
    brought_over,
    decided,
    evaluate,
    interacted,
    rollout_of,
    stages,
)

# Sound on the parity vectors, which have no such reward; NaN for one in the middle of its range.
CANNOT_LEARN = LEARN.replace(
    "    shared_next = Add (shared, both)",
    """    whole = Div (reward, reward)
    nothing = Sub (whole, whole)
    nothing1 = Unsqueeze (nothing, one)
    added = Add (shared, both)
    shared_next = Add (added, nothing1)""",
)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A directory with three versions of the counting policy."""
    for version in (1, 2, 3):
        write_counting_bundle(tmp_path / "three", version=version)
    return tmp_path / "three"


@pytest.fixture
def forgetful(tmp_path: Path) -> Path:
    """A directory whose second version cannot learn."""
    write_counting_bundle(tmp_path / "forgetful")
    write_counting_bundle(tmp_path / "forgetful", version=2, learn=CANNOT_LEARN)
    return tmp_path / "forgetful"


async def counted(client: Client, rollout_id: str) -> tuple[dict[str, int], Progress]:
    """Interactions by cohort, and what else is counted."""
    found = await rollout_of(client, rollout_id)
    cohorts, progress = await client.service.ledger.read(
        lambda connection: (
            read_cohorts(connection, found),
            read_progress(connection, rollout_id),
        )
    )
    return {name: round(one["reward"].n.sum()) for name, one in cohorts.items()}, progress


async def told(client: Client, rewards: dict[tuple[str, bool], float]) -> None:
    """One interaction of everybody; the reward goes by policy and whether one is held out."""
    made = await decided(client, EVERYBODY)
    feedback = [
        {
            "decision_id": one["decision_id"],
            "reward": rewards[one["policy"], one["reason"] == "held_out"],
        }
        for one in made.values()
    ]
    answer = await client.http.post("/v1/feedback/batch", json={"feedback": feedback})
    assert answer.status_code == 200, answer.text


async def judge(client: Client) -> None:
    await client.service.rollouts.evaluate(client.service.recall, client.service.clock())


def open_alarm(policy: str, account: str = "") -> Alarm:
    """One whose consequence is to fall back: of an account, or of all that a policy serves."""
    scope = "account" if account else "workflow"
    return Alarm(
        f"{policy} {account}", "default", "help", "reward_shift", scope, account, "", policy,
        "fall_back", 0, 0, "", "", {}, 0,
    )  # fmt: skip


async def test_a_candidate_that_cannot_learn_is_taken_back(
    open_client: Open, forgetful: Path
) -> None:
    async with open_client(policies=forgetful) as client:
        rollout = await begin(client, stages(50, 100))
        for _ in range(3):
            await interacted(client, EVERYBODY, candidates=1)
        judged = await evaluate(client)
        assert (judged.verdict.kind, judged.verdict.reason) == ("rollback", "failing")
        assert (await rollout_of(client, rollout)).status == "rolled_back"


async def test_a_candidate_that_takes_too_long_is_taken_back(
    open_client: Open, three: Path
) -> None:
    async with open_client(policies=three, decision_deadline_seconds=1e-9) as client:
        await begin(client, stages(50, 100))
        made = await decided(client, EVERYBODY)
        assert {one["reason"] for one in made.values()} <= {"deadline", "held_out"}
        for one in made.values():
            await client.learn(one["decision_id"], reward=1)
        assert (await evaluate(client)).verdict.reason == "failing"


async def test_a_candidate_that_cannot_learn_in_shadow_is_taken_back(
    open_client: Open, forgetful: Path
) -> None:
    async with open_client(policies=forgetful) as client:
        rollout = await begin(client, stages(0, 100, bake_interactions=5))
        await interacted(client, EVERYBODY[:5], candidates=1)
        judged = await evaluate(client)
        assert (judged.verdict.kind, judged.verdict.reason) == ("rollback", "shadow_failed")
        assert (await rollout_of(client, rollout)).status == "rolled_back"


async def test_a_ledger_that_is_away_is_no_failure_in_shadow(
    open_client: Open, three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise LedgerUnavailableError("away")

    async with open_client(policies=three) as client:
        rollout = await begin(client, stages(0, 100, bake_interactions=5))
        await interacted(client, EVERYBODY[:5], candidates=1)
        with monkeypatch.context() as patched:
            patched.setattr(client.service.ledger, "past", away)
            with pytest.raises(LedgerUnavailableError):
                await evaluate(client)
        assert (await rollout_of(client, rollout)).status == "running"


async def test_what_cannot_be_judged_keeps_no_other_from_it(
    open_client: Open, three: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings.workflows / "aid.yaml").write_text(
        WORKFLOW.replace("workflow: help", "workflow: aid")
    )

    async with open_client(policies=three) as client:
        first = await begin(client, stages(50, 100))
        second = await begin(client, stages(50, 100), workflow="aid")

        def die(connection: Any, rollout_id: str) -> Any:
            if rollout_id == first:
                raise RuntimeError("killed")
            return read_transitions(connection, rollout_id)

        with monkeypatch.context() as patched:
            patched.setattr(evidence, "read_transitions", die)
            with pytest.raises(RuntimeError):
                await judge(client)
        assert (await rollout_of(client, first)).status == "running"
        assert (await rollout_of(client, second)).status == "completed"


async def test_what_another_policy_decided_proves_nothing_of_the_candidate(
    open_client: Open, three: Path, time: Time
) -> None:
    """As on a replica that cannot serve it; one that can brings the rollout on again."""
    async with open_client(policies=three) as client:
        rollout = await begin(client, stages(50, 100, bake_interactions=2))
    shutil.move(three / "counting" / "2", three / "2")
    async with open_client(policies=three) as client:
        for _ in range(3):
            await interacted(client, EVERYBODY, candidates=1)
        judged = await evaluate(client)
        assert (judged.verdict.kind, judged.verdict.reason) == ("hold", "not_served")
        for _ in range(7):
            time.pass_seconds(599)
            judged = await evaluate(client)
        assert (judged.verdict.kind, judged.verdict.reason) == ("pause", "not_served")
    shutil.move(three / "2", three / "counting" / "2")
    async with open_client(policies=three) as client:
        await act(client, rollout, "resume")
        for _ in range(4):
            await interacted(client, EVERYBODY, candidates=1)
            await brought_over(client)
        assert (await evaluate(client)).verdict.kind == "advance"


async def test_accounts_that_wait_for_their_memories_hold_nothing_up(
    open_client: Open, three: Path, time: Time
) -> None:
    async with open_client(policies=three) as client:
        await interacted(client, EVERYBODY, candidates=1)
        time.pass_seconds(1)
        rollout = await begin(client, stages(50, 100, bake_interactions=3))
        for _ in range(3):
            await interacted(client, EVERYBODY, candidates=1)
            await brought_over(client)
        assert await client.metric("acclimate_policy_not_ready_total") > 100
        judged = await evaluate(client)
        _, progress = await counted(client, rollout)
        assert judged.verdict.kind == "advance", (judged, progress)
        assert progress.stage_due == progress.stage_served > 200


@pytest.mark.parametrize("everybody", [True, False], ids=["the policy", "a few accounts"])
async def test_what_an_alarm_had_the_fallback_decide_is_no_evidence(
    open_client: Open, three: Path, everybody: bool
) -> None:
    few = EVERYBODY[:4]
    seen: Sequence[Alarm] = [open_alarm("counting/1", one) for one in few]
    if everybody:
        seen = [open_alarm("counting/2")]
    async with open_client(policies=three) as client:
        rollout = await begin(client, stages(50, 100, bake_interactions=1))
        client.service.decider._holds.see(seen)
        for _ in range(2):
            made = await decided(client, EVERYBODY)
            alarmed = {name for name, one in made.items() if one["reason"] == "alarm"}
            for one in made.values():
                await client.learn(one["decision_id"], reward=1)
        judged = await evaluate(client)
        n, progress = await counted(client, rollout)
        assert sum(n.values()) == 2 * (len(EVERYBODY) - len(alarmed))
        assert progress.failures == 0
        if everybody:
            assert (judged.verdict.kind, judged.verdict.reason) == ("hold", "alarmed")
            # They are seen all the same: who is in which cohort has not changed.
            assert (n["candidate"], progress.stage_candidates) == (0, len(alarmed))
        else:
            assert alarmed == set(few) - {
                name for name, one in made.items() if one["reason"] == "held_out"
            }
            assert judged.verdict.kind == "advance"


async def test_whom_traffic_holds_out_the_evidence_holds_out(
    open_client: Open, three: Path, time: Time
) -> None:
    """Of two rollouts that stand, the one on its way asks for fewer."""
    async with open_client(policies=three) as client:
        await begin(client, stages(100) | {"holdout_percent": 40})
        newer = await begin(
            client, stages(50, 100, bake_interactions=50) | {"holdout_percent": 1},
            policy="counting/3",
        )  # fmt: skip
        time.pass_seconds(1)
        made = await decided(client, EVERYBODY)
        for one in made.values():
            await client.learn(one["decision_id"], reward=1)
        await judge(client)
        n, _ = await counted(client, newer)
        held_out = sum(one["reason"] == "held_out" for one in made.values())
        assert n["holdout"] == held_out > 80
        assert n["candidate"] == sum(one["policy"] == "counting/3" for one in made.values()) > 50


HELD_OUT = {(f"counting/{version}", True): 1.0 for version in (1, 2, 3)}


async def test_what_has_arrived_is_watched_while_another_is_on_its_way(
    open_client: Open, three: Path, time: Time
) -> None:
    """Found worse than the fallback, it goes back, and what was begun on it goes back first."""
    async with open_client(policies=three) as client:
        first = await begin(client, stages(100) | {"holdout_percent": 45})
        second = await begin(client, stages(10, 100, bake_interactions=50), policy="counting/3")
        await act(client, second, "pause")
        time.pass_seconds(1)
        for _ in range(3):
            await told(client, HELD_OUT | {("counting/2", False): -1, ("counting/3", False): 1})
        await judge(client)
        for rollout in (first, second):
            assert (await rollout_of(client, rollout)).status == "rolled_back"
            shown = (await client.http.get(f"/v1/rollouts/{rollout}")).json()["transitions"][-1]
            assert (shown["actor"], shown["action"]) == ("evaluator", "roll_back")
            assert "below_fallback" in shown["reason"]
        assert client.service.catalog.workflows["help"].policy_name == "counting/1"
        assert await client.metric("acclimate_rollout_transitions_total") == 2


async def test_a_worse_one_on_its_way_is_not_blamed_on_what_has_arrived(
    open_client: Open, three: Path, time: Time
) -> None:
    async with open_client(policies=three) as client:
        first = await begin(client, stages(100) | {"holdout_percent": 40})
        second = await begin(client, stages(90, 100, bake_interactions=50), policy="counting/3")
        time.pass_seconds(1)
        for _ in range(3):
            await told(client, HELD_OUT | {("counting/2", False): 1, ("counting/3", False): -1})
        await judge(client)
        assert (await rollout_of(client, first)).status == "completed"
        assert (await rollout_of(client, second)).status == "rolled_back"
        n, _ = await counted(client, first)
        assert n["candidate"] < 3 * 60 and n["holdout"] > 3 * 80


async def test_at_100_percent_guardrail_metrics_are_held_against_the_hold_out(
    open_client: Open, three: Path, settings: Any
) -> None:
    outcomes = WORKFLOW.replace("{solved: 3, unsolved: -1}", "{solved: 3, unsolved: -1, left: 3}")
    (settings.workflows / "help.yaml").write_text(outcomes)
    metric = {"name": "churn", "outcome": "left", "margin": 0.05}
    async with open_client(policies=three) as client:
        rollout = await begin(client, stages(100) | {"holdout_percent": 45, "guardrails": [metric]})
        for _ in range(2):
            made = await decided(client, EVERYBODY)
            for one in made.values():
                outcome = "solved" if one["reason"] == "held_out" else "left"
                await client.learn(one["decision_id"], outcome=outcome)
        judged = await evaluate(client)
        assert (judged.verdict.kind, judged.verdict.reason) == ("rollback", "guardrail")
        assert (await rollout_of(client, rollout)).status == "rolled_back"
