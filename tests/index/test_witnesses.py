"""Outside witnesses: tokengrams and rusty-dawg answer the same questions over the same tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpus_index import CorpusIndex, build_index

pytestmark = pytest.mark.live

SEPARATOR = 65_535
VOCAB_SIZE = 60


@pytest.fixture(scope="module")
def documents() -> list[np.ndarray]:
    """Documents with frequent and rare tokens, repeated passages, and some that are short."""
    rng = np.random.default_rng(5)
    lengths = np.concatenate([rng.integers(1, 6, 30), rng.integers(50, 2_000, 30)])
    made = [np.minimum(rng.geometric(0.12, n) - 1, VOCAB_SIZE - 1).astype(np.uint16) for n in lengths]
    return [*made, np.concatenate([made[40][:40], made[50]]), made[45]]


@pytest.fixture(scope="module")
def index(documents: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    return build_index(
        np.concatenate(documents),
        tmp_path_factory.mktemp("witness") / "index",
        doc_starts=np.cumsum([0, *map(len, documents)]),
        vocab_size=VOCAB_SIZE,
    )


def separated(documents: list[np.ndarray]) -> np.ndarray:
    """doc SEP doc SEP …"""
    return np.concatenate([part for document in documents for part in (document, np.array([SEPARATOR], np.uint16))])


def queries(documents: list[np.ndarray]) -> list[list[int]]:
    """Contexts of 1 to 5 tokens: from the corpus, from its seams, and random ones, most of them absent."""
    rng = np.random.default_rng(6)
    flat = np.concatenate(documents)
    found = []
    for length in range(1, 6):
        starts = rng.integers(0, flat.size - length, 60)
        found += [flat[start : start + length].tolist() for start in starts]
        found += rng.integers(0, VOCAB_SIZE, (30, length)).tolist()
    return found


def test_tokengrams(documents: list[np.ndarray], index: CorpusIndex, tmp_path: Path) -> None:
    tokengrams = pytest.importorskip("tokengrams", reason="tokengrams has no wheel for this platform")
    separated(documents).tofile(tmp_path / "tokens.bin")
    peer = tokengrams.MemmapIndex.build(str(tmp_path / "tokens.bin"), str(tmp_path / "peer.idx"), 2**16)
    present = 0
    for ngram in queries(documents):
        assert index.count(ngram) == peer.count(ngram)
        assert (index.count(ngram) > 0) == peer.contains(ngram)
        ours = index.next_tokens(ngram)
        if ours.match_len == len(ngram):
            present += 1
            theirs = np.array(peer.count_next(ngram))[:VOCAB_SIZE]  # the rest is the separator's
            assert dict(zip(ours.token_ids.tolist(), ours.counts.tolist(), strict=True)) == {
                token: int(theirs[token]) for token in np.flatnonzero(theirs).tolist()
            }
    assert present > 100


def test_rusty_dawg(documents: list[np.ndarray], index: CorpusIndex) -> None:
    """The suffix automaton's longest match at every position of unseen and seen text, with its continuations."""
    rusty_dawg = pytest.importorskip("rusty_dawg", reason="rusty-dawg has no wheel for this platform")
    peer = rusty_dawg.Cdawg(separated(documents).tolist())
    peer.build()
    peer.fill_counts()
    rng = np.random.default_rng(7)
    unseen = np.minimum(rng.geometric(0.12, 400) - 1, VOCAB_SIZE - 1)
    for row in (unseen, np.concatenate([documents[40][20:120], documents[50][:200], unseen[:50]])):
        batch = index.next_tokens_batch(row)
        state = peer.get_initial()
        for t, token in enumerate(row.tolist()):
            state = peer.transition_and_count(state, token)
            theirs: dict[int, float] = {}
            for following, share in peer.get_next_tokens(state):
                theirs[following] = theirs.get(following, 0.0) + share
            ended = theirs.pop(SEPARATOR, 0.0)
            if not theirs:
                continue  # the corpus holds the match at the ends of documents only, where nothing follows
            ours = batch.at(0, t)
            assert ours.match_len == state.get_length()
            assert set(theirs) == set(ours.token_ids.tolist())
            for following, count in zip(ours.token_ids.tolist(), ours.counts.tolist(), strict=True):
                assert count / ours.context_count == pytest.approx(theirs[following] / (1 - ended), rel=1e-4)
