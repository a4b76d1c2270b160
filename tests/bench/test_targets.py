"""The bench of offline targets: pointers say what matching says, and losses are what they are called."""

from __future__ import annotations

import numpy as np
import pytest
from corpus_index import CorpusIndex, build_index

from bench.pointers import make_pointers, match_positions
from bench.targets import FORMATS, OPTIONS, Base, Stored, bfloat16, compare, exact_of, losses

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    """Documents that repeat themselves and each other, some longer than shared lengths are stored."""
    rng = np.random.default_rng(0)
    part = rng.integers(0, 700, 400)
    documents = [part, part[:300], np.tile(part[:20], 40), rng.integers(0, 3, 300), part[:1], np.zeros(0, np.int64)]
    documents += [rng.zipf(1.3, 300) % 700 for _ in range(20)]
    folder = tmp_path_factory.mktemp("targets") / "index"
    return build_index(
        np.concatenate(documents),
        folder,
        doc_starts=np.cumsum([0, *map(len, documents)]),
        vocab_size=700,
    )


@pytest.mark.parametrize("max_order", [0, 1, 2, 5, 260, None])
def test_pointers_equal_matches(index: CorpusIndex, max_order: int | None) -> None:
    ranks = make_pointers(index)
    assert index.array("order")[ranks].tolist() == list(range(index.num_tokens))
    for start, end in zip(index.doc_starts[:-1], index.doc_starts[1:], strict=True):
        if end - start < 2:
            continue
        ids = np.array(index.tokens[start : end - 1], np.int64)
        expected, expected_depth = index.match_nodes(ids, max_order=max_order, starts_document=True)
        actual, depth = match_positions(index, ranks, np.arange(start + 1, end)[None], max_order)
        assert all(np.array_equal(a, b) for a, b in zip(actual, expected, strict=True))
        assert np.array_equal(depth, expected_depth)


def test_losses_equal_dense_sums(index: CorpusIndex) -> None:
    """Of sparse + rest · base, against the definitions over all of V."""
    ids = np.array(index.tokens[100:140], np.int64)
    whole = index.smoothed_targets(ids[:-1], ids[1:], top_k=700, shortlist=None, **OPTIONS)
    probs = whole.base.astype(np.float64)
    probs /= probs.sum()
    base = Base(probs, np.log(probs), float((probs * np.log(probs)).sum()))
    rng = np.random.default_rng(1)
    for q in range(0, 39, 6):
        exact = exact_of(whole, q, 0.0, base)
        for rest in (0.0, 0.25):
            kept = rng.choice(700, 30, replace=False) if rest else np.arange(700)
            part = rng.dirichlet(np.ones(kept.size)) * (1 - rest)
            q_probs = rest * base.probs
            q_probs[kept] += part
            both = exact.probs, q_probs
            expected = [float((b * np.log(b / a)).sum()) for a, b in (both, both[::-1])] + [
                float(np.abs(both[0] - both[1]).sum()) / 2
            ]
            assert losses(exact, base, Stored(kept, part, rest, 0)) == pytest.approx(expected, rel=1e-6)


def test_formats(index: CorpusIndex) -> None:
    """More bytes, less lost; what forgets tokens is infinitely wrong in one direction; pointers lose nothing."""
    rows = {row["format"]: row for row in compare(index, 256, seed=0)}
    assert set(FORMATS) < set(rows)
    assert rows["top-8, scaled up"]["kl_stored_exact"] > rows["top-256, scaled up"]["kl_stored_exact"] > 0
    assert rows["top-8, scaled up"]["kl_exact_stored"] is None
    assert np.isfinite(rows["top-64, rest on the base"]["kl_exact_stored"])
    assert rows["dense bf16"]["bytes"] == 1400
    assert 0 < rows["dense bf16"]["kl_stored_exact"] < 1e-3
    assert rows["random sampling, 12 draws"]["bytes"] <= 36
    assert rows["DistillKit-like, k = 128, 16 kept, 6 terms"]["bytes"] == 128 * 10 / 8 + 32 + 24
    assert rows["pointer"] | {"bytes": 0, "format": ""} == rows["asking the index"] | {"format": ""}


def test_bfloat16_rounds_to_nearest_even() -> None:
    given = np.array([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, 1.0 + 2**-8 + 2**-12, -3.14159])
    assert bfloat16(given).tolist() == [1.0, 1.0, 1.0 + 2**-6, 1.0 + 2**-7, -3.140625]
