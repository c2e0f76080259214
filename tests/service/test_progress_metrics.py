"""What accounts earn and how soon they adapt, as Prometheus gets it: by age and by who decided."""

from __future__ import annotations

from typing import Any

import pytest

from service.metrics import OBJECTIVE_SECONDS, SECONDS
from service.progress_metrics import AGE_LABELS, AGES
from tests.service.conftest import CONTEXT, WORKFLOW, Client, Open
from tests.service.test_metrics import families

REWARD = "acclimate_interaction_reward_scaled"
DUE = "acclimate_adaptation_due"


async def samples(client: Client, family: str, suffix: str = "") -> dict[tuple[str, ...], float]:
    """A family's values by its labels' values, in the labels' order; those that are not 0."""
    text = (await client.http.get("/metrics")).text
    return {
        tuple(sample.labels[name] for name in sorted(sample.labels)): sample.value
        for sample in families(text)[family].samples
        if sample.name == family + suffix and sample.value
    }


def test_every_interaction_is_in_one_band_of_age() -> None:
    assert len(AGE_LABELS) == len(AGES) + 1
    assert sorted(AGES) == list(AGES)
    assert {1, 5, 20} <= set(AGES), "reward at batch 1, 5 and 20"


async def test_rewards_are_told_by_age_scaled_to_the_workflows_range(client: Client) -> None:
    for reward in (3.0, -1.0, 1.0, 3.0, 3.0):
        await client.interact(reward=reward)
    assert await samples(client, REWARD, "_count") == {
        ("1", "policy", "help"): 1,
        ("2", "policy", "help"): 1,
        ("3", "policy", "help"): 1,
        ("5", "policy", "help"): 2,
    }
    assert await samples(client, REWARD, "_sum") == {
        ("1", "policy", "help"): 1,
        ("3", "policy", "help"): 0.5,
        ("5", "policy", "help"): 2,
    }


async def test_what_the_fallback_decides_in_need_is_no_evidence_for_it(client: Client) -> None:
    # Nothing is lawful but the safe action: the policy did not decide, nor is the account held out.
    forbidden = CONTEXT | {"age": 7}
    answer = await client.decide(context=forbidden)
    await client.learn(answer.json()["decision_id"], reward=3)
    assert await samples(client, REWARD, "_count") == {("1", "other", "help"): 1}


async def test_a_default_counts_like_a_reward_and_a_duplicate_does_not(
    client: Client, time: Any
) -> None:
    answer = await client.decide()
    decision_id = answer.json()["decision_id"]
    for _ in range(3):
        await client.learn(decision_id, feedback_id="f", reward=3)
    await client.decide()
    time.pass_seconds(101)
    await client.service.jobs.fold_defaults()
    assert await samples(client, REWARD, "_count") == {
        ("1", "policy", "help"): 1,
        ("2", "policy", "help"): 1,
    }
    assert await samples(client, REWARD, "_sum") == {("1", "policy", "help"): 1}


@pytest.fixture
def client_due_at_4(settings: Any, open_client: Open) -> Open:
    """The workflow with accounts that are to have adapted by the fourth interaction."""
    text = WORKFLOW.replace("hysteresis: 0.1}", "hysteresis: 0.1, within: 4}")
    assert "within: 4" in text
    (settings.workflows / "help.yaml").write_text(text)
    return open_client


async def test_an_account_is_in_time_or_has_missed_it_once(client_due_at_4: Open) -> None:
    async with client_due_at_4() as client:
        for _ in range(3):
            await client.interact("quick", reward=3)
            await client.interact("slow", reward=-1)
        assert await samples(client, DUE, "_total") == {}
        for _ in range(9):
            await client.interact("quick", reward=3)
            await client.interact("slow", reward=3)
        assert await samples(client, DUE, "_total") == {
            ("in_time", "help"): 1,
            ("missed", "help"): 1,
        }
        assert await samples(client, "acclimate_adaptation_target_interactions") == {("help",): 4}


async def test_targets_stand_beside_what_they_bound(client: Client) -> None:
    assert await samples(client, "acclimate_adaptation_target_reward") == {("help",): 2}
    assert await samples(client, "acclimate_adaptation_target_reward_scaled") == {("help",): 0.75}
    # None is declared: the horizon's.
    assert await samples(client, "acclimate_adaptation_target_interactions") == {("help",): 20}
    assert set(OBJECTIVE_SECONDS.values()) <= set(SECONDS), "else nothing counts what is slower"
    assert await samples(client, "acclimate_objective_seconds") == {
        (name,): bound for name, bound in OBJECTIVE_SECONDS.items()
    }


async def test_feedback_is_counted_by_how_it_joins_its_decision(client: Client, time: Any) -> None:
    first = (await client.decide()).json()["decision_id"]
    time.pass_seconds(5)
    second = (await client.decide()).json()["decision_id"]
    deferred = (await client.decide(mode="defer")).json()["decision_id"]
    assert (await client.learn(second, reward=1)).status_code == 200
    assert (await client.learn(first, reward=1)).status_code == 200  # its turn was before
    assert (await client.learn(first, reward=1)).json()["status"] == "duplicate"
    assert (await client.learn(first, reward=2)).status_code == 422
    third = (await client.decide()).json()["decision_id"]
    assert (await client.learn(third, reward=99)).status_code == 422
    assert (await client.learn(deferred, reward=1)).status_code == 409
    assert (await client.learn("nobody-knows-it", reward=1)).status_code == 404
    assert await samples(client, "acclimate_feedback", "_total") == {
        ("folded", "help"): 2,
        ("duplicate", "help"): 1,
    }
    assert await samples(client, "acclimate_feedback_out_of_order", "_total") == {("help",): 1}
    assert await samples(client, "acclimate_feedback_refused", "_total") == {
        ("conflict",): 1,
        ("invalid",): 1,
        ("not_active",): 1,
    }
    assert await samples(client, "acclimate_feedback_dangling", "_total") == {(): 1}
    # The first came after 5 s, the second at once.
    assert await samples(client, "acclimate_feedback_delay_seconds", "_count") == {("help",): 2}
    assert await samples(client, "acclimate_feedback_delay_seconds", "_sum") == {("help",): 5}


async def test_the_exposition_is_in_the_format_that_is_asked_for(client: Client) -> None:
    await client.interact()
    prometheus = (
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1"
        ";q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    )
    newer = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.2"
    for accept in (prometheus, newer, "*/*"):
        answer = await client.http.get("/metrics", headers={"Accept": accept})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")
    plain = await client.http.get("/metrics", headers={"Accept": "text/plain;version=0.0.4"})
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# EOF" not in plain.text
    assert 'acclimate_decisions_total{policy="counting/1",reason="policy",workflow="help"} 1.0' in (
        plain.text
    )
    assert "_created" not in answer.text + plain.text


async def test_rewards_and_adaptation_are_told_by_declared_buckets_too(
    settings: Any, open_client: Open
) -> None:
    text = WORKFLOW.replace("hysteresis: 0.1}", "hysteresis: 0.1, within: 4}")
    text += "buckets: {plan: values, tenure: [10, 60]}\n"
    (settings.workflows / "help.yaml").write_text(text)
    async with open_client() as client:
        for _ in range(5):
            await client.interact("a", reward=3)
            await client.interact("b", reward=-1, context=CONTEXT | {"plan": "basic", "tenure": 5})
        assert await samples(client, "acclimate_bucket_reward_scaled", "_count") == {
            ("policy", bucket, "help"): 5
            for bucket in ("plan=premium", "plan=basic", "tenure=10..60", "tenure=..10")
        }
        assert await samples(client, "acclimate_bucket_adaptation_due", "_total") == {
            ("plan=premium", "in_time", "help"): 1,
            ("tenure=10..60", "in_time", "help"): 1,
            ("plan=basic", "missed", "help"): 1,
            ("tenure=..10", "missed", "help"): 1,
        }
        assert await samples(client, "acclimate_bucket_adaptation_interactions", "_count") == {
            ("plan=premium", "help"): 1,
            ("tenure=10..60", "help"): 1,
        }
