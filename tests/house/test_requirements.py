"""constraints.txt pins everything the project installs, by name and version alone."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.tree import ROOT

PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>(?:[0-9]+!)?[0-9][0-9A-Za-z.]*)"
)
TORCH = "2.13.0"


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    matches = [PIN.fullmatch(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(m["name"]): m["version"] for m in matches if m}


def declared() -> dict[str, list[Requirement]]:
    """The requirements of pyproject.toml: those of every installation under "", then by extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"]} | project["optional-dependencies"]
    return {extra: [Requirement(line) for line in lines] for extra, lines in groups.items()}


def closure(requirements: list[Requirement]) -> dict[str, set[str]]:
    """Every package that these bring along on this machine, each with those that asked for it."""
    asked_by: dict[str, set[str]] = {}
    waiting = [("pyproject.toml", requirement) for requirement in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        asker, requirement = waiting.pop()
        extras = requirement.extras or {""}
        marker = requirement.marker
        name = canonicalize_name(requirement.name)
        if marker is not None and not marker.evaluate():
            continue
        asked_by.setdefault(name, set()).add(asker)
        if (name, frozenset(extras)) in seen:
            continue
        seen.add((name, frozenset(extras)))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        waiting += [(name, needed) for line in lines if (needed := wanted(line, extras))]
    return asked_by


def wanted(line: str, extras: set[str]) -> Requirement | None:
    """A requirement of a package installed with `extras`, where its marker holds."""
    requirement = Requirement(line)
    marker, requirement.marker = requirement.marker, None
    held = marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})
    return requirement if held else None


def test_constraints_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    strange = [line for line in lines if not line.startswith("#") and not PIN.fullmatch(line)]
    assert not strange


def test_every_package_the_project_brings_along_is_pinned() -> None:
    everything = closure([r for group in declared().values() for r in group])
    missing = sorted(set(everything) - set(pins()) - {"pip"})  # that is the environment's own
    assert not missing, f"not in constraints.txt (run `make constraints`): {missing}"


def test_every_pin_is_one_that_pyproject_allows() -> None:
    versions = pins()
    refused = [
        str(requirement)
        for requirements in declared().values()
        for requirement in requirements
        if (version := versions.get(canonicalize_name(requirement.name)))
        and not requirement.specifier.contains(version)
    ]
    assert not refused, f"not what constraints.txt pins (run `make constraints`): {refused}"


def test_torch_is_exact_and_comes_with_training_and_its_peer_only() -> None:
    groups = declared()
    del groups["bench"]
    assert str(next(r for r in groups["train"] if r.name == "torch").specifier) == f"=={TORCH}"
    assert pins()["torch"] == TORCH
    without = closure([r for extra, group in groups.items() if extra != "train" for r in group])
    assert "torch" not in without, f"torch comes in through {without['torch']}"
    assert closure(groups["train"])["torch"] == {"pyproject.toml"}
