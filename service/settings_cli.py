"""`acclimate settings`: what may be set, by which name, and what it is when it is not."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape

from service.settings import Settings

WORDS = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret",
}
"""What is written for each type."""
LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}

PAGE = """# Settings

Every setting of `acclimate serve`, `worker`, `beat` and `migrate` is an environment variable. This
page is made from [service/settings.py](../service/settings.py) by `acclimate settings --markdown`,
and a test holds them together. A value that does not fit is refused at start, by its name and
without being quoted.
"""


class Setting(NamedTuple):
    """One of them, in words."""

    name: str
    takes: str
    default: str
    says: str


def settings_command(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/settings.md.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """List every setting: its environment variable, what it takes, its default, what it does."""
    if markdown:
        print(page(), end="")
        return
    found = list(described())
    if as_json:
        print(json.dumps([one._asdict() for one in found]))
        return
    console = Console()
    for one in found:
        heading = f"[bold]{escape(one.name)}[/]  {escape(one.takes)}"
        console.print(f"{heading}, default {escape(one.default)}", highlight=False)
        console.print(f"  {escape(one.says)}\n", highlight=False)


def page() -> str:
    """docs/settings.md."""
    rows = [PAGE, "| variable | takes | default | what it does |", "|---|---|---|---|"]
    for one in described():
        says = one.says.replace("|", "\\|")
        rows.append(f"| `{one.name}` | {one.takes} | {one.default} | {says} |")
    return "\n".join(rows) + "\n"


def described() -> Iterator[Setting]:
    """Every setting, in the order of the class."""
    for name, field in Settings.model_fields.items():
        default = field.default
        yield Setting(
            f"ACCLIMATE_{name.upper()}",
            ", ".join([_takes(field.annotation), *_limits(field.metadata)]),
            "–" if default is None else f"`{json.dumps(default, default=str).strip(chr(34))}`",
            " ".join((field.description or "").split()),
        )


def _takes(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _takes(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{one}`" for one in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_takes(one) for one in get_args(annotation) if one is not type(None))
    return WORDS[typing.cast(type, annotation)]


def _limits(metadata: list[Any]) -> list[str]:
    found = ((sign, getattr(one, name, None)) for one in metadata for name, sign in LIMITS.items())
    return [f"{sign} {bound:g}" for sign, bound in found if bound is not None]
