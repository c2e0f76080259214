"""Retention offers: a customer who may leave, and what keeps which one. Numpy only.

An account is a customer. Whether it stays is logistic in its segment's response to each offer, what
brought it up, use, season and what was offered lately. Who leaves is gone until won back, and
offers wear off: choices move the state, so the oracle plans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from training.tasks.workflows.season import Season
from training.tasks.workflows.simulation import Served, SimulatedAccounts
from training.tasks.workflows.verticals import Latents, Segments, Vertical, largest, logistic, pick

Array = NDArray[Any]

WORKFLOW = "retention-offer"

NOTHING, CALL_BACK, DISCOUNT_10, DISCOUNT_20, DISCOUNT_30, PAUSE_MONTH = range(6)

KEPT = np.array([1.0, 0.93, 0.9, 0.8, 0.7, 0.6])
"""Share of the fee that is kept of a customer who stays, net of discount and of what it cost."""

LOWER_PLAN = 0.2
"""Share of those who would leave that take a lower plan instead, for half of what was kept."""

FREE, BASIC, PREMIUM = range(3)

# By trigger (price, service, usage, rival): what an offer's pull is multiplied by, and the base.
TRIGGER_GAIN = np.array(
    [
        [1.0, 0.5, 1.3, 1.3, 1.3, 0.8],
        [1.0, 1.3, 0.7, 0.7, 0.7, 0.8],
        [1.0, 0.8, 0.8, 0.8, 0.8, 1.3],
        [1.0, 0.9, 1.1, 1.1, 1.1, 0.6],
    ]
)
TRIGGER_BASE = np.array([0.0, 0.1, 0.2, -0.4])

GONE = -1.2
"""Logits that a customer who has left is harder to win than to keep."""

MOST_OFFERS = 2
WEAR = 0.2
"""Share of an offer's pull that each of the last offers takes away."""

PLANNED = 25
"""Decisions that the oracle looks ahead."""

SEGMENTS = Segments(
    names=("price_led", "service_led", "settled", "away", "deal_hunting"),
    centres={
        "base": np.array([-0.6, -0.8, 2.2, -0.9, -0.5]),
        "pull": np.array(
            [
                [0.0, -0.3, 0.9, 2.0, 2.8, 0.0],
                [0.0, 2.9, 0.2, 0.3, 0.4, 0.2],
                [0.0, -1.8, -1.4, -1.3, -1.2, -2.0],
                [0.0, 0.2, 0.1, 0.2, 0.3, 3.4],
                [0.0, 0.1, 2.5, 2.6, 2.7, 0.4],
            ]
        ),
        "annoyance": np.array([0.15, 0.2, 0.6, 0.3, 0.1]),
        "use": np.array([0.8, 0.6, 1.0, 1.6, 0.4]),
        "season": np.array([[0.2, 0.0], [0.0, 0.2], [0.1, 0.1], [0.7, -0.5], [0.0, 0.3]]),
    },
    deviations={"base": 0.4, "pull": 0.45, "annoyance": 0.1, "use": 0.3, "season": 0.15},
    meanings={
        "base": "logit of staying with nothing offered",
        "pull": "logits that each action adds",
        "annoyance": "logits that each recent offer takes away",
        "use": "logits between no use and full use",
        "season": "logits along the sine and cosine of the season",
    },
)

TRAINING: Mapping[str, Vertical] = {
    "streaming": Vertical(
        about="video streaming: young customers, little service, many who pause",
        segments=(0.25, 0.10, 0.18, 0.26, 0.21),
        mix={"plan": (0.1, 0.6, 0.3), "trigger": (0.3, 0.1, 0.4, 0.2), "region": (0.5, 0.5)},
        facts={"tenure": 10.0, "use": 0.5},
    ),
    "telecom": Vertical(
        about="mobile contracts: price wars, many calls to the service line",
        segments=(0.35, 0.25, 0.20, 0.03, 0.17),
        shift={"base": -0.1, "annoyance": 0.1},
        mix={"plan": (0.0, 0.5, 0.5), "trigger": (0.35, 0.3, 0.05, 0.3), "region": (0.6, 0.4)},
        facts={"tenure": 40.0, "use": 0.6},
    ),
    "saas": Vertical(
        about="business software: service and use decide, few bargain",
        segments=(0.12, 0.42, 0.28, 0.10, 0.08),
        shift={"use": 0.5, "base": 0.1},
        mix={"plan": (0.2, 0.4, 0.4), "trigger": (0.15, 0.45, 0.3, 0.1), "region": (0.7, 0.3)},
        facts={"tenure": 24.0, "use": 0.6},
    ),
    "gym": Vertical(
        about="fitness clubs: strong seasons, pauses in summer",
        segments=(0.17, 0.18, 0.20, 0.35, 0.10),
        shift={"season": (0.3, -0.2)},
        mix={"plan": (0.0, 0.7, 0.3), "trigger": (0.2, 0.15, 0.55, 0.1), "region": (0.4, 0.6)},
        facts={"tenure": 14.0, "use": 0.35},
    ),
}

HELD_OUT: Mapping[str, Vertical] = {
    "news": Vertical(
        about="newspapers: trial prices, deals every week, much left unread",
        segments=(0.20, 0.05, 0.25, 0.15, 0.35),
        shift={"base": -0.2, "use": 0.3},
        spread=1.1,
        mix={"plan": (0.2, 0.6, 0.2), "trigger": (0.5, 0.05, 0.35, 0.1), "region": (0.5, 0.5)},
        facts={"tenure": 8.0, "use": 0.4},
    ),
    "insurance": Vertical(
        about="home and motor insurance: long tenure, brokers call, better left alone",
        segments=(0.25, 0.34, 0.28, 0.01, 0.12),
        shift={"base": 0.1, "annoyance": 0.15},
        spread=1.1,
        mix={"plan": (0.0, 0.4, 0.6), "trigger": (0.35, 0.25, 0.0, 0.4), "region": (0.3, 0.7)},
        facts={"tenure": 70.0, "use": 0.5},
    ),
}


class RetentionOffer(SimulatedAccounts):
    """B customers."""

    coins: ClassVar[int] = 5

    def draw_latents(self, rng: np.random.Generator) -> Latents:
        """See SEGMENTS."""
        return SEGMENTS.draw(self.population, rng, self.num_envs)

    def open(self, rng: np.random.Generator) -> None:
        """Everybody is a customer still, and nothing was offered lately."""
        mix, facts, batch = self.population.mix, self.population.facts, self.num_envs
        self._plan = pick(rng.random(batch), mix["plan"])
        self._region = pick(rng.random(batch), mix["region"])
        self._tenure = rng.exponential(facts["tenure"], batch)
        self._season = Season(rng.random(batch), period=52)
        self._gone = np.zeros(batch, np.bool_)
        self._offers = np.zeros(batch, np.int64)

    def context(self, coins: Array) -> dict[str, Array]:
        """One week after the last."""
        use = self.population.facts["use"]
        sine, cosine = self._season.at(self.t)
        return {
            "tenure_months": np.minimum(self._tenure + self.t * 12 / 52, 120.0),
            "plan": self._plan,
            "trigger": pick(coins[:, 0], self.population.mix["trigger"]),
            "usage": np.clip(use + 0.8 * (coins[:, 1] - 0.5), 0.0, 1.0),
            "offers_lately": self._offers.astype(np.float64),
            "cancelled": self._gone,
            "season_sin": sine,
            "season_cos": cosine,
            "region": self._region,
            "in_dispute": coins[:, 2] < 0.03,
        }

    def lawful(self, columns: Mapping[str, Array]) -> NDArray[np.bool_]:
        """The discount ceiling, no discount in the first quarter, only people in a dispute."""
        lawful = self._lawful_without_dispute(columns["tenure_months"])
        lawful[columns["in_dispute"]] &= np.arange(self.actions) == CALL_BACK
        return lawful

    def _lawful_without_dispute(self, tenure: Array) -> NDArray[np.bool_]:
        lawful = np.ones((self.num_envs, self.actions), np.bool_)
        lawful[:, DISCOUNT_30] = self._plan == PREMIUM
        lawful[tenure < 3, DISCOUNT_10:] = False
        return lawful

    def rules(self, columns: Mapping[str, Array]) -> Sequence[tuple[Array, str]]:
        """A discount by plan and tenure."""
        plan = columns["plan"]
        return (
            ((plan == PREMIUM) & (columns["tenure_months"] >= 24), "discount_20"),
            (plan == BASIC, "discount_10"),
        )

    def means(self, columns: Mapping[str, Array]) -> NDArray[np.float64]:
        """The share of the fee that each offer keeps, in expectation."""
        season = np.stack([columns["season_sin"], columns["season_cos"]], axis=-1)
        self._stays = _stays(
            self.latents,
            level=(self.latents["season"] * season).sum(axis=1)
            + self.latents["use"] * (columns["usage"] - 0.5)
            + 0.3 * (columns["region"] - 0.5)
            + 0.3 * np.tanh(columns["tenure_months"] / 24 - 1),
            trigger=columns["trigger"],
            gone=columns["cancelled"],
            offers=columns["offers_lately"],
        )
        return _kept(self._stays)

    def worth(self, means: Array) -> Array:
        """The mean, and what the customer is worth afterwards, gone or not."""
        ahead = self.plans["values"][:, min(self.steps - self.t - 1, PLANNED)]
        return means + _next_worth(
            self._leaves(self._stays), ahead, self._offers[:, None], self.rows[:, None]
        )

    def plan(self, latents: Latents, rows: Array) -> Latents:
        """Backward induction over (gone, offers lately), by decisions left: triggers as likely as
        they are, season and use at their means, the first quarter over."""
        each = {name: values[:, None, None, None] for name, values in latents.items()}
        trigger, gone, offers = np.ix_(range(4), range(2), range(MOST_OFFERS + 1))
        stays = _stays(
            each,
            level=each["use"] * (self.population.facts["use"] - 0.5),
            trigger=trigger,
            gone=gone == 1,
            offers=offers,
        )
        lawful = self._lawful_without_dispute(np.full(self.num_envs, np.inf))[rows]
        means = np.where(lawful[:, None, None, None], _kept(stays), -np.inf)
        leaves = self._leaves(stays)
        shares = np.asarray(self.population.mix["trigger"])
        where = np.arange(len(rows))[:, None, None, None, None]
        values = np.zeros((len(rows), PLANNED + 1, 2, MOST_OFFERS + 1))
        for left in range(1, PLANNED + 1):
            worth = means + _next_worth(leaves, values[:, left - 1], offers[..., None], where)
            values[:, left] = np.einsum("nxgo,x->ngo", largest(worth), shares)
        return {"values": values}

    def serve(self, actions: Array, coins: Array) -> Served:
        """Stays, takes a lower plan, or leaves."""
        stays = self._stays[self.rows, actions]
        stayed = coins[:, 3] < stays
        lowered = ~stayed & (coins[:, 3] < stays + (1.0 - stays) * LOWER_PLAN)
        kept = KEPT[actions]
        reward = np.where(stayed, kept, np.where(lowered, 0.5 * kept, 0.0))
        self._gone = ~(stayed | lowered)
        self._offers = _offers_after(self._offers, actions)
        return Served(reward, np.ones(self.num_envs, np.bool_), np.zeros(self.num_envs, np.int64))

    @staticmethod
    def _leaves(stays: Array) -> Array:
        left: Array = (1.0 - stays) * (1.0 - LOWER_PLAN)
        return left


def _stays(
    latents: Latents, *, level: Array, trigger: Array, gone: Array, offers: Array
) -> NDArray[np.float64]:
    """Probability of staying, or of coming back, after each action, `[..., K]`.

    Latent parameters `[B, ...]` and the others broadcast against one another.
    """
    fresh = (1.0 - WEAR * offers)[..., None]
    pull = latents["pull"] * TRIGGER_GAIN[trigger] * fresh
    base = latents["base"] + level + TRIGGER_BASE[trigger] + GONE * gone
    stays: NDArray[np.float64] = logistic((base - latents["annoyance"] * offers)[..., None] + pull)
    return stays


def _kept(stays: Array) -> NDArray[np.float64]:
    kept: NDArray[np.float64] = KEPT * (stays + 0.5 * LOWER_PLAN * (1.0 - stays))
    return kept


def _offers_after(offers: Array, actions: Array) -> NDArray[np.int64]:
    """Offers lately, once this was done."""
    after = np.where(
        actions == NOTHING, np.maximum(offers - 1, 0), np.minimum(offers + 1, MOST_OFFERS)
    )
    return np.asarray(after, np.int64)


def _next_worth(leaves: Array, values: Array, offers: Array, rows: Array) -> Array:
    """What is to be had after each action, `[..., K]`, from values `[B, gone, offers]`."""
    after = _offers_after(offers, np.arange(KEPT.size))
    stay, gone = values[rows, 0, after], values[rows, 1, after]
    worth: Array = stay + leaves * (gone - stay)
    return worth
