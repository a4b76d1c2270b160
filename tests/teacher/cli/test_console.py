"""What is shown: numbers for people, progress on a terminal and in a log file, long chains in few rows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from corpus_teacher.analysis.query import BackoffStep, Continuation, QueryAnswer
from corpus_teacher.cli import console as display
from corpus_teacher.cli.show_index import show_answer
from corpus_teacher.data.documents import Progress


def report(progress: Progress) -> None:
    progress("tokenize", 0, 100)
    progress("tokenize", 25, 100, 5000)
    progress("tokenize", 100, 100, 20_000)
    progress("build: sort", 0.5, 1.0)
    progress("build: sort", 1.0, 1.0)
    progress("stream", 3, None, 7)


def test_progress_in_a_log_file_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with display.progress() as progress:
        report(progress)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(display, "_LOG_S", 0.0)
    with display.progress() as progress:
        report(progress)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert "25% done" in lines[1]
    assert "s left" in lines[1]


def test_progress_on_a_terminal_is_a_bar_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(display, "console", lambda stderr: screen)
    monkeypatch.setattr(display, "_REFRESH_S", 0.0)
    with display.progress() as progress:
        report(progress)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    for words in ("tokenize", "build: sort", "stream", "tokens/s", "100%"):
        assert words in shown


def test_neighbouring_orders_that_say_the_same_share_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    best = Continuation(5, " x", 2, 1.0)
    steps = [BackoffStep(order, "y" * order, 2, 1, best) for order in range(300, 1, -1)]
    steps += [BackoffStep(1, "y", 9, 3, best), BackoffStep(0, "", 20, 8, best)]
    tokens = [(1, "y")] * 300
    show_answer(QueryAnswer(tokens, 300, "y" * 300, 2, 1, [best], steps, 2, []))
    shown = capsys.readouterr().out
    assert "2–300" in shown
    assert len([line for line in shown.splitlines() if "‹ x›" in line]) == 4  # one continuation, three rows


@pytest.mark.parametrize(("text", "expected"), [("a\r\n\tb", "a␍⏎⇥b"), ("\x1b[0m", "\\x1b[0m"), ("é€ ", "é€ ")])
def test_visible(text: str, expected: str) -> None:
    assert display.visible(text) == expected
