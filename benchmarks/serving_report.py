"""The serving benchmark's figures as tables, and beside the targets they must reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.table import Table

RATIO = {"embedded": 0.5, "production": 0.4}
P99_RATIO = 4.0
BATCH_PER_S = 8_000
ACCOUNTS_P99_RATIO = 1.3
BYTES = 2_048
FALLBACKS = 0.001
"""The share of decisions that the policy may fail to make in time: the fallback answers faster."""
GUARDRAILS = 0.15
"""The share of a decision's time that guardrails may take."""
CLIENT_HEADROOM = 1.5
"""The client alone must be so many times as fast as the fastest system it measures."""
STEADY = 1.25
"""On a machine with nothing else to do, the echo's rounds differ by less than this factor."""


@dataclass(frozen=True)
class Verdict:
    """One target, and what was measured."""

    what: str
    measured: float | None
    target: float
    at_least: bool

    @property
    def reached(self) -> bool:
        """None was measured: it is missed."""
        if self.measured is None:
            return False
        if self.at_least:
            return self.measured >= self.target
        return self.measured <= self.target


def verdicts(result: dict[str, Any], parts: tuple[str, ...]) -> list[Verdict]:
    """The targets of the parts that were asked for."""
    found: list[Verdict] = []
    for name in ("embedded", "production"):
        if name in parts:
            found += _service_verdicts(name, result[name])
    if "batch" in parts:
        batch = result["batch"] or {}
        found.append(Verdict("batch decisions/s", batch.get("decisions_per_s"), BATCH_PER_S, True))
        found.append(
            Verdict("batch, share by fallback", batch.get("fallback_share"), FALLBACKS, False)
        )
    if "accounts" in parts:
        found += _account_verdicts(result["accounts"] or [])
    if result["echo"]:
        headroom = result["client"]["rps"] / result["echo"]["rps"]
        found.append(Verdict("client alone / echo", headroom, CLIENT_HEADROOM, True))
    return found


def _service_verdicts(name: str, figures: dict[str, Any]) -> Iterator[Verdict]:
    for kind, of_kind in (("decisions", figures), ("feedback", figures["feedback"])):
        yield Verdict(f"{name} {kind} / echo", of_kind["ratio"], RATIO[name], True)
        yield Verdict(f"{name} {kind} p99 / echo", of_kind["p99_ratio"], P99_RATIO, False)
    yield Verdict(f"{name}, share by fallback", figures["fallback_share"], FALLBACKS, False)
    yield Verdict(f"{name}, guardrails' share", figures["guardrail_share"], GUARDRAILS, False)


def _account_verdicts(costs: list[dict[str, Any]]) -> Iterator[Verdict]:
    if not costs:
        yield Verdict("accounts measured", None, 1, True)
        return
    fewest, most = costs[0], costs[-1]
    yield Verdict(
        f"p99 at {most['count']:,} / at {fewest['count']:,} accounts",
        most["p99_ms"] / fewest["p99_ms"],
        ACCOUNTS_P99_RATIO,
        False,
    )
    yield Verdict("bytes a memory", most["bytes"], BYTES, False)
    yield Verdict("accounts, share by fallback", most["fallback_share"], FALLBACKS, False)


def report(result: dict[str, Any], parts: tuple[str, ...]) -> Iterator[RenderableType]:
    """The tables, from the comparison to the verdicts."""
    if result["echo"]:
        yield _comparison(result, "decisions")
        yield _comparison(result, "feedback")
    if result["batch"]:
        yield _line("batch", _batch(result["batch"]))
    if result["replay"]:
        yield _line("replay", _replay(result["replay"]))
    if result["accounts"]:
        yield _accounts(result["accounts"])
    if (echo := result["echo"]) and echo["rps_max"] > STEADY * echo["rps_min"]:
        yield _line(
            "unquiet", "the echo's own rounds differ: something else took this machine's time"
        )
    client, machine = result["client"], result["machine"]
    yield _line("client", f"{client['rps']:,.0f} requests/s against a server that does nothing")
    yield _line(
        "machine", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"
    )
    if result["durability"]:
        yield _line("durable", ", ".join(f"{k}={v}" for k, v in result["durability"].items()))
    if targets := verdicts(result, parts):
        yield _targets(targets)


def _comparison(result: dict[str, Any], kind: str) -> Table:
    title = (
        f"{kind}: {result['connections']} connections, {result['rounds']} × "
        f"{result['seconds']:g} s; ratios to the echo of the same round"
    )
    table = _table(title, "system", "requests/s", "ratio", "p50 ms", "p99 ms", "p99 ratio")
    rows = {"echo": result["echo" if kind == "decisions" else "echo_feedback"]} | {
        name: result[name] if kind == "decisions" else result[name]["feedback"]
        for name in ("embedded", "production")
        if result[name]
    }
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['rps']:,.0f} ({row['rps_min']:,.0f}–{row['rps_max']:,.0f})",
            f"{row['ratio']:.2f}" if "ratio" in row else "",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['p99_ratio']:.2f}" if "p99_ratio" in row else "",
        )
    return table


def _batch(batch: dict[str, Any]) -> str:
    return (
        f"{batch['decisions_per_s']:,.0f} decisions/s and {batch['feedback_per_s']:,.0f} "
        f"feedback/s in batches of {batch['batch']}, the service on one core"
    )


def _replay(replay: dict[str, Any]) -> str:
    return (
        f"{replay['interactions_per_s']:,.0f} interactions/s, {replay['accounts']} accounts of "
        f"{replay['interactions_of_each']:,} interactions, by {replay['by']}"
    )


def _accounts(costs: list[dict[str, Any]]) -> Table:
    table = _table(
        "production, decisions for accounts drawn uniformly",
        *("memories", "requests/s", "p50 ms", "p99 ms", "echo p99 ms", "bytes", "key+value"),
    )
    for cost in costs:
        table.add_row(
            f"{cost['count']:,}",
            f"{cost['rps']:,.0f}",
            f"{cost['p50_ms']:.2f}",
            f"{cost['p99_ms']:.2f}",
            f"{cost['echo_p99_ms']:.2f}",
            f"{cost['bytes']:,.0f}",
            f"{cost['bytes_of_key_and_value']:,.0f}",
        )
    return table


def _targets(targets: list[Verdict]) -> Table:
    table = _table("targets", "what", "measured", "target", "")
    for one in targets:
        measured = "not measured" if one.measured is None else f"{one.measured:,.4g}"
        table.add_row(
            one.what,
            measured,
            f"{'≥' if one.at_least else '≤'} {one.target:,g}",
            "[green]reached[/green]" if one.reached else "[red]missed[/red]",
        )
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for other in others:
        table.add_column(other, justify="right")
    return table


def _line(name: str, text: str) -> str:
    return f"{name:>8}  {text}"
