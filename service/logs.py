"""What the log looks like: lines for people or for machines, naming requests and decisions by id,
and never what a request held."""

from __future__ import annotations

import logging
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog

from service.api.problems import causes
from service.correlation import ids
from service.settings import Settings

ErrorInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


def log_discreetly(settings: Settings) -> None:
    """Logs to standard error, without what exceptions quote."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        json_lines()
        if settings.log_format == "json"
        else Discreet("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class Discreet(logging.Formatter):
    """Shows what was raised where, without the exceptions' texts: those may quote a request."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """The line, and whom it is about."""
        named = " ".join(f"{name}={value}" for name, value in ids().items())
        return super().formatMessage(record) + (f" [{named}]" if named else "")

    def formatException(self, ei: ErrorInfo) -> str:  # noqa: N802 (logging's name)
        """Frames and types, causes first."""
        return frames(ei[1])


def frames(error: BaseException | None) -> str:
    """Frames and types, causes first."""
    shown = [
        "".join(traceback.format_tb(one.__traceback__)) + type(one).__name__
        for one in reversed(causes(error))
    ]
    return "\nand from it\n".join(shown)


def json_lines() -> logging.Formatter:
    """One JSON object a line: timestamp, level, logger, message, ids, and what the line adds."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.stdlib.ExtraAdder(),
            _named,
            _shown,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ],
    )


def _named(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return ids() | dict(line)


def _shown(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception as its frames and types."""
    raised = line.pop("exc_info", None)
    if raised and raised[1] is not None:
        line["exception"] = frames(raised[1])
    return line
