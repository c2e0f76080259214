"""CEL conditions: compiled once against a workflow's declared fields, evaluated per decision.

An expression that names an undeclared field, or is not a boolean, never compiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cel_expr_python import cel

from contract.spec import BooleanFeature, CategoryFeature, SpecError, WorkflowSpec

CONTEXT_TYPES = {BooleanFeature: cel.Type.BOOL, CategoryFeature: cel.Type.STRING}


class Condition:
    """One compiled CEL expression; `holds` is None when it cannot be evaluated."""

    def __init__(self, spec: WorkflowSpec, field: str, expression: str, *, of_action: bool) -> None:
        """Raises SpecError naming `field` when the expression is not a condition on the spec."""
        variables: dict[str, Any] = {
            f"context.{name}": CONTEXT_TYPES.get(type(feature), cel.Type.DYN)
            for name, feature in spec.context.items()
        }
        if of_action:
            variables["action.id"] = cel.Type.STRING
            variables |= {f"action.{name}": cel.Type.DYN for name in spec.actions[0].features}
        try:
            self._program = cel.NewEnv(variables=variables).compile(expression)
        except RuntimeError as error:
            declared = ", ".join(variables) or "nothing: the workflow declares no context"
            raise SpecError(
                f"{spec.workflow}: {field}: expected a CEL condition over {declared}; {error}"
            ) from error
        if self._program.return_type() != cel.Type.BOOL:
            raise SpecError(
                f"{spec.workflow}: {field}: expected a CEL condition that is true or false, got "
                f"{self._program.return_type().name()}: {expression!r}"
            )

    def holds(self, variables: Mapping[str, Any]) -> bool | None:
        """Whether the condition is true of these variables; None when evaluation fails."""
        value = self._program.eval(data=variables).value()
        return value if isinstance(value, bool) else None


def context_variables(context: Mapping[str, Any]) -> dict[str, Any]:
    """A checked context under the names that conditions use."""
    return {f"context.{name}": value for name, value in context.items()}
