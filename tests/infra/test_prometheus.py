"""Prometheus's and Alertmanager's files, by their own tools: they parse, and each alert fires when
it should and not when it should not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.api.health import router
from service.metrics import OBJECTIVE_SECONDS
from tests.house.test_documents import HEADING, anchor
from tests.house.tree import ROOT
from tests.infra.programs import PROMETHEUS, promtool, run

RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))
RUNBOOKS = ROOT / "docs" / "runbooks.md"


def rules() -> list[dict[str, Any]]:
    """Every rule of every file."""
    read = [yaml.safe_load(path.read_text()) for path in RULES]
    return [rule for one in read for group in one["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def test_promtool_finds_nothing_wrong_with_configuration_and_rules() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", *RULES)


def test_the_configuration_reads_every_rule_file() -> None:
    read = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["rule_files"]
    assert sorted(path for one in read for path in PROMETHEUS.glob(one)) == RULES


@pytest.mark.parametrize("case", CASES, ids=[path.stem for path in CASES])
def test_an_alert_fires_when_it_should_and_not_when_it_should_not(case: Path) -> None:
    promtool("test", "rules", case)


def test_every_alert_has_such_a_test_of_both() -> None:
    tested: dict[str, set[bool]] = {}
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for one in case["alert_rule_test"]:
                tested.setdefault(one["alertname"], set()).add(bool(one["exp_alerts"]))
    assert tested == {name: {True, False} for name in alerts()}


@pytest.mark.parametrize("name", sorted(alerts()))
def test_every_alert_says_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert {"summary", "description", "runbook"} == set(rule["annotations"])
    assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{name.lower()}"
    sections = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    (section,) = [one for one in sections if anchor(one.splitlines()[0]) == name.lower()]
    for part in ("**Symptom.**", "**Likely causes.**", "**What to do.**"):
        assert part in section, f"{name}: {part}"


def test_no_runbook_is_for_an_alert_that_is_gone() -> None:
    named = {match["text"] for match in HEADING.finditer(RUNBOOKS.read_text())}
    assert {name for name in named if name.startswith("Acclimate")} == set(alerts())


def test_decisions_are_slow_above_their_objective() -> None:
    bounds = set(re.findall(r'decision_seconds_bucket\{le="([^"]+)"\}', RULES[1].read_text()))
    assert {float(bound) for bound in bounds} == {OBJECTIVE_SECONDS["decision"]}


def test_requests_that_ask_after_the_process_are_no_callers() -> None:
    told_apart = re.findall(r'route!~"([^"]+)"', RULES[1].read_text())
    assert len(told_apart) == 6
    asked = {getattr(one, "path", "") for one in router.routes}
    for one in told_apart:
        assert {path for path in asked if re.fullmatch(one, path)} == asked
        assert not re.fullmatch(one, "/v1/workflows/{workflow}/decisions")


def test_alertmanager_takes_its_configuration() -> None:
    path = ROOT / "infra" / "alertmanager" / "alertmanager.yml"
    done = run("amtool", "prometheus-alertmanager", "check-config", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alertmanager_speaks_of_alerts_that_there_are() -> None:
    text = (ROOT / "infra" / "alertmanager" / "alertmanager.yml").read_text()
    named = set(re.findall(r"Acclimate[A-Za-z]+", text)) - {"AcclimateFallbackRate"}
    named -= {"AcclimateDecisions"}  # with .+ after them, of several
    assert named <= set(alerts())
    for severity, receiver in (("page", "page"), ("ticket", "ticket")):
        done = run(
            "amtool",
            "prometheus-alertmanager",
            "config",
            "routes",
            "test",
            f"--config.file={ROOT / 'infra' / 'alertmanager' / 'alertmanager.yml'}",
            f"severity={severity}",
        )
        assert done.stdout.strip() == receiver, done.stderr
