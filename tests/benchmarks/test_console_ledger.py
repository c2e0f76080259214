"""The ledger that the console is measured on is one that the service could have made."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.console_ledger import WORKFLOW, fill, lengths, name_of
from tests.service_process import AUTHORIZATION, ServiceProcess


def test_histories_are_as_many_as_asked_for_and_very_different() -> None:
    sizes = lengths(1_000, 10_000, seed=1)
    assert (len(sizes), sizes.sum(), sizes.min()) == (1_000, 10_000, 1)
    assert np.median(sizes) < 10 < 100 < sizes.max()
    assert len({name_of(number) for number in range(100_000)}) == 100_000


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_service_serves_verifies_and_goes_on_with_it(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    if database == "postgresql":
        url = request.getfixturevalue("postgres_url")
    service = ServiceProcess(tmp_path / "service", ledger_url=url)
    service.start()
    service.terminate()
    written: list[int] = []
    filled = fill(url, 200, 1_000, 1, written.append)
    assert (sum(written), filled.accounts, filled.rows) == (200, 200, 2_000)
    service.start()
    try:
        with httpx.Client(
            base_url=service.base_url, headers=AUTHORIZATION, trust_env=False, timeout=30
        ) as http:
            first = {"limit": 100}
            found = http.get(f"/v1/workflows/{WORKFLOW}/verification", params=first).json()
            assert found.get("accounts") == 100, found
            rest = {"limit": 100, "after": found["next"]}
            more = http.get(f"/v1/workflows/{WORKFLOW}/verification", params=rest).json()
            assert found["interactions"] + more["interactions"] == 1_000
            # Rewards are drawn with their phases: those are not judged as the service judges.
            assert {one["what"] for one in found["differing"]} <= {"adaptation"}
            page = http.get(f"/console/workflows/{WORKFLOW}/accounts/{filled.longest}").text
            assert f"<dd>{filled.longest_history}</dd>" in page
    finally:
        service.terminate()
