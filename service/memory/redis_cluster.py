"""A Redis Cluster: each command to the server that has its key, a round trip a server.

A server that is lost costs its own keys alone, and them no more than one deadline: from then on
they fail at once, until it answers again or the cluster says who took over, which is asked for in
the background. redis-py's own cluster client holds up, and disconnects, everybody meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, ClusterError, MovedError, ResponseError

from service.memory.redis_address import at
from service.memory.redis_server import FAILURES, Command, RedisServer

LOOK_AGAIN_SECONDS = 0.1
"""How long to wait between two looks at a cluster with a server lost."""

log = logging.getLogger(__name__)


class RedisCluster:
    """Connections to every master of a cluster, found through `seeds`."""

    def __init__(self, seeds: Sequence[str], timeout_seconds: float) -> None:
        self._seeds = tuple(seeds)
        self._timeout = timeout_seconds
        self._servers: dict[str, RedisServer] = {}
        """Every server spoken to, by address."""
        self._known: list[str] = []
        """Addresses of masters and replicas as last told."""
        self._owners: list[str] = []
        """The address that has each slot; empty until first told."""
        self._lost: set[str] = set()
        """Addresses that failed and have not answered since."""
        self._found = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def send(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """See Connected."""
        if not await self._is_found(deadline):
            return [ClusterDownError("no server of the cluster is to be found")] * len(commands)
        places = [self._owners[key_slot(command.key.encode())] for command in commands]
        replies = await self._send_to(places, commands, deadline)
        moved = [i for i, reply in enumerate(replies) if isinstance(reply, AskError)]
        if moved:
            again = await self._redirect(
                [places[i] for i in moved],
                [commands[i] for i in moved],
                [replies[i] for i in moved],
                deadline,
            )
            for i, reply in zip(moved, again, strict=True):
                replies[i] = reply
        if any(isinstance(reply, ClusterError) for reply in replies):
            self._look()
        return replies

    async def runs(self, deadline: float) -> dict[str, str | None]:
        """See Connected."""
        if not await self._is_found(deadline):
            return dict.fromkeys(self._seeds)
        masters = set(self._owners)
        found = await asyncio.gather(*(self._server(one).runs(deadline) for one in masters))
        return {place: run for one in found for place, run in one.items()}

    async def close(self) -> None:
        """See Connected."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        for server in self._servers.values():
            await server.close()

    async def _is_found(self, deadline: float) -> bool:
        """Whether it is known, by the deadline, where keys are."""
        if not self._owners:
            self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._found.wait()
        return bool(self._owners)

    async def _send_to(
        self, places: Sequence[str], commands: Sequence[Command], deadline: float
    ) -> list[Any]:
        """Every command to its place, all servers at once."""
        replies: list[Any] = [None] * len(commands)
        by_place: dict[str, list[int]] = defaultdict(list)
        for i, place in enumerate(places):
            by_place[place].append(i)

        async def one(place: str, at_it: list[int]) -> None:
            found = await self._ask([commands[i] for i in at_it], place, deadline)
            for i, reply in zip(at_it, found, strict=True):
                replies[i] = reply

        await asyncio.gather(*(one(place, at_it) for place, at_it in by_place.items()))
        return replies

    async def _ask(self, commands: Sequence[Command], place: str, deadline: float) -> list[Any]:
        if place in self._lost:
            self._look()
            return [ConnectionError("a server of the cluster is lost")] * len(commands)
        replies = await self._server(place).send(commands, deadline)
        if any(_is_lost(reply) for reply in replies):
            self._lost.add(place)
            self._look()
        return replies

    async def _redirect(
        self,
        places: Sequence[str],
        commands: Sequence[Command],
        told: Sequence[AskError],
        deadline: float,
    ) -> list[Any]:
        """Each command where its server says it belongs now: once."""
        targets, pieces, last = [], [], []
        for place, command, where in zip(places, commands, told, strict=True):
            target = _place(place, where.host, where.port)
            if isinstance(where, MovedError):
                if target not in self._lost:  # or else it has not heard of a takeover yet
                    self._owners[where.slot_id] = target
                self._look()
            else:
                targets.append(target)
                pieces.append(Command(command.key, ("ASKING",)))
            last.append(len(pieces))
            targets.append(target)
            pieces.append(command)
        replies = await self._send_to(targets, pieces, deadline)
        return [replies[i] for i in last]

    def _server(self, place: str) -> RedisServer:
        if place not in self._servers:
            self._servers[place] = RedisServer(place, self._timeout)
        return self._servers[place]

    def _look(self) -> None:
        """Looks where everything is, in the background, until nothing in use is lost."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_until_whole())

    async def _look_until_whole(self) -> None:
        while True:
            await asyncio.gather(self._discover(), *(self._revive(one) for one in set(self._lost)))
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            if self._owners and self._lost.isdisjoint(self._owners):
                self._lost &= {*self._known, *self._seeds}
                return

    async def _revive(self, place: str) -> None:
        (reply,) = await self._server(place).send([Command("", ("PING",))], self._soon())
        if not _is_lost(reply):
            self._lost.discard(place)

    async def _discover(self) -> None:
        """Asks one server after another who has which slot, until one names nobody that is lost.

        News of a takeover reaches one server before another: of several that name a lost one as
        the owner of slots, the one is believed of which that is true for the fewest.
        """
        sound = [place for place in self._known if place not in self._lost]
        random.shuffle(sound)
        told: list[_Range] = []
        for place in (*sound, *(seed for seed in self._seeds if seed not in sound)):
            if told and place in self._lost:
                continue
            (slots,) = await self._server(place).send(
                [Command("", ("CLUSTER", "SLOTS"))], self._soon()
            )
            if isinstance(slots, ResponseError):
                log.warning("a server does not say where keys are: %s", type(slots).__name__)
            if not isinstance(slots, list) or not slots:
                continue
            news = [_range(place, *one) for one in slots]
            if not told or self._slots_lost(news) < self._slots_lost(told):
                told = news
            if not self._slots_lost(told):
                break
        if told:
            await self._learn(told)

    def _slots_lost(self, news: Sequence[_Range]) -> int:
        """Slots whose owner is lost, as it is told."""
        return sum(one.last - one.first + 1 for one in news if one.places[0] in self._lost)

    async def _learn(self, told: Sequence[_Range]) -> None:
        """Takes over who has which slot."""
        owners = self._owners or [told[0].places[0]] * REDIS_CLUSTER_HASH_SLOTS
        known: set[str] = set()
        for first, last, places in told:
            known.update(places)
            owners[first : last + 1] = [places[0]] * (last + 1 - first)
        self._owners = owners
        self._found.set()
        self._known = sorted(known)
        for place in set(self._servers) - known - set(self._seeds) - set(owners):
            await self._servers.pop(place).close()

    def _soon(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout


class _Range(NamedTuple):
    """Slots from `first` to `last`, and the addresses of their master, then of its replicas."""

    first: int
    last: int
    places: list[str]


def _range(told_by: str, first: int, last: int, *servers: list[Any]) -> _Range:
    """As `CLUSTER SLOTS` says it: `[first, last, [host, port, …], replicas…]`."""
    return _Range(first, last, [_place(told_by, *server[:2]) for server in servers])


def _place(told_by: str, host: bytes | str | None, port: int) -> str:
    """An address as a server gives it: no host, or `?`, is the one it was asked at."""
    name = host.decode() if isinstance(host, bytes) else host
    return at(told_by, None if name == "?" else name, port)


def _is_lost(reply: object) -> bool:
    """Whether this is no word from a server, rather than one that is not welcome."""
    return isinstance(reply, FAILURES) and not isinstance(reply, ResponseError)
