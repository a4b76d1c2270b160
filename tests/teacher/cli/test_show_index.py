"""The table of an estimator's orders: neighbours that say the same stand together, and not too many columns."""

from __future__ import annotations

import pytest
from corpus_index import OrderShare

from corpus_teacher.analysis.query import Explained, ExplainedToken
from corpus_teacher.cli import show_index as display_explained


def explained(counts: list[int]) -> Explained:
    orders = [OrderShare(order, count, 1, 0.5, 0.5) for order, count in enumerate(counts)]
    part = 1 / len(counts)
    return Explained("witten-bell", orders, [ExplainedToken(5, "x\n", 1.0, [part] * len(counts))])


def test_orders_with_the_same_counts_share_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    display_explained.show_explained(explained([9, 9, 3, 3, 1]))
    shown = capsys.readouterr().out
    for words in ("‹x⏎›", "100.00%", "base", "order 1", "order 2–3", "order 4", "40.00%", "75.00%"):
        assert words in shown
    assert "order 2 " not in shown


def test_many_orders_are_folded(capsys: pytest.CaptureFixture[str]) -> None:
    display_explained.show_explained(explained(list(range(20, 0, -1))))
    shown = capsys.readouterr().out
    for words in ("base", "order 1–13", "order 14", "order 19", "65.00%"):
        assert words in shown
    assert "order 13 " not in shown
