"""Rows of held-out text: every token is counted once, after enough of its own document."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpus_index import CorpusIndex
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.data.held_out import HeldOut, read_held_out
from corpus_teacher.data.indexing import build_index_from_documents
from corpus_teacher.data.pipeline import TokenFile
from corpus_teacher.data.tokenizers import ByteTokenizer
from corpus_teacher.errors import ConfigError, TokenizerError

END = 0


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=30), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([None, END]),
    st.integers(2, 12),
    st.data(),
)
def test_each_token_once_after_its_context(
    documents: list[list[int]], ended: bool, end: int | None, length: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, length - 1))
    if ended:
        documents = [[*document, END] for document in documents]
    tokens = np.array([token for document in documents for token in document], np.uint16)
    held_out = HeldOut(TokenFile(tokens, np.cumsum([0, *map(len, documents)])), end)
    expected = []  # the token, and what is known before it: of its document, led by the end token where there is one
    for document in documents:
        lead = [] if end is None else [end]
        expected += [([*lead, *document[:k]], document[k]) for k in range(1 - len(lead), len(document))]
    found = []
    for batch in held_out.batches(length=length, rows=2, overlap=overlap):
        assert batch.input_ids.shape == batch.next_ids.shape == (len(batch.starts_document), length)
        for row, following, starts in zip(batch.input_ids, batch.next_ids, batch.starts_document, strict=True):
            for t in np.flatnonzero(following >= 0).tolist():
                found.append((row[: t + 1].tolist(), int(following[t]), bool(starts)))
    assert len(found) == len(expected) == held_out.num_predicted
    for (context, token, starts), (whole, wanted) in zip(found, expected, strict=True):
        assert token == wanted
        known = (
            context[len(context) - context[::-1].index(end) - 1 :] if end is not None and end in context else context
        )
        shared = min(len(known), len(whole))
        assert known[len(known) - shared :] == whole[len(whole) - shared :]
        assert len(known) >= min(len(whole), overlap)
        if starts and end is None:
            assert known == whole


@pytest.fixture
def index(tmp_path: Path) -> CorpusIndex:
    return build_index_from_documents(["abc", "bcd"], ByteTokenizer(), tmp_path / "index", name="by hand")


def test_text_and_ready_tokens_agree(index: CorpusIndex, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("häb\n")
    (tmp_path / "b.txt").write_text("abcab")
    tokenizer = ByteTokenizer()
    text = read_held_out(index, [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")], tokenizer)
    assert (text.corpus.num_documents, text.corpus.num_bytes, text.num_predicted) == (2, 10, 12)
    np.save(tmp_path / "tokens.npy", text.corpus.tokens)
    ready = read_held_out(index, [str(tmp_path / "tokens.npy")], tokenizer)
    assert ready.corpus.tokens.tolist() == text.corpus.tokens.tolist()
    assert ready.corpus.doc_starts.tolist() == text.corpus.doc_starts.tolist()
    assert ready.corpus.num_bytes == 10
    assert read_held_out(index, [str(tmp_path / "tokens.npy")], None).corpus.num_bytes == 0
    cut = read_held_out(index, [str(tmp_path / "tokens.npy")], tokenizer, limit=8)
    assert (cut.num_predicted, cut.corpus.num_documents, cut.corpus.num_bytes) == (8, 2, 7)


def test_what_can_t_be_read(index: CorpusIndex, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    np.save(tmp_path / "tokens.npy", np.array([1, 2], np.uint16))
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        read_held_out(index, [str(tmp_path / "a.txt")], None)
    with pytest.raises(ConfigError, match="don't go together"):
        read_held_out(index, [str(tmp_path / "a.txt"), str(tmp_path / "tokens.npy")], ByteTokenizer())
    with pytest.raises(ConfigError, match="nothing to predict"):
        read_held_out(index, [str(tmp_path / "a.txt")], ByteTokenizer(), limit=1)
    held_out = read_held_out(index, [str(tmp_path / "a.txt")], ByteTokenizer())
    with pytest.raises(ConfigError, match="doesn't fit rows"):
        next(held_out.batches(length=8, overlap=8))
