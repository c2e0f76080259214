"""The ledger as files: what is read back is what the ledger has."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from contract.spec import parse_workflow
from service.clock import to_us
from service.ledger.reading import open_to_read
from service.ledger.records import LedgerUnavailableError
from service.ledger.scan import Scope
from service.ledger_cli import app
from service.ledger_export import COLUMNS, FEEDBACK, Export, ExportError
from service.settings import Settings
from tests.house.tree import ROOT
from tests.service.conftest import CONTEXT, WORKFLOW, Client, Open, Time

REVISED = WORKFLOW.replace("late: apply", "late: apply, aggregation: latest")
OTHER = WORKFLOW.replace("workflow: help", "workflow: other").replace(
    "values: [basic, premium]", "values: ['basic plan', 'a|b:c=d%']"
)
ODD = CONTEXT | {"plan": "a|b:c=d%"}


@pytest.fixture(params=["sqlite", "postgresql"])
async def either(
    request: pytest.FixtureRequest, open_client: Open, settings: Settings, time: Time
) -> AsyncIterator[Client]:
    """A service on each of the databases, with decisions of every kind; the service runs on while
    the ledger is exported."""
    (settings.workflows / "help.yaml").write_text(REVISED)
    (settings.workflows / "other.yaml").write_text(OTHER)
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with open_client(ledger_url=url) as client:
        for n in range(7):
            time.pass_seconds(1)
            await client.decide(f"a{n % 2}", decision_id=f"d{n}", actions=["mail", "wait"])
        for n in range(4):
            await client.learn(f"d{n}", reward=n - 1, feedback_id="1")
        await client.learn("d1", outcome="solved", feedback_id="2")  # revises it
        time.pass_seconds(200)
        await client.service.jobs.fold_defaults()
        await client.learn("d6", reward=2, feedback_id="1")  # one interaction more
        await client.decide("a1", decision_id="open", context=CONTEXT | {"plan": "basic"})
        await client.decide("a1", decision_id="x", workflow="other", context=ODD, tenant="t2")
        await client.learn("x", outcome="unsolved", tenant="t2", episode_end=True)
        yield client


def cli(client: Client, *arguments: str) -> Result:
    """The command line beside the running service; from a thread that has no loop."""
    settings = client.service.settings
    environment = {
        "ACCLIMATE_DATA_DIR": str(settings.data_dir),
        "ACCLIMATE_WORKFLOWS": str(settings.workflows),
        "ACCLIMATE_POLICIES": str(settings.policies),
        "ACCLIMATE_LEDGER_URL": settings.ledger,
    }
    return CliRunner().invoke(app, list(arguments), env=environment)


async def export(client: Client, to: Path, *arguments: str) -> str:
    result = await asyncio.to_thread(cli, client, "export", "--to", str(to), *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def names(directory: Path) -> list[str]:
    """The files that an export may have left in a directory."""
    return sorted(one.name for one in directory.glob("e[.-]*"))


async def recorded(client: Client, decision_id: str, tenant: str = "default") -> dict[str, Any]:
    """What the service itself says of a decision."""
    headers = {"X-Acclimate-Tenant": tenant}
    answer = await client.http.get(f"/v1/decisions/{decision_id}", headers=headers)
    found: dict[str, Any] = answer.json()
    return found


async def test_parquet_read_back_is_what_the_ledger_has(
    either: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ledger_export.PAGE", 3)
    file = tmp_path / "all.parquet"
    await export(either, file, "--all")
    table = pyarrow.parquet.read_table(file)
    assert table.column_names == list(COLUMNS)
    rows = {row["decision_id"]: row for row in table.to_pylist()}
    assert sorted(rows) == ["d0", "d1", "d2", "d3", "d4", "d5", "d6", "open", "x"]
    for decision_id, row in rows.items():
        record = await recorded(either, decision_id, row["tenant"])
        assert json.loads(row["context"]) == record["context"]
        for name in ("action", "probability", "draw", "reason", "limits", "policy", "asked_for",
                     "workflow", "account_id", "episode_id", "spec_version",
                     "memory_position", "memory_generation"):  # fmt: skip
            assert row[name] == record[name], name
        assert row["created_at"] == datetime.fromisoformat(record["created_at"])
        assert [
            {name: one[name] for name in ("feedback_id", "kind", "reward", "outcome", "late")}
            for one in row["feedback"]
        ] == [
            {name: one[name] for name in ("feedback_id", "kind", "reward", "outcome", "late")}
            for one in record["feedback"]
        ]
    assert [rows[f"d{n}"]["reward"] for n in range(7)] == [-1, 3, 1, 2, -1, -1, 2]
    kinds = [rows[f"d{n}"]["reward_kind"] for n in range(7)]
    assert kinds == ["received"] * 4 + ["default"] * 2 + ["received"]
    assert (rows["open"]["reward"], rows["open"]["interaction_position"]) == (None, None)
    d1, d6 = rows["d1"], rows["d6"]
    assert (d1["interaction_generation"], d1["interaction_position"]) == (1, 1)
    assert [one["folded_reward"] for one in d1["feedback"]] == [0, 3]
    assert [one["position"] for one in d6["feedback"]] == [4, 5]  # the default's, and one more
    assert (rows["x"]["tenant"], rows["x"]["episode_end"]) == ("t2", True)


async def test_the_parquet_schema_says_what_each_column_is(either: Client, tmp_path: Path) -> None:
    await export(either, tmp_path / "e.parquet")
    schema = pyarrow.parquet.read_schema(tmp_path / "e.parquet")
    for field in schema:
        assert field.metadata[b"description"].decode() == COLUMNS[field.name][1]
    assert str(schema.field("created_at").type) == "timestamp[us, tz=UTC]"
    assert [one.name for one in schema.field("feedback").type.value_type] == list(FEEDBACK)


def test_the_document_has_every_column_with_what_it_says() -> None:
    document = (ROOT / "docs" / "operating-the-ledger.md").read_text()
    for name, (_, said) in COLUMNS.items():
        assert re.search(rf"^\| `{name}` \| [^|]+ \| {re.escape(said)} \|$", document, re.M), name
    for name in FEEDBACK:
        assert f"\n| `{name}` | " in document, name


async def test_only_what_came_to_a_reward_is_written_unless_all_is_asked_for(
    either: Client, tmp_path: Path
) -> None:
    assert "8 decisions" in await export(either, tmp_path / "a.parquet")
    assert "9 decisions" in await export(either, tmp_path / "b.parquet", "--all")
    assert "7 decisions" in await export(either, tmp_path / "c.parquet", "--workflow", "help")
    assert "1 decisions" in await export(either, tmp_path / "d.parquet", "--tenant", "t2")
    third = datetime.fromtimestamp(1_800_000_003, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    said = await export(either, tmp_path / "e.parquet", "--workflow", "help", "--since", third)
    assert "5 decisions" in said


async def test_json_lines_say_the_same_as_parquet(either: Client, tmp_path: Path) -> None:
    await export(either, tmp_path / "e.parquet", "--all")
    await export(either, tmp_path / "e.jsonl", "--all")
    rows = pyarrow.parquet.read_table(tmp_path / "e.parquet").to_pylist()
    lines = (tmp_path / "e.jsonl").read_text().splitlines()
    for row, line in zip(rows, lines, strict=True):
        told = json.loads(line)
        assert told.pop("context") == json.loads(row.pop("context"))
        assert datetime.fromisoformat(told["created_at"]) == row["created_at"]
        plain = json.loads(json.dumps(row, default=lambda moment: moment.isoformat()))
        assert told == plain


class Line(NamedTuple):
    """One line of Vowpal Wabbit's contextual bandit text."""

    label: tuple[int, float, float] | None
    features: dict[str, float]


NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"
LABEL = re.compile(rf"([1-9][0-9]*):({NUMBER}):({NUMBER}) ")
FEATURE = re.compile(rf"([^\s:|]+)(?::({NUMBER}))?")


def parse(line: str) -> Line:
    """Reads a line as strictly as the format's own words allow; ValueError for any other."""
    label, bar, features = line.partition("|")
    if not bar or "|" in features or (features and not features.startswith(" ")):
        raise ValueError(line)
    found = LABEL.fullmatch(label)
    if label and found is None:
        raise ValueError(line)
    parts = [FEATURE.fullmatch(one) for one in features.split(" ")[1:]]
    if None in parts:
        raise ValueError(line)
    return Line(
        (int(found[1]), float(found[2]), float(found[3])) if found else None,
        {one[1]: float(one[2] or 1) for one in parts if one},
    )


async def test_vowpal_wabbit_lines_parse_and_are_what_the_ledger_has(
    either: Client, tmp_path: Path
) -> None:
    await export(either, tmp_path / "e.vw")
    assert names(tmp_path) == [
        "e-help.vw",
        "e-help.vw.json",
        "e-other.vw",
        "e-other.vw.json",
    ]
    sidecar = json.loads((tmp_path / "e-help.vw.json").read_text())
    assert sidecar["actions"] == {"1": "wait", "2": "mail", "3": "call"}
    await export(either, tmp_path / "e.parquet", "--workflow", "help")
    rows = pyarrow.parquet.read_table(tmp_path / "e.parquet").to_pylist()
    lines = (tmp_path / "e-help.vw").read_text().splitlines()
    for row, line in zip(rows, map(parse, lines), strict=True):
        assert line.label is not None
        action, cost, probability = line.label
        assert sidecar["actions"][str(action)] == row["action"]
        assert (-cost, probability) == (row["reward"], row["probability"])
        assert line.features == {"tenure": 50, "plan=premium": 1, "note=calm": 1, "age": 1}
    (odd,) = (tmp_path / "e-other.vw").read_text().splitlines()
    assert "plan=a%7Cb%3Ac%3Dd%25" in parse(odd).features


async def test_vowpal_wabbit_has_no_label_for_what_came_to_no_reward(
    either: Client, tmp_path: Path
) -> None:
    await export(either, tmp_path / "e.vw", "--all", "--workflow", "help")
    lines = [parse(line) for line in (tmp_path / "e.vw").read_text().splitlines()]
    assert [line.label is None for line in lines].count(True) == 1
    assert len(lines) == 8


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("e.csv", "expected a file that ends in .parquet, .vw or .jsonl, got '.csv'"),
        ("none/e.jsonl", "No such file or directory"),
    ],
)
async def test_what_cannot_be_written_is_refused_and_leaves_no_file(
    client: Client, tmp_path: Path, to: str, expected: str
) -> None:
    result = await asyncio.to_thread(cli, client, "export", "--to", str(tmp_path / to))
    assert result.exit_code == 2
    assert expected in result.stderr
    assert names(tmp_path) == []


async def test_a_workflow_that_nobody_knows_has_no_numbers(client: Client, tmp_path: Path) -> None:
    ledger = open_to_read(client.service.settings.ledger)
    for scope in (Scope(), Scope(workflow="none")):
        with pytest.raises(ExportError, match="expected"):
            Export(scope, tmp_path / "e.vw").run(ledger)
    await ledger.close()


async def test_a_ledger_opened_to_read_cannot_be_written_and_is_not_changed(
    either: Client,
) -> None:
    ledger = open_to_read(either.service.settings.ledger)
    registered = ledger.spec_versions("help")
    other = parse_workflow(REVISED + "description: another\n")
    assert ledger.register_spec(parse_workflow(REVISED), 0) == 1
    assert ledger.register_spec(other, 0) == len(registered) + 1
    with pytest.raises(LedgerUnavailableError):
        await ledger.reset((await ledger.heads_changed(0, 1))[0][0], to_us(datetime.now(UTC)))
    assert ledger.spec_versions("help") == registered
    await ledger.close()


def test_what_is_no_ledger_of_this_version_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailableError, match="unable to open"):
        open_to_read(f"sqlite:///{tmp_path / 'none.sqlite'}")
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(LedgerUnavailableError, match="version None, expected"):
        open_to_read(f"sqlite:///{tmp_path / 'empty.sqlite'}")
