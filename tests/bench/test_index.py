"""The bench's judge: its oracle is the reference's equal, and it does see an answer that is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from corpus_index.reference.engine import ReferenceIndex
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.corpora import SEPARATOR, load, query_rows, sizes_in
from bench.index.contender import Answers
from bench.index.contenders import BY_NAME
from bench.index.earlier import EarlierRun, answers_folder
from bench.index.judge import compare, oracle_answers, oracle_sample, sample_positions, take
from bench.index.oracle import Oracle
from bench.index.peers import split_separator
from bench.index.rows import Row, render
from bench.index.sorters import check_suffix_array

DOCUMENTS = st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=6).filter(any)


def arrays_of(documents: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """tokens (N,) and doc_starts (D+1,)."""
    tokens = np.array([token for document in documents for token in document], np.uint16)
    return tokens, np.cumsum([0, *map(len, documents)])


@settings(deadline=None)
@given(
    DOCUMENTS, st.lists(st.integers(0, 4), min_size=1, max_size=8), st.none() | st.integers(0, 4)
)  # token 4 is in no document
def test_oracle_equals_the_reference(documents: list[list[int]], context: list[int], max_order: int | None) -> None:
    expected, expected_len = ReferenceIndex(documents, vocab_size=5).next_tokens(context, max_order=max_order)

    match_len, token_ids, counts = Oracle(*arrays_of(documents)).answer(np.array(context), max_order)

    assert match_len == expected_len
    assert dict(zip(token_ids.tolist(), counts.tolist(), strict=True)) == expected


def an_answer(match_len: int = 3, count: int = 2, separators: int = 0, counts: tuple[int, ...] = (1, 1)) -> Answers:
    """One position's answer; the continuations are 5, 6, …"""
    return Answers.of([(match_len, count, separators, np.arange(5, 5 + len(counts)), np.array(counts))])


def test_judge_accepts_equal_answers() -> None:
    found = compare("continuations", an_answer(), an_answer(count=3, separators=1))

    assert (found.compared, found.differing) == (1, 0)


@pytest.mark.parametrize(
    "theirs",
    [
        an_answer(match_len=4),
        an_answer(count=3),
        an_answer(separators=1),
        an_answer(counts=(2,)),
        an_answer(counts=(2, 0)),
        an_answer(match_len=2, count=2, separators=2),  # only before separators, yet ours is longer
        an_answer(match_len=0, count=9),
    ],
)
def test_judge_sees_what_differs(theirs: Answers) -> None:
    assert compare("continuations", an_answer(), theirs).differing == 1


def test_judge_skips_what_the_peer_only_approximates() -> None:
    theirs = an_answer(count=2_000, counts=(1_000, 1_000))

    found = compare("continuations", an_answer(), theirs, exact_up_to=1_000)

    assert (found.compared, found.differing) == (0, 0)


def test_judge_compares_no_further_than_a_capped_context() -> None:
    theirs = an_answer(match_len=64, count=9)

    assert compare("match", an_answer(match_len=70), theirs, cap=64).differing == 0
    assert compare("match", an_answer(match_len=63), theirs, cap=64).differing == 1


def test_judge_of_four_token_contexts_knows_silence() -> None:
    silent = an_answer(match_len=-1, count=0, counts=())

    assert compare("order4", an_answer(match_len=3), silent).differing == 0
    assert compare("order4", an_answer(match_len=4), silent).differing == 1


def test_oracle_sample_is_of_the_sample() -> None:
    tokens = np.random.default_rng(3).integers(0, 4, size=400).astype(np.uint16)
    rows = tokens[:256].reshape(4, 64).astype(np.int64)
    sample = sample_positions(rows.shape, "match")
    answers = oracle_answers(Oracle(tokens, np.array([0, 150, 150, 400])), "match", rows, sample)

    assert len(answers.match_len) == len(oracle_sample(sample))
    assert sample[:, 1].min() >= 3  # four tokens are known everywhere
    np.testing.assert_array_equal(take(answers, np.array([2])).match_len, answers.match_len[2:3])


def test_separated_corpus_and_rows(tmp_path: Path) -> None:
    tokens = np.arange(100, dtype=np.uint16)
    for name in ("train_100", "heldout_1M"):
        tokens.tofile(tmp_path / f"{name}.u16")
        np.save(tmp_path / f"{name}.doc_starts.npy", np.array([0, 30, 30, 100]))

    corpus = load(tmp_path, "100", tmp_path)
    rows = query_rows(corpus, tmp_path, num_rows=4, row_length=8, seed=0)

    assert sizes_in(tmp_path) == ["100"]
    expected = [*range(30), SEPARATOR, SEPARATOR, *range(30, 100), SEPARATOR]
    assert corpus.separated.tolist() == expected
    assert corpus.vocab_size == 100
    assert {name: part.shape for name, part in rows.items()} == {"held-out": (4, 8), "in-corpus": (4, 8)}


def test_split_separator() -> None:
    separators, token_ids, counts = split_separator(np.array([3, SEPARATOR]), np.array([2, 7]))

    assert (separators, token_ids.tolist(), counts.tolist()) == (7, [3], [2])


def test_suffix_array_check_can_fail() -> None:
    tokens = np.array([1, 0, 1, 0, 0], np.uint16)
    right = np.array(sorted(range(5), key=lambda start: tokens[start:].tolist()))

    assert check_suffix_array(tokens, right) is None
    assert "permutation" in str(check_suffix_array(tokens, np.zeros(5, np.int64)))
    assert "out of order" in str(check_suffix_array(tokens, right[::-1].copy()))


def test_table_tells_a_void_row() -> None:
    rows = [
        Row.of([2.0, 4.0, 3.0], size="10M", section="build", who="corpus_index"),
        Row.of([30.0], size="10M", section="build", who="peer", status="void", note="the oracle differs"),
    ]

    table = render(rows, "corpus_index")

    assert "2 … 4" in table
    assert "10 ×" in table
    assert "VOID; the oracle differs" in table


def test_an_earlier_run_is_reused_whole_or_not_at_all(tmp_path: Path) -> None:
    path, answers = tmp_path / "result.json", tmp_path / "new.npz"
    made = [
        Row.of([1.0], size="10M", section=section, who="rusty-dawg", fingerprint="tokens-queries")
        for section in ("build", "match")
    ]
    path.write_text(json.dumps({"rows": [asdict(row) for row in made]}))
    peer = BY_NAME["rusty-dawg"]
    run = EarlierRun(path)

    assert run.take(peer, "tokens-queries", ["build", "match"], answers) == []  # its answers are gone
    answers_folder(path).mkdir()
    (answers_folder(path) / answers.name).write_bytes(b"answers")
    assert run.take(peer, "other queries", ["build", "match"], answers) == []
    assert run.take(peer, "tokens-queries", ["build", "match", "continuations"], answers) == []
    taken = run.take(peer, "tokens-queries", ["match"], answers)

    assert [(row.section, row.reused) for row in taken] == [("match", True)]
    assert answers.read_bytes() == b"answers"
    assert run.take(BY_NAME["corpus_index"], "tokens-queries", ["match"], answers) == []
