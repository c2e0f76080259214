"""The demo's numbers in words and tables. It computes nothing and hides nothing."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table

from benchmarks.demo import WORKFLOW, Result
from contract.adaptation import CENSORED_AT
from training.household_scores import FEWEST_HOUSEHOLDS, Estimate, FamilyScore, PlayerScore

WHAT_IS_MEASURED = (
    "Real purchases of households: at each purchase one brand is offered, and the reward is 1 when "
    "the household bought that brand. It measures prediction of the next purchase under bandit "
    "feedback, not persuasion. Brand labels are permuted for each household, alike for every "
    "player, so that labels carry nothing. Rows ending in brand_aware see through the labels, "
    "which the service cannot; they are shown for scale."
)


def report(result: Result) -> Iterator[RenderableType]:
    """What to print, in order."""
    yield WHAT_IS_MEASURED
    for score in result.families:
        yield _table(score)
    yield (
        "reward: share of all purchases predicted ± standard error over households. policy − "
        "player: paired by household; negative where the player did better. each alike: the same "
        "with every household counted once, however little it bought (the policy's reward, below "
        "it the differences). adapted: the first interaction at which the cohort's mean reward has "
        "closed 80 % of the gap from a fixed label (chance) to each household's favourite brand; "
        f"never: not by interaction {CENSORED_AT}, or not while {FEWEST_HOUSEHOLDS} households "
        "still buy."
    )
    yield "\n".join(_losses(result)) or "No baseline that does not know the brands did better."
    yield (
        f"{result.interactions:,} decisions and as many feedbacks in {result.seconds:.1f} s: "
        f"{result.decisions_per_s:.0f} decisions/s; decide p50 {result.p50_ms:.1f} ms, p99 "
        f"{result.p99_ms:.1f} ms, as the client saw it with up to {result.in_flight} requests in "
        "flight, every one committed to the ledger."
    )
    yield _who_decided(result)


def how_to_go_on() -> str:
    """How to keep a service up, and a first decision and feedback to try."""
    json_header = "-H 'content-type: application/json'"
    return "\n".join(
        [
            "To keep a service up:   make serve",
            "and in another terminal, a decision and what came of it:",
            f"  curl -s localhost:8000/v1/workflows/{WORKFLOW}/decisions {json_header} \\",
            '    -d \'{"decision_id": "first", "account_id": "household-1", "context": {}}\'',
            f"  curl -s localhost:8000/v1/decisions/first/feedback {json_header} \\",
            "    -d '{\"reward\": 1}'",
        ]
    )


def _table(score: FamilyScore) -> Table:
    title = f"{score.family}: {score.households} households, adapted at {score.target:.2f}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("player", no_wrap=True)
    for heading in ("reward", "policy − player", "each alike", "adapted"):
        table.add_column(heading, justify="right", no_wrap=True)
    policy = score.policy
    table.add_row(
        "acclimate, over REST",
        _value(policy.reward),
        "",
        _value(policy.household_reward),
        _interactions(policy),
        style="bold",
        end_section=True,
    )
    for name, player in score.baselines.items():
        table.add_row(
            NAMES.get(name, name),
            _value(player.reward),
            _difference(player.difference),
            _difference(player.household_difference),
            _interactions(player),
            style="dim" if knows_brands(name) else None,
        )
    return table


def knows_brands(baseline: str) -> bool:
    """Whether a baseline sees through the labels."""
    return baseline.endswith("_brand_aware")


NAMES = {"ucb1": "ucb1 (textbook, c = 1)", "ucb1_tuned": "ucb1 tuned (c = 0.2)"}
"""What the table calls a baseline, where that is not its name in the JSON."""


def _losses(result: Result) -> Iterator[str]:
    """The baselines that did better, said aloud."""
    for score in result.families:
        for name, player in score.baselines.items():
            if player.difference.mean < 0 and not knows_brands(name):
                yield (
                    f"On {score.family}, {name} did better than the policy, by "
                    f"{-player.difference.mean:.3f} ± {player.difference.se:.3f}."
                )


def _who_decided(result: Result) -> str:
    others = {reason: n for reason, n in result.reasons.items() if reason != "policy"}
    if not others:
        return "Every decision was the policy's own."
    counted = ", ".join(f"{n:,} for reason {reason!r}" for reason, n in sorted(others.items()))
    return f"Not every decision was the policy's own: {counted}."


def _value(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} ± {estimate.se:.3f}"


def _difference(estimate: Estimate) -> str:
    text = f"{estimate.mean:+.3f} ± {estimate.se:.3f}"
    return f"[red]{text}[/red]" if estimate.mean < 0 else text


def _interactions(player: PlayerScore) -> str:
    reached = player.adaptation_interactions
    return "never" if reached is None else str(reached)
