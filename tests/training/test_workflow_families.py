"""Simulated workflows: pairing, limits, luck and what every family promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.encode import check_context, context_size, encode_contexts
from guardrails.fallback import Fallback
from guardrails.limits import Limits
from tests.house.tree import ROOT
from training.tasks.workflows import Accounts, Outcome, Situation, encode_columns, raw_context
from training.tasks.workflows.families import (
    FAMILIES,
    HELD_OUT_VERTICALS,
    TRAINING_VERTICALS,
    Options,
    build_accounts,
    family_of,
    family_spec,
    verticals,
)
from training.tasks.workflows.simulation import SimulatedAccounts

Array = NDArray[Any]
Chooses = Callable[[SimulatedAccounts, Situation], Array]


def accounts_of(
    workflow: str,
    vertical: str = "",
    accounts: int = 40,
    steps: int = 30,
    seed: int = 3,
    **more: Any,
) -> SimulatedAccounts:
    built = build_accounts(
        workflow,
        vertical or verticals(workflow)[0],
        accounts=accounts,
        steps=steps,
        rng=np.random.default_rng(seed),
        **more,
    )
    assert isinstance(built, SimulatedAccounts)
    built.reset()
    return built


def oracle(accounts: SimulatedAccounts, now: Situation) -> Array:
    return now.oracle


def fallback(accounts: SimulatedAccounts, now: Situation) -> Array:
    return accounts.fallback()


def last_allowed(accounts: SimulatedAccounts, now: Situation) -> Array:
    return np.asarray(accounts.actions - 1 - now.mask[:, ::-1].argmax(axis=1))


def at_random(accounts: SimulatedAccounts, now: Situation) -> Array:
    uniforms = np.random.default_rng(accounts.t).random(now.mask.shape)
    return np.asarray(np.where(now.mask, uniforms, -1.0).argmax(axis=1))


def always(action: int) -> Chooses:
    """This action wherever it is allowed."""
    return lambda accounts, now: np.where(now.mask[:, action], action, accounts.fallback())


def play(accounts: SimulatedAccounts, choose: Chooses) -> list[tuple[Situation, Outcome]]:
    played = []
    for _ in range(accounts.steps):
        now = accounts.situation()
        played.append((now, accounts.step(choose(accounts, now))))
    return played


def mean_reward(accounts: SimulatedAccounts, choose: Chooses) -> float:
    """Expected reward of what was served."""
    rows = np.arange(accounts.num_envs)
    return float(np.mean([s.means[rows, o.served].mean() for s, o in play(accounts, choose)]))


@pytest.mark.parametrize("workflow", FAMILIES)
def test_every_family_offers_what_players_need(workflow: str) -> None:
    accounts: Accounts = accounts_of(workflow)
    assert (accounts.num_envs, accounts.steps) == (40, 30)
    assert accounts.spec == family_spec(workflow)
    assert accounts.situation() is accounts.situation(), "asking again gives the same"
    assert context_size(accounts.spec) <= 16
    assert 4 <= len(accounts.spec.actions) <= 8
    assert len(accounts.spec.actions[0].features) <= 4


@pytest.mark.parametrize("workflow", FAMILIES)
def test_players_of_one_seed_meet_the_same_accounts_and_coins(workflow: str) -> None:
    one, other = accounts_of(workflow), accounts_of(workflow)
    first, second = play(one, last_allowed), play(other, last_allowed)
    for (now, came), (again, came_again) in zip(first, second, strict=True):
        np.testing.assert_array_equal(now.means, again.means)
        np.testing.assert_array_equal(came.reward, came_again.reward)
        np.testing.assert_array_equal(came.known_at, came_again.known_at)
    third = accounts_of(workflow)
    play(third, oracle)
    for name, values in one.latents.items():
        np.testing.assert_array_equal(values, third.latents[name])
    np.testing.assert_array_equal(one._coins, third._coins)
    another = accounts_of(workflow, seed=4)
    assert (another.situation().means != first[0][0].means).any()


@pytest.mark.parametrize("workflow", FAMILIES)
def test_means_are_what_rewards_average_to(workflow: str) -> None:
    accounts = accounts_of(workflow, accounts=4000, steps=5)
    rows = np.arange(accounts.num_envs)
    played = play(accounts, last_allowed)
    expected = np.stack([s.means[rows, o.served] for s, o in played])
    rewards = np.stack([o.reward for _, o in played])
    error = np.std(rewards - expected) / np.sqrt(rewards.size)
    assert abs(np.mean(rewards - expected)) < 4 * error
    low, high = accounts.spec.reward.min, accounts.spec.reward.max
    assert (rewards >= low).all()
    assert (rewards <= high).all()
    slope = np.polyfit(expected.ravel(), rewards.ravel(), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("workflow", FAMILIES)
def test_masks_and_fallbacks_are_those_of_the_guardrails(workflow: str) -> None:
    for vertical in verticals(workflow)[:2]:
        accounts = accounts_of(workflow, vertical, steps=25)
        limits, rules = Limits(accounts.spec), Fallback(accounts.spec)
        forbade = 0
        for _ in range(accounts.steps):
            now = accounts.situation()
            contexts = [raw_context(accounts.spec, now.columns, b) for b in range(40)]
            lawful = accounts._allowed(accounts.lawful(now.columns), np.ones_like(now.mask))
            allowed = limits.allow_each(contexts, [None] * 40)
            np.testing.assert_array_equal(lawful, [one.mask for one in allowed])
            assert now.mask.any(axis=1).all()
            chosen = [rules.choose(c, m) for c, m in zip(contexts, now.mask, strict=True)]
            np.testing.assert_array_equal(accounts.fallback(), chosen)
            forbade += int((~lawful).sum())
            accounts.step(now.oracle)
        assert forbade > 0, "the limits never mattered"


@pytest.mark.parametrize("workflow", FAMILIES)
def test_contexts_are_as_declared_and_encoded_as_the_service_encodes_them(workflow: str) -> None:
    for vertical in verticals(workflow):
        accounts = accounts_of(workflow, vertical, steps=20)
        for now, _ in play(accounts, last_allowed):
            assert set(now.columns) == set(accounts.spec.context)
            contexts = [raw_context(accounts.spec, now.columns, b) for b in range(40)]
            for context in contexts[:10]:
                assert check_context(accounts.spec, context) == (context, ())
            np.testing.assert_allclose(
                encode_columns(accounts.spec, now.columns, 40, 16),
                encode_contexts(accounts.spec, contexts, 16),
                atol=1e-6,
            )


@pytest.mark.parametrize("workflow", FAMILIES)
def test_a_forced_action_is_served_whatever_is_chosen(workflow: str) -> None:
    forced = 0
    for now, came in play(accounts_of(workflow, accounts=200), last_allowed):
        hit = now.forced >= 0
        np.testing.assert_array_equal(came.served[hit], now.forced[hit])
        assert now.mask[hit, now.forced[hit]].all()
        forced += hit.sum()
    assert 0.01 < forced / 6000 < 0.06


@pytest.mark.parametrize("workflow", FAMILIES)
def test_some_decisions_ask_for_a_part_of_the_actions(workflow: str) -> None:
    accounts = accounts_of(workflow, accounts=200)
    fewer = 0
    for now, _ in play(accounts, last_allowed):
        fewer += (now.mask.sum(axis=1) < accounts.lawful(now.columns).sum(axis=1)).sum()
    assert 0.01 < fewer / 6000 < 0.08


@pytest.mark.parametrize("workflow", FAMILIES)
@pytest.mark.parametrize("delay", [0, 7])
def test_a_delay_asked_for_is_exact_and_changes_nothing_else(workflow: str, delay: int) -> None:
    as_it_is = play(accounts_of(workflow), oracle)
    delayed = play(accounts_of(workflow, options=Options(delay=delay)), oracle)
    for t, ((_, came), (_, same)) in enumerate(zip(as_it_is, delayed, strict=True)):
        np.testing.assert_array_equal(same.known_at, t + 1 + delay)
        np.testing.assert_array_equal(same.reward, came.reward)
        assert (came.known_at > t).all()


@pytest.mark.parametrize("workflow", FAMILIES)
def test_left_alone_some_feedback_is_late_and_some_comes_together(workflow: str) -> None:
    played = play(accounts_of(workflow, accounts=200), oracle)
    late = np.stack([came.known_at for _, came in played]) - np.arange(1, 31)[:, None]
    assert 0.1 < (late == 0).mean() < 0.98
    assert (late > 0).any(axis=0).mean() > 0.15


@pytest.mark.parametrize("workflow", FAMILIES)
def test_a_change_asked_for_comes_to_every_account_and_at_no_other_time(workflow: str) -> None:
    accounts = accounts_of(workflow, options=Options(change_at=11))
    untouched = accounts_of(workflow)
    for name, values in untouched.latents.items():
        np.testing.assert_array_equal(values, accounts.latents[name])
    seen = []
    for _ in range(accounts.steps):
        seen.append({name: values.copy() for name, values in accounts.latents.items()})
        accounts.step(accounts.situation().oracle)
    floating = [n for n, v in seen[0].items() if np.issubdtype(v.dtype, np.floating)]
    for t in range(1, accounts.steps):
        same = all(np.array_equal(seen[t][n], seen[t - 1][n]) for n in floating)
        assert same == (t != 11)
    for name in floating:
        assert (seen[10][name] != seen[11][name]).reshape(40, -1).any(axis=1).all()


@pytest.mark.parametrize("workflow", FAMILIES)
def test_left_alone_some_accounts_change_and_some_drift(workflow: str) -> None:
    accounts = accounts_of(workflow, accounts=300)
    name = next(n for n, v in accounts.latents.items() if np.issubdtype(v.dtype, np.floating))
    moves = np.zeros(300)
    before = accounts.latents[name].copy()
    for _ in range(accounts.steps):
        accounts.step(accounts.situation().oracle)
        moves += (accounts.latents[name] != before).reshape(300, -1).any(axis=1)
        before = accounts.latents[name].copy()
    assert 0.05 < (moves == 1).mean() < 0.25
    assert 0.03 < (moves > 10).mean() < 0.2
    assert (moves == 0).mean() > 0.5


@pytest.mark.parametrize("workflow", FAMILIES)
def test_knowing_the_account_is_worth_a_tenth_of_the_reward_range(workflow: str) -> None:
    spec = family_spec(workflow)
    width = spec.reward.max - spec.reward.min
    fixed = [always(action) for action in range(len(spec.actions))]
    for vertical in (TRAINING_VERTICALS[workflow][0], HELD_OUT_VERTICALS[workflow][-1]):
        known, rules, random, *each = (
            mean_reward(accounts_of(workflow, vertical, 150, 40), choose)
            for choose in (oracle, fallback, at_random, *fixed)
        )
        assert known > max(rules, random) + 0.1 * width
        assert known > max(each) + 0.08 * width


@pytest.mark.parametrize("workflow", FAMILIES)
def test_verticals_are_split_and_differ(workflow: str) -> None:
    training, held_out = TRAINING_VERTICALS[workflow], HELD_OUT_VERTICALS[workflow]
    assert not set(training) & set(held_out)
    assert verticals(workflow) == training + held_out
    met = []
    for vertical in verticals(workflow):
        now = accounts_of(workflow, vertical, 300, 1).situation()
        seen = [*now.means.T, *(column for _, column in sorted(now.columns.items()))]
        met.append(np.array([np.mean(one) for one in seen]))
    for i, one in enumerate(met):
        for other in met[:i]:
            assert np.abs(one - other).max() > 0.02


def test_the_split_is_the_one_that_is_written_down() -> None:
    written = (ROOT / "docs" / "workflow-families.md").read_text()
    for workflow in FAMILIES:
        start = written.index(f"\n## {workflow}\n")
        part = written[start : written.find("\n## ", start + 1)]
        rows = [line.split(" | ")[:2] for line in part.splitlines() if line.startswith("| ")]
        split = {
            name.removeprefix("| "): how for name, how in rows if how in ("training", "held-out")
        }
        assert split == dict.fromkeys(TRAINING_VERTICALS[workflow], "training") | dict.fromkeys(
            HELD_OUT_VERTICALS[workflow], "held-out"
        )
        for latent in family_of(workflow).segments.centres:
            assert f"`{latent}`" in part


WRONG = [
    ({"workflow": "nope"}, "^workflow: expected one of .*retention-offer.*, got 'nope'"),
    ({"vertical": "nope"}, "^vertical: expected one of .*streaming.*, got 'nope'"),
    ({"accounts": 0}, "^accounts: expected at least 1, got 0"),
    ({"steps": 0}, "^steps: expected at least 1, got 0"),
    ({"options": Options(delay=10)}, "^delay: expected 0 to 9, .*, got 10"),
    ({"options": Options(delay=-1)}, "^delay: expected 0 to 9, .*, got -1"),
    ({"options": Options(change_at=10)}, "^change_at: expected 1 to 9, .*, got 10"),
    ({"options": Options(change_at=0)}, "^change_at: expected 1 to 9, .*, got 0"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG)
def test_what_cannot_be_built_is_refused_by_the_name_of_its_field(
    changed: dict[str, Any], message: str
) -> None:
    asked: dict[str, Any] = {"workflow": "retention-offer", "vertical": "streaming"}
    asked |= {"accounts": 3, "steps": 10, "rng": np.random.default_rng(0)} | changed
    with pytest.raises(ValueError, match=message):
        build_accounts(asked.pop("workflow"), asked.pop("vertical"), **asked)


@pytest.mark.parametrize(
    "workflow",
    [
        "fraud-step-up",
        "onboarding",
        "lead-qualification",
        "gripper-calibration",
        "aisle-navigation",
    ],
)
def test_every_reward_is_that_of_an_outcome_which_the_file_names(workflow: str) -> None:
    accounts = accounts_of(workflow, accounts=300)
    rewards = np.unique([came.reward for _, came in play(accounts, at_random)])
    named = np.array(list(accounts.spec.reward.outcomes.values()))
    assert np.abs(rewards[:, None] - named).min(axis=1) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("workflow", ["support-routing", "onboarding", "aisle-navigation"])
def test_journeys_end_once_and_where_several_are_open_they_take_turns(workflow: str) -> None:
    accounts = accounts_of(workflow, accounts=100, steps=60)
    met: list[list[tuple[int, bool]]] = [[] for _ in range(100)]
    for _ in range(60):
        numbers = accounts.episode
        done = accounts.step(accounts.situation().oracle).done
        for b, (number, over) in enumerate(zip(numbers, done, strict=True)):
            met[b].append((int(number), bool(over)))
    turns = 0
    for journeys in met:
        ended: set[int] = set()
        for (number, over), (before, _) in zip(journeys, [(0, False), *journeys], strict=False):
            assert number not in ended
            turns += number != before and before not in ended
            if over:
                ended.add(number)
        assert len(ended) > 5
    assert (turns > 300) == (workflow != "aisle-navigation")


def test_a_reset_brings_new_accounts() -> None:
    accounts = accounts_of("retention-offer")
    first = accounts.situation().means
    accounts.reset()
    assert (accounts.situation().means != first).mean() > 0.9


def test_another_version_of_the_file_may_say_otherwise_only_what_the_simulator_does_not_know() -> (
    None
):
    own = family_spec("retention-offer")
    named = own.model_copy(update={"policy": "retention-offer/1"})
    assert accounts_of("retention-offer", spec=named).spec.policy == "retention-offer/1"
    fewer = own.model_copy(update={"actions": own.actions[:-1]})
    with pytest.raises(ValueError, match=r"^spec: expected the actions that retention-offer\.yaml"):
        accounts_of("retention-offer", spec=fewer)


def test_a_choice_that_cannot_be_served_is_refused() -> None:
    accounts = accounts_of("retention-offer")
    for wrong in (np.zeros(3, int), np.zeros(40), np.full(40, 6), np.full(40, -1)):
        with pytest.raises(ValueError, match=r"^actions: expected"):
            accounts.step(wrong)
    forbidden = (~accounts.situation().mask).argmax(axis=1)
    with pytest.raises(ValueError, match="that the mask allows"):
        accounts.step(forbidden)


def test_a_trial_that_is_over_says_so() -> None:
    accounts = accounts_of("retention-offer", steps=2)
    play(accounts, oracle)
    with pytest.raises(RuntimeError, match="reset first"):
        accounts.situation()
