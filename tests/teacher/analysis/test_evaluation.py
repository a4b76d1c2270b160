"""The evaluation against naive sums over distributions that are written out over the vocabulary."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from corpus_index import CorpusIndex, SparseTargets

from corpus_teacher.analysis.evaluation import NUM_BINS, Evaluation, evaluate_index
from corpus_teacher.data import BuildOptions, build_index_from_sources
from corpus_teacher.data.indexing import build_index_from_documents
from corpus_teacher.data.tokenizers import ByteTokenizer
from corpus_teacher.errors import ConfigError, QueryError
from corpus_teacher.pages.evaluation import render_evaluation

DOCUMENTS = ["the cat sat on the mat", "the dog sat on the cat. the cat saw", "a dog and a cat", ""]
HELD_OUT = ["the cat sat on a dog", "zebras sat", "the"]
END = 256


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation") / "index"
    build_index_from_documents(DOCUMENTS, ByteTokenizer(), path, name="by hand").close()
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("held-out")
    for number, text in enumerate(HELD_OUT):
        (folder / f"{number}.txt").write_text(text)
    return [str(folder)]


def spread(targets: SparseTargets) -> np.ndarray:
    """Over V."""
    dense = targets.rest.astype(np.float64)[:, None] * targets.base.astype(np.float64)
    for q in range(targets.rest.size):
        part = slice(int(targets.offsets[q]), int(targets.offsets[q + 1]))
        dense[q, targets.token_ids[part]] += targets.probs[part]
    return dense


@pytest.mark.parametrize("estimator", ["mle", "witten-bell", "modified-kneser-ney"])
@pytest.mark.parametrize("top_k", [1, 4, 300])
def test_entropy_and_top_1_equal_the_dense_ones(path: Path, estimator: str, top_k: int) -> None:
    with CorpusIndex.open(path) as index:
        rows = np.array([[END, *b"the cat sat on a"], [*b"zebras and dogs ", 7]])
        targets = index.smoothed_targets(rows, estimator=estimator, max_order=3, top_k=top_k)
    dense = spread(targets)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = -np.where(dense > 0, dense * np.log(dense), 0).sum(axis=1)
    np.testing.assert_allclose(targets.entropy(), expected, atol=1e-9)
    tokens, best = targets.top_tokens()
    np.testing.assert_allclose(best, dense.max(axis=1), rtol=1e-12)
    np.testing.assert_allclose(dense[np.arange(len(dense)), tokens], best, rtol=1e-12)


@pytest.mark.parametrize("estimator", ["witten-bell", "modified-kneser-ney", "auto", "katz", "ppm-c"])
@pytest.mark.parametrize("order", [0, 1, 3, None])
@pytest.mark.parametrize("top_k", [None, 300])
def test_equals_a_loop_over_the_documents(
    path: Path, sources: list[str], estimator: str, order: int | None, top_k: int | None
) -> None:
    """Document by document, each row by itself, dense; sums in plain Python."""
    (score,) = evaluate_index(path, sources, estimators=[estimator], max_orders=[order], top_k=top_k).scores
    nats, entropy, right, lengths = [], [], [], []
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(NUM_BINS)]
    with CorpusIndex.open(path) as index:
        for text in HELD_OUT:
            tokens = [END, *text.encode(), END]
            dense = spread(
                index.smoothed_targets([tokens[:-1]], estimator=estimator, max_order=order, top_k=300, shortlist=None)
            )
            for p, token in zip(dense, tokens[1:], strict=True):
                nats.append(-math.log(p[token]))
                entropy.append(-sum(x * math.log(x) for x in p if x > 0))
                right.append(bool(np.isclose(p[token], p.max(), rtol=1e-9, atol=0)))
                bins[min(int(p.max() * NUM_BINS), NUM_BINS - 1)].append((p.max(), right[-1]))
            lengths += index.match([tokens[:-1]]).match_len[0].tolist()
    size = len(nats)
    assert score.cross_entropy_nats == pytest.approx(sum(nats) / size, rel=1e-5)
    num_bytes = sum(map(len, HELD_OUT))
    assert score.bits_per_byte == pytest.approx(sum(nats) / math.log(2) / num_bytes, rel=1e-5)
    assert score.entropy_nats == pytest.approx(sum(entropy) / size, rel=1e-5)
    assert score.top1 <= sum(right) / size  # ties count for one of them only
    assert score.zero_share == 0
    for actual, entries in zip(score.reliability, bins, strict=True):
        assert actual.share == pytest.approx(len(entries) / size)
        assert actual.confidence == pytest.approx(sum(p for p, _ in entries) / max(len(entries), 1), rel=1e-5)
    expected = sum(one.share * abs(one.accuracy - one.confidence) for one in score.reliability)
    assert score.calibration_error == pytest.approx(expected)
    of_three = [x for x, length in zip(nats, lengths, strict=True) if length == 3]
    (bucket,) = [one for one in score.by_match_len if one.label == "3"]
    assert bucket.share == pytest.approx(len(of_three) / size)
    assert bucket.cross_entropy_nats == pytest.approx(sum(of_three) / len(of_three), rel=1e-5)
    for buckets in (score.by_match_len, score.by_context_count):
        assert sum(one.share for one in buckets) == pytest.approx(1)
        mean = sum(one.share * one.cross_entropy_nats for one in buckets)
        assert mean == pytest.approx(score.cross_entropy_nats)


def test_coverage(path: Path, sources: list[str]) -> None:
    found = evaluate_index(path, sources, estimators=["witten-bell"], max_orders=[1])
    lengths: list[int] = []
    with CorpusIndex.open(path) as index:
        for text in HELD_OUT:
            lengths += index.match([[END, *text.encode()]]).match_len[0].tolist()
    expected = [np.mean([length >= n for length in lengths]) for n in range(65)]
    assert found.coverage == pytest.approx(expected)


def test_probability_zero_is_told(path: Path, sources: list[str]) -> None:
    found = evaluate_index(path, sources, estimators=["mle", "witten-bell"], max_orders=[2])
    score = found.scores[0]
    assert score.cross_entropy_nats == math.inf
    assert score.bits_per_byte == math.inf
    assert 0 < score.zero_share < 1
    page = render_evaluation(found)
    assert "∞" in page
    assert render_evaluation(Evaluation(**{**found.__dict__, "scores": found.scores[:1]})).count("<svg") == 4


def test_the_page_stands_by_itself(path: Path, sources: list[str]) -> None:
    page = render_evaluation(evaluate_index(path, sources, max_orders=[1, 2, None]))
    assert page.count("<svg") == 4
    assert page.index("<svg") < page.index("<table")
    assert set(re.findall(r"https?://[\w.]+", page)) <= {"http://www.w3.org"}
    assert not re.search(r"(src|href)=\"(?!#)", page)
    for words in ("modified-kneser-ney", "ECE", "longest match, in tokens", "Coverage"):
        assert words in page


def test_wrong_options(path: Path, sources: list[str]) -> None:
    with pytest.raises(ConfigError, match="max_order -1"):
        evaluate_index(path, sources, max_orders=[-1])
    with pytest.raises(QueryError, match="no estimator 'best'"):
        evaluate_index(path, ["nowhere"], estimators=["best"])


def test_documents_that_are_repeated_stand_on_the_page_by_name(tmp_path: Path) -> None:
    passage = "a passage that is long enough to be no accident, whoever wrote it <first>"
    for name, text in (("leaked.txt", passage), ("other.txt", "nothing of the kind")):
        (tmp_path / name).write_text(text)
    options = BuildOptions(tokenizer="bytes")
    build_index_from_sources([str(tmp_path / "*.txt")], tmp_path / "i", options)
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "out.txt").write_text(passage)
    found = evaluate_index(tmp_path / "i", [str(tmp_path / "held")], estimators=["witten-bell"], max_orders=[1])
    page = render_evaluation(found)
    assert "Documents that the held-out text repeats" in page
    assert "leaked.txt</td>" in page
    assert "other.txt" not in page
    (tmp_path / "held" / "out.txt").write_text("new words")
    found = evaluate_index(tmp_path / "i", [str(tmp_path / "held")], estimators=["witten-bell"], max_orders=[1])
    assert "repeats</h2>" not in render_evaluation(found)
