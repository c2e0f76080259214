"""`acclimate openapi`: what the API is, for those who make clients or pages of it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from service.app import create_app
from service.cli import read_settings
from service.runtime import open_service

ANY_WORKFLOW = """
schema: 1
workflow: any
actions: [{id: a}, {id: b}]
fallback: {action: a}
adaptation: {target: 0.5}
"""
"""The API is the same whatever is served, but something has to be."""


def openapi_command(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a page instead.")] = False,
    policies: Annotated[Path | None, typer.Option(help="Directory of bundles.")] = None,
) -> None:
    """Print the API's OpenAPI description: what a running service has at /openapi.json."""
    described = asyncio.run(describe(policies))
    print(page(described) if markdown else json.dumps(described, indent=1, sort_keys=True))


async def describe(policies: Path | None = None) -> dict[str, Any]:
    """The OpenAPI description, from a service on nothing that is there."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "any.yaml").write_text(ANY_WORKFLOW)
        settings = read_settings(
            policies=policies, workflows=home, data_dir=home / "data", access="open"
        ).model_copy(update={"ledger_url": None, "redis_url": None, "jobs": "here"})
        async with open_service(settings, schedule=False) as service:
            return create_app(service).openapi()


def page(described: dict[str, Any]) -> str:
    """A reference of every route, its body and its answers, as Markdown."""
    return "\n".join(_lines(described))


def _lines(described: dict[str, Any]) -> Iterator[str]:
    yield "# API\n"
    yield "Made from the service's OpenAPI description (`acclimate openapi`). A running service has"
    yield "it at `/openapi.json`, and a page to try it out at `/docs`. Every refusal is a"
    yield "`application/problem+json` (RFC 9457) that names the field and what was expected.\n"
    schemas = described["components"]["schemas"]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            yield f"## {method.upper()} {path}\n"
            yield _text(operation.get("description", "")) + "\n"
            yield f"{_who(operation)}\n"
            yield from _parameters(operation)
            yield from _body(operation, schemas)
            yield from _answers(operation, schemas)


def _who(operation: dict[str, Any]) -> str:
    if "x-role" not in operation:
        return "Needs no key."
    every = ", of every tenant" if operation["x-every-tenant"] else ""
    return f"Needs a key of role **{operation['x-role']}**{every}."


def _parameters(operation: dict[str, Any]) -> Iterator[str]:
    found = [one for one in operation.get("parameters", ()) if one["in"] != "header"]
    if found:
        yield "| parameter | in | type | what it says |\n|---|---|---|---|"
        for one in found:
            says = _cell(one.get("description", ""))
            yield f"| `{one['name']}` | {one['in']} | {_type(one['schema'])} | {says} |"
        yield ""


def _body(operation: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body, `{kind}`:\n"
        yield from _fields(content["schema"], schemas)
        schema = _followed(content["schema"], schemas)
        for example in schema.get("examples", [])[:1]:
            yield f"```json\n{json.dumps(example, indent=2)}\n```\n"


def _answers(operation: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    refused = []
    for status, answer in sorted(operation["responses"].items()):
        if not status.startswith("2"):
            refused += [f"{status} {_text(answer['description']).rstrip('.').lower()}"]
            continue
        for kind, content in answer.get("content", {}).items():
            yield f"{status}, `{kind}`:\n"
            yield from _fields(content.get("schema", {}), schemas)
    named = "; ".join(one for one in refused if not one.startswith("default"))
    yield f"Refusals: {named or 'none of its own'}.\n"


def _fields(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    schema = _followed(schema, schemas)
    if "properties" not in schema:
        yield f"{_type(schema)}\n"
        return
    yield "| field | type | what it says |\n|---|---|---|"
    required = schema.get("required", ())
    for name, one in schema["properties"].items():
        star = " (required)" if name in required else ""
        yield f"| `{name}`{star} | {_type(one)} | {_cell(one.get('description', ''))} |"
    yield ""


def _followed(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (
        schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    )
    return found


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "any")


def _text(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")
