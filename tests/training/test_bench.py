"""The training benchmark: its peer plays the same bandits, and products are counted as called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from acclimate import main
from training.bench_peer import Peer, Trials, build_peer, seconds_of
from training.bench_products import CountProducts, floating_operations, seconds_alone
from training.tasks.bandits import BernoulliBandits


def test_products_are_counted_with_those_of_the_derivative() -> None:
    layer = nn.Linear(3, 5)
    seen = torch.randn(7, 3, requires_grad=True)
    with CountProducts() as counted:
        layer(seen).sum().backward()
    assert sum(counted.products.values()) == 3
    assert floating_operations(counted.products) == 3 * 2 * 7 * 3 * 5
    assert seconds_alone(counted.products) > 0


def test_stacked_products_are_counted_as_many() -> None:
    with CountProducts() as counted:
        torch.bmm(torch.ones(4, 2, 3), torch.ones(4, 3, 5))
    assert floating_operations(counted.products) == 4 * 2 * 2 * 3 * 5


def test_the_peer_meets_the_same_bandits_and_the_same_coins() -> None:
    trials, bandits = Trials(6, 3, 4, seed=5), BernoulliBandits(6, 3, 4, np.random.default_rng(5))
    assert not trials.reset().any()
    bandits.reset()
    for t in range(8):
        actions = (np.arange(6) + t) % 3
        seen, reward, over, infos = trials.step(actions)
        _, expected, _, _, _ = bandits.step(actions)
        np.testing.assert_array_equal(reward, expected)
        shown = np.concatenate([np.eye(3)[actions], 2 * reward[:, None] - 1, np.ones((6, 1))], 1)
        assert over.all() == (t % 4 == 3)
        if over.all():
            bandits.reset()
            assert not seen.any()
            np.testing.assert_array_equal([one["terminal_observation"] for one in infos], shown)
        else:
            np.testing.assert_array_equal(seen, shown)


def test_an_iteration_of_the_peer_plays_what_it_is_counted_for() -> None:
    peer = Peer(environments=4, parts=2, width=8, rollout=5)
    model = build_peer(peer, k=3, n=5, seed=1)
    took = seconds_of(model, peer, iterations=2)
    assert len(took) == 2
    assert model.num_timesteps == 2 * peer.steps == 40
    assert model.policy.lstm_actor.hidden_size == 8


def test_the_benchmark_writes_what_it_measured(tmp_path: Path) -> None:
    file = tmp_path / "training.json"
    command = ["bench", "training", "--quick", "--json", str(file)]
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 0, found.output
    figures = json.loads(file.read_text())
    assert figures["ratio"] == pytest.approx(
        figures["steps_per_s"] / figures["recurrent_ppo_steps_per_s"], rel=1e-2
    )
    assert figures["matmul_ratio"] > 1
    assert figures["recurrent_ppo"]["n_epochs"] == 10
    assert figures["machine"]["sb3-contrib"]
