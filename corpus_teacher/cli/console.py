"""What the command line shows: progress on stderr, tables and bars on stdout.

Progress is a live bar with rate and time left on a terminal, and a line every ten seconds in a log file. All
text of the corpus is escaped before rich sees it, and control characters are made visible.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from corpus_teacher.cli.options import State

if TYPE_CHECKING:
    from corpus_teacher.data.documents import Progress as Report

_REFRESH_S = 0.1
_LOG_S = 10.0
BAR_WIDTH = 24
"""Characters of a bar."""


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr; wide enough not to fold tables in log files and pipes."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made.width = max(made.width, 120)
    return made


@contextmanager
def progress() -> Iterator[Report]:
    """Show the progress of a long call: pass what this yields as its `progress`."""
    screen = console(stderr=True)
    if State.quiet:
        yield _silent
        return
    if not screen.is_terminal:
        yield _LogProgress()
        return
    bars = Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", style="bold"),
        BarColumn(BAR_WIDTH),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[rate]}", style="cyan"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=screen,
    )
    with bars:
        yield _BarProgress(bars)


def _silent(stage: str, done: float, total: float | None, count: int = 0) -> None:
    """Nothing, for those who asked for quiet."""


def remark(text: str) -> None:
    """A dim line on stderr, unless quiet was asked for."""
    if not State.quiet:
        console(stderr=True).print(Text(text, style="dim"))


class _BarProgress:
    """Bars of rich, one a stage, brought up to date at most ten times a second."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}
        self.begins: dict[str, float] = {}
        self.last = 0.0

    def __call__(self, stage: str, done: float, total: float | None, count: int = 0) -> None:
        now = time.monotonic()
        new = stage not in self.tasks
        if not new and now - self.last < _REFRESH_S and (total is None or done < total):
            return
        self.last = now
        if new:
            for earlier in self.tasks.values():
                self.bars.update(earlier, total=1, completed=1)
            self.tasks[stage] = self.bars.add_task(stage, total=total, rate="")
            self.begins[stage] = now
        self.bars.update(
            self.tasks[stage],
            completed=done,
            total=total,
            rate=_rate(count, done, total, now - self.begins[stage]),
        )


class _LogProgress:
    """A line every ten seconds, for log files."""

    def __init__(self) -> None:
        self.begin = self.last = time.monotonic()
        self.stage = ""

    def __call__(self, stage: str, done: float, total: float | None, count: int = 0) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.begin = stage, now
        if now - self.last < _LOG_S:
            return
        self.last = now
        seconds = now - self.begin
        line = f"{stage}: {seconds:.0f} s"
        if total and done:
            line += f", {done / total:.0%} done, {seconds * (total - done) / done:.0f} s left"
        sys.stderr.write(f"{line} {_rate(count, done, total, seconds)}".rstrip() + "\n")
        sys.stderr.flush()


def _rate(count: int, done: float, total: float | None, seconds: float) -> str:
    """Tokens a second where there are tokens, megabytes a second where bytes are read."""
    if seconds <= _REFRESH_S:
        return ""
    if count:
        return f"{amount(count / seconds)} tokens/s"
    if total is not None and total > 1:
        return f"{done / seconds / 1e6:.1f} MB/s"
    return ""


def amount(number: float) -> str:
    """A number for a person: 812, 45.2 k, 3.41 M.

    >>> amount(812), amount(45_200), amount(3_410_000)
    ('812', '45.2 k', '3.41 M')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def duration(seconds: float) -> str:
    """A time for a person.

    >>> duration(8.2), duration(200), duration(9000)
    ('8 s', '3 minutes', '2.5 hours')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def size(num_bytes: float) -> str:
    """A size for a person, in decimal units.

    >>> size(999), size(12_300_000)
    ('999 B', '12.3 MB')
    """
    for unit_size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit_size:
            return f"{num_bytes / unit_size:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def visible(text: str) -> str:
    """Text of the corpus on one line: white space and control characters as signs.

    >>> visible("a\\nb\\tc")
    'a⏎b⇥c'
    """
    signs = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
    return "".join(signs.get(sign, sign if sign.isprintable() else f"\\x{ord(sign):02x}") for sign in text)


def pieces(tokens: Sequence[str]) -> str:
    """How a text was cut into tokens, each between marks, so that its blanks show.

    >>> pieces(["once", " upon", " a", " "])
    '‹once›‹ upon›‹ a›‹ ›'
    """
    return "".join(f"‹{visible(token)}›" for token in tokens)


def nearby(text: str, what: str, count: int) -> str:
    """A nearby form of a text, and how often it occurs.

    >>> nearby("once upon a", "without the blank at its end", 1200)
    'did you mean ‹once upon a› (without the blank at its end)? it occurs 1,200 times'
    """
    times = "once" if count == 1 else f"{count:,} times"
    return f"did you mean ‹{visible(text)}› ({what})? it occurs {times}"


def many(count: int, noun: str) -> str:
    """A count with its noun.

    >>> many(1, "file"), many(2000, "file")
    ('1 file', '2,000 files')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def facts() -> Table:
    """Names on the left, facts on the right."""
    made = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    return made


def plain_table(*heads: str, left: int, pad: int = 2) -> Table:
    """A plain table of numbers, whose last `left` columns are text: those give way on a narrow terminal."""
    made = Table(box=None, padding=(0, pad), header_style="bold")
    for place, head in enumerate(heads):
        text = place >= len(heads) - left
        made.add_column(head.strip(), justify="left" if text else "right", no_wrap=not text)
    return made


def short(text: str) -> Text:
    """A cell that ends in … where its column is too narrow, and never takes a second line."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def fitted_table(table: Table, screen: Console, dispensable: Sequence[str] = ()) -> Table:
    """A table whose dispensable columns are left out, the first ones first, until it fits the terminal."""
    for head in dispensable:
        if table.__rich_measure__(screen, screen.options.update(max_width=10_000)).maximum <= screen.width:
            break
        table.columns = [column for column in table.columns if column.header != head]
    return table
