"""The requests of docs/personalizer.md, sent to a service that has the shipped workflows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import httpx

from tests.house.tree import ROOT
from tests.service_process import ServiceProcess

REQUEST = re.compile(
    r"```http\nPOST (?P<path>/v1/\S+)\n(?P<headers>.*?)\n\n?(?P<body>\{.*?)```", re.S
)


def test_the_requests_of_the_guide_are_answered(
    service_process: Callable[..., ServiceProcess],
) -> None:
    text = (ROOT / "docs" / "personalizer.md").read_text()
    found = [(one["path"], json.loads(one["body"])) for one in REQUEST.finditer(text)]
    assert [path for path, _ in found] == [
        "/v1/workflows/retention-offer/decisions",
        "/v1/decisions/visit-75/feedback",
    ]
    service = service_process(workflows=ROOT / "workflows", policies=ROOT / "policies")
    with httpx.Client(base_url=service.base_url, timeout=30) as http:
        for path, body in found:
            answer = http.post(path, json=body)
            assert answer.status_code == 200, answer.text
            if "decisions" in path.rpartition("/")[2]:
                assert answer.json()["action"] in body["actions"]
                assert {"probability", "reason", "policy"} <= set(answer.json())
        assert answer.json()["status"] == "folded"
