"""Onboarding: users on their way from sign-up to activation, each step helped by another action.

An account is an organisation, an episode one of its users. Three stages, each left forwards or by
dropping out, both logistic in what helps and what annoys this organisation's users. Choices move
the stage; the oracle is the policy with the highest reward a decision, exact for each journey at
the account's long-run rate (`chains`). Numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from training.tasks.workflows.chains import best_rate, chain_worth
from training.tasks.workflows.journeys import MOST_OPEN, Journeys
from training.tasks.workflows.season import Season
from training.tasks.workflows.simulation import Served, SimulatedAccounts
from training.tasks.workflows.verticals import Latents, Segments, Vertical, largest, logistic, pick

Array = NDArray[Any]

WORKFLOW = "onboarding"

GUIDED_TOUR, SAMPLE_PROJECT, DATA_IMPORT, CALL, REMINDER_MAIL, PEER_INVITE = range(6)

STAGES = 3

GAIN = np.array([0.2, 0.2, 1.0])
"""Reward of the step forward from each stage; the last one is activation."""

# Logits of moving on that a role (maker, manager, admin) and a phone add, for every organisation.
ROLE_FIT = np.array(
    [
        [0.1, 0.4, -0.3, -0.5, 0.0, 0.2],
        [0.1, -0.2, -0.5, 0.5, 0.1, 0.2],
        [-0.1, 0.0, 0.7, 0.1, 0.0, -0.2],
    ]
)
PHONE_FIT = np.array([0.2, -0.4, -1.2, 0.3, 0.4, 0.1])

SEGMENTS = Segments(
    names=("explorers", "data_first", "hand_held", "busy", "team_led"),
    centres={
        "moves": np.array(
            [
                [[0.3, 1.9, -1.6, -1.8, -0.9, -0.8], [0.0, 0.7, -0.6, 2.4, -1.0, -0.4],
                 [-0.8, 0.7, -0.8, 2.2, -0.6, 0.2]],
                [[-0.9, -1.2, 1.8, -0.6, -1.2, -1.4], [-0.8, -0.6, 0.7, -0.4, 2.4, -1.0],
                 [0.9, -0.2, 0.2, -0.4, 2.4, -0.6]],
                [[0.6, -1.4, -1.6, 1.9, -1.4, -0.6], [0.4, -1.0, -0.8, 2.0, -1.4, -0.4],
                 [0.0, -0.8, -1.0, 1.8, -1.0, 0.0]],
                [[-1.2, -0.8, -2.0, -2.0, 1.9, -0.8], [-1.0, 0.4, -1.8, 2.4, 0.8, -0.6],
                 [-1.4, -0.4, -1.6, 2.4, 0.8, 0.0]],
                [[-0.6, -0.8, -1.4, -0.4, -1.0, 1.9], [-0.8, -0.2, -0.6, -0.6, -1.2, 2.0],
                 [-0.6, -0.6, -1.0, 0.0, -0.6, 1.8]],
            ]
        ),
        "drops": np.array(
            [
                [-2.6, -3.2, -1.8, -0.6, -1.9, -2.2],
                [-2.8, -2.4, -3.0, -2.0, -0.5, -1.8],
                [-2.6, -1.8, -1.4, -3.2, -1.9, -2.4],
                [-1.4, -2.2, -1.0, -0.5, -3.0, -1.7],
                [-2.2, -2.2, -1.6, -2.2, -1.9, -3.2],
            ]
        ),
        "particular": np.array([1.0, 1.2, 0.8, 1.0, 0.8]),
        "company": np.array([0.3, 0.3, 0.5, 0.3, 1.2]),
        "season": np.array([[0.1, 0.0], [0.0, 0.3], [0.2, 0.1], [0.5, -0.4], [0.1, 0.1]]),
    },
    deviations={"moves": 0.4, "drops": 0.3, "particular": 0.2, "company": 0.2, "season": 0.15},
    meanings={
        "moves": (
            "logits of moving on from each stage. What moves explorers, the data-minded and "
            "the busy fastest later on also makes most of them leave"
        ),
        "drops": "logits of dropping out",
        "particular": "share of the role's and the phone's effects that the users feel",
        "company": "logits of moving on between nobody active yet and all",
        "season": "logits of moving on along the sine and cosine of the year",
    },
)  # fmt: skip

TRAINING: Mapping[str, Vertical] = {
    "analytics": Vertical(
        about="analytics tools: data first, admins set up, makers explore",
        segments=(0.24, 0.40, 0.12, 0.10, 0.14),
        mix={"role": (0.4, 0.25, 0.35), "language": (0.7, 0.1, 0.2)},
        facts={"phone": 0.15, "active": 0.4, "consent": 0.7},
    ),
    "design": Vertical(
        about="design tools: makers who explore and invite their team",
        segments=(0.42, 0.08, 0.08, 0.14, 0.28),
        shift={"particular": 0.1},
        mix={"role": (0.7, 0.2, 0.1), "language": (0.6, 0.15, 0.25)},
        facts={"phone": 0.3, "active": 0.5, "consent": 0.6},
    ),
    "payroll": Vertical(
        about="payroll: managers who want a person on the line, at the turn of the year",
        segments=(0.08, 0.26, 0.40, 0.16, 0.10),
        shift={"season": (0.2, 0.2), "drops": -0.1},
        mix={"role": (0.15, 0.45, 0.4), "language": (0.4, 0.4, 0.2)},
        facts={"phone": 0.1, "active": 0.3, "consent": 0.9},
    ),
    "field-service": Vertical(
        about="field service: on phones, busy, reminded by mail",
        segments=(0.10, 0.10, 0.22, 0.38, 0.20),
        shift={"company": 0.2},
        mix={"role": (0.6, 0.3, 0.1), "language": (0.3, 0.3, 0.4)},
        facts={"phone": 0.75, "active": 0.45, "consent": 0.8},
    ),
}

HELD_OUT: Mapping[str, Vertical] = {
    "crm": Vertical(
        about="customer databases: imports, calls, whole sales teams at once",
        segments=(0.12, 0.28, 0.26, 0.10, 0.24),
        shift={"moves": (0.0, 0.0, 0.2, 0.1, -0.1, 0.1)},
        spread=1.1,
        mix={"role": (0.3, 0.45, 0.25), "language": (0.5, 0.2, 0.3)},
        facts={"phone": 0.3, "active": 0.35, "consent": 0.85},
    ),
    "learning": Vertical(
        about="learning platforms: explorers and the busy, on phones, at the start of term",
        segments=(0.34, 0.04, 0.16, 0.30, 0.16),
        shift={"season": (0.3, -0.3), "drops": 0.1},
        spread=1.1,
        mix={"role": (0.8, 0.12, 0.08), "language": (0.4, 0.1, 0.5)},
        facts={"phone": 0.55, "active": 0.55, "consent": 0.5},
    ),
}


class Onboarding(SimulatedAccounts):
    """B organisations."""

    coins: ClassVar[int] = 8

    def draw_latents(self, rng: np.random.Generator) -> Latents:
        """See SEGMENTS."""
        return SEGMENTS.draw(self.population, rng, self.num_envs)

    def open(self, rng: np.random.Generator) -> None:
        """One to three users have signed up already."""
        batch = self.num_envs
        self._season = Season(rng.random(batch), period=90)
        self._active = 0.5 * rng.beta(2.0, 2.0, batch) + 0.5 * self.population.facts["active"]
        first = self._user(rng.random((batch, MOST_OPEN, 5)), *self._season.at(0))
        self._journeys = Journeys(rng.random(batch), first)

    def _user(self, coins: Array, sine: Array, cosine: Array) -> dict[str, Array]:
        """New users from uniform numbers `[B, ..., 5]`, who signed up at this season `[B]`."""
        mix, facts = self.population.mix, self.population.facts
        shape = coins.shape[:-1]
        spread_out = (len(sine),) + (1,) * (len(shape) - 1)
        return {
            "stage": np.zeros(shape, np.int64),
            "role": pick(coins[..., 0], mix["role"]),
            "language": pick(coins[..., 1], mix["language"]),
            "on_phone": coins[..., 2] < facts["phone"],
            "may_call": coins[..., 3] < facts["consent"],
            "mail_opt_out": coins[..., 4] < 0.1,
            "season_sin": np.broadcast_to(sine.reshape(spread_out), shape),
            "season_cos": np.broadcast_to(cosine.reshape(spread_out), shape),
        }

    def context(self, coins: Array) -> dict[str, Array]:
        """The user whose turn it is."""
        user = self._journeys
        user.turn(coins[:, 0])
        names = ("stage", "role", "language", "on_phone", "season_sin", "season_cos")
        return {name: user[name] for name in (*names, "may_call", "mail_opt_out")} | {
            "team_active": self._active
        }

    def lawful(self, columns: Mapping[str, Array]) -> NDArray[np.bool_]:
        """Consent, and what comes too early."""
        by_stage = self._lawful_by_stage(columns)
        return by_stage[self.rows, columns["stage"]]

    def _lawful_by_stage(self, columns: Mapping[str, Array]) -> NDArray[np.bool_]:
        """What the limits leave of each user at each stage, `[..., S, K]`."""
        may_call, opt_out, role = (columns[n] for n in ("may_call", "mail_opt_out", "role"))
        lawful = np.ones((*role.shape, STAGES, self.actions), np.bool_)
        lawful[..., CALL] = may_call[..., None]
        lawful[..., REMINDER_MAIL] = ~opt_out[..., None]
        lawful[..., 0, DATA_IMPORT] = role != 0
        return lawful

    def rules(self, columns: Mapping[str, Array]) -> Sequence[tuple[Array, str]]:
        """By stage."""
        stage = columns["stage"]
        return (
            (stage == 0, "guided_tour"),
            ((stage == 1) & (columns["role"] == 2), "data_import"),
            (stage == 2, "reminder_mail"),
        )

    def means(self, columns: Mapping[str, Array]) -> NDArray[np.float64]:
        """The probability of a step forward, times what it counts."""
        self._on, self._off = _chances(self.latents, columns)
        here = self.rows, columns["stage"]
        means: NDArray[np.float64] = GAIN[columns["stage"]][:, None] * self._on[here]
        return means

    def worth(self, means: Array) -> Array:
        """The step, and what the user is then worth, a decision costing what it earns elsewhere."""
        lawful = self._lawful_by_stage(self.columns)
        rewards = np.where(lawful, GAIN[:, None] * self._on, -np.inf)
        all_stages = chain_worth(rewards, self._on, self._off, self.plans["rate"])
        later = np.append(largest(all_stages), np.zeros((self.num_envs, 1)), axis=1)
        stage = self.columns["stage"]
        here = self.rows, stage
        on, off = self._on[here], self._off[here]
        worth: Array = (
            means
            + on * later[self.rows, stage + 1][:, None]
            + (1.0 - on - off) * later[here][:, None]
        )
        return worth

    def plan(self, latents: Latents, rows: Array) -> Latents:
        """The best rate over all roles, phones and consents, at the mean of the year."""
        facts = self.population.facts
        role, phone, call = (
            np.ravel(one)[None]
            for one in np.meshgrid(range(3), *[[False, True]] * 2, indexing="ij")
        )
        shares = (
            np.asarray(self.population.mix["role"])[role]
            * np.where(phone, facts["phone"], 1.0 - facts["phone"])
            * np.where(call, facts["consent"], 1.0 - facts["consent"])
        )
        users = {"role": role, "on_phone": phone, "may_call": call}
        users["mail_opt_out"] = np.zeros_like(call)
        users["team_active"] = self._active[rows][:, None]
        users["season_sin"] = users["season_cos"] = np.zeros((1, 1))
        on, off = _chances({name: values[:, None] for name, values in latents.items()}, users)
        rewards = np.where(self._lawful_by_stage(users), GAIN[:, None] * on, -np.inf)
        return {"rate": best_rate(rewards, on, off, shares)}

    def serve(self, actions: Array, coins: Array) -> Served:
        """Moves on, stays or drops out."""
        stage = self.columns["stage"]
        at = self.rows, stage, actions
        moved = coins[:, 1] < self._on[at]
        dropped = coins[:, 1] >= 1.0 - self._off[at]
        self._journeys["stage"] = stage + moved
        done = dropped | (moved & (stage == STAGES - 1))
        self._journeys.renew(done, self._user(coins[:, 2:7], *self._season.at(self.t + 1)))
        # A step forward is seen at once; that there was none is known after a while.
        waits = np.where(moved, 0.0, np.floor(coins[:, 7] * 3.0)).astype(np.int64)
        return Served(np.where(moved, GAIN[stage], 0.0), done, waits)

    @property
    def episode(self) -> NDArray[np.int64]:
        """Which user of its organisation the next decision belongs to, `[B]`."""
        return self._journeys.number


def _chances(latents: Latents, users: Mapping[str, Array]) -> tuple[Array, Array]:
    """Probabilities of moving on and of dropping out at each stage, `[..., S, K]` each."""
    season = np.stack(np.broadcast_arrays(users["season_sin"], users["season_cos"]), axis=-1)
    particular = latents["particular"][..., None]
    fit = particular * (ROLE_FIT[users["role"]] + PHONE_FIT * users["on_phone"][..., None])
    level = (latents["season"] * season).sum(axis=-1) + latents["company"] * (
        users["team_active"] - 0.5
    )
    off = np.broadcast_to(logistic(latents["drops"])[..., None, :], latents["moves"].shape)
    moves = latents["moves"] + (fit + level[..., None])[..., None, :]
    on = (1.0 - off) * logistic(moves)
    return on, np.broadcast_to(off, on.shape)
