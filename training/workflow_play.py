"""Plays simulated workflow accounts with any player. It scores nothing.

Decisions and feedback take the turns that they take in service: feedback is learned in the order in
which it arrives, and the action learned is the one served, whoever chose it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.encode import Float32, context_size
from training.peers.player import Player
from training.tasks.workflows import Accounts, encode_columns

Array = NDArray[Any]

EVERYONE = slice(None)


@dataclass(frozen=True)
class Played:
    """What B accounts went through in T decisions."""

    expected: NDArray[np.float32]
    """Expected reward of the action served, `[T, B]`, in the reward's own units; NaN where it was
    forced, for there nobody chose."""
    context: Float32
    """Encoded, `[T, B, C]`."""
    served: NDArray[np.int64]
    """`[T, B]`."""
    reward: NDArray[np.float64]
    """Raw, `[T, B]`."""
    seconds: float
    """Processor time of the player alone."""


def play(
    player: Player,
    accounts: Accounts,
    rows: slice = EVERYONE,
    on_decisions: Callable[[int], None] = lambda count: None,
) -> Played:
    """The player on the accounts in `rows`, from their first decision to their last.

    The others are served whatever is allowed first, which changes nothing for these.
    `on_decisions` hears how many decisions were just made.
    """
    accounts.reset()
    here = np.arange(accounts.num_envs)[rows]
    steps, batch, spec = accounts.steps, here.size, accounts.spec
    slots = context_size(spec)
    context = np.empty((steps, batch, slots), np.float32)
    served = np.empty((steps, batch), np.int64)
    reward = np.empty((steps, batch))
    done = np.empty((steps, batch), bool)
    expected = np.empty((steps, batch), np.float32)
    post = _Post()
    seconds = 0.0
    for t in range(steps):
        situation = accounts.situation()
        encoded = encode_columns(spec, situation.columns, accounts.num_envs, slots)
        context[t] = encoded[rows]
        mask = situation.mask[rows]
        began = time.process_time()
        for who, when in post.delivered(t):
            player.learn(
                who, context[when, who], served[when, who], reward[when, who], done[when, who]
            )
        chosen = player.choose(context[t], mask)
        seconds += time.process_time() - began
        actions = situation.mask.argmax(axis=1)
        actions[rows] = chosen
        outcome = accounts.step(actions)
        served[t], reward[t] = outcome.served[rows], outcome.reward[rows]
        done[t] = outcome.done[rows]
        forced = situation.forced[rows] >= 0
        expected[t] = np.where(forced, np.nan, situation.means[here, served[t]])
        post.send(t, outcome.known_at[rows])
        on_decisions(batch)
    return Played(expected, context, served, reward, seconds)


class _Post:
    """Feedback on its way: of which accounts, of which decision, and when it arrives."""

    def __init__(self) -> None:
        self._due: dict[int, list[tuple[Array, Array]]] = defaultdict(list)

    def send(self, t: int, known_at: Array) -> None:
        """The feedback of decision t, known to account b before decision `known_at[b]`."""
        for when in np.unique(known_at):
            who = np.flatnonzero(known_at == when)
            self._due[int(when)].append((who, np.full(who.size, t)))

    def delivered(self, t: int) -> Iterator[tuple[Array, Array]]:
        """What arrives before decision t, as (accounts, decisions) `[N]` each.

        No account is twice in one round, accounts ascend, and an account's older decisions come in
        earlier rounds.
        """
        arrived = self._due.pop(t, [])
        if len(arrived) < 2:
            yield from arrived
            return
        who = np.concatenate([each for each, _ in arrived])
        when = np.concatenate([each for _, each in arrived])
        order = np.lexsort((when, who))
        who, when = who[order], when[order]
        starts = np.flatnonzero(np.diff(who, prepend=-1))
        rounds = np.arange(who.size) - np.repeat(starts, np.diff(starts, append=who.size))
        for number in range(int(rounds.max()) + 1):
            now = rounds == number
            yield who[now], when[now]
