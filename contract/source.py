"""A YAML file and the line of each of its parts, so that whatever is wrong is told by its place.

It knows nothing of what the parts mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml


class Problem(NamedTuple):
    """One thing that is wrong with a file."""

    file: str
    """Its path, or what else it is called."""
    line: int
    """From 1; 0 where there are no lines."""
    field: str
    """The part that is wrong, dotted: `actions.1.id`; empty for the file itself."""
    message: str
    """The field and what was expected."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}"


class SpecError(ValueError):
    """A workflow file is wrong. The message names file, line, field and what was expected."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        """The same, one by one, where their places are known."""

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> SpecError:
        """All of these at once."""
        return cls("\n".join(map(str, problems)), problems)


class Source:
    """What a spec was read from; it is no part of what a spec says, so any two are equal."""

    def __init__(self, name: str = "", node: yaml.Node | None = None) -> None:
        """`name` is the file's; empty where a spec comes from no file."""
        self.name = name
        self._node = node

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source)

    __hash__ = None  # type: ignore[assignment]

    def line(self, location: Sequence[Any]) -> int:
        """The line of the innermost part of `location` that the file has."""
        line, node = 1, self._node
        for part in location:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.SequenceNode):
                index = int(part) if str(part).isdigit() else math.inf
                if not index < len(node.value):
                    break
                node = node.value[int(index)]
                line = node.start_mark.line + 1
        return line

    def problem(self, field: str, message: str) -> Problem:
        """What is wrong with the dotted `field`, in its place."""
        return Problem(self.name, self.line(field.split(".")), field, f"{field}: {message}")


class _Loader(yaml.SafeLoader):
    """The safe loader, whose errors all have a line: also those of a date or number in a scalar."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error


def read_mapping(text: str, name: str) -> tuple[dict[Any, Any], Source]:
    """The mapping that the YAML `text` is, and its source. Raises SpecError."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _refuse_duplicate_keys(node, name)
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", None) or error).removeprefix("but ")
        raise _refused(
            name, mark.line + 1 if mark else 1, f"expected YAML, but {problem}"
        ) from error
    except RecursionError as error:
        raise _refused(name, 1, "expected YAML, but it is nested without end") from error
    if not isinstance(data, dict):
        raise _refused(name, 1, "expected a mapping of workflow fields")
    return data, Source(name, node)


def _refused(name: str, line: int, message: str, field: str = "") -> SpecError:
    return SpecError.of([Problem(name, line, field, message)])


def _refuse_duplicate_keys(node: yaml.Node, name: str) -> None:
    """YAML's parser keeps the last of two equal keys without a word; a spec must not."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise _refused(name, line, "expected a field's name, got a collection")
            if key.value in seen:
                message = f"{key.value}: declared twice in one mapping"
                raise _refused(name, line, message, key.value)
            seen.add(key.value)
            _refuse_duplicate_keys(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicate_keys(item, name)
