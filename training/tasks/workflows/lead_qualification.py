"""Lead qualification: territories where another way of following up wins. Numpy only.

An account is a seller's territory. Whether a lead becomes an opportunity is logistic in the way it
is followed up, its source, size, seniority and engagement, all with weights of the territory.
What comes of it is known late, of nurture latest. Choices move nothing.
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

WORKFLOW = "lead-qualification"

CALL, MAIL, NURTURE, DEMO, DROP = range(5)

EFFORT = np.array([1.0, 0.3, 0.1, 0.9, 0.0])
WON, SPARED = 0.8, 0.2
"""What an opportunity and no effort at all are worth; they sum to 1."""

# How late, in decisions, it may be known at the latest what came of each action.
LATEST = np.array([2, 8, 20, 10, 0])

# Logits of winning that a language (English, French, other) adds to each way, in every territory.
LANGUAGE_FIT = np.array([[0.1, 0.1, 0.1, 0.1], [0.2, -0.2, -0.1, 0.0], [-0.4, 0.0, 0.0, -0.3]])

SEGMENTS = Segments(
    names=("enterprise", "self_serve", "event_led", "junk_feed", "slow_burn"),
    centres={
        "wins": np.array(
            [
                [0.9, -1.8, -2.2, -0.4],
                [-2.2, 0.6, -0.6, -1.4],
                [-1.2, -1.6, -2.0, 1.3],
                [-2.0, -2.6, -3.0, -2.4],
                [-1.8, -0.8, 0.8, -1.2],
            ]
        ),
        "source": np.array(
            [
                [0.9, 0.3, -0.9, -0.2],
                [0.3, -0.4, 0.3, 0.5],
                [0.2, 1.0, -0.8, -0.2],
                [2.4, -0.2, -0.6, 0.2],
                [0.4, 0.2, -0.3, 0.4],
            ]
        ),
        "size": np.array(
            [
                [1.2, -0.4, -0.2, 1.4],
                [-1.2, -0.6, 0.4, 0.8],
                [0.2, 0.0, 0.2, 0.6],
                [0.2, 0.0, 0.0, 0.2],
                [0.3, -0.3, 0.5, 0.4],
            ]
        ),
        "senior": np.array([0.8, -0.4, 0.3, 0.2, 0.4]),
        "engaged": np.array([0.8, 1.6, 0.8, 1.2, 1.0]),
        "season": np.array([[0.4, -0.2], [0.1, 0.0], [0.0, 0.5], [0.0, 0.0], [0.2, 0.2]]),
    },
    deviations={
        "wins": 0.4, "source": 0.3, "size": 0.25, "senior": 0.2, "engaged": 0.3, "season": 0.15
    },
    meanings={
        "wins": "logits of winning by call, mail, nurture and demo",
        "source": "logits that a source (referral, event, advert, organic) adds",
        "size": (
            "logits that size adds to call, mail, nurture and demo, from one employee to ten "
            "thousand"
        ),
        "senior": "logits that seniority adds between its ends",
        "engaged": "logits that engagement adds between its ends",
        "season": "logits along the sine and cosine of the quarter",
    },
)  # fmt: skip

PRACTICE = Practice(batched=0.3, batch=10)

TRAINING: Mapping[str, Vertical] = {
    "software": Vertical(
        about="business software: trials that sell themselves, large customers who are called",
        segments=(0.26, 0.34, 0.12, 0.12, 0.16),
        mix={
            "source": (0.15, 0.15, 0.35, 0.35),
            "language": (0.7, 0.1, 0.2),
            "region": (0.6, 0.4),
        },
        facts={"size": 0.45, "engagement": 0.5},
        practice=PRACTICE,
    ),
    "machinery": Vertical(
        about="machinery: fairs, demonstrations, long decisions",
        segments=(0.20, 0.06, 0.42, 0.10, 0.22),
        shift={"engaged": -0.2, "size": 0.1},
        mix={
            "source": (0.2, 0.5, 0.1, 0.2),
            "language": (0.4, 0.2, 0.4),
            "region": (0.4, 0.6),
        },
        facts={"size": 0.6, "engagement": 0.35},
        practice=PRACTICE,
    ),
    "property": Vertical(
        about="property: adverts, portals full of idle interest, referrals that count",
        segments=(0.24, 0.20, 0.10, 0.28, 0.18),
        shift={"senior": -0.2},
        mix={
            "source": (0.15, 0.05, 0.6, 0.2),
            "language": (0.6, 0.2, 0.2),
            "region": (0.8, 0.2),
        },
        facts={"size": 0.15, "engagement": 0.45},
        practice=PRACTICE,
    ),
    "education": Vertical(
        about="courses: slow choices, read and read again, by mail",
        segments=(0.08, 0.28, 0.14, 0.16, 0.34),
        shift={"season": (0.3, 0.2)},
        mix={
            "source": (0.2, 0.15, 0.3, 0.35),
            "language": (0.5, 0.25, 0.25),
            "region": (0.5, 0.5),
        },
        facts={"size": 0.25, "engagement": 0.55},
        practice=PRACTICE,
    ),
}

HELD_OUT: Mapping[str, Vertical] = {
    "consulting": Vertical(
        about="consulting: referrals and calls, or a long acquaintance",
        segments=(0.36, 0.08, 0.18, 0.10, 0.28),
        shift={"source": (0.4, 0.0, -0.2, 0.0), "senior": 0.3},
        spread=1.1,
        mix={
            "source": (0.4, 0.25, 0.1, 0.25),
            "language": (0.5, 0.3, 0.2),
            "region": (0.7, 0.3),
        },
        facts={"size": 0.55, "engagement": 0.4},
        practice=PRACTICE,
    ),
    "energy": Vertical(
        about="solar and heating: bought lists, demonstrations at home, seasons",
        segments=(0.14, 0.22, 0.28, 0.28, 0.08),
        shift={"season": (-0.3, 0.3), "wins": (-0.2, 0.0, 0.0, 0.2)},
        spread=1.1,
        mix={
            "source": (0.15, 0.2, 0.5, 0.15),
            "language": (0.7, 0.1, 0.2),
            "region": (0.9, 0.1),
        },
        facts={"size": 0.1, "engagement": 0.5},
        practice=PRACTICE,
    ),
}


class LeadQualification(SimulatedAccounts):
    """B territories."""

    coins: ClassVar[int] = 11

    def draw_latents(self, rng: np.random.Generator) -> Latents:
        """See SEGMENTS."""
        return SEGMENTS.draw(self.population, rng, self.num_envs)

    def open(self, rng: np.random.Generator) -> None:
        """Territories differ in where they are in the quarter."""
        self._season = Season(rng.random(self.num_envs), period=65)

    def context(self, coins: Array) -> dict[str, Array]:
        """One lead."""
        mix, facts = self.population.mix, self.population.facts
        sine, cosine = self._season.at(self.t)
        return {
            "source": pick(coins[:, 0], mix["source"]),
            "company_size": 4.0 * coins[:, 1] ** (1.0 / facts["size"] - 1.0),
            "seniority": coins[:, 2],
            "engagement": coins[:, 3] ** (1.0 / facts["engagement"] - 1.0),
            "language": pick(coins[:, 4], mix["language"]),
            "season_sin": sine,
            "season_cos": cosine,
            "region": pick(coins[:, 5], mix["region"]),
            "do_not_call": coins[:, 6] < 0.08,
            "mail_consent": coins[:, 7] < 0.9,
            "key_account": coins[:, 8] < 0.05,
        }

    def lawful(self, columns: Mapping[str, Array]) -> NDArray[np.bool_]:
        """Consent, and key accounts."""
        lawful = np.ones((self.num_envs, self.actions), np.bool_)
        lawful[columns["do_not_call"], CALL] = False
        lawful[columns["do_not_call"], DEMO] = False
        lawful[:, MAIL] = lawful[:, NURTURE] = columns["mail_consent"]
        lawful[:, DROP] = ~columns["key_account"]
        return lawful

    def rules(self, columns: Mapping[str, Array]) -> Sequence[tuple[Array, str]]:
        """By source and size, then by engagement."""
        return (
            ((columns["source"] == 0) | (columns["company_size"] > 3), "call"),
            (columns["engagement"] < 0.1, "drop"),
        )

    def means(self, columns: Mapping[str, Array]) -> NDArray[np.float64]:
        """The worth of an opportunity, as likely as it is, and of the effort spared."""
        latents = self.latents
        season = np.stack([columns["season_sin"], columns["season_cos"]], axis=-1)
        level = (
            latents["source"][self.rows, columns["source"]]
            + latents["senior"] * (columns["seniority"] - 0.5)
            + latents["engaged"] * (columns["engagement"] - 0.5)
            + (latents["season"] * season).sum(axis=1)
            - 0.3 * columns["region"]
        )
        self._wins = np.zeros((self.num_envs, self.actions))
        """Probability of an opportunity, `[B, K]`."""
        self._wins[:, :DROP] = logistic(
            latents["wins"]
            + latents["size"] * (columns["company_size"] / 4.0 - 0.4)[:, None]
            + level[:, None]
            + LANGUAGE_FIT[columns["language"]]
        )
        means: NDArray[np.float64] = WON * self._wins + SPARED * (1.0 - EFFORT)
        return means

    def serve(self, actions: Array, coins: Array) -> Served:
        """An opportunity or none, known when it is."""
        won = coins[:, 9] < self._wins[self.rows, actions]
        reward = WON * won + SPARED * (1.0 - EFFORT[actions])
        late = np.floor(coins[:, 10] * (LATEST[actions] + 1)).astype(np.int64)
        return Served(reward, np.ones(self.num_envs, np.bool_), late)
