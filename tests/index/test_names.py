"""Names of documents: what goes in comes out, damage is named, older indexes have none; who taught a target."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import (
    CorpusError,
    CorpusIndex,
    DocumentNames,
    IndexFormatError,
    QueryError,
    build_index,
    verify_index,
)
from corpus_index.names import NamesWriter, numbered_names, pack_names
from hypothesis import given
from hypothesis import strategies as st

FIELDS = st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.text(max_size=5), max_size=2)
TOKENS = np.array([1, 2, 1, 2, 3, 1, 2, 2])
STARTS = np.array([0, 2, 5, 5, 8])


@given(names=st.lists(st.tuples(st.text(max_size=9), FIELDS), max_size=150), repeat=st.integers(1, 3))
def test_names_come_back(names: list[tuple[str, dict[str, Any]]], repeat: int) -> None:
    names = names * repeat
    writer = NamesWriter()
    for name, fields in names:
        writer.add(name, fields)
    read = DocumentNames(writer.finish())
    assert len(read) == len(names)
    assert [tuple(one) for one in read] == names
    for number in (-1, len(names)):
        with pytest.raises(QueryError, match="there is no document"):
            read[number]


def test_numbered_documents_and_lists_of_names_are_compact() -> None:
    rules = numbered_names([(10**9, "a.bin, document "), (2, "b.bin, document ")], first=0)
    assert len(rules) < 200
    assert DocumentNames(rules)[10**9 + 1].name == "b.bin, document 1"
    packed = pack_names(f"/data/corpus/news-{number // 1000}.jsonl, line {number % 1000}" for number in range(20_000))
    assert len(packed) < 8 * 20_000
    assert DocumentNames(packed)[12_345].name == "/data/corpus/news-12.jsonl, line 345"


@pytest.mark.parametrize("at", [0, 8, 16, 24, 32, 40, 50, -3])
def test_damage_is_named(at: int) -> None:
    content = bytearray(pack_names(map(str, range(100))))
    content[at] ^= 0x55
    with pytest.raises(IndexFormatError, match="x is no file of document names"):
        list(DocumentNames(bytes(content), "x"))
    with pytest.raises(IndexFormatError, match="cut short"):
        DocumentNames(b"CINAMES1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index"


def test_an_index_names_its_documents(path: Path) -> None:
    names = ["a.txt", "b.jsonl, line 2", "empty", "d"]
    with build_index(TOKENS, path, doc_starts=STARTS, document_names=names) as index:
        assert index.document(1) == (1, "b.jsonl, line 2", {}, 2, 3)
        assert index.document(2).num_tokens == 0
        assert index.size_bytes["documents.names"] > 0
        with pytest.raises(QueryError, match="there is no document 4"):
            index.document(4)
    assert '"version": 3' in (path / "manifest.json").read_text()
    assert any("names of 4 documents" in line for line in verify_index(path))
    with pytest.raises(QueryError, match="closed"):
        _ = index.document_names


def test_an_index_without_names_is_of_the_older_version(path: Path) -> None:
    with build_index(TOKENS, path, doc_starts=STARTS) as index:
        assert index.document(1) == (1, None, {}, 2, 3)
        assert index.document_names is None
    assert '"version": 1' in (path / "manifest.json").read_text()


def test_names_that_do_not_fit(path: Path) -> None:
    with pytest.raises(CorpusError, match="there are 3 names and 4 documents"):
        build_index(TOKENS, path, doc_starts=STARTS, document_names=["a", "b", "c"])
    assert not path.exists()


def test_a_file_of_names_that_lies_about_its_blocks() -> None:
    content = bytearray(pack_names(map(str, range(100))))
    struct.pack_into("<Q", content, 8, 70)  # D
    with pytest.raises(IndexFormatError, match="block 1 names 36 documents, not 6"):
        list(DocumentNames(bytes(content)))
    struct.pack_into("<Q", content, 8, 300)
    with pytest.raises(IndexFormatError, match="it names 128 documents, not 300"):
        DocumentNames(bytes(content))


documents_and_context = st.tuples(
    st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=6).filter(any),
    st.lists(st.integers(0, 2), max_size=3),
    st.none() | st.integers(0, 2),
    st.none() | st.integers(0, 5),
)


@given(case=documents_and_context)
def test_documents_of_a_target_equal_a_plain_count(case: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    documents, context, token, left_out = case
    path = tmp_path_factory.mktemp("index") / "i"
    starts = np.cumsum([0, *map(len, documents)])
    tokens = np.array([token for document in documents for token in document])
    with build_index(tokens, path, doc_starts=starts, vocab_size=3) as index:
        found = index.next_tokens(context)
        votes = index.documents_of(context, token, leave_out=left_out)
        assert votes.match_len == found.match_len
        match = context[len(context) - found.match_len :]
        expected = {}
        for number, document in enumerate(documents):
            count = sum(
                document[place : place + len(match)] == match
                and (token is None or document[place + len(match)] == token)
                for place in range(len(document) - len(match))
            )
            if count and number != left_out:
                expected[number] = count
        assert dict(zip(votes.documents.tolist(), votes.counts.tolist(), strict=True)) == expected
        assert votes.counts.tolist() == sorted(expected.values(), reverse=True)
        assert votes.context_count == sum(expected.values())
        assert index.documents_of(context, token, leave_out=left_out, limit=1).documents.size == min(1, len(expected))


def test_wrong_limits(path: Path) -> None:
    with (
        build_index(TOKENS, path, doc_starts=STARTS) as index,
        pytest.raises(QueryError, match="limit -1 must be 0 or more"),
    ):
        CorpusIndex.documents_of(index, [1], limit=-1)
