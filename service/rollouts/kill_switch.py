"""The kill switch: with it thrown, the fallback decides, for one workflow or for all.

It lives in Redis and in a file beside the service, and needs no database: what was done is written
to the operators' audit when that is back. Of two places that differ, what was done last holds.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from service.ledger.ledger import Ledger
from service.ledger.records import LedgerUnavailableError
from service.metrics import Metrics
from service.rollouts.store import Event, audit
from service.rollouts.traffic import EVERYTHING, Traffic

FILE = "kill-switch.json"
TIMEOUT_SECONDS = 1.0

log = logging.getLogger(__name__)


class SwitchUnavailableError(Exception):
    """Neither Redis nor the file takes the switch: it was not thrown for good."""


class Thrown(NamedTuple):
    """How a switch was left by whoever touched it last."""

    on: bool
    at_us: int
    actor: str
    why: str
    event_id: str


Switches = dict[str, Thrown]
"""By workflow, or EVERYTHING."""


class SharedPlace(Protocol):
    """Where replicas see each other's switches."""

    async def read(self) -> Switches:
        """Those there are. Raises OSError."""

    async def write(self, switches: Switches) -> None:
        """In place of those. Raises OSError."""

    async def close(self) -> None:
        """Lets go of it."""


class SwitchFile:
    """Switches in a file, and what was done that the ledger does not know of yet."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE

    def read(self) -> tuple[Switches, list[Event]]:
        """What is there. Raises OSError, and ValueError where it is not such a file."""
        try:
            body = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}, []
        try:
            return of_json(body["switches"]), [Event(**one) for one in body["unaudited"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.path}: expected what the kill switch wrote") from error

    def write(self, switches: Switches, unaudited: Sequence[Event]) -> None:
        """Whole or not at all, and on the disk. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        body = {
            "switches": to_json(switches),
            "unaudited": [one._asdict() for one in unaudited],
        }
        descriptor, draft = tempfile.mkstemp(prefix=f".{FILE}-", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(body, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(self.path)
        except OSError:
            Path(draft).unlink(missing_ok=True)
            raise

    def throw(self, scope: str, on: bool, actor: str, why: str) -> Thrown:
        """Throws a switch here: a service beside it sees that within a second. Raises OSError and
        ValueError."""
        switches, unaudited = self.read()
        thrown, event = throw(switches, scope, on, actor, why, time.time_ns() // 1_000)
        self.write(switches | {scope: thrown}, [*unaudited, event])
        return thrown


def throw(
    switches: Switches, scope: str, on: bool, actor: str, why: str, now_us: int
) -> tuple[Thrown, Event]:
    """The switch as thrown now, later than it ever was, with the event to be audited."""
    before = switches.get(scope)
    at_us = now_us if before is None else max(now_us, before.at_us + 1)
    thrown = Thrown(on, at_us, actor[:128], why, secrets.token_hex(16))
    return thrown, _event(scope, thrown)


class KillSwitch:
    """One process's switches."""

    def __init__(
        self,
        file: SwitchFile,
        shared: SharedPlace | None,
        ledger: Ledger,
        traffic: Traffic,
        metrics: Metrics,
    ) -> None:
        self._file = file
        self._shared = shared
        self._ledger = ledger
        self._traffic = traffic
        self._metrics = metrics
        self._unaudited: dict[str, Event] = {}
        self.switches: Switches = {}

    async def throw(self, scope: str, on: bool, actor: str, why: str, now_us: int) -> Thrown:
        """Throws a switch, here at once and elsewhere within a second. Raises
        SwitchUnavailableError when it can be kept neither in Redis nor in the file."""
        thrown, event = throw(self.switches, scope, on, actor, why, now_us)
        self._unaudited[event.event_id] = event
        await self._settle({scope: thrown}, must_keep=True)
        return thrown

    async def sync(self) -> None:
        """Takes note of what was thrown elsewhere, tells elsewhere what was thrown here, and writes
        down in the ledger what it can."""
        await self._settle({}, must_keep=False)
        if not self._unaudited:
            return
        events = list(self._unaudited.values())
        try:
            await self._ledger.alone(partial(audit, events=events))
        except LedgerUnavailableError:
            return  # it will be back
        for one in events:
            del self._unaudited[one.event_id]
        self._keep_in_file()

    async def close(self) -> None:
        """Lets go of Redis."""
        if self._shared is not None:
            await self._shared.close()

    async def _settle(self, thrown: Switches, *, must_keep: bool) -> None:
        failures = []
        in_file: Switches = {}
        try:
            in_file, waiting = self._file.read()
            self._unaudited |= {one.event_id: one for one in waiting}
        except (OSError, ValueError) as error:
            log.error("the kill switch's file is not read: %s", type(error).__name__)
        in_shared: Switches | None = None
        if self._shared is not None:
            try:
                in_shared = await self._shared.read()
            except OSError as error:
                failures.append(error)
        # Last, what came while Redis was asked.
        merged = merge(merge(merge(in_file, in_shared or {}), self.switches), thrown)
        self._learn(merged)
        if self._shared is not None and in_shared is not None and merged != in_shared:
            try:
                await self._shared.write(merged)
            except OSError as error:
                failures.append(error)
        if merged != in_file or must_keep:
            kept = self._keep_in_file()
            if not kept and must_keep and (self._shared is None or failures):
                raise SwitchUnavailableError

    def _learn(self, merged: Switches) -> None:
        for scope, one in merged.items():
            before = self.switches.get(scope)
            if before is None or before.event_id != one.event_id:
                event = _event(scope, one)
                self._unaudited.setdefault(event.event_id, event)
                log.warning("kill switch of %s: %s", scope, "on" if one.on else "off")
            self._metrics.kill_switch.labels(scope).set(one.on)
        self.switches = merged
        self._traffic.killed = frozenset(scope for scope, one in merged.items() if one.on)

    def _keep_in_file(self) -> bool:
        try:
            self._file.write(self.switches, list(self._unaudited.values()))
        except OSError as error:
            log.error("the kill switch's file is not written: %s", type(error).__name__)
            return False
        return True


def merge(one: Switches, other: Switches) -> Switches:
    """Of each scope, what was done last."""
    return {
        scope: max(
            (place[scope] for place in (one, other) if scope in place),
            key=lambda thrown: (thrown.at_us, thrown.on, thrown.event_id),
        )
        for scope in sorted({*one, *other})
    }


def _event(scope: str, thrown: Thrown) -> Event:
    action = "kill_switch_on" if thrown.on else "kill_switch_off"
    subject = "all workflows" if scope == EVERYTHING else f"workflow {scope}"
    return Event(thrown.event_id, thrown.at_us, thrown.actor, action, subject, thrown.why)


def to_json(switches: Switches) -> dict[str, Any]:
    """As plain data."""
    return {scope: one._asdict() for scope, one in switches.items()}


def of_json(data: Any) -> Switches:
    """What `to_json` gave. Raises TypeError where it is not that."""
    if not isinstance(data, dict):
        raise TypeError("expected an object")
    return {str(scope): Thrown(**one) for scope, one in data.items()}
