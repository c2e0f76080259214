"""The benchmark's requests, made as fast as they are sent: `retention-offer` with its context.

Accounts, contexts and rewards are drawn; decision ids are random and ours, so that every request is
one that could be retried. All ids have one width, so that stored keys do too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from benchmarks.serving_load import encode_request

WORKFLOW = "retention-offer"
DECISIONS = f"/v1/workflows/{WORKFLOW}/decisions".encode()
DECISION_BATCH = DECISIONS + b"/batch"
FEEDBACK_BATCH = b"/v1/feedback/batch"

CONTEXTS: tuple[dict[str, object], ...] = tuple(
    {"tenure_months": tenure, "plan": plan, "in_dispute": disputed}
    for tenure, plan, disputed in [
        (1, "free", False),
        (7, "basic", False),
        (18, "basic", False),
        (26, "premium", False),
        (60, "premium", False),
        (110, "free", False),
        (41, "basic", True),
        (240, "premium", False),
    ]
)
REWARDS = (0.0, 0.5, 1.0)


def account_id(number: int) -> str:
    """The same width for every account that any run has."""
    return f"account-{number:09d}"


def drawn(accounts: int) -> Iterator[int]:
    """Account numbers below this, uniformly, without end."""
    while True:
        yield int(random.random() * accounts)


class Decisions:
    """Requests for one decision each, for these accounts in their order; `asked` are their ids."""

    def __init__(self, accounts: Iterable[int]) -> None:
        self.asked: list[bytes] = []
        self._accounts = iter(accounts)
        self._templates = [_template(context) for context in CONTEXTS]

    def __call__(self) -> bytes | None:
        """The next request, None after the last account."""
        account = next(self._accounts, None)
        if account is None:
            return None
        decision = b"%032x" % random.getrandbits(128)
        self.asked.append(decision)
        before, between, after = self._templates[int(random.random() * len(self._templates))]
        return b"".join((before, decision, between, b"%09d" % account, after))


class FeedbackOf:
    """Requests with feedback, one for each of these decisions, oldest first."""

    def __init__(self, decisions: Sequence[bytes]) -> None:
        self._decisions = iter(decisions)
        self._rewards = [b'{"reward":%b}' % json.dumps(reward).encode() for reward in REWARDS]
        self._next = 0

    def __call__(self) -> bytes | None:
        """The next request, None after the last decision."""
        decision = next(self._decisions, None)
        if decision is None:
            return None
        self._next = (self._next + 1) % len(self._rewards)
        return encode_request(b"/v1/decisions/%b/feedback" % decision, self._rewards[self._next])


class DecisionBatches:
    """Requests for `size` decisions each, one for each of the accounts, in their order."""

    def __init__(self, accounts: Iterable[int], size: int) -> None:
        self.asked: list[bytes] = []
        self._accounts = iter(accounts)
        self._size = size
        self._templates = [_item(context) for context in CONTEXTS]

    def __call__(self) -> bytes | None:
        """The next request, None after the last account."""
        items = []
        for account in islice(self._accounts, self._size):
            decision = b"%032x" % random.getrandbits(128)
            self.asked.append(decision)
            before, between, after = random.choice(self._templates)
            items.append(b"".join((before, decision, between, b"%09d" % account, after)))
        if not items:
            return None
        return encode_request(DECISION_BATCH, b'{"decisions":[%b]}' % b",".join(items))


class FeedbackBatches:
    """Requests with feedback for `size` of these decisions each."""

    def __init__(self, decisions: Sequence[bytes], size: int) -> None:
        self._decisions = iter(decisions)
        self._size = size
        self._rewards = [json.dumps(reward).encode() for reward in REWARDS]

    def __call__(self) -> bytes | None:
        """The next request, None after the last decision."""
        items = [
            b'{"decision_id":"%b","reward":%b}' % (decision, self._rewards[n % len(self._rewards)])
            for n, decision in enumerate(islice(self._decisions, self._size))
        ]
        if not items:
            return None
        return encode_request(FEEDBACK_BATCH, b'{"feedback":[%b]}' % b",".join(items))


def all_served(answer: bytes) -> str | None:
    """What is wrong with the answer to a batch: any item without status 200."""
    served = answer.count(b'"status":200') + answer.count(b'"status": 200')
    items = answer.count(b'"status":') - answer.count(b'"status":"') - answer.count(b'"status": "')
    if served == items and served > 0:
        return None
    return f"expected every item of a batch to be served, got {served} of {items}"


Template = tuple[bytes, bytes, bytes]
"""What stands before the decision's id, between it and the account's number, and after that."""


def _item(context: dict[str, object]) -> Template:
    """The body of one decision in three pieces."""
    decision, account = "d" * 32, account_id(0)
    body = {"decision_id": decision, "account_id": account, "context": context}
    encoded = json.dumps(body, separators=(",", ":"))
    before, rest = encoded.split(decision)
    between, after = rest.split("000000000")
    return before.encode(), between.encode(), after.encode()


def _template(context: dict[str, object]) -> Template:
    """The whole request of one decision in three pieces: ids are of one width, so the length that
    the head tells holds for all."""
    before, between, after = _item(context)
    whole = encode_request(DECISIONS, b"".join((before, b"d" * 32, between, b"0" * 9, after)))
    return whole[: whole.index(b"d" * 32)], between, after
