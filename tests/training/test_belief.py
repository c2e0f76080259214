"""The exact part of a memory row: what it counts, and what it forgets."""

from __future__ import annotations

import math

import pytest
import torch

from tests.training.trials import record, small_believing
from training.policies.actionwise import ActionwiseSizes
from training.policies.belief import RATES, SIZE, Belief
from training.policies.network import build
from training.policies.sequence import last_written


def test_five_hundred_coins_are_counted_exactly_and_read_as_their_posterior() -> None:
    network = build("actionwise", {"shared": 3, "row": 2, "width": 4, "belief": True})
    shared, rows = network.blank(1, 2)
    coins = torch.rand(500, generator=torch.Generator().manual_seed(0)) < 0.3
    nothing, features = torch.zeros(1, 0), torch.zeros(1, 2, 0)
    with torch.no_grad():
        for coin in coins:
            reward = torch.tensor([1.0 if coin else -1.0])
            done, action = torch.ones(1), torch.zeros(1, dtype=torch.int64)
            shared, rows = network.learn(shared, rows, nothing, action, reward, done, features)
        won, lost = int(coins.sum()), int((~coins).sum())
        assert float(shared[0, -1]) == 500
        assert rows[0, 0, 2:5].tolist() == [500, won - lost, 500]
        assert torch.equal(rows[0, 1, 2:], torch.zeros(SIZE))
        belief = network.get_submodule("belief")
        assert isinstance(belief, Belief)
        reading = belief.read(belief.now(rows[..., 2:], shared[:, -1]))
    alpha, beta = won + 1, lost + 1
    mean = alpha / (alpha + beta)
    deviation = math.sqrt(mean * (1 - mean) / (alpha + beta + 1))
    assert float(reading.mean[0, 0, 0]) == pytest.approx(2 * mean - 1, rel=1e-5)
    assert float(reading.deviation[0, 0, 0]) == pytest.approx(2 * deviation, rel=1e-5)
    assert float(reading.mean[0, 1, 0]) == 0
    assert float(reading.deviation[0, 1, 0]) == pytest.approx(2 * math.sqrt(1 / 12))


def test_what_was_long_ago_weighs_less_by_every_interaction_since_whoever_was_served() -> None:
    belief = small_believing().belief
    one = record(T=30, B=2, K=3)
    at = torch.arange(30)
    with torch.no_grad():
        present = belief.replay(one, last_written(one.action, 3), at)
        kept = 0.5 + 0.5 * torch.sigmoid(belief.kept_logit)
    for t in (0, 1, 17, 29):
        for b in range(2):
            for k in range(3):
                served = one.action[:t, b] == k
                age = t - 1.0 - torch.arange(t)[served]
                exact = [served.sum(), one.reward[:t, b][served].sum(), served.sum()]
                torch.testing.assert_close(present[t, b, k, :3], torch.stack(exact).float())
                for i in range(RATES):
                    weight = (1 - kept[i]) * kept[i] ** age
                    wanted = torch.stack([weight.sum(), (weight * one.reward[:t, b][served]).sum()])
                    found = present[t, b, k, 3 + 2 * i : 5 + 2 * i]
                    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_the_rates_of_forgetting_have_a_gradient() -> None:
    network = small_believing()
    sum((one**2).sum() for one in network.logits([record(T=20)])).backward()  # type: ignore[union-attr]
    gradient = network.belief.kept_logit.grad
    assert gradient is not None
    assert bool((gradient != 0).all())


def test_statistics_count_as_memory() -> None:
    assert ActionwiseSizes(shared=31, row=24, belief=True).row_floats == 24 + SIZE
    ActionwiseSizes(shared=71, row=24, belief=True)
    with pytest.raises(ValueError, match="480 floats"):
        ActionwiseSizes(shared=72, row=24, belief=True)
