"""The serving benchmark as a command: what a moment of it measures, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.cli import bench
from benchmarks.serving_report import verdicts
from tests.postgres_server import VARIABLE as POSTGRES_VARIABLE
from tests.redis_server import VARIABLE as REDIS_VARIABLE
from tests.servers import Server

runner = CliRunner()


@pytest.fixture
def servers(redis_server: Server, postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own Redis and PostgreSQL are the ones that the benchmark is given."""
    for server, variable in ((redis_server, REDIS_VARIABLE), (postgres_server, POSTGRES_VARIABLE)):
        server.resume()
        server.start()
        monkeypatch.setenv(variable, server.url)


@pytest.mark.usefixtures("servers")
def test_a_quick_run_measures_every_part_of_a_durable_service(tmp_path: Path) -> None:
    ran = runner.invoke(bench, ["serving", "--quick", "--json", str(tmp_path / "serving.json")])
    assert ran.exit_code == 0, ran.output
    result = json.loads((tmp_path / "serving.json").read_text())
    for name in ("echo", "echo_feedback", "embedded", "production"):
        assert result[name]["rps"] > 0
        assert 0 < result[name]["p50_ms"] <= result[name]["p99_ms"]
    for name in ("embedded", "production"):
        assert result[name]["ratio"] > 0
        assert result[name]["p99_ratio"] > 0
        assert result[name]["feedback"]["ratio"] > 0
        assert 0 <= result[name]["fallback_share"] < 1
        assert 0 < result[name]["guardrail_share"] < 1
    [cost] = result["accounts"]
    assert cost["count"] == 200
    assert 0 < cost["p50_ms"] <= cost["p99_ms"]
    assert 0 < cost["bytes_of_key_and_value"] <= 2_048
    assert result["replay"]["interactions_per_s"] > 0
    assert result["client"]["rps"] > result["echo"]["rps"]
    durable = result["durability"]
    assert {durable[f"postgres {name}"] for name in ("fsync", "synchronous_commit")} == {"on"}
    assert durable["redis appendonly"] == "yes"
    assert durable["sqlite journal_mode"] == "wal"
    assert {"postgres", "redis", "sqlite", "onnxruntime", "cpu"} <= set(result["machine"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--only", "echo,embeded"], "--only"),
        (["--accounts", "1e6"], "--accounts"),
        (["--accounts", "0"], "--accounts"),
        (["--json", "/dev/null/serving.json"], "--json"),
        (["--policies", "no-such-folder"], "--policies"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    options: list[str], named: str
) -> None:
    ran = runner.invoke(bench, ["serving", *options])
    assert ran.exit_code == 2
    assert named in ran.output


def test_a_run_reaches_its_targets_or_names_what_it_missed() -> None:
    missed = [one.what for one in verdicts(result(), PARTS) if not one.reached]
    assert missed == []
    assert missed_with(embedded={"ratio": 0.49}) == ["embedded decisions / echo"]
    assert missed_with(production={"p99_ratio": 4.1}) == ["production decisions p99 / echo"]
    assert missed_with(embedded={"guardrail_share": 0.16}) == ["embedded, guardrails' share"]
    assert missed_with(production={"fallback_share": 0.002}) == ["production, share by fallback"]
    assert missed_with(batch={"decisions_per_s": 7_999}) == ["batch decisions/s"]
    assert missed_with(client={"rps": 2_000}) == ["client alone / echo"]


def test_a_part_that_could_not_be_measured_misses_its_target() -> None:
    without = result() | {"batch": None, "accounts": None}
    missed = [one.what for one in verdicts(without, PARTS) if not one.reached]
    assert missed == ["batch decisions/s", "batch, share by fallback", "accounts measured"]


def test_accounts_miss_their_target_by_the_ratio_of_the_most_to_the_fewest() -> None:
    slow = result()
    slow["accounts"][-1] |= {"p99_ms": 14.0, "bytes": 2_049}
    missed = [one.what for one in verdicts(slow, PARTS) if not one.reached]
    assert missed == ["p99 at 1,000,000 / at 1,000 accounts", "bytes a memory"]


PARTS = ("echo", "embedded", "production", "batch", "replay", "accounts")


def result() -> dict[str, Any]:
    """Figures that reach every target."""
    good = {"ratio": 0.6, "p99_ratio": 3.0}
    cost = {"p99_ms": 10.0, "bytes": 1_700, "fallback_share": 0}
    return {
        "echo": {"rps": 6_000},
        "embedded": good | {"feedback": good, "fallback_share": 0, "guardrail_share": 0.1},
        "production": good | {"feedback": good, "fallback_share": 0, "guardrail_share": 0.1},
        "batch": {"decisions_per_s": 9_000, "fallback_share": 0},
        "accounts": [cost | {"count": 1_000}, cost | {"count": 1_000_000}],
        "replay": {"interactions_per_s": 5_000},
        "client": {"rps": 60_000},
    }


def missed_with(**changes: dict[str, float]) -> list[str]:
    changed = result()
    for name, change in changes.items():
        changed[name] |= change
    return [one.what for one in verdicts(changed, PARTS) if not one.reached]
