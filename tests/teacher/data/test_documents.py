"""Parts of long documents: no text lost, cuts only where they are harmless."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.data.documents import Document, ReadLog, best_cut, places_to_cut, split_document

TEXTS = st.text(alphabet="ab. \n", max_size=60)


@given(text=TEXTS, part_chars=st.integers(2, 20))
def test_parts_put_together_are_the_document(text: str, part_chars: int) -> None:
    parts = list(split_document(Document(text, "x"), part_chars))
    assert "".join(part.text for part in parts) == text
    assert [part.ends for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all(0 < len(part.text) <= part_chars for part in parts[:-1])


@given(text=TEXTS, end=st.integers(1, 60))
def test_the_best_cut_is_between_lines_of_words_then_lines_then_words(text: str, end: int) -> None:
    end = min(end, len(text))
    if end == 0:
        return
    places = range(1, min(end, len(text) - 1) + 1)
    kinds = [
        [p for p in places if p > 1 and text[p - 1] == "\n" and text[p - 2].isalpha() and text[p].isalpha()],
        [p for p in places if text[p - 1] == "\n" and not text[p].isspace()],
        [p for p in places if not text[p - 1].isspace() and text[p].isspace()],
        [end],
    ]
    assert best_cut(text, end) == next(kind[-1] for kind in kinds if kind)


def test_a_cut_is_looked_for_near_the_end_only() -> None:
    assert best_cut("a\nb" + "c" * 10_000, 9_000) == 9_000
    assert best_cut("x" * 4094 + "\n" + "y" * 4096, 8_000) == 4095
    assert list(places_to_cut("a b c", 1, 4, of_a_kind=2)) == [3, 1]


def test_a_document_without_a_good_place_is_cut_anywhere() -> None:
    parts = list(split_document(Document("x" * 100), 30))
    assert [len(part.text) for part in parts] == [30, 30, 30, 10]


def test_the_log_keeps_five_examples() -> None:
    log = ReadLog()
    for number in range(7):
        log.note(f"line {number}", skipped=number % 2 == 0)
    assert (log.num_skipped, log.num_replaced, len(log.examples)) == (4, 3, 5)
