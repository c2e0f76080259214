"""The metrics follow Prometheus's conventions, tell the present, and name no account."""

from __future__ import annotations

import re

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.metrics import Metrics
from tests.house.tree import ROOT
from tests.service.conftest import CONTEXT, Client

LABELS = {"workflow", "policy", "reason", "cause", "limit", "feature", "status", "phase"}
LABELS |= {"task", "outcome", "age", "arm", "per", "verdict", "kind", "scope", "bucket", "part"}
LABELS |= {"route", "objective", "step"}
UNITS = ("_seconds", "_interactions", "_writes", "_decisions")
"""What a histogram is of ends its name: a base unit, or what is counted."""
DOCUMENTED = ROOT / "docs" / "metrics.md"
OWN = "acclimate_"
"""What is not ours is the client library's, about the process."""


def families(text: str) -> dict[str, Metric]:
    """The exposition as an OpenMetrics parser reads it, by family."""
    read = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return {family.name: family for family in read}


def phases(metrics: Metrics) -> dict[tuple[str, str], float]:
    """The exported accounts by workflow and phase."""
    family = families(metrics.exposition()[0].decode())["acclimate_accounts"]
    return {
        (sample.labels["workflow"], sample.labels["phase"]): sample.value
        for sample in family.samples
    }


def test_an_account_is_counted_in_the_phase_it_is_in_and_no_other() -> None:
    metrics = Metrics()
    metrics.observe_phases({("help", "adapting"): 2, ("greet", "regressed"): 1})
    metrics.observe_phases({("help", "adapted"): 1, ("help", "adapting"): 1})
    assert phases(metrics) == {
        ("help", "adapting"): 1,
        ("help", "adapted"): 1,
        ("help", "regressed"): 0,
    }
    metrics.observe_phases({})
    assert phases(metrics) == {}


@pytest.mark.parametrize(
    "name",
    [name for name in sorted(families(Metrics().exposition()[0].decode())) if OWN in name],
)
def test_every_metric_is_named_by_convention(name: str) -> None:
    family = families(Metrics().exposition()[0].decode())[name]
    assert re.fullmatch(r"acclimate_[a-z]+(_[a-z]+)*", name)
    assert family.documentation.endswith(".")
    assert family.type in ("counter", "gauge", "histogram", "summary")
    # The client adds these to samples; in a family's own name they would stand there twice.
    assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_created", "_info"))
    if family.type == "histogram":
        assert name.endswith(UNITS)


async def test_no_label_is_anything_that_a_caller_chooses(client: Client) -> None:
    for account in ("household-17", "household-18"):
        for tenant in ("shop-1", "shop-2"):
            answer = await client.decide(account, tenant=tenant, context=CONTEXT | {"age": 7})
            await client.learn(answer.json()["decision_id"], tenant=tenant, outcome="solved")
    await client.learn("nobody-knows-it", reward=1)
    await client.service.scheduler.run_once()
    answer = await client.http.get("/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    for secret in ("household", "shop-", "nobody-knows-it", "solved", "premium"):
        assert secret not in answer.text
    found = families(answer.text)
    for family in found.values():
        for sample in family.samples:
            assert set(sample.labels) - {"le"} <= LABELS, sample
    decided = found["acclimate_decisions"].samples
    assert sum(one.value for one in decided if one.name == "acclimate_decisions_total") == 4


def test_the_documentation_names_every_metric_and_none_that_is_gone() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCUMENTED.read_text(), re.MULTILINE)
    exported = {
        (name + "_total" * (family.type == "counter"), family.type)
        for name, family in families(Metrics().exposition()[0].decode()).items()
        if OWN in name
    }
    assert set(rows) == exported
