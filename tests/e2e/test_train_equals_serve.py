"""One trial, rolled out in torch and played over REST: the same actions, the same memory."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import torch

from contract.draw import draw, sample
from contract.encode import encode_reward, horizon_left
from contract.spec import load_workflow
from service.bundles import load_policy
from service.catalog import open_catalog
from service.clock import now_us
from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey, Head
from service.memory.codec import decode
from service.memory.in_process import InProcessMemoryStore
from service.metrics import Metrics
from service.recall import Recall
from tests.e2e.play import KEY, reward
from tests.redis_server import redis_client
from tests.service_process import AUTHORIZATION, ROOT, ServiceProcess
from training.export import write_graphs
from training.policies.actionwise import Actionwise, ActionwiseSizes

STEPS = 60
ACCOUNTS = ("one", "two", "three")
Memories = dict[str, tuple[np.ndarray, np.ndarray]]


def opinionated_network() -> Actionwise:
    """A network whose choices depend on its memory, as a trained one's do."""
    torch.manual_seed(5)
    network = Actionwise(ActionwiseSizes())
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2.0)
        network.score.weight.normal_(0.0, 1.0)
    return network


def rolled_out(network: Actionwise) -> tuple[dict[str, list[str]], Memories]:
    """Every account's actions, and its memory (shared, rows) after them, in torch."""
    spec = load_workflow(ROOT / "workflows" / "brand-choice.yaml")
    K = len(spec.actions)
    actions: dict[str, list[str]] = {}
    memories: Memories = {}
    for account in ACCOUNTS:
        shared, rows = network.blank(1, K)
        actions[account] = []
        for step in range(STEPS):
            context, features = torch.zeros(1, 0), torch.zeros(1, K, 0)
            left = horizon_left([step], spec.horizon.interactions, spec.horizon.floor)
            with torch.no_grad():
                probabilities, _ = network.decide(
                    shared,
                    rows,
                    context,
                    torch.ones(1, K, dtype=torch.bool),
                    torch.from_numpy(left),
                    features,
                )
            u = draw(KEY.encode(), "default", spec.workflow, account, f"{account}-{step}")
            chosen = sample(probabilities.numpy(), np.array([u]))
            action = spec.action_ids[int(chosen[0])]
            actions[account].append(action)
            earned = encode_reward([reward(account, step, action)], 0.0, 1.0)
            with torch.no_grad():
                shared, rows = network.learn(
                    shared,
                    rows,
                    context,
                    torch.from_numpy(chosen),
                    torch.from_numpy(earned),
                    torch.ones(1),
                    features,
                )
        memories[account] = (shared.numpy(), rows.numpy())
    return actions, memories


def over_rest(base_url: str) -> dict[str, list[str]]:
    """The same trials through the live service."""
    actions: dict[str, list[str]] = {account: [] for account in ACCOUNTS}
    with httpx.Client(base_url=base_url, timeout=10, headers=AUTHORIZATION) as http:
        for step in range(STEPS):
            for account in ACCOUNTS:
                name = f"{account}-{step}"
                asked = {"account_id": account, "decision_id": name}
                answer = http.post("/v1/workflows/brand-choice/decisions", json=asked)
                action = answer.json()["action"]
                actions[account].append(action)
                told = {"reward": reward(account, step, action)}
                assert http.post(f"/v1/decisions/{name}/feedback", json=told).status_code == 200
    return actions


def test_a_trial_in_torch_and_the_same_trial_over_rest_are_one(
    service_process: Callable[..., ServiceProcess], redis_url: str, tmp_path: Path
) -> None:
    network = opinionated_network()
    home = tmp_path / "policies" / "universal" / "1"
    home.mkdir(parents=True)
    (home / "report.md").write_text("A network for a test.\n")
    provenance = {"command": "", "seed": 5, "date": "2026-11-22", "steps": 0, "versions": {}}
    write_graphs(network, home, "universal", 1, "none", provenance)
    expected, torch_memories = rolled_out(network)
    assert len({tuple(actions) for actions in expected.values()}) == len(ACCOUNTS)
    assert all(len(set(actions)) > 1 for actions in expected.values())

    workflows = tmp_path / "workflows"
    workflows.mkdir()
    shutil.copy(ROOT / "workflows" / "brand-choice.yaml", workflows)
    service = service_process(
        workflows=workflows,
        policies=tmp_path / "policies",
        redis_url=redis_url,
        installation_key=KEY,
        memory_timeout_seconds=5,
    )
    assert over_rest(service.base_url) == expected
    served: dict[str, tuple[bytes, str]] = {}
    with redis_client(redis_url) as client:
        for account in ACCOUNTS:
            (name,) = client.keys(f"*{{default|brand-choice|{account}}}:memory:universal/1:*")
            found = client.get(name)
            assert isinstance(found, bytes)
            assert isinstance(name, bytes)
            served[account] = found, name.decode()
    service.terminate()

    identity = load_policy(home).identity
    replayed = asyncio.run(replay(service.data_dir, workflows, tmp_path / "policies"))
    for account in ACCOUNTS:
        data, name = served[account]
        memory = decode(data, identity, name).memory
        for part, wanted in zip(memory, torch_memories[account], strict=True):
            assert np.abs(part - wanted).max() < 1e-6
        for part, wanted in zip(memory, replayed[account], strict=True):
            assert part.tobytes() == wanted.tobytes()


async def replay(data_dir: Path, workflows: Path, policies: Path) -> Memories:
    """Every account's memory, folded from the ledger alone."""
    ledger = Ledger.open(f"sqlite:///{data_dir / 'ledger.sqlite'}")
    catalog = open_catalog(workflows, policies, ledger, 0)
    recall = Recall(ledger, InProcessMemoryStore(10), catalog, Metrics(), now_us, 500)
    memories: Memories = {}
    for account in ACCOUNTS:
        key = AccountKey("default", "brand-choice", account)
        stored = await recall.at_head(catalog.workflows["brand-choice"], key, Head(0, STEPS))
        assert stored.head.position == STEPS
        memories[account] = (stored.memory.shared, stored.memory.rows)
    await ledger.close()
    return memories
