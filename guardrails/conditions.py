"""CEL conditions: compiled once against a workflow's declared fields, evaluated per decision.

An expression that names an undeclared field, or is not a boolean, never compiles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cel_expr_python import cel

from contract.spec import BooleanFeature, CategoryFeature, ImageFeature, SpecError, WorkflowSpec

Variables = Mapping[str, Any]

CONTEXT_TYPES = {BooleanFeature: cel.Type.BOOL, CategoryFeature: cel.Type.STRING}


class Facts(NamedTuple):
    """What conditions may ask of an account, `account.<fact>`; as of its head, as all else is."""

    interactions: float
    """How many it has had since it was last reset."""
    age_days: float
    """Since its first decision."""
    phase: str
    """`adapting`, `adapted` or `regressed`."""
    recent_reward: float
    """The mean reward of its last interactions, as many as `adaptation.window` says; the lowest
    reward while it has had none."""

    def variables(self) -> dict[str, Any]:
        """Under the names that conditions use."""
        return {f"account.{name}": value for name, value in self._asdict().items()}


NEWCOMER = Facts(0.0, 0.0, "adapting", 0.0)
"""Any account, for trying conditions out."""


class Condition:
    """One compiled CEL expression; `holds` is None when it cannot be evaluated."""

    def __init__(
        self,
        spec: WorkflowSpec,
        field: str,
        expression: str,
        *,
        of_action: bool,
        of_account: bool = False,
    ) -> None:
        """Raises SpecError naming `field` when the expression is not a condition on the spec."""
        variables = _types(spec, of_action, of_account, cel.Type.DYN)
        try:
            self._program = cel.NewEnv(variables=variables).compile(expression)
        except RuntimeError as error:
            declared = ", ".join(variables) or "nothing: the workflow declares no context"
            told = "; ".join(f"at {place}: {what}" for place, what in _faults(error))
            if _MIXED.search(told):
                told += f"; {WRITE_DOUBLES}"
            message = f"expected a CEL condition over {declared}; {told or error}"
            raise SpecError.of([spec.problem(field, message)]) from error
        if self._program.return_type() != cel.Type.BOOL:
            message = (
                "expected a CEL condition that is true or false, got "
                f"{self._program.return_type().name()}: {expression!r}"
            )
            raise SpecError.of([spec.problem(field, message)])

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
        """`expressions` are those of the compiled `conditions`, each of an action; they may be of
        an account."""
        self._conditions = conditions
        self._variables = [
            {"action.id": action.id}
            | {f"action.{name}": value for name, value in action.features.items()}
            for action in spec.actions
        ]
        self._actions = [{"id": action.id} | action.features for action in spec.actions]
        # `context`, `account` and `action` are then the macros' variables, maps whose fields are
        # what they are above.
        verdicts = ", ".join(f"{expression}\n" for expression in expressions)
        env = cel.NewEnv(variables=dict.fromkeys(("contexts", "accounts", "actions"), cel.Type.DYN))
        try:
            self._program = env.compile(
                f"contexts.map(context, accounts.map(account, actions.map(action, [{verdicts}])))"
            )
        except RuntimeError:  # more than CEL takes at once
            self._program = None

    def holds(
        self, contexts: Sequence[Mapping[str, Any]], facts: Facts = NEWCOMER
    ) -> list[list[list[bool | None]]]:
        """Whether each condition is true of each action in each context, `[B][K][conditions]`, for
        an account of which `facts` are true; None as above. No context changes what is said of
        another."""
        verdicts = []
        for start in range(0, len(contexts), TOGETHER):
            some = contexts[start : start + TOGETHER]
            found = self._evaluated(some, facts)
            verdicts += found or [self._of_one(context, facts) for context in some]
        return verdicts

    def _of_one(self, context: Mapping[str, Any], facts: Facts) -> list[list[bool | None]]:
        together = self._evaluated([context], facts)
        if together is not None:
            return together[0]
        variables = context_variables(context) | facts.variables()
        return [
            [condition.holds({**variables, **action}) for condition in self._conditions]
            for action in self._variables
        ]

    def _evaluated(
        self, contexts: Sequence[Mapping[str, Any]], facts: Facts
    ) -> list[list[list[bool | None]]] | None:
        """None when one of all cannot be evaluated."""
        if self._program is None:
            return None
        data = {
            "contexts": list(contexts),
            "accounts": [facts._asdict()],
            "actions": self._actions,
        }
        value = self._program.eval(data=data).plain_value()
        return [one for (one,) in value] if isinstance(value, list) else None


def names_account(spec: WorkflowSpec, expression: str, *, of_action: bool) -> bool:
    """Whether a condition that compiles asks something of the account."""
    try:
        Condition(spec, "", expression, of_action=of_action)
    except SpecError:
        return True
    return False


def mixed_numbers(spec: WorkflowSpec, expression: str, *, of_action: bool) -> list[str]:
    """Where a condition that compiles calculates with a number of the workflow, which is a double,
    and an integer: CEL has no operator for that, so this can never be evaluated. Comparing the two
    is fine."""
    variables = _types(spec, of_action, True, cel.Type.DOUBLE)
    try:
        cel.NewEnv(variables=variables).compile(expression)
    except RuntimeError as error:
        found = [(place, _MIXED.match(what)) for place, what in _faults(error)]
        return [
            f"`{mixed['operator']}` at {place}"
            for place, mixed in found
            if mixed and mixed["operator"] in CALCULATING
        ]
    return []


WRITE_DOUBLES = "numbers of the context and of actions are doubles: write 1.0 for 1"
CALCULATING = ("+", "-", "*", "/", "%")

_FAULT = re.compile(r"ERROR: <input>:(?P<line>\d+):(?P<at>\d+): (?P<what>[^\n]*)")
_MIXED = re.compile(
    r"found no matching overload for '_(?P<operator>\S+)_' applied to "
    r"'\((?:double, u?int|u?int, double)\)'"
)


def _faults(error: RuntimeError) -> list[tuple[str, str]]:
    """Where, and what, CEL says of an expression that it does not take."""
    return [
        (
            f"character {fault['at']}" + (f" of line {fault['line']}" * (fault["line"] != "1")),
            fault["what"],
        )
        for fault in _FAULT.finditer(str(error))
    ]


def _types(spec: WorkflowSpec, of_action: bool, of_account: bool, number: Any) -> dict[str, Any]:
    """The variables of a condition with their types; `number` is that of a number."""
    types = {
        f"context.{name}": CONTEXT_TYPES.get(type(feature), number)
        for name, feature in spec.context.items()
        if not isinstance(feature, ImageFeature)
    }
    if of_action:
        types["action.id"] = cel.Type.STRING
        types |= {f"action.{name}": number for name in spec.actions[0].features}
    if of_account:
        types |= {f"account.{name}": number for name in Facts._fields}
        types["account.phase"] = cel.Type.STRING
    return types


def context_variables(context: Mapping[str, Any]) -> dict[str, Any]:
    """A checked context under the names that conditions use."""
    return {f"context.{name}": value for name, value in context.items()}
