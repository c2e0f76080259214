"""The console's templates, rendered, and what browsers are told of a page.

Jinja escapes everything that is not markup of our own. A page loads what this service serves and
nothing else, and runs no script or style that is written into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from service.clock import to_moment
from service.console.charts import measure

ASSETS = {"console.css": "text/css", "console.js": "text/javascript"}
"""The files that pages load, and what they are."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY}

_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def render(template: str, values: Mapping[str, Any]) -> str:
    """The page as HTML."""
    return _environment().get_template(template).render(values)


def asset(name: str) -> bytes:
    """One of `ASSETS`."""
    return files("service.console").joinpath("static", name).read_bytes()


def ago(at_us: int, now_us: int) -> str:
    """How long ago that was, roughly."""
    seconds = max(now_us - at_us, 0) // 1_000_000
    for size, unit in _SPANS:
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return "just now"


def moment(at_us: int) -> str:
    """When that was, to the second, in UTC."""
    return f"{to_moment(at_us):%Y-%m-%d %H:%M:%S}"


def clock(at_us: int, now_us: int) -> str:
    """When that was, to the second, in UTC; with its date where that is not today's."""
    at, now = to_moment(at_us), to_moment(now_us)
    return f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S}"


def short(number: float | None) -> str:
    """A number in three digits or so."""
    if number is None:
        return "–"
    if abs(number) >= 1_000:
        return f"{number:,.0f}"
    return f"{number:.3f}".rstrip("0").rstrip(".") or "0"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("service.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "iso": lambda at_us: to_moment(at_us).isoformat(),
        "moment": moment,
        "short": short,
        "count": lambda number: f"{number:,}",
        "difference": lambda number: f"{number:+.3f}".replace("-", "−"),
        "clock": clock,
        "measure": measure,
        "sentence": lambda text: text[:1].upper() + text[1:],
        "percent": lambda share: f"{100 * share:.1f} %".replace(".0 %", " %"),
    }
    made.globals |= {"ago": ago}
    return made
