"""What the service is compared with: a bare FastAPI app that echoes the bodies of both requests.

The bodies are validated as the service's are, by equal pydantic models, and that is all. Uvicorn
runs it with the service's own options, in one process. `--nothing` serves a fixed answer without
reading anything instead: what the client itself can do.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from datetime import datetime
from typing import Annotated, Any, cast

import uvicorn
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from contract.parts import Name

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~:@|+=,-]{1,128}$", strict=True)]


class DecisionBody(BaseModel):
    """The fields that the service takes for a decision."""

    model_config = ConfigDict(extra="forbid")

    decision_id: Id | None = None
    account_id: Id
    episode_id: Id | None = None
    context: dict[str, Any] = Field(default_factory=dict)
    actions: list[Name] | None = Field(None, min_length=1, max_length=1_000)


class FeedbackBody(BaseModel):
    """The fields that the service takes as feedback."""

    model_config = ConfigDict(extra="forbid")

    feedback_id: Id | None = None
    reward: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None = None
    outcome: str | None = None
    episode_end: bool = Field(False, strict=True)
    occurred_at: datetime | None = None


app = FastAPI()


@app.post("/v1/workflows/{workflow}/decisions")
async def decide(workflow: str, body: DecisionBody) -> DecisionBody:
    """The decision body back."""
    return body


@app.post("/v1/decisions/{decision_id}/feedback")
async def learn(decision_id: str, body: FeedbackBody) -> FeedbackBody:
    """The feedback body back."""
    return body


@app.get("/readyz")
async def ready() -> None:
    """It is up."""


class _Nothing(asyncio.Protocol):
    """Answers every piece of data with the same 200."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, _: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


async def _serve_nothing(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Nothing, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--nothing", action="store_true")
    given = parser.parse_args()
    if given.nothing:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve_nothing(given.port))
    else:
        listening = socket.create_server(("127.0.0.1", given.port))
        config = uvicorn.Config(
            app, loop="uvloop", http="httptools", access_log=False, log_config=None
        )
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
