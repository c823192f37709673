"""What the commands print: tables and progress bars, through rich."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from koalpaca_tune.errors import shown


class _Shown:
    """What is printed, its text without control characters; the console's own stay."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


class _Hook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(one) for one in renderables]


console = Console(highlight=False, soft_wrap=False)
console.push_render_hook(_Hook())


def table(title: str, rows: Iterable[tuple[str, object]]) -> None:
    """Two columns: what, and its value."""
    shown = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    shown.add_column(style="dim")
    shown.add_column(overflow="fold")
    for name, value in rows:
        shown.add_row(name, _text(value))
    console.print(shown)
    console.print()


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "예 (yes)" if value else "아니오 (no)"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    from rich.markup import escape

    return "-" if value is None else escape(str(value))


@contextmanager
def bar(label: str) -> Iterator[Any]:
    """A progress bar; yields update(done, total, note, label=None)."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def update(done: int, total: int | None, note: str | None = None, name: str = label) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total, note="")
            if note is None:
                progress.update(tasks[name], completed=done, total=total)
            else:
                progress.update(tasks[name], completed=done, total=total, note=note)

        yield update


def done(text: str) -> None:
    """A line that says where a result is."""
    console.print(text, markup=False, soft_wrap=True)
