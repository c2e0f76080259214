"""Playing workflows: feedback comes when it is known, and everybody meets the same accounts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.training.letters import SPEC, Letters
from training.peers.references import AnyAction
from training.tasks.workflows import encode_columns
from training.workflow_play import play

Array = NDArray[Any]


class Listener(AnyAction):
    """Notes before which decision it heard what of whom."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.default_rng(seed))
        self.decided = 0
        self.heard: list[tuple[int, Array, Array, Array, Array]] = []

    def choose(self, context: Array, mask: Array) -> NDArray[np.int64]:
        self.decided += 1
        return super().choose(context, mask)

    def learn(
        self, accounts: Array, context: Array, action: Array, reward: Array, done: Array
    ) -> None:
        self.heard.append((self.decided, accounts, context, action, reward))


def test_feedback_arrives_when_it_is_known_once_and_oldest_first() -> None:
    accounts = Letters(20, 30, seed=1, latest=5)
    listener = Listener(0)
    played = play(listener, accounts)
    accounts.reset()
    known = np.arange(1, 31)[:, None] + accounts._late
    for account in range(20):
        due = sorted((int(known[t, account]), t) for t in range(30) if known[t, account] < 30)
        got = [
            (decided, context[place], action[place], reward[place])
            for decided, who, context, action, reward in listener.heard
            for place in np.flatnonzero(who == account)
        ]
        assert [when for when, _ in due] == [decided for decided, *_ in got]
        for (_, t), (_, context, action, reward) in zip(due, got, strict=True):
            assert np.array_equal(context, played.context[t, account])
            assert (action, reward) == (played.served[t, account], played.reward[t, account])
    for _, who, *_ in listener.heard:
        assert (np.diff(who) > 0).all()


def test_without_delay_every_account_learns_between_two_decisions() -> None:
    listener = Listener(0)
    play(listener, Letters(7, 10, seed=1))
    assert [decided for decided, *_ in listener.heard] == list(range(1, 10))
    assert all(np.array_equal(who, np.arange(7)) for _, who, *_ in listener.heard)


def test_players_of_one_seed_meet_the_same_accounts_and_some_of_them_are_enough() -> None:
    one, other = (play(Listener(seed), Letters(12, 15, seed=4)) for seed in (0, 1))
    assert np.array_equal(one.context, other.context)
    assert np.array_equal(np.isnan(one.expected), np.isnan(other.expected))
    assert not np.array_equal(one.served, other.served)
    same = one.served == other.served
    assert np.array_equal(one.reward[same], other.reward[same])
    few = play(Listener(0), Letters(12, 15, seed=4), slice(3, 8))
    assert np.array_equal(few.context, one.context[:, 3:8])


def test_what_counts_is_the_expected_reward_of_what_was_not_forced() -> None:
    accounts = Letters(30, 20, seed=2)
    heard: list[int] = []
    played = play(Listener(0), accounts, on_decisions=heard.append)
    accounts.reset()
    for t in range(20):
        now = accounts.situation()
        means = now.means[np.arange(30), played.served[t]].astype(np.float32)
        assert np.array_equal(
            played.expected[t], np.where(now.forced >= 0, np.nan, means), equal_nan=True
        )
        encoded = encode_columns(SPEC, now.columns, 30, 2)
        assert np.array_equal(encoded, played.context[t])
        accounts.step(played.served[t])
    assert sum(heard) == 600
