"""Every smoothed estimator gives every token of the vocabulary a probability above 0, however long the match is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import corpus_index.reference.estimators as naive
import numpy as np
import pytest
from corpus_index import ESTIMATORS, CorpusIndex, SparseTargets
from corpus_index.reference.engine import ReferenceIndex

pytestmark = pytest.mark.slow

Make = Callable[..., CorpusIndex]

VOCAB_SIZE = 8  # ids 6 and 7 are in no corpus
SMOOTHED = [name for name in ESTIMATORS if name != "mle"]
PASSAGE = np.random.default_rng(5).integers(0, 6, 90).tolist()
CORPORA: dict[str, list[list[int]]] = {
    "one token, 1,200 times": [[2] * 1200] * 3 + [[1, 3]],  # a half to this power is 0 in float64
    "a document, 30 times": [PASSAGE] * 30 + [[0, 5, 1]],
    "a passage inside of documents": [[k % 6, *PASSAGE, 5 - k % 6] for k in range(20)],
}


LONG = (1, 2, 60, 300, 700, 1000, 1021, 1022, 1023, 1050, 1073, 1074, 1075, 1076, 1100, 1150)
"""Lengths of long contexts: float64 has no normal numbers from 2⁻¹⁰²³ on, and none at all from 2⁻¹⁰⁷⁵ on."""


def lowest(targets: SparseTargets) -> float:
    """The least probability of any token at any position, in float32 as a loss adds it up."""
    least = np.float32(1)
    for q in range(targets.rest.size):
        part = slice(targets.offsets[q], targets.offsets[q + 1])
        p = targets.rest[q] * targets.base
        p[targets.token_ids[part]] += targets.probs[part]
        assert p.dtype == np.float32
        assert p.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
        least = min(least, p.min())
    return float(least)


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("leave_out", [None, "self", "document"])
def test_no_token_has_probability_0(make_index: Make, name: str, corpus: str, leave_out: str | None) -> None:
    index = make_index(CORPORA[corpus], vocab_size=VOCAB_SIZE)
    sizes = LONG if corpus == "one token, 1,200 times" else range(1, 81)
    row = index.tokens[: max(sizes)].astype(np.int64)
    options: dict[str, Any] = {"estimator": index.fitted(name), "leave_out": leave_out, "positions": [0]}
    for part in (row[:size] for size in sizes) if sizes is LONG else (row,):
        following = np.append(part[1:], row[0])
        for top_k in (VOCAB_SIZE, 1):
            assert lowest(index.smoothed_targets(part, following, top_k=top_k, only_last=sizes is LONG, **options)) > 0
    if leave_out is None:
        asked = np.isin(np.arange(1, row.size + 1), sizes)
        for label in range(VOCAB_SIZE) if sizes is not LONG else (1, 2, 7):
            following = np.where(asked, label, -1)
            assert (index.next_probabilities(row, following, **options)[asked] > 0).all()


@pytest.mark.parametrize("name", ["witten-bell", "stupid-backoff"])
def test_the_twin_stops_where_the_engine_does(make_index: Make, name: str) -> None:
    """To the last digits, where less than that is passed on."""
    documents = [[2] * 120, [1, 3, 2, 0]]
    index, reference = make_index(documents, vocab_size=VOCAB_SIZE), ReferenceIndex(documents, VOCAB_SIZE)
    twin = {"witten-bell": naive.witten_bell, "stupid-backoff": naive.stupid_backoff}[name]
    row = [2] * 100
    expected = twin(reference, row)
    actual = [float(index.next_probabilities(row, [-1] * 99 + [w], estimator=name)[-1]) for w in range(VOCAB_SIZE)]
    assert actual == pytest.approx(expected, rel=1e-9, abs=0)
    assert 0 < min(expected) < naive.LEAST_MASS
