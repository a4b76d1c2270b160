"""Text from the corpus teacher: what is drawn is what the targets say, seeded, with its evidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpus_index import CorpusIndex

from corpus_teacher.analysis.sample import sample_index, sample_sequences
from corpus_teacher.data.drawing import DrawOptions
from corpus_teacher.data.indexing import build_index_from_documents, build_token_index
from corpus_teacher.data.pipeline import TokenFile
from corpus_teacher.data.tokenizers import ByteTokenizer
from corpus_teacher.errors import ConfigError, QueryError

DOCUMENTS = ["abracadabra", "a cab, a bra", "bad cab", "a bra"]
END = 256


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sampling") / "index"
    build_index_from_documents(DOCUMENTS, ByteTokenizer(), path, name="by hand").close()
    return path


@pytest.fixture(scope="module")
def index(path: Path) -> CorpusIndex:
    return CorpusIndex.open(path)


def probabilities(index: CorpusIndex, context: list[int], starts_document: bool, **options: object) -> np.ndarray:
    targets = index.smoothed_targets(
        [context], top_k=index.vocab_size, shortlist=None, starts_document=starts_document, **options
    )
    part = slice(int(targets.offsets[-2]), int(targets.offsets[-1]))
    p = targets.rest[-1] * targets.base.astype(np.float64)
    np.add.at(p, targets.token_ids[part], targets.probs[part])
    return p


@pytest.mark.parametrize("estimator", ["witten-bell", "modified-kneser-ney"])
@pytest.mark.parametrize("prompt", ["", "a"])
def test_frequencies_are_the_targets(index: CorpusIndex, estimator: str, prompt: str) -> None:
    """Every step is drawn from the target after the whole text so far, though only its end is looked at."""
    num = 4000
    options = {"estimator": estimator, "max_order": 2}
    drawn = sample_sequences(index, prompt=list(prompt.encode()), num=num, length=4, seed=3, **options)  # type: ignore[arg-type]
    for known in ("", "a", "a ", "a b", "br"):
        rows = (drawn.tokens[:, : len(known)] == list(known.encode())).all(axis=1)
        tokens = drawn.tokens[rows, len(known)]
        if tokens.size < 200:
            continue
        context = [*prompt.encode(), *known.encode()] if prompt else [END, *known.encode()]
        expected = probabilities(index, context, False, **options)
        actual = np.bincount(tokens, minlength=index.vocab_size) / tokens.size
        assert np.abs(actual - expected).max() < 4.5 * np.sqrt(0.25 / tokens.size)


def test_evidence_is_that_of_the_index(index: CorpusIndex) -> None:
    drawn = sample_sequences(index, num=20, length=6, max_order=3, seed=1)
    for row in range(20):
        tokens = drawn.tokens[row][drawn.tokens[row] >= 0]
        match = index.match([[END, *tokens[:-1]]], max_order=3)
        assert drawn.match_len[row, : tokens.size].tolist() == match.match_len[0].tolist()
        assert drawn.context_count[row, : tokens.size].tolist() == (match.hi - match.lo)[0].tolist()


def test_a_sequence_ends_with_its_document(index: CorpusIndex) -> None:
    drawn = sample_sequences(index, num=50, length=60, draw=DrawOptions(top_p=0.9), seed=0)
    for row in drawn.tokens:
        ends = np.flatnonzero(row == END)
        assert ends.size <= 1
        if ends.size:
            assert (row[ends[0] + 1 :] == -1).all()
    assert (drawn.tokens == END).sum() > 25


@pytest.mark.parametrize("explicit", [None, 8])
def test_a_seed_repeats_a_run(index: CorpusIndex, explicit: int | None) -> None:
    options = {"num": 5, "length": 20, "draw": DrawOptions(temperature=1.3), "explicit": explicit}
    first, second = (sample_sequences(index, seed=7, **options) for _ in range(2))  # type: ignore[arg-type]
    assert first.tokens.tolist() == second.tokens.tolist()
    assert first.tokens.tolist() != sample_sequences(index, seed=8, **options).tokens.tolist()  # type: ignore[arg-type]


def test_no_temperature_gives_the_most_probable(index: CorpusIndex) -> None:
    drawn = sample_sequences(index, prompt=list(b"abr"), num=3, length=4, draw=DrawOptions(temperature=0))
    assert {bytes(row.tolist()) for row in drawn.tokens[:, :1]} == {b"a"}


def test_without_an_end_of_document_token(tmp_path: Path) -> None:
    corpus = TokenFile(np.array([1, 2, 2, 3, 2, 1], np.uint16), np.array([0, 3, 6]))
    with build_token_index(corpus, None, tmp_path / "index", vocab_size=5) as bare:
        drawn = sample_sequences(bare, num=400, length=3, max_order=2, seed=0)
        assert set(drawn.tokens[:, 0].tolist()) == {1, 3}
        assert (drawn.tokens >= 0).all()
        after_one = drawn.tokens[drawn.tokens[:, 0] == 1, 1]
        expected = probabilities(bare, [1], True, max_order=2)
        assert np.abs(np.bincount(after_one, minlength=5) / after_one.size - expected).max() < 0.15
    with build_token_index(corpus, None, tmp_path / "other", vocab_size=5) as bare:
        assert sample_sequences(bare, num=2, length=9, max_order=None).num_tokens == 18
        assert sample_sequences(bare, num=2, length=9, max_order=0).num_tokens == 18


def test_the_answer_in_words(path: Path) -> None:
    answer = sample_index(path, "abra", num=2, length=12, seed=4, evidence=True)
    for sample in answer.samples:
        assert sample.num_tokens == len(sample.tokens) <= 12
        assert "".join(one.text for one in sample.tokens).removesuffix("<|endoftext|>") == sample.text
        assert sample.tokens[0].order == 4
        assert sample.tokens[0].count == 2
    assert answer.num_tokens == sum(sample.num_tokens for sample in answer.samples)
    assert answer.tokens_per_s > 0
    assert sample_index(path, num=1, length=3).samples[0].tokens == []


@pytest.mark.parametrize("option", [{"num": 0}, {"length": 0}, {"explicit": 0}, {"max_order": -1}])
def test_wrong_options(path: Path, option: dict[str, int]) -> None:
    with pytest.raises((ConfigError, QueryError), match=r"at least|0 or more"):
        sample_index(path, **option)  # type: ignore[arg-type]
