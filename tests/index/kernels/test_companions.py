"""Shared lengths and continuations by rank, around the length from which neighbours are compared in another way."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from corpus_index import build_index
from corpus_index._kernels.companions import NEAR
from corpus_index.warming import as_if_large


def naive(documents: list[list[int]]) -> tuple[list[int], list[int], list[int]]:
    """Positions by their contexts, what follows each, and what each context shares with the one before it.

    A context is read backwards, from the nearest token to the start of its document (−1), which counts, and beyond it
    through the documents before, so that equal ones have an order; nothing is shared beyond the start.
    """
    contexts, position = [], 0
    for number, document in enumerate(documents):
        before = [symbol for other in documents[number - 1 :: -1] if number for symbol in [*other[::-1], -1]]
        for place, token in enumerate(document):
            contexts.append(([*document[:place][::-1], -1], before, position, token))
            position += 1
    contexts.sort()
    shared = [0]
    for (one, *_), (other, *_) in pairwise(contexts):
        same = 0
        while same < min(len(one), len(other)) and one[same] == other[same]:
            same += 1
        shared.append(min(same, 255))
    return [context[2] for context in contexts], [context[3] for context in contexts], shared


@pytest.mark.parametrize("seed", range(4))
def test_neighbours_of_any_shared_length(tmp_path: Path, seed: int) -> None:
    """Documents that begin or end alike, for fewer tokens than NEAR, as many, more, and more than 255."""
    rng = np.random.default_rng(seed)
    same = rng.integers(0, 3, 300).tolist()
    documents = []
    for length in [*range(NEAR - 3, NEAR + 4), 3, 1, 254, 255, 256, 300]:
        documents += [
            same[:length],
            [*same[300 - length :], 3 + seed],
            [*same[:length], *rng.integers(0, 3, 2).tolist()],
        ]
    documents = [documents[k] for k in rng.permutation(len(documents))]
    tokens = np.concatenate(documents)
    starts = np.cumsum([0, *(len(document) for document in documents)])
    order, following, shared = naive(documents)
    for workers in (1, 3):
        with as_if_large(), build_index(tokens, tmp_path / f"{workers}", doc_starts=starts, workers=workers) as index:
            arrays = {
                name: np.fromfile(tmp_path / f"{workers}" / f"{name}.bin", dtype) for name, dtype in TYPES.items()
            }
            assert arrays["next_tokens"].tolist() == following
            assert arrays["common"].tolist() == shared
            assert arrays["order"].tolist() == order
            assert index.num_tokens == tokens.size


TYPES = {"order": np.uint32, "next_tokens": np.uint16, "common": np.uint8}
