"""What a workflow file may say of what may be done. It only declares; `guardrails/` holds to it."""

from __future__ import annotations

from pydantic import Field

from contract.parts import Expression, Name, Part, refuse_duplicates


class Limit(Part):
    """A hard limit: an action for which the CEL expression `forbid` is true is never served.

    The expression sees `context.<feature>`, `action.id` and `action.<feature>`.
    """

    name: Name
    forbid: Expression


class Guardrails(Part):
    """What may be done. `safe_action` is served when nothing else is left."""

    limits: list[Limit] = Field(default_factory=list)
    safe_action: Name | None = None

    def actions_named(self) -> dict[str, str]:
        """The actions that are named, by the dotted field that names them."""
        if self.safe_action is None:
            return {}
        return {"guardrails.safe_action": self.safe_action}

    def refuse_dead_ends(self) -> None:
        """Raises ValueError when what may be done could come to nothing."""
        refuse_duplicates("guardrails.limits", [limit.name for limit in self.limits])
        if self.limits and self.safe_action is None:
            raise ValueError(
                "guardrails.safe_action must be declared when there are limits: it is served "
                "when they leave nothing else"
            )
