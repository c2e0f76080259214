"""Every PromQL expression that rules, alerts and dashboards ask, and what it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser
import yaml

from tests.house.tree import ROOT

RULES = sorted((ROOT / "infra" / "prometheus" / "rules").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "infra" / "grafana" / "dashboards").glob("*.json"))
CHOICE = "$workflow"
"""What a dashboard puts in place of the workflows chosen."""


class Selected(NamedTuple):
    """One selector of an expression."""

    name: str
    labels: tuple[str, ...]


def rules() -> list[dict[str, Any]]:
    """Every rule of every file."""
    read = [yaml.safe_load(path.read_text()) for path in RULES]
    return [rule for one in read for group in one["groups"] for rule in group["rules"]]


def recorded() -> dict[str, list[str]]:
    """The expressions of every recording rule, by what they record."""
    found: dict[str, list[str]] = {}
    for rule in rules():
        if "record" in rule:
            found.setdefault(rule["record"], []).append(rule["expr"])
    return found


def panels() -> Iterator[tuple[str, str]]:
    """Every dashboard's expressions, each with the panel it is on."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", target["expr"]


def expressions() -> dict[str, list[str]]:
    """All of them, by where they are."""
    found: dict[str, list[str]] = {}
    for rule in rules():
        name = rule.get("alert") or rule["record"]
        found.setdefault(name, []).append(rule["expr"])
    for where, expression in panels():
        found.setdefault(where, []).append(expression)
    return found


def selected(expression: str) -> list[Selected]:
    """What an expression selects. Raises ValueError when it is no PromQL."""
    found: list[Selected] = []

    def visit(node: Any) -> bool:
        selector = getattr(node, "vector_selector", node)
        if isinstance(selector, promql_parser.VectorSelector):
            labels = tuple(one.name for one in selector.matchers.matchers)
            found.append(Selected(selector.name or "", labels))
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return sorted(set(found))
