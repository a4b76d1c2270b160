"""Building: inputs of every kind, options, progress."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import corpus_index.build as build_module
import numpy as np
import pytest
from corpus_index import CorpusError, build_index, verify_index
from corpus_index.reference.engine import ReferenceIndex
from corpus_index.warming import as_if_large


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.uint64, ">u2"])
def test_any_integer_type(tmp_path: Path, dtype: str) -> None:
    index = build_index(np.array([1, 2, 1, 2, 3], dtype), tmp_path / "index")
    assert index.tokens.tolist() == [1, 2, 1, 2, 3]
    assert index.tokens.dtype == np.uint16
    assert index.count([1, 2]) == 2


def test_a_memory_map(tmp_path: Path) -> None:
    np.array([1, 2, 1, 2, 3], np.uint16).tofile(tmp_path / "tokens.bin")
    tokens = np.memmap(tmp_path / "tokens.bin", np.uint16, "r")
    assert build_index(tokens, tmp_path / "index").count([1, 2]) == 2


def test_one_token(tmp_path: Path) -> None:
    index = build_index(np.array([3]), tmp_path / "index")
    assert (index.count([3]), index.count([2]), index.count([])) == (1, 0, 1)
    assert index.next_tokens([3]).token_ids.tolist() == [3]
    assert len(verify_index(tmp_path / "index", full=True)) == 9


def test_a_corpus_of_one_token_repeated(tmp_path: Path) -> None:
    tokens = np.zeros(70_000, np.uint16)
    index = build_index(tokens, tmp_path / "index", vocab_size=2)
    batch = index.next_tokens_batch(np.zeros((1, 300), int))
    answer = batch.at(0, 299)
    assert (answer.token_ids.tolist(), answer.counts.tolist(), answer.match_len) == ([0], [69_700], 300)
    assert index.next_tokens([1, 0]).context_count == 69_999
    assert len(verify_index(tmp_path / "index")) == 9


@pytest.mark.parametrize("documents", [1, 7, 300])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_large_corpora_are_built_as_small_ones(tmp_path: Path, documents: int, workers: int) -> None:
    """The same document again and again, with a few that differ; and the order is that of the definition."""
    rng = np.random.default_rng(documents)
    tokens = np.tile(rng.integers(0, 5, 600 // documents), documents)
    tokens[rng.integers(0, tokens.size, 3)] = 5
    starts = np.arange(0, tokens.size + 1, tokens.size // documents)
    small = build_index(tokens, tmp_path / "small", doc_starts=starts, workers=1)
    with as_if_large():
        large = build_index(tokens, tmp_path / "large", doc_starts=starts, workers=workers)
    assert large.fingerprint == small.fingerprint
    assert len(verify_index(tmp_path / "large", full=True)) == 9


def test_many_threads_on_a_larger_corpus(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tokens = np.minimum(rng.geometric(0.05, 200_000) - 1, 299)
    starts = np.unique(np.concatenate([[0, 200_000], rng.integers(0, 200_000, 500)]))
    one = build_index(tokens, tmp_path / "one", doc_starts=starts, workers=1)
    many = build_index(tokens, tmp_path / "many", doc_starts=starts, workers=5)
    assert one.fingerprint == many.fingerprint
    assert len(verify_index(tmp_path / "many", full=True)) == 9
    with as_if_large():
        other = build_index(tokens, tmp_path / "other", doc_starts=starts, workers=3)
    assert other.fingerprint == one.fingerprint
    part = ReferenceIndex([tokens[a:b].tolist() for a, b in pairwise(starts[:41])], 300)
    small = build_index(tokens[: starts[40]], tmp_path / "part", doc_starts=starts[:41])
    for place in range(0, 1000, 97):
        ngram = tokens[place : place + 2].tolist()
        assert small.count(ngram) == part.count(ngram)


def test_the_end_of_document_token_stands_in_the_metadata(tmp_path: Path) -> None:
    index = build_index(np.array([1, 0, 2, 0]), tmp_path / "a", metadata={"end_of_document": 0})
    assert (index.end_of_document, index.num_documents) == (0, 2)
    assert build_index(np.array([1, 0, 2, 0]), tmp_path / "b", end_of_document=0).metadata == {"end_of_document": 0}
    with pytest.raises(CorpusError, match="end_of_document is 0 but the metadata says 1"):
        build_index(np.array([1, 0]), tmp_path / "c", end_of_document=0, metadata={"end_of_document": 1})


def test_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, float]] = []
    build_index(np.array([1, 2, 3]), tmp_path / "a", progress=lambda stage, share: seen.append((stage, share)))
    assert seen[0] == ("sort", 0.0)
    assert seen[-1] == ("write", 1.0)
    assert capsys.readouterr() == ("", "")
    build_index(np.array([1, 2, 3]), tmp_path / "b", progress=True)
    assert capsys.readouterr().err.endswith("index: write        100%\n")


def test_workers_are_checked(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="workers 0"):
        build_index(np.array([1]), tmp_path / "index", workers=0)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_corpus_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CorpusError):
        build_index(np.array([5]), tmp_path / "index", vocab_size=5)
    assert list(tmp_path.iterdir()) == []


def test_a_long_run_costs_deep_rows_not_wide_ones(tmp_path: Path) -> None:
    """Each length of a run of one token is a context with a row; the longest are given up, `light` stays."""
    rng = np.random.default_rng(0)
    text = rng.integers(0, 50, 20_000)
    plain = build_index(text, tmp_path / "plain", vocab_size=50)
    run = build_index(np.concatenate([text, np.full(4_000, 7), text[:9]]), tmp_path / "run", vocab_size=50)
    assert (plain.light, plain.deepest) == (128, 65_534)
    assert run.light == 128
    assert 16 <= run.deepest < 3_000
    for length in (1, 5, run.deepest - 1, run.deepest, run.deepest + 1, 3_500):
        answer = run.next_tokens([7] * length, max_order=length)
        assert answer.counts.sum() == answer.context_count
        assert int(answer.counts[answer.token_ids == 7].sum()) >= 4_000 - length
    assert run.array("row_bounds").shape[0] > plain.array("row_bounds").shape[0]


@pytest.mark.parametrize(
    ("orders", "expected"), [([1, 2], (128, 65_534)), ([1, 20], (128, 19)), ([1, 9], (512, 65_534))]
)
def test_which_rows_are_affordable(orders: list[int], expected: tuple[int, int]) -> None:
    widths, sizes = np.array([1000, 300]), np.array([50, 60 if orders[1] > 2 else 50])
    assert build_module._affordable(widths, np.array(orders), sizes, 100.0) == expected
