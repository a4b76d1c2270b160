"""The page of both layouts beside the peers."""

from __future__ import annotations

from bench.beside import LEAVE_OUTS, PAGE, page, read
from bench.index.rows import Row


def test_the_page_shows_the_rows() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, read()) == text


def test_no_figure_is_void_and_all_layouts_are_there() -> None:
    rows = read()
    assert not [row for row in rows if row.status not in ("ok", "skipped")]
    for layout in ("corpus_index", "compact"):
        asked = {row.slice for row in rows if row.who == layout and row.section == "flat" and row.size == "100M"}
        assert {f"witten-bell 5, {part}" for part in LEAVE_OUTS.values()} <= asked


def test_a_void_row_is_said_and_a_busy_one_has_a_star() -> None:
    rows = [Row("100M", "match", "tokengrams", 5.0, slice="held-out", status="void")]
    rows.append(Row("100M", "match", "compact", 123.0, slice="held-out", details={"cpu_share": 0.5}))
    made = page(PAGE.read_text(encoding="utf-8"), rows)
    assert "| – | 123* | void |" in made
