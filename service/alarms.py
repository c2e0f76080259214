"""The job that looks for alarms: it walks what changed, and has follow what is declared.

Nothing of a detector is kept but where it has got to: each look at an account reads its rewards
again from there. What is found is written with where the look has got to, whole or not at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

from sqlalchemy import Connection

from contract.buckets import buckets_of
from contract.spec import WorkflowSpec
from guardrails.alarms import (
    Acted,
    Finding,
    consequence,
    is_recovered,
    of_exploration,
    of_memory,
    of_rewards,
    of_stream,
)
from guardrails.memory_health import sickness
from guardrails.streams import (
    LAST,
    Seen,
    Stream,
    blank,
    collapse_of,
    from_json,
    surprise_of,
    take,
    to_json,
    without_rewards,
    without_surprises,
)
from service.bundles import Policy
from service.catalog import Catalog, Workflow
from service.clock import Clock
from service.fault_points import reach
from service.holds import Holds
from service.ledger.alarms import (
    Alarm,
    Mark,
    Page,
    Place,
    Row,
    StreamKey,
    acted,
    alarm_id,
    change_stream,
    clear,
    count_open,
    read_changed,
    read_marks,
    read_open,
    read_rows,
    read_streams,
    write_page,
)
from service.ledger.leases import Kept
from service.ledger.ledger import Ledger
from service.ledger.records import Account, AccountKey, AccountUnknownError
from service.memory.store import MemoryStore, MemoryUnavailableError, StoredMemory
from service.metrics import Metrics
from service.recall import Recall, UnreadablePastError

PAGE = 50
"""Accounts in one transaction."""
PAGES_A_RUN = 100
OVERLAP_US = 10_000_000
"""How far a run looks back behind where the last one got to: commits land in no clock's order."""
WINDOW = 400
"""Rewards of an account that are looked at for a fall; of more, the newest half."""
SINCE = 20
"""Interactions after a fall before it can be over."""

log = logging.getLogger(__name__)


class _Look(NamedTuple):
    """One account, as a look finds it."""

    account: Account
    mark: Mark
    past: list[Acted]
    """Above the mark's anchor."""
    rows: list[Row]
    """The same, as the ledger has them."""


class Watch:
    """Looks for alarms, and has them followed."""

    def __init__(
        self,
        ledger: Ledger,
        memories: MemoryStore,
        recall: Recall,
        catalog: Catalog,
        metrics: Metrics,
        holds: Holds,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._memories = memories
        self._recall = recall
        self._catalog = catalog
        self._metrics = metrics
        self._holds = holds
        self._clock = clock
        self._watches_rewards = find_spec("river") is not None
        if not self._watches_rewards:
            log.warning("falls of rewards raise no alarm: pip install 'acclimate[worker]'")

    async def look(self, kept: Kept) -> int:
        """One run over what changed since the last; how many alarms it raised."""
        await self.follow()
        place: Place = (int(kept.get("looked_to_us", 0)), "", "", "")
        raised = 0
        for _ in range(PAGES_A_RUN):
            changed = await self._ledger.read(read_changed(place, PAGE))
            keys = [key for key, _ in changed if key.workflow in self._catalog.workflows]
            for workflow, tenant in sorted({(key.workflow, key.tenant) for key in keys}):
                served = self._catalog.workflows[workflow]
                of_both = [key for key in keys if (key.workflow, key.tenant) == (workflow, tenant)]
                found = await self._look_at(served, tenant, of_both)
                if found is None:
                    log.info("a page of alarms was overtaken, and is looked at again")
                    return raised
                raised += found
            if changed:
                place = changed[-1][1]
                kept["looked_to_us"] = min(place[0], self._clock() - OVERLAP_US)
            if len(changed) < PAGE:
                break
        await self.follow()
        return raised

    async def follow(self) -> int:
        """Resets what open alarms have reset; how many. One that was reset since is left alone."""
        done = 0
        for one in await self._ledger.read(read_open(consequence="reset_memory")):
            key = AccountKey(one.tenant, one.workflow, one.account_id)
            account = await self._ledger.account(key)
            if account is not None and account.base_generation <= one.base_generation:
                await self._reset(key)
                reach("alarms.reset")
                done += 1
            await self._ledger.alone(partial(acted, known_id=one.alarm_id, at_us=self._clock()))
        return done

    async def observe(self) -> None:
        """What this process has to know of open alarms: where to fall back, and how many there
        are."""
        self._holds.see(await self._ledger.read(read_open(consequence="fall_back")))
        self._metrics.observe_alarms(await self._ledger.read(count_open))

    async def end(self, alarm: Alarm, by: str) -> None:
        """Ends an alarm, and what it had follow; one that has ended stays as it is. What a crowd
        explored lately is put away, so that the same is not told again of the same decisions."""
        await self._ledger.alone(partial(_end, alarm=alarm, by=by, at_us=self._clock()))
        await self.observe()

    async def _reset(self, key: AccountKey) -> None:
        try:
            anew = await self._ledger.reset(key, self._clock())
            await self._recall.at_head(self._catalog.workflows[key.workflow], key, anew.head)
        except AccountUnknownError:  # erased meanwhile
            return
        except (MemoryUnavailableError, UnreadablePastError) as error:
            log.warning("a reset account's memory is renewed later: %s", type(error).__name__)

    async def _look_at(
        self, workflow: Workflow, tenant: str, keys: Sequence[AccountKey]
    ) -> int | None:
        """One page of one tenant's accounts of a workflow; how many alarms it raised, and None
        where another was faster, which changes nothing."""
        marks = await self._ledger.read(read_marks(keys))
        looks = []
        for key in keys:
            found = await self._look_up(workflow.spec, key, marks.get(key, Mark()))
            if found is not None:
                looks.append(found)
        if not looks:
            return 0
        about = [look.account.key for look in looks]
        opened = await self._ledger.read(
            read_open(keys=[*about, AccountKey(tenant, workflow.name, "")])
        )
        memories = await self._memories_of(workflow, looks)
        page = Page({}, {}, [], [], self._clock())
        for look, memory in zip(looks, memories, strict=True):
            mine = [one for one in opened if one.account_id == look.account.key.account_id]
            await asyncio.to_thread(self._account, workflow, look, memory, mine, page)
        of_streams = [one for one in opened if not one.account_id]
        await self._streams(workflow, tenant, looks, of_streams, page)
        new = await self._ledger.alone(partial(write_page, page=page))
        if new is None:
            return None
        reach("alarms.committed")
        for one in new:
            self._metrics.alarms_raised.labels(one.workflow, one.kind, one.scope).inc()
            log.warning("alarm %s: %s, %s in %s", one.alarm_id, one.kind, one.scope, one.workflow)
        return len(new)

    async def _look_up(self, spec: WorkflowSpec, key: AccountKey, mark: Mark) -> _Look | None:
        """What is new of an account; None where nothing is."""
        account = await self._ledger.account(key)
        if account is None:
            return None
        base, head = account.base_generation, account.head
        began_anew = mark.base_generation != base or mark.position > head.position
        at = Mark(base) if began_anew else mark
        if head.position == at.position:
            return None
        rows = await self._ledger.read(
            read_rows(key, base, head.generation, min(at.anchor, at.position), head.position)
        )
        width = spec.reward.max - spec.reward.min
        past = [
            Acted(
                Seen(
                    row.position,
                    min(1.0, max(0.0, (row.reward - spec.reward.min) / width)),
                    surprise_of(row.probability, len(spec.actions)),
                    row.reason == "policy",
                    row.limited,
                ),
                row.action,
            )
            for row in rows
        ]
        return _Look(account, at, past, rows)

    async def _memories_of(
        self, workflow: Workflow, looks: Sequence[_Look]
    ) -> Sequence[tuple[Policy, StoredMemory] | None]:
        """The stored memories, and the policies that they are of; None for those that are not to be
        had. In a rollout an account has one of each policy: it is the one that has learned most."""
        serving = [one.policy for one in self._catalog.serving(workflow.name)]
        wanted = [(look.account.key, policy.identity) for look in looks for policy in serving]
        try:
            found = await self._memories.get_many(wanted, keep_alive=False)
        except MemoryUnavailableError:
            return [None] * len(looks)
        newest = []
        for start in range(0, len(found), len(serving)):
            of_one = zip(serving, found[start : start + len(serving)], strict=True)
            kept = [(policy, one) for policy, one in of_one if isinstance(one, StoredMemory)]
            newest.append(max(kept, key=lambda pair: pair[1].head.position, default=None))
        return newest

    def _account(
        self,
        workflow: Workflow,
        look: _Look,
        memory: tuple[Policy, StoredMemory] | None,
        opened: Sequence[Alarm],
        page: Page,
    ) -> None:
        """Adds to the page what is alarming about one account, and what no longer is."""
        spec, account = workflow.spec, look.account
        head = account.head.position
        anchor = look.mark.anchor
        of_before = [one for one in opened if one.base_generation < account.base_generation]
        page.cleared.extend((one.alarm_id, "a reset") for one in of_before)
        is_open = {one.kind: one for one in opened if one not in of_before}
        findings: list[Finding | None] = []
        if "reward_shift" in is_open:
            alarm = is_open["reward_shift"]
            since = [
                one.seen.reward
                for one in look.past
                if one.seen.by_policy and one.seen.position > alarm.position
            ]
            is_over = len(since) >= SINCE and is_recovered(alarm.numbers, since[-SINCE:])
            if is_over and alarm.consequence != "fall_back":
                page.cleared.append((alarm.alarm_id, "recovery"))
        elif self._watches_rewards and spec.alarms.reward_shift.account != "off":
            shift = of_rewards([one for one in look.past if one.seen.position > anchor])
            findings.append(shift)
            if shift is not None:
                anchor = shift.position
        stuck = of_exploration(spec, look.past, account.adaptation.phase)
        findings.append(stuck)
        collapsed = is_open.get("exploration_collapse")
        if collapsed is not None and collapsed.consequence != "fall_back":
            _clear_if_over(collapsed, stuck, page)
        if memory is not None:
            policy, stored = memory
            ill = sickness(policy.reference, stored.memory, stored.head.position)
            findings.append(of_memory(ill, stored.head.position))
            _clear_if_over(is_open.get("memory_health"), findings[-1], page)
        if head - anchor > WINDOW:
            anchor = head - WINDOW // 2
        mark = Mark(account.base_generation, head, anchor)
        page.marks[account.key] = (look.mark, mark)
        for one in findings:
            if one is not None and consequence(spec, one) != "off":
                page.raised.append(
                    self._alarm(workflow, account.key, account.base_generation, one, page.at_us)
                )

    async def _streams(
        self,
        workflow: Workflow,
        tenant: str,
        looks: Sequence[_Look],
        opened: Sequence[Alarm],
        page: Page,
    ) -> None:
        """Adds to the page what the new interactions of all come to, and what is alarming there."""
        spec = workflow.spec
        streams: dict[StreamKey, Stream] = {}
        versions: dict[StreamKey, int] = {}
        policies = {row.policy for look in looks for row in look.rows}
        for policy in sorted(policies):
            stored = await self._ledger.read(read_streams(tenant, workflow.name, policy))
            versions |= {key: one.version for key, one in stored.items()}
            streams |= {key: from_json(one.body) for key, one in stored.items()}
        touched: set[StreamKey] = set()
        for look in looks:
            for row, did in zip(look.rows, look.past, strict=True):
                if row.position <= look.mark.position:
                    continue
                for bucket in ("", *buckets_of(spec, row.context)):
                    key = (tenant, workflow.name, row.policy, bucket)
                    streams[key] = take(streams.get(key) or blank(), did.seen)
                    touched.add(key)
        for key in sorted(touched):
            *_, policy, bucket = key
            mine = [one for one in opened if one.bucket == bucket and one.policy == policy]
            others = {k[3]: one for k, one in streams.items() if k[2] == policy and k[3]}
            beside = {} if bucket else others
            found = await asyncio.to_thread(
                of_stream,
                streams[key],
                bucket,
                beside,
                fallen={
                    one.bucket
                    for one in opened
                    if one.policy == policy and one.kind == "reward_shift"
                },
                rewards=self._watches_rewards,
            )
            for one in found:
                if consequence(spec, one) == "off":
                    continue
                if all(alarm.kind != one.kind for alarm in mine):
                    page.raised.append(
                        self._alarm(workflow, _crowd(key), 0, one, page.at_us, policy)
                    )
                if one.kind == "reward_shift":
                    streams[key] = without_rewards(streams[key])
            for alarm in mine:
                if alarm.consequence != "fall_back" and _crowd_recovered(alarm, streams[key]):
                    page.cleared.append((alarm.alarm_id, "recovery"))
            page.streams[key] = (versions.get(key, 0), to_json(streams[key]))

    def _alarm(
        self,
        workflow: Workflow,
        key: AccountKey,
        base: int,
        finding: Finding,
        at_us: int,
        policy: str | None = None,
    ) -> Alarm:
        kind, scope, bucket, position, cause, suggestion, numbers, _ = finding
        when = position if key.account_id else at_us
        return Alarm(
            alarm_id(*key, kind, bucket, policy or "", base, when),
            key.tenant,
            key.workflow,
            kind,
            scope,
            key.account_id,
            bucket,
            policy or workflow.policy_name,
            consequence(workflow.spec, finding),
            base,
            position,
            cause,
            suggestion,
            {name: round(float(value), 6) for name, value in numbers.items()},
            at_us,
        )


def _end(connection: Connection, alarm: Alarm, by: str, at_us: int) -> None:
    clear(connection, alarm.alarm_id, by, at_us)
    ended = alarm.cleared_at_us is not None
    if alarm.kind == "exploration_collapse" and not alarm.account_id and not ended:
        key = (alarm.tenant, alarm.workflow, alarm.policy, alarm.bucket)
        change_stream(connection, key, lambda body: to_json(without_surprises(from_json(body))))


def _crowd(key: StreamKey) -> AccountKey:
    return AccountKey(key[0], key[1], "")


def _clear_if_over(alarm: Alarm | None, finding: Finding | None, page: Page) -> None:
    """What is judged anew at every look ends with the first look that finds nothing."""
    if alarm is not None and finding is None:
        page.cleared.append((alarm.alarm_id, "recovery"))


def _crowd_recovered(alarm: Alarm, stream: Stream) -> bool:
    if alarm.kind == "exploration_collapse":
        return collapse_of(stream) is None
    since = stream.rewards[-LAST:]
    return len(since) == LAST and is_recovered(alarm.numbers, since)
