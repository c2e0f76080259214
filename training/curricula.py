"""The curricula there are, by name: what a checkpoint names is built again from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from training.contextual_curriculum import ContextualCurriculum
from training.curriculum import BanditCurriculum, Curriculum, MdpCurriculum
from training.ledger_curriculum import LedgerCurriculum
from training.maze_curriculum import MazeCurriculum
from training.workflow_curriculum import WorkflowCurriculum

CURRICULA: Mapping[str, Callable[..., Curriculum]] = {
    BanditCurriculum.name: BanditCurriculum,
    MdpCurriculum.name: MdpCurriculum,
    ContextualCurriculum.name: ContextualCurriculum,
    WorkflowCurriculum.name: WorkflowCurriculum,
    LedgerCurriculum.name: LedgerCurriculum,
    MazeCurriculum.name: MazeCurriculum,
}


def build_curriculum(name: str, settings: Mapping[str, Any]) -> Curriculum:
    """A curriculum by name. Raises ValueError for a name or a setting that there is not."""
    if name not in CURRICULA:
        raise ValueError(f"task family: expected one of {', '.join(CURRICULA)}, got {name}")
    return CURRICULA[name](**settings)


def settings_of(curriculum: Curriculum) -> dict[str, Any]:
    """What `build_curriculum` needs beside the name."""
    return asdict(curriculum)  # type: ignore[call-overload, no-any-return]
