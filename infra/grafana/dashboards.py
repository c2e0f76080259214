"""Writes the Grafana dashboards from the YAML files beside this one: `make dashboards`.

The YAML says what is on them: rows of panels, each a `number`, `lines` or `bars` with what it is
about, a unit, and queries by their legends. The JSON is by Grafana's own types
(grafana-foundation-sdk).
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat
from grafana_foundation_sdk.builders.timeseries import Panel as Lines
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

HOME = Path(__file__).parent
SOURCE = DataSourceRef(type_val="prometheus", uid="acclimate-prometheus")
WORKFLOWS = "label_values(acclimate_adaptation_target_interactions, workflow)"
"""What a dashboard lets choose from."""

Described = Mapping[str, Any]
"""A panel or a dashboard as YAML."""
Panel = stat.Panel | Lines | bargauge.Panel


def panel(described: Described, number: int) -> Panel:
    """One panel, of that number on its dashboard. Raises KeyError where it is none of the three."""
    if "lines" in described:
        made: Panel = lines(described)
    elif "bars" in described:
        made = bargauge.Panel().orientation(VizOrientation.HORIZONTAL).min(0).height(8).span(12)
        made = made.title(described["bars"])
    else:
        made = stat.Panel().no_value("–").height(5).span(4).title(described["number"])
    return (
        made.id(number)
        .description(" ".join(described["about"].split()))
        .unit(described["unit"])
        .datasource(SOURCE)
        .thresholds(limit(described))
        .targets(queries(described, over_time="lines" in described))
    )


def lines(described: Described) -> Lines:
    """Values over time, and a line `at` what they should stay on one side of."""
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST)
    made = (
        Lines()
        .title(described["lines"])
        .legend(legend.placement(LegendPlacement.BOTTOM).show_legend(True))
        .axis_soft_min(0)
        .show_points(VisibilityMode.NEVER)
        .line_width(2)
        .height(8)
        .span(12)
    )
    if "most" in described:
        made = made.max(described["most"])
    if described.get("stacked"):
        stacking = common.StackingConfig().mode(StackingMode.NORMAL)
        made = made.stacking(stacking).fill_opacity(20)
    if "at" in described:
        style = common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED)
        made = made.thresholds_style(style)
    return made


def limit(described: Described) -> dashboard.ThresholdsConfig:
    """Green on the good side of `at`, red on the other; without it no colour."""
    steps = [Threshold(value=None, color="text")]
    if "at" in described:
        colours = ("red", "green") if described.get("low_is_bad") else ("green", "red")
        steps = [
            Threshold(value=None, color=colours[0]),
            Threshold(value=described["at"], color=colours[1]),
        ]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def queries(described: Described, *, over_time: bool) -> list[Any]:
    """The panel's, with points for traced requests on the first where it wants `exemplars`."""
    made = []
    for i, (legend, expression) in enumerate(described["queries"].items()):
        one = prometheus.Dataquery().expr(" ".join(expression.split())).datasource(SOURCE)
        one = one.legend_format("" if legend == "all" else legend).ref_id(chr(ord("A") + i))
        exemplars = bool(described.get("exemplars")) and i == 0
        made.append(one.range().exemplar(exemplars) if over_time else one.instant())
    return made


def board(described: Described) -> str:
    """One dashboard's JSON, with a choice of workflows."""
    others = (
        dashboard.DashboardLink("Acclimate")
        .type(DashboardLinkType.DASHBOARDS)
        .tags(["acclimate"])
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(True)
    )
    workflow = (
        dashboard.QueryVariable("workflow")
        .label("Workflow")
        .datasource(SOURCE)
        .query(WORKFLOWS)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )
    made = (
        dashboard.Dashboard(described["title"])
        .uid(described["uid"])
        .description(" ".join(described["about"].split()))
        .tags(["acclimate"])
        .readonly()
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(others)
        .with_variable(workflow)
    )
    numbers = itertools.count(1)
    for row in described["rows"]:
        made = made.with_row(dashboard.Row(row["row"]).id(next(numbers)))
        for one in row["panels"]:
            made = made.with_panel(panel(one, next(numbers)))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def boards() -> dict[Path, str]:
    """Every dashboard's JSON, by where it goes."""
    return {
        HOME / "dashboards" / f"{path.stem}.json": board(yaml.safe_load(path.read_text()))
        for path in sorted(HOME.glob("*.yml"))
    }


if __name__ == "__main__":
    for path, text in boards().items():
        path.write_text(text)
        print(path, file=sys.stderr)
