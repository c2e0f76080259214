"""The ablated networks do what their names say, and all runs are given the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from acclimate import main
from tests.training.trials import record, shake, step_by_step
from training.ablations import VARIANTS, Settings, quick, run, trained
from training.policies.ablated import Ablated
from training.policies.gru import GruSizes
from training.trust_region import FisherProduct

CELLS = pytest.mark.parametrize("cell", ["lstm", "rnn", "reset"])


def network_of(cell: str) -> Ablated:
    torch.manual_seed(0)
    network = Ablated(GruSizes(actions=4, hidden=6, context=3), cell)
    shake(network)
    return network


@CELLS
def test_an_ablated_record_at_once_is_the_same_as_step_by_step(cell: str) -> None:
    network, one = network_of(cell), record(F=0)
    probabilities, _, _ = step_by_step(network, one)
    at_once = torch.softmax(network.logits([one])[0], -1)
    torch.testing.assert_close(at_once, torch.stack(probabilities), atol=1e-6, rtol=0)


def test_the_lstm_is_torchs_own() -> None:
    network = network_of("lstm")
    cell = torch.nn.LSTMCell(9, 6)
    with torch.no_grad():
        cell.weight_ih.copy_(network.observed.weight)
        cell.bias_ih.copy_(network.observed.bias)
        cell.weight_hh.copy_(network.recurrent.weight)
        cell.bias_hh.copy_(network.recurrent.bias)
    shared, seen = torch.randn(2, 12 + 6), torch.randn(2, 3)
    hidden, kept = cell(torch.cat([seen, shared[:, 12:]], 1), (shared[:, :6], shared[:, 6:12]))
    found = network._advance(shared, seen)
    torch.testing.assert_close(found, torch.cat([hidden, kept], 1))


def test_a_memory_that_is_reset_forgets_all_that_came_before_the_last_end_of_an_episode() -> None:
    network = network_of("reset")
    first, second = record(F=0, seed=1), record(F=0, seed=2)
    ended = torch.zeros_like(first.done)
    ended[3] = 1.0
    after = slice(4, None)
    mixed = replace(
        first,
        action=torch.cat([second.action[:4], first.action[after]]),
        reward=torch.cat([second.reward[:4], first.reward[after]]),
        context=torch.cat([second.context[:4], first.context[after]]),
        done=ended,
    )
    one, other = network.logits([replace(first, done=ended), mixed])
    assert not torch.allclose(one[1:4], other[1:4])
    torch.testing.assert_close(one[after], other[after])


@CELLS
def test_an_ablated_network_can_be_given_a_natural_step(cell: str) -> None:
    network, one = network_of(cell), record(F=0)
    value_head = {id(parameter) for parameter in network.value_parameters()}
    named = {n: p for n, p in network.named_parameters() if id(p) not in value_head}
    product = FisherProduct(network.linearised([one], torch.tensor([0, 5, 2]), named), named)
    vector = torch.randn(sum(p.numel() for p in named.values()))
    assert float(vector @ product(vector)) > 0


def test_every_variant_is_trained_for_as_long_and_judged_on_the_same_trials() -> None:
    result = run(quick(Settings()))
    assert [row.name for row in result["rows"]] == [variant.name for variant in VARIANTS]
    for row in result["rows"]:
        assert len(row.curve) == 2
        assert 0 < row.reward < 4
    assert result["rows"][0].difference == 0.0
    assert result["gittins"][0] > result["random"]


def test_without_a_memory_that_lasts_nothing_is_learned_within_a_trial() -> None:
    settings = Settings(n=10, k=2, width=8, iterations=25, steps=2_000)
    lasting, reset = (trained(settings, variant, 1)[1] for variant in (VARIANTS[0], VARIANTS[3]))
    assert lasting[-1] > 0.25
    assert abs(sum(reset[-5:]) / 5) < 0.1


def test_the_command_prints_one_table_and_writes_it_with_its_command(tmp_path: Path) -> None:
    report = tmp_path / "ablations.md"
    found = CliRunner().invoke(main, ["ablations", "--quick", "--report", str(report)])
    assert found.exit_code == 0, found.output
    for variant in VARIANTS:
        assert f"| {variant.name} |" in found.stdout
    assert "Made by `acclimate" in report.read_text()


def test_a_cell_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="cell: expected one of lstm, rnn, reset, got mamba"):
        Ablated(GruSizes(actions=3, hidden=4), "mamba")
