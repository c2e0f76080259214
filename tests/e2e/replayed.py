"""What every stored memory should be, bit for bit: the ledger's interactions, folded anew."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence

from service.catalog import open_catalog
from service.clock import now_us
from service.ledger.ledger import Ledger
from service.ledger.records import AccountKey
from service.memory.codec import encode
from service.memory.in_process import InProcessMemoryStore
from service.memory.store import PolicyIdentity, StoredMemory
from service.metrics import Metrics
from service.recall import Recall
from tests.processes import wait_until
from tests.service_process import ROOT, ServiceProcess


def check_memories(
    service: ServiceProcess,
    stored: Callable[[], Mapping[str, bytes | None]],
    accounts: Sequence[str],
    deadline: float,
    workflow: str = "brand-choice",
) -> None:
    """Returns when every account has a memory and it is its replay from the service's ledger.

    `stored` gives what Redis has, by key. Fails when it has not come true by `deadline`, in
    `time.monotonic()`. Nobody interacts meanwhile.
    """
    folded, policy = asyncio.run(_replay(service, accounts, workflow))

    def off() -> list[str]:
        found = {_account_of(name): (name, data) for name, data in stored().items()}
        missing = [account for account in accounts if account not in found]
        return missing + [
            account
            for account, (name, data) in found.items()
            if account in folded and data != encode(folded[account], policy, name)
        ]

    in_time = wait_until(lambda: not off(), timeout_seconds=deadline - time.monotonic())
    assert in_time, f"not their replay: {off()}"


def _account_of(name: str) -> str:
    tag = re.search(r"\{.*\|.*\|(.*)\}:memory:", name)
    assert tag is not None, name
    return tag[1]


async def _replay(
    service: ServiceProcess, accounts: Sequence[str], workflow: str
) -> tuple[dict[str, StoredMemory], PolicyIdentity]:
    embedded = f"sqlite:///{service.data_dir / 'ledger.sqlite'}"
    ledger = Ledger.open(str(service.settings.get("ledger_url", embedded)))
    try:
        policies = ROOT / "policies"
        catalog = open_catalog(ROOT / "workflows", policies, ledger, time.time_ns() // 1_000)
        served = catalog.workflows[workflow]
        recall = Recall(
            ledger, InProcessMemoryStore(len(accounts)), catalog, Metrics(), now_us, 500
        )
        keys = {account: AccountKey("default", workflow, account) for account in accounts}
        folded = {
            account: (await recall.fresh(served, key)).memory for account, key in keys.items()
        }
        return folded, served.policy.identity
    finally:
        await ledger.close()
