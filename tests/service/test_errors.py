"""Bad input gets a problem that names the field and what was expected, and changes nothing."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from service.api.problems import FieldError, problem
from service.ledger import tables
from service.ledger.records import LedgerUnavailableError
from tests.service.conftest import CONTEXT, Client

DECISIONS = "/v1/workflows/help/decisions"
FEEDBACK = "/v1/decisions/known/feedback"


def body(**changes: Any) -> bytes:
    """A decision's body with some fields changed; None takes a field away."""
    whole = {"account_id": "b", "context": CONTEXT} | changes
    return json.dumps({key: value for key, value in whole.items() if value is not None}).encode()


def context(**changes: Any) -> bytes:
    """A decision's body with some of its context changed; ... takes a feature away."""
    whole = {key: value for key, value in (CONTEXT | changes).items() if value is not ...}
    return body(context=whole)


def nested(levels: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


CASES = [
    ("/v1/workflows/nope/decisions", body(), 404, "workflow", "help"),
    ("/v1/workflows/help/decision", body(), 404, None, None),
    (DECISIONS, b'{"account_id": "b"', 400, "body", "JSON"),
    (DECISIONS, b"", 422, "body", "value"),
    (DECISIONS, b"[]", 422, "body", "a JSON object"),
    (DECISIONS, b"\xff\xfe", 400, "body", "UTF-8, got byte 0xff at 0"),
    (DECISIONS, b'{"a":"\xff"}', 400, "body", "UTF-8, got byte 0xff at 6"),
    (DECISIONS, body().decode().encode("utf-16"), 400, "body", "JSON in UTF-8"),
    (DECISIONS, body().decode().encode("utf-16-le"), 400, "body", "JSON"),
    (DECISIONS, body().decode().encode("utf-32-be"), 400, "body", "JSON"),
    (DECISIONS, b'{"a":' + b"9" * 5_000 + b"}", 400, "body", "integers of at most 4300 digits"),
    (DECISIONS, b'{"a":' + b"[" * 400_000, 400, "body", "nested at most 32 deep"),
    (DECISIONS, b'{"a":' * 100_000, 400, "body", "nested at most 32 deep"),
    (DECISIONS, context(plan=nested(32)), 400, "body", "nested at most 32 deep"),
    (DECISIONS, context(plan=nested(20)), 422, "context.plan", "['basic', 'premium'], got [[["),
    (DECISIONS, b'{"account_id": "a", "account_id": "b"}', 400, "body", "got 'account_id' more"),
    (DECISIONS, b'{"account_id": "a", "context": {"x": 1, "x": 1}}', 400, "body", "got 'x' more"),
    (DECISIONS, body(account_id=None), 422, "account_id", "a value, got nothing"),
    (DECISIONS, body(account_id=7), 422, "account_id", "string"),
    (DECISIONS, body(account_id=""), 422, "account_id", "1 to 128 characters"),
    (DECISIONS, body(account_id="a/b"), 422, "account_id", "1 to 128 characters"),
    (DECISIONS, body(account_id="a\n"), 422, "account_id", "1 to 128 characters"),
    (DECISIONS, body(account_id="a" * 129), 422, "account_id", "1 to 128 characters"),
    (DECISIONS, body(decision_id="ä"), 422, "decision_id", "1 to 128 characters"),
    (DECISIONS, body(extra=1), 422, "extra", "no field of this name"),
    (DECISIONS, body(path=1), 422, "path", "no field of this name"),
    (DECISIONS, body(**{"\ud800": 1}), 422, "body", "text without lone surrogates"),
    (DECISIONS, body(account_id="\ud800"), 422, "account_id", "text without lone surrogates"),
    (DECISIONS, context(**{"\ud800": 1}), 422, "context.\\ud800", "a declared feature"),
    (DECISIONS, body(actions=[]), 422, "actions", "at least 1"),
    (DECISIONS, body(actions=["a"] * 1_001), 422, "actions", "at most 1000"),
    (DECISIONS, body(actions=["Mail"]), 422, "actions.0", "out of a-z 0-9 _, a letter first"),
    (DECISIONS, body(actions=["x" * 900_000]), 422, "actions.0", "1 to 64 characters"),
    (DECISIONS, body(actions=[1]), 422, "actions.0", "string"),
    (DECISIONS, body(actions=["fly"]), 422, "actions", "'wait', 'mail', 'call'"),
    (DECISIONS, body(actions=["mail", "mail"]), 422, "actions", "each once"),
    (DECISIONS, body(context=[]), 422, "context", "dictionary"),
    (DECISIONS, context(tenure=...), 422, "context.tenure", "a number in [0, 100], got nothing"),
    (DECISIONS, context(tenure="long"), 422, "context.tenure", "a number in [0, 100], got 'long'"),
    (DECISIONS, context(tenure=True), 422, "context.tenure", "a number in [0, 100]"),
    (DECISIONS, context(tenure=None), 422, "context.tenure", "a number in [0, 100]"),
    (DECISIONS, context(tenure=101), 422, "context.tenure", "a number in [0, 100], got 101"),
    (DECISIONS, context(tenure=float("nan")), 422, "context.tenure", "not finite"),
    (DECISIONS, context(tenure=float("inf")), 422, "context.tenure", "not finite"),
    (DECISIONS, context(tenure=10**400), 422, "context.tenure", "a number in [0, 100]"),
    (DECISIONS, context(plan="gold"), 422, "context.plan", "['basic', 'premium'], got 'gold'"),
    (DECISIONS, context(plan=["basic"]), 422, "context.plan", "['basic', 'premium']"),
    (DECISIONS, context(plan="\ud800"), 422, "context.plan", "['basic', 'premium']"),
    (DECISIONS, context(mood="good"), 422, "context.mood", "a declared feature (tenure"),
    ("/v1/decisions/unknown/feedback", b'{"reward": 1}', 404, "decision_id", "got unknown"),
    (FEEDBACK, b"{}", 422, "reward", "either a reward or an outcome"),
    (FEEDBACK, b'{"reward": 1, "outcome": "solved"}', 422, "reward", "not both"),
    (FEEDBACK, b'{"reward": 3.5}', 422, "reward", "a number in [-1, 3], got 3.5"),
    (FEEDBACK, b'{"reward": NaN}', 422, "reward", "finite"),
    (FEEDBACK, b'{"reward": "1"}', 422, "reward", "number"),
    (FEEDBACK, b'{"reward": true}', 422, "reward", "number"),
    (FEEDBACK, b'{"outcome": "lost"}', 422, "outcome", "['solved', 'unsolved']"),
    (FEEDBACK, b'{"reward": 1, "episode_end": 1}', 422, "episode_end", "boolean"),
    (FEEDBACK, b'{"reward": 1, "feedback_id": "a b"}', 422, "feedback_id", "characters"),
    (FEEDBACK, b'{"reward": 1', 400, "body", "JSON"),
]


NOT_TIMES = [
    "yesterday",
    "2027-01-01",
    "2027-01-01T00:00:00",
    "2027-02-29T00:00:00Z",
    "2027-01-01T00:00:00+24:00",
    "0001-01-01T00:00:00+10:00",
    "1969-12-31T23:59:59Z",
    "1970-01-01T00:00:00+00:01",
    "9998-12-31T23:59:59-10:00",
    "9999-12-31T23:59:59-10:00",
    "1800000000",
    1_800_000_000,
    1.5,
    True,
]
CASES += [
    (
        FEEDBACK,
        json.dumps({"reward": 1, "occurred_at": moment}).encode(),
        422,
        "occurred_at",
        "a time in RFC 3339 with an offset, of the years 1970 to 9998",
    )
    for moment in NOT_TIMES
]


async def rows(client: Client) -> dict[str, int]:
    """How many rows each of the ledger's tables has."""
    names = ("accounts", "decisions", "feedback")
    return await client.service.ledger.read(
        lambda connection: {
            name: connection.scalar(select(func.count()).select_from(tables.metadata.tables[name]))
            or 0
            for name in names
        }
    )


@pytest.mark.parametrize(("path", "sent", "status", "field", "expected"), CASES)
async def test_bad_input_is_a_problem_that_names_the_field_and_changes_nothing(
    client: Client, path: str, sent: bytes, status: int, field: str | None, expected: str | None
) -> None:
    await client.decide("a", decision_id="known")
    before = await rows(client)
    answer = await client.http.post(
        path, content=sent, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:acclimate:problem:")
    if field is not None and expected is not None:
        assert [one["field"] for one in problem["errors"]] == [field]
        assert expected in problem["errors"][0]["expected"]
        assert field in problem["detail"]
    assert len(answer.content) < 1_000  # input is not echoed at length
    assert await rows(client) == before


async def test_a_body_of_ten_megabytes_is_refused_before_it_is_parsed(client: Client) -> None:
    huge = b'{"account_id": "' + b"a" * 10_000_000 + b'"}'

    async def chunks() -> Any:
        for start in range(0, len(huge), 100_000):
            yield huge[start : start + 100_000]

    for content in (huge, chunks()):
        answer = await client.http.post(DECISIONS, content=content)
        assert answer.status_code == 413
        assert answer.json()["errors"] == [{"field": "body", "expected": "at most 1000000 bytes"}]
    assert (await rows(client))["decisions"] == 0


@pytest.mark.parametrize(
    "moment", ["1970-01-01T00:00:00Z", "9998-12-31T23:59:59.999999z", "2027-01-01 00:00:00.5-23:59"]
)
async def test_every_time_that_is_taken_can_be_read_back(client: Client, moment: str) -> None:
    await client.decide("a", decision_id="d")
    assert (await client.learn("d", reward=1, occurred_at=moment)).status_code == 200
    record = await client.http.get("/v1/decisions/d")
    assert record.status_code == 200
    assert record.json()["feedback"][0]["occurred_at"].endswith("Z")


async def test_nothing_nested_fails_for_want_of_stack(client: Client) -> None:
    for levels in (33, 100, 500, *range(800, 1_000, 10)):
        sent = context(plan=None).replace(b"null", b"[" * levels + b"]" * levels)
        answer = await client.http.post(
            DECISIONS, content=sent, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400, levels


async def test_a_byte_order_mark_before_utf_8_is_passed_over(client: Client) -> None:
    answer = await client.http.post(
        DECISIONS,
        content=b"\xef\xbb\xbf" + body(),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 200


async def test_a_body_that_is_not_declared_json_is_told_so(client: Client) -> None:
    answer = await client.http.post(
        DECISIONS, content=body(), headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 422
    assert answer.json()["detail"] == "body: expected a JSON object, sent as application/json"


async def test_a_problem_names_ten_errors_and_counts_the_others(client: Client) -> None:
    extra = {f"extra_{i:02}": 1 for i in range(25)}
    answer = await client.http.post(
        DECISIONS, content=body(**extra), headers={"Content-Type": "application/json"}
    )
    problem = answer.json()
    assert [one["field"] for one in problem["errors"]] == [f"extra_{i:02}" for i in range(10)]
    assert problem["detail"] == "extra_00: expected no field of this name; and 24 more"


HUGE = {
    "one action": body(actions=["x" * 900_000]),
    "one key": body(**{"k" * 900_000: 1}),
    "one key that has to be escaped": body(**{"\x01" * 150_000: 1}),
    "one key, twice": b'{"%b": 1, "%b": 2}' % (b"k" * 400_000, b"k" * 400_000),
    "many actions": body(actions=["X"] * 190_000),
    "many actions that are no strings": body(actions=[1] * 300_000),
    "many keys": body(**{'"' * 90 + str(i): 1 for i in range(4_000)}),
    "one feature": context(**{"\U0001f600" * 80_000: 1}),
    "one value": context(plan="\\" * 400_000),
    "one id": body(account_id="a" * 900_000),
    "one number": context(tenure=10**4_200),
}


@pytest.mark.parametrize("case", HUGE)
async def test_however_much_is_sent_little_is_said(client: Client, case: str) -> None:
    answer = await client.http.post(
        DECISIONS, content=HUGE[case], headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422)
    assert len(answer.content) < 4_000
    assert answer.json()["errors"]
    for one in answer.json()["errors"]:
        assert len(one["field"]) <= 72


@given(
    st.lists(
        st.tuples(st.text(st.characters()), st.text(st.characters()), st.integers(1, 5_000)),
        max_size=15,
    )
)
@example([('"', "\\", 5_000)] * 15)
@example([("\U0001f600", "\ud800", 5_000)] * 10)
@example([("\x00", "\u00e4", 5_000)] * 2)
@example([("a", '"', 5_000)])
def test_no_problem_is_larger_than_4_kb(found: list[tuple[str, str, int]]) -> None:
    errors = [FieldError(field=field * n, expected=text * n) for field, text, n in found]
    answer = problem("method-not-allowed", 405, errors)
    assert len(answer.body) < 4_096
    assert len(json.loads(bytes(answer.body))["errors"]) == min(len(found), 10)


JUNK = st.one_of(
    st.text(st.characters(), max_size=30),
    st.tuples(st.characters(), st.integers(100, 3_000)).map(lambda one: one[0] * one[1]),
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | JUNK
    | st.sampled_from(["a", "mail", "solved", "premium", "2027-01-01T00:00:00Z"]),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(JUNK, inner, max_size=20),
    max_leaves=40,
)
FIELDS = ["account_id", "decision_id", "context", "actions", "reward", "outcome", "occurred_at"]
BODIES = st.dictionaries(st.sampled_from(FIELDS) | JUNK, ANYTHING, max_size=15) | ANYTHING
PATHS = [
    ("POST", "/v1/workflows/{}/decisions"),
    ("POST", "/v1/decisions/{}/feedback"),
    ("GET", "/v1/decisions/{}"),
    ("GET", "/v1/workflows/help/accounts/{}"),
    ("GET", "/v1/workflows/help/accounts/{}/export"),
    ("POST", "/v1/workflows/help/accounts/{}/reset"),
    ("POST", "/v1/workflows/help/accounts/{}/rebuild"),
    ("DELETE", "/v1/workflows/help/accounts/{}"),
    ("DELETE", "/v1/workflows/{}/accounts/a"),
    ("POST", "/v1/decisions/{}/activate"),
    ("GET", "/v1/decisions/known?rederive={}"),
    ("GET", "/v1/workflows/help/verification?after={}"),
    ("POST", "/v1/workflows/help/rebuild?limit={}"),
    ("PUT", "/{}"),
]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    route=st.sampled_from(PATHS),
    place=st.sampled_from(["help", "known"]) | st.text(max_size=200),
    sent=BODIES,
    tenants=st.lists(st.just("default") | st.text("aZ-. \u00e9", max_size=300), max_size=2),
)
async def test_whatever_is_sent_the_answer_is_a_small_problem_or_none(
    client: Client, route: tuple[str, str], place: str, sent: Any, tenants: list[str]
) -> None:
    method, path = route
    answer = await client.http.request(
        method,
        path.format(quote(place, safe="")),
        content=json.dumps(sent).encode(),
        headers=[
            (b"Content-Type", b"application/json"),
            *((b"X-Acclimate-Tenant", tenant.encode("latin-1")) for tenant in tenants),
        ],
    )
    assert answer.status_code < 500
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert len(answer.content) < 4_096


@pytest.mark.parametrize("length", ["9" * 5_000, "1000001", "00000000001000001"])
async def test_a_declared_length_of_any_digits_is_compared(client: Client, length: str) -> None:
    answer = await client.http.post(DECISIONS, content=body(), headers={"Content-Length": length})
    assert answer.status_code == 413


@pytest.mark.parametrize("length", ["0" * 5_000 + "1000000", "1000000", "", "-1", "many"])
async def test_a_declared_length_that_fits_or_is_none_refuses_nothing(
    client: Client, length: str
) -> None:
    headers = {"Content-Length": length, "Content-Type": "application/json"}
    answer = await client.http.post(DECISIONS, content=body(), headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("tenant", ["", "UPPER", "a b", "-x", "a" * 65])
async def test_a_tenant_that_is_no_name_is_refused(client: Client, tenant: str) -> None:
    answer = await client.decide("a", tenant=tenant)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {
            "field": "X-Acclimate-Tenant",
            "expected": "1 to 64 characters out of a-z 0-9 . _ -, a letter or digit first",
        }
    ]


async def test_a_request_that_names_two_tenants_is_nobodys(client: Client) -> None:
    await client.decide("a", tenant="one", decision_id="d")
    before = await rows(client)
    two = [("x-acclimate-tenant", "one"), ("X-Acclimate-Tenant", "two")]
    for method, path in (
        ("POST", DECISIONS),
        ("POST", "/v1/decisions/d/feedback"),
        ("GET", "/v1/decisions/d"),
        ("GET", "/v1/workflows/help/accounts/a"),
    ):
        answer = await client.http.request(method, path, headers=two, json={})
        assert answer.status_code == 422
        assert answer.json()["errors"] == [
            {"field": "X-Acclimate-Tenant", "expected": "one header of this name, got 2"}
        ]
    assert await rows(client) == before


async def test_other_methods_and_paths_are_problems_too(client: Client) -> None:
    for method, path, status in (
        ("PUT", DECISIONS, 405),
        ("GET", "/v2", 404),
        ("POST", DECISIONS + "/", 404),
        ("GET", "/livez/", 404),
    ):
        answer = await client.http.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_ledger_that_cannot_commit_is_503_and_nothing_half_done(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await client.decide("a", decision_id="d")
    monkeypatch.setattr(client.service.ledger._commits._engine, "begin", _disk_full)
    for refused in (await client.decide("a"), await client.learn("d", reward=3)):
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:acclimate:problem:ledger-unavailable"
    monkeypatch.undo()
    after = await client.decide("a", decision_id="d")
    assert after.content == answer.content
    assert (await client.decide("a")).json()["memory_position"] == 0
    assert (await rows(client)) == {"accounts": 1, "decisions": 2, "feedback": 0}


def _disk_full(*_: object) -> Any:
    raise OSError(28, "No space left on device")


async def test_the_log_says_what_kind_of_error_it_was_and_nothing_that_was_sent(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "household-17"

    def fail_with(error: Exception) -> Any:
        async def fail(*_: object) -> None:
            raise error from ValueError(f"{secret}: [parameters: {secret}]")

        return fail

    for error, status in ((KeyError(secret), 500), (LedgerUnavailableError(secret), 503)):
        caplog.clear()
        monkeypatch.setattr(client.service.decider, "decide", fail_with(error))
        answer = await client.decide(secret)
        assert answer.status_code == status
        assert secret not in answer.text
        assert f"{type(error).__name__} from ValueError" in caplog.text
        ours = [one for one in caplog.records if one.name.startswith("service")]
        assert {one.levelno for one in ours} == {logging.ERROR}
        assert secret not in "".join(one.getMessage() + str(one.exc_info) for one in ours)
