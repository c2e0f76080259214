"""Simulated accounts, played against a live service: all of it is in the ledger, once, in order."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from acclimate import main
from acclimate_client import (
    AcclimateError,
    Ask,
    Client,
    Decision,
    InvalidRequestError,
    Learned,
    UnavailableError,
)
from contract.spec import WorkflowSpec
from guardrails.fallback import Fallback
from guardrails.limits import Limits
from tests.bundles import write_default_bundle
from tests.processes import free_port
from tests.service_process import ServiceProcess
from training.simulate import Group, Pace, Play, Simulation, _asks, _contexts, groups_of
from training.simulate_rations import Rationed
from training.simulate_report import by_batch, gap_closed
from training.simulate_service import RefusedError, Service, ServiceAwayError
from training.tasks.workflows.accounts import Situation
from training.tasks.workflows.families import FILES, family_spec, verticals
from training.tasks.workflows.simulation import SimulatedAccounts

WORKFLOW = "retention-offer"
RATIONED = "support-routing"
CAP = "forty_tickets_a_day_for_engineering"
VERTICAL = verticals(WORKFLOW)[0]
ACCOUNTS, DECISIONS = 6, 12


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """An embedded service of two workflows, on a policy as roomy as the default one."""
    home = tmp_path_factory.mktemp("simulated")
    (home / "workflows").mkdir()
    for name in (WORKFLOW, RATIONED):
        shutil.copy(FILES / f"{name}.yaml", home / "workflows")
    write_default_bundle(home / "policies")
    running = ServiceProcess(
        home / "data", workflows=home / "workflows", policies=home / "policies"
    )
    running.start()
    yield running
    running.terminate()


def simulate(url: str, *arguments: object, workflow: str = WORKFLOW) -> Result:
    """What the command does with a few accounts."""
    few = ["--accounts", ACCOUNTS, "--decisions", DECISIONS, "--vertical", VERTICAL]
    options = ["--url", url, "--patience", 0, *few, "--json", *arguments]
    return CliRunner().invoke(main, ["simulate", workflow, *map(str, options)])


def played(url: str, *arguments: object) -> dict[str, Any]:
    """What it tells when all is well."""
    ended = simulate(url, *arguments)
    assert ended.exit_code == 0, ended.output
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


class Row(NamedTuple):
    """A decision in the ledger, with its feedback."""

    account: str
    number: int
    context: dict[str, Any]
    asked_for: list[str] | None
    action: str
    position: int
    """Interactions in the memory that it was made from."""
    reward: float | None


def ledger(service: ServiceProcess, prefix: str) -> dict[tuple[str, int], Row]:
    """What the ledger holds of the accounts whose ids begin so, by account and decision."""
    with sqlite3.connect(f"file:{service.data_dir / 'ledger.sqlite'}?mode=ro", uri=True) as read:
        rows = read.execute(
            "SELECT d.account_id, d.decision_id, d.context, d.asked_for, d.action, d.position,"
            " f.reward FROM decisions d LEFT JOIN feedback f ON f.decision_id = d.decision_id"
            " WHERE d.account_id LIKE ? || '-%'",
            (prefix,),
        ).fetchall()
    found = {}
    for account, decision, context, asked_for, action, position, reward in rows:
        number = int(decision.rsplit("-", 1)[1])
        assert decision == f"{account}-{number}"
        assert (account, number) not in found  # one piece of feedback each
        asked = json.loads(asked_for) if asked_for else None
        row = Row(account, number, json.loads(context), asked, action, position, reward)
        found[account, number] = row
    return found


def test_everything_that_was_played_is_in_the_ledger_with_what_the_simulator_says_of_it(
    service: ServiceProcess,
) -> None:
    told = played(service.base_url, "--seed", 3)
    rows = ledger(service, told["account_prefix"])
    assert told["decisions"] == len(rows) == ACCOUNTS * DECISIONS
    assert sum(told["reasons"].values()) == len(rows)
    assert sum(told["feedback"].values()) == len(rows)
    assert set(told["feedback"]) == {"folded"}
    assert told["policies"] == {"universal/1": len(rows)}
    # The simulator by itself, given the actions that the ledger says were served.
    play = Play(WORKFLOW, (VERTICAL,), ACCOUNTS, DECISIONS, 3)
    assert play.prefix == told["account_prefix"]
    (group,) = groups_of(play, family_spec(WORKFLOW))
    ids = group.accounts.spec.action_ids
    rewards = np.zeros((DECISIONS, ACCOUNTS))
    forced = 0
    for t in range(DECISIONS):
        situation = group.accounts.situation()
        contexts = _contexts(group, situation)
        of_t = [rows[account, t] for account in group.ids]
        outcome = group.accounts.step(np.array([ids.index(row.action) for row in of_t]))
        for i, row in enumerate(of_t):
            assert row.context == contexts[i]
            if situation.forced[i] >= 0:
                forced += 1
                assert row.asked_for == [row.action] == [ids[situation.forced[i]]]
            assert row.reward == outcome.reward[i]
        rewards[t] = outcome.reward
    assert forced > 0
    assert told["reward"] == {"1": pytest.approx(rewards[:10].mean()), "5": None, "20": None}


def test_the_same_run_again_changes_nothing_and_another_name_plays_anew(
    service: ServiceProcess,
) -> None:
    first = played(service.base_url)
    before = ledger(service, first["account_prefix"])
    for more in ((), ("--batch",)):
        ended = simulate(service.base_url, *more)
        assert "had been played before: --run NAME" in ended.stderr
        again = json.loads(ended.stdout)
        assert ledger(service, first["account_prefix"]) == before
        assert again["feedback"] == {"duplicate": len(before)}
        for same in ("reward", "expected", "reasons", "limits", "adaptation", "account_prefix"):
            assert again[same] == first[same]
    anew = played(service.base_url, "--run", "anew", "--batch")
    assert anew["feedback"] == {"folded": len(before)}
    assert len(ledger(service, anew["account_prefix"])) == len(before)


@pytest.mark.parametrize("how", [(), ("--batch",)])
def test_feedback_is_sent_once_it_is_known_and_what_is_left_at_the_end(
    service: ServiceProcess, how: tuple[str, ...]
) -> None:
    told = played(service.base_url, "--delay", 3, "--run", f"late{len(how)}", *how)
    rows = ledger(service, told["account_prefix"]).values()
    assert [row.position for row in rows] == [max(row.number - 3, 0) for row in rows]
    assert all(row.reward is not None for row in rows)
    assert told["feedback"] == {"folded": len(rows)}


def test_a_cap_that_an_account_has_used_up_ends_no_run(service: ServiceProcess) -> None:
    """Neither where what it takes away is forced, nor where it is asked for among others."""
    few = ("--vertical", verticals(RATIONED)[0], "--decisions", 40, "--seed", 1, "--batch")
    play = Play(RATIONED, verticals(RATIONED)[:1], ACCOUNTS, 40, 1)
    (group,) = groups_of(play, family_spec(RATIONED))
    contexts = _contexts(group, group.accounts.situation())
    with Client(service.base_url) as client:
        for account, context in zip(group.ids, contexts, strict=True):
            ask = Ask(account, {**context, "severity": 0.5}, ["engineering"])
            used = client.decide_many(RATIONED, [ask] * 40)
            assert all(isinstance(one, Decision) and one.action == "engineering" for one in used)
    ended = CliRunner().invoke(
        main,
        ["simulate", RATIONED, "--url", service.base_url, "--patience", "0", "--json"]
        + [str(one) for one in ("--accounts", ACCOUNTS, *few)],
    )
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert told["account_prefix"] == play.prefix
    assert told["limits"][CAP] > 0
    with sqlite3.connect(f"file:{service.data_dir / 'ledger.sqlite'}?mode=ro", uri=True) as read:
        asked = read.execute(
            "SELECT asked_for, action FROM decisions WHERE account_id LIKE ? || '-%'"
            " AND decision_id LIKE account_id || '-%'",
            (play.prefix,),
        ).fetchall()
    assert len(asked) == told["decisions"] == 240
    assert "engineering" not in {action for _, action in asked}
    assert ('["engineering"]', "general_queue") in asked


def test_feedback_may_wait_for_seconds_too(service: ServiceProcess) -> None:
    told = played(service.base_url, "--delay", "60s", "--run", "patient")
    rows = ledger(service, told["account_prefix"]).values()
    assert {row.position for row in rows} == {0}
    assert told["feedback"] == {"folded": len(rows)}


def test_decisions_come_no_faster_than_asked_for(service: ServiceProcess) -> None:
    told = played(service.base_url, "--decisions", 2, "--rate", 16)
    assert told["decisions"] == 12
    assert told["seconds"] >= 11 / 16


def test_accounts_are_shared_out_over_verticals_and_may_change(service: ServiceProcess) -> None:
    two = verticals(WORKFLOW)[:2]
    more = ("--vertical", two[1], "--accounts", 5, "--change-at", 6)
    told = played(service.base_url, *more)
    accounts = {row.account for row in ledger(service, told["account_prefix"]).values()}
    shares = Counter(one.split("-")[2] for one in accounts)
    assert shares == {two[0]: 3, two[1]: 2}
    assert told["verticals"] == list(two)


def test_people_get_tables(service: ServiceProcess) -> None:
    options = ["--accounts", "2", "--decisions", "10", "--url", service.base_url]
    ended = CliRunner().invoke(main, ["simulate", WORKFLOW, *options, "--vertical", VERTICAL])
    assert ended.exit_code == 0, ended.output
    for told in (
        "20 decisions for 2 accounts",
        "expected, oracle",
        "policy 20",
        "Adapted accounts",
    ):
        assert told in ended.output


def test_nobody_there_is_said_and_exits_with_3() -> None:
    ended = simulate(f"http://127.0.0.1:{free_port()}")
    assert ended.exit_code == 3
    assert "no service at http://127.0.0.1" in ended.stderr
    assert "acclimate serve" in ended.stderr


class Refusing:
    """A client whose service answers, until it does not."""

    def __init__(self, spec: WorkflowSpec, answers: int, error: AcclimateError) -> None:
        self.spec, self.answers, self.error = spec, answers, error

    async def decide(self, workflow: str, account_id: str, *_: Any, **ask: Any) -> Decision:
        self.answers -= 1
        if self.answers < 0:
            raise self.error
        action = (ask["actions"] or [self.spec.guardrails.safe_action])[0]
        now = datetime.now(UTC)
        return Decision(ask["decision_id"], account_id, action, 1.0, "policy", "p/1", 0, (), now)

    async def learn(self, decision_id: str, **told: Any) -> Learned:
        return Learned(decision_id, "folded", told["reward"], False, 1)

    async def decide_many(self, workflow: str, asks: Sequence[Any]) -> list[Any]:
        return [self.error for _ in asks]


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (UnavailableError("no answer"), ServiceAwayError),
        (InvalidRequestError("context.plan: expected another", 422), RefusedError),
    ],
)
async def test_a_service_that_goes_away_or_refuses_ends_the_run_with_its_words(
    error: AcclimateError, raised: type[Exception], batch: bool
) -> None:
    spec = family_spec(WORKFLOW)
    play = Play(WORKFLOW, (VERTICAL,), ACCOUNTS, DECISIONS, 0)
    service = cast(Service, SimpleNamespace(client=Refusing(spec, 4, error)))
    simulation = Simulation(service, play, Pace(batch=batch), groups_of(play, spec))
    with pytest.raises(raised, match=str(error)):
        await simulation.run()


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "another vertical": (("--vertical", "moon"), "vertical: expected some of"),
    "a vertical twice": (("--vertical", VERTICAL), "vertical: expected each once"),
    "no delay": (("--delay", "soon"), "delay: expected decisions (3) or seconds (2.5s)"),
    "a delay longer than the trial": (("--delay", DECISIONS), "delay: expected 0 to 11"),
    "a change after the end": (("--change-at", 99), "change_at: expected 1 to 11"),
    "nobody": (("--accounts", 0), "accounts: expected at least one"),
    "nothing": (("--decisions", 0), "steps: expected at least 1"),
    "backwards": (("--rate", -1), "rate: expected decisions a second"),
    "a name of other characters": (("--run", "a b"), "run: expected 1 to 40 of"),
    "no address": (("--url", "not an address"), "url: expected http://host:port"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_usage_that_cannot_work_is_refused_by_name_and_exits_with_2(
    service: ServiceProcess, case: str
) -> None:
    arguments, message = WRONG[case]
    ended = simulate(service.base_url, *arguments)
    assert ended.exit_code == 2, ended.output
    assert message in ended.stderr


def test_a_workflow_that_nobody_simulates_or_serves_is_refused(
    service: ServiceProcess, tmp_path: Path
) -> None:
    nobody = simulate(service.base_url, workflow="brand-choice")
    assert nobody.exit_code == 2
    assert "workflow: expected one of retention-offer" in nobody.stderr
    (tmp_path / "mine.yaml").write_text("schema: 1\n")
    wrong = simulate(service.base_url, workflow=str(tmp_path / "mine.yaml"))
    assert wrong.exit_code == 2
    assert "mine.yaml:1: workflow: Field required" in wrong.stderr


def test_a_service_whose_workflow_is_another_is_refused() -> None:
    spec = family_spec(WORKFLOW)
    fewer = spec.model_copy(update={"actions": spec.actions[:-1]})
    play = Play(WORKFLOW, (VERTICAL,), ACCOUNTS, DECISIONS, 0)
    with pytest.raises(ValueError, match="spec: expected the actions that"):
        groups_of(play, fewer)


# What is asked for


def group_of(spec: WorkflowSpec, accounts: int) -> Group:
    """Accounts of any workflow, with no simulator behind them."""
    stub = cast(SimulatedAccounts, SimpleNamespace(spec=spec))
    ids = [f"a{i}" for i in range(accounts)]
    return Group(stub, ids, np.arange(accounts), Limits(spec), Rationed(spec), Fallback(spec))


def situation_of(masks: list[str], forced: list[int]) -> Situation:
    """Contexts in which nothing is forbidden."""
    b, k = len(masks), len(masks[0])
    fine = {"tenure_months": 40.0, "plan": 2, "in_dispute": False}
    names = family_spec(WORKFLOW).context
    columns = {name: np.array([fine.get(name, 0)] * b) for name in names}
    return Situation(
        columns=columns,
        mask=np.array([[one == "1" for one in mask] for mask in masks]),
        forced=np.array(forced),
        means=np.zeros((b, k)),
        oracle=np.zeros(b, np.int64),
    )


def test_all_a_subset_or_what_is_forced_is_asked_for() -> None:
    spec = family_spec(WORKFLOW)
    situation = situation_of(["111111", "101000", "111111"], [-1, -1, 3])
    asks = list(_asks(group_of(spec, 3), situation, 7))
    first, third = spec.action_ids[0], spec.action_ids[2]
    assert [ask.actions for ask in asks] == [None, [first, third], [spec.action_ids[3]]]
    assert [ask.decision_id for ask in asks] == ["a0-7", "a1-7", "a2-7"]
    assert {ask.episode_id for ask in asks} == {None}


def answers(actions: list[str], limits: list[tuple[str, ...]]) -> list[Decision]:
    """What a service served to each account, and which limits it says took something."""
    now = datetime.now(UTC)
    return [
        Decision(f"d{i}", f"a{i}", action, 1.0, "policy", "p/1", 0, named, now)
        for i, (action, named) in enumerate(zip(actions, limits, strict=True))
    ]


def test_what_a_named_cap_took_is_gone_from_what_was_asked_for() -> None:
    spec = family_spec(RATIONED)
    engineering = spec.action_ids.index("engineering")
    situation = situation_of(["111111", "110110", "000100", "111111"], [-1, -1, -1, engineering])
    lawful = [None, np.array([one == "1" for one in "110110"]), None, None]
    made = answers(["general_queue"] * 4, [(), (CAP,), (CAP,), (CAP, "nobody_knows")])
    left = Rationed(spec).left(situation, lawful, made)
    assert ["".join("01"[one] for one in row) for row in left.astype(int)] == [
        "111111",
        "110010",
        "010000",  # nothing asked for is left: the safe action
        "010000",
    ]


def test_the_best_action_and_a_force_are_of_what_is_left() -> None:
    play = Play(RATIONED, (verticals(RATIONED)[0],), 40, 30, 0)
    (group,) = groups_of(play, family_spec(RATIONED))
    while not (group.accounts.situation().forced >= 0).any():
        group.accounts.step(group.accounts.fallback())
    before, rows = group.accounts.situation(), np.arange(40)
    assert np.array_equal(group.accounts.narrow(before.mask).forced, before.forced)
    gone = np.where(before.forced >= 0, before.forced, before.oracle)
    left = before.mask & (np.arange(6) != gone[:, None])
    left[~left.any(axis=1)] = before.mask[~left.any(axis=1)]
    after = group.accounts.narrow(left)
    assert left[rows, after.oracle].all()
    best = np.where(left, before.means, -np.inf).max(axis=1)
    assert np.array_equal(before.means[rows, after.oracle], best)
    is_left = left[rows, gone]
    assert (after.forced[~is_left] == -1).all()
    assert (before.forced[~is_left] >= 0).any()
    outcome = group.accounts.step(after.oracle)
    assert np.array_equal(outcome.served[~is_left], after.oracle[~is_left])


@pytest.mark.parametrize("named", [(), ("no_machine_for_an_outage",)])
def test_another_action_than_was_forced_is_refused_where_no_cap_explains_it(
    named: tuple[str, ...],
) -> None:
    spec = family_spec(RATIONED)
    play = Play(RATIONED, (verticals(RATIONED)[0],), 40, 30, 0)
    groups = groups_of(play, spec)
    simulation = Simulation(cast(Service, SimpleNamespace(client=None)), play, Pace(), groups)
    (group,) = groups
    while not (group.accounts.situation().forced >= 0).any():
        group.accounts.step(group.accounts.fallback())
    now = group.accounts.situation()
    rows = np.arange(40)
    others = np.where(now.mask & (np.arange(6) != now.forced[:, None]), 1, 0).argmax(axis=1)
    chosen = [spec.action_ids[one] for one in others]
    assert now.mask[rows, others].any()
    with pytest.raises(RefusedError, match="instead of what was forced"):
        simulation._serve(group, now, answers(chosen, [named] * 40))


def test_a_journey_of_several_decisions_has_a_name_of_its_own() -> None:
    spec = family_spec(WORKFLOW).model_copy(update={"episodes": "multi_step"})
    situation = situation_of(["111111"] * 2, [-1, -1])
    assert [ask.episode_id for ask in _asks(group_of(spec, 2), situation, 0)] == ["a0-e0", "a1-e1"]


# Figures


def test_a_batch_that_was_not_played_to_its_end_is_null() -> None:
    rewards = np.arange(60.0)[:, None].repeat(2, axis=1)
    assert by_batch(rewards) == {"1": 4.5, "5": 44.5, "20": None}
    assert by_batch(rewards[:9]) == {"1": None, "5": None, "20": None}


def test_the_gap_closed_is_that_of_the_last_ten_decisions() -> None:
    fallback, oracle = np.zeros((20, 3)), np.ones((20, 3))
    served = np.repeat([0.0, 1.0], 10)[:, None] * np.ones(3)
    closed = gap_closed(served, fallback, oracle)
    assert np.isnan(closed[:9]).all()
    assert closed[9:] == pytest.approx(np.arange(11) / 10)
    assert np.isnan(gap_closed(served, fallback, fallback)).all()
