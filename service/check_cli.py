"""`acclimate check`: says what is wrong with workflow files, by line. It changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from contract.encode import context_size
from contract.source import Problem
from contract.spec import WorkflowSpec
from service.bundles import Bundles
from service.check import Checked, check_files
from service.cli import read_settings
from service.pins import read_pins
from service.settings import SettingError

WRONG = 1


def check_command(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Workflow files.", exists=True, dir_okay=False),
    ],
    policies: Annotated[
        Path | None,
        typer.Option(help="Directory of bundles; default: $ACCLIMATE_POLICIES, else policies."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Say what is wrong with workflow files: file, line, field, and what was expected.

    Unknown and missing fields, names of nothing, empty ranges, limits and rules that do not compile
    or can never be evaluated, and whatever the policy cannot take: everything for which `acclimate
    serve` would refuse to start, in the same words. A warning is most likely a mistake, found by
    trying limits and rules on examples; it is served all the same.

    Exits with 0 when every file can be served, with 1 when one cannot, with 2 for bad usage.
    """
    settings = read_settings(policies=policies)
    try:
        pins = read_pins(settings.policy_pins)
    except SettingError as error:
        print(f"acclimate: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    checked = list(check_files(files, Bundles(settings.policies, pins)))
    is_fine = not any(one.errors for one in checked)
    if as_json:
        print(json.dumps({"ok": is_fine, "files": [_as_json(one) for one in checked]}))
    else:
        for line in (line for one in checked for line in _lines(one)):
            print(line)
    raise typer.Exit(0 if is_fine else WRONG)


def summary(checked: Checked) -> dict[str, Any] | None:
    """What a file that can be served comes to; None for one that cannot."""
    if checked.errors or checked.spec is None or checked.policy is None:
        return None
    spec, manifest = checked.spec, checked.policy.onnx.manifest
    return {
        "actions": len(spec.actions),
        "actions_taken": manifest.actions.max,
        "context_features": len(spec.context),
        "context_slots": context_size(spec),
        "context_slots_taken": manifest.context_size,
        "action_features": len(spec.actions[0].features),
        "action_features_taken": manifest.action_feature_size,
        "horizon": spec.horizon.interactions,
        "policy": spec.policy,
        "policy_sha256": checked.policy.sha256,
        "policy_is_default": not spec.names_policy,
        "limits": [limit.name for limit in spec.guardrails.limits],
        "required": [rule.name for rule in spec.guardrails.required],
        "caps": [cap.name for cap in spec.guardrails.caps],
        "cooldowns": [one.name for one in spec.guardrails.cooldowns],
        "exploration": _bounds(spec),
        "rules": len(spec.fallback.rules),
    }


def _as_json(checked: Checked) -> dict[str, Any]:
    return {
        "file": str(checked.path),
        "workflow": checked.spec.workflow if checked.spec else None,
        "ok": not checked.errors,
        "errors": [_problem(one) for one in checked.errors],
        "warnings": [_problem(one) for one in checked.warnings],
        "summary": summary(checked),
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {"line": problem.line, "field": problem.field, "message": problem.message}


def _lines(checked: Checked) -> Iterator[str]:
    yield from map(str, checked.errors)
    for warning in checked.warnings:
        yield f"{warning.file}:{warning.line}: warning: {warning.message}"
    found = summary(checked)
    if found is None or checked.spec is None:
        return
    default = ", the default" if found["policy_is_default"] else ""
    yield f"{checked.path}: {checked.spec.workflow} can be served"
    yield f"  actions          {found['actions']} of at most {found['actions_taken']}"
    yield f"  context          {_slots(found)}"
    yield f"  action features  {_features(found)}"
    yield f"  horizon          {found['horizon']} interactions"
    yield f"  policy           {found['policy']}{default}"
    yield f"  limits           {', '.join(found['limits']) or 'none'}"
    for kind in ("required", "caps", "cooldowns", "exploration"):
        if found[kind]:
            yield f"  {kind:<16} {', '.join(found[kind])}"
    rules = found["rules"]
    ordered = "one rule, then " if rules == 1 else f"{rules} rules, then " if rules else ""
    yield f"  fallback         {ordered}{checked.spec.fallback.action}"


def _bounds(spec: WorkflowSpec) -> list[str]:
    """What bounds deviations from the fallback."""
    exploration = spec.guardrails.exploration
    if exploration is None:
        return []
    rule = exploration.conservative
    budgets = [
        f"{one.at_most} per {one.per} in {one.window_seconds:g} s" for one in exploration.budgets
    ]
    return [
        *budgets,
        *([f"conservative at {rule.alpha:g}, credit {rule.credit:g}"] if rule else []),
    ]


def _slots(found: dict[str, Any]) -> str:
    if not found["context_features"]:
        return "none"
    if not found["context_slots_taken"]:
        return "feeds limits and rules alone: the policy takes none"
    return f"{found['context_slots']} of the policy's {found['context_slots_taken']} slots"


def _features(found: dict[str, Any]) -> str:
    if not found["action_features"]:
        return "none"
    if not found["action_features_taken"]:
        return f"{found['action_features']}, for limits alone: the policy takes none"
    return f"{found['action_features']} of the policy's {found['action_features_taken']}"
