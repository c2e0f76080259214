"""Context values outside their declared range are counted, clipped or refused, by workflow and
feature, and nothing that a caller makes up becomes a label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.service.conftest import CONTEXT, WORKFLOW, Client
from tests.service_process import ServiceProcess

CLIPPED, REFUSED = "acclimate_context_clipped", "acclimate_context_refused"


def counts(text: str, name: str) -> dict[tuple[str, ...], float]:
    """A counter's values by the values of its labels, in the labels' order."""
    read = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    (family,) = (family for family in read if family.name == name)
    return {
        tuple(sample.labels[label] for label in sorted(sample.labels)): sample.value
        for sample in family.samples
        if sample.name == f"{name}_total"
    }


async def counted(client: Client, name: str) -> dict[tuple[str, ...], float]:
    return counts((await client.http.get("/metrics")).text, name)


def refused(feature: str, cause: str = "out_of_range") -> tuple[str, str, str]:
    return cause, feature, "help"


async def test_what_may_come_out_of_range_is_counted_from_0(client: Client) -> None:
    assert await counted(client, CLIPPED) == {("age", "help"): 0}
    assert await counted(client, REFUSED) == {
        refused(feature): 0 for feature in ("tenure", "plan", "note")
    }


async def test_a_clipped_value_counts_once_however_often_its_decision_is_asked_for(
    client: Client,
) -> None:
    for _ in range(3):
        answer = await client.decide(decision_id="d", context=CONTEXT | {"age": 99})
        assert answer.status_code == 200
    await client.decide(decision_id="e", context=CONTEXT | {"age": -1})
    assert await counted(client, CLIPPED) == {("age", "help"): 2}


CONTEXTS: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "above": ({"tenure": 101}, refused("tenure")),
    "below": ({"tenure": -1}, refused("tenure")),
    "no such value": ({"plan": "gold"}, refused("plan")),
    "of another type": ({"plan": 3}, refused("plan", "mistyped")),
    "missing": ({"note": None}, refused("note", "missing")),
    "made up": ({"household-17": 3}, refused("", "undeclared")),
}


@pytest.mark.parametrize("case", CONTEXTS)
async def test_a_refused_value_is_counted_by_its_feature_and_what_was_off(
    client: Client, case: str
) -> None:
    changes, labels = CONTEXTS[case]
    before = await counted(client, REFUSED)
    answer = await client.decide(context=CONTEXT | changes)
    assert answer.status_code == 422
    after = await counted(client, REFUSED)
    assert after == before | {labels: 1}
    assert sum((await counted(client, CLIPPED)).values()) == 0
    assert "household-17" not in (await client.http.get("/metrics")).text


async def test_each_refused_item_of_a_batch_is_counted(client: Client) -> None:
    contexts = [CONTEXT, CONTEXT | {"tenure": 101}, CONTEXT | {"tenure": -1}, CONTEXT | {"age": 99}]
    items = [{"account_id": f"a{i}", "context": one} for i, one in enumerate(contexts)]
    path = "/v1/workflows/help/decisions/batch"
    answer = await client.http.post(path, json={"decisions": items})
    assert [one["status"] for one in answer.json()["results"]] == [200, 422, 422, 200]
    assert (await counted(client, REFUSED))[refused("tenure")] == 2
    assert (await counted(client, CLIPPED))["age", "help"] == 1


async def test_actions_that_are_none_are_not_the_contexts_fault(client: Client) -> None:
    assert (await client.decide(actions=["fly"])).status_code == 422
    assert sum((await counted(client, REFUSED)).values()) == 0


def test_a_live_service_tells_both(
    service_process: Callable[..., ServiceProcess], tmp_path: Path, counting_policies: Path
) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "help.yaml").write_text(WORKFLOW)
    service = service_process(workflows=tmp_path / "workflows", policies=counting_policies)
    with httpx.Client(base_url=service.base_url) as http:
        for changes, status in (({"age": 99}, 200), ({"tenure": 101}, 422)):
            body = {"account_id": "a", "context": CONTEXT | changes}
            assert http.post("/v1/workflows/help/decisions", json=body).status_code == status
        text = http.get("/metrics").text
    assert counts(text, CLIPPED) == {("age", "help"): 1}
    assert counts(text, REFUSED)[refused("tenure")] == 1
