"""What the command line shows: progress on stderr, tables and bars on stdout.

Progress is a live bar with rate and time left on a terminal, and a line every ten seconds in a log file. All
text of the corpus is escaped before rich sees it, and control characters are made visible.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.console import Console, Group
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from corpus_teacher.analysis.query import BackoffStep, IndexInfo, Occurrence, QueryAnswer
    from corpus_teacher.data.build import BuildSummary
    from corpus_teacher.data.documents import Progress as Report

_REFRESH_S = 0.1
_LOG_S = 10.0
_BAR_WIDTH = 24
_CONTEXT_CHARS = 60


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
    if not screen.is_terminal:
        yield _LogProgress()
        return
    bars = Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", style="bold"),
        BarColumn(_BAR_WIDTH),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[rate]}", style="cyan"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=screen,
    )
    with bars:
        yield _BarProgress(bars)


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


def show_summary(summary: BuildSummary) -> None:
    """What a build did and took."""
    screen = console()
    facts = _facts()
    facts.add_row("index", summary.path)
    facts.add_row(
        "corpus",
        f"{summary.num_tokens:,} tokens in {_many(summary.num_documents, 'document')}, from "
        f"{_many(summary.num_files, 'file')}",
    )
    ends = "" if summary.end_of_document is None else f", documents end with {summary.end_of_document}"
    facts.add_row("vocabulary", f"{summary.vocab_size:,} ({summary.tokenizer or 'no tokenizer'}){ends}")
    if summary.text_bytes_per_token:
        facts.add_row("text", f"{size(summary.num_bytes)}, {summary.text_bytes_per_token:.2f} bytes/token")
    facts.add_row("on disk", f"{size(summary.index_bytes)}, {summary.index_bytes_per_token:.2f} bytes/token")
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in summary.stage_s.items())
    facts.add_row("time", f"{summary.total_s:.1f} s, {amount(summary.tokens_per_s)} tokens/s ({stages})")
    if summary.compiling_s >= 0.1:
        facts.add_row("compiler", f"{summary.compiling_s:.1f} s more, once on this machine")
    if summary.peak_memory_bytes:
        facts.add_row("peak memory", size(summary.peak_memory_bytes))
    if summary.skipped_files:
        suffixes = list(summary.skipped_files.items())
        shown = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes[:6])
        more = f", {sum(count for _, count in suffixes[6:]):,} others" if len(suffixes) > 6 else ""
        facts.add_row("left out", f"files: {shown}{more}")
    if summary.num_skipped_documents or summary.num_replaced_documents:
        facts.add_row(
            "broken",
            f"{_many(summary.num_skipped_documents, 'document')} left out, {summary.num_replaced_documents:,} mended",
        )
    for note in summary.notes:
        facts.add_row("note", Text(visible(note)))
    screen.print(facts)


def show_info(info: IndexInfo) -> None:
    """What an index is."""
    facts = _facts()
    facts.add_row("index", info.path)
    facts.add_row("fingerprint", info.fingerprint)
    facts.add_row("corpus", f"{info.num_tokens:,} tokens in {_many(info.num_documents, 'document')}")
    ends = "" if info.end_of_document is None else f", documents end with {info.end_of_document}"
    facts.add_row("vocabulary", f"{info.vocab_size:,} ({info.tokenizer or 'no tokenizer'}){ends}")
    if info.num_bytes:
        facts.add_row("text", f"{size(info.num_bytes)}, {info.num_bytes / info.num_tokens:.2f} bytes/token")
    facts.add_row("on disk", f"{size(info.total_bytes)}, {info.total_bytes / info.num_tokens:.2f} bytes/token")
    for key in ("sources", "created"):
        value = info.metadata.get(key)
        if value:
            facts.add_row(key, Text(visible(", ".join(value) if isinstance(value, list) else str(value))))
    files = Table(box=None, padding=(0, 2), header_style="bold")
    files.add_column("file")
    files.add_column("size", justify="right")
    files.add_column("bytes/token", justify="right")
    for name, num_bytes in sorted(info.size_bytes.items(), key=lambda item: -item[1]):
        files.add_row(name, size(num_bytes), f"{num_bytes / info.num_tokens:.2f}")
    console().print(Group(facts, "", files))


def show_checks(path: Path, passed: list[str], *, full: bool) -> None:
    """The checks that an index passed."""
    screen = console()
    for name in passed:
        screen.print(Text.assemble(("✓ ", "green"), name))
    how = "all invariants" if full else "the checksums and a sample of the invariants; --full checks all"
    screen.print(Text(f"{path} is sound ({how})"))


def show_answer(answer: QueryAnswer) -> None:
    """What the corpus says after a text."""
    screen = console()
    known = len(answer.tokens) - answer.match_len
    head = Text()
    for number, (_, text) in enumerate(answer.tokens):
        style = "dim" if number < known else "bold green" if number % 2 else "bold cyan"
        head.append(visible(text), style=style)
    screen.print(Text("context  ") + head, overflow="fold")
    if not answer.match_len:
        screen.print("match    nothing of it: these are the most frequent tokens of all")
    else:
        screen.print(
            f"match    the last {_many(answer.match_len, 'token')} of {len(answer.tokens)}, followed "
            f"{answer.context_count:,} times, by {_many(answer.distinct, 'different token')}"
        )
    screen.print()
    screen.print(_continuations(answer))
    screen.print()
    screen.print(_backoff(answer.backoff))
    if answer.occurrences:
        screen.print()
        shown = len(answer.occurrences)
        screen.print(Text(f"where it stands ({shown} of {answer.num_occurrences:,})", style="bold"))
        for occurrence in answer.occurrences:
            screen.print(_heading(occurrence))
            screen.print(Padding(_snippet(occurrence), (0, 2)))


def _continuations(answer: QueryAnswer) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("continuation")
    table.add_column("id", justify="right", style="dim")
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    table.add_column("")
    for one in answer.continuations:
        table.add_row(
            Text(_token(one.text)),
            str(one.token),
            f"{one.count:,}",
            f"{one.share:.1%}",
            Bar(1.0, 0, one.share, width=_BAR_WIDTH),
        )
    if answer.distinct > len(answer.continuations):
        rest = answer.context_count - sum(one.count for one in answer.continuations)
        others = answer.distinct - len(answer.continuations)
        share = rest / answer.context_count
        table.add_row(
            Text(_many(others, "other"), style="dim"),
            "",
            f"{rest:,}",
            f"{share:.1%}",
            Bar(1.0, 0, share, width=_BAR_WIDTH),
        )
    return table


def _backoff(steps: list[BackoffStep]) -> Table:
    """The chain; neighbouring orders that say the same stand in one row."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("order", justify="right")
    table.add_column("count", justify="right")
    table.add_column("distinct", justify="right")
    table.add_column("best continuation")
    table.add_column("share", justify="right")
    table.add_column("context")
    for first, last in _runs(steps):
        orders = str(first.order) if first is last else f"{last.order}–{first.order}"
        context = visible(first.context)
        if len(context) > _CONTEXT_CHARS:
            context = "…" + context[1 - _CONTEXT_CHARS :]
        table.add_row(
            orders,
            f"{first.count:,}",
            f"{first.distinct:,}",
            Text(_token(first.best.text)),
            f"{first.best.share:.1%}",
            Text(context if first.order else "(none)", style="dim"),
        )
    return table


def _runs(steps: list[BackoffStep]) -> Iterator[tuple[BackoffStep, BackoffStep]]:
    """First and last of neighbours with the same counts."""
    begin = 0
    for number in range(1, len(steps) + 1):
        if number == len(steps) or (steps[number].count, steps[number].distinct) != (
            steps[begin].count,
            steps[begin].distinct,
        ):
            yield steps[begin], steps[number - 1]
            begin = number


def _heading(occurrence: Occurrence) -> Text:
    place = f"document {occurrence.document:,}, token {occurrence.offset:,} (position {occurrence.position:,})"
    return Text(place, style="dim")


def _snippet(occurrence: Occurrence) -> Text:
    return Text.assemble(
        "…" if occurrence.cut_before else "",
        visible(occurrence.before),
        (f"⟦{visible(occurrence.match)}⟧", "bold green"),
        visible(occurrence.after),
        "…" if occurrence.cut_after else "",
        overflow="fold",
    )


def _token(text: str) -> str:
    """A token between marks, so that its spaces show."""
    return f"‹{visible(text)}›"


def _many(count: int, noun: str) -> str:
    """A count with its noun.

    >>> _many(1, "file"), _many(2000, "file")
    ('1 file', '2,000 files')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _facts() -> Table:
    """Names on the left, facts on the right."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table
