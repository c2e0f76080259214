"""A Redis Cluster under the service: a master lost under load costs nothing that was said."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean

import pytest

from tests.e2e.load import Load
from tests.e2e.replayed import check_memories
from tests.processes import wait_until
from tests.redis_cluster import RedisCluster
from tests.service_process import ServiceProcess

ACCOUNTS = 20
HEALED_SECONDS = 5
"""After a replica took over."""

Start = Callable[..., ServiceProcess]


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_master_is_lost_under_load_and_its_replica_takes_over(
    service_process: Start, redis_cluster: RedisCluster, redis_cluster_url: str, how: str
) -> None:
    service = service_process(redis_url=redis_cluster_url)
    lost = redis_cluster.masters()[1]
    with Load(service.base_url, ACCOUNTS) as load:
        load.go_on(3)
        its_own = {name for name in redis_cluster.stored() if redis_cluster.master_of(name) is lost}
        assert its_own
        lost_at = time.monotonic()
        if how == "killed":
            lost.kill()
        else:
            lost.pause()
        assert wait_until(lambda: lost not in redis_cluster.masters(), timeout_seconds=20)
        over_at = time.monotonic()
        load.go_on(5)
    check_memories(service, redis_cluster.stored, load.accounts, over_at + HEALED_SECONDS)
    load.check()
    lost.resume()
    assert {steps[-1].decision["reason"] for steps in load.steps.values()} == {"policy"}
    by_account = {account: f"{{default|brand-choice|{account}}}" for account in load.accounts}
    pace: dict[bool, list[int]] = {True: [], False: []}
    for account, tag in by_account.items():
        reasons = {step.decision["reason"] for step in load.steps[account]}
        here = any(tag in name for name in its_own)
        # What is on the others is not even slowed down to a deadline.
        assert reasons == ({"policy", "memory_unavailable"} if here else {"policy"}), account
        pace[here].append(sum(lost_at < step.decided_at < over_at for step in load.steps[account]))
    # Nor does what is lost wait for who takes over: its accounts go on at half the pace and more.
    assert fmean(pace[True]) > fmean(pace[False]) / 2, pace
