"""Charts as SVG: markup of the page itself, so that they take its colours and need no script.

Every chart says in words what it shows, and its numbers stand in a table beside it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from contract.spec import Reward as Scale
from guardrails.rollouts.schedule import Schedule
from service.console.reading import Reward
from service.console.scale import BINS, Axis, log_ticks, round_ticks
from service.ledger.curves import Curve

FEWEST = 3
"""Accounts behind a point of a curve; with fewer it is not drawn."""


class Point(NamedTuple):
    """One bin of a curve."""

    first: int
    last: int
    n: int
    """Interactions in it."""
    mean: float
    error: float
    """Standard error of the mean; 0 where it is not known."""

    @property
    def numbers(self) -> str:
        """Which interaction numbers are in it."""
        return f"{self.first}" if self.first == self.last else f"{self.first}–{self.last}"

    @property
    def middle(self) -> float:
        """Where it is drawn."""
        return math.sqrt(self.first * self.last)


@dataclass(frozen=True)
class Line:
    """One curve of a chart."""

    name: str
    kind: str
    """What it is drawn as: policy, older, fallback."""
    points: Sequence[Point]


class Size(NamedTuple):
    """A drawing's size, in its own units; text is 12 of them high."""

    width: int
    height: int


WIDE, NARROW, SMALL, HALF = Size(1120, 320), Size(360, 260), Size(360, 180), Size(540, 0)


def to_points(curve: Curve) -> list[Point]:
    """A ledger's curve in bins. In a bin an account comes as often as the bin is wide: its error is
    the mean of its interaction numbers', what it would be if they told nothing more of it."""
    points = []
    for first, end in itertools.pairwise(BINS):
        n = curve.n[first - 1 : end - 1]
        if n.sum() < FEWEST:
            continue
        some = n > 0
        mean = float(np.average(curve.mean[first - 1 : end - 1][some], weights=n[some]))
        errors = curve.error[first - 1 : end - 1]
        known = errors[np.isfinite(errors)]
        error = float(known.mean()) if known.size else 0.0
        points.append(Point(first, end - 1, int(n.sum()), mean, error))
    return points


def adaptation(
    lines: Sequence[Line], target: float, declared: float | None, scale: Scale, size: Size
) -> Markup:
    """Mean reward by interaction number: a line and a band of two standard errors a policy, the
    fallback, the target. `declared`: what the workflow's file says that its fallback earns."""
    shown = [line for line in lines if line.points]
    values = [target, *([] if declared is None else [declared])]
    for line in shown:
        values += [p.mean + s * 2 * p.error for p in line.points for s in (-1, 1)]
    low, high = max(min(values), scale.min), min(max(values), scale.max)
    ticks = round_ticks(low, high, 4)
    last = max((p.last for line in shown for p in line.points), default=0)
    x = Axis(1, max(last, 20), 46, size.width - 12, is_log=True)
    y = Axis(ticks[0], ticks[-1], size.height - 40, 12)
    parts = [_grid(x, y, ticks, log_ticks(x.high), "interaction number of the account", size)]
    parts += [_curve(line, x, y) for line in sorted(shown, key=lambda one: one.kind == "policy")]
    parts.append(_level(x, y, target, "target"))
    if declared is not None:
        parts.append(_level(x, y, declared, "declared"))
    said = "; ".join(_in_words(line) for line in shown) or "no interactions yet"
    return _svg(f"Mean reward by interaction number. {said}. Target {target:g}.", size, parts)


def account(
    rewards: Sequence[Reward], target: float, window: int, adapted_at: int | None, size: Size
) -> Markup:
    """One account's rewards, and their mean over the last `window`."""
    values = [target, *(one.reward for one in rewards)]
    ticks = round_ticks(min(values), max(values), 4)
    first = rewards[0].position if rewards else 1
    last = max(rewards[-1].position if rewards else 1, first + 9)
    x = Axis(first, last, 46, size.width - 12)
    y = Axis(ticks[0], ticks[-1], size.height - 40, 12)
    places = [int(t) for t in round_ticks(first, last, 6) if first <= t <= last and t == int(t)]
    parts = [_grid(x, y, ticks, places, "interaction", size)]
    parts.append(_level(x, y, target, "target"))
    if adapted_at is not None and adapted_at >= first:
        at = f"{x.at(adapted_at):.1f}"
        parts.append(
            f'<line class="adapted-at" x1="{at}" x2="{at}" y1="{y.end}" y2="{y.start}"></line>'
        )
    for one in rewards:
        kind = "policy" if one.by_policy else "fallback"
        title = escape(f"interaction {one.position}: {one.reward:g}")
        parts.append(
            f'<circle class="dot {kind}" cx="{x.at(one.position):.1f}" '
            f'cy="{y.at(one.reward):.1f}" r="2.5"><title>{title}</title></circle>'
        )
    means = [
        (one.position, float(np.mean([r.reward for r in rewards[max(0, i + 1 - window) : i + 1]])))
        for i, one in enumerate(rewards)
        if i + 1 >= window
    ]
    parts.append(_path([(x.at(a), y.at(b)) for a, b in means], "line policy"))
    said = f"newest mean {means[-1][1]:.3g}" if means else "too few for a mean yet"
    return _svg(f"Rewards by interaction, and their mean over {window}: {said}.", size, parts)


def phases(counts: Mapping[str, int], order: Sequence[str]) -> Markup:
    """Shares of a whole as one bar."""
    total = sum(counts.values())
    parts, at = [], 0.0
    for name in order:
        if counts.get(name):
            width = 100 * counts[name] / total
            parts.append(
                f'<rect class="phase {name}" x="{at:.2f}" y="0" width="{width:.2f}" height="8">'
                "</rect>"
            )
            at += width
    said = ", ".join(f"{counts.get(name, 0)} {name}" for name in order)
    return Markup(
        f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(said)}">{"".join(parts)}</svg>'
    )


def comparisons(found: Mapping[str, Mapping[str, float]], schedule: Schedule, size: Size) -> Markup:
    """Each measure's difference between candidate and control, with its bounds, about zero."""
    ends = [
        abs(one.get(k, one["difference"])) for one in found.values() for k in ("lower", "upper")
    ]
    reach = round_ticks(0, max([*ends, schedule.margin, 0.02]), 2)[-1]
    height = 34 * len(found) + 46
    x = Axis(-reach, reach, 12, size.width - 12)
    parts = []
    for tick in (-reach, -reach / 2, 0, reach / 2, reach):
        at = f"{x.at(tick):.1f}"
        kind = "zero" if tick == 0 else "grid"
        anchor = {-reach: "start", reach: "end"}.get(tick, "middle")
        parts.append(f'<line class="{kind}" x1="{at}" x2="{at}" y1="4" y2="{height - 40}"></line>')
        parts.append(
            f'<text class="tick" x="{at}" y="{height - 24}" text-anchor="{anchor}">'
            f"{signed(tick)}</text>"
        )
    for i, (name, one) in enumerate(found.items()):
        y = 26 + 34 * i
        label = escape(measure(name))
        parts.append(f'<text class="label" x="12" y="{y - 9}">{label}</text>')
        low, high = one.get("lower"), one.get("upper")
        if low is not None and high is not None:
            parts.append(
                f'<line class="bounds" x1="{x.at(low):.1f}" x2="{x.at(high):.1f}" '
                f'y1="{y}" y2="{y}"></line>'
            )
        parts.append(
            f'<circle class="estimate" cx="{x.at(one["difference"]):.1f}" cy="{y}" r="4"></circle>'
        )
    parts.append(
        f'<text class="axis" x="{size.width / 2:g}" y="{height - 6}" text-anchor="middle">'
        "candidate − the other side, shares of the range</text>"
    )
    said = "; ".join(f"{name}: {one['difference']:+.3f}" for name, one in found.items())
    return _svg(f"Differences with their bounds. {said}.", Size(size.width, height), parts)


def measure(name: str) -> str:
    """What a comparison of a rollout is of."""
    known = {"reward": "reward, against the control", "fallback": "reward, against the hold-out"}
    return known.get(name, f"{name.removeprefix('guardrail:')}, against the control")


def signed(number: float) -> str:
    """A difference."""
    return "0" if number == 0 else f"{number:+g}".replace("-", "−")


def _grid(
    x: Axis, y: Axis, rows: Sequence[float], columns: Sequence[float], label: str, size: Size
) -> str:
    parts = []
    for value in rows:
        at = f"{y.at(value):.1f}"
        parts.append(f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{at}" y2="{at}"></line>')
        parts.append(
            f'<text class="tick" x="{x.start - 6}" y="{float(at) + 4:.1f}" text-anchor="end">'
            f"{value:g}</text>"
        )
    for value in columns:
        at = f"{x.at(value):.1f}"
        parts.append(
            f'<line class="mark" x1="{at}" x2="{at}" y1="{y.start}" y2="{y.start + 4}"></line>'
        )
        parts.append(
            f'<text class="tick" x="{at}" y="{y.start + 17}" text-anchor="middle">{value:g}</text>'
        )
    parts.append(
        f'<line class="base" x1="{x.start}" x2="{x.end}" y1="{y.start}" y2="{y.start}"></line>'
    )
    middle = (x.start + x.end) / 2
    parts.append(
        f'<text class="axis" x="{middle:.1f}" y="{size.height - 6}" text-anchor="middle">'
        f"{escape(label)}</text>"
    )
    return "".join(parts)


def _curve(line: Line, x: Axis, y: Axis) -> str:
    upper = [(x.at(p.middle), y.at(p.mean + 2 * p.error)) for p in line.points]
    lower = [(x.at(p.middle), y.at(p.mean - 2 * p.error)) for p in line.points]
    outline = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*upper, *reversed(lower)])
    parts = [f'<polygon class="band {line.kind}" points="{outline}"></polygon>']
    parts.append(_path([(x.at(p.middle), y.at(p.mean)) for p in line.points], f"line {line.kind}"))
    for p in line.points:
        said = escape(
            f"{line.name}, interaction {p.numbers}: {p.mean:.3f} ± {p.error:.3f}, {p.n:,} of them"
        )
        parts.append(
            f'<circle class="dot {line.kind}" cx="{x.at(p.middle):.1f}" cy="{y.at(p.mean):.1f}" '
            f'r="2.5"><title>{said}</title></circle>'
        )
    return "".join(parts)


def _level(x: Axis, y: Axis, value: float, kind: str) -> str:
    at = f"{y.at(value):.1f}"
    return f'<line class="level {kind}" x1="{x.start}" x2="{x.end}" y1="{at}" y2="{at}"></line>'


def _path(places: Sequence[tuple[float, float]], kind: str) -> str:
    if not places:
        return ""
    d = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    return f'<path class="{kind}" d="{d}"></path>'


def _in_words(line: Line) -> str:
    first, last = line.points[0], line.points[-1]
    return (
        f"{line.name}: {first.mean:.3g} at interaction {first.numbers}, "
        f"{last.mean:.3g} at {last.numbers}"
    )


def _svg(said: str, size: Size, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {size.width} {size.height}" role="img" '
        f'aria-label="{escape(said)}">{"".join(parts)}</svg>'
    )
