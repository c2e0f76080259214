"""What the parts of a workflow spec are made of: names, numbers, and nothing that is unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
WorkflowName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PolicyName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}/[0-9]{1,9}$")]
Expression = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
"""A CEL condition, compiled where it is used."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
RewardValue = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
TEN_YEARS = 315_360_000.0
Seconds = Annotated[float, Field(gt=0, le=TEN_YEARS, allow_inf_nan=False)]


class Part(BaseModel):
    """One mapping of the file: every field declared, none changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def refuse_duplicates(where: str, values: Sequence[str]) -> None:
    """Raises ValueError naming `where` when a value is there twice."""
    twice = sorted(value for value, count in Counter(values).items() if count > 1)
    if twice:
        raise ValueError(f"{where} must be distinct, got {twice} more than once")
