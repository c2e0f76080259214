"""A client walks a ViZDoom maze by the live service's actions: one maze, one account, two episodes.

The pictures go over REST as their bytes. The service adapts to the maze: it goes to the target
faster the second time, and another account, which has seen nothing, does not.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.e2e.play import KEY
from tests.service_process import AUTHORIZATION, ROOT, ServiceProcess
from training.evaluate_mazes import unseen_layouts
from training.tasks.mazes.walking import ACTIONS
from training.tasks.mazes.workers import Engines
from training.tasks.mazes.worlds import wad_for

pytest.importorskip("vizdoom", reason="the mazes need the train extra")

MAZES = 4
EPISODES = 2
MOST_STEPS = 250


def walk(http: httpx.Client, engines: Engines, maze: int, account: str) -> list[int]:
    """Steps of each episode in one maze, every action asked of the service."""
    taken = []
    for episode in range(EPISODES):
        if episode:
            engines.restart([0])
        else:
            engines.load([0], [maze])
        for step in range(1, MOST_STEPS + 1):
            answer = http.post(
                "/v1/workflows/maze-navigation/decisions/picture",
                content=engines.pictures[0].tobytes(),
                params={
                    "account_id": account,
                    "episode_id": f"{account}-{episode}",
                    "decision_id": f"{account}-{episode}-{step}",  # what is drawn goes by it
                },
                headers={"Content-Type": "application/octet-stream"},
            )
            assert answer.status_code == 200, answer.text
            decision = answer.json()
            assert decision["reason"] == "policy"
            found = bool(engines.act([0], [ACTIONS.index(decision["action"])])[0])
            over = found or step == MOST_STEPS
            learned = http.post(
                f"/v1/decisions/{decision['decision_id']}/feedback",
                json={"outcome": "found" if found else "moved", "episode_end": over},
            )
            assert learned.status_code == 200, learned.text
            assert learned.json()["status"] == "folded"
            if over:
                break
        taken.append(step)
    return taken


def test_the_second_episode_is_shorter_over_rest(tmp_path: Path) -> None:
    mazes = unseen_layouts("small", MAZES, 3)
    workflows = tmp_path / "workflows"
    workflows.mkdir()
    name = "maze-navigation.yaml"
    (workflows / name).write_bytes((ROOT / "workflows" / name).read_bytes())
    service = ServiceProcess(tmp_path / "data", workflows=workflows, installation_key=KEY)
    service.start()
    try:
        with (
            Engines(wad_for(mazes, tmp_path), 1) as engines,
            httpx.Client(base_url=service.base_url, timeout=30, headers=AUTHORIZATION) as http,
        ):
            steps = [walk(http, engines, maze, f"maze-{maze}") for maze in range(MAZES)]
    finally:
        service.terminate()
    first, second = zip(*steps, strict=True)
    assert sum(second) < sum(first)
    assert sum(b <= a for a, b in zip(first, second, strict=True)) >= MAZES - 1
