"""Rollouts: who is in, who is taken back, and that nobody's adaptation is lost on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from contract.bundle import sha256_of
from service.ledger.records import AccountKey
from service.ledger.rollout_tables import (
    operator_audit,
    policies,
    rollout_accounts,
    rollout_transitions,
    rollouts,
)
from service.rollouts import gather
from service.rollouts.evidence import Judged
from service.rollouts.gather import read_cohorts
from service.rollouts.progress import read_progress
from service.rollouts.records import Rollout
from service.rollouts.store import read_rollouts
from tests.bundles import DECIDE, NAN_WHEN_BLANK, edit_manifest, write_counting_bundle
from tests.service.conftest import CONTEXT, WORKFLOW, Client, Open, Time
from tests.service.pasts import declare, same

EVERYBODY = [f"account-{i}" for i in range(300)]
QUICK: dict[str, Any] = {"min_accounts": 0, "bake_interactions": 0}


@pytest.fixture
def two_versions(tmp_path: Path) -> Path:
    """A directory with two versions of the counting policy."""
    home = tmp_path / "two"
    for version in (1, 2):
        write_counting_bundle(home, version=version)
    return home


def stages(*percents: float, **every: Any) -> dict[str, Any]:
    return {"stages": [{"percent": one} | QUICK | every for one in percents]}


async def begin(client: Client, schedule: dict[str, Any], **body: Any) -> str:
    """Begins a rollout of the second version; its id."""
    whole = {"workflow": "help", "policy": "counting/2", "why": "newer", "schedule": schedule}
    answer = await client.http.post("/v1/rollouts", json=whole | body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["rollout_id"])


async def act(client: Client, rollout_id: str, action: str, status: int = 200) -> dict[str, Any]:
    path = f"/v1/rollouts/{rollout_id}/{action}"
    answer = await client.http.post(path, json={"why": f"{action} it"})
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def evaluate(client: Client) -> Judged:
    (judged,) = await client.service.rollouts.evaluate(
        client.service.recall, client.service.clock()
    )
    return judged


async def decided(client: Client, accounts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """One decision of each account."""
    body = {"decisions": [{"account_id": one, "context": CONTEXT} for one in accounts]}
    answer = await client.http.post("/v1/workflows/help/decisions/batch", json=body)
    assert answer.status_code == 200, answer.text
    made = [one["decision"] for one in answer.json()["results"]]
    return {one["account_id"]: one for one in made}


async def interacted(client: Client, accounts: Sequence[str], candidates: float) -> None:
    """One interaction of each; those of the second version come to `candidates`, others to 1."""
    made = await decided(client, accounts)
    told = [
        {"decision_id": one["decision_id"], "reward": reward_of(one, candidates)}
        for one in made.values()
    ]
    answer = await client.http.post("/v1/feedback/batch", json={"feedback": told})
    assert answer.status_code == 200, answer.text


def reward_of(decision: dict[str, Any], candidates: float) -> float:
    return candidates if decision["policy"] == "counting/2" else 1.0


async def on_candidate(client: Client, accounts: Sequence[str] = EVERYBODY) -> set[str]:
    made = await decided(client, accounts)
    return {name for name, one in made.items() if one["policy"] == "counting/2"}


async def brought_over(client: Client) -> None:
    await asyncio.gather(*client.service.recall._bringing.values())


async def rollout_of(client: Client, rollout_id: str) -> Rollout:
    (found,) = await client.service.ledger.read(
        lambda connection: read_rollouts(connection, rollout_id=rollout_id)
    )
    return found


async def counts(client: Client) -> dict[str, int]:
    tables = (rollouts, rollout_transitions, operator_audit, policies)
    return await client.service.ledger.read(
        lambda connection: {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in tables
        }
    )


async def test_raising_a_percentage_moves_nobody_out_and_a_restart_changes_nobody(
    open_client: Open, two_versions: Path, database: str
) -> None:
    async with open_client(policies=two_versions, ledger_url=database) as client:
        rollout = await begin(client, stages(10, 40, 100) | {"holdout_percent": 10})
        few = await on_candidate(client)
        assert 10 <= len(few) <= 50
        await act(client, rollout, "advance")
        # In this process everybody who had none of it is replayed before the first decision.
        await on_candidate(client)
        await brought_over(client)
        more = await on_candidate(client)
        assert few < more
        assert 70 <= len(more) <= 145
    async with open_client(policies=two_versions, ledger_url=database) as client:
        assert await on_candidate(client) == more
        assert (await act(client, rollout, "advance"))["status"] == "completed"
        await on_candidate(client)
        await brought_over(client)
        made = await decided(client, EVERYBODY)
        held_out = {name for name, one in made.items() if one["reason"] == "held_out"}
        assert 12 <= len(held_out) <= 55
        assert {one["action"] for name, one in made.items() if name in held_out} == {"mail"}
        assert not held_out & more
        others = {one["policy"] for name, one in made.items() if name not in held_out}
        assert others == {"counting/2"}


async def test_a_worse_policy_is_taken_back_by_itself_and_memories_are_their_replays(
    open_client: Open, two_versions: Path, database: str, redis_url: str
) -> None:
    """And forward again: every account's memory, on both policies, is the fold of its past."""
    async with open_client(
        policies=two_versions, ledger_url=database, redis_url=redis_url
    ) as client:
        await interacted(client, EVERYBODY, candidates=-1)
        rollout = await begin(client, stages(50, 100, bake_interactions=50))
        for _ in range(4):
            await interacted(client, EVERYBODY, candidates=-1)
            await brought_over(client)
        judged = await evaluate(client)
        assert (judged.verdict.kind, judged.verdict.reason) == ("rollback", "worse")
        assert (await rollout_of(client, rollout)).status == "rolled_back"
        assert not await on_candidate(client)
        await memories_are_their_replays(client, "counting/1")
        told = (await client.http.get(f"/v1/rollouts/{rollout}")).json()
        last = told["transitions"][-1]
        assert (last["actor"], last["action"]) == ("evaluator", "roll_back")
        assert last["evidence"]["reward"]["candidate_mean"] < 0.3
        assert await client.metric("acclimate_rollout_transitions_total") == 1

        again = await begin(client, stages(50, 100))
        await interacted(client, EVERYBODY, candidates=3)
        await brought_over(client)
        await interacted(client, EVERYBODY, candidates=3)
        assert len(await on_candidate(client)) > 100
        assert await evaluate(client)  # on to 100 %
        assert (await rollout_of(client, again)).status == "completed"
        for _ in range(2):
            await interacted(client, EVERYBODY, candidates=3)
            await brought_over(client)
        await memories_are_their_replays(client, "counting/2")
        assert (await decided(client, ["account-1"]))["account-1"]["memory_position"] == 9


async def memories_are_their_replays(client: Client, policy: str) -> None:
    """Every memory stored for a policy is, once at its head, what the ledger folds to."""
    service, found = client.service, 0
    (served,) = [one for one in service.catalog.known("help") if one.policy_name == policy]
    for name in EVERYBODY:
        key = AccountKey("default", "help", name)
        account = await service.ledger.account(key)
        assert account is not None
        stored = await service.recall.at_head(served, key, account.head)
        replayed = (await service.recall.fresh(served, key)).memory
        assert stored.head == replayed.head == account.head
        assert same(stored.memory, replayed.memory)
        found += stored.head.position > 0
    assert found == len(EVERYBODY)


async def test_until_it_is_brought_over_an_account_is_served_as_before(
    open_client: Open, two_versions: Path
) -> None:
    async with open_client(policies=two_versions) as client:
        await interacted(client, EVERYBODY, candidates=1)
        await begin(client, stages(100) | {"holdout_percent": 0})  # it would hold out one in twenty
        made = await decided(client, ["account-0", "newcomer"])
        policies_of = {name: one["policy"] for name, one in made.items()}
        assert policies_of == {"account-0": "counting/1", "newcomer": "counting/2"}
        assert await client.metric("acclimate_policy_not_ready_total") == 1
        await brought_over(client)
        made = await decided(client, ["account-0"])
        assert made["account-0"]["policy"] == "counting/2"
        assert made["account-0"]["memory_position"] == 1


async def test_evidence_is_counted_once_by_whoever_and_however_often(
    open_client: Open, two_versions: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(policies=two_versions, ledger_url=database) as client:
        rollout = await begin(client, stages(50, 100, bake_interactions=50))
        for _ in range(3):
            await interacted(client, EVERYBODY, candidates=1.5)

        def die(*_: Any) -> None:
            raise RuntimeError("killed")

        with monkeypatch.context() as patched:  # in the middle of a page: nothing of it is kept
            patched.setattr(gather, "write_progress", die)
            with pytest.raises(RuntimeError):
                await evaluate(client)
        several = (client.service.rollouts.evaluate(client.service.recall, 2_000_000_000_000_000),)
        await asyncio.gather(*several, evaluate(client))
        await evaluate(client)
        found = await rollout_of(client, rollout)
        cohorts, progress, rows = await client.service.ledger.read(
            lambda connection: (
                read_cohorts(connection, found),
                read_progress(connection, rollout),
                connection.scalar(select(func.count()).select_from(rollout_accounts)),
            )
        )
        n = {name: int(one["reward"].n.sum()) for name, one in cohorts.items()}
        assert sum(n.values()) == 3 * len(EVERYBODY) and rows == len(EVERYBODY)
        assert n["candidate"] == progress.stage_interactions == progress.decisions
        assert progress.stage_candidates == cohorts["candidate"]["reward"].accounts
        # 1.5 and 1 of [-1, 3] are .625 and .5.
        assert np.isclose(cohorts["candidate"]["reward"].y.sum(), 0.625 * n["candidate"])
        assert np.isclose(cohorts["control"]["reward"].y.sum(), 0.5 * n["control"])


async def test_a_revised_past_is_counted_as_it_stands_now(
    open_client: Open, two_versions: Path, settings: Any
) -> None:
    declare(settings, "aggregation: latest")
    async with open_client(policies=two_versions) as client:
        rollout = await begin(client, stages(50, 100, bake_interactions=50))
        made = await decided(client, EVERYBODY[:50])
        for reward in (3.0, -1.0):
            for one in made.values():
                await client.learn(one["decision_id"], reward=reward, feedback_id=str(reward))
            await evaluate(client)
        found = await rollout_of(client, rollout)
        cohorts = await client.service.ledger.read(lambda one: read_cohorts(one, found))
        assert sum(one["reward"].n.sum() for one in cohorts.values()) == 50
        assert sum(one["reward"].y.sum() for one in cohorts.values()) == 0


async def test_shadow_serves_nobody_and_the_candidate_learns(
    open_client: Open, two_versions: Path
) -> None:
    shadow = stages(0, 100)
    shadow["stages"][0]["bake_interactions"] = 60
    async with open_client(policies=two_versions) as client:
        rollout = await begin(client, shadow)
        for _ in range(2):
            assert not await on_candidate(client)
            await interacted(client, EVERYBODY[:40], candidates=-1)
            assert (await rollout_of(client, rollout)).stage == 0
            await evaluate(client)
        assert (await rollout_of(client, rollout)).status == "completed"
        told = (await client.http.get(f"/v1/rollouts/{rollout}")).json()["evidence"]
        # Of 300 accounts that were new to it 50 at a look, then of the 40 that went on.
        assert (told["shadow_decisions"], told["shadow_failures"]) == (90, 0)
        assert 0 < told["shadow_agreement"] <= 1
        made = await decided(client, ["account-0"])
        policy, position = made["account-0"]["policy"], made["account-0"]["memory_position"]
        assert (policy, position) == ("counting/2", 2)
        assert await client.metric("acclimate_policy_not_ready_total") == 0


async def test_a_network_that_fails_in_shadow_is_taken_back(
    open_client: Open, tmp_path: Path
) -> None:
    """It gives a distribution for whom it knows, and none for a tenant it never saw a win of."""
    home = tmp_path / "bad"
    write_counting_bundle(home)
    sometimes = NAN_WHEN_BLANK.replace("Div (wins, pulls)", "Log (wins)")
    write_counting_bundle(home, version=2, decide=sometimes)
    async with open_client(policies=home) as client:
        client.service.rollouts._warm_up = lambda _: None  # its example would give it away
        rollout = await begin(client, stages(0, 100, bake_interactions=5))
        await interacted(client, EVERYBODY[:5], candidates=1)
        judged = await evaluate(client)
        assert (judged.verdict.kind, judged.verdict.reason) == ("rollback", "shadow_failed")
        assert (await rollout_of(client, rollout)).status == "rolled_back"


async def test_low_risk_segments_come_first(open_client: Open, two_versions: Path) -> None:
    first = {"percent": 100, "segment": 'context.plan == "basic"'} | QUICK
    schedule = {"stages": [first, {"percent": 100} | QUICK], "holdout_percent": 0}
    async with open_client(policies=two_versions) as client:
        rollout = await begin(client, schedule)

        async def policy_of(plan: str) -> str:
            made = await client.decide("somebody", context=CONTEXT | {"plan": plan})
            return str(made.json()["policy"])

        assert await policy_of("basic") == "counting/2"
        assert await policy_of("premium") == "counting/1"
        await interacted(client, EVERYBODY, candidates=1)  # premium: nobody is compared
        await evaluate(client)
        found = await rollout_of(client, rollout)
        cohorts = await client.service.ledger.read(lambda one: read_cohorts(one, found))
        assert not any(one["reward"].accounts for one in cohorts.values())
        assert found.status == "completed"
        await client.service.rollouts.refresh()
        await brought_over(client)
        assert await policy_of("basic") == "counting/2"


async def test_against_the_fallback_whoever_is_not_in_is_on_it_and_learns(
    open_client: Open, two_versions: Path
) -> None:
    async with open_client(policies=two_versions) as client:
        await begin(client, stages(50, 100), policy="counting/1", against="fallback")
        made = await decided(client, EVERYBODY)
        reasons = {one["reason"] for one in made.values()}
        assert reasons == {"policy", "held_out", "not_in_rollout"}
        out = next(name for name, one in made.items() if one["reason"] == "not_in_rollout")
        for one in made.values():
            await client.learn(one["decision_id"], reward=3)
        key = AccountKey("default", "help", out)
        stored = await client.service.memories.get(
            key, client.service.catalog.workflows["help"].policy.identity
        )
        assert stored is not None and stored.head.position == 1


async def test_approval_is_asked_for_last_and_taken_only_then(
    open_client: Open, two_versions: Path, time: Time
) -> None:
    schedule = stages(50, 100, approval=True)
    async with open_client(policies=two_versions) as client:
        rollout = await begin(client, schedule)
        time.pass_seconds(1)
        refused = await act(client, rollout, "approve", 409)
        assert "waits for approval" in refused["detail"]
        judged = await evaluate(client)
        assert judged.verdict.reason == "awaiting_approval"
        assert (await act(client, rollout, "approve"))["approved"]
        await act(client, rollout, "approve", 409)  # once is enough
        await evaluate(client)
        assert (await rollout_of(client, rollout)).status == "completed"
        trail = (await client.http.get("/v1/audit")).json()["events"]
        assert [one["action"] for one in trail] == ["approve", "create"]
        assert {one["actor"] for one in trail} == {"anyone"}
        assert trail[0]["reason"] == "approve it"


async def test_pausing_stops_everything_but_a_rollback(
    open_client: Open, two_versions: Path
) -> None:
    async with open_client(policies=two_versions) as client:
        rollout = await begin(client, stages(50, 100))
        await act(client, rollout, "resume", 409)
        await act(client, rollout, "pause")
        await evaluate(client)
        assert (await rollout_of(client, rollout)).stage == 0
        assert await client.metric("acclimate_rollout_paused") == 1
        await act(client, rollout, "resume")
        await evaluate(client)
        assert (await rollout_of(client, rollout)).status == "completed"
        for action in ("advance", "pause", "resume", "approve"):
            await act(client, rollout, action, 409)


async def test_what_was_begun_last_is_taken_back_first(open_client: Open, tmp_path: Path) -> None:
    home = tmp_path / "three"
    for version in (1, 2, 3):
        write_counting_bundle(home, version=version)
    async with open_client(policies=home) as client:
        first = await begin(client, stages(50, 100))
        await act(client, first, "advance")
        second = await begin(client, stages(50, 100), policy="counting/3")
        assert (await rollout_of(client, second)).against == "counting/2"
        refused = await act(client, first, "roll-back", 409)
        assert second in refused["detail"]
        for rollout, policy in ((second, "counting/2"), (first, "counting/1")):
            await act(client, rollout, "roll-back")
            assert client.service.catalog.workflows["help"].policy_name == policy
        await act(client, first, "roll-back", 409)


async def test_downtime_is_nobodys_lack_of_traffic(
    open_client: Open, two_versions: Path, time: Time
) -> None:
    """Thirty days without a look are folded into one: it holds, and a fortnight of looks pauses."""
    async with open_client(policies=two_versions) as client:
        rollout = await begin(client, stages(50, 100, bake_interactions=10))
        await evaluate(client)
        time.pass_seconds(30 * 86_400)
        assert (await evaluate(client)).verdict.kind == "hold"
        for _ in range(14 * 24 * 6 + 6):
            time.pass_seconds(600)
            if (await evaluate(client)).verdict.kind == "pause":
                break
        found = await rollout_of(client, rollout)
        assert found.status == "paused" and "baking" in found.reason


BAD: list[tuple[dict[str, Any], int, str, str]] = [
    ({"policy": "counting/9"}, 422, "policy", "no such bundle"),
    ({"policy": "../2"}, 422, "policy", "a bundle"),
    ({"policy": "counting/1"}, 422, "policy", "another than counting/1"),
    ({"policy": "narrow/1"}, 422, "policy", "context"),
    ({"policy": "drifted/1"}, 422, "policy", "parity"),
    ({"workflow": "nobody"}, 404, "workflow", "one of ['help']"),
    ({"why": ""}, 422, "why", "at least 1"),
    ({"schedule": stages(50, 10, 100)}, 422, "schedule.stages.1.percent", "stages only go up"),
    (
        {"schedule": {"stages": [{"percent": 5, "segment": "context.shoe"}, {"percent": 100}]}},
        422,
        "schedule.stages.0.segment",
        "shoe",
    ),
    (
        {"schedule": stages(100) | {"guardrails": [{"name": "a", "outcome": "fled"}]}},
        422,
        "schedule.guardrails.0.outcome",
        "one of ['solved', 'unsolved']",
    ),
]


@pytest.mark.parametrize(("body", "status", "field", "expected"), BAD)
async def test_what_cannot_be_rolled_out_is_refused_and_changes_nothing(
    open_client: Open,
    two_versions: Path,
    body: dict[str, Any],
    status: int,
    field: str,
    expected: str,
) -> None:
    drifted = write_counting_bundle(two_versions, "drifted")
    vectors = dict(np.load(drifted / "parity.npz"))
    vectors["decide/0/out/value"] = vectors["decide/0/out/value"] + 1
    np.savez(drifted / "parity.npz", **vectors)
    seal(drifted)
    write_counting_bundle(two_versions, "narrow")
    edit_manifest(two_versions / "narrow" / "1", context_size=1)
    async with open_client(policies=two_versions) as client:
        before = await counts(client)
        whole = {"workflow": "help", "policy": "counting/2", "why": "newer"} | body
        answer = await client.http.post("/v1/rollouts", json=whole)
        assert answer.status_code == status, answer.text
        (error,) = answer.json()["errors"]
        assert error["field"].startswith(field), error
        assert expected in error["expected"], error
        assert await counts(client) == before
        assert not await on_candidate(client, EVERYBODY[:20])


async def test_two_rollouts_on_one_workflow_are_refused(
    open_client: Open, two_versions: Path, database: str
) -> None:
    """Also when they come at once."""
    body = {"workflow": "help", "policy": "counting/2", "why": "newer"}
    async with open_client(policies=two_versions, ledger_url=database) as client:
        answers = await asyncio.gather(
            *(client.http.post("/v1/rollouts", json=body) for _ in range(4))
        )
        assert sorted(one.status_code for one in answers) == [201, 409, 409, 409]
        refused = next(one for one in answers if one.status_code == 409)
        assert refused.json()["errors"][0]["field"] == "workflow"
        assert (await counts(client))["rollouts"] == 1
        for path in ("advance", "roll-back"):
            unknown = await client.http.post(f"/v1/rollouts/none/{path}", json={"why": "?"})
            assert unknown.status_code == 404


async def test_a_name_never_comes_to_mean_another_network(
    open_client: Open, two_versions: Path
) -> None:
    async with open_client(policies=two_versions) as client:
        await act(client, await begin(client, stages(50, 100)), "roll-back")
    other = two_versions.parent / "other"
    write_counting_bundle(other)
    write_counting_bundle(other, version=2, decide=DECIDE.replace("{4.0}", "{3.0}"))
    async with open_client(policies=other) as client:
        body = {"workflow": "help", "policy": "counting/2", "why": "newer"}
        answer = await client.http.post("/v1/rollouts", json=body)
        assert answer.status_code == 409, answer.text
        assert "new version" in answer.json()["detail"]


async def test_a_file_that_names_another_policy_has_the_last_word(
    open_client: Open, two_versions: Path, settings: Any
) -> None:
    async with open_client(policies=two_versions) as client:
        await begin(client, stages(50, 100))
        assert await on_candidate(client)
    for version, expected in ((2, {"counting/2"}), (1, {"counting/1", "counting/2"})):
        text = WORKFLOW.replace("policy: counting/1", f"policy: counting/{version}")
        (settings.workflows / "help.yaml").write_text(text)
        async with open_client(policies=two_versions) as client:
            made = await decided(client, EVERYBODY)
            assert {one["policy"] for one in made.values()} == expected


async def test_an_erased_account_leaves_no_name_in_a_rollout(
    open_client: Open, two_versions: Path
) -> None:
    async with open_client(policies=two_versions) as client:
        await begin(client, stages(50, 100, bake_interactions=50))
        await interacted(client, EVERYBODY[:10], candidates=1)
        await evaluate(client)
        gone = await client.http.delete("/v1/workflows/help/accounts/account-3")
        assert gone.status_code == 200
        names = await client.service.ledger.read(
            lambda one: set(one.scalars(select(rollout_accounts.c.account_id)))
        )
        assert names == set(EVERYBODY[:10]) - {"account-3"}
        for served in client.service.catalog.known("help"):
            key = AccountKey("default", "help", "account-3")
            assert await client.service.memories.get(key, served.policy.identity) is None


def seal(home: Path) -> None:
    """Has the manifest name its parity vectors as they are now."""
    hashes = json.loads((home / "manifest.json").read_text())["sha256"]
    edit_manifest(home, sha256=hashes | {"parity.npz": sha256_of(home / "parity.npz")})
