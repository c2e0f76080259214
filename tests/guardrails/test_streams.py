"""What many accounts' interactions come to: falls and lost exploration, by batches, as JSON."""

from __future__ import annotations

import json

import numpy as np

from guardrails.alarms import of_stream
from guardrails.streams import (
    BATCH,
    MOST_BATCHES,
    SETTLED,
    Seen,
    Stream,
    blank,
    collapse_of,
    from_json,
    shift_of,
    surprise_of,
    take,
    to_json,
)


def fed(
    stream: Stream,
    batches: int,
    *,
    reward: float = 0.7,
    surprise: float = 0.5,
    young: bool = False,
    limited: float = 0.0,
    fell_back: float = 0.0,
    seed: int = 1,
) -> Stream:
    """The stream after so many batches of noisy interactions."""
    rng = np.random.default_rng(seed)
    for _ in range(batches * BATCH):
        stream = take(
            stream,
            Seen(
                1 if young else SETTLED + 1,
                float(rng.random() < reward),
                surprise * float(rng.exponential()),
                rng.random() >= fell_back,
                rng.random() < limited,
            ),
        )
    return stream


def test_a_stream_comes_back_from_json_and_goes_on_as_it_was() -> None:
    half = fed(blank(), 3)
    kept = from_json(json.loads(json.dumps(to_json(half))))
    assert fed(kept, 2, seed=2) == fed(half, 2, seed=2)


def test_a_stream_does_not_grow_for_ever() -> None:
    stream = fed(blank(), MOST_BATCHES + 10)
    assert len(stream.rewards) == len(stream.fell_back) <= MOST_BATCHES


def test_new_accounts_that_do_badly_are_no_fall() -> None:
    stream = fed(blank(), 30, reward=0.8)
    stream = fed(stream, 60, reward=0.2, young=True)
    assert shift_of(stream) is None


def test_exploration_that_is_gone_is_told_within_four_batches_of_new_accounts() -> None:
    stream = fed(blank(), 20, surprise=0.4, young=True)
    assert collapse_of(stream) is None
    stream = fed(stream, 4, surprise=0.02, young=True)
    (found,) = of_stream(stream, "", {}, rewards=False)
    assert (found.kind, found.scope) == ("exploration_collapse", "workflow")
    assert "certain" in found.cause


def test_exploration_that_goes_on_is_never_told_of() -> None:
    """Of 200 workflows with 10,000 new accounts' decisions each."""
    told = 0
    rng = np.random.default_rng(1)
    for level in rng.uniform(0.05, 0.9, 200):
        # A batch's mean of exponential surprises.
        surprises = rng.gamma(BATCH, level / BATCH, 200).tolist()
        first = sum(surprises[:8]) / 8
        stream = blank()._replace(first=first)
        for until in range(12, 200, 4):
            seen = stream._replace(surprises=surprises[:until], limited=[0.0] * until)
            told += collapse_of(seen) is not None
    assert told == 0


def test_a_collapse_that_limits_explain_names_them() -> None:
    stream = fed(blank(), 10, surprise=0.4, young=True)
    stream = fed(stream, 4, surprise=0.0, young=True, limited=0.9)
    (found,) = of_stream(stream, "", {}, rewards=False)
    assert "limits" in found.cause


def test_a_policy_that_never_explored_is_told_of_as_that() -> None:
    stream = fed(blank(), 14, surprise=0.001, young=True)
    (found,) = of_stream(stream, "plan=basic", {}, rewards=False)
    assert (found.scope, found.bucket) == ("bucket", "plan=basic")
    assert "from the start" in found.cause


def test_a_fall_that_the_fallback_explains_says_so() -> None:
    stream = fed(blank(), 30, reward=0.9)
    stream = fed(stream, 12, reward=0.3, fell_back=0.9)
    (found,) = of_stream(stream, "", {}, rewards=True)
    assert found.kind == "reward_shift"
    assert "fallback" in found.cause


def test_a_fall_in_one_bucket_is_named_where_the_others_stand() -> None:
    steady, fell = fed(blank(), 45, reward=0.8), fed(blank(), 30, reward=0.8)
    fell = fed(fell, 15, reward=0.1)
    whole = fed(fed(blank(), 60, reward=0.8), 30, reward=0.45)
    (found,) = of_stream(whole, "", {"plan=basic": fell, "plan=premium": steady}, rewards=True)
    assert "plan=basic" in found.cause


def test_the_mean_surprise_is_the_entropy_of_what_was_drawn_from() -> None:
    rng = np.random.default_rng(1)
    chances = np.array([0.7, 0.2, 0.1])
    drawn = chances[rng.choice(3, 20_000, p=chances)]
    mean = np.mean([surprise_of(float(one), 3) for one in drawn])
    entropy = -(chances * np.log(chances)).sum() / np.log(3)
    assert abs(mean - entropy) < 0.01
