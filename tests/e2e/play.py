"""Plays accounts through a live service with rewards that depend on nothing but what was done."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.service_process import AUTHORIZATION

KEY = "the same draws in every run"

Story = dict[str, list[tuple[str, float, int, str]]]
"""By account: (action, probability, memory position, reason) a step."""


def reward(account: str, step: int, action: str) -> int:
    """1 or 0, the same whenever this account does this at this step."""
    return hashlib.sha256(f"{account} {step} {action}".encode()).digest()[0] % 3 // 2


def play(
    base_url: str,
    accounts: int,
    steps: int,
    between: Callable[[int], None] = lambda _: None,
    workflow: str = "brand-choice",
) -> Story:
    """Every account's (action, probability, memory position, reason) a step.

    All accounts at once, a step at a time; `between` is called before each step. A request that
    finds no service is sent again, with the same ids, until one answers.
    """
    names = [f"account-{i}" for i in range(accounts)]
    story: Story = {name: [] for name in names}
    with (
        httpx.Client(base_url=base_url, timeout=10, headers=AUTHORIZATION) as http,
        ThreadPoolExecutor(8) as pool,
    ):

        def interact(name: str, step: int) -> None:
            decision_id = f"{name}-{step}"
            answer = _post(
                http,
                f"/v1/workflows/{workflow}/decisions",
                {"account_id": name, "decision_id": decision_id},
            )
            action = answer["action"]
            told = (action, answer["probability"], answer["memory_position"], answer["reason"])
            story[name].append(told)
            _post(
                http,
                f"/v1/decisions/{decision_id}/feedback",
                {"reward": reward(name, step, action)},
            )

        for step in range(steps):
            between(step)
            for one in [pool.submit(interact, name, step) for name in names]:
                one.result()
    return story


def _post(http: httpx.Client, path: str, body: dict[str, object]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        try:
            answer = http.post(path, json=body)
            if answer.status_code != 503:
                assert answer.status_code == 200, answer.text
                parsed: dict[str, Any] = answer.json()
                return parsed
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"no answer from {path}")
        time.sleep(0.05)
