"""What schemathesis checks of every answer besides its own checks: no status but those that the
route documents by number, and every refusal a problem."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, Response

PROBLEM = "application/problem+json"


@schemathesis.check
def documented_by_number(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """`default` documents whatever comes; it is there for readers and hides nothing here."""
    if response.status_code == 405:  # of a method that the path does not have: no route's answer
        return
    documented = case.operation.definition.raw["responses"]
    assert str(response.status_code) in documented, (
        f"{response.status_code} is not among {sorted(documented)}"
    )


@schemathesis.check
def refused_as_a_problem(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """RFC 9457, whatever was asked."""
    if response.status_code < 400 or case.path == "/readyz":
        return
    [sent] = response.headers["content-type"]
    assert sent == PROBLEM, sent
    problem = response.json()
    assert problem["type"].startswith("urn:acclimate:problem:")
    assert problem["status"] == response.status_code
    assert problem["title"]
    assert problem["detail"]
