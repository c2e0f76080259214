"""CEL conditions: compiled once against a workflow's declared fields, evaluated per decision.

An expression that names an undeclared field, or is not a boolean, never compiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cel_expr_python import cel

from contract.spec import BooleanFeature, CategoryFeature, SpecError, WorkflowSpec

Variables = Mapping[str, Any]

CONTEXT_TYPES = {BooleanFeature: cel.Type.BOOL, CategoryFeature: cel.Type.STRING}


class Condition:
    """One compiled CEL expression; `holds` is None when it cannot be evaluated."""

    def __init__(self, spec: WorkflowSpec, field: str, expression: str, *, of_action: bool) -> None:
        """Raises SpecError naming `field` when the expression is not a condition on the spec."""
        variables = _context_types(spec)
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

    def holds(self, variables: Variables) -> bool | None:
        """Whether the condition is true of these variables; None when evaluation fails."""
        value = self._program.eval(data=variables).value()
        return value if isinstance(value, bool) else None


TOGETHER = 32
"""Contexts that one evaluation takes: beyond, CEL spends more on its lists than is saved."""


class ConditionTable:
    """Several conditions on many contexts and every action, for the price of one or two."""

    def __init__(
        self, spec: WorkflowSpec, conditions: Sequence[Condition], expressions: Sequence[str]
    ) -> None:
        """`expressions` are those of the compiled `conditions`, each of an action."""
        self._conditions = conditions
        self._variables = [
            {"action.id": action.id}
            | {f"action.{name}": value for name, value in action.features.items()}
            for action in spec.actions
        ]
        self._actions = [{"id": action.id} | action.features for action in spec.actions]
        # `context` and `action` are then the macros' variables, maps whose fields are what they are
        # above.
        verdicts = ", ".join(f"{expression}\n" for expression in expressions)
        env = cel.NewEnv(variables={"contexts": cel.Type.DYN, "actions": cel.Type.DYN})
        try:
            self._program = env.compile(f"contexts.map(context, actions.map(action, [{verdicts}]))")
        except RuntimeError:  # more than CEL takes at once
            self._program = None

    def holds(self, contexts: Sequence[Mapping[str, Any]]) -> list[list[list[bool | None]]]:
        """Whether each condition is true of each action in each context, `[B][K][conditions]`; None
        as above. No context changes what is said of another."""
        verdicts = []
        for start in range(0, len(contexts), TOGETHER):
            some = contexts[start : start + TOGETHER]
            verdicts += self._evaluated(some) or [self._of_one(context) for context in some]
        return verdicts

    def _of_one(self, context: Mapping[str, Any]) -> list[list[bool | None]]:
        together = self._evaluated([context])
        if together is not None:
            return together[0]
        variables = context_variables(context)
        return [
            [condition.holds({**variables, **action}) for condition in self._conditions]
            for action in self._variables
        ]

    def _evaluated(
        self, contexts: Sequence[Mapping[str, Any]]
    ) -> list[list[list[bool | None]]] | None:
        """None when one of all cannot be evaluated."""
        if self._program is None:
            return None
        data = {"contexts": list(contexts), "actions": self._actions}
        value = self._program.eval(data=data).plain_value()
        return value if isinstance(value, list) else None


def _context_types(spec: WorkflowSpec) -> dict[str, Any]:
    return {
        f"context.{name}": CONTEXT_TYPES.get(type(feature), cel.Type.DYN)
        for name, feature in spec.context.items()
    }


def context_variables(context: Mapping[str, Any]) -> dict[str, Any]:
    """A checked context under the names that conditions use."""
    return {f"context.{name}": value for name, value in context.items()}
