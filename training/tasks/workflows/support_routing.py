"""Support routing: clients whose tickets one queue solves and another does not. Numpy only.

An account is a client organisation. Speed and rating are logistic in how well each queue fits the
client, the ticket's topic, severity, channel and language, and how busy the queue is. A ticket may
need several contacts; how many is luck, so choices move nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from training.tasks.workflows.journeys import MOST_OPEN, Journeys
from training.tasks.workflows.season import Season
from training.tasks.workflows.simulation import Served, SimulatedAccounts
from training.tasks.workflows.verticals import Latents, Practice, Segments, Vertical, logistic, pick

Array = NDArray[Any]

WORKFLOW = "support-routing"

SELF_SERVICE, GENERAL, SPECIALIST, ENGINEERING, CALL_BACK, ACCOUNT_MANAGER = range(6)

TIER = np.array([0.0, 1.0, 2.0, 3.0, 1.0, 2.0])

# Logits that a topic (billing, how-to, fault, integration) adds for every client.
TOPIC_FIT = np.array(
    [
        [0.0, 0.4, 0.1, -0.8, 0.2, 0.4],
        [0.6, 0.3, -0.2, -0.6, 0.0, -0.1],
        [-0.6, -0.1, 0.4, 0.5, 0.1, -0.1],
        [-0.4, -0.3, 0.3, 0.6, -0.3, 0.0],
    ]
)
# Logits that a channel (chat, mail, phone) and a language (English, Spanish, other) add to ratings.
CHANNEL_FIT = np.array(
    [
        [0.4, 0.1, 0.0, 0.0, -0.6, 0.0],
        [-0.1, 0.0, 0.1, 0.1, -0.2, 0.1],
        [-0.7, -0.2, 0.0, -0.1, 0.8, 0.2],
    ]
)
LANGUAGE_FIT = np.array(
    [
        [0.2, 0.1, 0.0, 0.1, 0.1, 0.0],
        [-0.1, 0.0, 0.0, -0.2, 0.2, 0.1],
        [-0.5, -0.4, 0.1, -0.1, -0.3, 0.3],
    ]
)

LOADS = ("load_general", "load_specialist", "load_engineering")
QUEUE_OF = np.array([-1, 0, 1, 2, 0, 1])
"""The load that keeps each action waiting, −1 for none."""

LOAD_MEMORY = 0.9
FOLLOW_UP = 0.35
"""Probability that a ticket needs one contact more."""
GROWTH = 0.15
"""Severity that each contact more adds."""

SEGMENTS = Segments(
    names=("how_to_askers", "integrators", "regulated", "phone_first", "relationship"),
    centres={
        "fit": np.array(
            [
                [1.7, 0.9, -0.6, -1.6, -0.4, -0.6],
                [-1.2, -0.9, 0.2, 1.9, -1.0, -0.6],
                [-1.7, -0.6, 1.8, -0.1, 0.0, 0.5],
                [-1.9, -0.3, -0.1, -0.8, 2.0, 0.2],
                [-1.4, -0.8, 0.0, -0.6, 0.3, 2.0],
            ]
        ),
        "impatience": np.array([1.6, 2.2, 1.2, 2.6, 1.4]),
        "depth": np.array([0.5, 0.9, 0.7, 0.4, 0.4]),
        "particular": np.array([1.0, 1.2, 0.8, 1.0, 0.7]),
        "season": np.array([[0.2, 0.0], [0.0, 0.2], [0.2, 0.2], [0.3, -0.2], [0.0, 0.0]]),
    },
    deviations={"fit": 0.45, "impatience": 0.4, "depth": 0.25, "particular": 0.2, "season": 0.15},
    meanings={
        "fit": "logits of a good end in each queue",
        "impatience": "logits of speed that a queue all busy costs",
        "depth": "logits that a tier adds or takes between a trifle and an outage",
        "particular": (
            "share of the topic's, channel's and language's effects that the client feels"
        ),
        "season": "logits along the sine and cosine of the week",
    },
)

PRACTICE = Practice(late=0.35, longest_delay=8)

TRAINING: Mapping[str, Vertical] = {
    "software": Vertical(
        about="business software: integrations and how-to questions, mostly in English by chat",
        segments=(0.30, 0.32, 0.13, 0.08, 0.17),
        mix={
            "topic": (0.15, 0.35, 0.2, 0.3),
            "channel": (0.55, 0.35, 0.1),
            "language": (0.8, 0.1, 0.1),
            "contract": (0.2, 0.5, 0.3),
        },
        facts={"load": 0.4, "severity": 0.35},
        practice=PRACTICE,
    ),
    "shops": Vertical(
        about="online shops: orders and bills, small merchants who ring up",
        segments=(0.32, 0.08, 0.08, 0.34, 0.18),
        shift={"impatience": 0.4},
        mix={
            "topic": (0.45, 0.25, 0.25, 0.05),
            "channel": (0.4, 0.25, 0.35),
            "language": (0.5, 0.3, 0.2),
            "contract": (0.35, 0.5, 0.15),
        },
        facts={"load": 0.5, "severity": 0.3},
        practice=PRACTICE,
    ),
    "telecom": Vertical(
        about="network operators: faults, outages, busy queues",
        segments=(0.18, 0.22, 0.20, 0.30, 0.10),
        shift={"depth": 0.3},
        mix={
            "topic": (0.25, 0.1, 0.55, 0.1),
            "channel": (0.25, 0.2, 0.55),
            "language": (0.6, 0.25, 0.15),
            "contract": (0.3, 0.5, 0.2),
        },
        facts={"load": 0.6, "severity": 0.5},
        practice=PRACTICE,
    ),
    "banking": Vertical(
        about="banks: compliance, account managers, formal mail",
        segments=(0.15, 0.12, 0.38, 0.10, 0.25),
        shift={"fit": (-0.2, -0.1, 0.1, 0.0, 0.0, 0.2)},
        mix={
            "topic": (0.3, 0.2, 0.25, 0.25),
            "channel": (0.15, 0.6, 0.25),
            "language": (0.6, 0.2, 0.2),
            "contract": (0.1, 0.4, 0.5),
        },
        facts={"load": 0.35, "severity": 0.4},
        practice=PRACTICE,
    ),
}

HELD_OUT: Mapping[str, Vertical] = {
    "healthcare": Vertical(
        about="hospitals: regulated, on the phone, much that cannot wait",
        segments=(0.12, 0.14, 0.34, 0.28, 0.12),
        shift={"fit": (-0.3, -0.1, 0.2, 0.0, 0.2, 0.0), "impatience": 0.3},
        spread=1.1,
        mix={
            "topic": (0.15, 0.25, 0.45, 0.15),
            "channel": (0.15, 0.25, 0.6),
            "language": (0.5, 0.3, 0.2),
            "contract": (0.15, 0.5, 0.35),
        },
        facts={"load": 0.5, "severity": 0.55},
        practice=PRACTICE,
    ),
    "travel": Vertical(
        about="travel: many languages, strong seasons, changes by chat",
        segments=(0.34, 0.14, 0.08, 0.24, 0.20),
        shift={"season": (0.3, -0.3), "particular": 0.2},
        spread=1.1,
        mix={
            "topic": (0.4, 0.3, 0.2, 0.1),
            "channel": (0.6, 0.2, 0.2),
            "language": (0.3, 0.3, 0.4),
            "contract": (0.3, 0.5, 0.2),
        },
        facts={"load": 0.55, "severity": 0.4},
        practice=PRACTICE,
    ),
}


class SupportRouting(SimulatedAccounts):
    """B clients."""

    coins: ClassVar[int] = 15

    def draw_latents(self, rng: np.random.Generator) -> Latents:
        """See SEGMENTS."""
        return SEGMENTS.draw(self.population, rng, self.num_envs)

    def open(self, rng: np.random.Generator) -> None:
        """One to three tickets are open already."""
        batch = self.num_envs
        self._contract = pick(rng.random(batch), self.population.mix["contract"])
        self._season = Season(rng.random(batch), period=40)
        self._journeys = Journeys(
            rng.random(batch), self._ticket(rng.random((batch, MOST_OPEN, 5)))
        )
        self._load = rng.standard_normal((batch, len(LOADS)))

    def _ticket(self, coins: Array) -> dict[str, Array]:
        """New tickets from uniform numbers `[..., 5]`."""
        mix, severity = self.population.mix, self.population.facts["severity"]
        return {
            "topic": pick(coins[..., 0], mix["topic"]),
            "channel": pick(coins[..., 1], mix["channel"]),
            "language": pick(coins[..., 2], mix["language"]),
            "severity": coins[..., 3] ** (1.0 / severity - 1.0),
            "after_hours": coins[..., 4] < 0.2,
        }

    def context(self, coins: Array) -> dict[str, Array]:
        """The ticket whose turn it is, and how busy the queues are."""
        self._journeys.turn(coins[:, 0])
        sine, cosine = self._season.at(self.t)
        shocks = (coins[:, 1:4] - 0.5) * np.sqrt(12.0)
        self._load = LOAD_MEMORY * self._load + np.sqrt(1.0 - LOAD_MEMORY**2) * shocks
        busy = np.clip(
            self.population.facts["load"] + 0.25 * self._load + 0.1 * sine[:, None], 0, 1
        )
        ticket = self._journeys
        return {
            "topic": ticket["topic"],
            "severity": ticket["severity"],
            "channel": ticket["channel"],
            "language": ticket["language"],
            **{name: busy[:, i] for i, name in enumerate(LOADS)},
            "season_sin": sine,
            "season_cos": cosine,
            "contract": self._contract,
            "after_hours": ticket["after_hours"],
        }

    def lawful(self, columns: Mapping[str, Array]) -> NDArray[np.bool_]:
        """Who may be bothered with what, and when."""
        lawful = np.ones((self.num_envs, self.actions), np.bool_)
        severity, contract = columns["severity"], columns["contract"]
        lawful[:, ENGINEERING] = (severity >= 0.15) | (contract == 2)
        lawful[:, SELF_SERVICE] = severity <= 0.85
        lawful[:, CALL_BACK] = ~columns["after_hours"]
        lawful[:, ACCOUNT_MANAGER] = contract != 0
        return lawful

    def rules(self, columns: Mapping[str, Array]) -> Sequence[tuple[Array, str]]:
        """By severity, then by topic."""
        return (
            (columns["severity"] > 0.7, "specialist_queue"),
            (columns["topic"] == 3, "engineering"),
            ((columns["topic"] == 1) & (columns["language"] == 0), "self_service"),
        )

    def means(self, columns: Mapping[str, Array]) -> NDArray[np.float64]:
        """Half speed, half rating."""
        latents = self.latents
        season = np.stack([columns["season_sin"], columns["season_cos"]], axis=-1)
        particular = latents["particular"][:, None]
        fit = (
            latents["fit"]
            + particular * TOPIC_FIT[columns["topic"]]
            + latents["depth"][:, None] * (columns["severity"] - 0.4)[:, None] * 2 * (TIER - 1.5)
            + (latents["season"] * season).sum(axis=1)[:, None]
        )
        busy = np.stack([columns[name] for name in LOADS] + [np.full(self.num_envs, 0.3)], axis=1)
        wait = latents["impatience"][:, None] * (busy[:, QUEUE_OF] - 0.3)
        speed = fit - wait
        self._in_time, self._in_a_day = logistic(speed - 0.6), logistic(speed + 0.8)
        self._liked = logistic(
            0.8 * fit
            - 0.3 * wait
            + particular * (CHANNEL_FIT[columns["channel"]] + LANGUAGE_FIT[columns["language"]])
        )
        means: NDArray[np.float64] = 0.25 * (self._in_time + self._in_a_day) + 0.5 * self._liked
        return means

    def serve(self, actions: Array, coins: Array) -> Served:
        """Speed and five stars; the ticket is closed, or comes back."""
        at = self.rows, actions
        u = coins[:, 4]
        speed = 0.5 * (u < self._in_time[at]) + 0.5 * (u < self._in_a_day[at])
        stars = (coins[:, 5:9] < self._liked[at][:, None]).mean(axis=1)
        done = coins[:, 9] >= FOLLOW_UP
        self._journeys["severity"] = np.minimum(self._journeys["severity"] + GROWTH, 1.0)
        self._journeys.renew(done, self._ticket(coins[:, 10:15]))
        return Served(0.5 * speed + 0.5 * stars, done, np.zeros(self.num_envs, np.int64))

    @property
    def episode(self) -> NDArray[np.int64]:
        """Which ticket of its client the next decision belongs to, `[B]`."""
        return self._journeys.number
