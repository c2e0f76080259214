"""The dashboards are what their YAML says, and ask only for what the service exports."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from service.metrics import Metrics
from tests.house.tree import ROOT
from tests.infra.expressions import DASHBOARDS, Selected, expressions, panels, recorded, selected

GRAFANA = ROOT / "infra" / "grafana"
OF_A_TARGET = {"job", "instance"}
"""Labels that Prometheus adds to what it scrapes."""
OF_PROMETHEUS = {"up": set[str]()}


def exported() -> dict[str, set[str]]:
    """The labels of every series that a process exports, by its name."""
    registry = Metrics().registry
    found: dict[str, set[str]] = {}
    for collector in registry._collector_to_names:
        if not isinstance(collector, MetricWrapperBase):  # of the process: its samples say it
            for family in collector.collect():
                found |= {sample.name: set(sample.labels) for sample in family.samples}
            continue
        labels = set(collector._labelnames) | ({"le"} if collector._type == "histogram" else set())
        found |= dict.fromkeys(registry._collector_to_names[collector], labels)
    return found


def test_the_dashboards_are_what_their_descriptions_say() -> None:
    written = runpy.run_path(str(GRAFANA / "dashboards.py"))["boards"]()
    assert sorted(written) == DASHBOARDS, "run `make dashboards`"
    for path, text in written.items():
        assert path.read_text() == text, f"{path.name} is not of this tree: run `make dashboards`"
    assert len(written) == 3


@pytest.mark.parametrize("path", DASHBOARDS, ids=[path.stem for path in DASHBOARDS])
def test_every_panel_says_what_it_shows_and_asks_the_datasource_that_is_provisioned(
    path: Any,
) -> None:
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())
    (source,) = provisioned["datasources"]
    board = json.loads(path.read_text())
    shown = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len(shown) >= 10
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({panel["title"] for panel in shown}) == len(shown)
    for panel in shown:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": source["uid"]}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    assert source["type"] == "prometheus"


def test_dashboards_are_provisioned_from_a_folder_of_files() -> None:
    read = yaml.safe_load((GRAFANA / "provisioning/dashboards/acclimate.yml").read_text())
    (provider,) = read["providers"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
    uids = [json.loads(path.read_text())["uid"] for path in DASHBOARDS]
    assert len(set(uids)) == len(uids)


@pytest.mark.parametrize("where", sorted(expressions()))
def test_every_expression_parses_and_names_what_is_exported(where: str) -> None:
    known = exported() | OF_PROMETHEUS
    rules = recorded()
    for expression in expressions()[where]:
        asked = selected(expression)
        assert asked, expression
        for name, labels in asked:
            if name in rules:
                continue
            assert name in known, f"{where}: the service exports no {name}"
            assert set(labels) <= known[name] | OF_A_TARGET, f"{where}: {name} has no {labels}"


def test_an_expression_that_is_off_is_found() -> None:
    with pytest.raises(ValueError, match=r"."):
        selected("sum by (workflow) (rate(acclimate_decisions_total[5m])")
    (one,) = selected('rate(acclimate_nothing_total{workflow=~"$workflow"}[5m])')
    assert one == Selected("acclimate_nothing_total", ("workflow",))
    assert one[0] not in exported()


def test_every_rule_is_asked_for_by_an_alert_another_rule_or_a_dashboard() -> None:
    asked = {
        one.name
        for where, several in expressions().items()
        for expression in several
        for one in selected(expression)
        if where != one.name
    }
    assert set(recorded()) <= asked


def test_every_metric_is_on_a_dashboard_or_in_an_alert() -> None:
    def asked_by(names: Iterator[str]) -> set[str]:
        return {one.name for expression in names for one in selected(expression)}

    found = asked_by(one for several in expressions().values() for one in several)
    ours = {
        collector._name
        for collector in Metrics().registry._collector_to_names
        if isinstance(collector, MetricWrapperBase)
    }
    suffixes = ("", "_total", "_bucket", "_sum", "_count")
    unseen = {name for name in ours if not any(name + one in found for one in suffixes)}
    assert unseen <= UNSEEN, f"on no dashboard: {sorted(unseen - UNSEEN)}"


UNSEEN = {
    "acclimate_adaptation_target_reward",  # in the reward's own units: for people
    "acclimate_alarms_raised",  # those that are open are shown
    "acclimate_reward_scaled",  # by age and arm it says more
}


def test_panels_choose_workflows_where_what_they_show_has_them() -> None:
    for where, expression in panels():
        for name, labels in selected(expression):
            if "workflow" in exported().get(name, set()) and name != "acclimate_kill_switch":
                assert "workflow" in labels, f"{where}: {name}"
    assert promql_parser.parse('up{job="acclimate"}')
