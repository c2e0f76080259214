"""Progress on standard error: a line for each thing done, a bar for each stage."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
)


class Bars:
    """The bars of one run. Use in a `with`."""

    def __init__(
        self, console: Console, *columns: ProgressColumn, refreshes_a_second: float = 10
    ) -> None:
        """`columns` stand behind each bar. It is drawn rarely where a core is being measured."""
        self._progress = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            *columns,
            console=console,
            refresh_per_second=refreshes_a_second,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def status(self, text: str) -> None:
        """A line above the bars."""
        self._progress.console.print(text, highlight=False)

    def expect(self, stage: str, steps: int) -> None:
        """A bar for a stage of so many steps."""
        self._tasks[stage] = self._progress.add_task(stage, total=steps)

    def advance(self, stage: str, steps: int = 1) -> None:
        """So many steps of a stage are done."""
        self._progress.advance(self._tasks[stage], steps)
