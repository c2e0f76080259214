"""A real Prometheus, with the shipped rules, scrapes a live service while simulated accounts play:
it has a value for every rule, and takes every expression of alerts and dashboards."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.house.tree import ROOT
from tests.infra.expressions import CHOICE, RULES, expressions, recorded, rules, selected
from tests.infra.programs import PROMETHEUS, program
from tests.processes import Child, free_port, wait_until
from tests.service_process import ServiceProcess, environment

WORKFLOW = "retention-offer"
PLAYED = ("--accounts", "60", "--decisions", "22", "--delay", "0", "--seed", "1", "--json")
ADDED = ("_total", "_bucket", "_count", "_sum")
"""What samples have in their names beyond their family's."""


@pytest.fixture
def service(tmp_path: Path, service_process: Callable[..., ServiceProcess]) -> ServiceProcess:
    """A live service on the shipped policy, with a workflow that declares all there is to see, and
    three accounts in ten held out on the fallback."""
    spec = yaml.safe_load((ROOT / "workflows" / f"{WORKFLOW}.yaml").read_text())
    spec["buckets"] = {"plan": "values"}
    spec["adaptation"] |= {"target": 0.4, "window": 5, "level": 0.6, "within": 10}
    workflows = tmp_path / "workflows"
    workflows.mkdir()
    (workflows / f"{WORKFLOW}.yaml").write_text(yaml.safe_dump(spec))
    process = service_process(workflows=workflows, policies=ROOT / "policies")
    policy = httpx.get(f"{process.base_url}/v1/workflows/{WORKFLOW}").json()["policy"]
    schedule = tmp_path / "schedule.json"
    schedule.write_text(json.dumps({"stages": [{"percent": 100}], "holdout_percent": 30}))
    acclimate(
        "rollout", "start", policy, "--workflow", WORKFLOW, "--against", "fallback",
        "--schedule", str(schedule), "--why", "to compare", "--url", process.base_url,
    )  # fmt: skip
    return process


def acclimate(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line, which does what it is told."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "acclimate.py"), *words],
        env=environment({}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def prometheus(tmp_path: Path, service: ServiceProcess) -> Iterator[httpx.Client]:
    """Prometheus on the shipped configuration, but for where the service is and how often."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(path) for path in RULES]
    del config["alerting"]
    scraped = next(one for one in config["scrape_configs"] if one["job_name"] == "acclimate")
    del scraped["dns_sd_configs"]
    scraped["static_configs"] = [{"targets": [f"127.0.0.1:{service.port}"]}]
    config["scrape_configs"] = [scraped]
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    port = free_port()
    child = Child(
        [
            program("prometheus", "prometheus"),
            f"--config.file={path}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        log=tmp_path / "prometheus.log",
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        try:
            child.wait_ready(lambda: answers(http), timeout_seconds=60)
            yield http
        finally:
            child.kill()


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def ask(http: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """What the expression gives now. Fails where Prometheus does not take it."""
    answer = http.post("/api/v1/query", data={"query": expression}).json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    result = answer["data"]["result"]
    assert isinstance(result, list)
    return result


def test_a_real_prometheus_sees_accounts_adapt(
    service: ServiceProcess, prometheus: httpx.Client
) -> None:
    for run in ("one", "two", "three"):  # rates need more than what is there at the first scrape
        acclimate(
            "simulate", WORKFLOW, "--url", service.base_url, "--run", run, *PLAYED
        )  # fmt: skip

    def missing() -> list[str]:
        return [name for name in recorded() if not ask(prometheus, name)]

    assert wait_until(lambda: not missing(), timeout_seconds=60, interval_seconds=1.0), missing()

    read = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    evaluated = [rule for group in read for rule in group["rules"]]
    assert len(evaluated) == len(rules())
    assert {rule["health"] for rule in evaluated} == {"ok"}, evaluated

    batches = {
        (one["metric"]["batch"], one["metric"]["arm"]): float(one["value"][1])
        for one in ask(prometheus, "acclimate:reward_scaled:mean_1d")
    }
    assert set(batches) == {(b, arm) for b in ("1", "5", "20") for arm in ("policy", "fallback")}
    assert all(0 <= mean <= 1 for mean in batches.values())
    (p50,) = ask(prometheus, "acclimate:adaptation_interactions:p50_1d")
    (p90,) = ask(prometheus, "acclimate:adaptation_interactions:p90_1d")
    assert 0 < float(p50["value"][1]) <= float(p90["value"][1]) <= 22
    (used,) = ask(prometheus, "acclimate:feedback_used_next:share_1h")
    assert float(used["value"][1]) == 1, "every feedback changed the very next decision"
    assert not ask(prometheus, 'ALERTS{alertname=~"AcclimateDown|AcclimateRequestsFailing"}')

    text = httpx.get(f"{service.base_url}/metrics").text
    families = {
        family.name
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    }
    for where, several in expressions().items():
        for expression in several:
            ask(prometheus, expression.replace(CHOICE, ".*"))
            for name, _ in selected(expression):
                if name in recorded() or name == "up":
                    continue
                bare = next((name.removesuffix(one) for one in ADDED if name.endswith(one)), name)
                assert families & {name, bare}, f"{where}: no {name} in /metrics"


def test_the_scraped_service_is_the_one_that_is_asked(
    service: ServiceProcess, prometheus: httpx.Client
) -> None:
    def up() -> bool:
        return [one["value"][1] for one in ask(prometheus, 'up{job="acclimate"}')] == ["1"]

    assert wait_until(up, timeout_seconds=30)
    service.kill()
    assert wait_until(lambda: not up(), timeout_seconds=30)
    time.sleep(1.5)
    assert ask(prometheus, '(count(up{job="acclimate"} == 1) or vector(0)) == 0')
