"""The pipeline: the same tokens as the naive loop, for any number of workers, and nothing left behind."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from corpus_index import DocumentNames

from corpus_teacher.data import documents as documents_module
from corpus_teacher.data import parts as parts_module
from corpus_teacher.data import pipeline
from corpus_teacher.data.documents import Document, ReadLog, split_document
from corpus_teacher.data.indexing import build_index_from_documents, build_token_index
from corpus_teacher.data.parts import Part
from corpus_teacher.data.pipeline import TokenWriter, tokenize_documents
from corpus_teacher.data.tokenizers import ByteTokenizer, Tokenizer, train_tokenizer
from corpus_teacher.errors import CorpusError, OutputError

TEXTS = ["the cat sat\non the mat\n" * 9, "", "naïve €\nünd so\n" * 7, "end"]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(TEXTS, 290)


def naive(texts: list[str], tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    tokens: list[int] = []
    starts = [0]
    for text in texts:
        tokens += tokenizer.encode(text).tolist()
        if tokenizer.end_of_document is not None:
            tokens.append(tokenizer.end_of_document)
        starts.append(len(tokens))
    return tokens, starts


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("batch_chars", [1, 30, 1 << 20])
def test_same_as_the_naive_loop(
    trained: Tokenizer, workers: int, batch_chars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BATCH_CHARS", batch_chars)
    for tokenizer in (trained, ByteTokenizer()):
        tokens, starts = naive(TEXTS, tokenizer)
        actual = tokenize_documents(TEXTS, tokenizer, workers=workers)
        np.testing.assert_array_equal(actual.tokens, tokens)
        np.testing.assert_array_equal(actual.doc_starts, starts)
        assert actual.num_bytes == sum(len(text.encode()) for text in TEXTS)
        assert actual.tokens.dtype == np.uint16
        assert not actual.tokens.flags.writeable


def test_without_an_end_of_document(trained: Tokenizer) -> None:
    tokenizer = Tokenizer.from_bytes(trained.to_bytes(), spec="x")
    assert tokenizer.end_of_document is None
    tokens, starts = naive(TEXTS, tokenizer)
    actual = tokenize_documents(TEXTS, tokenizer)
    np.testing.assert_array_equal(actual.tokens, tokens)
    np.testing.assert_array_equal(actual.doc_starts, starts)


def metaspace() -> Tokenizer:
    """A tokenizer that marks the start of a text, so that no cut leaves its tokens alone."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"▁": 0, "a": 1, "\n": 2, "<e>": 3}, [], unk_token=None))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    return Tokenizer(backend, spec="metaspace", end_of_document=3)


@pytest.mark.parametrize("make", [ByteTokenizer, metaspace, lambda: train_tokenizer(TEXTS, 290)])
def test_parts_do_not_change_a_token(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make()
    text = "aa\naa a\n\na\na" * 30
    parts = list(split_document(Document(text), 40))
    assert len(parts) > 3
    tokens, starts = naive([text, "a"], tokenizer)
    actual = tokenize_documents([*parts, "a"], tokenizer)
    np.testing.assert_array_equal(actual.tokens, tokens)
    np.testing.assert_array_equal(actual.doc_starts, starts)
    monkeypatch.setattr(parts_module, "split_document", lambda document: split_document(document, 40))
    again = tokenize_documents([text, "a"], tokenizer)
    np.testing.assert_array_equal(again.tokens, tokens)
    assert documents_module.PART_CHARS > 40


def test_an_end_token_that_a_text_produces_ends_a_document() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    log = ReadLog()
    actual = tokenize_documents(["a </s> a a"], Tokenizer(backend, spec="words", end_of_document=1), log=log)
    np.testing.assert_array_equal(actual.tokens, [0, 1, 0, 0, 1])
    np.testing.assert_array_equal(actual.doc_starts, [0, 2, 5])
    assert "1 times the text itself contains the end-of-document token" in log.sentences[0]


def test_documents_keep_their_names(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = Tokenizer(backend, spec="words", end_of_document=1)
    documents = [
        Document("a", "f.txt, line 1"),
        Document("a a", "f.txt, line 2", ends=False),
        Document(" a", "f.txt, line 2"),
        Document("a </s> a", "f.txt, line 3", name="third", fields={"url": "u"}),
        "a",
    ]
    corpus = tokenize_documents(documents, tokenizer, keep_names=True)
    assert corpus.names is not None
    third = ("third", {"url": "u"})
    expected = [("f.txt, line 1", {}), ("f.txt, line 2", {}), third, third, ("document 5", {})]
    assert [tuple(one) for one in DocumentNames(corpus.names)] == expected
    assert corpus.num_documents == len(expected)
    with build_token_index(corpus, tokenizer, tmp_path / "i") as index:
        assert [index.document(number).name for number in (0, 3)] == ["f.txt, line 1", "third"]


def test_documents_of_a_program_are_numbered(tmp_path: Path) -> None:
    with build_index_from_documents(
        ["x", Document("y", "there")], ByteTokenizer(), tmp_path / "i", name="mine"
    ) as index:
        assert [index.document(number).name for number in (0, 1)] == ["mine, document 1", "there"]


def test_special_tokens_in_the_text_are_noticed() -> None:
    tokenizer = train_tokenizer(TEXTS, 290)
    tokenize_documents(["a<|endoftext|>", "b <|endoftext|>"], tokenizer, log=(log := ReadLog()))
    assert log.specials == {"<|endoftext|>": 2}
    assert "read as ordinary text: <|endoftext|> (2 times)" in log.sentences[0]
    tokenize_documents(["a", "b"], tokenizer, log=(log := ReadLog()))
    assert log.sentences == []


def test_an_empty_corpus_says_why_documents_were_left_out() -> None:
    log = ReadLog()
    log.note("a.jsonl, line 1: there is no field 'text'; name one of: 'body'", skipped=True)
    with pytest.raises(CorpusError, match=r"1 were left out, the first because a\.jsonl, line 1: there is no field"):
        tokenize_documents([], ByteTokenizer(), log=log)


@pytest.mark.parametrize(("texts", "sentence"), [([], "no document"), (["", ""], "2 documents hold no text")])
def test_an_empty_corpus(texts: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=f"the corpus is empty: .*{sentence}"):
        tokenize_documents(texts, ByteTokenizer(), tmp_path / "tokens.bin")
    assert not list(tmp_path.iterdir())


def test_a_named_file_stays_and_is_raw(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    actual = tokenize_documents(["ab"], ByteTokenizer(), path)
    assert actual.path == path
    np.testing.assert_array_equal(np.fromfile(path, dtype="<u2"), [97, 98, 256])


def test_reading_is_only_a_bounded_way_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BATCH_CHARS", 100)
    ahead: list[int] = []
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for _ in range(200):
            read += 1
            yield "x" * 100

    def progress(stage: str, done: float, total: float | None, count: int = 0) -> None:
        assert stage == "tokenize"
        ahead.append(read - count // 101)

    tokenize_documents(texts(), ByteTokenizer(), workers=2, progress=progress)
    assert max(ahead) <= 2 * 2 + 1


def test_empty_documents_are_read_only_a_bounded_way_ahead() -> None:
    """A batch of a million of them took 300 MB."""
    sizes = [len(batch) for batch in pipeline._batches(Part("", Document("")) for _ in range(1 << 16))]
    assert sum(sizes) == 1 << 16
    assert max(sizes) * 64 <= pipeline.BATCH_CHARS


def test_a_reader_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def texts() -> Iterator[str]:
        yield "fine"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize_documents(texts(), ByteTokenizer(), tmp_path / "tokens.bin")
    assert not list(tmp_path.iterdir())
    (tmp_path / "tokens.bin").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        tokenize_documents(texts(), ByteTokenizer(), tmp_path / "tokens.bin")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("tokens.bin", b"old")]


class FullDisk(io.BytesIO):
    """A disk with room for ten bytes."""

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pipeline.tempfile, "TemporaryFile", lambda dir: FullDisk())
    with pytest.raises(OutputError, match=r"no space for the tokens in .*nothing was kept"):
        tokenize_documents(["x" * 100], ByteTokenizer(), folder=tmp_path)


def test_an_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"can't be written to .*nowhere.* \(No such file or directory\)"):
        TokenWriter(np.uint16, folder=tmp_path / "nowhere")
    with pytest.raises(OutputError, match="No such file or directory"):
        TokenWriter(np.uint16, tmp_path / "nowhere" / "tokens.bin")


def test_no_space_for_the_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline.NamesWriter, "add", full)
    with pytest.raises(OutputError, match=r"the names of documents can't be written .*No space left on device"):
        tokenize_documents(["a"], ByteTokenizer(), folder=tmp_path, keep_names=True)
    assert not list(tmp_path.iterdir())
