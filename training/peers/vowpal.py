"""VowpalWabbit on each account alone: `cb_explore_adf` with SquareCB (Foster & Rakhlin 2020).

It needs the extra `peers`, and one workspace an account: milliseconds to open, so it plays few.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.draw import sample
from training.peers.missing import need
from training.peers.player import Actions, Terms

Array = NDArray[Any]


class VowpalSquareCB:
    """A workspace for each account; context crossed with the action, which keeps its own id."""

    def __init__(self, terms: Terms, *, gamma_scale: float, learning_rate: float) -> None:
        self._terms = terms
        vowpalwabbit = need("vowpalwabbit", "vw_squarecb")
        said = (
            f"--cb_explore_adf --squarecb --gamma_scale {gamma_scale} --quiet -b 12 "
            f"--learning_rate {learning_rate} --interactions ca"
        )
        self._workspaces = [vowpalwabbit.Workspace(said) for _ in range(terms.accounts)]
        self._actions = [_action_text(row, known) for row, known in enumerate(terms.features)]
        self._chances: dict[tuple[int, bytes, int], list[float]] = {}

    def choose(self, context: Array, mask: Array) -> Actions:
        """An action for each account, `[B]`."""
        luck = self._terms.rng.random(len(mask))
        chosen = np.empty(len(mask), np.int64)
        for account, workspace in enumerate(self._workspaces):
            allowed = np.flatnonzero(mask[account])
            lines = [_context_text(context[account]), *(self._actions[row] for row in allowed)]
            chances = np.asarray(workspace.predict("\n".join(lines)))
            place = int(sample(chances, luck[account]))
            chosen[account] = allowed[place]
            key = (account, context[account].tobytes(), int(chosen[account]))
            self._chances.setdefault(key, []).append(float(chances[place]))
        return chosen

    def learn(
        self, accounts: Array, context: Array, action: Array, reward: Array, done: Array
    ) -> None:
        """One interaction more in each of these accounts.

        The cost is what the reward misses of its range. An action that it did not choose itself,
        because it was forced, counts as certain.
        """
        costs = 1.0 - self._terms.unit(reward)
        for i, account in enumerate(accounts):
            row = int(action[i])
            waiting = self._chances.get((int(account), context[i].tobytes(), row))
            chance = waiting.pop(0) if waiting else 1.0
            lines = [_context_text(context[i]), *self._actions]
            lines[1 + row] = f"{row}:{costs[i]:.6f}:{chance:.6f} {lines[1 + row]}"
            self._workspaces[account].learn("\n".join(lines))


def _context_text(context: Array) -> str:
    """The shared line; a slot that is zero is left out."""
    slots = (f"{i}:{value:.5g}" for i, value in enumerate(context) if value)
    return f"shared |c one {' '.join(slots)}"


def _action_text(row: int, features: Array) -> str:
    known = (f"f{i}:{value:.5g}" for i, value in enumerate(features) if value)
    return f"|a id{row} {' '.join(known)}"
