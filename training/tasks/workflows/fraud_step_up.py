"""Fraud step-up: merchants whose buyers put up with one check and whose fraudsters fail another.

An account is a merchant. Fraud is logistic in the risk score, as far as it can be trusted there,
and in what else is known of the payment; each check stops a share of frauds and loses a share of
honest buyers. Frauds that go through are known weeks later. Choices move nothing. Numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from training.tasks.workflows.season import Season
from training.tasks.workflows.simulation import Served, SimulatedAccounts
from training.tasks.workflows.verticals import Latents, Practice, Segments, Vertical, logistic, pick

Array = NDArray[Any]

WORKFLOW = "fraud-step-up"

ALLOW, SMS, APP, ID, REVIEW, BLOCK = range(6)

CHECKS = slice(SMS, BLOCK)
"""The actions that ask something of the buyer and may then let the payment through."""

EARNED = np.array([1.0, 0.97, 0.97, 0.92, 0.85])
"""What an honest payment earns that goes through after each action but `block`."""

CHARGEBACK = -2.0

# Logits of giving up that a device (phone, desktop, unknown) adds to each check, everywhere.
DEVICE_FRICTION = np.array([[-0.2, -0.5, -0.3, 0.0], [0.2, 0.4, 0.4, 0.0], [0.1, 0.2, 0.2, 0.0]])
DEVICE_RISK = np.array([0.0, 0.0, 0.6])

FIRST_CHARGEBACK, LAST_CHARGEBACK = 12, 35
"""How many decisions late a chargeback is."""
LONGEST_REVIEW = 3
"""How many decisions late a review may be."""

SEGMENTS = Segments(
    names=("clean_reviewed", "clean_app_natives", "card_testing", "sim_swaps", "friendly_fraud"),
    centres={
        "fraud": np.array([-5.6, -5.2, -4.0, -3.6, -3.0]),
        "trust": np.array([1.5, 2.0, 6.0, 4.5, 1.5]),
        "tells": np.array(
            [[0.2, 0.2, 0.2], [0.3, 0.2, 0.2], [0.6, 0.8, 2.0], [0.2, 0.5, 0.8], [-0.8, 0.2, 0.2]]
        ),
        "stops": np.array(
            [
                [1.0, 1.5, 2.0, 1.5],
                [1.0, 2.0, 2.0, 1.5],
                [2.2, 2.2, 3.0, 2.5],
                [-2.5, 0.5, 2.8, 1.5],
                [-2.5, -2.0, -0.5, 2.4],
            ]
        ),
        "gives_up": np.array(
            [
                [1.0, 0.8, 1.5, -2.8],
                [1.4, -3.2, 0.8, 1.0],
                [-2.8, 0.6, 0.8, 0.6],
                [0.2, 0.6, -2.6, 0.8],
                [0.4, 0.2, 0.8, -2.6],
            ]
        ),
        "season": np.array([[0.1, 0.0], [0.1, 0.0], [0.4, 0.3], [0.3, -0.3], [0.0, 0.4]]),
    },
    deviations={
        "fraud": 0.3, "trust": 0.5, "tells": 0.2, "stops": 0.4, "gives_up": 0.4, "season": 0.1
    },
    meanings={
        "fraud": "logit of fraud at a usual score",
        "trust": "logits that the score adds between 0 and 1: how far it can be trusted",
        "tells": "logits that a new customer, a payment across borders and a card in haste add",
        "stops": "logits that SMS, app, papers and review stop a fraud",
        "gives_up": "logits that an honest buyer gives up at each of them",
        "season": "logits of fraud along the sine and cosine of the week",
    },
)  # fmt: skip

PRACTICE = Practice(changing=0.2, forced=0.04)

TRAINING: Mapping[str, Vertical] = {
    "electronics": Vertical(
        about="electronics: large amounts, resold goods, card testing",
        segments=(0.20, 0.20, 0.25, 0.20, 0.15),
        mix={"device": (0.4, 0.5, 0.1), "region": (0.4, 0.4, 0.2)},
        facts={"amount": 350.0, "risk": 0.30, "new": 0.5, "abroad": 0.2},
        practice=PRACTICE,
    ),
    "fashion": Vertical(
        about="fashion: small baskets on phones, refunds claimed",
        segments=(0.28, 0.27, 0.10, 0.10, 0.25),
        shift={"gives_up": 0.2},
        mix={"device": (0.7, 0.25, 0.05), "region": (0.5, 0.3, 0.2)},
        facts={"amount": 90.0, "risk": 0.25, "new": 0.4, "abroad": 0.15},
        practice=PRACTICE,
    ),
    "gaming": Vertical(
        about="games: instant goods, young buyers with apps, bots",
        segments=(0.15, 0.33, 0.30, 0.07, 0.15),
        shift={"tells": (0.1, 0.0, 0.3)},
        mix={"device": (0.6, 0.3, 0.1), "region": (0.3, 0.3, 0.4)},
        facts={"amount": 70.0, "risk": 0.35, "new": 0.5, "abroad": 0.35},
        practice=PRACTICE,
    ),
    "marketplace": Vertical(
        about="marketplaces: every kind of seller and buyer",
        segments=(0.22, 0.20, 0.18, 0.20, 0.20),
        mix={"device": (0.5, 0.4, 0.1), "region": (0.35, 0.35, 0.3)},
        facts={"amount": 130.0, "risk": 0.30, "new": 0.35, "abroad": 0.3},
        practice=PRACTICE,
    ),
}

HELD_OUT: Mapping[str, Vertical] = {
    "travel": Vertical(
        about="travel: large amounts across borders, taken-over phones",
        segments=(0.24, 0.16, 0.12, 0.33, 0.15),
        shift={"fraud": 0.1, "tells": (0.0, -0.3, 0.0)},
        spread=1.1,
        mix={"device": (0.45, 0.5, 0.05), "region": (0.3, 0.3, 0.4)},
        facts={"amount": 450.0, "risk": 0.32, "new": 0.55, "abroad": 0.6},
        practice=PRACTICE,
    ),
    "tickets": Vertical(
        about="event tickets: bots at the start of a sale, goods at once, chargebacks claimed",
        segments=(0.16, 0.26, 0.24, 0.08, 0.26),
        shift={"gives_up": -0.1, "season": (0.3, 0.2)},
        spread=1.1,
        mix={"device": (0.75, 0.15, 0.1), "region": (0.5, 0.4, 0.1)},
        facts={"amount": 220.0, "risk": 0.33, "new": 0.6, "abroad": 0.1},
        practice=PRACTICE,
    ),
}


class FraudStepUp(SimulatedAccounts):
    """B merchants."""

    coins: ClassVar[int] = 13

    def draw_latents(self, rng: np.random.Generator) -> Latents:
        """See SEGMENTS."""
        return SEGMENTS.draw(self.population, rng, self.num_envs)

    def open(self, rng: np.random.Generator) -> None:
        """A merchant sells mostly in one region."""
        self._home = pick(rng.random(self.num_envs), self.population.mix["region"])
        self._season = Season(rng.random(self.num_envs), period=60)

    def context(self, coins: Array) -> dict[str, Array]:
        """One payment."""
        mix, facts = self.population.mix, self.population.facts
        sine, cosine = self._season.at(self.t)
        abroad = coins[:, 0] < facts["abroad"]
        return {
            "risk_score": coins[:, 1] ** (1.0 / facts["risk"] - 1.0),
            "amount": np.minimum(-facts["amount"] * np.log(1.0 - coins[:, 2]), 1000.0),
            "device": pick(coins[:, 3], mix["device"]),
            "new_customer": coins[:, 4] < facts["new"],
            "cross_border": abroad,
            "velocity": coins[:, 5] ** 4,
            "season_sin": sine,
            "season_cos": cosine,
            "region": np.where(abroad, pick(coins[:, 6], mix["region"]), self._home),
            "sanctioned": coins[:, 7] < 0.01,
            "phone_on_file": coins[:, 8] < 0.93,
        }

    def lawful(self, columns: Mapping[str, Array]) -> NDArray[np.bool_]:
        """What law and the phone book leave."""
        lawful = np.ones((self.num_envs, self.actions), np.bool_)
        lawful[:, ALLOW] = columns["amount"] <= 30
        lawful[:, SMS] = columns["phone_on_file"]
        lawful[columns["sanctioned"], :REVIEW] = False
        return lawful

    def rules(self, columns: Mapping[str, Array]) -> Sequence[tuple[Array, str]]:
        """By score and amount."""
        risk = columns["risk_score"]
        return (
            (risk > 0.8, "review"),
            ((risk > 0.35) | (columns["amount"] > 30), "challenge_sms"),
        )

    def means(self, columns: Mapping[str, Array]) -> NDArray[np.float64]:
        """What a payment earns after each check, in expectation."""
        latents = self.latents
        season = np.stack([columns["season_sin"], columns["season_cos"]], axis=-1)
        seen = np.stack(
            [columns["new_customer"], columns["cross_border"], columns["velocity"]], axis=-1
        )
        self._fraud = logistic(
            latents["fraud"]
            + latents["trust"] * (columns["risk_score"] - 0.3)
            + (latents["tells"] * seen).sum(axis=1)
            + (latents["season"] * season).sum(axis=1)
            + DEVICE_RISK[columns["device"]]
        )
        self._passes = np.zeros((self.num_envs, self.actions))
        """Probability that an honest payment goes through, `[B, K]`."""
        self._passes[:, ALLOW] = 1.0
        self._passes[:, CHECKS] = logistic(
            -latents["gives_up"]
            - DEVICE_FRICTION[columns["device"]]
            - 0.3 * columns["new_customer"][:, None]
        )
        self._slips = np.zeros((self.num_envs, self.actions))
        """Probability that a fraud goes through, `[B, K]`."""
        self._slips[:, ALLOW] = 1.0
        self._slips[:, CHECKS] = logistic(-latents["stops"])
        fraud = self._fraud[:, None]
        earned = np.append(EARNED, 0.0)
        means: NDArray[np.float64] = (1.0 - fraud) * self._passes * earned + (
            fraud * self._slips * CHARGEBACK
        )
        return means

    def serve(self, actions: Array, coins: Array) -> Served:
        """Paid, given up, stopped, or charged back weeks later."""
        at = self.rows, actions
        fraud = coins[:, 9] < self._fraud
        through = coins[:, 10] < np.where(fraud, self._slips[at], self._passes[at])
        earned = np.append(EARNED, 0.0)[actions]
        reward = np.where(through, np.where(fraud, CHARGEBACK, earned), 0.0)
        span = LAST_CHARGEBACK - FIRST_CHARGEBACK + 1
        charged_back = FIRST_CHARGEBACK + np.floor(coins[:, 11] * span)
        reviewed = np.where(actions == REVIEW, np.floor(coins[:, 12] * (LONGEST_REVIEW + 1)), 0.0)
        late = np.where(fraud & through, charged_back, reviewed).astype(np.int64)
        return Served(reward, np.ones(self.num_envs, np.bool_), late)
