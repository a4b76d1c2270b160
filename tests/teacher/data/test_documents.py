"""Parts of long documents: no text lost, cuts only where they are harmless."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.data.documents import Document, ReadLog, last_cut, split_document

TEXTS = st.text(alphabet="ab \n", max_size=60)


@given(text=TEXTS, part_chars=st.integers(2, 20))
def test_parts_put_together_are_the_document(text: str, part_chars: int) -> None:
    parts = list(split_document(Document(text, "x"), part_chars))
    assert "".join(part.text for part in parts) == text
    assert [part.ends for part in parts] == [False] * (len(parts) - 1) + [True]
    for part in parts[:-1]:
        assert part.text[-1] == "\n"
        assert not part.text[-2].isspace()
    for part in parts[1:]:
        assert not part.text[0].isspace()


@given(text=TEXTS)
def test_last_cut_is_the_last_newline_between_words(text: str) -> None:
    expected = max(
        (
            place
            for place in range(2, len(text))
            if text[place - 1] == "\n" and text[place - 2].isalnum() and text[place].isalnum()
        ),
        default=0,
    )
    actual = last_cut(text)
    assert actual == expected


def test_last_cut_across_search_blocks() -> None:
    text = "a\nb" + " " * 10_000
    assert last_cut(text) == 2
    assert last_cut("x" * 4094 + "\n" + "y" * 4096) == 4095


def test_a_document_without_a_place_to_cut_stays_whole() -> None:
    (part,) = split_document(Document("x" * 100), 10)
    assert part.text == "x" * 100


def test_the_log_keeps_five_examples() -> None:
    log = ReadLog()
    for number in range(7):
        log.note(f"line {number}", skipped=number % 2 == 0)
    assert (log.num_skipped, log.num_replaced, len(log.examples)) == (4, 3, 5)
